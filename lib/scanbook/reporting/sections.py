"""Sections of the test report: each computes its tables and figures and passes them to the notebook's session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.data.manifest import TEST, VALIDATION, Manifest, metadata_name
from scanbook.evaluation import AnyPredictions, Calibration, FindingPredictions, Predictions
from scanbook.inspection import robustness
from scanbook.models import engines
from scanbook.reporting import answers, finding_sections, plots, vectors
from scanbook.reporting.notebook import Session

if TYPE_CHECKING:
    from scanbook.training import SplitModels, StudyModels  # which imports Keras

_EXPLAINED, _FAILURES = 5, 18
"""Numbers of correct and of wrong answers with a heat map, and of wrong answers in the montage."""


def show_calibration(
    session: Session, models: StudyModels
) -> tuple[AnyPredictions, AnyPredictions, AnyPredictions, dict[str, Any]]:
    """Fit the calibration on validation images, and show its effect on test images; each fold has its own.

    Args:
        session: Shows and keeps the results.
        models: The study's models.

    Returns:
        Calibrated predictions for validation; those for test, without and with calibration; and the calibration by its
        name in the results.
    """
    fitted = {split.fold: split.calibrate() for split in models.splits}
    validation, raw, test = {}, {}, {}
    for split in models.splits:
        manifest, final, calibration = split.manifest, split.final, fitted[split.fold]
        validation[split.fold] = manifest.predictions(VALIDATION, final.logits(VALIDATION), calibration)
        raw[split.fold] = session.on_test_of(split, final)
        of_findings = isinstance(calibration, Calibration)
        test[split.fold] = (
            manifest.predictions(TEST, final.logits(TEST), calibration)
            if of_findings
            else raw[split.fold].with_temperature(calibration)
        )
    before, after = models.pool(raw), models.pool(test)
    if isinstance(after, FindingPredictions):
        finding_sections.show_calibration(session, after.findings, fitted)
        figure = plots.finding_reliability_diagrams(before, after)
        session.figure("reliability", figure, "Reliability before and after calibration, by finding")
    else:
        values = ", ".join(f"{value:.3f}{f' in {fold}' if fold else ''}" for fold, value in fitted.items())
        session.say(f"Temperature: {values} (1 changes nothing; above 1 lowers the confidence).")
        figure = plots.reliability_diagram(before, after)
        session.figure("reliability", figure, "Reliability before and after temperature scaling")
    return models.pool(validation), before, after, record_calibrations(fitted)


def record_calibrations(fitted: Mapping[str, float | Calibration]) -> dict[str, Any]:
    """Return calibrations by fold as `results.json` has them: by their name alone where there is one split."""
    values = {fold: value.to_dict() if isinstance(value, Calibration) else value for fold, value in fitted.items()}
    name = "calibration" if isinstance(next(iter(fitted.values())), Calibration) else "temperature"
    return {name: values.get("", values)}


def show_test_report(
    session: Session, manifest: Manifest, name: str, test: AnyPredictions
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Show the metrics of the final model, as a whole and by class or finding.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        name: Name of the model.
        test: Its calibrated predictions for the test images.

    Returns:
        `evaluation.summary`, and `evaluation.class_report` or `evaluation.finding_report`.
    """
    if isinstance(test, FindingPredictions):
        of = "patients" if manifest.facts.get("names_groups") else "images"
        return finding_sections.show_test_report(session, name, test, of)
    summary = evaluation.summary(test, evaluation.metrics_for(test, session.study.ordered), **session.study.resamples)
    report = evaluation.class_report(test, **session.study.resamples)
    session.table("summary", summary.round(4), f"{name}: {len(test)} test images")
    session.table("per_class", report.round(3), "Metrics by class, in class order, with the means over classes")
    shown = summary.loc[["accuracy", "balanced_accuracy", "auroc"]]
    references = answers.reference_values(manifest)
    figure = plots.metric_bars(shown, f"{name}, {len(test)} test images", "value", references)
    session.figure("summary", figure, "Accuracy, balanced accuracy and AUROC with 95 % intervals")
    return summary, report


