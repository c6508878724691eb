"""Figures of results: metrics with intervals, confusions, curves, calibration, explanations and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from scanbook.evaluation import METRICS, Difference, Predictions, per_class, reliability, summary
from scanbook.reporting.plots.style import (
    COLOURS,
    INK,
    QUIET,
    WIDTH,
    caption,
    count_of,
    headline,
    line,
    note,
    readable,
    row_labels,
    styled,
    whiskers,
)

_MOST_COUNTS = 12


@styled
def metric_bars(
    table: pd.DataFrame, title: str, unit: str = "value", references: Mapping[str, float] | None = None
) -> Figure:
    """Values with their 95 % intervals, one a row.

    Args:
        table: columns value, low, high; the index names the rows (metrics, models or subgroups).
        title: what is shown, and on how many images.
        unit: name of the value's axis.
        references: values to mark with a line, such as {"majority class": 0.67, "Bayes": 0.93}.
    """
    rows = [METRICS[name].title if name in METRICS else name for name in table.index]
    figure, axis = plt.subplots(figsize=(WIDTH, 1.2 + 0.34 * len(table)))
    whiskers(axis, range(len(table)), table["low"], table["high"], vertical=False)
    axis.plot(table["value"], range(len(table)), "o", color=COLOURS[0], markersize=6)
    for row, (value, low, high) in enumerate(table[["value", "low", "high"]].to_numpy(float)):
        words = f"{value:.3f}  ({low:.3f} to {high:.3f})" if np.isfinite(value) else "not defined"
        axis.annotate(words, (1.01, row), xycoords=axis.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    for place, (name, value) in enumerate((references or {}).items(), start=1):
        look = line(place)
        axis.axvline(value, color=look["color"], linestyle=look["linestyle"], label=f"{name}: {value:.3f}")
    row_labels(axis, rows)
    axis.set(xlabel=f"{unit} (whiskers: 95 % interval)", ylabel=readable(table.index.names[-1] or "metric"))
    axis.set_title(title)
    if references:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def confusion_matrix(table: pd.DataFrame) -> Figure:
    """Which class is taken for which: counts, and shares of each true class.

    Args:
        table: (k, k) counts, true class down, predicted class across, as `evaluation.confusion` gives.
    """
    counts, k = table.to_numpy(), len(table)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [readable(name) for name in table.columns]
    side, room = float(np.clip(0.85 * k, 2.2, 8)), 0.08 * max(map(len, names))
    figure, axis = plt.subplots(figsize=(side + room + 1.6, side + room + 0.7))
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if k <= _MOST_COUNTS:
            words = f"{counts[row, column]:,}\n{shares[row, column]:.0%}"
        else:
            words = f"{counts[row, column]:,}" if counts[row, column] else ""
        ink = "white" if shares[row, column] > 0.55 else INK if counts[row, column] else QUIET
        axis.text(column, row, words, ha="center", va="center", color=ink, fontsize=9 if k <= _MOST_COUNTS else 7)
    axis.set_xticks(range(k), names, rotation=40 if k > 2 else 0, ha="right" if k > 2 else "center")
    axis.set_yticks(range(k), [f"{name} (n = {n:,})" for name, n in zip(names, counts.sum(axis=1), strict=True)])
    axis.grid(visible=False)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.set_title(f"Confusion matrix ({count_of(int(counts.sum()), 'image')})")
    if k > _MOST_COUNTS:
        figure.colorbar(image, label="share of the true class", format=PercentFormatter(1), shrink=0.6)
    return figure


@styled
def roc_curves(predictions: Predictions, rounds: int = 1000, seed: int = 0) -> Figure:
    """One-vs-rest ROC curves and their mean, with AUROC and its 95 % interval over patients.

    Of two classes, whose curves mirror each other, the second is drawn. The mean is over sensitivities at equal
    false-positive rates. Classes without images have no curve.

    Args:
        predictions: n images.
        rounds: resamples for the intervals.
        seed: of the resamples.
    """
    table = per_class(predictions, rounds, seed)
    binary = len(predictions.classes) == 2
    figure, axis = plt.subplots(figsize=(WIDTH, 4.6))
    steps = np.linspace(0, 1, 201)
    curves = []
    for place, name in enumerate(predictions.classes):
        row = table.loc[name]
        if np.isnan(row["auroc"]) or (binary and place == 0):
            continue
        truth = predictions.y_true == place
        false, true, _ = roc_curve(truth, predictions.probabilities[:, place])
        curves.append(np.r_[0, np.interp(steps[1:], false, true)])
        words = f"{readable(name)} (n = {row['support']:,.0f}): {_with_interval(row, 'auroc')}"
        axis.plot(false, true, **line(place), markevery=0.1, linewidth=1.3, label=words)
    if len(curves) > 1:
        row = summary(predictions, ("auroc",), rounds, seed).loc["auroc"]
        axis.plot(steps, np.mean(curves, axis=0), color=INK, linewidth=3.5, label=f"mean: {_with_interval(row)}")
    axis.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1, label="chance: 0.500")
    axis.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
    axis.set_title(f"ROC curves, each class against the rest ({count_of(len(predictions), 'image')})")
    axis.legend(title="AUROC (95 % interval)", loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8.5)
    return figure


@styled
def reliability_diagram(before: Predictions, after: Predictions) -> Figure:
    """Stated confidence against the share that was right, before and after calibration, over how often it is stated.

    Args:
        before: the model's own probabilities.
        after: calibrated ones, of the same images.
    """
    figure, (axis, below) = plt.subplots(2, 1, figsize=(WIDTH * 0.7, 5.8), height_ratios=(3, 1), sharex=True)
    axis.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1.2, label="perfectly calibrated")
    edges = np.linspace(0, 1, 11)
    for place, (name, predictions) in enumerate({"before": before, "after": after}.items()):
        table = reliability(predictions).dropna()
        error = METRICS["ece"].point(predictions.y_true, predictions.probabilities)
        whiskers(axis, table["confidence"], table["low"], table["high"], colour=COLOURS[place])
        words = f"{name} calibration (ECE {error:.3f})"
        axis.plot(table["confidence"], table["accuracy"], label=words, **line(place))
        heights, _ = np.histogram(predictions.confidence, edges)
        shares = 100 * heights / len(predictions)
        look = {"color": COLOURS[place], "linestyle": line(place)["linestyle"], "linewidth": 1.8}
        below.stairs(shares, edges, **look)
    axis.set(ylabel="share that was right", xlim=(0, 1), ylim=(0, 1))
    axis.set_title(f"Reliability ({count_of(len(after), 'image')}; whiskers: 95 % interval)")
    axis.legend(loc="best")
    below.set(xlabel="stated confidence of the predicted class", ylabel="images, %")
    return figure


@styled
def heat_maps(
    images: Sequence[NDArray[np.uint8]], maps: NDArray[np.floating], titles: Sequence[str], columns: int = 5
) -> Figure:
    """Images and, below each, the parts that drove its prediction.

    Args:
        images: n of (h, w, 3) uint8 RGB.
        maps: (n, h, w) float in [0, 1].
        titles: a caption per image.
        columns: images a row.
    """
    count = len(images)
    if count == 0:
        return note("Heat maps: no image")
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (max(1.6 * columns + 1, 4.5), rows * 3.4 + 0.5)
    figure, grid = plt.subplots(2 * rows, columns, figsize=size, squeeze=False)
    for axis in grid.flat:
        axis.axis("off")
    for place, (image, heat, text) in enumerate(zip(images, maps, titles, strict=True)):
        row, column = divmod(place, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        above.imshow(image)
        caption(above, text)
        below.imshow(np.asarray(image).mean(axis=2), cmap="gray", vmin=0, vmax=255)
        drawn = below.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * np.asarray(heat, dtype=float))
        if np.min(heat) < 0.5 < np.max(heat):
            below.contour(heat, levels=[0.5], colors="white", linewidths=1, linestyles="dashed")
    mapped = plt.cm.ScalarMappable(norm=drawn.norm, cmap=drawn.cmap)
    figure.colorbar(mapped, ax=grid, label="relative importance (dashed: half)", shrink=0.6, aspect=30)
    headline(figure, f"What drove the prediction ({count_of(count, 'image')})")
    return figure


@styled
def difference_plot(differences: Mapping[str, Difference], title: str) -> Figure:
    """Paired differences with their 95 % intervals and the line of no difference; hollow where noise explains them.

    Args:
        differences: one per row, by name ("fine-tuned − frozen").
        title: what is compared, and on how many images.
    """
    table = pd.DataFrame([{"value": d.value, "low": d.low, "high": d.high} for d in differences.values()])
    metrics = [METRICS[difference.metric] for difference in differences.values()]
    same = len(set(metrics)) == 1
    labels = [
        metric.title if name == metric.name else f"{name}: {metric.title}"
        for name, metric in zip(differences, metrics, strict=True)
    ]
    names = list(differences) if same else labels
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.34 * len(table)))
    axis.axvline(0, color=INK, linewidth=1.2)
    whiskers(axis, range(len(table)), table["low"], table["high"], vertical=False)
    for row, difference in enumerate(differences.values()):
        fill = COLOURS[0] if difference.clear else "white"
        axis.plot(difference.value, row, "o", color=COLOURS[0], markerfacecolor=fill, markersize=6.5)
        words = f"{difference.value:+.3f}  ({difference.low:+.3f} to {difference.high:+.3f})".replace("-", "−")
        axis.annotate(words, (1.01, row), xycoords=axis.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    reach = 1.1 * np.nanmax(np.abs(table.to_numpy()), initial=0.01)
    axis.set_xlim(-reach, reach)
    row_labels(axis, names)
    what = f"{metrics[0].title}, difference" if same else "difference"
    better = {metric.higher_is_better for metric in metrics}
    way = {(True,): "; right of 0: the first is better", (False,): "; left of 0: the first is better"}.get(
        tuple(better), ""
    )
    axis.set(xlabel=f"{what}{way} (whiskers: 95 % interval; hollow: within noise)", ylabel="comparison")
    axis.set_title(title)
    return figure


def _with_interval(row: pd.Series, name: str = "value") -> str:
    low, high = ("low", "high") if name == "value" else (f"{name}_low", f"{name}_high")
    return f"{row[name]:.3f} ({row[low]:.3f} to {row[high]:.3f})"
