"""Stability and percentiles of repeated windows of timed calls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LAST = 3
"""Number of latest windows that have to agree."""


def is_stable(values: Sequence[float], tolerance: float) -> bool:
    """Return whether the values of the last three windows differ by at most `tolerance`, as a share of the smallest."""
    last = values[-LAST:]
    return len(last) == LAST and max(last) <= (1 + tolerance) * min(last)


def percentile(times: np.ndarray, share: int) -> float:
    """Return a percentile, or NaN where no call lies beyond it: the 95th takes 20 calls, the 99th 100."""
    return float(np.percentile(times, share)) if len(times) * (100 - share) >= 100 else np.nan
