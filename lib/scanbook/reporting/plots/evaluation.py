"""Figures of results: metrics with intervals, confusions, curves, calibration, explanations and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from scanbook.evaluation import (
    METRICS,
    AnyPredictions,
    Difference,
    FindingPredictions,
    Predictions,
    per_class,
    reliability,
    summary,
    with_interval,
)
from scanbook.evaluation.metrics import class_auroc
from scanbook.evaluation.summary import finding_statistics
from scanbook.reporting.plots import style
from scanbook.reporting.plots.names import name_of

_LONG_LABEL = 40
"""Characters of the name of an axis beyond which its explanation is in a line of its own."""
_MOST_COUNTS = 12
"""Classes beyond which a confusion matrix shows counts alone, in small letters."""
MOST_SQUARES = 40
"""Classes beyond which their most frequent confusions are drawn instead of the matrix."""
_MOST_PAIRS = 24
"""Pairs of classes that are shown where there are too many classes for a matrix."""
_MOST_CURVES = 4
"""Classes beyond which the ROC figure of several arms shows the mean curve alone."""
_MOST_CLASS_CURVES = 20
"""Classes beyond which the ROC figure shows the curves of the extremes, and their mean."""
_EXTREME_CURVES = 5
"""Number of curves that it then shows of each end."""


@style.styled
def metric_bars(
    table: pd.DataFrame, title: str, unit: str = "value", references: Mapping[str, float] | None = None
) -> Figure:
    """Draw values with their 95 % intervals, one per row.

    Args:
        table: Columns value, low, high; the index names the rows (metrics, models or subgroups).
        title: What is shown, and on how many images.
        unit: Name of the value's axis.
        references: Values to mark with a line, such as {"majority class": 0.67, "Bayes": 0.93}.
    """
    if table["value"].isna().all():
        return style.note(f"{title}: not defined")
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.2 + 0.34 * len(table)))
    style.whiskers(axis, range(len(table)), table["low"], table["high"], vertical=False)
    axis.plot(table["value"], range(len(table)), "o", color=style.COLOURS[0], markersize=6)
    for row, (value, low, high) in enumerate(table[["value", "low", "high"]].to_numpy(float)):
        style.label_row(axis, with_interval(value, low, high) if np.isfinite(value) else "not defined", row)
    for index, (name, value) in enumerate((references or {}).items(), start=1):
        look = style.line(index)
        axis.axvline(value, color=look["color"], linestyle=look["linestyle"], label=f"{name}: {value:.3f}")
    style.row_labels(axis, [METRICS[name].title if name in METRICS else name for name in table.index])
    axis.set(xlabel=f"{unit} (whiskers: 95 % interval)", ylabel=style.readable(table.index.names[-1] or "metric"))
    axis.set_title(title)
    if references:
        figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.styled
def confusion_matrix(table: pd.DataFrame) -> Figure:
    """Draw which class is predicted for which: counts, and shares of each true class.

    Of more than 40 classes, whose squares would be too small, the most frequent confusions are drawn.

    Args:
        table: Counts `(k, k)`, true classes as rows, predicted ones as columns, as `evaluation.confusion` gives.
    """
    if len(table) > MOST_SQUARES:
        return _confusions(table)
    import seaborn as sns  # slow to import

    counts, k, few = table.to_numpy(), len(table), len(table) <= _MOST_COUNTS
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cells = zip(counts.flat, shares.flat, strict=True)
    texts = [f"{count:,}\n{share:.0%}" if few else f"{count:,}" if count else "" for count, share in cells]
    names = [name_of(name, 40 if few else 24) for name in table.columns]
    side, margin = float(np.clip(0.85 * k, 2.2, max(8, 0.3 * k))), 0.08 * max(map(len, names))
    figure, axis = style.subplots(figsize=(side + margin + 2, side + margin + 0.7))
    scale = {"label": "share of the true class", "format": PercentFormatter(1), "shrink": 0.6}
    look = {"cmap": "Blues", "vmin": 0, "vmax": 1, "square": True, "cbar": not few, "cbar_kws": scale}
    letters = {"annot": np.reshape(texts, counts.shape), "fmt": "", "annot_kws": {"fontsize": 9 if few else 7}}
    # as many squares as vectors would make a large file
    sns.heatmap(shares, ax=axis, **look, **letters, rasterized=not few)
    places = np.arange(k) + 0.5
    axis.set_xticks(places, names, rotation=40 if k > 2 else 0, ha="right" if k > 2 else "center")
    rows = [f"{name} (n = {n:,})" for name, n in zip(names, counts.sum(axis=1), strict=True)]
    axis.set_yticks(places, rows, rotation=0)
    axis.set(xlabel="predicted class", ylabel="true class")
    axis.set_title(f"Confusion matrix ({style.count_of(int(counts.sum()), 'image')})")
    return figure


def _confusions(table: pd.DataFrame) -> Figure:
    """Draw the most frequent confusions of a matrix of counts."""
    pairs, images = confusions(table), style.count_of(int(table.to_numpy().sum()), "image")
    if pairs.empty:
        return style.note(f"Confusions of {len(table):,} classes: none in {images}")
    shown = pairs.head(_MOST_PAIRS)
    figure, axis = style.subplots(figsize=(style.WIDTH + 1, 1.4 + 0.3 * len(shown)))
    axis.barh(range(len(shown)), shown["images"], 0.7, **style.bar(0))
    for row, (count, share) in enumerate(shown[["images", "share"]].to_numpy(float)):
        style.label_bar(axis, f"{count:,.0f} ({share:.0%})", count, row)
    names = shown[["true", "predicted"]].map(lambda name: name_of(name, 28))
    style.row_labels(axis, [f"{true} → {predicted}" for true, predicted in names.to_numpy()])
    axis.margins(x=0.14)
    axis.set(xlabel="images (share of the true class's)", ylabel="true → predicted class")
    title = f"Most frequent confusions of {len(table):,} classes ({images}, {int(pairs['images'].sum()):,} wrong)"
    axis.set_title(f"{title}\nthe first {len(shown)} of {style.count_of(len(pairs), 'pair')}; all are in the table")
    return figure


def confusions(table: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of classes that are confused, the most frequent first.

    Args:
        table: Counts `(k, k)`, as `evaluation.confusion` gives.

    Returns:
        One row per pair: `true`, `predicted`, `images`, and their `share` of the true class's images.
    """
    counts = table.to_numpy()
    true, predicted = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    images = counts[true, predicted]
    names = np.array(table.columns, dtype=object)
    pairs = pd.DataFrame({"true": names[true], "predicted": names[predicted], "images": images})
    pairs["share"] = images / counts.sum(axis=1)[true]
    return pairs.sort_values(["images", "share"], ascending=False, kind="stable", ignore_index=True)


