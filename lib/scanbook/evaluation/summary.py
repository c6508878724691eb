"""Tables of a model's results, every number with its 95 % interval over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scanbook.errors import DataError
from scanbook.evaluation.bootstrap import interval, resample
from scanbook.evaluation.metrics import METRICS, Metric, class_auroc, class_rates, confusions
from scanbook.evaluation.predictions import Predictions
from scanbook.manifest import Manifest

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
        Index `class`, in class order; columns support (images), then sensitivity, specificity, precision, f1 and
        auroc, each followed by its `_low` and `_high`. Not defined (no image, never predicted) is NaN.
    """
    y_true, y_pred, k = predictions.y_true, predictions.y_pred, len(predictions.classes)

    def rates(weights: NDArray[np.float64] | None) -> dict[str, NDArray[np.float64]]:
        areas = class_auroc(y_true, predictions.probabilities, weights)
        return {**class_rates(confusions(y_true, y_pred, k, weights)), "auroc": areas}

    value = rates(None)
    rounds_of = resample(
        lambda weights: np.stack(list(rates(weights).values()), axis=1), predictions.group, rounds, seed
    )
    low, high = interval(rounds_of)
    columns: dict[str, NDArray[np.generic]] = {"support": np.bincount(y_true, minlength=k)}
    for place, name in enumerate(value):
        columns |= {name: value[name][0], f"{name}_low": low[place], f"{name}_high": high[place]}
    return pd.DataFrame(columns, index=pd.Index(predictions.classes, name="class"))


def confusion(predictions: Predictions) -> pd.DataFrame:
    """Counts of images: true class down, predicted class across, both in class order; int64."""
    counts = confusions(predictions.y_true, predictions.y_pred, len(predictions.classes))[0].astype(np.int64)
    return pd.DataFrame(
        counts,
        index=pd.Index(predictions.classes, name="true"),
        columns=pd.Index(predictions.classes, name="predicted"),
    )


def subgroups(
    predictions: Predictions,
    values: ArrayLike,
    metrics: Sequence[str] = ("accuracy", "auroc"),
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The same metrics for each value of an attribute (sex, age band, camera), to show whom a model serves less well.

    Args:
        predictions: n images.
        values: (n,) the attribute of each image; a missing value is a subgroup, "not recorded".
        metrics: names in `METRICS`.
        rounds: resamples, within each subgroup.
        seed: of the resamples.

    Returns:
        Index `subgroup`, `metric`; columns images, groups (patients), value, low, high.

    Raises:
        DataError: there is not one value per image, or a metric is unknown.
    """
    attribute = pd.Series(np.asarray(values, dtype=object))
    if len(attribute) != len(predictions):
        raise DataError(
            f"{len(attribute)} values for {len(predictions)} images: expected one per image, in their order"
        )
    names = attribute.where(attribute.isna(), attribute.astype(str)).fillna("not recorded")
    tables = {}
    for name, rows in names.groupby(names).groups.items():
        part = predictions.subset(rows.to_numpy())
        table = summary(part, metrics, rounds, seed)
        table.insert(0, "images", len(part))
        table.insert(1, "groups", len(np.unique(part.group)))
        tables[name] = table
    return pd.concat(tables, names=["subgroup"])


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


def majority(manifest: Manifest, part: str = "test") -> float:
    """Accuracy on a part of always answering the class that is most frequent in training."""
    answer = np.bincount(manifest.y[manifest.rows("train")]).argmax()
    return float(np.mean(manifest.y[manifest.rows(part)] == answer))
