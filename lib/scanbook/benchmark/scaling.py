"""Scaling with the number of workers: speed-up, efficiency and the serial fraction.

Strong scaling gives the same work to more workers (Amdahl, AFIPS 1967); weak scaling gives every worker the same work
(Gustafson, CACM 31(5), 1988). Efficiency is per worker used, not per worker of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats


def table(seconds: Sequence[float], workers: Sequence[float], work: Sequence[float] | None = None) -> pd.DataFrame:
    """Return speed-up and efficiency relative to the first row.

    Args:
        seconds: Time of each arm, above 0, `(n,)`.
        workers: Threads, processes or devices of each arm, above 0, `(n,)`; NaN where their number is not comparable,
            such as the cores of a GPU.
        work: Work of each arm, above 0, in any unit (images, classes); None where all did the same.

    Returns:
        One row per arm: `speedup`, the work per second relative to the first row (scaled speed-up where the work
        grows), and `efficiency`, speed-up over the ratio of the workers, NaN where `workers` is.
    """
    times, used = np.asarray(seconds, dtype=np.float64), np.asarray(workers, dtype=np.float64)
    rates = (1.0 if work is None else np.asarray(work, dtype=np.float64)) / times
    speedup = rates / rates[0]
    return pd.DataFrame({"speedup": speedup, "efficiency": speedup * used[0] / used})


def karp_flatt(speedup: ArrayLike, workers: ArrayLike) -> np.ndarray:
    """Return the serial fraction of a measured speed-up (Karp and Flatt, CACM 33(5), 1990).

    A fraction that grows with the workers shows overhead, which Amdahl's law does not include.

    Args:
        speedup: Over one worker, of the same work, above 0, `(n,)`.
        workers: Workers used, `(n,)`.

    Returns:
        (1/s − 1/p) / (1 − 1/p), float64 `(n,)`; NaN for one worker; below 0 where the speed-up is larger than the
        number of workers.
    """
    measured, used = np.asarray(speedup, dtype=np.float64), np.asarray(workers, dtype=np.float64)
    many = np.where(used > 1, used, np.nan)
    return (1 / measured - 1 / many) / (1 - 1 / many)


def gustafson(speedup: ArrayLike, workers: ArrayLike) -> np.ndarray:
    """Return the serial fraction of a scaled speed-up, where the work grows with the workers.

    Gustafson's law (CACM 31(5), 1988) is s = p − f·(p − 1).

    Args:
        speedup: Scaled, over one worker, above 0, `(n,)`.
        workers: Workers used, `(n,)`.

    Returns:
        f = (p − s) / (p − 1), float64 `(n,)`; NaN for one worker.
    """
    measured, used = np.asarray(speedup, dtype=np.float64), np.asarray(workers, dtype=np.float64)
    many = np.where(used > 1, used, np.nan)
    return (many - measured) / (many - 1)


@dataclass(frozen=True)
class Amdahl:
    """Amdahl's law, T(p) = T₁·(f + (1 − f)/p), fitted to measured times.

    Attributes:
        alone: T₁, seconds of one worker.
        serial: f, the share of T₁ that runs in sequence, 0 to 1.
        low: Lower end of its 95 % interval.
        high: Upper end.
    """

    alone: float
    serial: float
    low: float
    high: float

    def curve(self, most: float, points: int = 60) -> pd.DataFrame:
        """Return the law's speed-up 1 / (f + (1 − f)/p) from 1 to `most` workers, with its 95 % interval.

        Returns:
            Columns `threads`, spaced evenly on a logarithmic axis, `speedup`, `low` and `high`.
        """
        workers = np.geomspace(1, most, points)
        shares = {
            "speedup": self.serial,
            "low": self.high,
            "high": self.low,
        }  # a larger serial share means a smaller speed-up
        speedups = {name: 1 / (share + (1 - share) / workers) for name, share in shares.items()}
        return pd.DataFrame({"threads": workers} | speedups)

    def __str__(self) -> str:
        """Return the serial share with its interval in words."""
        return f"serial share of {self.serial:.1%} (95 % interval {self.low:.1%} to {self.high:.1%})"


def amdahl(workers: Sequence[float], seconds: Sequence[float]) -> Amdahl | None:
    """Fit Amdahl's law to times by least squares of relative errors.

    T(p) = a + b/p is linear, and f = a/(a + b) a ratio of its coefficients, so the interval is Fieller's (J. R. Stat.
    Soc. B 16, 1954), for normal errors. Estimate and interval are limited to 0 and 1: times that fall faster than
    the workers grow give 0.

    Args:
        workers: Workers of each arm, `(n,)`.
        seconds: Time of each, above 0, `(n,)`.

    Returns:
        The fit; None for fewer than three numbers of workers, which leave no residual.
    """
    used, times = np.asarray(workers, dtype=np.float64), np.asarray(seconds, dtype=np.float64)
    if len(np.unique(used)) < 3:
        return None
    design = np.stack([1 / times, 1 / (used * times)], axis=1)  # each row over its time: errors are relative
    inverse = np.linalg.inv(design.T @ design)
    a, b = inverse @ design.sum(0)
    freedom = len(times) - 2
    variance = ((1 - design @ [a, b]) ** 2).sum() / freedom
    bound = stats.t.ppf(0.975, freedom) ** 2 * variance
    # f is inside where (a − f·(a + b))² ≤ t²·Var(a − f·(a + b)): a quadratic in f
    whole = a + b
    square = whole**2 - bound * inverse.sum()
    middle = a * whole - bound * inverse[0].sum()
    constant = a**2 - bound * inverse[0, 0]
    low, high = 0.0, 1.0  # f is unknown where even T₁ does not exceed the noise
    if square > 0:
        half = np.sqrt(max(middle**2 - square * constant, 0.0))
        low, high = np.clip([(middle - half) / square, (middle + half) / square], 0, 1)
    serial = float(np.clip(a / whole, 0, 1))
    share = (serial + (1 - serial) / used) / times
    return Amdahl(float(share.sum() / (share**2).sum()), serial, float(low), float(high))
