"""The figure of cost: the price of an hour, the time of a prediction, and their product, the cost of a prediction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from scanbook.reporting.plots import style

_SHAPES = ("o", "s", "^", "v", "P", "X")
"""Markers of the published networks; this machine's is a diamond."""
_WHAT_IF = "this machine, if it cost what "


@style.styled
def cost_of_prediction(table: pd.DataFrame, title: str, pair: tuple[str, str] | None = None) -> Figure:
    """Draw the time of a prediction over the price of an hour; along a dotted line a prediction costs the same.

    Both axes are logarithmic, so that lines of equal cost are straight. An arrow goes from a more expensive hour to a
    cheaper one. The dashed line through its start shows the cost of a prediction there: where the arrow ends above
    that line, a prediction is more expensive although the hour is cheaper. Published instances have their own panel;
    the other panel also shows this machine.

    Args:
        table: One row per place and network, columns where, network, usd_per_hour (USD), milliseconds (mean, one at a
            time) and kind: "published"; "measured", this machine; or "what-if", this machine at another's price.
        title: What was measured, and how.
        pair: `where` of the more expensive and of the cheaper hour that arrows join, for each network; None for no
            arrow.
    """
    rows = table[(table["usd_per_hour"] > 0) & (table["milliseconds"] > 0)]
    published = rows[rows["kind"] == "published"]
    panels = [("Published", published)] if len(published) else []
    if len(rows) > len(published):
        panels.append(("With this machine" if len(published) else "This machine", rows))
    if not panels:
        return style.note("No price is known: nothing to show.")
    size = (style.WIDTH + 4 * (len(panels) - 1), 5)
    figure, axes = style.subplots(1, len(panels), figsize=size, squeeze=False)
    handles = {}
    for axis, (name, of_panel) in zip(axes.flat, panels, strict=True):
        _set_limits(axis, of_panel)
        _draw_equal_costs(axis)
        _draw_published(axis, published, pair, labelled=of_panel is published)
        _draw_this_machine(axis, of_panel[of_panel["kind"] != "published"])
        axis.set(xlabel="price of an hour, USD", ylabel="mean time of one prediction, ms")
        axis.set_title(name)
        handles |= {handle.get_label(): handle for handle in axis.get_legend_handles_labels()[0]}
    figure.legend(handles=handles.values(), loc="outside lower center", ncols=2)
    style.headline(figure, title)
    return figure


def _draw_published(axis: Axes, published: pd.DataFrame, pair: tuple[str, str] | None, *, labelled: bool) -> None:
    names = _short(published["where"])
    for index, (network, rows) in enumerate(published.groupby("network", sort=False)):
        look = {
            "color": style.COLOURS[index % len(style.COLOURS)],
            "marker": _SHAPES[index % len(_SHAPES)],
            "markeredgecolor": style.INK,
        }
        label, points = f"{network}, published", (rows["usd_per_hour"], rows["milliseconds"])
        axis.plot(*points, linestyle="", markersize=9, zorder=5, label=label, **look)
        if not labelled:
            continue
        joined = pair if pair and set(pair) <= set(rows["where"]) else ()
        for _, row in rows.iterrows():
            place = {"xytext": (8, 5), "ha": "left", "va": "bottom"}
            if row["where"] in joined[1:]:
                place = {"xytext": (-9, 0), "ha": "right", "va": "center"}
            _label(axis, row, names[row["where"]], **place)
        if joined:
            ends = [rows[rows["where"] == where].iloc[0] for where in joined]
            _draw_arrow(axis, *ends, f"same cost of a prediction as on {names[joined[0]]}")


def _draw_this_machine(axis: Axes, here: pd.DataFrame) -> None:
    instances = here["where"].str.removeprefix(_WHAT_IF).str.removesuffix(" costs")
    names = _short(instances)
    for network, rows in here.assign(instance=instances).sort_values("usd_per_hour").groupby("network", sort=False):
        priced = rows["kind"].eq("measured").all()
        # hollow and joined by a line where the price is not known: it is one machine at several prices
        look = {
            "markerfacecolor": style.COLOURS[2] if priced else "white",
            "markeredgecolor": style.INK,
            "color": style.INK,
        }
        label = f"this machine, {network}" + ("" if priced else ", at the prices of these instances")
        points = rows["usd_per_hour"], rows["milliseconds"]
        axis.plot(*points, "-", marker="D", markersize=8, linewidth=0.8, zorder=5, label=label, **look)
        for _, row in rows.iterrows() if not priced else ():
            _label(axis, row, names[row["instance"]], xytext=(3, -8), ha="right", va="top", rotation=50)


