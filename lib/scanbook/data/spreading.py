"""Whole groups moved between splits where folds leave a class, or a label of a finding, out of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Images:
    """Images that are to be assigned to splits.

    Attributes:
        kinds: (n, c) bool, what each image shows: its class; or which findings are present, and which are absent.
        unit: (n,) int, from `units`.
        usable: (n,) bool, whether the image shows its class or findings: a copy with another label does not.
    """

    kinds: np.ndarray
    unit: np.ndarray
    usable: np.ndarray

    @cached_property
    def units_by_kind(self) -> dict[int, list[int]]:
        """The units that show each kind, the rarest kind first; none for a kind that no image shows."""
        kinds, unit = self.kinds[self.usable], self.unit[self.usable]
        own = {kind: np.unique(unit[kinds[:, kind]]).tolist() for kind in range(kinds.shape[1])}
        return {kind: units for kind, units in sorted(own.items(), key=lambda item: (len(item[1]), item[0])) if units}

    def homes(self, split: np.ndarray, shown: np.ndarray, places: Sequence[str]) -> np.ndarray:
        """Return the place of each unit, by its position in `places`: that of all its usable images; -1 without one."""
        place = np.select([shown & (split == name) for name in places], range(len(places)), -1)[self.usable]
        low = np.full(self.unit.max() + 1, len(places))
        high = np.full(self.unit.max() + 1, -1)
        np.minimum.at(low, self.unit[self.usable], place)
        np.maximum.at(high, self.unit[self.usable], place)
        return np.where(low == high, low, -1)

    def lacking(self, split: np.ndarray, shown: np.ndarray, places: Sequence[str]) -> int:
        """Return how often a split lacks a kind that has a unit for it."""
        present = {place: self.kinds[shown & (split == place)].any(axis=0) for place in places}
        return sum(not present[place][kind] for kind, own in self.units_by_kind.items() for place in places[: len(own)])


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
    """Return an assignment of whole units in which more kinds are in every split, or None where folds leave none out.

    The rarest kind comes first. It takes one unit for each split, such that the fewest images move; the kinds after it
    do not move these units. Where every unit has one kind, three units are enough for three splits. In general the
    i-th kind has free units for its splits if it has 3i of them, since the kinds before it hold at most 3(i − 1). A
    kind with fewer units than splits takes the first of `places`.

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
    moved, shown = split.copy(), shown.copy()
    home, sizes = images.homes(split, shown, places), np.bincount(images.unit)
    held: dict[int, str] = {}
    for own in images.units_by_kind.values():
        free = np.array([one for one in own if one not in held], np.int64)
        reached = {held[one] for one in own if one in held}
        wanted = [place for place in places[: len(own)] if place not in reached][: len(free)]
        cost = np.array([np.where(home[free] == places.index(place), 0, sizes[free]) for place in wanted])
        for row, column in zip(*linear_sum_assignment(cost.reshape(len(wanted), len(free))), strict=True):
            held[int(free[column])] = wanted[row]
    for one, place in held.items():
        if home[one] != places.index(place):
            rows = images.unit == one
            moved[rows], shown[rows] = place, images.usable[rows]
    return moved if images.lacking(moved, shown, places) < before else None
