"""Folds that hold whole groups, stratified by class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold


def of_groups(y: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Shuffled folds, as `StratifiedGroupKFold` of scikit-learn 1.8 and later draws them.

    Earlier versions, of which Colab has one, mix up the groups' class counts where they shuffle (scikit-learn#32540).

    Args:
        y: Class of each row, (n,).
        groups: Group of each row, (n,).
        folds: How many.
        seed: Of the shuffling.

    Yields:
        Places of the rows outside of the next fold and of those in it.
    """
    codes = np.unique(groups, return_inverse=True)[1]
    order = np.random.RandomState(seed).permutation(codes.max() + 1)
    yield from StratifiedGroupKFold(folds).split(y, y, np.argsort(order)[codes])