def _short(instances: Iterable[str]) -> dict[str, str]:
    """Return names without what all share: "ml.m5.xlarge" → "m5"; "ml." stays where it distinguishes two."""
    names = {name: name.removesuffix(".xlarge") for name in instances}
    bare = [name.removeprefix("ml.") for name in names.values()]
    return {
        name: text if bare.count(short) > 1 else short for (name, text), short in zip(names.items(), bare, strict=True)
    }


def _label(axis: Axes, row: pd.Series, text: str, **look: Any) -> None:
    point = row["usd_per_hour"], row["milliseconds"]
    axis.annotate(text, point, textcoords="offset points", fontsize=9, zorder=6, **look)


def _draw_arrow(axis: Axes, old: pd.Series, new: pd.Series, label: str) -> None:
    """Draw an arrow from the more expensive hour to the cheaper one, with the changes of price and cost.

    Args:
        axis: Where to draw.
        old: The row of the more expensive hour.
        new: The row of the cheaper hour.
        label: Name of the dashed line of equal cost.
    """
    ends = [(row["usd_per_hour"], row["milliseconds"]) for row in (new, old)]
    look = {"arrowstyle": "-|>", "color": style.INK, "linewidth": 1.8, "shrinkA": 7, "shrinkB": 7, "mutation_scale": 16}
    axis.annotate("", *ends, arrowprops=look, zorder=4)
    cost = old["usd_per_hour"] * old["milliseconds"]
    span = np.array([0.93 * new["usd_per_hour"], 1.03 * old["usd_per_hour"]])
    axis.plot(span, cost / span, color=style.INK, linestyle="--", linewidth=1.2, zorder=3, label=label)
    hour = new["usd_per_hour"] / old["usd_per_hour"] - 1
    prediction = new["usd_per_hour"] * new["milliseconds"] / cost - 1
    text = f"hour {100 * hour:+.0f} %\nprediction {100 * prediction:+.0f} %".replace("-", "−")
    look = {"ha": "right", "va": "top", "fontsize": 10, "fontweight": "bold", "bbox": style.WHITE, "zorder": 6}
    axis.annotate(text, tuple(np.sqrt(np.prod(ends, axis=0))), (-12, -14), textcoords="offset points", **look)


def _set_limits(axis: Axes, rows: pd.DataFrame) -> None:
    axis.set(xscale="log", yscale="log")
    # space for the slanted names below this machine's points
    below = 3.6 if rows["kind"].eq("what-if").any() else 1.8
    for column, margins, set_limits, scale in (
        ("usd_per_hour", (1.25, 1.25), axis.set_xlim, axis.xaxis),
        ("milliseconds", (below, 1.8), axis.set_ylim, axis.yaxis),
    ):
        low, high = rows[column].min() / margins[0], rows[column].max() * margins[1]
        set_limits(low, high)
        style.plain_ticks(scale, LogLocator(subs=(1, 1.5, 2, 2.5, 3, 5, 7) if high / low < 10 else (1, 2, 5)))


def _draw_equal_costs(axis: Axes) -> None:
    """Draw lines on which a million predictions cost the same, labelled where they leave the axes."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    least, most = left * bottom / 3.6, right * top / 3.6  # USD per million = USD an hour × ms ÷ 3.6
    look = {"textcoords": "offset points", "fontsize": 8.5, "color": style.INK, "ha": "left"}
    for cost in LogLocator(subs=(1, 2, 5) if most / least < 500 else (1,)).tick_values(least, most):
        if least < cost < most:
            axis.plot(
                [left, right], [3.6 * cost / left, 3.6 * cost / right], ":", color=style.QUIET, linewidth=1.2, zorder=1
            )
            point, place = (right, 3.6 * cost / right), {"xytext": (4, 0), "va": "center"}
            if point[1] < bottom:  # it leaves at the bottom
                point, place = (3.6 * cost / bottom, bottom), {"xytext": (5, 2), "va": "bottom"}
            if point[1] < top and point[0] > 1.03 * left:
                axis.annotate(f"{cost:,.4g} USD", point, **look, **place)
    name = "dotted: cost of a million predictions"
    axis.annotate(name, (1, 0.5), (56, 0), "axes fraction", rotation=270, va="center", **look)
