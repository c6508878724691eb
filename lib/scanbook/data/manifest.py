"""The manifest: one row per image, and the order of classes or findings that every later stage takes from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import softmax

from scanbook import runtime
from scanbook.errors import DataError
from scanbook.evaluation import AnyPredictions, Calibration, FindingPredictions, Labels, Predictions
from scanbook.store import fingerprint

# Arrow's strings, which pandas takes where pyarrow is installed, cannot hold a path whose bytes are not UTF-8.
pd.options.mode.string_storage = "python"

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
COLUMNS = ("image_id", "path", "label", "group", "mask_path", "split")
EXAM = "exam"
"""Column of the exam of each image, where the study names one."""
PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0
"""What a source states of a finding; NaN where it is not labelled."""
NO_FINDING = "no finding"
WITHOUT_FINDING = (NO_FINDING, "partly labelled", "not labelled")
"""Labels in words of images without a finding known to be present, as `without_finding` tells them apart."""
_OWN = {*COLUMNS, EXAM, "folder"}
_FINDING = "finding: "


def metadata_name(column: str) -> str:
    """Return the manifest's name of a source's column of metadata: another one where scanbook has a column so named."""
    return f"{column} (source)" if column in _OWN or column.startswith(_FINDING) else column


def finding_column(name: str) -> str:
    """Return the manifest's column of a finding."""
    return _FINDING + name


def states_of(stated: np.ndarray) -> dict[str, np.ndarray]:
    """Return where a source states each of what it can state of a finding, bool, by its name."""
    values = {"present": stated == PRESENT, "absent": stated == ABSENT, "uncertain": stated == UNCERTAIN}
    return values | {"not labelled": np.isnan(stated)}


def label_text(stated: np.ndarray, findings: Sequence[str]) -> list[str]:
    """Return the labels of images in words: the findings present, or one of `WITHOUT_FINDING`.

    Args:
        stated: Float `(n, k)`: 1 present, 0 absent, -1 uncertain, NaN not labelled.
        findings: k names.
    """
    names, others = np.array(findings, object), np.array(WITHOUT_FINDING, object)
    rows = zip(stated == PRESENT, others[without_finding(stated).argmax(axis=1)], strict=True)
    return [", ".join(names[present]) if present.any() else other for present, other in rows]


def without_finding(values: np.ndarray) -> np.ndarray:
    """Return which images without a present finding have all findings absent, some, or none labelled, bool `(n, 3)`.

    Args:
        values: Labels, float `(n, k)`, or what the source states, of which an uncertain label counts as missing.
    """
    present, absent = (values == PRESENT).any(axis=1), (values == ABSENT).sum(axis=1)
    every = absent == values.shape[1]
    return np.column_stack([every, ~present & ~every & (absent > 0), ~present & (absent == 0)])


