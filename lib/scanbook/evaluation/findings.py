"""The predictions of one model for findings, each of which is present, absent or not labelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from scanbook.errors import DataError
from scanbook.evaluation.labels import Labels
from scanbook.evaluation.predictions import (
    Predictions,
    check_images,
    images_frame,
    read_images,
    read_table,
    rows_of,
)
from scanbook.store import atomic_write

STATES = ("absent", "present")
"""Classes of the predictions for one finding."""
_PROBABILITY, _TRUE = "p_", "true_"


@dataclass(frozen=True, eq=False)
class Calibration:
    """The calibration of k findings: probability = sigmoid(slope × logit + offset).

    Attributes:
        slope: (k,) float64, above 0.
        offset: (k,) float64; 0 where a temperature alone was fitted.
        method: How each finding was calibrated: "temperature", "Platt" or "none".
    """

    slope: NDArray[np.float64]
    offset: NDArray[np.float64]
    method: tuple[str, ...]

    @classmethod
    def identity(cls, count: int) -> Calibration:
        """Return the calibration that changes nothing, of `count` findings."""
        return cls(np.ones(count), np.zeros(count), ("none",) * count)

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of logits (n, k), float64 of the same shape."""
        return expit(np.asarray(logits, np.float64) * self.slope + self.offset)

    def log_loss(self, logits: ArrayLike, labels: ArrayLike) -> float:
        """Return the log loss of logits, the mean over the findings of that of their labelled images; NaN without any.

        Args:
            logits: (n, k).
            labels: (n, k): 1 present, 0 absent, NaN not labelled.
        """
        z, y = np.asarray(logits, np.float64) * self.slope + self.offset, np.asarray(labels, np.float64)
        losses = np.ma.masked_invalid(np.logaddexp(0, z) - y * z)
        return float(np.ma.filled(losses.mean(axis=0).mean(), np.nan))

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration for a JSON file."""
        return {"slope": self.slope.tolist(), "offset": self.offset.tolist(), "method": list(self.method)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `to_dict` wrote."""
        slope, offset = (np.array(values[name], np.float64) for name in ("slope", "offset"))
        return cls(slope, offset, tuple(values["method"]))


