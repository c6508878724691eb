"""Figures of the benchmark: ratios against their goals, growth with the number of images, and curves of losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from scanbook.reporting.plots.style import INK, WIDTH, bar, headline, line, row_labels, styled, whiskers


@styled
def ratios(rows: Sequence[dict[str, Any]]) -> Figure:
    """Every ratio as a share of its goal, so that more is better for all; the axis is logarithmic.

    Args:
        rows: `name`, `ratio` with `low` and `high`, `goal`, `direction` ("≥" or "≤") and `reached`; rows without a
            ratio or a goal are left out.
    """
    shown = [row for row in rows if row["ratio"] is not None and row["goal"]]
    figure, axis = plt.subplots(figsize=(WIDTH, 0.42 * len(shown) + 1.3))

    def share(row: dict[str, Any], key: str) -> float:
        return row[key] / row["goal"] if row["direction"] == "≥" else row["goal"] / row[key]

    shares = np.array([share(row, "ratio") for row in shown])
    ends = np.sort([[share(row, key) for key in ("low", "high")] for row in shown], axis=1)
    for kind, (word, reached) in enumerate((("goal reached", True), ("goal missed", False))):
        places = [place for place, row in enumerate(shown) if bool(row["reached"]) is reached]
        if places:
            look = bar(0 if kind == 0 else 3)
            axis.barh(places, shares[places] - 1, 0.6, left=1, label=word, **look)
    whiskers(axis, range(len(shown)), ends[:, 0], ends[:, 1], vertical=False)
    axis.axvline(1, color=INK, linewidth=1.2)
    axis.set_xscale("log", base=2)
    low, high = min(ends.min(), 0.8), max(ends.max(), 1.25)
    for place, row in enumerate(shown):
        goal = f"goal {row['direction']} {row['goal']:.3g}"
        axis.annotate(
            f"{row['ratio']:.3g}× ({goal})",
            (max(ends[place, 1], 1.0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_xlim(low / 1.25, high * (high / low) ** 0.35 * 1.4)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:.3g}"))
    row_labels(axis, [row["name"] for row in shown])
    axis.set(xlabel="ratio as a share of its goal (right of 1: better than the goal)")
    axis.set_title("scanbook against the usual practice (whiskers: least and greatest pair)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def growth(found: dict[str, Any]) -> Figure:
    """Seconds by step, and memory, against the number of images; all axes are logarithmic.

    Args:
        found: `steps`; `points`, by number of images: `n`, seconds of each step and in all (`seconds`), and GiB of `own
            memory` and `memory`; `exponents` of the seconds; and `within`, GB that own memory should not pass, if any.
    """
    figure, (time, memory) = plt.subplots(1, 2, figsize=(WIDTH + 1, 3.6 + 0.2 * len(found["steps"])))
    counts = np.array([point["n"] for point in found["points"]], float)
    names = {"seconds": "in all", **{step: step for step in found["steps"]}}
    for place, (key, name) in enumerate(names.items()):
        values = [point[key] for point in found["points"]]
        time.plot(counts, values, label=f"{name}, exponent {found['exponents'][key]:.2f}", **line(place))
    first = found["points"][0]["seconds"]
    time.plot(counts, first * counts / counts[0], color=INK, linewidth=1, linestyle=":", label="linear")
    for place, (key, name) in enumerate({"memory": "peak", "own memory": "that no file backs"}.items()):
        memory.plot(counts, [point[key] for point in found["points"]], label=name, **line(place))
    if "within" in found:
        goal = found["within"] * 1e9 / 2**30
        memory.axhline(goal, color=INK, linewidth=1, linestyle=":", label=f"{found['within']:g} GB")
    time.set_yscale("log")
    time.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    memory.set_ylim(0, 1.1 * max(found.get("within", 0.0), *(point["memory"] for point in found["points"])))
    for axis in (time, memory):
        axis.set_xscale("log")
        axis.set_xticks(counts, [f"{count:,.0f}" for count in counts])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("images")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    time.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.10g}"))
    time.yaxis.set_minor_formatter(NullFormatter())
    time.set(ylabel="time, s")
    memory.set(ylabel="memory, GiB")
    time.set_title("Time")
    memory.set_title("Memory")
    headline(figure, "Growth with the number of images")
    return figure


@styled
def curves(networks: Sequence[dict[str, Any]]) -> Figure:
    """Losses by epoch, of one process and of two on top of each other; a panel a network.

    Args:
        networks: `backbone`, and `curves`: by number of processes, "1" and "2", `loss` and `validation_loss`, a list an
            epoch.
    """
    figure, axes = plt.subplots(1, len(networks), figsize=(max(3.4 * len(networks), 4.5), 4.2), squeeze=False)
    looks = {"loss": ("training", "-", "o"), "validation_loss": ("validation", "--", "s")}
    for axis, network in zip(axes.flat, networks, strict=True):
        for key, (name, dash, marker) in looks.items():
            one, two = (network["curves"][count][key] for count in ("1", "2"))
            epochs = np.arange(1, len(one) + 1)
            # the wide one shows on both sides of the thin one, in colour or not
            axis.plot(epochs, one, dash, color="#BBBBBB", linewidth=6, label=f"{name}, one process")
            look = {"color": "black", "linewidth": 1.1, "marker": marker, "markersize": 5, "markerfacecolor": "white"}
            axis.plot(epochs, two, dash, label=f"{name}, two processes", **look)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epoch", ylabel="loss (cross-entropy, nats)")
        axis.set_ylim(0, 1.08 * max(max(side[key]) for side in network["curves"].values() for key in looks))
        axis.set_title(network["backbone"])
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    headline(figure, "Loss of one process and of two")
    return figure