@style.styled
def roc_curves(predictions: AnyPredictions, rounds: int = 1000, seed: int = 0) -> Figure:
    """Draw one-vs-rest ROC curves and their mean, with AUROC and its 95 % interval over patients.

    Of two classes, whose curves mirror each other, only the second is shown. The mean is over sensitivities at equal
    false-positive rates. Classes without images have no curve. Of more than 20 classes, those with the highest and
    lowest areas have one. Findings have curves like classes, of the images that are labelled for them.

    Args:
        predictions: Of n images.
        rounds: Bootstrap resamples for the intervals.
        seed: Of the resamples.
    """
    figure, axis = style.subplots(figsize=(style.WIDTH + 1.5, 4.6))
    note = _roc(axis, predictions, rounds, seed, _MOST_CLASS_CURVES, ends=_EXTREME_CURVES)
    axis.set_ylabel("sensitivity")
    what = "finding" if isinstance(predictions, FindingPredictions) else "class against the rest"
    of_folds = "" if predictions.fold is None else f", means of {len(np.unique(predictions.fold))} folds"
    title = f"ROC curves, each {what} ({style.count_of(len(predictions), 'image')}{of_folds})"
    axis.set_title(f"{title}\n{note}".strip())
    axis.legend(title="AUROC (95 % interval)", loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8.5)
    return figure


@style.styled
def roc_arms(arms: Mapping[str, AnyPredictions], rounds: int = 1000, seed: int = 0) -> Figure:
    """Draw ROC curves of several arms side by side, with AUROC and its 95 % interval over patients.

    Of two classes only the second is shown; of three or four, each against the rest and their mean; of more, the mean
    alone.

    Args:
        arms: Predictions of each arm for the same images, by the arm's name.
        rounds: Bootstrap resamples for the intervals.
        seed: Of the resamples.
    """
    figure, axes = style.subplots(1, len(arms), figsize=(4.4 * len(arms), 4.8), sharey=True, squeeze=False)
    for axis, (name, predictions) in zip(axes.flat, arms.items(), strict=True):
        _roc(axis, predictions, rounds, seed, _MOST_CURVES)
        axis.set_title(name)
        axis.legend(title="AUROC (95 % interval)", loc="lower right", fontsize=8, title_fontsize=8.5)
    axes.flat[0].set_ylabel("sensitivity")
    count = len(next(iter(arms.values())))
    style.headline(
        figure, f"ROC curves of {style.count_of(len(arms), 'arm')}, the same {style.count_of(count, 'test image')}"
    )
    return figure


