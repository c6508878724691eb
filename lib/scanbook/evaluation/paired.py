"""Comparison of two models on the same images: intervals of the difference, DeLong's test and McNemar's test.

DeLong's test compares two AUROCs. An AUROC is a mean over images: the value of a positive image is the share of
negatives with a lower score, the value of a negative image the share of positives with a higher score. The spread of
these values gives the variance without resampling (DeLong, DeLong and Clarke-Pearson, 1988); ranks give the values in
n log n steps (Sun and Xu, 2014). Where a patient has several images, the values are summed by patient first, and a
patient's positives and negatives may be correlated (Obuchowski, 1997). With one image per patient both variances are
the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest, norm, rankdata

from scanbook.errors import DataError
from scanbook.evaluation.findings import STATES, AnyPredictions, FindingPredictions
from scanbook.evaluation.predictions import Predictions, check_same
from scanbook.evaluation.registry import find_metric, find_metrics, main_metric
from scanbook.evaluation.resampling import UNBOUNDED, interval, resample, widening
from scanbook.evaluation.summary import default_metrics

Floats = NDArray[np.float64]
# Below any variance that ranks can give, above the rounding error of values that are all equal.
_LEAST_VARIANCE = 1e-24


@dataclass(frozen=True)
class Difference:
    """A metric of model a minus the same metric of model b.

    Attributes:
        metric: Name in `METRICS`, or of a test (`AUROC of <class> (DeLong)`, `accuracy (McNemar)`).
        value: a − b, in the metric's own unit.
        low: Lower end of the 95 % interval of a − b.
        high: Upper end.
        p_value: Two-sided p of no difference.
    """

    metric: str
    value: float
    low: float
    high: float
    p_value: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    def sentence(self, name_a: str, name_b: str) -> str:
        """Return the result in words, for a report; the metric is one of `METRICS`.

        Args:
            name_a: Name of model a.
            name_b: Name of model b.
        """
        metric = find_metric(self.metric)
        value, low, high = self.value, self.low, self.high
        if math.isnan(value):
            return f"{name_a} and {name_b} cannot be compared: {metric.title} is not defined on these images"
        if math.isnan(low):
            return f"{name_a} and {name_b} cannot be compared by {metric.title}: all images are of one group"
        if not self.clear:
            return (
                f"{name_a} and {name_b} do not differ clearly in {metric.title}: the difference of {_signed(value)} "
                f"is within noise (95 % interval {_signed(low)} to {_signed(high)})"
            )
        if value < 0:
            value, low, high = -value, -high, -low
        better, worse = (name_a, name_b) if (self.value > 0) == metric.higher_is_better else (name_b, name_a)
        direction = "" if metric.higher_is_better else "lower "
        return (
            f"{better} is better than {worse} by {_signed(value)} {direction}{metric.title} "
            f"(95 % interval {_signed(low)} to {_signed(high)})"
        )


def paired_difference(
    a: AnyPredictions,
    b: AnyPredictions,
    metric: str = "",
    rounds: int = 1000,
    seed: int = 0,
    *,
    every_class: bool = True,
) -> Difference:
    """Return the difference of two models with its 95 % interval, from the same group resamples for both.

    Args:
        a: Model a.
        b: Model b, on the same images in the same order.
        metric: Name in `METRICS`; "" for accuracy, of findings for macro AUROC.
        rounds: Number of resamples.
        seed: Seed of the resamples.
        every_class: Whether a metric of all classes is NaN where one has no image; else it is that of the others, which
            tells how far two forms of one network agree.

    Returns:
        The difference; its p is twice the share of resamples on the other side of zero.

    Raises:
        DataError: images, labels, groups or classes differ, or the metric is unknown.
    """
    difference = _differences(a, b, (metric or main_metric(a),), rounds, seed)[0]
    return difference if not every_class else _where_defined(difference, a)


def comparison(
    a: AnyPredictions, b: AnyPredictions, metrics: Sequence[str] = (), rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return all differences of two models on the same images, with their intervals and p values.

    Args:
        a: Model a.
        b: Model b, on the same images in the same order.
        metrics: Names in `METRICS`; none for those of `summary`.
        rounds: Number of resamples.
        seed: Seed of the resamples, which all metrics and both models share.

    Returns:
        Index `comparison`: the metrics' names, then `AUROC of <class> (DeLong)` for every class (of two, whose
        AUROCs are the same, the second) and "accuracy (McNemar)"; columns difference (a − b), low, high and p_value.
        McNemar's test has no interval; of several folds, whose results depend on each other, there is none. No p is
        corrected for the number of rows. A metric of all classes is NaN where one has no image. Of findings there is no
        McNemar's test, and a column p_holm has the p of DeLong's tests, corrected for the number of findings.

    Raises:
        DataError: images, labels, groups or classes differ, or a metric is unknown.
    """
    rows = [_where_defined(row, a) for row in _differences(a, b, metrics or default_metrics(a), rounds, seed)]
    if isinstance(a, FindingPredictions):
        tests = [delong(a, b, name) for name in a.findings]
        corrected = [math.nan] * len(rows) + holm([test.p_value for test in tests]).tolist()
        return _table([*rows, *tests]).assign(p_holm=corrected)
    rows += [delong(a, b, name) for name in (a.classes if len(a.classes) > 2 else a.classes[1:])]
    if widening(a.group, a.fold) == 1:
        accuracy = float(a.correct.mean() - b.correct.mean())
        row = Difference("accuracy (McNemar)", accuracy, math.nan, math.nan, mcnemar(a, b))
        rows.append(row if not a.absent else Difference(row.metric, *[math.nan] * 4))
    return _table(rows)


