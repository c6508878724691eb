"""Figures of training by threads, and of where the time goes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter, ScalarFormatter
from numpy.typing import ArrayLike

from scanbook.reporting.plots.style import (
    COLOURS,
    INK,
    WHITE,
    WIDTH,
    bar,
    count_of,
    headline,
    line,
    note,
    readable,
    row_labels,
    styled,
    whiskers,
)

_BESIDE = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8, "bbox": WHITE}


@styled
def training_bars(strong: pd.DataFrame, title: str) -> Figure:
    """Seconds of a training epoch by arm, and how many times as fast as the first each is.

    Args:
        strong: A row an arm: `arm`, `threads`, `seconds` (median), `low`, `high` (fastest and slowest epoch) and
            `speedup` over the first.
        title: What was trained, on which machine, how often.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1.5 + 0.45 * len(strong)))
    places = np.arange(len(strong))
    for kind, (arm, rows) in enumerate(strong.assign(place=places).groupby("arm", sort=False)):
        axis.barh(rows["place"], rows["seconds"], 0.6, **bar(kind), label=arm)
    whiskers(axis, places, strong["low"], strong["high"], vertical=False)
    for place, row in zip(places, strong.itertuples(), strict=True):
        text = f"{row.seconds:.3g} s" + (f", {row.speedup:.3g} ×" if place else "")
        axis.annotate(text, (max(row.high, row.seconds), place), (6, 0), textcoords="offset points", va="center")
    row_labels(axis, [_arm(row.arm, row.threads) for row in strong.itertuples()])
    axis.set(xlabel="seconds an epoch of training", xlim=(0, 1.25 * strong[["seconds", "high"]].to_numpy().max()))
    headline(figure, f"{title} (whiskers: fastest and slowest epoch)")
    return figure


def _arm(name: str, threads: int) -> str:
    return name if name == "GPU" else f"{name}, {count_of(threads, 'thread')}"


@styled
def scaling_curves(strong: pd.DataFrame, weak: pd.DataFrame, law: pd.DataFrame | None, title: str) -> Figure:
    """Strong scaling: speed-up of the same work over threads. Weak scaling: efficiency where the work grows with them.

    Args:
        strong: A row a number of threads: `threads`, `seconds`, `low`, `high` (fastest and slowest epoch), `speedup`
            and `efficiency`. Rows without an efficiency, a GPU's, are left out.
        weak: The same, of work that grows with the threads.
        law: Amdahl's law as it fits the strong arms: `threads`, `speedup`, and `low` and `high` of its 95 % interval;
            None draws none.
        title: What was trained, on which machine, how often.
    """
    strong = strong[strong["efficiency"].notna()]
    most = int(strong["threads"].max())
    if most == 1:
        return note("one thread: nothing to scale")
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH + 1, 3.8))
    ideal = {"color": INK, "linestyle": "--", "linewidth": 1.2, "label": "ideal"}
    left.plot([1, most], [1, most], **ideal)
    if law is not None:
        band = {"color": COLOURS[1], "alpha": 0.3, "linewidth": 0, "label": "its 95 % interval"}
        left.plot(law["threads"], law["speedup"], color=COLOURS[1], linestyle="-.", label="Amdahl's law, fitted")
        left.fill_between(law["threads"], law["low"], law["high"], **band)
    one = strong["seconds"].iloc[0]
    look = line(0) | ({} if law is None else {"linestyle": ""})  # the fit is the line, where there is one
    left.plot(strong["threads"], strong["speedup"], label="measured", **look)
    whiskers(left, strong["threads"], one / strong["high"], one / strong["low"])
    for place, row in enumerate(strong.itertuples()):
        if place:
            left.annotate(f"{row.speedup:.2f}", (row.threads, row.speedup), (-18, -10), **_BESIDE)
    left.set_yscale("log", base=2)
    bottom = 0.75 * min(1.0, float((one / strong["high"]).min()))
    top = 1.12 * max(most, float((one / strong["low"]).max()))
    _plain_ticks(left.yaxis, 2.0 ** np.arange(np.ceil(np.log2(bottom)), np.floor(np.log2(top)) + 1))
    left.set(ylabel="speed-up over one thread", ylim=(bottom, top))
    left.set_title("Strong scaling: the same work")
    right.axhline(1, **ideal)
    for place, (name, table) in enumerate((("the same work (strong)", strong), ("work grows (weak)", weak))):
        right.plot(table["threads"], table["efficiency"], label=name, **line(place))
        ratio = table["efficiency"] * table["seconds"]
        whiskers(right, table["threads"], ratio / table["high"], ratio / table["low"])
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set(ylabel="efficiency (speed-up / threads)", ylim=(0, None))
    right.set_title("Efficiency: strong and weak scaling")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        _plain_ticks(axis.xaxis, sorted(strong["threads"].unique()))
        axis.set_xlabel("threads")
        axis.legend(loc="upper left" if axis is left else "lower left")
    headline(figure, f"{title} (whiskers: fastest and slowest epoch)")
    return figure


def _plain_ticks(axis: Axis, numbers: ArrayLike) -> None:
    axis.set_major_formatter(ScalarFormatter())
    axis.set_ticks(numbers)
    axis.set_minor_locator(NullLocator())


@styled
def stage_bars(table: pd.DataFrame, title: str, column: str = "seconds", unit: str = "seconds") -> Figure:
    """Where the time goes: a bar a stage, or a step, with its share of the whole.

    Args:
        table: Index: names; `column`, and `share`, NaN for what comes once and is no part of the whole. Where it has
            `stages`, names say how many there are.
        title: What took the time.
        column: What a bar's length is.
        unit: Of that column.
    """
    if table.empty:
        return note("no stage was asked for")
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.36 * len(table)))
    places, values = np.arange(len(table)), table[column].to_numpy(float)
    outside = table["share"].isna().to_numpy()
    for kind, which in enumerate((~outside, outside)):
        if which.any():
            axis.barh(places[which], values[which], 0.6, **bar(kind))
    for place, (value, share) in enumerate(zip(values, table["share"], strict=True)):
        said = "once, not every epoch" if np.isnan(share) else f"{share:.0%}"
        axis.annotate(f"{value:.3g}, {said}", (value, place), (4, 0), textcoords="offset points", va="center")
    counts = table["stages"] if "stages" in table else pd.Series(1, table.index)
    row_labels(axis, [f"{readable(name)} ({count})" if count > 1 else name for name, count in counts.items()])
    axis.set(xlabel=unit, xlim=(0, 1.3 * max(values.max(), 1e-9)))
    axis.set_title(title)
    return figure
