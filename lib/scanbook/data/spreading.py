"""Whole groups moved between splits where folds leave a class out of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Images:
    """Images that are to be assigned to splits.

    Attributes:
        y: (n,) int, class of each image.
        unit: (n,) int, from `units`.
        usable: (n,) bool, whether the image shows its class: a copy with another label does not.
    """

    y: np.ndarray
    unit: np.ndarray
    usable: np.ndarray

    def units_by_class(self) -> dict[int, list[int]]:
        """Return the units that show each class, the rarest class first."""
        y, unit = self.y[self.usable], self.unit[self.usable]
        own = {int(label): np.unique(unit[y == label]).tolist() for label in np.unique(y)}
        return dict(sorted(own.items(), key=lambda item: (len(item[1]), item[0])))

    def lacking(self, split: np.ndarray, shown: np.ndarray, places: Sequence[str]) -> int:
        """Return how often a split lacks a class that has a unit for it."""
        present = set(zip(self.y[shown].tolist(), split[shown].tolist(), strict=True))
        return sum(
            (label, place) not in present
            for label, own in self.units_by_class().items()
            for place in places[: len(own)]
        )


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


def spread(images: Images, split: np.ndarray, shown: np.ndarray, places: Sequence[str]) -> np.ndarray | None:
    """Return an assignment of whole units in which more classes are in every split, or None where folds leave none out.

    The rarest class comes first. It takes one unit for each split, such that the fewest images move; the classes after
    it do not move these units. Where every unit has one class, three units are enough for three splits. In general the
    i-th class has free units for its splits if it has 3i of them, since the classes before it hold at most 3(i − 1). A
    class with fewer units than splits takes the first of `places`.

    Args:
        images: The images.
        split: (n,) names, the assignment by folds.
        shown: (n,) bool, the usable images that stay in their split: a copy of an image in another split is excluded.
        places: The splits between which units may move, the one that a class needs most first.

    Returns:
        (n,) names. The images of a moved unit are all in one split.
    """
    before = images.lacking(split, shown, places)
    if not before:
        return None
    moved, shown, held = split.copy(), shown.copy(), dict[int, str]()
    sizes = np.bincount(images.unit)
    rows_of = np.split(np.argsort(images.unit, kind="stable"), np.cumsum(sizes)[:-1])
    for own in images.units_by_class().values():
        free = [one for one in own if one not in held]
        reached = {held[one] for one in own if one in held}
        wanted = [place for place in places[: len(own)] if place not in reached][: len(free)]
        cost = np.zeros((len(wanted), len(free)))
        for column, one in enumerate(free):
            rows = rows_of[one][images.usable[rows_of[one]]]
            for row, place in enumerate(wanted):
                cost[row, column] = 0 if shown[rows].all() and (moved[rows] == place).all() else sizes[one]
        for row, column in zip(*linear_sum_assignment(cost), strict=True):
            one, place = free[column], wanted[row]
            held[one] = place
            if cost[row, column]:
                moved[rows_of[one]], shown[rows_of[one]] = place, images.usable[rows_of[one]]
    return moved if images.lacking(moved, shown, places) < before else None
