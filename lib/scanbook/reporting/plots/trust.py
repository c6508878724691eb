"""Figures of reliability: by prevalence, by confidence, by subgroup, by corruption and by seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from scanbook.evaluation import LEAST_IMAGES, METRICS
from scanbook.reporting.plots import style
from scanbook.reporting.plots.names import name_of

_PREVALENCES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@style.styled
def prevalence_curve(table: pd.DataFrame, title: str, stated: float | None = None) -> Figure:
    """Draw the predictive values of a positive and of a negative answer over the prevalence.

    Args:
        table: Index prevalence, columns ppv and npv with their `_low` and `_high`, as `evaluation.prevalence_curve`
            gives.
        title: Of which class or target, and on how many images its sensitivity and specificity were measured.
        stated: Prevalence where the model is to be used, to be marked; None marks none. Beyond the table's prevalences
            the values there read "not known".
    """
    figure, axis = style.subplots(figsize=(style.WIDTH, 4.2))
    shares = table.index.to_numpy(np.float64)
    labels = {
        "ppv": "PPV: share of positive answers that are correct",
        "npv": "NPV: share of negative answers that are correct",
    }
    for index, (name, meaning) in enumerate(labels.items()):
        look, columns, label = style.line(index), [name, f"{name}_low", f"{name}_high"], meaning
        if stated is not None:
            beyond = {"left": np.nan, "right": np.nan}
            value, low, high = (
                np.interp(np.log(stated), np.log(shares), table[column], **beyond) for column in columns
            )
            axis.plot(stated, value, look["marker"], color=look["color"], markersize=8, zorder=5)
            ends = f" ({low:.1%} to {high:.1%})" if np.isfinite([low, high]).all() else ""  # none of a single patient
            text = f"{value:.1%}{ends}" if np.isfinite(value) else "not known"
            label += f"; at {_percent(stated)}: {text}"
        style.band(axis, shares, table[columns[1]], table[columns[2]], look["color"])
        axis.plot(shares, table[name], color=look["color"], linestyle=look["linestyle"], label=label)
    if stated is not None:
        axis.axvline(
            stated, color=style.INK, linestyle=":", linewidth=1.2, label=f"stated prevalence: {_percent(stated)}"
        )
    axis.set_xscale("log")
    style.plain_ticks(axis.xaxis, FixedLocator([share for share in _PREVALENCES if shares[0] <= share <= shares[-1]]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: _percent(share)))
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set(xlim=(shares[0], shares[-1]), ylim=(0, 1.03))
    axis.set(xlabel="prevalence: share of images that are positive (logarithmic)", ylabel="predictive value")
    axis.set_title(title)
    figure.legend(loc="outside lower center", title="bands and brackets: 95 % interval")
    return figure


@style.styled
def coverage_curve(table: pd.DataFrame, title: str, chosen: pd.DataFrame | None = None) -> Figure:
    """Draw accuracy on the images that a model answers, and the confidence that this requires, over the coverage.

    Args:
        table: Index coverage, columns answered, value, low, high and threshold, as `evaluation.coverage_curve` gives.
        title: Of which model, and on how many images.
        chosen: Rows coverage and accuracy, columns value, low, high, as `evaluation.abstention` gives; marked with
            the intervals of both.
    """
    figure, (axis, below) = style.subplots(2, 1, figsize=(style.WIDTH * 0.8, 5.4), height_ratios=(3, 1.2), sharex=True)
    shares = table["answered"].to_numpy()
    style.band(axis, shares, table["low"], table["high"], style.COLOURS[0])
    axis.plot(shares, table["value"], **style.line(0), label="most confident answers (band: 95 % interval)")
    overall = table.loc[table["answered"].idxmax(), "value"]
    axis.axhline(overall, color=style.QUIET, linestyle=":", linewidth=1.2, label=f"all images answered: {overall:.1%}")
    if chosen is not None and np.isfinite(chosen.loc["accuracy", "value"]):
        coverage, accuracy = chosen.loc["coverage"], chosen.loc["accuracy"]
        style.whiskers(axis, [coverage["value"]], [accuracy["low"]], [accuracy["high"]])
        style.whiskers(axis, [accuracy["value"]], [coverage["low"]], [coverage["high"]], vertical=False)
        label = f"threshold from validation: {accuracy['value']:.1%} of {coverage['value']:.1%} answered"
        axis.plot(coverage["value"], accuracy["value"], "D", color=style.COLOURS[3], markersize=8, label=label)
    below.plot(shares, table["threshold"], **style.line(2))
    axis.set(ylabel="accuracy on answered images")
    # from answering everything, on the left, to answering only the most confident
    below.set(xlabel="share of images answered, most confident first", ylabel="lowest\nconfidence", xlim=(1.02, 0.0))
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(PercentFormatter(1))
    axis.set_title(title)
    figure.legend(loc="outside lower center", fontsize=8.5)
    return figure


@style.styled
def subgroup_bars(table: pd.DataFrame, title: str, overall: pd.DataFrame | None = None) -> Figure:
    """Draw metrics of each subgroup with their 95 % intervals, one panel per metric, with the number of images.

    Of more than 30 subgroups, those with the highest and the lowest values of the first metric are shown.

    Args:
        table: Index subgroup and metric, columns images, groups, value, low, high, as `evaluation.subgroups` gives.
        title: By which attribute, and on how many images.
        overall: Index metric, column value, as `evaluation.summary` gives: the value of all images, drawn as a line.
    """
    metrics = table.index.unique("metric")
    values = table["value"].xs(metrics[0], level="metric")
    names, note = style.extremes(values, "subgroups", ("with the highest", "with the lowest values"))
    size = (max(style.WIDTH, 3.6 * len(metrics)), 1.4 + 0.38 * len(names))
    figure, grid = style.subplots(1, len(metrics), figsize=size, squeeze=False, sharey=True)
    for index, (axis, metric) in enumerate(zip(grid.flat, metrics, strict=True)):
        rows = table.xs(metric, level="metric").loc[names]
        if overall is not None and metric in overall.index:
            value = overall.loc[metric, "value"]
            axis.axvline(value, color=style.COLOURS[3], linestyle="--", linewidth=1.4, label=f"all images: {value:.3f}")
            axis.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, fontsize=8.5)
        style.whiskers(axis, range(len(rows)), rows["low"], rows["high"], vertical=False)
        axis.plot(rows["value"], range(len(rows)), style.line(index)["marker"], color=style.COLOURS[0], markersize=6)
        for row in np.flatnonzero(rows["value"].isna()):
            look = {"ha": "center", "va": "center", "color": style.INK, "bbox": style.WHITE}
            text = "too few images" if rows["images"].iloc[row] < LEAST_IMAGES else "not defined"
            axis.text(0.5, row, text, transform=axis.get_yaxis_transform(), **look)
        style.row_labels(axis, [f"{name_of(name)} (n = {rows.loc[name, 'images']:,})" for name in names])
        style.split_extremes(axis, len(names), note)
        axis.set_xlabel(
            f"{METRICS[metric].title if metric in METRICS else style.readable(metric)} (whiskers: 95 % interval)"
        )
        axis.xaxis.set_major_locator(MaxNLocator(5))
    grid[0, 0].set_ylabel("subgroup")
    style.headline(figure, f"{title}\n{note}".strip())
    return figure


@style.styled
def seed_dots(table: pd.DataFrame, title: str, of: str = "seed") -> Figure:
    """Draw the spread of metrics of the same training over seeds or folds: each one's distance from their mean.

    Args:
        table: Index metric, a column for each seed or fold, mean, sd, min and max, as `evaluation.over_seeds` gives.
        title: Of which model, and on how many images.
        of: "seed" or "fold".
    """
    seeds = [name for name in table.columns if name not in ("mean", "sd", "min", "max")]
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.5 + 0.4 * len(table)))
    rows = np.arange(len(table))
    axis.axvline(0, color=style.INK, linewidth=1.2, label="mean")
    axis.hlines(rows, table["min"] - table["mean"], table["max"] - table["mean"], color=style.QUIET, linewidth=1)
    # different heights, so that equal values do not hide each other
    for index, (seed, lift) in enumerate(zip(seeds, _spread(len(seeds), 0.3), strict=True)):
        look = style.line(index)
        axis.plot(table[seed] - table["mean"], rows + lift, look["marker"], color=look["color"], label=seed)
    for row, (mean, sd) in enumerate(table[["mean", "sd"]].to_numpy(float)):
        text = f"{mean:.3f} ± {sd:.3f}" if np.isfinite(sd) else f"{mean:.3f}"
        style.label_row(axis, text if np.isfinite(mean) else "not defined", row)
    reach = 1.1 * np.nanmax(np.abs(table[seeds].sub(table["mean"], axis=0).to_numpy()), initial=0.005)
    axis.set_xlim(-reach, reach)
    style.row_labels(axis, [METRICS[name].title if name in METRICS else name for name in table.index])
    axis.set(xlabel=f"{of}'s value − mean over {of}s (right: mean ± standard deviation)", ylabel="metric")
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=min(6, len(seeds) + 1))
    return figure


@style.styled
def standings(values: Mapping[str, Sequence[float]], metric: str) -> Figure:
    """Draw the value of each seed, and their mean, of each configuration of a sweep; of many, of the first 30.

    Args:
        values: Of each seed, by configuration, the first one on top.
        metric: Title of the metric.
    """
    if np.isnan(np.concatenate(list(values.values()))).all():
        return style.note(f"{metric}: not defined")
    shown = dict(itertools.islice(values.items(), style.MOST_ROWS))
    figure, axis = style.subplots(figsize=(style.WIDTH, 0.36 * len(shown) + 1.3))
    for row, of_seeds in enumerate(shown.values()):
        look = {"color": style.COLOURS[0], "marker": "o", "linestyle": "none", "markerfacecolor": "white"}
        axis.plot(of_seeds, row + _spread(len(of_seeds), 0.5), **look, label="" if row else "one seed")
        look = {"color": style.INK, "marker": "|", "linestyle": "none", "markersize": 16, "markeredgewidth": 2.2}
        axis.plot([np.mean(of_seeds)], [row], **look, label="" if row else "mean of the seeds")
    style.row_labels(axis, list(shown))
    first = f"; the first {len(shown)} of {len(values):,} configurations" if len(shown) < len(values) else ""
    axis.set(xlabel=f"{metric}, validation images{first}")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _spread(count: int, most: float) -> NDArray[np.float64]:
    """Return offsets `(count,)` around 0, at most `most` apart in all, that keep equal values visible."""
    return (np.arange(count) - (count - 1) / 2) * min(0.14, most / count)


@style.styled
def corruption_preview(examples: Mapping[str, Sequence[NDArray[np.uint8]]]) -> Figure:
    """Draw one image under each corruption, one row per corruption, from the original to the most severe.

    Args:
        examples: By kind, RGB images `(h, w, 3)`, uint8, one per severity from 0.
    """
    severities = max(map(len, examples.values())) - 1
    columns = ["original", *(f"severity {severity}" for severity in range(1, severities + 1))]
    figure = style.image_table(list(examples.values()), columns, side=1.2, names=list(map(_title, examples)))
    style.headline(figure, f"{style.count_of(len(examples), 'corruption')} at {severities} severities")
    return figure


@style.styled
def robustness_curves(frame: pd.DataFrame) -> Figure:
    """Draw accuracy over the severity of each corruption, with its 95 % interval; dashed: on the original images.

    Args:
        frame: One row per kind and severity: kind, severity (from 0), accuracy, low, high, images.
    """
    kinds = frame["kind"].unique()
    figure, axes = style.subplots(1, len(kinds), figsize=(style.WIDTH + 1.5, 2.9), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        rows = frame[frame["kind"] == kind].sort_values("severity")
        style.band(axis, rows["severity"], rows["low"], rows["high"], style.COLOURS[0])
        axis.plot(rows["severity"], rows["accuracy"], color=style.COLOURS[0], marker="o")
        axis.axhline(rows["accuracy"].iloc[0], color=style.INK, linestyle="--", linewidth=1)
        axis.set_title(_title(kind))
        axis.set(xlabel="severity", xticks=rows["severity"].tolist())
    axes[0, 0].set_ylabel("accuracy, share of images")
    count = style.count_of(int(frame["images"].iloc[0]), "image")
    style.headline(
        figure, f"Accuracy by severity of corruption ({count}; band: 95 % interval; dashed: original images)"
    )
    return figure


def _title(kind: str) -> str:
    return "JPEG" if kind == "jpeg" else style.readable(kind).capitalize()


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
