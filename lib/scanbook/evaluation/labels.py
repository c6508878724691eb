"""Labels of images: one class for each, or for each finding whether it is present, absent or not labelled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanbook.errors import DataError


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of n images.

    Attributes:
        names: k classes or findings, in the order of the columns.
        values: (n, k) float32: 1 present, 0 absent, NaN not labelled. Not labelled is not absent.
        exclusive: Whether the names are classes: exactly one applies to an image, and all are labelled.

    Raises:
        DataError: A shape or a value is not as above.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    exclusive: bool

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float32)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise DataError(f"labels have shape {values.shape}: expected (n, {len(self.names)}), a column per name")
        if not (np.isnan(values) | (values == 0) | (values == 1)).all():
            raise DataError("labels hold another value than 0 (absent), 1 (present) and NaN (not labelled)")
        if self.exclusive and not (values.sum(axis=1) == 1).all():
            raise DataError("labels name no class or several for one image: expected exactly one")
        self.__dict__.update(values=values)  # the dataclass is frozen

    def __len__(self) -> int:
        return len(self.values)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(n, k) bool, whether it is known if a finding is present."""
        return ~np.isnan(self.values)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(n, k) bool, whether a finding is known to be present."""
        return self.values == 1

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without an image, or findings that are never present or never absent, in order."""
        few = ~self.present.any(axis=0)
        if not self.exclusive:
            few |= ~(self.values == 0).any(axis=0)
        return tuple(name for name, lacks in zip(self.names, few, strict=True) if lacks)

    def rows(self, chosen: ArrayLike) -> Labels:
        """Return the labels of some of the images.

        Args:
            chosen: (n,) bool, or positions.
        """
        return replace(self, values=self.values[np.asarray(chosen)])
