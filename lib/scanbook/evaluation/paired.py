"""Is one model better than another on the same images, or is it noise?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from scanbook.evaluation.bootstrap import interval, resample
from scanbook.evaluation.delong import delong
from scanbook.evaluation.predictions import Predictions, check_same
from scanbook.evaluation.summary import DEFAULT_METRICS, find_metric


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
        if math.isnan(low):
            return f"{name_a} and {name_b} cannot be told apart by {metric.title}: all images are of one group"
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
    return _differences(a, b, (metric,), rounds, seed)[0]


def comparison(
    a: Predictions, b: Predictions, metrics: Sequence[str] = DEFAULT_METRICS, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Everything by which two models differ on the same images, and how sure that is.

    Args:
        a: model a.
        b: model b, on the same images in the same order.
        metrics: names in `METRICS`.
        rounds: resamples.
        seed: of the resamples, which all metrics and both models share.

    Returns:
        Index `comparison`: the metrics' names, then "AUROC of <class> (DeLong)" for every class (of two, whose
        AUROCs are the same, the second) and "accuracy (McNemar)"; columns difference (a − b), low, high and p_value.
        McNemar's test has no interval. No p is corrected for the number of rows.

    Raises:
        DataError: images, labels, groups or classes differ, or a metric is unknown.
    """
    rows = {d.metric: (d.value, d.low, d.high, d.p_value) for d in _differences(a, b, metrics, rounds, seed)}
    for name in a.classes if len(a.classes) > 2 else a.classes[1:]:
        area = delong(a, b, name)
        rows[f"AUROC of {name} (DeLong)"] = (area.value, area.low, area.high, area.p_value)
    gained = float(a.correct.mean() - b.correct.mean())
    rows["accuracy (McNemar)"] = (gained, float("nan"), float("nan"), mcnemar(a, b))
    columns = ["difference", "low", "high", "p_value"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("comparison")


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
    check_same(a, b)
    only_a, only_b = int((a.correct & ~b.correct).sum()), int((b.correct & ~a.correct).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b).pvalue)


def _differences(a: Predictions, b: Predictions, metrics: Sequence[str], rounds: int, seed: int) -> list[Difference]:
    check_same(a, b)
    computes = [find_metric(name).compute for name in metrics]

    def difference(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        first, second = (
            np.stack([compute(a.y_true, model.probabilities, weights) for compute in computes], axis=1)
            for model in (a, b)
        )
        return first - second

    values = resample(difference, a.group, rounds, seed)
    point, (low, high) = difference(None)[0], interval(values)
    found = []
    for place, name in enumerate(metrics):
        defined = values[~np.isnan(values[:, place]), place]
        # One is added to both counts, so that a finite number of resamples never claims p = 0 (Davison and Hinkley,
        # 1997).
        beyond = min((defined <= 0).sum(), (defined >= 0).sum())
        p_value = min(1.0, 2 * (1 + beyond) / (1 + len(defined))) if len(defined) else float("nan")
        found.append(Difference(name, *map(float, (point[place], low[place], high[place], p_value))))
    return found


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-0.000", "0.000").replace("-", "−")