def holm(p_values: ArrayLike) -> Floats:
    """Return p values corrected for their number by Holm's step-down method (1979).

    Args:
        p_values: (m,) p values; NaN, a test that was not possible, stays NaN and does not count.

    Returns:
        (m,) float64. Where those below 0.05 are taken as differences, the probability of one false difference or more
        is at most 5 %, however the tests depend on each other.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)[: (~np.isnan(p)).sum()]
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def mcnemar(a: Predictions, b: Predictions) -> float:
    """Return the exact two-sided McNemar p of equal accuracy (McNemar, 1947).

    It takes images as independent; where patients have several, use `paired_difference`.

    Args:
        a: Model a.
        b: Model b, on the same images in the same order.

    Returns:
        p; 1.0 where both models are correct on the same images.

    Raises:
        DataError: images, labels, groups or classes differ.
    """
    check_same(a, b)
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def delong(a: AnyPredictions, b: AnyPredictions, positive_class: str) -> Difference:
    """Return the difference of two models' AUROCs of one class against the rest, with its 95 % interval over groups.

    Of a finding it is that of the images which are labelled for it. With several folds it is the mean over the folds
    that hold both the class and the rest.

    Args:
        a: Model a.
        b: Model b, on the same images in the same order.
        positive_class: Name of the class, or of the finding.

    Returns:
        The difference; p is 1 where both models rank the images in the same way. All is NaN where the class or the
        rest has no image. The interval and p are NaN where fewer than two groups hold either, or where the models
        differ by the same amount on every image (one ranks perfectly, the other not at all): the images then show no
        spread to judge by.

    Raises:
        DataError: images, labels, groups or classes differ, or the class is unknown.
    """
    check_same(a, b)
    if isinstance(a, FindingPredictions):
        name = f"AUROC of {positive_class} (DeLong)"
        if positive_class in a.absent:
            return Difference(name, *[math.nan] * 4)
        return replace(delong(a.binary(positive_class), b.binary(positive_class), STATES[1]), metric=name)
    if positive_class not in a.classes:
        raise DataError(f"class {positive_class!r} is unknown: expected one of {', '.join(a.classes)}")
    column = a.classes.index(positive_class)
    name, positive = f"AUROC of {positive_class} (DeLong)", a.y_true == column
    if positive.all() or not positive.any():
        return Difference(name, *[math.nan] * 4)
    folds = _folds_of_both_kinds(positive, a.fold)
    if not folds:
        return Difference(name, *[math.nan] * 4)
    spread, areas = np.zeros(len(a)), np.zeros((2, len(folds)))
    for place, rows in enumerate(folds):
        values = [placements(positive[rows], model.probabilities[rows, column]) for model in (a, b)]
        areas[:, place] = [value[positive[rows]].mean() for value in values]
        # The variance of a difference is that of the images' differences, so no covariance is needed.
        spread[rows] = values[0] - values[1]
    difference = float(areas[0].mean() - areas[1].mean())
    variance = area_variance(positive, spread, a.group, folds)
    if variance <= _LEAST_VARIANCE:
        return Difference(name, difference, *([math.nan] * 3 if spread.any() else [0.0, 0.0, 1.0]))
    error = float(np.sqrt(variance)) * widening(a.group, a.fold)
    half = float(norm.ppf(0.975)) * error
    p_value = float(2 * norm.sf(abs(difference) / error))
    return Difference(name, difference, difference - half, difference + half, p_value)


def placements(positive: ArrayLike, score: ArrayLike) -> Floats:
    """Return the value of each image against those of the other kind; their mean over either kind is the AUROC.

    Args:
        positive: (n,) bool, of both kinds.
        score: (n,) float, higher for positives.

    Returns:
        (n,) float64: of a positive the share of negatives below it, of a negative the share of positives above it;
        ties count half.
    """
    truth, scores = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    ranks = rankdata(scores)
    shares = np.empty(len(scores))
    for kind in (True, False):
        own = truth == kind
        below = (ranks[own] - rankdata(scores[own])) / (~own).sum()
        shares[own] = below if kind else 1 - below
    return shares


def _folds_of_both_kinds(positive: NDArray[np.bool_], fold: NDArray[np.str_] | None) -> list[NDArray[np.int64]]:
    """Return the rows of each fold that holds positives and negatives; all rows where there are no folds."""
    if fold is None:
        return [np.arange(len(positive))]
    rows = (np.flatnonzero(fold == name) for name in np.unique(fold))
    return [own for own in rows if positive[own].any() and not positive[own].all()]


def area_variance(
    positive: ArrayLike, values: ArrayLike, group: ArrayLike, folds: Sequence[NDArray[np.int64]] = ()
) -> float:
    """Return the variance of an AUROC, or of a difference of AUROCs, over groups.

    That of a mean over folds takes each value about the mean of its fold.

    Args:
        positive: (n,) bool, of both kinds.
        values: (n,) `placements`, or the difference of two models' placements.
        group: (n,) names.
        folds: Rows of each fold, int, each with both kinds; none where one model gives all values.

    Returns:
        The variance; NaN where too few groups hold positives, or negatives: fewer than two of one model.
    """
    truth, shares = np.asarray(positive, dtype=bool), np.asarray(values, dtype=np.float64)
    names, member = np.unique(np.asarray(group), return_inverse=True)
    parts = list(folds) or [np.arange(len(truth))]
    # a mean is taken from the values of each fold; a group that is in several repeats of the folds counts once
    means = len(parts) * len(names) / sum(len(np.unique(member[rows])) for rows in parts)
    sums, terms = [], []
    for own in (truth, ~truth):
        share_of_mean = np.zeros(len(truth))
        for rows in parts:
            inside = rows[own[rows]]
            share_of_mean[inside] = (shares[inside] - shares[inside].mean()) / (len(inside) * len(parts))
        total = np.bincount(member, share_of_mean, len(names))
        holders = len(np.unique(member[own]))
        if holders <= means:
            return math.nan
        sums.append(total)
        terms.append(holders / (holders - means) * (total @ total))
    # The covariance of a patient's positives and negatives.
    shared = len(names) / (len(names) - means) * (sums[0] @ sums[1])
    return float(max(sum(terms) + 2 * shared, 0.0))


def _table(rows: Sequence[Difference]) -> pd.DataFrame:
    columns = ["comparison", "difference", "low", "high", "p_value"]
    return pd.DataFrame(map(astuple, rows), columns=columns).set_index("comparison")


def _where_defined(difference: Difference, model: AnyPredictions) -> Difference:
    """Return a difference, NaN where its metric is not defined on the model's images."""
    defined = find_metric(difference.metric).defined(model)
    return difference if defined else Difference(difference.metric, *[math.nan] * 4)


def _differences(
    a: AnyPredictions, b: AnyPredictions, metrics: Sequence[str], rounds: int, seed: int
) -> list[Difference]:
    check_same(a, b)
    computes = [(metric.of(a), metric.of(b)) for metric in find_metrics(a, metrics)]

    def difference(weights: Floats | None) -> Floats:
        return np.stack([of_a(weights) - of_b(weights) for of_a, of_b in computes], axis=1)

    values = resample(difference, a.group, rounds, seed, a.fold, bounds=UNBOUNDED)
    point, (low, high) = difference(None)[0], interval(values)
    differences = []
    for column, name in enumerate(metrics):
        defined = values[~np.isnan(values[:, column]), column]
        # One is added to both counts, so that a finite number of resamples never claims p = 0 (Davison and Hinkley,
        # 1997).
        beyond = min((defined <= 0).sum(), (defined >= 0).sum())
        p_value = min(1.0, 2 * (1 + beyond) / (1 + len(defined))) if len(defined) else math.nan
        differences.append(Difference(name, *map(float, (point[column], low[column], high[column], p_value))))
    return differences


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")
