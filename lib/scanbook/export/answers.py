"""What a bundle answers by: calibration, thresholds, abstention and the rule of exams, from validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.bundle import Bundle
from scanbook.bundle.card import RATES_OF_FOLDS
from scanbook.config import Study
from scanbook.data.exams import predict_exams
from scanbook.data.manifest import EXAM, TEST, VALIDATION, Manifest
from scanbook.evaluation import (
    AnyPredictions,
    Calibration,
    ExamRule,
    Exams,
    FindingPredictions,
    fit_exam_rule,
    have_labels,
)
from scanbook.training import ExportedModel

_RATES = ("sensitivity", "specificity")


def describe_answers(
    study: Study, validation: AnyPredictions, test: AnyPredictions, own: AnyPredictions | None = None
) -> dict[str, Any]:
    """Return `operating_points` of a bundle, and `abstain_below` of one of classes.

    Args:
        study: Settings of the evaluation.
        validation: Calibrated predictions on which thresholds are chosen, in each fold where there are several.
        test: Calibrated predictions on which the rates at these thresholds are measured.
        own: Predictions of the exported network for its validation images, on which its own thresholds are chosen; None
            where it has those of `validation`: of several folds their means.
    """
    settings, options = study.evaluation, study.resamples
    if isinstance(validation, FindingPredictions):
        chosen = settings.options_of_points(test.findings)
        table = evaluation.finding_points(validation, test, **chosen, **options)
        if own is not None:
            table[["threshold", "margin"]] = evaluation.finding_points(own, own, **chosen, rounds=1)[
                ["threshold", "margin"]
            ]
        return {"operating_points": {str(name): _finding_point(row) for name, row in table.iterrows()}}
    chosen = {"targets": settings.targets, "specificity": settings.specificity}
    table = evaluation.targets_table(validation, test, **chosen, **options)
    if own is not None:
        table["threshold"] = evaluation.targets_table(own, own, **chosen, rounds=1)["threshold"]
    points = {
        target: {
            "classes": list(settings.targets.get(target, [target])),
            "threshold": row["threshold"],
            **_rates(row, _RATES),
        }
        for target, row in table.iterrows()
    }
    below = (
        evaluation.choose_by_fold(validation, test, lambda images: evaluation.abstain_below(images, settings.coverage))
        if own is None
        else {"": evaluation.abstain_below(own, settings.coverage)}
    )
    return {"abstain_below": float(np.mean(list(below.values()))), "operating_points": points}


def describe_test(test: AnyPredictions, study: Study) -> str:
    """Return the main results of the exported model on a test split that is in no fold, as a sentence."""
    table = evaluation.summary(test, **study.resamples)
    shown = dict.fromkeys((evaluation.main_metric(test), "auroc"))
    values = [
        f"{evaluation.METRICS[name].title} {evaluation.with_interval(*table.loc[name])}"
        for name in shown
        if not np.isnan(table.loc[name, "value"])
    ]
    return f"The exported model, measured once on {len(test):,} images: {', '.join(values) or 'not defined'}."


def describe_exams(study: Study, manifest: Manifest, logits: np.ndarray, test_logits: np.ndarray) -> dict[str, Any]:
    """Return `exam` of a bundle: the rule and its calibration from validation exams, the rates from test exams.

    Args:
        study: Settings of the evaluation.
        manifest: The dataset, split.
        logits: Logits for the validation images, float `(v, k)`.
        test_logits: Those for the test images, float `(t, k)`.

    Returns:
        Nothing where the study names no exams, or where no test or validation exam has a label.
    """
    if not manifest.has_exams:
        return {}
    predicted = predict_exams(manifest, {VALIDATION: logits, TEST: test_logits}, study.seed)
    if predicted is None:
        return {}
    fitted, validation, test, excluded = predicted
    return _exam(study, fitted, describe_answers(study, validation, test), test, excluded=excluded)


def describe_exams_of_folds(study: Study, model: ExportedModel) -> dict[str, Any]:
    """Return `exam` of a cross-validated bundle: its own rule, and the rates of the folds' rules on their exams."""
    manifest, models = model.manifest, model.models
    if not manifest.has_exams or models is None:
        return {}
    rows = manifest.rows(VALIDATION)
    exams = Exams.of(*(manifest.frame[column].to_numpy()[rows] for column in (EXAM, "group")))
    labels = manifest.labels.rows(rows)
    of_folds = models.predict_exams(lambda split: split.networks[0])
    if not have_labels(labels, exams).any() or of_folds is None:
        return {}
    logits = model.logits(VALIDATION)
    fitted = fit_exam_rule(labels, logits, exams, study.seed)
    own, _ = fitted.predictions(labels, logits, exams)
    _, validation, test, excluded = of_folds
    return _exam(study, fitted, describe_answers(study, validation, test, own), test, excluded=excluded)


