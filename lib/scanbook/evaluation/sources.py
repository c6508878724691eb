"""One model on images of two sources: metrics and rates of both, and their difference, which no image pairs.

The two sources share no patient. Each is resampled by its own groups, independently of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scanbook.errors import DataError
from scanbook.evaluation.findings import AnyPredictions, FindingPredictions
from scanbook.evaluation.metrics import ratio
from scanbook.evaluation.predictions import Predictions
from scanbook.evaluation.registry import find_metrics, has_findings
from scanbook.evaluation.resampling import correct_ends, count_groups, interval, interval_columns, resample

Floats = NDArray[np.float64]
INTERNAL, EXTERNAL, DIFFERENCE = "internal", "external", "difference"
RATES = ("prevalence", "flagged", "sensitivity", "specificity", "ppv", "npv")
"""Columns of `rates_of_points`: shares of images that have it and that are called present, then the four rates."""


@dataclass(frozen=True)
class Point:
    """A threshold that is applied to images of another source.

    Attributes:
        names: Classes whose probabilities are added; or one finding.
        threshold: Of their sum; NaN where none was chosen.
    """

    names: tuple[str, ...]
    threshold: float


def metrics_of_sources(labels: AnyPredictions, ordered: bool = False) -> tuple[str, ...]:
    """Return the names in `METRICS` by which two sources are compared; kappa is of ordered classes alone."""
    if has_findings(labels):
        return ("auroc", "auprc", "brier", "ece")
    return ("accuracy", "balanced_accuracy", "auroc", *(("kappa",) if ordered else ()), "brier", "ece")


def compare_sources(
    internal: AnyPredictions | None,
    external: AnyPredictions,
    metrics: Sequence[str],
    *,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the metrics of a model on two sources, and their differences, with 95 % intervals over groups.

    A metric of several classes is the mean of those that the images have.

    Args:
        internal: Predictions for images of the model's own source; None where there are none.
        external: Those for images of the other one, with the same classes or findings.
        metrics: Names in `METRICS`.
        rounds: Number of resamples of each source.
        seed: Seed of the resamples.

    Returns:
        Index `metric`; columns internal, external and difference (external − internal), each followed by its `_low` and
        `_high`. NaN where a metric is not defined on these images: an AUROC of a single class.
    """
    if internal is not None and internal.names != external.names:
        raise DataError(f"labels differ, {internal.names} and {external.names}: map them to those of the model first")
    chosen = find_metrics(external, metrics)
    sides = {INTERNAL: internal, EXTERNAL: external}
    values, resampled = {}, {}
    for place, (side, predictions) in enumerate(sides.items()):
        if predictions is None:
            continue

        def compute(weights: Floats | None, p: AnyPredictions = predictions) -> Floats:
            return np.stack([metric.compute(p.y_true, p.probabilities, weights) for metric in chosen], axis=1)

        values[side] = _where_defined(compute(None)[0], predictions, metrics)
        resampled[side] = np.where(
            np.isnan(values[side]), np.nan, resample(compute, predictions.group, rounds, seed + place)
        )
    if internal is not None:
        values[DIFFERENCE] = values[EXTERNAL] - values[INTERNAL]
        resampled[DIFFERENCE] = resampled[EXTERNAL] - resampled[INTERNAL]
    columns: dict[str, Floats] = {}
    for side, value in values.items():
        low, high = interval(resampled[side])
        if (predictions := sides.get(side)) is not None and "accuracy" in metrics:  # a share, which may be 0 or 1
            place = [list(metrics).index("accuracy")]
            groups = np.array([len(np.unique(predictions.group))])
            low[place], high[place] = correct_ends(value[place], low[place], high[place], groups)
        columns |= interval_columns(side, value, low, high)
    return pd.DataFrame(columns, index=pd.Index(list(metrics), name="metric"))


def _where_defined(values: Floats, predictions: AnyPredictions, metrics: Sequence[str]) -> Floats:
    """Return the values, NaN for what a single class does not define."""
    single = isinstance(predictions, Predictions) and len(np.unique(predictions.y_true)) < 2
    undefined = [single and name in ("auroc", "auprc", "kappa", "balanced_accuracy") for name in metrics]
    return np.where(undefined, np.nan, values)


