"""Calibration: a stated confidence of 80 % should mean correct in 80 % of cases.

Classes share one temperature. Each finding has its own: a temperature, or Platt's two numbers, a slope and an offset
(Platt, 1999), which also correct a network that takes a rare finding to be frequent, as one trained with weights does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax
from scipy.stats import binomtest

from scanbook.errors import DataError
from scanbook.evaluation.findings import Calibration, FindingPredictions
from scanbook.evaluation.labels import Labels
from scanbook.evaluation.metrics import confidence_bin
from scanbook.evaluation.predictions import Predictions

NONE, TEMPERATURE, PLATT = "none", "temperature", "Platt"
"""Methods of calibration of a finding, from the simplest."""
_FOLDS = 5
_LEAST_GROUPS = 10
"""Fewest patients with a finding, and without it, on whom an offset is fitted."""
_LEAST_SLOPE = 0.01
"""Smallest slope, of logits with a standard deviation of 1: a negative one would reverse the order of the images."""


def calibrate(labels: Labels, logits: ArrayLike, group: ArrayLike, seed: int = 0) -> float | Calibration:
    """Return the calibration of logits: of classes the temperature, of findings that of each.

    Args:
        labels: Of n validation images.
        logits: (n, k) float.
        group: (n,) patient of each image.
        seed: Seed of the folds of `fit_calibration`.
    """
    if labels.exclusive:
        return fit_temperature(logits, labels.values.argmax(axis=1))
    return fit_calibration(logits, labels.values, group, seed)


def fit_calibration(logits: ArrayLike, labels: ArrayLike, group: ArrayLike, seed: int = 0) -> Calibration:
    """Return the calibration of findings, each by the method with the lowest cross-validated log loss.

    Args:
        logits: (n, k) float, of validation images.
        labels: (n, k): 1 present, 0 absent, NaN not labelled.
        group: (n,) patient of each image: no patient is in two folds.
        seed: Seed of the folds.

    Returns:
        The calibration. A finding that is present, or absent, in fewer than two patients has none; one in fewer than
        ten has no offset. No slope is negative, so that no order of images changes.

    Raises:
        DataError: The shapes do not match, or a logit is not finite.
    """
    scores, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if scores.ndim != 2 or scores.shape != truth.shape or len(scores) == 0:
        raise DataError(f"logits have shape {scores.shape}, labels {truth.shape}: expected (n, k) both, n above 0")
    if not np.isfinite(scores).all():
        raise DataError("logits hold NaN or infinity: expected finite numbers; check the model's training loss")
    groups = np.unique(np.asarray(group), return_inverse=True)[1]
    fits = []
    for z, y in zip(scores.T, truth.T, strict=True):
        known = ~np.isnan(y)
        fits.append(_select_method(z[known], y[known], groups[known], seed))
    slope, offset, method = zip(*fits, strict=True)
    return Calibration(np.array(slope), np.array(offset), method)


def _select_method(z: NDArray[Any], y: NDArray[Any], group: NDArray[Any], seed: int) -> tuple[float, float, str]:
    """Return slope, offset and method of one finding from its labelled images."""
    fewest = min(len(np.unique(group[y == side])) for side in (0, 1)) if len(y) else 0
    if fewest < 2 or np.ptp(z) == 0:
        return 1.0, 0.0, NONE
    methods = [NONE, TEMPERATURE, *([PLATT] if fewest >= _LEAST_GROUPS else [])]
    losses, folds = np.zeros(len(methods)), _folds(y, group, min(_FOLDS, fewest), seed)
    for fold in np.unique(folds):
        inside = folds == fold
        for place, method in enumerate(methods):
            slope, offset = _fit_sigmoid(z[~inside], y[~inside], method)
            losses[place] += _losses(slope * z[inside] + offset, y[inside]).sum()
    method = methods[int(losses.argmin())]
    return *_fit_sigmoid(z, y, method), method


def _folds(y: NDArray[Any], group: NDArray[Any], count: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each image: patients with the finding are spread evenly over the folds, and so are the others.

    `group_folds`, which balances the images too, would take a second per finding of 20,000 images.
    """
    members, member = np.unique(group, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(members))
    present = np.bincount(member, y) > 0
    order = order[np.argsort(~present[order], kind="stable")]
    fold = np.empty(len(members), np.int64)
    fold[order] = np.arange(len(members)) % count
    return fold[member]


