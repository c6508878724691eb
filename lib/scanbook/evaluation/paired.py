"""Is one model better than another on the same images, or is it noise?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from scanbook.errors import DataError
from scanbook.evaluation.bootstrap import interval, resample
from scanbook.evaluation.predictions import Predictions
from scanbook.evaluation.summary import find_metric


@dataclass(frozen=True)
class Difference:
    """A metric of model a minus the same of model b.

    Attributes:
        metric: name in `METRICS`.
        value: a − b, in the metric's own unit.
        low: lower end of the 95 % interval of a − b.
        high: upper end.
        p_value: two-sided, from the share of resamples on the other side of zero.
    """

    metric: str
    value: float
    low: float
    high: float
    p_value: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0

    def sentence(self, name_a: str, name_b: str) -> str:
        """The finding in words, for a report.

        Args:
            name_a: what to call model a.
            name_b: what to call model b.
        """
        metric = find_metric(self.metric)
        value, low, high = self.value, self.low, self.high
        if math.isnan(value):
            return f"{name_a} and {name_b} cannot be compared: {metric.title} is not defined on these images"
        if not self.clear:
            return (
                f"{name_a} and {name_b} are not told apart by {metric.title}: the difference of {_signed(value)} "
                f"is within noise (95 % interval {_signed(low)} to {_signed(high)})"
            )
        if value < 0:
            value, low, high = -value, -high, -low
        better, worse = (name_a, name_b) if (self.value > 0) == metric.higher_is_better else (name_b, name_a)
        how = "" if metric.higher_is_better else "lower "
        return (
            f"{better} is better than {worse} by {_signed(value)} {how}{metric.title} "
            f"(95 % interval {_signed(low)} to {_signed(high)})"
        )


def paired_difference(
    a: Predictions, b: Predictions, metric: str = "accuracy", rounds: int = 1000, seed: int = 0
) -> Difference:
    """Difference of two models with its 95 % interval, from the same group resamples for both.

    Args:
        a: model a.
        b: model b, on the same images in the same order.
        metric: name in `METRICS`.
        rounds: resamples.
        seed: of the resamples.

    Raises:
        DataError: images, labels, groups or classes differ, or the metric is unknown.
    """
    _check_same(a, b)
    compute = find_metric(metric).compute

    def difference(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return compute(a.y_true, a.probabilities, weights) - compute(b.y_true, b.probabilities, weights)

    values = resample(difference, a.group, rounds, seed)
    low, high = interval(values)
    defined = values[~np.isnan(values)]
    # One is added to both counts, so that a finite number of resamples never claims p = 0 (Davison and Hinkley, 1997).
    beyond = min((defined <= 0).sum(), (defined >= 0).sum())
    p_value = min(1.0, 2 * (1 + beyond) / (1 + len(defined)))
    return Difference(metric, float(difference(None)[0]), float(low), float(high), float(p_value))


def mcnemar(a: Predictions, b: Predictions) -> float:
    """Exact two-sided McNemar p of equal accuracy (McNemar, 1947).

    It takes images as independent; where patients have several, trust `paired_difference`.

    Args:
        a: model a.
        b: model b, on the same images in the same order.

    Returns:
        p; 1.0 where the two are right and wrong on the same images.

    Raises:
        DataError: images, labels, groups or classes differ.
    """
    _check_same(a, b)
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def _check_same(a: Predictions, b: Predictions) -> None:
    if a.classes != b.classes:
        raise DataError(f"classes differ, {a.classes} and {b.classes}: compare models of one class order")
    if len(a) != len(b):
        raise DataError(f"{len(a)} and {len(b)} images: compare models on the same images, in the same order")
    for field in ("image_id", "y_true", "group"):
        differ = getattr(a, field) != getattr(b, field)
        if differ.any():
            row = int(differ.argmax())
            raise DataError(
                f"{field} of row {row} differs, {getattr(a, field)[row]!s} and {getattr(b, field)[row]!s}: "
                "compare models on the same images, in the same order"
            )


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")
