"""What a comparison is: sides that are measured in turn, and the ratios that come of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.pairs import Order, Side

Direction = Literal["≥", "≤"]
POINT = 0.01
"""Most accuracy that may be lost where a row asks for it."""


@dataclass(frozen=True)
class Row:
    """A ratio of two sides and what it has to reach.

    Attributes:
        name: Short and unique, for the command line.
        what: What is measured.
        ours: Key of scanbook's side in its contest.
        other: Key of what it is held against.
        unit: Of both medians.
        n: How many images or requests a measurement has.
        order: What is divided by what.
        goal: What the ratio has to reach; None where it is only shown.
        direction: Whether it has to be at least or at most that.
        accuracy: Whether scanbook's accuracy may also be no more than one point below the other's.
        note: What else a reader has to know.
    """

    name: str
    what: str
    ours: str
    other: str
    unit: str
    n: int
    order: Order
    goal: float | None
    direction: Direction = "≥"
    accuracy: bool = False
    note: str = ""

    def reached(self, ratio: float, accuracies: tuple[float, float] | None = None) -> bool | None:
        """Whether a ratio, and where it counts accuracy, ours and the other, reach the goal; None without a goal."""
        if self.goal is None:
            return None
        good = ratio >= self.goal if self.direction == "≥" else ratio <= self.goal
        if self.accuracy and accuracies:
            good = good and accuracies[0] >= accuracies[1] - POINT - 1e-9
        return good


@dataclass(frozen=True)
class Contest:
    """Sides that are measured in turn, and the rows that come of them.

    Attributes:
        sides: By key.
        rows: Each of two of the sides.
        pairs: Rounds.
        prepare: What is made before, each in a process of its own.
    """

    sides: Mapping[str, Side]
    rows: tuple[Row, ...]
    pairs: int
    prepare: tuple[Side, ...] = ()


def limited(contest: Contest, names: set[str]) -> Contest | None:
    """A contest with those of its rows that are named, and the sides that they need; None without any."""
    rows = tuple(row for row in contest.rows if row.name in names)
    keys = {key for row in rows for key in (row.ours, row.other)}
    sides = {key: side for key, side in contest.sides.items() if key in keys}
    return replace(contest, rows=rows, sides=sides) if rows else None
