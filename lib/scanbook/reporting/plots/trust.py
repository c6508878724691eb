"""Figures of how far to trust a model: by prevalence, by confidence, by subgroup and by seed."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from numpy.typing import ArrayLike

from scanbook.evaluation import LEAST_IMAGES, METRICS
from scanbook.reporting.plots.style import (
    COLOURS,
    INK,
    QUIET,
    WHITE,
    WIDTH,
    headline,
    line,
    readable,
    row_labels,
    styled,
    whiskers,
)

_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@styled
def prevalence_curve(table: pd.DataFrame, title: str, stated: float | None = None) -> Figure:
    """What a positive and a negative answer are worth, over how common the finding is.

    Args:
        table: index prevalence, columns ppv and npv with their `_low` and `_high`, as `evaluation.prevalence_curve`
            gives.
        title: of which finding, and on how many images its sensitivity and specificity were measured.
        stated: prevalence where the model is to be used, to be marked; None marks none. Beyond the table's prevalences
            the values there read "not known".
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 4.2))
    shares = table.index.to_numpy(np.float64)
    names = {"ppv": "PPV, the called positive that are", "npv": "NPV, the called negative that are not"}
    for place, (name, words) in enumerate(names.items()):
        look, columns = line(place), [name, f"{name}_low", f"{name}_high"]
        label = words
        if stated is not None:
            beyond = {"left": np.nan, "right": np.nan}
            at = [float(np.interp(np.log(stated), np.log(shares), table[column], **beyond)) for column in columns]
            axis.plot(stated, at[0], look["marker"], color=look["color"], markersize=8, zorder=5)
            known = f"{at[0]:.1%} ({at[1]:.1%} to {at[2]:.1%})" if np.isfinite(at).all() else "not known"
            label += f"; at {_percent(stated)}: {known}"
        _band(axis, shares, table[columns[1]], table[columns[2]], place)
        axis.plot(shares, table[name], color=look["color"], linestyle=look["linestyle"], label=label)
    if stated is not None:
        axis.axvline(stated, color=INK, linestyle=":", linewidth=1.2, label=f"stated prevalence: {_percent(stated)}")
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator([each for each in _TICKS if shares[0] <= each <= shares[-1]]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: _percent(share)))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set(xlim=(shares[0], shares[-1]), ylim=(0, 1.03))
    axis.set(xlabel="prevalence: share of images that are positive (logarithmic)", ylabel="predictive value")
    axis.set_title(title)
    figure.legend(loc="outside lower center", title="bands and brackets: 95 % interval")
    return figure


@styled
def coverage_curve(table: pd.DataFrame, title: str, chosen: pd.DataFrame | None = None) -> Figure:
    """Accuracy on the images that a model answers, over the share it answers, and the confidence this takes.

    Args:
        table: index coverage, columns answered, value, low, high and threshold, as `evaluation.coverage_curve` gives.
        title: of which model, and on how many images.
        chosen: the rows coverage and accuracy, columns value, low, high, as `evaluation.abstention` gives; marked with
            the intervals of both.
    """
    figure, (axis, below) = plt.subplots(2, 1, figsize=(WIDTH * 0.8, 5.4), height_ratios=(3, 1.2), sharex=True)
    shares = table["answered"].to_numpy()
    _band(axis, shares, table["low"], table["high"], 0)
    axis.plot(shares, table["value"], **line(0), label="the surest share answered (band: 95 % interval)")
    everything = table.loc[table["answered"].idxmax(), "value"]
    axis.axhline(everything, color=QUIET, linestyle=":", linewidth=1.2, label=f"every image coverage: {everything:.1%}")
    if chosen is not None and np.isfinite(chosen.loc["accuracy", "value"]):
        share, right = chosen.loc["coverage"], chosen.loc["accuracy"]
        whiskers(axis, [share["value"]], [right["low"]], [right["high"]])
        whiskers(axis, [right["value"]], [share["low"]], [share["high"]], vertical=False)
        words = f"threshold from validation: {right['value']:.1%} of {share['value']:.1%} answered"
        axis.plot(share["value"], right["value"], "D", color=COLOURS[3], markersize=8, label=words)
    below.plot(shares, table["threshold"], **line(2))
    axis.set(ylabel="accuracy on the answered")
    # From answering everything, on the left, to answering only the surest.
    below.set(xlabel="share of images answered, the surest first", ylabel="lowest\nconfidence", xlim=(1.02, 0.0))
    for each in (axis.xaxis, axis.yaxis):
        each.set_major_formatter(PercentFormatter(1))
    axis.set_title(title)
    figure.legend(loc="outside lower center", fontsize=8.5)
    return figure


