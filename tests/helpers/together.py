"""What training by several processes is held against."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def history(room: Path) -> pd.DataFrame:
    """Losses and accuracies of the one network from scratch in the store below a folder."""
    (found,) = (room / "store" / "scratch").glob("*/history.csv")
    return pd.read_csv(found).drop(columns="seconds")


def same_curve(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Two trainings are one: to float32's digits while rounding has not grown yet, and closely to the end.

    Sums are taken in another order; Adam's first steps, which follow signs, make more of it with every epoch.
    """
    pd.testing.assert_frame_equal(found.head(2), expected.head(2), rtol=1e-4)
    pd.testing.assert_frame_equal(found, expected, rtol=0.02)