def compare_with_frozen(session: Session, models: StudyModels, raw: AnyPredictions) -> dict[str, evaluation.Difference]:
    """Compare the final model with the network that fine-tuning started from, on the same test images.

    Args:
        session: Shows and keeps the results.
        models: The study's models.
        raw: The final model's predictions for test, without temperature.

    Returns:
        Differences by metric; none where nothing was fine-tuned.
    """
    tuned, frozen = models.name, models.base_name
    if tuned == frozen:
        reason = "The study has no pretrained weights, so nothing was fine-tuned."
        if models.kinds == "frozen":
            reason = "Fine-tuning was not better on validation images, so the final model is the frozen network itself."
        session.say(vectors.NOT_FINE_TUNED if session.study.embeddings else reason)
        return {}
    of_findings = isinstance(raw, FindingPredictions)
    metrics = ("auroc", "auprc", "brier") if of_findings else ("accuracy", "balanced_accuracy", "auroc")
    caption = f"{tuned} minus {frozen}"
    base = models.by_fold(lambda split: session.on_test_of(split, split.starts[0]))
    table = evaluation.comparison(raw, base, metrics, **session.study.resamples)
    session.table("comparison", table, caption)
    columns = ["difference", "low", "high", "p_value"]
    differences = {metric: evaluation.Difference(metric, *table.loc[metric, columns]) for metric in metrics}
    figure = plots.difference_plot(differences, f"{caption}, {len(raw)} test images")
    session.figure("difference", figure, "Differences with 95 % intervals")
    session.say(" ".join(f"{gap.sentence(tuned, frozen)}." for gap in differences.values()))
    if isinstance(raw, FindingPredictions):
        finding_sections.show_differences(session, table, (tuned, frozen), raw)
    return differences


def show_confusion(session: Session, validation: AnyPredictions, test: AnyPredictions) -> None:
    """Show which class is predicted for which; of very many classes, the pairs that are confused.

    Of findings it is what is called present at the thresholds, by finding, and where another finding is.

    Args:
        session: Shows and keeps the results.
        validation: Calibrated predictions, from which the thresholds come.
        test: Calibrated predictions.
    """
    if isinstance(test, FindingPredictions):
        finding_sections.show_errors(session, validation, test)
        return
    table = evaluation.confusion(test)
    many = len(table) > plots.MOST_SQUARES
    caption = "Most frequent confusions" if many else "Confusion matrix"
    session.figure("confusion", plots.confusion_matrix(table), f"{caption} of the test images")
    if many:
        pairs = plots.confusions(table).round(4).set_index("true").rename_axis("true class")
        session.table("confusions", pairs, "Classes that are confused, with the share of the true class's images")


def show_operating_points(session: Session, validation: AnyPredictions, test: AnyPredictions) -> pd.DataFrame:
    """Show thresholds chosen on validation and applied to test, and predictive values by prevalence.

    Args:
        session: Shows and keeps the results; its study names targets, specificity and prevalences.
        validation: Calibrated predictions.
        test: Calibrated predictions.

    Returns:
        `evaluation.targets_table`; of findings `evaluation.finding_points`.
    """
    if isinstance(test, FindingPredictions):
        return finding_sections.show_operating_points(session, validation, test)
    study = session.study.evaluation
    table = choose_targets(session, validation, test)
    session.table(
        "operating_points",
        table.round(3),
        f"Test results at thresholds of {study.specificity:.0%} specificity on validation",
    )
    target = next(iter(study.targets), test.classes[-1])
    unchosen, untested = table["threshold"].isna(), table["sensitivity"].isna() | table["specificity"].isna()
    for what, rows, split, absent in (
        ("threshold", unchosen, "validation", validation.absent),
        ("sensitivity, specificity or predictive value", untested & ~unchosen, "test", test.absent),
    ):
        if rows.any():
            names = ", ".join(table.index[rows])
            session.say(f"No {what} is defined for {names}: the {split} split has no image of {', '.join(absent)}.")
    prevalence = table.loc[target, "prevalence"]
    threshold = evaluation.chosen_for(test, table.loc[[target]], "threshold")[:, 0]
    if np.isfinite(threshold).all() and 0 < prevalence < 1:
        members = study.targets.get(target, [target])
        curve = evaluation.prevalence_curve(test, members, threshold, **session.study.resamples)
        figure = plots.prevalence_curve(curve, f"{target}, {len(test)} test images", prevalence)
        session.figure("prevalence", figure, f"Predictive values of {target} by prevalence")
    return table