@dataclass(frozen=True, eq=False)
class FindingPredictions:
    """The probabilities that one model predicts for n images and k findings.

    Attributes:
        image_id: (n,) str, one name per image, each once.
        group: (n,) str, the patient or lesion the image belongs to, as in `Predictions`.
        y_true: (n, k) float64: 1 present, 0 absent, NaN not labelled.
        probabilities: (n, k) float64, between 0 and 1; the findings of an image are independent of each other.
        findings: k names, in the order of the columns.
        fold: (n,) str, as in `Predictions`.

    Raises:
        DataError: A shape, a label or a probability is not as above.
    """

    image_id: NDArray[np.str_]
    group: NDArray[np.str_]
    y_true: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    findings: tuple[str, ...]
    fold: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        image_id, group, fold = check_images(self.image_id, self.group, self.fold)
        findings, probabilities = tuple(map(str, self.findings)), np.asarray(self.probabilities, np.float64)
        n, k = len(image_id), len(findings)
        if k < 1 or len(set(findings)) != k:
            raise DataError(f"findings are {findings}: expected one or more different names")
        y_true = Labels(findings, np.asarray(self.y_true, np.float32), exclusive=False).values.astype(np.float64)
        for name, array in {"y_true": y_true, "probabilities": probabilities}.items():
            if array.shape != (n, k):
                raise DataError(f"{name} have shape {array.shape}: expected ({n}, {k}), one row per image")
        outside = ~((probabilities >= 0) & (probabilities <= 1)).all(axis=1)
        if outside.any():
            row = int(outside.argmax())
            raise DataError(
                f"probabilities of image {str(image_id[row])!r} are {probabilities[row].tolist()}: expected numbers "
                "between 0 and 1; pass logits through a sigmoid first"
            )
        self.__dict__.update(  # the dataclass is frozen
            image_id=image_id, group=group, y_true=y_true, probabilities=probabilities, findings=findings, fold=fold
        )

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def names(self) -> tuple[str, ...]:
        """The findings, in the order of the columns."""
        return self.findings

    @property
    def absent(self) -> tuple[str, ...]:
        """Findings that are never present or never absent on these images, in order."""
        return Labels(self.findings, self.y_true, exclusive=False).absent

    def subset(self, chosen: ArrayLike) -> FindingPredictions:
        """Return the predictions for some of the images.

        Args:
            chosen: (n,) bool, or positions.
        """
        return replace(self, **rows_of(self, chosen))

    def binary(self, finding: str) -> Predictions:
        """Return the predictions for one finding, on the images that are labelled for it, with the classes `STATES`.

        Raises:
            DataError: The finding is unknown, or no image is labelled for it.
        """
        if finding not in self.findings:
            raise DataError(f"finding {finding!r} is unknown: expected one of {', '.join(self.findings)}")
        column = self.findings.index(finding)
        rows = np.flatnonzero(~np.isnan(self.y_true[:, column]))
        if len(rows) == 0:
            raise DataError(f"no image is labelled for finding {finding!r}: expected at least one")
        p = self.probabilities[rows, column]
        arrays = rows_of(self, rows) | {"y_true": self.y_true[rows, column].astype(np.int64)}
        return Predictions(**arrays | {"probabilities": np.column_stack([1 - p, p])}, classes=STATES)

    def single(self, image_id: str) -> str:
        """Return labels and predictions of one image, to check by hand: "edema present, predicted 0.87; mass …".

        Args:
            image_id: Name of the image.

        Returns:
            Each finding with its label and its probability to be present, with two decimals.

        Raises:
            DataError: The image is unknown.
        """
        rows = np.flatnonzero(self.image_id == str(image_id))
        if len(rows) == 0:
            raise DataError(f"image_id {image_id!r} is not among the {len(self)} images, such as {self.image_id[0]!s}")
        values = zip(self.findings, self.y_true[rows[0]], self.probabilities[rows[0]], strict=True)
        return "; ".join(f"{name} {in_words(y)}, predicted {p:.2f}" for name, y, p in values)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per image: image_id, group, fold where there are some, `true_<finding>`, `p_<finding>`.

        The label of a finding that is not labelled is empty.
        """
        true = pd.DataFrame(self.y_true, columns=[_TRUE + name for name in self.findings]).astype("Int64")
        p = pd.DataFrame(self.probabilities, columns=[_PROBABILITY + name for name in self.findings])
        return pd.concat([images_frame(self), true, p], axis=1)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> FindingPredictions:
        """Return the predictions that `to_frame` wrote; the order of the `p_` columns is that of the findings.

        Raises:
            DataError: A column is missing, or a label is not a number.
        """
        columns = [name for name in frame.columns if str(name).startswith(_PROBABILITY)]
        findings = tuple(name.removeprefix(_PROBABILITY) for name in columns)
        missing = [name for name in ("image_id", "group", *(_TRUE + name for name in findings)) if name not in frame]
        if missing:
            raise DataError(f"predictions lack the column {missing[0]!r}: found {', '.join(map(str, frame.columns))}")
        try:
            labels = frame[[_TRUE + name for name in findings]].apply(pd.to_numeric)
        except (ValueError, TypeError) as error:
            raise DataError(f"predictions hold a label that is not 1, 0 or empty: {error}") from None
        y_true = labels.to_numpy(np.float64, na_value=np.nan)
        image_id, group, fold = read_images(frame)
        return cls(image_id, group, y_true, frame[columns].to_numpy(np.float64), findings, fold)

    def save(self, path: Path) -> None:
        """Write a CSV file, which other statistics packages read too; `load` returns the same bits."""
        atomic_write(Path(path), self.to_frame().to_csv(index=False, lineterminator="\n"))

    @classmethod
    def load(cls, path: Path) -> FindingPredictions:
        """Read what `save` wrote.

        Raises:
            DataError: The file does not exist or is not a table of predictions.
        """
        return cls.from_frame(read_table(path, _PROBABILITY))


def in_words(label: float) -> str:
    """Return "present", "absent" or "not labelled"."""
    return "not labelled" if np.isnan(label) else STATES[int(label)]


AnyPredictions = Predictions | FindingPredictions
"""Predictions for classes or for findings."""


def load_predictions(path: Path) -> AnyPredictions:
    """Read what `Predictions.save` or `FindingPredictions.save` wrote.

    Raises:
        DataError: The file does not exist or is not a table of predictions.
    """
    frame = read_table(path, _PROBABILITY)
    return (Predictions if "true" in frame else FindingPredictions).from_frame(frame)
