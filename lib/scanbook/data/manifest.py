"""The manifest: one row an image, and the class order that every later stage takes from it."""

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


@dataclass(frozen=True)
class Manifest:
    """A dataset as the later stages see it.

    Attributes:
        name: Name of the dataset, as reports print it.
        frame: One row an image, in the source's order: `image_id`, `path` (absolute), `label` (class name), `group`
            (patient or lesion; the image's own id where the source has none), `mask_path` ("" where there is none),
            `part` ("train", "validation", "test", or "" while or because the image is in none), then metadata.
        classes: Class names in the order of every probability vector.
        facts: What else the source says: licence, origin, known Bayes accuracy, planted faults.
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
            twice = self.frame.loc[self.frame["image_id"].duplicated(), "image_id"].iloc[0]
            raise DataError(f"manifest of {self.name}: image_id {twice!r} occurs twice; image ids must be unique")
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
        """Row numbers of one part, int64 `(m,)`."""
        return np.flatnonzero(self.frame["split"].to_numpy() == split)

    def one_hot(self, split: str) -> np.ndarray:
        """Classes of one part's images, float32 `(m, k)`: 1 in the column of the class, else 0."""
        return np.eye(len(self.classes), dtype=np.float32)[self.y[self.rows(split)]]

    def predictions(self, split: str, logits: np.ndarray, temperature: float = 1.0) -> Predictions:
        """Return the predictions of a network for one part.

        Args:
            split: "train", "validation" or "test".
            logits: Float `(m, k)`, for the images of the part in the manifest's order.
            temperature: What the logits are divided by before the softmax.
        """
        rows = self.rows(split)
        frame = self.frame.iloc[rows]
        probabilities = softmax(np.asarray(logits, np.float64) / temperature, axis=1)
        return Predictions(frame["image_id"], frame["group"], self.y[rows], probabilities, self.classes)

    def majority_accuracy(self, split: str = TEST) -> float:
        """Return the accuracy on one part of always answering the most frequent class of training."""
        answer = np.bincount(self.y[self.rows(TRAIN)]).argmax()
        return float(np.mean(self.y[self.rows(split)] == answer))

    def with_frame(self, frame: pd.DataFrame) -> Manifest:
        """The same dataset with another table."""
        return replace(self, frame=frame.reset_index(drop=True))

    def fingerprint(self) -> str:
        """Changes with the images listed, their order, labels and parts; not with where they lie."""
        listed = self.frame.assign(**{column: self.frame[column].map(_file) for column in ("path", "mask_path")})
        return fingerprint(listed.to_csv(index=False).encode(), self.classes, self.facts.get("data", ""))


def _file(path: str) -> str:
    """A file by its name and its folder's, wherever the dataset lies."""
    return "/".join(Path(path).parts[-2:])