def show_selective_prediction(session: Session, validation: AnyPredictions, test: AnyPredictions) -> pd.DataFrame:
    """Show accuracy on the answered images over their share, and at the abstention threshold from validation.

    Args:
        session: Shows and keeps the results; its study sets the share of validation images that is answered.
        validation: Calibrated predictions.
        test: Calibrated predictions.

    Returns:
        `evaluation.abstention` of the test images; of findings `evaluation.finding_abstention`.
    """
    if isinstance(test, FindingPredictions):
        return finding_sections.show_selective_prediction(session, validation, test)
    coverage = session.study.evaluation.coverage
    below = evaluation.choose_by_fold(validation, test, lambda images: evaluation.abstain_below(images, coverage))
    chosen = evaluation.abstention(test, evaluation.of_images(below, test), **session.study.resamples)
    of_folds = ", the mean over the folds" if len(below) > 1 else ""
    threshold = np.mean(list(below.values()))
    caption = f"Results when the model abstains below a confidence of {threshold:.2f}{of_folds}"
    if test.absent:
        chosen.loc["accuracy", ["value", "low", "high"]] = np.nan
        session.say(f"Accuracy is not defined: the test split has no image of {', '.join(test.absent)}.")
        session.table("abstention", chosen.round(4), caption)
        return chosen
    curve = evaluation.coverage_curve(test, **session.study.resamples)
    figure = plots.coverage_curve(curve, f"Most confident answers of {len(test)} test images", chosen)
    session.figure("coverage", figure, "Accuracy by the share of images answered")
    session.table("abstention", chosen.round(4), caption)
    return chosen


def show_subgroups(session: Session, manifest: Manifest, test: AnyPredictions, summary: pd.DataFrame) -> None:
    """Show the metrics by each attribute that the study names.

    Args:
        session: Shows and keeps the results.
        manifest: Holds the attributes.
        test: Predictions for its test images.
        summary: `evaluation.summary` of all of them.
    """
    columns = session.study.evaluation.subgroups
    kind = "findings" if manifest.findings else "classes"
    for column in columns:
        rows = manifest.rows_of(test.image_id)
        values = evaluation.attribute(manifest.frame.iloc[rows], metadata_name(column))
        table = evaluation.subgroups(test, values, **session.study.resamples)
        session.table(f"subgroups_{column}", table.round(3), f"Metrics by {column}")
        if (table[kind] < len(test.names)).any():
            alone = "a subgroup of one class" if manifest.classes else "a finding that all images have, or none,"
            session.say(
                f"Some subgroups have fewer than the {len(test.names)} {kind} (column *{kind}*): their metrics are "
                f"of those alone, and {alone} has no AUROC."
            )
        if (table["images"] < evaluation.LEAST_IMAGES).any():
            session.say(
                f"A subgroup of fewer than {evaluation.LEAST_IMAGES} images has no metric, which could be chance."
            )
        figure = plots.subgroup_bars(table, f"By {column}, {len(test)} test images", summary)
        session.figure(f"subgroups_{column}", figure, f"Metrics by {column} with 95 % intervals")
        if isinstance(test, FindingPredictions):
            table = evaluation.finding_subgroups(test, values, **session.study.resamples)
            session.table(f"finding_subgroups_{column}", table.round(3), f"AUROC by finding and {column}")
            figure = plots.finding_subgroup_bars(table, f"By {column}, {len(test)} test images")
            session.figure(f"finding_subgroups_{column}", figure, f"AUROC by finding and {column}")
    if not columns:
        session.say("The study names no subgroups (`evaluation.subgroups`).")


