"""Sections of the test report of a study of findings; `sections` calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.data.manifest import TEST, Manifest
from scanbook.evaluation import MACRO, Calibration, Difference, FindingPredictions, with_interval
from scanbook.evaluation.findings import in_words
from scanbook.models import engines
from scanbook.reporting import plots
from scanbook.reporting.notebook import Session

_EXPLAINED, _RIGHT, _WRONG, _FAILURES = 3, 3, 2, 18
"""Findings with heat maps, the numbers of right and of wrong answers for each, and of wrong answers in the montage."""
_FEW = 10
"""Patients with a finding below which a reader is warned."""


def show_calibration(session: Session, findings: Sequence[str], fitted: Mapping[str, Calibration]) -> None:
    """Show how each finding was calibrated, in each fold; `fitted` are the calibrations by fold."""
    tables = {
        fold: pd.DataFrame(
            {"method": values.method, "slope": values.slope, "offset": values.offset},
            pd.Index(findings, name="finding"),
        )
        for fold, values in fitted.items()
    }
    table = tables[""] if "" in tables else pd.concat(tables, names=["fold"])
    session.table("calibration", table.round(3), "Calibration: probability = sigmoid(slope × logit + offset)")


def show_test_report(
    session: Session, name: str, test: FindingPredictions, of: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Show the metrics of all findings and of each, and say which of them rest on few patients.

    Args:
        session: Shows and keeps the results.
        name: Name of the model.
        test: Calibrated predictions.
        of: What the source names: "patients"; "images" where it names none, and each is a group of its own.

    Returns:
        `evaluation.summary` and `evaluation.finding_report`.
    """
    options = session.study.resamples
    summary, report = evaluation.summary(test, **options), evaluation.finding_report(test, **options)
    footnotes = ["exact_match", "hamming"]
    title = f"{name}: {len(test)} test images"
    session.table("summary", summary.drop(index=footnotes).round(4), f"{title}, means over the findings")
    session.table("per_finding", report.round(3), "Metrics by finding, of the images that are labelled for it")
    figure = plots.finding_bars(report, title.replace(":", ","))
    session.figure("summary", figure, "AUROC and AUPRC with 95 % intervals, by finding")
    if test.absent:
        session.say(
            f"Never present, or never absent, on labelled test images: {', '.join(test.absent)}. They have no AUROC "
            "and AUPRC, and the means are over the others."
        )
    few = report.iloc[:-1].drop(index=list(test.absent))
    few = few[few["patients"] < _FEW]
    if len(few):
        counts = ", ".join(f"{finding} ({count:.0f})" for finding, count in few["patients"].items())
        session.say(
            f"Fewer than {_FEW} {of} have these findings: {counts}. Their results may be chance. In resamples "
            "without a finding the means are over the others, which makes their intervals wider."
        )
    exact, hamming = (with_interval(*summary.loc[metric]) for metric in footnotes)
    session.say(
        f"Footnote: at a probability of 0.5, all labels of an image are right for {exact} of the images (exact match), "
        f"and {hamming} of the labels are wrong (Hamming loss). Where most findings are rare, both look good."
    )
    return summary, report


def show_differences(session: Session, table: pd.DataFrame, names: tuple[str, str], test: FindingPredictions) -> None:
    """Show the difference in AUROC of each finding, and which differ after Holm's correction.

    Args:
        session: Shows and keeps the results.
        table: `evaluation.comparison`.
        names: The two models.
        test: Predictions of one of them.
    """
    tests = table.loc[[f"AUROC of {name} (DeLong)" for name in test.findings]].set_axis(list(test.findings))
    shown, note = plots.style.extremes(tests["difference"], "findings", ("highest", "lowest differences"))
    columns = ["difference", "low", "high", "p_value"]
    rows = {str(name): Difference("auroc", *tests.loc[name, columns]) for name in shown}
    title = f"AUROC by finding, {names[0]} minus {names[1]}, {len(test)} test images"
    figure = plots.difference_plot(rows, f"{title}\n{note}".strip(), "AUROC, difference")
    session.figure("finding_differences", figure, "Differences in AUROC by finding, with DeLong's 95 % intervals")
    clear = tests.index[tests["p_holm"] < 0.05]
    tested = int(tests["p_holm"].notna().sum())
    if not tested:
        session.say("No finding can be tested: each is present, or absent, in fewer than two patients of test.")
        return
    differ = f"the AUROC of {', '.join(clear)} differs" if len(clear) else "no finding's AUROC differs clearly"
    session.say(f"After Holm's correction for {tested} finding{'s' * (tested != 1)}, {differ} (p below 0.05).")


