"""Calibration: a stated confidence of 80 % should mean correct in 80 % of cases."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from scipy.stats import binomtest

from scanbook.errors import DataError
from scanbook.evaluation.metrics import confidence_bin
from scanbook.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Calibration:
    """The calibration of k findings: probability = sigmoid(slope × logit + offset).

    Attributes:
        slope: (k,) float64, above 0.
        offset: (k,) float64; 0 where a temperature alone was fitted.
        method: How each finding was calibrated: "temperature", "Platt" or "none".
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    method: tuple[str, ...]

    @classmethod
    def identity(cls, count: int) -> Calibration:
        """Return the calibration that changes nothing, of `count` findings."""
        return cls(np.ones(count), np.zeros(count), ("none",) * count)

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of logits (n, k), float64 of the same shape."""
        return expit(np.asarray(logits, np.float64) * self.slope + self.offset)


def fit_temperature(logits: ArrayLike, y: ArrayLike) -> float:
    """Return the temperature with which softmax(logits / t) fits the labels best (Guo et al., 2017).

    Fit it on validation images. It changes no predicted class, only the confidence.

    Args:
        logits: (n, k) float; logarithms of probabilities serve as well.
        y: (n,) int, true class.

    Returns:
        t > 0. Two cases do not determine t, and 1 is returned: every image is classified correctly (the likelihood
        then asks for unlimited confidence), or all logits of each image are equal. Where the logits are unrelated to
        the labels, t ends at 100 times their spread, which is practically a uniform distribution.

    Raises:
        DataError: shapes do not match, there is no image, or a logit is not finite.
    """
    scores, labels = np.asarray(logits, dtype=np.float64), np.asarray(y)
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or len(scores) == 0:
        raise DataError(f"logits have shape {scores.shape}, labels {labels.shape}: expected (n, k) and (n,), n above 0")
    if not np.isfinite(scores).all():
        raise DataError("logits hold NaN or infinity: expected finite numbers; check the model's training loss")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise DataError(f"labels run from {labels.min()} to {labels.max()}: expected 0 to {scores.shape[1] - 1}")
    rows = np.arange(len(labels))
    spread = float(scores.std(axis=1).mean())
    if spread == 0 or (scores[rows, labels] >= scores.max(axis=1)).all():
        return 1.0

    def loss(log_t: float) -> float:
        return float(-log_softmax(scores / np.exp(log_t), axis=1)[rows, labels].mean())

    bounds = np.log([spread / 100, spread * 100])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def reliability(predictions: Predictions, bins: int = 10) -> pd.DataFrame:
    """Return the stated confidence and the share of correct predictions, in equal bins of confidence.

    Args:
        predictions: n images.
        bins: Number of bins between 0 and 1, each open below and closed above.

    Returns:
        One row per bin, empty ones included: bin ("0.8–0.9"), confidence (mean), accuracy, count, and low, high: 95 %
        Wilson interval of the accuracy, which takes images as independent. Empty bins are NaN.
    """
    frame = pd.DataFrame({"confidence": predictions.confidence, "correct": predictions.correct})
    grouped = frame.groupby(confidence_bin(predictions.confidence, bins))
    table = grouped.agg(confidence=("confidence", "mean"), accuracy=("correct", "mean"), count=("correct", "size"))
    table[["low", "high"]] = [
        binomtest(int(correct), int(count)).proportion_ci(method="wilson")
        for correct, count in zip(grouped["correct"].sum(), table["count"], strict=True)
    ]
    table = table.reindex(range(bins))
    table["count"] = table["count"].fillna(0).astype(np.int64)
    edges = np.linspace(0, 1, bins + 1)
    table.insert(0, "bin", [f"{lower:.2g}–{upper:.2g}" for lower, upper in pairwise(edges)])
    return table
