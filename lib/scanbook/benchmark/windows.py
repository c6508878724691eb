"""What repeated windows of timed calls have to show before their figures count."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LAST = 3
"""How many of the latest windows have to agree."""


def settled(values: Sequence[float], tolerance: float) -> bool:
    """Whether the values of the last three windows differ by at most `tolerance`, as a share of the smallest."""
    last = values[-LAST:]
    return len(last) == LAST and max(last) <= (1 + tolerance) * min(last)


def percentile(times: np.ndarray, share: int) -> float:
    """A percentile that at least one call lies beyond, which takes 20 for the 95th and 100 for the 99th; else NaN."""
    return float(np.percentile(times, share)) if len(times) * (100 - share) >= 100 else np.nan