def show_errors(session: Session, validation: FindingPredictions, test: FindingPredictions) -> None:
    """Show what is called present and absent at the thresholds, and which finding is taken for another."""
    points = choose_points(session, validation, test, rounds=1)
    errors, matrix = evaluation.finding_errors(test, points), evaluation.co_errors(test, points)
    session.table("errors", errors, "Images by finding and answer, at the thresholds of section 7")
    title = f"Answers at the thresholds, {len(test)} test images"
    session.figure("errors", plots.finding_answers(errors, title), "What is called present, by finding")
    session.table("co_errors", matrix.round(3), "Share called present (column) where another finding is (row)")
    figure = plots.co_errors(matrix, len(test))
    session.figure("co_errors", figure, "Findings that are called present where another one is")


def show_operating_points(session: Session, validation: FindingPredictions, test: FindingPredictions) -> pd.DataFrame:
    """Show thresholds and margins chosen on validation and applied to test; return `evaluation.finding_points`."""
    study = session.study.evaluation
    points = choose_points(session, validation, test)
    caption = f"Test results at thresholds of {study.specificity:.0%} specificity on validation"
    session.table("operating_points", points.round(3), caption)
    session.say(
        "The margin is a distance from the threshold on the scale of logits. Within it, the answer is *not sure*."
    )
    without = points.index[points["threshold"].isna()]
    if len(without):
        session.say(
            f"No threshold is defined for {', '.join(without)}: on validation images that are labelled, it is never "
            "present, or never absent."
        )
    usable = points[points["threshold"].notna() & points["prevalence"].between(0, 1, inclusive="neither")]
    if len(usable):
        stated = [name for name in study.prevalence if name in usable.index]
        finding = stated[0] if stated else usable["positives"].idxmax()
        prevalence = points.loc[finding, "prevalence"]
        threshold = evaluation.chosen_for(test, points.loc[[finding]], "threshold")[:, 0]
        curve = evaluation.prevalence_curve(test, [finding], threshold, **session.study.resamples)
        figure = plots.prevalence_curve(curve, f"{finding}, {len(test)} test images", prevalence)
        session.figure("prevalence", figure, f"Predictive values of {finding} by prevalence")
    return points


def show_selective_prediction(
    session: Session, validation: FindingPredictions, test: FindingPredictions
) -> pd.DataFrame:
    """Show what is answered and how well, with the margins from validation; return `evaluation.finding_abstention`."""
    points = choose_points(session, validation, test, rounds=1)
    table = evaluation.finding_abstention(test, points, **session.study.resamples)
    curve = evaluation.finding_coverage_curve(test, points, **session.study.resamples)
    title = f"Answers farthest from the thresholds, {len(test)} test images"
    figure = plots.finding_coverage(curve, title, table.iloc[-1])
    session.figure("coverage", figure, "Sensitivity and specificity by the share of images answered")
    share = session.study.evaluation.coverage
    session.table("abstention", table.round(4), f"Answers when {share:.0%} of the validation images are answered")
    return table


def show_robustness(session: Session, curves: pd.DataFrame) -> None:
    """Show AUROC by corruption, of all findings and of each; `curves` is of `robustness.test_image_curves`."""
    session.figure("robustness", plots.finding_robustness(curves), "AUROC by corruption and severity")
    prefix = "auroc: "
    findings = [name for name in curves if name.startswith(prefix)]
    worse = curves[curves["severity"] > 0].groupby("kind", sort=False)[["auroc", *findings]].mean().T
    worse.insert(0, "original", curves.loc[curves["severity"] == 0, ["auroc", *findings]].iloc[0])
    worse.index = pd.Index([MACRO, *(name.removeprefix(prefix) for name in findings)], name="finding")
    worse.columns.name = None
    session.table("robustness", worse.round(3), "AUROC by finding: original images, then means over five severities")


