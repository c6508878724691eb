"""The figure of the projection: how long a study would take on each machine, and what that would cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from scanbook.plots.style import COLOURS, INK, headline, row_labels, styled

_LOOKS = {"training": (COLOURS[0], "o", -0.19), "features": (COLOURS[1], "s", 0.19)}
"""Colour, dark and light, and marker of each stage, and where it stands in the row of its machine."""


@styled
def hours(studies: Sequence[dict[str, Any]]) -> Figure:
    """Hours of training and of features by machine, from the best to the worst case, with their cost beside them.

    Args:
        studies: Of each, `title`, and `projections`: `machine`, `stage`, `hours` and `usd`, each with `low` and `high`;
            `usd` is None where no price is known.
    """
    machines = list(dict.fromkeys(row["machine"] for each in studies for row in each["projections"]))
    height = 0.8 * len(machines) + 1.1
    figure, axes = plt.subplots(len(studies), 1, figsize=(8.6, height * len(studies) + 0.6), squeeze=False, sharex=True)
    ends = [row["hours"][end] for each in studies for row in each["projections"] for end in ("low", "high")]
    for axis, study in zip(axes.flat, studies, strict=True):
        for row in study["projections"]:
            _bar(axis, machines.index(row["machine"]), row)
        row_labels(axis, machines)
        axis.set_title(study["title"])
        axis.set_xscale("log")
        axis.set_xlim(min(ends) / 1.6, max(ends) * 12)  # room for the costs
        axis.xaxis.set_major_locator(LogLocator(numticks=12))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.4g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes.flat[-1].set_xlabel("time, hours (logarithmic); from the best to the worst case")
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, linewidth=7, markeredgecolor=INK, label=stage)
        for stage, (colour, marker, _) in _LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    headline(figure, "What whole studies would take: projected, not measured, but for this machine's speed")
    return figure


def _bar(axis: Axes, place: int, row: dict[str, Any]) -> None:
    colour, marker, offset = _LOOKS[row["stage"]]
    low, high = row["hours"]["low"], row["hours"]["high"]
    axis.plot([low, high], [place + offset] * 2, color=colour, linewidth=7, solid_capstyle="butt", zorder=3)
    look = {"linestyle": "", "marker": marker, "markersize": 6, "markerfacecolor": "white", "markeredgecolor": INK}
    axis.plot([low, high], [place + offset] * 2, zorder=4, **look)
    text = "no price" if row["usd"] is None else f"{_usd(row['usd'])} USD"
    place_of = (high, place + offset)
    axis.annotate(text, place_of, (8, 0), textcoords="offset points", va="center", fontsize=8.5, color=INK)


def _usd(cost: dict[str, float]) -> str:
    low, high = (f"{cost[end]:,.0f}" if cost[end] >= 9.95 else f"{cost[end]:.2g}" for end in ("low", "high"))
    return low if low == high else f"{low} to {high}"
