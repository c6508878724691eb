"""What a bundle answers by: calibration, thresholds, abstention and the rule of exams, from validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.bundle import Bundle
from scanbook.config import Study
from scanbook.data.exams import predict_exams
from scanbook.data.manifest import TEST, VALIDATION, Manifest
from scanbook.evaluation import AnyPredictions, Calibration, FindingPredictions

_RATES = ("sensitivity", "specificity")


def describe_answers(study: Study, validation: AnyPredictions, test: AnyPredictions) -> dict[str, Any]:
    """Return `operating_points` of a bundle, and `abstain_below` of one of classes."""
    settings, options = study.evaluation, study.resamples
    if isinstance(validation, FindingPredictions):
        table = evaluation.finding_points(validation, test, **settings.options_of_points(test.findings), **options)
        return {"operating_points": {str(name): _finding_point(row) for name, row in table.iterrows()}}
    table = evaluation.targets_table(validation, test, settings.targets, specificity=settings.specificity, **options)
    points = {
        target: {
            "classes": list(settings.targets.get(target, [target])),
            "threshold": row["threshold"],
            **_rates(row, _RATES),
        }
        for target, row in table.iterrows()
    }
    return {"abstain_below": evaluation.abstain_below(validation, settings.coverage), "operating_points": points}


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
    answers = describe_answers(study, validation, test)
    if manifest.classes:
        answers = {"abstain_below": answers["abstain_below"]}
    metrics = evaluation.summary(test, **study.resamples)
    calibration = fitted.calibration
    return {
        "rule": fitted.rule,
        "calibration": by_finding(calibration, manifest.findings) or calibration,
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
    return text


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
