"""Making a stated confidence of 80 % mean right in 80 % of cases, and showing whether it does."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest

from scanbook.errors import DataError
from scanbook.evaluation.metrics import confidence_bin
from scanbook.evaluation.predictions import Predictions


def fit_temperature(logits: ArrayLike, y: ArrayLike) -> float:
    """The temperature that makes softmax(logits / t) fit the labels best (Guo et al., 2017).

    Fit it on validation images. It changes no prediction, only the confidence.

    Args:
        logits: (n, k) float; logarithms of probabilities serve as well.
        y: (n,) int, true class.

    Returns:
        t > 0. Where the labels cannot tell (no image is wrong, so that the likelihood asks for boundless confidence; or
        all logits of each image are equal) t is 1: the model is left as it is. Where the model knows nothing, t ends at
        100 times the logits' spread, which is as good as uniform probabilities.

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


def apply_temperature(logits: ArrayLike, t: float) -> NDArray[np.float64]:
    """softmax(logits / t); (n, k) float64, rows sum to 1.

    Args:
        logits: (n, k) float.
        t: temperature, above 0; above 1 it lowers the confidence.

    Raises:
        DataError: t is not a positive number.
    """
    if not (np.isfinite(t) and t > 0):
        raise DataError(f"temperature is {t}: expected a positive number; fit it with fit_temperature")
    return softmax(np.asarray(logits, dtype=np.float64) / t, axis=1)


def reliability(predictions: Predictions, bins: int = 10) -> pd.DataFrame:
    """Stated confidence against the share that was right, in equal bins of confidence.

    Args:
        predictions: n images.
        bins: number of bins between 0 and 1, each open below and closed above.

    Returns:
        One row per bin, empty ones included: bin ("0.8–0.9"), confidence (mean), accuracy, count, and low, high: 95 %
        Wilson interval of the accuracy, which takes images as independent. Empty bins are NaN.
    """
    edges = np.linspace(0, 1, bins + 1)
    frame = pd.DataFrame({"confidence": predictions.confidence, "right": predictions.correct})
    grouped = frame.groupby(confidence_bin(predictions.confidence, bins))
    table = grouped.agg(confidence=("confidence", "mean"), accuracy=("right", "mean"), count=("right", "size"))
    table[["low", "high"]] = [
        binomtest(int(right), int(count)).proportion_ci(method="wilson")
        for right, count in zip(grouped["right"].sum(), table["count"], strict=True)
    ]
    table = table.reindex(range(bins))
    table["count"] = table["count"].fillna(0).astype(np.int64)
    table.insert(0, "bin", [f"{below:.2g}–{above:.2g}" for below, above in pairwise(edges)])
    return table
