"""Predictions for exams: those of the images of one exam, patient or lesion are combined into one.

The logits are averaged, or the largest counts: a finding that a single image shows may be lost in a mean. Which of the
two is chosen, and the calibration of the combined logits, come from validation images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax

from scanbook.evaluation.calibration import fit_calibration, fit_temperature
from scanbook.evaluation.findings import AnyPredictions, Calibration, FindingPredictions
from scanbook.evaluation.labels import Labels
from scanbook.evaluation.predictions import Predictions

Floats = NDArray[np.float64]
RULES = ("mean", "maximum")
"""How the logits of the images of an exam are combined."""


@dataclass(frozen=True, eq=False)
class Exams:
    """The exams to which n images belong.

    Attributes:
        names: m exams, in the order of their first images.
        group: (m,) the patient or lesion of each.
        member: (n,) int64, the position of each image's exam in `names`.
    """

    names: NDArray[np.str_]
    group: NDArray[np.str_]
    member: NDArray[np.int64]

    @classmethod
    def of(cls, exam: ArrayLike, group: ArrayLike) -> Exams:
        """Return the exams of n images.

        Images of different patients are never one exam: patients may have exams of the same name, such as "study1".

        Args:
            exam: (n,) name of the exam of each image.
            group: (n,) its patient or lesion.
        """
        exams, groups = np.asarray(exam, object).astype(str), np.asarray(group, object).astype(str)
        pairs: dict[tuple[str, str], int] = {}
        member = np.array([pairs.setdefault(pair, len(pairs)) for pair in zip(groups, exams, strict=True)], np.int64)
        owners, names = np.array(list(pairs), object).reshape(-1, 2).T.astype(str)
        unique, counts = np.unique(names, return_counts=True)
        shared = np.isin(names, unique[counts > 1])
        shown = [f"{owner} {name}" if both else name for owner, name, both in zip(owners, names, shared, strict=True)]
        return cls(np.array(shown, str), owners, member)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class ExamRule:
    """How predictions for images become one prediction for their exam.

    Attributes:
        rule: "mean" or "maximum".
        calibration: Of the combined logits: a temperature of classes, or the calibration of findings.
        losses: Mean log loss on validation exams of each rule, after calibration.
    """

    rule: str
    calibration: float | Calibration
    losses: dict[str, float]

    def predictions(self, labels: Labels, logits: ArrayLike, exams: Exams) -> tuple[AnyPredictions, int]:
        """Return one prediction per exam, and how many exams were excluded.

        An exam whose images have different classes is excluded: it has no true class.

        Args:
            labels: Of n images.
            logits: (n, k), of each image.
            exams: Theirs.
        """
        values, combined = exam_labels(labels, exams), combine(logits, exams.member, self.rule, labels.exclusive)
        known = have_labels(labels, exams)
        names, group, values, combined = (array[known] for array in (exams.names, exams.group, values, combined))
        if labels.exclusive:
            probabilities = softmax(combined / self.calibration, axis=1)
            predictions = Predictions(names, group, values.argmax(axis=1), probabilities, labels.names)
        else:
            probabilities = self.calibration.probabilities(combined)
            predictions = FindingPredictions(names, group, values, probabilities, labels.names)
        return predictions, int((~known).sum())


def combine(logits: ArrayLike, member: ArrayLike, rule: str, exclusive: bool) -> Floats:
    """Return the logits of exams.

    Args:
        logits: (n, k), of images.
        member: (n,) int, the exam of each image, from 0.
        rule: "mean" of the logits, or their "maximum". Logits of classes are log-probabilities here, since those of
            different images have no common zero; it changes no mean's softmax.
        exclusive: Whether the columns are classes.

    Returns:
        (m, k) float64.
    """
    values, members = np.asarray(logits, np.float64), np.asarray(member)
    values = log_softmax(values, axis=1) if exclusive else values
    order = np.argsort(members, kind="stable")
    starts = np.flatnonzero(np.diff(members[order], prepend=-1))
    if rule == "maximum":
        return np.maximum.reduceat(values[order], starts, axis=0)
    return np.add.reduceat(values[order], starts, axis=0) / np.diff(starts, append=len(order))[:, None]


def exam_labels(labels: Labels, exams: Exams) -> Floats:
    """Return the labels of exams, (m, k): 1 present, 0 absent, NaN not labelled.

    A finding is present in an exam where an image has it, and absent where none has it and one at least is labelled for
    it. A class is that of all images; where they differ, the row is NaN.
    """
    values = np.full((len(exams), len(labels.names)), np.nan)
    present, absent = (np.zeros(values.shape, bool) for _ in range(2))
    np.logical_or.at(present, exams.member, labels.values == 1)
    np.logical_or.at(absent, exams.member, labels.values == 0)
    values[absent] = 0
    values[present] = 1
    if labels.exclusive:
        values[present.sum(axis=1) > 1] = np.nan
    return values


def have_labels(labels: Labels, exams: Exams) -> NDArray[np.bool_]:
    """Return which exams can be evaluated, (m,) bool: of classes, those whose images agree; of findings, all."""
    return ~np.isnan(exam_labels(labels, exams)).any(axis=1) if labels.exclusive else np.ones(len(exams), bool)


def fit_exam_rule(labels: Labels, logits: ArrayLike, exams: Exams, seed: int = 0) -> ExamRule:
    """Return the rule with the lowest log loss on validation exams, each after its own calibration.

    Args:
        labels: Of the n validation images.
        logits: (n, k), of each image.
        exams: Theirs.
        seed: Seed of the folds of the calibration of findings.

    Returns:
        The rule; the mean where no exam has two images, or where both have the same loss.
    """
    values = exam_labels(labels, exams)
    calibrations, losses = {}, {}
    for rule in RULES:
        combined = combine(logits, exams.member, rule, labels.exclusive)
        calibrations[rule], losses[rule] = _calibrate(combined, values, exams.group, labels.exclusive, seed)
    best = "maximum" if losses["maximum"] < losses["mean"] else "mean"
    return ExamRule(best, calibrations[best], losses)


def _calibrate(
    logits: Floats, values: Floats, group: NDArray[np.str_], exclusive: bool, seed: int
) -> tuple[float | Calibration, float]:
    """Return the calibration of combined logits, and the mean log loss that it leaves."""
    if exclusive:
        known = ~np.isnan(values).any(axis=1)
        if not known.any():
            return 1.0, float("nan")
        y = values[known].argmax(axis=1)
        temperature = fit_temperature(logits[known], y)
        return temperature, float(-log_softmax(logits[known] / temperature, axis=1)[np.arange(len(y)), y].mean())
    calibration = fit_calibration(logits, values, group, seed)
    return calibration, calibration.log_loss(logits, values)