def show_explanations(
    session: Session,
    manifest: Manifest,
    images: np.ndarray,
    model: Any,
    test: FindingPredictions,
    *,
    points: pd.DataFrame,
) -> None:
    """Show heat maps of right and of wrong answers for the most frequent findings, and a check of these maps.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: A trained network.
        test: Its predictions for the test images.
        points: `evaluation.finding_points`.
    """
    from scanbook.inspection import grad_cam  # here, since it imports Keras

    rows, size = manifest.rows(TEST), session.study.size
    usable = points[points["threshold"].notna()].sort_values("positives", ascending=False, kind="stable").index
    chosen = [
        (int(row), test.findings.index(finding))
        for finding in usable[:_EXPLAINED]
        for correct, count in ((True, _RIGHT), (False, _WRONG))
        for row in evaluation.confident(test, finding, points, correct=correct, count=count)
    ]
    if chosen:
        places, columns = np.array(chosen).T
        examples = images[rows[places]]
        maps = engines.KerasEngine(grad_cam.add_heat_maps(model, Calibration.identity(len(test.findings))))
        heat = grad_cam.grad_cam(maps.predict(examples)[1], columns, size)
        figure = plots.heat_maps(examples, heat, [_caption(test, *pair) for pair in chosen])
        names = ", ".join(usable[:_EXPLAINED])
        session.figure("grad_cam", figure, f"Grad-CAM of {names}: the most confident right, then wrong answers of each")
        # an image that is shown for several findings counts once
        check = grad_cam.randomisation_check(model, images[rows[np.unique(places)]], session.study.seed)
        caption = "Rank correlation of heat maps, after layers were randomised, with those of the trained network"
        session.table("randomisation", check.round(3), caption)
    wrong, captions = wrong_answers(test, points)
    figure = plots.montage([images[rows[row]] for row in wrong], captions, title="Most confident wrong answers")
    session.figure("failures", figure, "Test images with the most confident wrong answers, over all findings")
    name = test.image_id[0]
    session.say(f"The labels and the predictions of one image ({name}) as an example: {test.single(name)}.")


def wrong_answers(test: FindingPredictions, points: pd.DataFrame) -> tuple[list[int], list[str]]:
    """Return the places of the most confident wrong answers, and a caption of each."""
    wrong = _most_confident_wrong(test, points)
    return [row for row, _ in wrong], [_caption(test, *pair) for pair in wrong]


def _most_confident_wrong(test: FindingPredictions, points: pd.DataFrame) -> list[tuple[int, int]]:
    """Return rows and findings of the wrong answers that are farthest from their thresholds."""
    away = evaluation.distance(test.probabilities, evaluation.chosen_for(test, points, "threshold"))
    pairs = [
        (float(away[row, column]), int(row), column)
        for column, finding in enumerate(test.findings)
        for row in evaluation.confident(test, finding, points, correct=False, count=_FAILURES)
    ]
    pairs.sort(key=lambda pair: -pair[0])
    return [(row, column) for _, row, column in pairs[:_FAILURES]]


def _caption(test: FindingPredictions, row: int, column: int) -> str:
    p, label = test.probabilities[row, column], in_words(test.y_true[row, column])
    return f"{test.findings[column]} {label},\npredicted {p:.2f}"


def choose_points(
    session: Session, validation: FindingPredictions, test: FindingPredictions, **options: int
) -> pd.DataFrame:
    """Return `evaluation.finding_points` of images or exams, as the study says; `options` change the resamples."""
    chosen = session.study.evaluation.options_of_points(test.findings)
    return evaluation.finding_points(validation, test, **chosen, **session.study.resamples | options)
