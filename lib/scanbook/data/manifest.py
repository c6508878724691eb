"""The manifest: one row per image, and the class order that every later stage takes from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from scanbook.errors import DataError
from scanbook.evaluation.predictions import Predictions
from scanbook.store import fingerprint

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
COLUMNS = ("image_id", "path", "label", "group", "mask_path", "split")
_OWN = {*COLUMNS, "folder"}


def metadata_name(column: str) -> str:
    """Return the manifest's name of a source's column of metadata: another one where scanbook has a column so named."""
    return f"{column} (source)" if column in _OWN else column


@dataclass(frozen=True)
class Manifest:
    """A dataset as the later stages see it.

    Attributes:
        name: Name of the dataset, as reports print it.
        frame: One row per image, in the source's order: `image_id`, `path` (absolute), `label` (class name), `group`
            (patient or lesion; the image's own id where the source has none), `mask_path` ("" where there is none),
            `split` ("train", "validation", "test", or "" before the split or for an excluded image), then metadata.
        classes: Class names in the order of every probability vector.
        facts: Other facts from the source: a digest of the data, notes, known Bayes accuracy, planted faults.
    """

    name: str
    frame: pd.DataFrame
    classes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.frame]
        if missing:
            raise DataError(f"manifest of {self.name}: no column {missing[0]}; expected {', '.join(COLUMNS)}")
        if self.frame["image_id"].duplicated().any():
            repeated = self.frame.loc[self.frame["image_id"].duplicated(), "image_id"].iloc[0]
            raise DataError(f"manifest of {self.name}: image_id {repeated!r} occurs twice; image ids must be unique")
        unknown = set(self.frame["label"]) - set(self.classes)
        if unknown:
            raise DataError(
                f"manifest of {self.name}: label {min(unknown)!r} is not one of the classes {', '.join(self.classes)}"
            )

    @property
    def metadata(self) -> list[str]:
        """Names of the columns that the source has beyond scanbook's own."""
        return [column for column in self.frame if column not in COLUMNS]

    @property
    def y(self) -> np.ndarray:
        """Class index of every row, int64 `(n,)`."""
        return pd.Categorical(self.frame["label"], categories=list(self.classes)).codes.astype(np.int64)

    def rows(self, split: str) -> np.ndarray:
        """Return the row numbers of one split, int64 `(m,)`."""
        return np.flatnonzero(self.frame["split"].to_numpy() == split)

    def one_hot(self, split: str) -> np.ndarray:
        """Return the classes of one split's images, float32 `(m, k)`: 1 in the column of the class, else 0."""
        return np.eye(len(self.classes), dtype=np.float32)[self.y[self.rows(split)]]

    def predictions(self, split: str, logits: np.ndarray, temperature: float = 1.0) -> Predictions:
        """Return the predictions of a network for one split.

        Args:
            split: "train", "validation" or "test".
            logits: Float `(m, k)`, for the images of the split in the manifest's order.
            temperature: Divisor of the logits before the softmax.
        """
        rows = self.rows(split)
        frame = self.frame.iloc[rows]
        probabilities = softmax(np.asarray(logits, np.float64) / temperature, axis=1)
        return Predictions(frame["image_id"], frame["group"], self.y[rows], probabilities, self.classes)

    def majority_accuracy(self, split: str = TEST) -> float:
        """Return the accuracy of always predicting the most frequent training class, on the images of one split."""
        majority = np.bincount(self.y[self.rows(TRAIN)]).argmax()
        return float(np.mean(self.y[self.rows(split)] == majority))

    def with_frame(self, frame: pd.DataFrame) -> Manifest:
        """Return the same dataset with another table."""
        return replace(self, frame=frame.reset_index(drop=True))

    def fingerprint(self) -> str:
        """Return a key of the images, their order, labels and splits, but not of the dataset's location."""
        names = {column: self.frame[column].map(_short_path) for column in ("path", "mask_path")}
        table = self.frame.assign(**names).to_csv(index=False)
        return fingerprint(table.encode("utf-8", "surrogateescape"), self.classes, self.facts.get("data", ""))


def _short_path(path: str) -> str:
    """Return the names of a file and its folder, which do not depend on the dataset's location."""
    return "/".join(Path(path).parts[-2:])
