"""Is one model's AUROC above another's on the same images? DeLong's test, for images of the same patients as well.

An AUROC is a mean over images of how each fares against the other kind: a positive's value is the share of negatives
it outranks, a negative's the share of positives that outrank it. Their spread gives the variance without resampling
(DeLong, DeLong and Clarke-Pearson, 1988); ranks give the values in n log n steps (Sun and Xu, 2014). Where a patient
has several images, these are summed by patient first, and a patient's positives and negatives may be correlated
(Obuchowski, 1997). With one image a patient the two variances are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from scanbook.errors import DataError
from scanbook.evaluation.predictions import Predictions, check_same

Floats = NDArray[np.float64]
# Below any variance that ranks can give, above what rounding leaves where the values are all alike.
_NONE = 1e-24


@dataclass(frozen=True)
class AreaDifference:
    """One class's AUROC by model a minus that by model b.

    Attributes:
        positive_class: the class that is told from the rest.
        area_a: AUROC of model a.
        area_b: AUROC of model b.
        value: area_a − area_b.
        low: lower end of the 95 % interval of the difference.
        high: upper end.
        p_value: two-sided, of no difference.
    """

    positive_class: str
    area_a: float
    area_b: float
    value: float
    low: float
    high: float
    p_value: float


def delong(a: Predictions, b: Predictions, positive_class: str, level: float = 0.95) -> AreaDifference:
    """Compares how well two models tell one class from the rest, over groups where images share one.

    Args:
        a: model a.
        b: model b, on the same images in the same order.
        positive_class: name of the class.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The difference; p is 1 where the models rank alike. All is NaN where the class or its rest has no image; the
        interval and p are NaN where fewer than two groups hold either, or where the models differ by the same on every
        image (one ranks perfectly, the other not at all): the images then show no spread to judge by.

    Raises:
        DataError: images, labels, groups or classes differ, or there is no such class.
    """
    check_same(a, b)
    if positive_class not in a.classes:
        raise DataError(f"class {positive_class!r} is unknown: expected one of {', '.join(a.classes)}")
    column = a.classes.index(positive_class)
    positive = a.y_true == column
    if positive.all() or not positive.any():
        return AreaDifference(positive_class, *[float("nan")] * 6)
    values = [placements(positive, model.probabilities[:, column]) for model in (a, b)]
    areas = [float(each[positive].mean()) for each in values]
    # The variance of a difference is that of the images' differences, so that the covariance need not be formed.
    spread = values[0] - values[1]
    variance = area_variance(positive, spread, a.group)
    value = areas[0] - areas[1]
    if variance <= _NONE:
        alike = not spread.any()
        low, high, p_value = (0.0, 0.0, 1.0) if alike else [float("nan")] * 3
    else:
        error = float(np.sqrt(variance))
        reach = norm.ppf((1 + level) / 2) * error
        low, high, p_value = value - reach, value + reach, 2 * norm.sf(abs(value) / error)
    return AreaDifference(positive_class, *areas, value, *map(float, (low, high, p_value)))


def placements(positive: ArrayLike, score: ArrayLike) -> Floats:
    """How each image fares against the other kind; the mean over either kind is the AUROC.

    Args:
        positive: (n,) bool, of both kinds.
        score: (n,) float, higher for positives.

    Returns:
        (n,) float64: of a positive the share of negatives below it, of a negative the share of positives above it,
        ties half.
    """
    truth, scores = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    among_all = rankdata(scores)
    shares = np.empty(len(scores))
    for kind in (True, False):
        own = truth == kind
        below = (among_all[own] - rankdata(scores[own])) / (~own).sum()
        shares[own] = below if kind else 1 - below
    return shares


def area_variance(positive: ArrayLike, values: ArrayLike, group: ArrayLike) -> float:
    """Variance of an AUROC, or of a difference of AUROCs, over groups.

    Args:
        positive: (n,) bool, of both kinds.
        values: (n,) `placements`, or the difference of two models' placements.
        group: (n,) names.

    Returns:
        The variance; NaN where fewer than two groups hold positives, or negatives.
    """
    truth, shares = np.asarray(positive, dtype=bool), np.asarray(values, dtype=np.float64)
    names, member = np.unique(np.asarray(group), return_inverse=True)
    sums, terms = [], []
    for own in (truth, ~truth):
        centred = np.where(own, shares - shares[own].mean(), 0.0)
        total = np.bincount(member, centred, len(names))
        holders = len(np.unique(member[own]))
        if holders < 2:
            return float("nan")
        sums.append(total)
        terms.append(holders / (holders - 1) * (total @ total) / own.sum() ** 2)
    # What a patient's positives and negatives have in common.
    shared = len(names) / (len(names) - 1) * (sums[0] @ sums[1]) / (truth.sum() * (~truth).sum())
    return float(max(sum(terms) + 2 * shared, 0.0))