def prevalences(
    internal: AnyPredictions | None, external: AnyPredictions, *, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the share of the labelled images with each class or finding, in both sources.

    Returns:
        Index `class` or `finding`; columns as `compare_sources` has them.
    """
    values, resampled = {}, {}
    for place, (side, predictions) in enumerate(((INTERNAL, internal), (EXTERNAL, external))):
        if predictions is None:
            continue
        positive, negative = sides_of(predictions)
        share = _share(positive, positive | negative)
        values[side] = share(np.ones((1, len(predictions))))[0]
        low, high = interval(drawn := resample(share, predictions.group, rounds, seed + place))
        groups = count_groups(positive | negative, predictions.group)
        resampled[side] = drawn, *correct_ends(values[side], low, high, groups)
    columns: dict[str, Floats] = {}
    for side, value in values.items():
        columns |= interval_columns(side, value, *resampled[side][1:])
    if internal is not None:
        ends = interval(resampled[EXTERNAL][0] - resampled[INTERNAL][0])
        columns |= interval_columns(DIFFERENCE, values[EXTERNAL] - values[INTERNAL], *ends)
    kind = "finding" if has_findings(external) else "class"
    return pd.DataFrame(columns, index=pd.Index(external.names, name=kind))


def rates_of_points(
    predictions: AnyPredictions, points: Mapping[str, Point], *, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return what thresholds that were chosen elsewhere give on these images, with 95 % intervals over groups.

    Args:
        predictions: n images.
        points: Thresholds by target, class or finding.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `target`; columns threshold, positives (images), then `RATES`, each followed by its `_low` and `_high`.
        The predictive values are those at the images' own prevalence. NaN where no image defines a rate, or where there
        is no threshold.
    """
    if not points:
        return pd.DataFrame(columns=["threshold", "positives", *RATES], index=pd.Index([], name="target"))
    positive, negative = (np.column_stack(side) for side in zip(*_sides_of_points(predictions, points), strict=True))
    cuts = np.array([point.threshold for point in points.values()], np.float64)
    called = scores_of_points(predictions, points) >= cuts
    known = positive | negative
    masks = {
        "prevalence": (positive, known),
        "flagged": (called & known, known),
        "sensitivity": (positive & called, positive),
        "specificity": (negative & ~called, negative),
        "ppv": (positive & called, known & called),
        "npv": (negative & ~called, known & ~called),
    }
    columns: dict[str, NDArray[np.generic]] = {"threshold": cuts, "positives": positive.sum(axis=0)}
    for name, (above, below) in masks.items():
        share = _share(above, below)
        value = share(np.ones((1, len(predictions))))[0]
        low, high = interval(resample(share, predictions.group, rounds, seed))
        low, high = correct_ends(value, low, high, count_groups(below, predictions.group))
        without = np.isnan(cuts) & (name != "prevalence")
        columns |= interval_columns(name, *(np.where(without, np.nan, end) for end in (value, low, high)))
    return pd.DataFrame(columns, index=pd.Index(list(points), name="target"))


def sides_of(predictions: AnyPredictions) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images are known to have each class or finding, and which not to have it, (n, k) bool each."""
    if isinstance(predictions, FindingPredictions):
        return predictions.y_true == 1, predictions.y_true == 0
    present = predictions.y_true[:, None] == np.arange(len(predictions.classes))
    return present, ~present


def scores_of_points(predictions: AnyPredictions, points: Mapping[str, Point]) -> Floats:
    """Return the probability of each target: of classes their sum, (n, targets)."""
    columns = [[predictions.names.index(name) for name in point.names] for point in points.values()]
    scores = [predictions.probabilities[:, column].sum(axis=1) for column in columns]
    return np.column_stack(scores) if scores else np.empty((len(predictions), 0))


def _sides_of_points(
    predictions: AnyPredictions, points: Mapping[str, Point]
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    positive, negative = sides_of(predictions)
    sides = []
    for point in points.values():
        columns = [predictions.names.index(name) for name in point.names]
        sides.append((positive[:, columns].any(axis=1), negative[:, columns].all(axis=1)))
    return sides


def truth_of_point(predictions: AnyPredictions, point: Point) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images are positives of a target, and which negatives, (n,) bool each."""
    return _sides_of_points(predictions, {"": point})[0]


def _share(above: NDArray[np.bool_], below: NDArray[np.bool_]) -> Callable[[NDArray[np.floating]], Floats]:
    numerator, denominator = above.astype(np.float64), below.astype(np.float64)
    return lambda weights: ratio(weights @ numerator, weights @ denominator)