def _exam(
    study: Study, fitted: ExamRule, answers: dict[str, Any], test: AnyPredictions, *, excluded: int
) -> dict[str, Any]:
    """Return `exam` of a bundle from its rule, its answers and the predictions for test exams."""
    if not isinstance(test, FindingPredictions):
        answers = {"abstain_below": answers["abstain_below"]}
    metrics = evaluation.summary(test, **study.resamples)
    return {
        "rule": fitted.rule,
        "calibration": by_finding(fitted.calibration, test.names) or fitted.calibration,
        **answers,
        "metrics": {**metrics.to_dict(orient="index"), "exams": len(test), "excluded exams": excluded},
    }


def by_finding(calibration: float | Calibration, findings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the calibration of findings as a bundle has it; nothing for a temperature."""
    if not isinstance(calibration, Calibration):
        return {}
    values = zip(calibration.slope.tolist(), calibration.offset.tolist(), calibration.method, strict=True)
    return {
        finding: {"slope": slope, "offset": offset, "method": method}
        for finding, (slope, offset, method) in zip(findings, values, strict=True)
    }


def summarise_answers(written: Bundle, coverage: float) -> str:
    """Return when the service of a bundle says "not sure", and how it answers exams, as sentences.

    Args:
        written: The bundle.
        coverage: Share of the validation images to answer.
    """
    if written.findings:
        without = [name for name, point in written.operating_points.items() if point["threshold"] is None]
        text = (
            "The service answers each finding with *present* at or above its threshold, *absent* below it, and *not "
            f"sure* within the margin around it: {coverage:.0%} of the labelled validation images are answered."
        )
        if without:
            text += f" Too rare in validation for a threshold, so always *not sure*: {', '.join(without)}."
    else:
        text = (
            f"The service says *not sure* below a confidence of {written.abstain_below:.2f}: {coverage:.0%} of the "
            "validation images are answered."
        )
    if written.exam:
        text += f" For several images of one exam it answers by the {written.exam['rule']} of their logits, too."
    return f"{text} {RATES_OF_FOLDS}" if "evidence" in written.about else text


def points_table(written: Bundle) -> pd.DataFrame:
    """Return the operating points of a bundle, with one row per target or finding."""
    points = pd.json_normalize(list(written.operating_points.values())).set_axis(list(written.operating_points))
    return points.drop(columns="classes", errors="ignore").rename_axis("finding" if written.findings else "target")


def record_answers(written: Bundle) -> dict[str, Any]:
    """Return what a bundle answers by, for `results.json`: a temperature and abstention, or the values of findings."""
    if written.findings:
        values: dict[str, Any] = {"calibration": written.calibration, "operating_points": written.operating_points}
    else:
        values = {"abstain_below": written.abstain_below, "temperature": written.temperature}
    return values | ({"exam": written.exam} if written.exam else {})


def _finding_point(row: pd.Series) -> dict[str, Any]:
    known = bool(np.isfinite(row["threshold"]))
    return {
        # nothing is called present above the highest probability, which may be 1
        "threshold": min(float(row["threshold"]), 1.0) if known else None,
        "margin": float(row["margin"]) if known else 0.0,
        "prevalence": row["prevalence"],
        **_rates(row, (*_RATES, "ppv", "npv")),
    }


def _rates(row: pd.Series, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name: {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]} for name in names}
