"""Whole groups moved between splits where folds leave a class out of one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def units(group: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Return the number of each image's unit, from 0: images of one group, or that are copies, have one number.

    Args:
        group: (n,) names.
        copies: (n,) int, the same number for copies of one image, and -1 for an image without one.

    Returns:
        (n,) int.
    """
    names, codes = np.unique(group, return_inverse=True)
    copied = np.flatnonzero(copies >= 0)
    count = len(names) + int(copies.max(initial=-1)) + 1
    ends = codes[copied], len(names) + copies[copied]
    links = coo_array((np.ones(len(copied)), ends), shape=(count, count))
    return connected_components(links, directed=False)[1][codes]


def spread(
    y: np.ndarray, unit: np.ndarray, split: np.ndarray, usable: np.ndarray, shown: np.ndarray, places: Sequence[str]
) -> np.ndarray | None:
    """Return an assignment of whole units in which more classes are in every split, or None where folds leave none out.

    The rarest class comes first. It takes one unit for each split, such that the fewest images move; the classes after
    it do not move these units. Where every unit has one class, three units are enough for three splits. In general the
    i-th class has free units for its splits if it has 3i of them, since the classes before it hold at most 3(i − 1). A
    class with fewer units than splits takes the first of `places`.

    Args:
        y: (n,) int, class of each image.
        unit: (n,) int, from `units`.
        split: (n,) names, the assignment by folds.
        usable: (n,) bool, whether the image shows its class: a copy with another label does not.
        shown: (n,) bool, which of these the assignment by folds uses: a copy of an image in another split is excluded.
        places: The splits between which units may move, the one that a class needs most first.

    Returns:
        (n,) names. The images of a moved unit are all in one split.
    """
    shown = shown & usable
    before = _count_lacking(y, unit, split, usable, shown, places)
    if not before:
        return None
    moved, held = split.copy(), dict[int, str]()
    sizes = np.bincount(unit)
    rows_of = np.split(np.argsort(unit, kind="stable"), np.cumsum(sizes)[:-1])
    own = {label: np.unique(unit[usable & (y == label)]).tolist() for label in np.unique(y[usable])}
    for label in sorted(own, key=lambda label: (len(own[label]), label)):
        free = [one for one in own[label] if one not in held]
        reached = {held[one] for one in own[label] if one in held}
        wanted = [place for place in places[: len(own[label])] if place not in reached][: len(free)]
        cost = np.zeros((len(wanted), len(free)))
        for column, one in enumerate(free):
            rows = rows_of[one][usable[rows_of[one]]]
            for row, place in enumerate(wanted):
                cost[row, column] = 0 if shown[rows].all() and (moved[rows] == place).all() else sizes[one]
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            held[free[column]] = wanted[row]
            if cost[row, column]:
                moved[rows_of[free[column]]] = wanted[row]
                shown[rows_of[free[column]]] = usable[rows_of[free[column]]]
    return moved if _count_lacking(y, unit, moved, usable, shown, places) < before else None


def _count_lacking(
    y: np.ndarray, unit: np.ndarray, split: np.ndarray, usable: np.ndarray, shown: np.ndarray, places: Sequence[str]
) -> int:
    """Return how often a split lacks a class that has a unit for it."""
    return sum(
        not (shown & (y == label) & (split == place)).any()
        for label in np.unique(y[usable])
        for place in places[: len(np.unique(unit[usable & (y == label)]))]
    )
