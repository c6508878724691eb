"""Answering only where the model is sure: how right it is on the images it answers, and how many it leaves to people.

The confidence is the probability of the predicted class (Hendrycks and Gimpel, 2017; Geifman and El-Yaniv, 2017). Set a
temperature first: it does not change who is surest by much, but makes the threshold readable.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scanbook.errors import DataError
from scanbook.evaluation.bootstrap import interval, resample
from scanbook.evaluation.predictions import Predictions

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def coverage_curve(
    predictions: Predictions, rounds: int = 1000, seed: int = 0, coverages: Sequence[float] = COVERAGES
) -> pd.DataFrame:
    """Accuracy when only the surest share of the images is answered.

    Args:
        predictions: n images.
        rounds: resamples of groups, at the thresholds of the whole.
        seed: of the resamples.
        coverages: shares to answer, above 0 to 1.

    Returns:
        Index `coverage` (the share asked for); columns threshold (confidence at or above which an image is answered),
        images and answered (their number and share; above the share asked for where confidences tie), value (accuracy
        on them), low and high (95 % percentile interval).

    Raises:
        DataError: a coverage is not above 0 to 1.
    """
    outside = [share for share in coverages if not 0 < share <= 1]
    if outside:
        raise DataError(f"coverage is {outside[0]}: expected a share above 0 to 1")
    falling = np.sort(predictions.confidence)[::-1]
    # Rounded before the ceiling: 0.7 × 10 is 7.000000000000001.
    places = [max(1, int(np.ceil(round(share * len(falling), 9)))) - 1 for share in coverages]
    thresholds = falling[places]
    value, low, high = _accuracy_above(predictions, thresholds, rounds, seed)[1]
    answered = (predictions.confidence[:, None] >= thresholds).sum(axis=0)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "images": answered,
            "answered": answered / len(predictions),
            "value": value,
            "low": low,
            "high": high,
        },
        index=pd.Index(coverages, name="coverage", dtype=np.float64),
    )


def choose_abstention(validation: Predictions, accuracy: float) -> float:
    """The lowest confidence from which on the answers on validation images are right as often as wanted.

    Args:
        validation: n images, not those that the result is reported on.
        accuracy: wanted share of right answers among the answered, 0 to 1.

    Returns:
        The threshold; an image is answered where its confidence is at or above it. It lies half way to the next
        confidence below, 0 where all images may be answered, and just above the highest where none may.

    Raises:
        DataError: the accuracy is not between 0 and 1.
    """
    if not 0 <= accuracy <= 1:
        raise DataError(f"accuracy is {accuracy}: expected 0 to 1")
    levels, member = np.unique(-validation.confidence, return_inverse=True)
    levels = -levels  # from the surest down
    right = np.cumsum(np.bincount(member, validation.correct, len(levels)))
    enough = np.flatnonzero(right / np.cumsum(np.bincount(member)) >= accuracy - 1e-12)
    if len(enough) == 0:
        return float(np.nextafter(levels[0], np.inf))
    last = enough[-1]
    if last == len(levels) - 1:
        return 0.0
    between = (levels[last] + levels[last + 1]) / 2
    return float(between if between > levels[last + 1] else levels[last])


def abstain_below(validation: Predictions, coverage: float) -> float:
    """The confidence below which a model says that it is not sure, chosen on validation.

    Args:
        validation: n images, not those that the result is reported on.
        coverage: share of them to answer, above 0 to 1.
    """
    return float(np.quantile(validation.confidence, 1 - coverage))


def abstention(test: Predictions, threshold: float, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """What answering only at or above a confidence gives on other images, with 95 % intervals from the group bootstrap.

    Args:
        test: n images.
        threshold: from `choose_abstention` or `abstain_below` on validation images.
        rounds: resamples.
        seed: of the resamples.

    Returns:
        Index `metric`: coverage (share of images answered) and accuracy (of those); columns images (that the share is
        of), value, low, high. The accuracy is NaN where no image is answered.

    Raises:
        DataError: the threshold is NaN.
    """
    if np.isnan(threshold):
        raise DataError("threshold is NaN: expected a confidence; choose it with choose_abstention")
    shares = [each[:, 0] for each in _accuracy_above(test, np.array([threshold]), rounds, seed)]
    images = [len(test), int((test.confidence >= threshold).sum())]
    table = pd.DataFrame(
        shares, columns=["value", "low", "high"], index=pd.Index(["coverage", "accuracy"], name="metric")
    )
    table.insert(0, "images", images)
    return table


def _accuracy_above(
    predictions: Predictions, thresholds: NDArray[np.float64], rounds: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share answered and accuracy on the coverage: (3, thresholds) each, value, low and high."""
    answered = (predictions.confidence[:, None] >= thresholds).astype(np.float64)
    right = answered * predictions.correct[:, None]

    def both(weights: NDArray[np.floating]) -> NDArray[np.float64]:
        mass, hits = weights @ answered, weights @ right
        shares = mass / weights.sum(axis=1, keepdims=True)
        return np.stack([shares, np.divide(hits, mass, out=np.full_like(hits, np.nan), where=mass > 0)], axis=1)

    point = both(np.ones((1, len(predictions))))[0]
    low, high = interval(resample(both, predictions.group, rounds, seed))
    return np.stack([point[0], low[0], high[0]]), np.stack([point[1], low[1], high[1]])
