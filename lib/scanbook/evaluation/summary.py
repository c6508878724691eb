"""Tables of one model's metrics, each with its 95 % interval over patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scanbook.evaluation import metrics as measures
from scanbook.evaluation.findings import AnyPredictions, FindingPredictions
from scanbook.evaluation.predictions import Predictions
from scanbook.evaluation.registry import OF_FINDINGS, find_metrics, has_findings, mean_over_folds
from scanbook.evaluation.resampling import correct_ends, count_groups, interval, interval_columns, resample, widening

DEFAULT_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "auprc", "brier", "ece")
MEANS = ("macro average", "weighted average")
"""Rows of `class_report` that are means over classes."""
MACRO = MEANS[0]
"""Row of `finding_report` that is the mean over findings."""


def default_metrics(labels: Any) -> tuple[str, ...]:
    """Return the names of the metrics of a summary: of classes or of findings."""
    return OF_FINDINGS if has_findings(labels) else DEFAULT_METRICS


def summary(
    predictions: AnyPredictions,
    metrics: Sequence[str] = (),
    rounds: int = 1000,
    seed: int = 0,
    *,
    every_class: bool = True,
) -> pd.DataFrame:
    """Return the metrics of one model with 95 % percentile intervals from the group bootstrap.

    Args:
        predictions: n images.
        metrics: Names in `METRICS`; none for `default_metrics`. Add "kappa" where the classes have an order.
        rounds: Number of resamples.
        seed: Seed of the resamples.
        every_class: Whether a metric of all classes is NaN where one has no image; else it is that of the others.

    Returns:
        Index `metric` (names, in the requested order); columns value, low, high.

    Raises:
        DataError: a metric is unknown, or is not one of these labels.
    """
    chosen = find_metrics(predictions, metrics or default_metrics(predictions))
    computes = [metric.of(predictions) for metric in chosen]

    def all_metrics(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return np.stack([compute(weights) for compute in computes], axis=1)

    bounds = tuple(zip(*(metric.bounds for metric in chosen), strict=True))
    low, high = interval(resample(all_metrics, predictions.group, rounds, seed, predictions.fold, bounds=bounds))
    table = pd.DataFrame(
        {"value": all_metrics(None)[0], "low": low, "high": high},
        index=pd.Index([metric.name for metric in chosen], name="metric"),
    )
    undefined = [every_class and not metric.defined(predictions) for metric in chosen]
    table.loc[undefined] = np.nan
    if "exact_match" in table.index:  # a share of images, of findings
        groups = count_groups(~np.isnan(predictions.y_true).all(axis=1, keepdims=True), predictions.group)
        factor = widening(predictions.group, predictions.fold)
        ends = correct_ends(*table.loc[["exact_match"]].to_numpy(np.float64).T, groups, factor)
        table.loc["exact_match", ["low", "high"]] = np.ravel(ends)
    return table


def by_backbone(summaries: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the metrics of several arms in one table, for comparison with published ones.

    Args:
        summaries: Tables of `summary` by arm, `<backbone>, <training>`.

    Returns:
        Index: backbones; one column per metric. Of several arms of one backbone the first is used.
    """
    values = {name.split(", ")[0]: table["value"] for name, table in reversed(summaries.items())}
    return pd.DataFrame.from_dict(values, orient="index")


