"""Resampling of whole groups: the bootstrap, its intervals, and cross-validation folds.

A group is a patient or a lesion. Images of one patient are alike, so resampling them one by one would make intervals
too narrow (Field and Welsh, 2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold

from scanbook.errors import DataError

Floats = NDArray[np.float64]
# Weights in memory at a time (rounds × images): 24 MB as float64, small beside the images and large enough for BLAS.
_CHUNK = 3_000_000
UNBOUNDED = (-math.inf, math.inf)
"""Bounds of a difference, which is nowhere near those that it has."""
_QUANTILES = [(1 - 0.95) / 2, (1 + 0.95) / 2]


def group_weights(group: ArrayLike, rounds: int, seed: int) -> NDArray[np.float32]:
    """Return how often each image occurs in each of `rounds` resamples of whole groups.

    Args:
        group: (n,) names; images of one group get one count.
        rounds: Number of resamples.
        seed: Seed of the random numbers.

    Returns:
        (rounds, n) float32 of whole numbers.

    Raises:
        DataError: there is no image or no round.
    """
    return np.concatenate(list(_chunks(group, rounds, seed)))


def resample(
    statistic: Callable[[NDArray[np.float32]], Floats],
    group: ArrayLike,
    rounds: int,
    seed: int,
    fold: ArrayLike | None = None,
    *,
    bounds: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
) -> Floats:
    """Return the values of a statistic over the resamples, in bounded memory.

    With folds, their distances from their mean are multiplied by `widening`.

    Args:
        statistic: Function of weights (some rounds, n) that returns (the same rounds, ...).
        group: (n,) names.
        rounds: Number of resamples.
        seed: Seed of the random numbers; the same groups and seed give the same resamples.
        fold: (n,) names of the folds of cross-validation; None where one model predicts all images.
        bounds: Least and largest value of the statistic, where the distances are multiplied.

    Returns:
        (rounds, ...) float64; NaN where all images are of one group, because its resamples are all the same.

    Raises:
        DataError: there is no image or no round.
    """
    values = np.concatenate([statistic(weights) for weights in _chunks(group, rounds, seed)])
    if (factor := widening(group, fold)) > 1:
        known = np.isfinite(values)
        mean = np.where(known, values, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        values = np.clip(mean + factor * (values - mean), *bounds)
    return values if len(np.unique(np.asarray(group))) > 1 else np.full_like(values, np.nan, np.float64)


def widening(group: ArrayLike, fold: ArrayLike | None) -> float:
    """Return by how much an interval from folds is wider than resamples of their test images make it.

    Each image is test once and trains the other models, so the folds' results depend on each other, and resamples of
    fixed predictions do not show it. Where there is little to learn, or there are few patients, the error of
    cross-validation is 1.2 to 1.5 times what they show; with many patients and a strong signal it is what they show,
    and the interval is wider than it need be. No estimate from the folds tells which (Bengio and Grandvalet, 2004).

    Args:
        group: (n,) names.
        fold: (n,) names of the folds; None where one model predicts all images. Of repeated folds, k is the number of
            one repeat.

    Returns:
        The factor; 1 without folds, and of images of a single fold.
    """
    if fold is None:
        return 1.0
    groups, member = np.unique(np.asarray(group), return_inverse=True)
    names, place = np.unique(np.asarray(fold), return_inverse=True)
    tested = len(np.unique(place * len(groups) + member))  # pairs of fold and group
    return widening_of(len(names) * len(groups) / tested)


def widening_of(k: float) -> float:
    """Return sqrt(1 + k / (k - 1)) of k folds, 1.5 of five, and 1 of one (Nadeau and Bengio, 2003)."""
    return math.sqrt(1 + k / (k - 1)) if k > 1 else 1.0


def count_groups(mask: NDArray[np.bool_], group: ArrayLike) -> NDArray[np.int64]:
    """Return how many groups have an image in each column of a mask, (k,) int64.

    Args:
        mask: (n, k) bool.
        group: (n,) names.
    """
    member = np.unique(np.asarray(group), return_inverse=True)[1]
    return np.array([np.count_nonzero(np.bincount(member[rows])) for rows in mask.T], np.int64)


def interval(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the 95 % percentile interval over the first axis, without rounds in which the statistic is not defined.

    Args:
        values: (rounds, ...) float.

    Returns:
        Lower and upper ends, (...) float64 each; NaN where no round is defined.
    """
    array = np.asarray(values, dtype=np.float64)
    undefined = np.isnan(array).all(axis=0)
    ends = np.nanquantile(np.where(undefined, 0.0, array), _QUANTILES, axis=0)
    low, high = np.where(undefined, np.nan, ends)
    return low, high


def interval_columns(name: str, value: Floats, low: Floats, high: Floats) -> dict[str, Floats]:
    """Return a value and the ends of its interval as the columns of a table: name, `<name>_low` and `<name>_high`."""
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def correct_ends(
    value: Floats, low: Floats, high: Floats, groups: NDArray[np.int64], factor: float = 1.0
) -> tuple[Floats, Floats]:
    """Return the ends of intervals of shares, with a width where the bootstrap gives none.

    A share of 0 or 1 is the same in every resample. Its interval is that of Clopper and Pearson (1934), each group
    counted as one trial.

    Args:
        value: Shares, of any shape.
        low: Their lower ends, from `interval`.
        high: Their upper ends.
        groups: How many groups each share is of; of fewer than two there is no interval.
        factor: `widening` of the interval; it takes the square of it as many trials for one.

    Returns:
        Lower and upper ends, NaN where there are none.
    """
    tail = ((1 - 0.95) / 2) ** (factor**2 / np.maximum(groups, 1))
    known = (groups > 1) & ~np.isnan(value)
    lower, upper = np.where(value == 1, tail, low), np.where(value == 0, 1 - tail, high)
    return np.where(known, lower, np.nan), np.where(known, upper, np.nan)


def group_folds(y: np.ndarray, group: np.ndarray, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield shuffled folds of whole groups, stratified by class, as scikit-learn 1.8 and later make them.

    Earlier versions, of which Colab has one, mix up the class counts of the groups where they shuffle
    (scikit-learn#32540).

    Args:
        y: (n,) class of each row.
        group: (n,) group of each row.
        folds: Number of folds.
        seed: Seed of the shuffling.

    Yields:
        Positions of the rows outside the fold and of those in it.
    """
    codes = np.unique(group, return_inverse=True)[1]
    order = np.random.RandomState(seed).permutation(codes.max() + 1)
    yield from StratifiedGroupKFold(folds).split(y, y, np.argsort(order)[codes])


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
        sampled = random.integers(count, size=(size, count)) + count * np.arange(size)[:, None]
        counts = np.bincount(sampled.ravel(), minlength=size * count).reshape(size, count)
        yield counts.astype(np.float32)[:, member]
