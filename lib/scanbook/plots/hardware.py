"""Figures of speed: training by threads, inference by engine and batch."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from scanbook.plots.style import INK, WHITE, WIDTH, bar, headline, line, readable, styled, whiskers


@styled
def speed_bars(table: pd.DataFrame, title: str, by: str = "threads") -> Figure:
    """Training time, speed-up and efficiency by number of threads (or processes, or devices).

    Args:
        table: a row per number, columns `by` (int), seconds, low, high (fastest and slowest epoch), speedup
            (seconds of the first row over this row's) and efficiency (speed-up over the ratio of the numbers).
        title: what was trained, on which machine, how often.
        by: the column that was varied.
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH + 1, 3.2))
    places = np.arange(len(table))
    ideal = (table[by] / table[by].iloc[0]).to_numpy(float)
    panels = (
        ("Training time", "seconds", "training time, s", None),
        ("Speed-up", "speedup", "speed-up (first bar: 1)", ideal),
        ("Efficiency", "efficiency", "speed-up / ideal speed-up", np.ones(len(table))),
    )
    for place, (axis, (name, column, unit, target)) in enumerate(zip(axes, panels, strict=True)):
        bars = axis.bar(places, table[column], 0.6, **bar(place))
        if column == "seconds":
            whiskers(axis, places, table["low"], table["high"])
        axis.bar_label(bars, fmt="%.3g", fontsize=8, label_type="center", bbox=WHITE)
        if target is not None:
            axis.plot(places, target, color=INK, linestyle="--", marker="_", markersize=18, label="ideal")
        if column == "speedup":
            axis.legend(loc="upper left")
        axis.set_xticks(places, [f"{number:g}" for number in table[by]])
        axis.margins(y=0.12)
        axis.grid(visible=False, axis="x")
        axis.set(xlabel=readable(by), ylabel=unit)
        axis.set_title(name)
    headline(figure, f"{title} (whiskers: fastest and slowest epoch)")
    return figure


@styled
def throughput_by_batch(table: pd.DataFrame, title: str) -> Figure:
    """Images per second of each inference engine over batch sizes; both axes are logarithmic.

    Args:
        table: columns engine, batch, images_per_second (median of windows), low, high (quartiles).
        title: which model, on which machine, how often.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 4))
    for place, (engine, rows) in enumerate(table.sort_values("batch", kind="stable").groupby("engine")):
        whiskers(axis, rows["batch"], rows["low"], rows["high"])
        axis.plot(rows["batch"], rows["images_per_second"], label=readable(engine), **line(place))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sorted(table["batch"].unique()))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.4g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set(xlabel="batch, images", ylabel="images per second")
    axis.set_title(f"{title} (whiskers: quartiles of the windows)")
    axis.legend(title="engine", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