def per_class(predictions: Predictions, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return the rates of each class against the rest, with 95 % percentile intervals from the group bootstrap.

    Args:
        predictions: n images.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `class`, in class order; columns support (images), then sensitivity, specificity, precision, f1, auroc and
        auprc, each followed by its `_low` and `_high`. A rate that is not defined (no image, never predicted) is NaN.
    """
    return class_report(predictions, rounds, seed).iloc[:-2]


def class_report(predictions: Predictions, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return `per_class` followed by the means over classes: scikit-learn's `classification_report`, with intervals.

    Every class of the dataset has a row, in class order, with or without images here. The sensitivity of "macro
    average" is balanced accuracy, that of "weighted average" is accuracy. A class that has images and is never
    predicted has no precision; in the means of precision it counts as zero, as in scikit-learn. Where a class has no
    image, the means are NaN; so are precision, F1 and average precision of that class, and of one that has no others.

    Args:
        predictions: n images.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `class`: the classes, "macro average" (equal weights) and "weighted average" (weights are the numbers of
        images); columns as in `per_class`.
    """
    y_true, y_pred, k = predictions.y_true, predictions.y_pred, len(predictions.classes)
    areas = {
        "auroc": mean_over_folds(measures.class_auroc, predictions),
        "auprc": mean_over_folds(measures.class_auprc, predictions),
    }

    def rates(weights: NDArray[np.float64] | None) -> dict[str, NDArray[np.float64]]:
        matrices = measures.confusions(y_true, y_pred, k, weights)
        classes = measures.class_rates(matrices) | {name: area(weights) for name, area in areas.items()}
        averaged = classes | {"precision": measures.counted_precision(matrices)}
        return {
            name: np.column_stack(
                [values, measures.macro(averaged[name]), measures.by_support(averaged[name], matrices)]
            )
            for name, values in classes.items()
        }

    value = rates(None)

    def all_rates(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(list(rates(weights).values()), axis=1)

    low, high = interval(resample(all_rates, predictions.group, rounds, seed, predictions.fold))
    table: dict[str, NDArray[np.generic]] = {"support": np.r_[np.bincount(y_true, minlength=k), [len(y_true)] * 2]}
    for place, name in enumerate(value):
        table |= interval_columns(name, value[name][0], low[place], high[place])
    report = pd.DataFrame(table, index=pd.Index([*predictions.classes, *MEANS], name="class"))
    if predictions.absent:
        report.loc[list(MEANS), report.columns.drop("support")] = np.nan
        # of a class without images, or without others, these are 0 or 1 whatever the model predicts
        trivial = report.index[report["auroc"].isna()]
        report.loc[trivial, [name for name in report if name.startswith(("precision", "f1", "auprc"))]] = np.nan
    return report


def finding_report(predictions: FindingPredictions, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return the metrics of each finding, then their macro average, with intervals from the group bootstrap.

    Args:
        predictions: n images.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `finding`: the findings in order, then "macro average"; columns positives, negatives and not_labelled
        (images), patients (groups with a positive image), then auroc, auprc, brier and ece, each followed by its `_low`
        and `_high`. AUROC and AUPRC are NaN for a finding without positives or negatives, and all are where none is
        labelled; the macro average is over the others. Its counts are sums. An interval is NaN where a single patient
        has the finding, or lacks it, and those of brier and ece where both are so: no resample shows another patient.
    """
    y_true = predictions.y_true
    counts = {
        "positives": (y_true == 1).sum(axis=0),
        "negatives": (y_true == 0).sum(axis=0),
        "not_labelled": np.isnan(y_true).sum(axis=0),
        "patients": count_groups(y_true == 1, predictions.group),
    }
    table: dict[str, NDArray[np.generic]] = {name: np.r_[values, values.sum()] for name, values in counts.items()}
    table["patients"][-1] = len(np.unique(predictions.group[(y_true == 1).any(axis=1)]))
    names = {"auroc": measures.class_auroc, "auprc": measures.class_auprc}
    names |= {"brier": measures.finding_brier, "ece": measures.finding_ece}
    table |= finding_statistics(predictions, names, rounds, seed)
    return pd.DataFrame(table, index=pd.Index([*predictions.findings, MACRO], name="finding"))


def finding_statistics(
    predictions: FindingPredictions,
    statistics: Mapping[str, Callable[..., NDArray[np.float64]]],
    rounds: int = 1000,
    seed: int = 0,
) -> dict[str, NDArray[np.float64]]:
    """Return statistics of each finding, and their means, with intervals from the group bootstrap.

    Args:
        predictions: n images.
        statistics: Functions of labels, probabilities and weights that give (rounds, k), such as `class_auroc`.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Columns (k + 1,): each statistic, followed by its `_low` and `_high`, as in `finding_report`.
    """
    y_true = predictions.y_true
    of_folds = (measures.class_auroc, measures.class_auprc)
    computes = [
        mean_over_folds(compute, predictions)
        if compute in of_folds
        else partial(compute, y_true, predictions.probabilities)
        for compute in statistics.values()
    ]

    def all_statistics(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        values = [compute(weights) for compute in computes]
        return np.stack([np.column_stack([value, measures.macro(value)]) for value in values], axis=1)

    point = all_statistics(None)[0]
    low, high = interval(resample(all_statistics, predictions.group, rounds, seed, predictions.fold))
    sides = [np.r_[count_groups(y_true == label, predictions.group), 2] for label in (1, 0)]
    table = {}
    for place, (name, compute) in enumerate(statistics.items()):
        needed = np.minimum if compute in of_folds else np.maximum
        defined = ~np.isnan(point[place]) & (needed(*sides) > 1)
        ends = (np.where(defined, end[place], np.nan) for end in (low, high))
        table |= interval_columns(name, point[place], *ends)
    return table


def confusion(predictions: Predictions) -> pd.DataFrame:
    """Return counts of images: true class down, predicted class across, both in class order; int64."""
    counts = measures.confusions(predictions.y_true, predictions.y_pred, len(predictions.classes))[0].astype(np.int64)
    return pd.DataFrame(
        counts,
        index=pd.Index(predictions.classes, name="true"),
        columns=pd.Index(predictions.classes, name="predicted"),
    )


def means(frame: pd.DataFrame, column: str, by: str, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return the mean of a per-image score, such as Dice, with 95 % percentile intervals from the group bootstrap.

    Args:
        frame: One row per image and kind, with a column `group`.
        column: The column of the score.
        by: The column that names the kind, such as the segmentation method.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `by`, in order of appearance; columns value, low, high, images.
    """
    rows = {}
    for kind, scores in frame.groupby(by, sort=False):
        values = scores[column].to_numpy(np.float64)
        resampled = resample(lambda weights, v=values: weights @ v / weights.sum(axis=1), scores["group"], rounds, seed)
        low, high = interval(resampled)
        rows[kind] = {"value": values.mean(), "low": float(low), "high": float(high), "images": len(values)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)
