"""Values and their intervals as texts."""

from __future__ import annotations

import math

import numpy as np


def with_interval(value: float, low: float = math.nan, high: float = math.nan, signed: bool = False) -> str:
    """Return a value and its 95 % interval: "0.673 (0.559–0.770)", "+0.020 (−0.012 to +0.052)".

    Args:
        value: The value; "–" for NaN.
        low: Lower end; NaN for no interval.
        high: Upper end.
        signed: Whether a positive number has a sign, as a difference does.
    """
    if np.isnan(value):
        return "–"
    largest = np.nanmax(np.abs([value, low, high]))
    digits = 3 if largest < 10 else 1 if largest < 1000 else 0
    if 0 < largest < 0.01:  # two digits that count
        digits = min(12, 1 - math.floor(math.log10(largest)))

    def text(number: float) -> str:
        rounded = round(number, digits) + 0.0  # no negative zero
        return f"{rounded:{'+' if signed else ''},.{digits}f}".replace("-", "−")

    if np.isnan(low) or np.isnan(high):
        return text(value)
    return f"{text(value)} ({text(low)}{' to ' if signed or low < 0 else '–'}{text(high)})"