def _roc(axis: Axes, predictions: AnyPredictions, rounds: int, seed: int, most: int, *, ends: int = 0) -> str:
    """Draw the curve of each class where there are at most `most`, their mean, and the line of chance.

    Of more classes, draw those of the `ends` highest and lowest areas, and return a line of the title that says so.
    """
    table, kind, mean = _areas(predictions, rounds, seed)
    classes = table.index[1:] if len(table) == 2 and kind == "classes" else table.index
    classes = [name for name in classes if np.isfinite(table.loc[name, "auroc"])]
    drawn, note = list(classes) if len(classes) <= most else [], ""
    if len(classes) > most and ends:
        kinds = ("with the highest", "with the lowest areas")
        drawn, note = style.extremes(table.loc[classes, "auroc"], kind, kinds, most, ends)
    steps = np.linspace(0, 1, 201)
    curves = {}
    for name in classes:
        index = predictions.names.index(name)
        truth = predictions.y_true == index if kind == "classes" else predictions.y_true[:, index]
        curves[name] = roc(truth.astype(float), predictions.probabilities[:, index], predictions.fold, steps)
    for index, name in enumerate(drawn):
        row = table.loc[name]
        area = with_interval(*row[["auroc", "auroc_low", "auroc_high"]])
        label = f"{name_of(name)} (n = {row['support']:,.0f}): {area}"
        axis.plot(*curves[name], **style.line(index), markevery=0.1, linewidth=1.3, label=label)
    if len(curves) > 1 and mean is not None:
        label = f"mean of {len(curves)} {kind}: {with_interval(*mean)}"
        average = np.mean([np.r_[0, np.interp(steps[1:], *curve)] for curve in curves.values()], axis=0)
        axis.plot(steps, average, color=style.INK, linewidth=3.5, label=label)
    axis.plot([0, 1], [0, 1], color=style.QUIET, linestyle=":", linewidth=1, label="chance: 0.500")
    axis.set(xlabel="1 − specificity", xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
    return note


def roc(
    truth: NDArray[np.float64], score: NDArray[np.float64], fold: NDArray[np.str_] | None, steps: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return false-positive rates and sensitivities; of several folds the mean sensitivity at equal steps.

    The mean is vertical (Fawcett, An introduction to ROC analysis, 2006), over the folds with both kinds of images;
    None where there are no such images.
    """
    parts = [np.arange(len(truth))] if fold is None else [np.flatnonzero(fold == name) for name in np.unique(fold)]
    curves = []
    for rows in parts:
        known = rows[~np.isnan(truth[rows])]
        if 0 < truth[known].sum() < len(known):
            curves.append(roc_curve(truth[known], score[known])[:2])
    if not curves:
        return None
    if fold is None:
        return curves[0]
    return steps, np.mean([np.r_[0, np.interp(steps[1:], *curve)] for curve in curves], axis=0)


def _areas(predictions: AnyPredictions, rounds: int, seed: int) -> tuple[pd.DataFrame, str, NDArray[np.float64] | None]:
    """Return the AUROCs with intervals and counts (`support`), what they are of, and their mean where it is defined."""
    if isinstance(predictions, FindingPredictions):
        table = pd.DataFrame(finding_statistics(predictions, {"auroc": class_auroc}, rounds, seed))
        mean = table.iloc[-1].to_numpy(float)
        table = table.iloc[:-1].set_axis(list(predictions.findings))
        return table.assign(support=(predictions.y_true == 1).sum(axis=0)), "findings", mean
    table = per_class(predictions, rounds, seed)
    if len(table) < 3 or predictions.absent:
        return table, "classes", None
    return table, "classes", summary(predictions, ("auroc",), rounds, seed).loc["auroc"].to_numpy(float)


@style.styled
def reliability_diagram(before: Predictions, after: Predictions) -> Figure:
    """Draw the share of correct answers over their confidence, before and after calibration, and how often each occurs.

    Args:
        before: The model's own probabilities.
        after: Calibrated ones, of the same images.
    """
    figure, (axis, below) = style.subplots(2, 1, figsize=(style.WIDTH * 0.7, 5.8), height_ratios=(3, 1), sharex=True)
    axis.plot([0, 1], [0, 1], color=style.QUIET, linestyle=":", linewidth=1.2, label="perfectly calibrated")
    edges = np.linspace(0, 1, 11)
    for index, (name, predictions) in enumerate({"before": before, "after": after}.items()):
        table, look = reliability(predictions).dropna(), style.line(index)
        error = METRICS["ece"].point(predictions)
        style.whiskers(axis, table["confidence"], table["low"], table["high"], colour=style.COLOURS[index])
        axis.plot(table["confidence"], table["accuracy"], label=f"{name} calibration (ECE {error:.3f})", **look)
        counts, _ = np.histogram(predictions.confidence, edges)
        below.stairs(100 * counts / len(predictions), edges, color=look["color"], linestyle=look["linestyle"], lw=1.8)
    axis.set(ylabel="share of correct answers", xlim=(0, 1), ylim=(0, 1))
    axis.set_title(f"Reliability ({style.count_of(len(after), 'image')}; whiskers: 95 % interval)")
    axis.legend(loc="best")
    below.set(xlabel="confidence of the predicted class", ylabel="images, %")
    return figure


@style.styled
def heat_maps(
    images: Sequence[NDArray[np.uint8]], maps: NDArray[np.floating], titles: Sequence[str], columns: int = 5
) -> Figure:
    """Draw images and, below each, the regions that determined its prediction.

    Args:
        images: n RGB images `(h, w, 3)`, uint8.
        maps: `(n, h, w)`, float in [0, 1].
        titles: A caption per image.
        columns: Images per row.
    """
    if len(images) == 0:
        return style.note("Heat maps: no image")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, grid, axes = style.panels(2 * rows * columns, columns, 1.6 + 1 / columns, 1.7)
    for axis in axes:
        axis.axis("off")
    for index, (image, heat, text) in enumerate(zip(images, maps, titles, strict=True)):
        row, column = divmod(index, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        above.imshow(image)
        style.caption(above, text)
        below.imshow(np.asarray(image).mean(axis=2), cmap="gray", vmin=0, vmax=255)
        overlay = below.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65 * np.asarray(heat, dtype=float))
        if np.min(heat) < 0.5 < np.max(heat):
            below.contour(heat, levels=[0.5], colors="white", linewidths=1, linestyles="dashed")
        elif not np.any(heat):  # as of a finding that is called absent
            look = {"ha": "center", "fontsize": 8, "bbox": style.WHITE}
            below.text(0.5, 0.04, "no evidence for it", transform=below.transAxes, **look)
    opaque = ScalarMappable(norm=overlay.norm, cmap=overlay.cmap)
    figure.colorbar(opaque, ax=grid, label="relative importance (dashed: half)", shrink=0.6, aspect=30)
    style.headline(figure, f"Regions that determined the prediction ({style.count_of(len(images), 'image')})")
    return figure


@style.styled
def difference_plot(
    differences: Mapping[str, Difference], title: str, quantity: str = "", better: str = "the first"
) -> Figure:
    """Draw paired differences with their 95 % intervals and the line of no difference; hollow where within noise.

    Args:
        differences: One per row, by name ("fine-tuned − frozen").
        title: What is compared, and on how many images.
        quantity: Name of the axis; "" for that of the metric.
        better: What is better right of 0, or left of it where lower is better.
    """
    table = pd.DataFrame(list(differences.values()))[["value", "low", "high"]]
    if table["value"].isna().all():
        return style.note(f"{title}: not defined")
    metrics = [METRICS[difference.metric] for difference in differences.values()]
    several, quantity = len(set(metrics)) > 1, quantity or f"{metrics[0].title}, difference"
    names = [
        metric.title if name == metric.name else f"{name}: {metric.title}" if several else name
        for name, metric in zip(differences, metrics, strict=True)
    ]
    if several:
        quantity = "difference"
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.3 + 0.34 * len(table)))
    axis.axvline(0, color=style.INK, linewidth=1.2)
    style.whiskers(axis, range(len(table)), table["low"], table["high"], vertical=False)
    for row, difference in enumerate(differences.values()):
        if np.isnan(difference.value):
            style.label_row(axis, "not defined", row)
            continue
        fill = style.COLOURS[0] if difference.clear else "white"
        axis.plot(difference.value, row, "o", color=style.COLOURS[0], markerfacecolor=fill, markersize=6.5)
        text = with_interval(difference.value, difference.low, difference.high, signed=True)
        style.label_row(axis, text, row)
    reach = 1.1 * np.nanmax(np.abs(table.to_numpy()), initial=0.01)
    axis.set_xlim(-reach, reach)
    axis.xaxis.set_major_locator(MaxNLocator(5))  # small differences have long numbers
    style.row_labels(axis, names)
    directions = {metric.higher_is_better for metric in metrics}
    if len(directions) == 1:
        quantity += f"; {'right' if True in directions else 'left'} of 0: {better} is better"
    explained = "(whiskers: 95 % interval; hollow: within noise)"
    axis.set(xlabel=quantity + ("\n" if len(quantity) > _LONG_LABEL else " ") + explained, ylabel="comparison")
    axis.set_title(title)
    return figure
