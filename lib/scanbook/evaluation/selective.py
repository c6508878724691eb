"""Selective prediction: the model abstains where its confidence is low, and a person decides on those images.

Coverage is the share of images that the model still classifies. The confidence is the probability of the predicted
class (Hendrycks and Gimpel, 2017; Geifman and El-Yaniv, 2017). Calibrate first: a temperature hardly changes the order
of the images, and makes the threshold readable as a probability.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scanbook.errors import DataError
from scanbook.evaluation.metrics import ratio
from scanbook.evaluation.predictions import Predictions
from scanbook.evaluation.resampling import interval, resample

COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def coverage_curve(predictions: Predictions, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return the accuracy on the most confident share of the images, for every share in `COVERAGES`.

    Args:
        predictions: n images.
        rounds: Number of resamples of groups, at the thresholds of all images.
        seed: Seed of the resamples.

    Returns:
        Index `coverage` (the requested share); columns threshold (an image is answered where its confidence is at or
        above it), images and answered (number and share of answered images; above the requested share where confidences
        tie), value (accuracy on them), low and high (95 % percentile interval).
    """
    descending = np.sort(predictions.confidence)[::-1]
    # Rounded before the ceiling: 0.7 × 10 is 7.000000000000001.
    positions = [max(1, int(np.ceil(round(share * len(descending), 9)))) - 1 for share in COVERAGES]
    thresholds = descending[positions]
    value, low, high = _selective_accuracy(predictions, thresholds, rounds, seed)[1]
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
        index=pd.Index(COVERAGES, name="coverage"),
    )


def abstain_below(validation: Predictions, coverage: float) -> float:
    """Return the confidence below which a model abstains.

    Args:
        validation: n validation images.
        coverage: Share of them to answer, above 0 to 1.
    """
    return float(np.quantile(validation.confidence, 1 - coverage))


def abstention(test: Predictions, threshold: ArrayLike, rounds: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Return coverage and accuracy at a confidence threshold, with 95 % intervals from the group bootstrap.

    Args:
        test: n test images.
        threshold: From `abstain_below` on validation images; or that of each image, (n,).
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `metric`: coverage (share of images answered) and accuracy (of those); columns images (the number that the
        share refers to), value, low, high. The accuracy is NaN where no image is answered.

    Raises:
        DataError: the threshold is NaN.
    """
    thresholds = np.reshape(np.asarray(threshold, np.float64), (-1, 1))
    if np.isnan(thresholds).any():
        raise DataError("threshold is NaN: expected a confidence; choose it with abstain_below")
    table = pd.DataFrame(
        _selective_accuracy(test, thresholds, rounds, seed)[:, :, 0],
        columns=["value", "low", "high"],
        index=pd.Index(["coverage", "accuracy"], name="metric"),
    )
    table.insert(0, "images", [len(test), int((test.confidence >= thresholds[:, 0]).sum())])
    return table


def _selective_accuracy(
    predictions: Predictions, thresholds: NDArray[np.float64], rounds: int, seed: int
) -> NDArray[np.float64]:
    """Return (2, 3, thresholds): coverage and accuracy at it; of each the value and its interval's ends."""
    answered = (predictions.confidence[:, None] >= thresholds).astype(np.float64)
    correct = answered * predictions.correct[:, None]

    def rates(weights: NDArray[np.floating]) -> NDArray[np.float64]:
        mass = weights @ answered
        return np.stack([mass / weights.sum(axis=1, keepdims=True), ratio(weights @ correct, mass)], axis=1)

    value = rates(np.ones((1, len(predictions))))[0]
    return np.stack([value, *interval(resample(rates, predictions.group, rounds, seed, predictions.fold))], axis=1)
