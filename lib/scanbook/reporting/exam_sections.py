"""The section of the test report for exams: the images of one exam have one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from scanbook import evaluation
from scanbook.evaluation import AnyPredictions, ExamRule, FindingPredictions
from scanbook.reporting import finding_sections, sections
from scanbook.reporting.notebook import Session

if TYPE_CHECKING:
    from scanbook.training import StudyModels  # which imports Keras


def show_exams(session: Session, models: StudyModels, test: AnyPredictions) -> dict[str, pd.DataFrame | dict[str, Any]]:
    """Show the test report per exam, where the study names exams; each fold has a rule of its own.

    Args:
        session: Shows and keeps the results.
        models: The study's models.
        test: Predictions of the final model for the test images, one by one, to compare with.

    Returns:
        `rule`, `calibration` or `temperature`, `counts`, `summary` and `operating_points` of exams; nothing without
        exams.
    """
    if not models.manifest.has_exams:
        session.say("The study names no exams (`dataset.exam_column`): every image is answered alone.")
        return {}
    if (predicted := models.predict_exams(lambda split: split.final)) is None:
        session.say("In validation or test no exam has one class: the images of each differ. Exams are not evaluated.")
        return {}
    rules, validation, exams, excluded = predicted
    counts = {"images": len(test), "exams": len(exams), "excluded": excluded}
    count = f"{len(test):,} test images belong to {len(exams) + excluded:,} exams."
    session.say(" ".join([count, *(_describe_rule(fold, each) for fold, each in rules.items())]))
    if excluded:
        session.say(f"{excluded:,} exams are excluded: their images have different classes.")
    options, main = session.study.resamples, list(evaluation.default_metrics(test)[:4])
    summary = evaluation.summary(exams, evaluation.metrics_for(exams, session.study.ordered), **options)
    alone = evaluation.summary(test, main, **options)
    rows = {(name, kind): table.loc[name] for name in main for kind, table in (("exam", summary), ("image", alone))}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["metric", "per"])
    session.table("exams", table.round(4), "Test metrics per exam and per image")
    points = _show_points(session, validation, exams)
    names = {fold: each.rule for fold, each in rules.items()}
    fitted = sections.record_calibrations({fold: each.calibration for fold, each in rules.items()})
    return {"rule": names.get("", names), **fitted, "counts": counts, "summary": summary, "operating_points": points}


def _describe_rule(fold: str, rule: ExamRule) -> str:
    """Return how the images of an exam are combined, and why, as a sentence."""
    of_fold = f"{fold[:1].upper()}{fold[1:]}: " if fold else ""
    if rule.losses["mean"] == rule.losses["maximum"]:
        return f"{of_fold}No validation exam has two images that differ, so the mean of the logits is taken."
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in rule.losses.items())
    return f"{of_fold}Rule, chosen on validation by log loss ({losses}): the {rule.rule} of the logits."


def _show_points(session: Session, validation: AnyPredictions, exams: AnyPredictions) -> pd.DataFrame:
    """Show and return the operating points of exams."""
    if isinstance(exams, FindingPredictions):
        report = evaluation.finding_report(exams, **session.study.resamples)
        session.table("exams_per_finding", report.round(3), "Metrics by finding, per exam")
        points = finding_sections.choose_points(session, validation, exams)
    else:
        report = evaluation.class_report(exams, **session.study.resamples)
        session.table("exams_per_class", report.round(3), "Metrics by class, per exam")
        points = sections.choose_targets(session, validation, exams)
    specificity = session.study.evaluation.specificity
    caption = f"Test exams at thresholds of {specificity:.0%} specificity on validation exams"
    session.table("exams_operating_points", points.round(3), caption)
    return points
