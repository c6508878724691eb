"""One threshold for a yes-or-no decision, chosen on validation images and reported on test images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from scanbook.errors import DataError
from scanbook.evaluation.bootstrap import interval, resample
from scanbook.evaluation.metrics import class_rates, confusions


def choose_threshold(y_true: ArrayLike, score: ArrayLike, specificity: float = 0.9) -> float:
    """The threshold with the highest sensitivity among those with at least the wanted specificity.

    An image is called positive where its score is at or above the threshold. The threshold lies half way to the next
    score below, so that rounding in another inference engine does not turn decisions over.

    Args:
        y_true: (n,) bool or 0 and 1, on validation images.
        score: (n,) float, higher for positives.
        specificity: the share of negatives to be called negative, 0 to 1.

    Returns:
        A finite threshold; just above the highest score where only calling nothing positive is specific enough.

    Raises:
        DataError: there is no positive or no negative, or the shapes differ.
    """
    positive, scores = _checked(y_true, score)
    if not 0 <= specificity <= 1:
        raise DataError(f"specificity is {specificity}: expected 0 to 1")
    if positive.all() or not positive.any():
        raise DataError(f"all {len(positive)} images are of one kind: a threshold needs positives and negatives")
    false, _, thresholds = roc_curve(positive, scores, drop_intermediate=False)
    # roc_curve lowers the threshold step by step: the last one specific enough is the most sensitive.
    last = np.flatnonzero(1 - false >= specificity - 1e-12)[-1]
    if last == 0:
        return float(np.nextafter(scores.max(), np.inf))
    if last == len(thresholds) - 1:
        return float(thresholds[last])
    between = (thresholds[last] + thresholds[last + 1]) / 2
    return float(between if between > thresholds[last + 1] else thresholds[last])


def operating_point(
    y_true: ArrayLike, score: ArrayLike, threshold: float, group: ArrayLike, *, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Sensitivity and specificity of "score at or above threshold", with 95 % intervals from the group bootstrap.

    Args:
        y_true: (n,) bool or 0 and 1, on test images.
        score: (n,) float.
        threshold: from `choose_threshold` on other images.
        group: (n,) patients.
        rounds: resamples.
        seed: of the resamples.

    Returns:
        Index `metric` (sensitivity, specificity); columns value, low, high; NaN where there is no positive (negative).

    Raises:
        DataError: shapes differ.
    """
    positive, scores = _checked(y_true, score)
    if len(np.asarray(group)) != len(positive):
        raise DataError(f"{len(np.asarray(group))} groups for {len(positive)} images: expected one per image")
    truth, called = positive.astype(np.int64), (scores >= threshold).astype(np.int64)

    def both(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        rates = class_rates(confusions(truth, called, 2, weights))
        return np.stack([rates["sensitivity"][:, 1], rates["specificity"][:, 1]], axis=1)

    low, high = interval(resample(both, group, rounds, seed))
    names = pd.Index(["sensitivity", "specificity"], name="metric")
    return pd.DataFrame({"value": both(None)[0], "low": low, "high": high}, index=names)


def _checked(y_true: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    positive, scores = np.asarray(y_true).astype(bool), np.asarray(score, dtype=np.float64)
    if positive.ndim != 1 or positive.shape != scores.shape or len(positive) == 0:
        raise DataError(f"labels have shape {positive.shape}, scores {scores.shape}: expected one of each per image")
    if not np.isfinite(scores).all():
        raise DataError("scores hold NaN or infinity: expected finite numbers")
    return positive, scores
