"""The figure of cost: what an hour costs, how long a prediction takes, and so what a prediction costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from scanbook.reporting.plots.style import COLOURS, INK, QUIET, WHITE, WIDTH, headline, note, styled

# The published networks' markers; this machine's is a diamond
_SHAPES = ("o", "s", "^", "v", "P", "X")
_WHAT_IF = "this machine, if it cost what "


@styled
def cost_of_prediction(table: pd.DataFrame, title: str, pair: tuple[str, str] | None = None) -> Figure:
    """Time of a prediction over the price of an hour; along a dotted line a prediction costs the same.

    Both axes are logarithmic, so that lines of equal cost are straight. An arrow goes from a dearer hour to a cheaper
    one, and a dashed line through its start is where a prediction costs what it costs there: where the arrow ends above
    that line, the cheaper hour is the dearer prediction. Published instances have a panel of their own; the other one
    has this machine too.

    Args:
        table: one row a place and network, columns where, network, usd_per_hour (USD), milliseconds (mean, one at a
            time) and kind: "published"; "measured", this machine; or "what-if", this machine at another's price.
        title: what was measured, and how.
        pair: `where` of the dearer and of the cheaper hour that arrows join, network by network; None for no arrow.
    """
    shown = table[(table["usd_per_hour"] > 0) & (table["milliseconds"] > 0)]
    published = shown[shown["kind"] == "published"]
    here = shown[shown["kind"] != "published"]
    panels = [("Published", published, True)] if len(published) else []
    panels += [("With this machine" if len(published) else "This machine", shown, False)] if len(here) else []
    if not panels:
        return note("No price is known: nothing to show.")
    figure, axes = plt.subplots(
        1, len(panels), figsize=(WIDTH + 4 * (len(panels) - 1), 5), squeeze=False, layout="constrained"
    )
    for axis, (name, rows, labelled) in zip(axes.flat, panels, strict=True):
        _limits(axis, rows)
        _equal_costs(axis)
        _published(axis, rows[rows["kind"] == "published"], pair, labelled)
        _this_machine(axis, rows[rows["kind"] != "published"])
        axis.set(xlabel="price of an hour, USD", ylabel="mean time of one prediction, ms")
        axis.set_title(name)
    drawn = [axis.get_legend_handles_labels() for axis in axes.flat]
    handles = {name: handle for each in drawn for handle, name in zip(*each, strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    headline(figure, title)
    return figure


def _published(axis: Axes, published: pd.DataFrame, pair: tuple[str, str] | None, labelled: bool) -> None:
    names = _short(published["where"])
    for place, (network, rows) in enumerate(published.groupby("network", sort=False)):
        look = {"color": COLOURS[place % len(COLOURS)], "marker": _SHAPES[place % len(_SHAPES)], "markeredgecolor": INK}
        times = rows["usd_per_hour"], rows["milliseconds"]
        axis.plot(*times, linestyle="", markersize=9, zorder=5, label=f"{network}, published", **look)
        if not labelled:
            continue
        joined = pair if pair and set(pair) <= set(rows["where"]) else ()
        for _, row in rows.iterrows():
            side = (
                {"offset": (-9, 0), "ha": "right"} if row["where"] in joined[1:] else {"offset": (8, 5), "ha": "left"}
            )
            _label(axis, row, names[row["where"]], va="center" if row["where"] in joined[1:] else "bottom", **side)
        if joined:
            same = f"a prediction costs what it costs on {names[joined[0]]}"
            _arrow(axis, *(rows[rows["where"] == each].iloc[0] for each in joined), same)


def _this_machine(axis: Axes, here: pd.DataFrame) -> None:
    names = _short(each.removeprefix(_WHAT_IF).removesuffix(" costs") for each in here["where"])
    for network, each in here.groupby("network", sort=False):
        rows = each.sort_values("usd_per_hour")
        known = rows["kind"].eq("measured").all()
        # hollow and joined by a line where the price is not known: it is one machine at several prices
        look = {"markerfacecolor": COLOURS[2] if known else "white", "markeredgecolor": INK, "color": INK}
        name = f"this machine, {network}" + ("" if known else ", if it cost what these cost")
        times = rows["usd_per_hour"], rows["milliseconds"]
        axis.plot(*times, "-", marker="D", markersize=8, linewidth=0.8, zorder=5, label=name, **look)
        for _, row in rows.iterrows() if not known else ():
            short = names[row["where"].removeprefix(_WHAT_IF).removesuffix(" costs")]
            _label(axis, row, short, offset=(3, -8), ha="right", va="top", rotation=50)


def _short(instances: Iterable[str]) -> dict[str, str]:
    """Names without what all have in common: "ml.m5.xlarge" → "m5"; "ml." stays where it tells two apart."""
    found = {name: name.removesuffix(".xlarge") for name in instances}
    bare = {name: short.removeprefix("ml.") for name, short in found.items()}
    several = {short for short in bare.values() if list(bare.values()).count(short) > 1}
    return {name: short if bare[name] in several else bare[name] for name, short in found.items()}


def _label(axis: Axes, row: pd.Series, text: str, *, offset: tuple[int, int], **look: Any) -> None:
    place = row["usd_per_hour"], row["milliseconds"]
    axis.annotate(text, place, offset, textcoords="offset points", fontsize=9, zorder=6, **look)


def _arrow(axis: Axes, old: pd.Series, new: pd.Series, same: str) -> None:
    """From the dearer hour to the cheaper one, with what changes: the hour, and a prediction; `same` names the line."""
    ends = [(each["usd_per_hour"], each["milliseconds"]) for each in (new, old)]
    look = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.8, "shrinkA": 7, "shrinkB": 7, "mutation_scale": 16}
    axis.annotate("", *ends, arrowprops=look, zorder=4)
    cost = old["usd_per_hour"] * old["milliseconds"]
    span = np.array([0.93 * new["usd_per_hour"], 1.03 * old["usd_per_hour"]])
    axis.plot(span, cost / span, color=INK, linestyle="--", linewidth=1.2, zorder=3, label=same)
    hour = new["usd_per_hour"] / old["usd_per_hour"] - 1
    prediction = new["usd_per_hour"] * new["milliseconds"] / cost - 1
    text = f"hour {100 * hour:+.0f} %\nprediction {100 * prediction:+.0f} %".replace("-", "−")
    middle = tuple(np.sqrt(np.prod(ends, axis=0)))
    look = {"ha": "right", "va": "top", "fontsize": 10, "fontweight": "bold", "bbox": WHITE, "zorder": 6}
    axis.annotate(text, middle, (-12, -14), textcoords="offset points", **look)


def _limits(axis: Axes, rows: pd.DataFrame) -> None:
    axis.set(xscale="log", yscale="log")
    for column, margin, limit, ticked in (
        ("usd_per_hour", 1.25, axis.set_xlim, axis.xaxis),
        ("milliseconds", 1.8, axis.set_ylim, axis.yaxis),
    ):
        low, high = rows[column].min() / margin, rows[column].max() * margin
        # room for the slanted names below this machine's points
        low = low / 2 if column == "milliseconds" and rows["kind"].eq("what-if").any() else low
        limit(low, high)
        steps = (1, 1.5, 2, 2.5, 3, 5, 7) if high / low < 10 else (1, 2, 5) if high / low < 2000 else (1,)
        ticks = [step * 10.0**power for power in range(-5, 8) for step in steps]
        ticked.set_major_locator(FixedLocator([each for each in ticks if low <= each <= high]))
        ticked.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.4g}"))
        ticked.set_minor_formatter(NullFormatter())
        ticked.set_tick_params(which="minor", length=0)


def _equal_costs(axis: Axes) -> None:
    """Lines on which a million predictions cost the same, labelled where they leave the axes."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    least, most = left * bottom / 3.6, right * top / 3.6  # USD per million = USD an hour × ms ÷ 3.6
    steps = (1, 2, 5) if most / least < 500 else (1,)
    for cost in (step * 10.0**power for power in range(-6, 8) for step in steps):
        if least < cost < most:
            axis.plot([left, right], [3.6 * cost / left, 3.6 * cost / right], ":", color=QUIET, linewidth=1.2, zorder=1)
            place, look = (right, 3.6 * cost / right), {"ha": "left", "va": "center", "xytext": (4, 0)}
            if place[1] < bottom:  # it leaves at the bottom
                place, look = (3.6 * cost / bottom, bottom), {"ha": "left", "va": "bottom", "xytext": (5, 2)}
            if place[1] < top and place[0] > 1.03 * left:
                text = f"{cost:,.4g} USD"
                axis.annotate(text, place, textcoords="offset points", fontsize=8.5, color=INK, **look)
    look = {"rotation": 270, "va": "center", "ha": "left", "fontsize": 8.5, "color": INK}
    offset = (56, 0)
    axis.annotate("dotted: cost of a million predictions", (1, 0.5), offset, "axes fraction", "offset points", **look)
