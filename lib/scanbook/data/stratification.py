"""Folds of images with several findings: whole groups, with equal shares of every finding in and outside the fold.

Scikit-learn stratifies one class per image; packages of iterative stratification (iterative-stratification,
scikit-multilearn) know no groups. Here a group is one unit, with a number of images of each kind.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

_ROUNDS = 400
"""Most exchanges after the first assignment."""
_LEAST = 1e-10
"""Least fall of the sum of squared deviations that an exchange must bring."""
_OF_GROUPS = 0.3
"""Weight of the number of groups with a finding, beside that of the number of images with it."""
_CANDIDATES = 60
"""Units of each side that are considered for an exchange."""


def fold(values: np.ndarray, group: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return one fold of whole groups in which every finding is as frequent as outside it.

    As in iterative stratification (Sechidis, Tsoumakas and Vlahavas, On the stratification of multi-label data, 2011,
    algorithm 1), the groups with the rarest finding are assigned first, then those with the rarest of the others, and
    those without a finding last. A group counts with all its images, a large one comes before a small one, and it goes
    to the side where it makes all shares most equal. Then groups change sides, alone or in pairs, as long as the shares
    become more equal. Only what is labelled counts.

    Args:
        values: Labels, float `(n, k)`: 1 present, 0 absent, NaN not labelled.
        group: Names of the groups, `(n,)`.
        folds: The fold takes one of so many parts of the images.
        seed: Seed of the order of groups that are alike.

    Returns:
        Whether each image is in the fold, bool `(n,)`; it does not depend on the order of the images.
    """
    unit, counts, positive = _units(values, group, seed)
    inside = _iterate(counts, positive, 1 / folds)
    inside = _exchange(counts, counts.sum(axis=0) / folds, inside)
    if not inside.any():
        inside[counts[:, 0].argmin()] = True
    return inside[unit]


def folds(values: np.ndarray, group: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the fold of each image, int `(n,)`, 0 to `count` - 1: one `fold` after the other, of the images left.

    Args:
        values: Labels, float `(n, k)`, as in `fold`.
        group: Names of the groups, `(n,)`, at least `count` different ones.
        count: Number of folds.
        seed: Seed of the order of groups that are alike.
    """
    number = np.full(len(values), count - 1)
    left = np.arange(len(values))
    for place in range(count - 1):
        inside = _leave(fold(values[left], group[left], count - place, seed), group[left], count - place - 1)
        number[left[inside]] = place
        left = left[~inside]
    return number


def _leave(inside: np.ndarray, group: np.ndarray, count: int) -> np.ndarray:
    """Return a fold that leaves so many groups outside: where it leaves fewer, without its smallest groups."""
    surplus = count - len(pd.unique(group[~inside]))
    if surplus <= 0:
        return inside
    sizes = pd.Series(group[inside]).value_counts(sort=False).sort_index().sort_values(kind="stable")
    return inside & ~np.isin(group, sizes.index[:surplus])


def rarest(values: np.ndarray) -> np.ndarray:
    """Return the rarest present finding of each image, int `(n,)`; -1 where none is known to be present.

    Args:
        values: Labels, float `(n, k)`, as in `fold`; the counts are of these images.
    """
    present = values == 1
    order = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), order[present[:, order].argmax(axis=1)], -1)


def _units(values: np.ndarray, group: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unit of each image, `(n,)`; scaled counts of each, `(u, c)`; and its images by finding, `(u, k)`.

    Units are in a random order that depends on their names and the seed alone. The columns of the counts are images,
    images with each finding, labelled images of each finding that is not always labelled, and groups with each finding,
    each divided by its total: a rare finding counts as much as a frequent one.
    """
    names = pd.unique(np.asarray(group, object))
    keys = [hashlib.blake2b(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest() for name in names]
    names = names[sorted(range(len(names)), key=keys.__getitem__)]
    unit = pd.Index(names).get_indexer(np.asarray(group, object))
    member = csr_array((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(len(names), len(unit)))
    known = ~np.isnan(values)
    positive = member @ (values == 1).astype(float)
    partly = known.any(axis=0) & ~known.all(axis=0)
    columns = [member.sum(axis=1)[:, None], positive, member @ known[:, partly].astype(float), positive > 0]
    scaled = [column / np.maximum(column.sum(axis=0), 1) for column in columns]
    scaled[3] *= _OF_GROUPS
    return unit, np.concatenate(scaled, axis=1), positive


def _iterate(counts: np.ndarray, positive: np.ndarray, share: float) -> np.ndarray:
    """Return which units are in the fold, bool `(u,)`: each is put where it is needed most, the rarest first."""
    units, findings = positive.shape
    carriers, left = positive > 0, np.ones(units, bool)
    inside, sizes = np.zeros(units, bool), counts.sum(axis=1)
    deviation = np.zeros(counts.shape[1])
    for _ in range(findings + 1):
        numbers = carriers[left].sum(axis=0)
        own = left.copy()
        if numbers.any():
            own &= carriers[:, int(np.argmin(np.where(numbers > 0, numbers, units + 1)))]
        rows = np.flatnonzero(own)
        for row in rows[np.argsort(-sizes[rows], kind="stable")]:
            # the squared deviation is smaller inside than outside; sums without BLAS are the same on every machine
            rise = 2 * (counts[row] * deviation).sum() + (1 - 2 * share) * (counts[row] ** 2).sum()
            inside[row] = rise < 0
            deviation += counts[row] * (inside[row] - share)
        left[rows] = False
    return inside


def _exchange(counts: np.ndarray, targets: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Exchange single units, or pairs, while the sum of the squared deviations from the targets falls."""
    inside, nothing = inside.copy(), np.zeros((1, counts.shape[1]))
    deviation, squares = counts[inside].sum(axis=0) - targets, (counts**2).sum(axis=1)
    for _ in range(_ROUNDS):
        slope = np.where(inside, -2, 2) * np.einsum("uc,c->u", counts, deviation)
        out, into = (_best(slope, squares, side) for side in (inside, ~inside))
        leaving, entering = (np.concatenate([nothing, counts[rows]]) for rows in (out, into))
        step = entering[None] - leaving[:, None]
        fall = (step * (2 * deviation + step)).sum(axis=2)
        first, second = np.unravel_index(int(fall.argmin()), fall.shape)
        if fall[first, second] > -_LEAST:
            break
        deviation = deviation + step[first, second]
        inside[out[first - 1 : first]], inside[into[second - 1 : second]] = False, True
    return inside


def _best(slope: np.ndarray, square: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Return units of a side that an exchange may move: those that help most alone, and with another one."""
    rows = np.flatnonzero(side)
    orders = (np.argsort(value[rows], kind="stable")[:_CANDIDATES] for value in (slope, slope + square))
    return rows[np.unique(np.concatenate(list(orders)))]
