"""Difference of two models on different images, whose errors are independent of each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scanbook.evaluation.paired import Difference


def unpaired_difference(metric: str, a: Sequence[float], b: Sequence[float]) -> Difference:
    """Return the difference of a metric between two models on different images, from its two intervals.

    The distances of each value from the ends of its own interval are added in squares: of the lower end of the
    difference those of a below and b above (Newcombe, 1998, method 10; Zou and Donner, 2008). No prediction is needed.
    Where some images are shared the interval is too wide, because their common difficulty is in it twice.

    Args:
        metric: Name in `METRICS`.
        a: Value of model a, and the lower and upper end of its 95 % interval.
        b: The same of model b.

    Returns:
        The difference a − b, without a p. Its ends are NaN where a value has no interval or lies outside it, as the
        calibration error may.
    """
    (value_a, low_a, high_a), (value_b, low_b, high_b) = a, b
    distances = (value_a - low_a, high_b - value_b, high_a - value_a, value_b - low_b)
    difference = value_a - value_b
    if not all(distance >= 0 for distance in distances):  # nor NaN
        return Difference(metric, difference, math.nan, math.nan, math.nan)
    below, above = math.hypot(*distances[:2]), math.hypot(*distances[2:])
    return Difference(metric, difference, difference - below, difference + above, math.nan)
