"""Predictions for the exams of a dataset, as the report and the bundle need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from scanbook.data.manifest import EXAM, TEST, VALIDATION, Manifest
from scanbook.evaluation import AnyPredictions, ExamRule, Exams, fit_exam_rule, have_labels


class ExamPredictions(NamedTuple):
    """The rule, which validation exams choose, and what it predicts.

    Attributes:
        rule: How the images of an exam are combined.
        validation: Predictions for the validation exams.
        test: Predictions for the test exams.
        excluded: Number of test exams that are excluded, since their images have different classes.
    """

    rule: ExamRule
    validation: AnyPredictions
    test: AnyPredictions
    excluded: int


def predict_exams(manifest: Manifest, logits: Mapping[str, np.ndarray], seed: int) -> ExamPredictions | None:
    """Return the rule and the predictions for exams; None where no exam of validation, or of test, can be evaluated.

    Args:
        manifest: The dataset, split, with exams.
        logits: Logits of the images of validation and of test, float `(m, k)`, by split.
        seed: Seed of the calibration of findings.
    """
    parts = {}
    for split in (VALIDATION, TEST):
        rows = manifest.rows(split)
        exams = Exams.of(*(manifest.frame[column].to_numpy()[rows] for column in (EXAM, "group")))
        parts[split] = manifest.labels.rows(rows), logits[split], exams
    if not all(have_labels(labels, exams).any() for labels, _, exams in parts.values()):
        return None
    rule = fit_exam_rule(*parts[VALIDATION], seed)
    (validation, _), (test, excluded) = (rule.predictions(*parts[split]) for split in (VALIDATION, TEST))
    return ExamPredictions(rule, validation, test, excluded)