def _fit_sigmoid(z: NDArray[Any], y: NDArray[Any], method: str) -> tuple[float, float]:
    """Return slope and offset with the lowest log loss.

    The labels are moved a little towards each other, by the number of images (Platt, 1999), so that the fit is finite
    where the logits separate them.
    """
    if method == NONE:
        return 1.0, 0.0
    positives, negatives = (y == 1).sum(), (y == 0).sum()
    target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    scale = float(np.std(z)) or 1.0  # of a fold whose logits are all equal
    x, ones = z / scale, np.ones(len(z))
    slope, offset = _newton([x, ones] if method == PLATT else [x], target, np.zeros(len(z)))
    if slope < _LEAST_SLOPE:
        slope = _LEAST_SLOPE
        offset = _newton([ones], target, slope * x)[0] if method == PLATT else 0.0
    return slope / scale, offset


def _newton(columns: Sequence[NDArray[Any]], target: NDArray[Any], fixed: NDArray[Any]) -> tuple[float, float]:
    """Return the factors of one or two columns with which fixed + their sum fits the targets best; 0 for no second.

    It is Newton's method with halved steps. Sums are NumPy's: on a machine with other work the threads of a BLAS wait
    for each other at each of the many small products, and scikit-learn's and SciPy's solvers take a hundred times
    longer.
    """
    point = np.zeros(len(columns))
    design = np.stack(columns)
    z, loss = fixed, _losses(fixed, target).mean()
    for _ in range(100):
        p = expit(z)
        gradient = ((p - target) * design).mean(axis=1)
        curvature = (design[:, None] * design * (p * (1 - p))).mean(axis=-1) + 1e-12 * np.eye(len(point))
        step = np.linalg.solve(curvature, gradient)
        for _ in range(30):
            moved = point - step
            z = fixed + (moved[:, None] * design).sum(axis=0)
            after = _losses(z, target).mean()
            if after <= loss:
                break
            step = step / 2
        point, loss = moved, after
        if np.abs(step).max() < 1e-7:
            break
    return float(point[0]), float(point[1]) if len(point) > 1 else 0.0


def _losses(z: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the log losses of logits, NaN where the label is."""
    return np.logaddexp(0, z) - y * z


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


def finding_reliability(predictions: FindingPredictions, finding: str, bins: int = 10) -> pd.DataFrame:
    """Return the stated probability of one finding and the share of images that have it, in bins of equal size.

    Most probabilities of a rare finding are small, so that bins of equal width would hold them all in the first.

    Args:
        predictions: n images, those labelled for the finding among them.
        finding: Its name.
        bins: Number of bins; fewer where probabilities tie.

    Returns:
        One row per bin, in ascending order: probability (mean), share (with the finding), count, and low, high: 95 %
        Wilson interval of the share, which takes images as independent.

    Raises:
        DataError: The finding is unknown, or no image is labelled for it.
    """
    one = predictions.binary(finding)
    p = one.probabilities[:, 1]
    # not `pandas.qcut`: of edges that lie between equal numbers it needs some rounding
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="inverted_cdf"))
    grouped = pd.DataFrame({"probability": p, "share": one.y_true}).groupby(np.searchsorted(edges, p))
    table = grouped.agg(probability=("probability", "mean"), share=("share", "mean"), count=("share", "size"))
    table[["low", "high"]] = [
        binomtest(int(present), int(count)).proportion_ci(method="wilson")
        for present, count in zip(grouped["share"].sum(), table["count"], strict=True)
    ]
    return table.reset_index(drop=True)