@styled
def subgroup_bars(table: pd.DataFrame, title: str, overall: pd.DataFrame | None = None) -> Figure:
    """Metrics of each subgroup with their 95 % intervals, a panel a metric, with the number of images.

    Args:
        table: index subgroup and metric, columns images, groups, value, low, high, as `evaluation.subgroups` gives.
        title: by which attribute, and on how many images.
        overall: index metric, column value, as `evaluation.summary` gives: the value of all images, drawn as a line.
    """
    names, metrics = table.index.unique("subgroup"), table.index.unique("metric")
    figure, grid = plt.subplots(
        1, len(metrics), figsize=(max(WIDTH, 3.6 * len(metrics)), 1.4 + 0.38 * len(names)), squeeze=False, sharey=True
    )
    for place, (axis, metric) in enumerate(zip(grid.flat, metrics, strict=True)):
        part = table.xs(metric, level="metric").loc[names]
        if overall is not None and metric in overall.index:
            value = overall.loc[metric, "value"]
            axis.axvline(value, color=COLOURS[3], linestyle="--", linewidth=1.4, label=f"all images: {value:.3f}")
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize=8.5)
        whiskers(axis, range(len(part)), part["low"], part["high"], vertical=False)
        axis.plot(part["value"], range(len(part)), line(place)["marker"], color=COLOURS[0], markersize=6)
        for row in np.flatnonzero(part["value"].isna()):
            look = {"ha": "center", "va": "center", "color": INK, "bbox": WHITE}
            words = "too few images" if part["images"].iloc[row] < LEAST_IMAGES else "not defined"
            axis.text(0.5, row, words, transform=axis.get_yaxis_transform(), **look)
        row_labels(axis, [f"{readable(name)} (n = {part.loc[name, 'images']:,})" for name in names])
        axis.set_xlabel(f"{METRICS[metric].title if metric in METRICS else readable(metric)} (whiskers: 95 % interval)")
        axis.xaxis.set_major_locator(MaxNLocator(5))
    grid[0, 0].set_ylabel("subgroup")
    headline(figure, title)
    return figure


@styled
def seed_dots(table: pd.DataFrame, title: str) -> Figure:
    """How far metrics of the same training scatter over seeds: a dot a seed, its distance from their mean.

    Args:
        table: index metric, columns "seed <seed>" each, mean, sd, min and max, as `evaluation.over_seeds` gives.
        title: of which model, and on how many images.
    """
    seeds = [name for name in table.columns if str(name).startswith("seed ")]
    figure, axis = plt.subplots(figsize=(WIDTH, 1.5 + 0.4 * len(table)))
    rows = np.arange(len(table))
    axis.axvline(0, color=INK, linewidth=1.2, label="mean")
    axis.hlines(rows, table["min"] - table["mean"], table["max"] - table["mean"], color=QUIET, linewidth=1)
    for place, seed in enumerate(seeds):
        look = line(place)
        # Apart in height, so that equal figures do not hide each other.
        lift = 0.15 * (place - (len(seeds) - 1) / 2) / max(1, (len(seeds) - 1) / 2)
        axis.plot(table[seed] - table["mean"], rows + lift, look["marker"], color=look["color"], label=seed)
    for row, (mean, sd) in enumerate(table[["mean", "sd"]].to_numpy(float)):
        words = f"{mean:.3f} ± {sd:.3f}" if np.isfinite(sd) else f"{mean:.3f}" if np.isfinite(mean) else "not defined"
        axis.annotate(words, (1.01, row), xycoords=axis.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    reach = 1.1 * np.nanmax(np.abs(table[seeds].sub(table["mean"], axis=0).to_numpy()), initial=0.005)
    axis.set_xlim(-reach, reach)
    row_labels(axis, [METRICS[name].title if name in METRICS else name for name in table.index])
    axis.set(xlabel="seed's value − mean over seeds (right: mean ± standard deviation)", ylabel="metric")
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=min(6, len(seeds) + 1))
    return figure


def _band(axis: Axes, places: ArrayLike, low: ArrayLike, high: ArrayLike, place: int) -> None:
    """An interval along a curve, with edges that show in black and white."""
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    axis.fill_between(places, low, high, color=COLOURS[place], alpha=0.2, linewidth=0)
    for edge in (low, high):
        axis.plot(places, edge, color=COLOURS[place], linewidth=0.6, alpha=0.7)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
