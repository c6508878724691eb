"""A comparison: sides that are measured in turn, and the ratios that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.sides import Order, Side

Direction = Literal["≥", "≤"]
POINT = 0.01
"""Most accuracy that may be lost where a row counts accuracy."""


@dataclass(frozen=True)
class Row:
    """A ratio of two sides and its goal.

    Attributes:
        name: Short and unique, for the command line.
        what: What is measured.
        scanbook: Key of scanbook's side in its comparison.
        baseline: Key of the side that it is compared with.
        unit: Of both medians.
        n: Number of images or requests in a measurement.
        order: Numerator and denominator of the ratio.
        goal: The ratio to reach; None where the ratio is only shown.
        direction: Whether the ratio has to be at least or at most the goal.
        accuracy: Whether scanbook's accuracy may also be no more than one point below the baseline's.
        note: What else a reader has to know.
    """

    name: str
    what: str
    scanbook: str
    baseline: str
    unit: str
    n: int
    order: Order
    goal: float | None
    direction: Direction = "≥"
    accuracy: bool = False
    note: str = ""

    def reached(self, ratio: float, accuracies: tuple[float, float] | None = None) -> bool | None:
        """Return whether a ratio, and the accuracies of scanbook and baseline, reach the goal; None without a goal."""
        if self.goal is None:
            return None
        good = ratio >= self.goal if self.direction == "≥" else ratio <= self.goal
        if self.accuracy and accuracies:
            good = good and accuracies[0] >= accuracies[1] - POINT - 1e-9
        return good


@dataclass(frozen=True)
class Comparison:
    """Sides that are measured in turn, and the rows of the table that compare two of them each.

    Attributes:
        sides: By key.
        rows: One for each ratio.
        pairs: Number of rounds.
        prepare: Sides that write the inputs before, each in its own process.
    """

    sides: Mapping[str, Side]
    rows: tuple[Row, ...]
    pairs: int
    prepare: tuple[Side, ...] = ()


def select_rows(comparison: Comparison, names: set[str]) -> Comparison | None:
    """Return a comparison with the named rows and the sides that they need; None where it has no such row."""
    rows = tuple(row for row in comparison.rows if row.name in names)
    keys = {key for row in rows for key in (row.scanbook, row.baseline)}
    sides = {key: side for key, side in comparison.sides.items() if key in keys}
    return replace(comparison, rows=rows, sides=sides) if rows else None