@dataclass(frozen=True)
class Manifest:
    """A dataset as the later stages see it: of classes, one of which every image has, or of findings.

    Attributes:
        name: Name of the dataset, as reports print it.
        frame: One row per image, in the source's order: `image_id`, `path` (absolute), `label` (the class, or the
            findings in words), `group` (patient or lesion; the image's own id where the source has none), `mask_path`
            ("" where there is none), `split` ("train", "validation", "test", or "" before the split or for an excluded
            image), `exam` where the study names exams, a `finding_column` for each finding (1 present, 0 absent, -1
            uncertain, NaN not labelled: as the source states), then metadata.
        classes: Class names in the order of every probability vector; none where the labels are findings.
        facts: Other facts from the source: a digest of the data, notes, known Bayes accuracy, planted faults.
        findings: Findings in the order of every probability vector; none where the labels are classes.
        uncertain: How an uncertain label counts, by finding: "positive", "negative", or "ignore", which is the default.
    """

    name: str
    frame: pd.DataFrame
    classes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    uncertain: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.classes) == bool(self.findings):
            raise DataError(f"manifest of {self.name}: expected classes or findings, and not both")
        missing = [column for column in COLUMNS if column not in self.frame]
        if missing:
            raise DataError(f"manifest of {self.name}: no column {missing[0]}; expected {', '.join(COLUMNS)}")
        if self.frame["image_id"].duplicated().any():
            repeated = self.frame.loc[self.frame["image_id"].duplicated(), "image_id"].iloc[0]
            raise DataError(f"manifest of {self.name}: image_id {repeated!r} occurs twice; image ids must be unique")
        lacking = [name for name in self.findings if finding_column(name) not in self.frame]
        if lacking:
            raise DataError(
                f"manifest of {self.name}: no column {finding_column(lacking[0])!r}; expected one per finding"
            )
        unknown = set(self.frame["label"]) - set(self.classes) if self.classes else ()
        if unknown:
            raise DataError(
                f"manifest of {self.name}: label {min(unknown)!r} is not one of the classes {', '.join(self.classes)}"
            )

    @classmethod
    def of_findings(
        cls,
        name: str,
        frame: pd.DataFrame,
        findings: Sequence[str],
        uncertain: Mapping[str, str] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Manifest:
        """Return a dataset of findings; its labels in words are written into the frame.

        Args:
            name: Name of the dataset.
            frame: As the attribute, with or without `label`.
            findings: Names, in order.
            uncertain: As the attribute.
            facts: As the attribute.
        """
        stated = frame[[finding_column(finding) for finding in findings]].to_numpy(np.float64)
        frame = frame.assign(label=label_text(stated, findings))
        columns = [*COLUMNS, *(column for column in frame if column not in COLUMNS)]
        return cls(name, frame[columns], (), facts or {}, tuple(findings), dict(uncertain or {}))

    @property
    def names(self) -> tuple[str, ...]:
        """Classes or findings, in the order of every vector of logits and probabilities."""
        return self.findings or self.classes

    @property
    def has_exams(self) -> bool:
        """Whether the study names the exam of each image."""
        return EXAM in self.frame

    @property
    def metadata(self) -> list[str]:
        """Names of the columns that the source has beyond scanbook's own."""
        own = {*COLUMNS, EXAM, *map(finding_column, self.findings)}
        return [column for column in self.frame if column not in own]

    @property
    def y(self) -> np.ndarray:
        """Class index of every row, int64 `(n,)`; of classes alone."""
        assert self.classes, "findings have no class index"
        return pd.Categorical(self.frame["label"], categories=list(self.classes)).codes.astype(np.int64)

    @property
    def stated(self) -> np.ndarray:
        """What the source states of each finding, float32 `(n, k)`: 1, 0, -1 (uncertain) or NaN (not labelled)."""
        return self.frame[[finding_column(name) for name in self.findings]].to_numpy(np.float32)

    @cached_property
    def labels(self) -> Labels:
        """The labels of all rows; an uncertain one counts as the study says."""
        if self.classes:
            return Labels(self.classes, np.eye(len(self.classes), dtype=np.float32)[self.y], exclusive=True)
        counts_as = {"positive": PRESENT, "negative": ABSENT}
        policy = np.array([counts_as.get(self.uncertain.get(name, ""), np.nan) for name in self.findings], np.float32)
        stated = self.stated
        return Labels(self.findings, np.where(stated == UNCERTAIN, policy, stated), exclusive=False)

    def labels_of(self, image_ids: ArrayLike) -> Labels:
        """Return the labels of images, in the order of their ids."""
        return self.labels.rows(self.rows_of(image_ids))

    def rows_of(self, image_ids: ArrayLike) -> np.ndarray:
        """Return the row numbers of images, int64, in the order of their ids."""
        return pd.Index(self.frame["image_id"]).get_indexer(pd.Index(image_ids))

    def rows(self, *splits: str) -> np.ndarray:
        """Return the row numbers of one split, or of several, int64 `(m,)`."""
        return np.flatnonzero(self.frame["split"].isin(splits).to_numpy())

    def absent(self, split: str) -> tuple[str, ...]:
        """Return the classes without an image in a split, or the findings never present or never absent in it."""
        return self.labels.rows(self.rows(split)).absent

    def label_values(self, split: str) -> np.ndarray:
        """Return the labels of one split's images, float32 `(m, k)`: 1 present, 0 absent, NaN not labelled."""
        return self.labels.values[self.rows(split)]

    def predictions(self, split: str, logits: np.ndarray, calibration: float | Calibration = 1.0) -> AnyPredictions:
        """Return the predictions of a network for one split.

        Args:
            split: "train", "validation" or "test".
            logits: Float `(m, k)`, for the images of the split in the manifest's order.
            calibration: Of classes, the temperature that divides the logits before the softmax; of findings, the
                calibration of each, or 1 for none.
        """
        rows = self.rows(split)
        names, groups = self.frame["image_id"].iloc[rows], self.frame["group"].iloc[rows]
        values = np.asarray(logits, np.float64)
        if self.findings:
            given = Calibration.identity(len(self.findings)) if isinstance(calibration, float) else calibration
            return FindingPredictions(
                names, groups, self.labels.values[rows], given.probabilities(values), self.findings
            )
        return Predictions(names, groups, self.y[rows], softmax(values / calibration, axis=1), self.classes)

    def majority_accuracy(self, split: str = TEST) -> float:
        """Return the accuracy of always predicting the most frequent training class, on the images of one split.

        It is NaN where the split lacks a class, and for findings. Where there are no training images, as of folds in
        each of which others are test, the most frequent class of the split counts.
        """
        if self.findings or self.absent(split):
            return float("nan")
        rows = self.rows(TRAIN)
        majority = np.bincount(self.y[rows if len(rows) else self.rows(split)]).argmax()
        return float(np.mean(self.y[self.rows(split)] == majority))

    def with_frame(self, frame: pd.DataFrame) -> Manifest:
        """Return the same dataset with another table."""
        return replace(self, frame=frame.reset_index(drop=True))

    def legible(self) -> Manifest:
        r"""Return the same dataset with names that UTF-8 can hold: a byte that is not UTF-8 is shown as `\xe9`.

        The paths stay as they are, since they open the files.
        """
        shown = {
            name: [runtime.legible(value) if isinstance(value, str) else value for value in column]
            for name, column in self.frame.drop(columns=["path", "mask_path"])
            .select_dtypes(["object", "string"])
            .items()
            if runtime.legible(text := "".join(value for value in column.tolist() if isinstance(value, str))) != text
        }
        frame = self.frame.assign(**shown) if shown else self.frame
        findings = tuple(map(runtime.legible, self.findings))
        columns = zip(map(finding_column, self.findings), map(finding_column, findings), strict=True)
        return replace(
            self,
            frame=frame.rename(columns=dict(columns)),
            classes=tuple(map(runtime.legible, self.classes)),
            findings=findings,
            uncertain={runtime.legible(name): policy for name, policy in self.uncertain.items()},
        )

    def fingerprint(self, *, splits: bool = True) -> str:
        """Return a key of the images, their order, labels and splits, but not of the dataset's location.

        Args:
            splits: Whether it says in which split an image is; else only which images are in any.
        """
        values = {column: self.frame[column].map(_short_path) for column in ("path", "mask_path")}
        if not splits:
            values["split"] = self.frame["split"] != ""
        table = self.frame.assign(**values).to_csv(index=False)
        labels = (self.findings, self.uncertain) if self.findings else self.classes
        return fingerprint(runtime.encode(table), labels, self.facts.get("data", ""))


def _short_path(path: str) -> str:
    """Return the names of a file and its folder, which do not depend on the dataset's location."""
    return "/".join(Path(path).parts[-2:])