def show_robustness(session: Session, models: SplitModels, model: Any) -> pd.DataFrame:
    """Show accuracy, or AUROC of findings, on test images with five kinds of corruption.

    Args:
        session: Shows and keeps the results.
        models: The models of one split, with its images.
        model: One of their networks.

    Returns:
        `robustness.test_image_curves`; empty for a study of vectors, with the reason in its place.
    """
    if session.study.embeddings:
        session.say(vectors.NO_ROBUSTNESS)
        return pd.DataFrame(columns=["kind", "severity", evaluation.main_metric(models.manifest)])
    engine = engines.OpenVinoEngine(engines.to_openvino(model), "throughput")
    manifest, images = models.manifest, models.images
    curves = robustness.test_image_curves(session.study, manifest, images, engine)
    example = robustness.examples(images[manifest.rows(TEST)[0]], session.study.seed)
    session.figure("corruptions", plots.corruption_preview(example), "A test image under each corruption")
    if manifest.findings:
        finding_sections.show_robustness(session, curves)
        return curves
    session.figure("robustness", plots.robustness_curves(curves), "Accuracy by corruption and severity")
    return curves


def choose_targets(session: Session, validation: Predictions, test: Predictions) -> pd.DataFrame:
    """Return `evaluation.targets_table` as the study asks for it."""
    study = session.study.evaluation
    chosen = {"specificity": study.specificity, "prevalence": study.prevalence}
    return evaluation.targets_table(validation, test, study.targets, **chosen, **session.study.resamples)


def show_explanations(
    session: Session, models: SplitModels, model: Any, test: AnyPredictions, *, points: pd.DataFrame
) -> None:
    """Show heat maps of correct and wrong answers, a check of these maps, and the most confident wrong answers.

    Args:
        session: Shows and keeps the results.
        models: The models of one split, with its images.
        model: One of their networks; the maps do not depend on its temperature.
        test: Predictions for the test images; of several folds, those of this split are used.
        points: Operating points of findings, whose answers are right or wrong at a threshold.
    """
    test = test.subset(test.fold == models.fold) if test.fold is not None else test
    manifest, images = models.manifest, models.images
    if session.study.embeddings:
        vectors.show_failures(session, manifest, test, points)
        return
    if isinstance(test, FindingPredictions):
        finding_sections.show_explanations(session, manifest, images, model, test, points=points)
        return
    from scanbook.inspection import grad_cam  # here, since it imports Keras

    rows, size = manifest.rows(TEST), session.study.size
    chosen = np.concatenate([evaluation.successes(test, _EXPLAINED), evaluation.failures(test, _EXPLAINED)])
    examples = images[rows[chosen]]
    maps = engines.KerasEngine(grad_cam.add_heat_maps(model, 1.0)).predict(examples)[1]
    figure = plots.heat_maps(examples, grad_cam.grad_cam(maps, test.y_pred[chosen], size), test.captions(chosen))
    session.figure("grad_cam", figure, "Grad-CAM of the most confident correct and wrong answers")
    check = grad_cam.randomisation_check(model, examples, session.study.seed)
    session.table(
        "randomisation",
        check.round(3),
        "Rank correlation of heat maps, after layers were randomised, with those of the trained network",
    )
    wrong = evaluation.failures(test, _FAILURES)
    figure = plots.montage(list(images[rows[wrong]]), test.captions(wrong), title="Most confident wrong answers")
    session.figure("failures", figure, "Test images with the most confident wrong answers")
    session.say(f"The prediction for one image ({test.image_id[0]}) as an example. {test.single(test.image_id[0])}.")
