"""The bootstrap over groups: patients are drawn with replacement, and all images of a patient go with them.

Images of one patient are alike: resampled one by one they would make intervals too narrow (Field and Welsh, 2007).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanbook.errors import DataError

# Weights held at a time (rounds × images): 24 MB as float64, small beside the images and large enough for BLAS.
_CHUNK = 3_000_000


def group_weights(group: ArrayLike, rounds: int, seed: int) -> NDArray[np.float32]:
    """How often each image occurs in each of `rounds` resamples of whole groups.

    Args:
        group: (n,) names; images of one group get one count.
        rounds: number of resamples.
        seed: of the random numbers.

    Returns:
        (rounds, n) float32 of whole numbers.

    Raises:
        DataError: there is no image or no round.
    """
    return np.concatenate(list(_chunks(group, rounds, seed)))


def resample(
    statistic: Callable[[NDArray[np.float32]], NDArray[np.float64]], group: ArrayLike, rounds: int, seed: int
) -> NDArray[np.float64]:
    """A statistic's values over the resamples, in bounded memory.

    Args:
        statistic: function of weights (some rounds, n) giving (the same rounds, ...).
        group: (n,) names.
        rounds: number of resamples.
        seed: of the random numbers; the same groups and seed give the same resamples.

    Returns:
        (rounds, ...) float64; NaN where all images are of one group, whose resamples are all alike.

    Raises:
        DataError: there is no image or no round.
    """
    values = np.concatenate([statistic(weights) for weights in _chunks(group, rounds, seed)])
    return values if len(np.unique(np.asarray(group))) > 1 else np.full_like(values, np.nan, np.float64)


def interval(values: ArrayLike, level: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval over the first axis, leaving out rounds in which the statistic is not defined.

    Args:
        values: (rounds, ...) float.
        level: coverage, between 0 and 1.

    Returns:
        Lower and upper ends, each (...) float64; NaN where no round is defined.
    """
    array = np.asarray(values, dtype=np.float64)
    never = np.isnan(array).all(axis=0)
    ends = np.nanquantile(np.where(never, 0.0, array), [(1 - level) / 2, (1 + level) / 2], axis=0)
    ends = np.where(never, np.nan, ends)
    return ends[0], ends[1]


def _chunks(group: ArrayLike, rounds: int, seed: int) -> Iterator[NDArray[np.float32]]:
    names = np.asarray(group)
    if len(names) == 0 or rounds < 1:
        raise DataError(f"cannot resample {len(names)} images in {rounds} rounds: expected at least one of each")
    unique, member = np.unique(names, return_inverse=True)
    count = len(unique)
    random = np.random.default_rng(seed)
    step = max(1, _CHUNK // len(names))
    for start in range(0, rounds, step):
        size = min(step, rounds - start)
        drawn = random.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield counts.astype(np.float32)[:, member]
