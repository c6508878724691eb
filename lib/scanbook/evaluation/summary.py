"""Tables of a model's results, every number with its 95 % interval over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scanbook.errors import DataError
from scanbook.evaluation.bootstrap import interval, resample
from scanbook.evaluation.metrics import (
    METRICS,
    Metric,
    by_support,
    class_auprc,
    class_auroc,
    class_rates,
    confusions,
    counted_precision,
    macro,
)
from scanbook.evaluation.predictions import Predictions

DEFAULT_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "auprc", "brier", "ece")


def find_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        DataError: there is none.
    """
    if name not in METRICS:
        raise DataError(f"metric {name!r} is unknown: expected one of {', '.join(METRICS)}")
    return METRICS[name]


def summary(
    predictions: Predictions, metrics: Sequence[str] = DEFAULT_METRICS, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Metrics of one model with 95 % percentile intervals from the group bootstrap.

    Args:
        predictions: n images.
        metrics: names in `METRICS`; add "kappa" where the classes have an order.
        rounds: resamples.
        seed: of the resamples.

    Returns:
        Index `metric` (names, in the order asked for); columns value, low, high.

    Raises:
        DataError: a metric is unknown.
    """
    chosen = [find_metric(name) for name in metrics]
    y_true, probabilities = predictions.y_true, predictions.probabilities

    def all_metrics(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return np.stack([metric.compute(y_true, probabilities, weights) for metric in chosen], axis=1)

    low, high = interval(resample(all_metrics, predictions.group, rounds, seed))
    return pd.DataFrame(
        {"value": all_metrics(None)[0], "low": low, "high": high},
        index=pd.Index([metric.name for metric in chosen], name="metric"),
    )


def by_backbone(summaries: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Metrics of several arms as one table, to stand beside published ones.

    Args:
        summaries: Tables of `summary` by arm, "<backbone>, <how it was trained>".

    Returns:
        Index: backbones; one column a metric. Of several arms of one backbone it is the first.
    """
    values = {name.split(", ")[0]: table["value"] for name, table in reversed(summaries.items())}
    return pd.DataFrame.from_dict(values, orient="index")


def per_class(predictions: Predictions, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How well each class is told from the rest, with 95 % percentile intervals from the group bootstrap.

    Args:
        predictions: n images.
        rounds: resamples.
        seed: of the resamples.

    Returns:
        Index `class`, in class order; columns support (images), then sensitivity, specificity, precision, f1, auroc and
        auprc, each followed by its `_low` and `_high`. Not defined (no image, never predicted) is NaN.
    """
    return class_report(predictions, rounds, seed).iloc[:-2]


def class_report(predictions: Predictions, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """`per_class` with the means over the classes below: scikit-learn's `classification_report`, with intervals.

    Every class of the dataset has its row, in class order, whether it has images here or not. The sensitivity of
    "macro" is balanced accuracy, that of "weighted" is accuracy. A class that has images and is never predicted, whose
    own precision is not defined, counts as zero in the means of precision, as scikit-learn counts it.

    Args:
        predictions: n images.
        rounds: resamples.
        seed: of the resamples.

    Returns:
        Index `class`: the classes, "macro" (each counts the same) and "weighted" (each counts by its images); columns
        as in `per_class`.
    """
    y_true, y_pred, k = predictions.y_true, predictions.y_pred, len(predictions.classes)

    def rates(weights: NDArray[np.float64] | None) -> dict[str, NDArray[np.float64]]:
        matrices = confusions(y_true, y_pred, k, weights)
        classes = class_rates(matrices) | {
            "auroc": class_auroc(y_true, predictions.probabilities, weights),
            "auprc": class_auprc(y_true, predictions.probabilities, weights),
        }
        counted = classes | {"precision": counted_precision(matrices)}
        means_of = {name: [macro(values), by_support(values, matrices)] for name, values in counted.items()}
        return {name: np.column_stack([values, *means_of[name]]) for name, values in classes.items()}

    value = rates(None)
    low, high = interval(
        resample(lambda weights: np.stack(list(rates(weights).values()), axis=1), predictions.group, rounds, seed)
    )
    columns: dict[str, NDArray[np.generic]] = {"support": np.r_[np.bincount(y_true, minlength=k), [len(y_true)] * 2]}
    for place, name in enumerate(value):
        columns |= {name: value[name][0], f"{name}_low": low[place], f"{name}_high": high[place]}
    return pd.DataFrame(
        columns, index=pd.Index([*predictions.classes, "macro average", "weighted average"], name="class")
    )


def confusion(predictions: Predictions) -> pd.DataFrame:
    """Counts of images: true class down, predicted class across, both in class order; int64."""
    counts = confusions(predictions.y_true, predictions.y_pred, len(predictions.classes))[0].astype(np.int64)
    return pd.DataFrame(
        counts,
        index=pd.Index(predictions.classes, name="true"),
        columns=pd.Index(predictions.classes, name="predicted"),
    )


def means(frame: pd.DataFrame, column: str, by: str, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Mean of a per-image figure, such as Dice, with 95 % percentile intervals from the group bootstrap.

    Args:
        frame: one row per image and kind, with a column `group`.
        column: the figure.
        by: the column that names the kind, such as the method.
        rounds: resamples.
        seed: of the resamples.

    Returns:
        Index `by`, in order of appearance; columns value, low, high, images.
    """
    rows = {}
    for kind, part in frame.groupby(by, sort=False):
        values = part[column].to_numpy(np.float64)
        sampled = resample(
            lambda weights, v=values: weights @ v / weights.sum(axis=1), part["group"].to_numpy(), rounds, seed
        )
        low, high = interval(sampled)
        rows[kind] = {"value": values.mean(), "low": float(low), "high": float(high), "images": len(values)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)
