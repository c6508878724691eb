"""Sections of the test report: each computes its tables and figures and passes them to the notebook's session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.data.exams import predict_exams
from scanbook.data.manifest import TEST, VALIDATION, Manifest, metadata_name
from scanbook.evaluation import AnyPredictions, Calibration, FindingPredictions, Predictions
from scanbook.inspection import robustness
from scanbook.models import engines
from scanbook.reporting import answers, finding_sections, plots
from scanbook.reporting.notebook import Session

if TYPE_CHECKING:
    from scanbook.training import TrainedModel  # which imports Keras

_EXPLAINED, _FAILURES = 5, 18
"""Numbers of correct and of wrong answers with a heat map, and of wrong answers in the montage."""


def show_calibration(
    session: Session, manifest: Manifest, tuned: TrainedModel
) -> tuple[AnyPredictions, AnyPredictions, AnyPredictions, dict[str, Any]]:
    """Fit the calibration on validation images, and show its effect on test images.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        tuned: The final model.

    Returns:
        Calibrated predictions for validation; those for test, without and with calibration; and the calibration by its
        name in the results.
    """
    logits, rows = tuned.logits(VALIDATION), manifest.rows(VALIDATION)
    groups = manifest.frame["group"].to_numpy()[rows]
    calibration = evaluation.calibrate(manifest.labels.rows(rows), logits, groups, session.study.seed)
    validation, raw = manifest.predictions(VALIDATION, logits, calibration), session.on_test(tuned, manifest)
    if isinstance(calibration, Calibration):
        finding_sections.show_calibration(session, manifest.findings, calibration)
        test = manifest.predictions(TEST, tuned.logits(TEST), calibration)
        figure, fitted = plots.finding_reliability_diagrams(raw, test), {"calibration": calibration.to_dict()}
        session.figure("reliability", figure, "Reliability before and after calibration, by finding")
    else:
        test, fitted = raw.with_temperature(calibration), {"temperature": calibration}
        session.say(f"Temperature: {calibration:.3f} (1 changes nothing; above 1 lowers the confidence).")
        figure = plots.reliability_diagram(raw, test)
        session.figure("reliability", figure, "Reliability before and after temperature scaling")
    return validation, raw, test, fitted


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


def compare_with_frozen(
    session: Session, manifest: Manifest, tuned: TrainedModel, frozen: TrainedModel, raw: AnyPredictions
) -> dict[str, evaluation.Difference]:
    """Compare the final model with the network that fine-tuning started from, on the same test images.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        tuned: The final model.
        frozen: The network that fine-tuning started from.
        raw: The final model's predictions for test, without temperature.

    Returns:
        Differences by metric; none where nothing was fine-tuned.
    """
    if tuned.name == frozen.name:
        session.say("The study has no pretrained weights, so nothing was fine-tuned.")
        return {}
    metrics = ("auroc", "auprc", "brier") if manifest.findings else ("accuracy", "balanced_accuracy", "auroc")
    caption = f"{tuned.name} minus {frozen.name}"
    table = evaluation.comparison(raw, session.on_test(frozen, manifest), metrics, **session.study.resamples)
    session.table("comparison", table, caption)
    columns = ["difference", "low", "high", "p_value"]
    differences = {metric: evaluation.Difference(metric, *table.loc[metric, columns]) for metric in metrics}
    figure = plots.difference_plot(differences, f"{caption}, {len(raw)} test images")
    session.figure("difference", figure, "Differences with 95 % intervals")
    session.say(" ".join(f"{gap.sentence(tuned.name, frozen.name)}." for gap in differences.values()))
    if isinstance(raw, FindingPredictions):
        finding_sections.show_differences(session, table, (tuned.name, frozen.name), raw)
    return differences


def show_seeds(session: Session, by_seed: pd.DataFrame, images: int) -> None:
    """Show the differences between the networks of several seeds; nothing where there is one seed.

    Args:
        session: Shows and keeps the results.
        by_seed: `evaluation.over_seeds`, of test images.
        images: Number of test images.
    """
    count = sum(column.startswith("seed ") for column in by_seed)
    if count > 1:
        without = "temperature" if "accuracy" in by_seed.index else "calibration"
        session.table("seeds", by_seed.round(4), f"Test metrics of each seed's network, without {without}")
        figure = plots.seed_dots(by_seed, f"{count} seeds, {images} test images")
        session.figure("seeds", figure, "Distance of each seed's metrics from their mean")


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
    table = _targets(session, validation, test)
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
    threshold, prevalence = table.loc[target, ["threshold", "prevalence"]]
    if np.isfinite(threshold) and 0 < prevalence < 1:
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
    threshold = evaluation.abstain_below(validation, session.study.evaluation.coverage)
    chosen = evaluation.abstention(test, threshold, **session.study.resamples)
    caption = f"Results when the model abstains below a confidence of {threshold:.2f}"
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
        values = evaluation.attribute(manifest.frame.iloc[manifest.rows(TEST)], metadata_name(column))
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


def show_robustness(session: Session, manifest: Manifest, images: np.ndarray, model: Any) -> pd.DataFrame:
    """Show accuracy, or AUROC of findings, on test images with five kinds of corruption.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: A trained network.

    Returns:
        `robustness.test_image_curves`.
    """
    engine = engines.OpenVinoEngine(engines.to_openvino(model), "throughput")
    curves = robustness.test_image_curves(session.study, manifest, images, engine)
    example = robustness.examples(images[manifest.rows(TEST)[0]], session.study.seed)
    session.figure("corruptions", plots.corruption_preview(example), "A test image under each corruption")
    if manifest.findings:
        finding_sections.show_robustness(session, curves)
        return curves
    session.figure("robustness", plots.robustness_curves(curves), "Accuracy by corruption and severity")
    return curves


def show_exams(
    session: Session, manifest: Manifest, tuned: TrainedModel, test: AnyPredictions
) -> dict[str, pd.DataFrame | dict[str, Any]]:
    """Show the test report per exam, where the study names exams: images of one exam have one answer.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        tuned: The final model.
        test: Its predictions for the test images, one by one, to compare with.

    Returns:
        `rule`, `calibration` or `temperature`, `counts`, `summary` and `operating_points` of exams; nothing without
        exams.
    """
    if not manifest.has_exams:
        session.say("The study names no exams (`dataset.exam_column`): every image is answered alone.")
        return {}
    predicted = predict_exams(
        manifest, {split: tuned.logits(split) for split in (VALIDATION, TEST)}, session.study.seed
    )
    if predicted is None:
        session.say("In validation or test no exam has one class: the images of each differ. Exams are not evaluated.")
        return {}
    rule, validation, exams, excluded = predicted
    counts = {"images": len(test), "exams": len(exams), "excluded": excluded}
    count = f"{len(test):,} test images belong to {len(exams) + excluded:,} exams. "
    if rule.losses["mean"] == rule.losses["maximum"]:
        session.say(f"{count}No validation exam has two images that differ, so the mean of the logits is taken.")
    else:
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in rule.losses.items())
        session.say(f"{count}Rule, chosen on validation by log loss ({losses}): the {rule.rule} of the logits.")
    if excluded:
        session.say(f"{excluded:,} exams are excluded: their images have different classes.")
    options, main = session.study.resamples, list(evaluation.default_metrics(test)[:4])
    summary = evaluation.summary(exams, evaluation.metrics_for(exams, session.study.ordered), **options)
    alone = evaluation.summary(test, main, **options)
    rows = {(name, kind): table.loc[name] for name in main for kind, table in (("exam", summary), ("image", alone))}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["metric", "per"])
    session.table("exams", table.round(4), "Test metrics per exam and per image")
    points = _exam_points(session, validation, exams)
    calibration = rule.calibration
    fitted = {"temperature": calibration} if isinstance(calibration, float) else {"calibration": calibration.to_dict()}
    return {"rule": rule.rule, **fitted, "counts": counts, "summary": summary, "operating_points": points}


def _exam_points(session: Session, validation: AnyPredictions, exams: AnyPredictions) -> pd.DataFrame:
    """Show and return the operating points of exams."""
    if isinstance(exams, FindingPredictions):
        report = evaluation.finding_report(exams, **session.study.resamples)
        session.table("exams_per_finding", report.round(3), "Metrics by finding, per exam")
        points = finding_sections.choose_points(session, validation, exams)
    else:
        report = evaluation.class_report(exams, **session.study.resamples)
        session.table("exams_per_class", report.round(3), "Metrics by class, per exam")
        points = _targets(session, validation, exams)
    specificity = session.study.evaluation.specificity
    caption = f"Test exams at thresholds of {specificity:.0%} specificity on validation exams"
    session.table("exams_operating_points", points.round(3), caption)
    return points


def _targets(session: Session, validation: Predictions, test: Predictions) -> pd.DataFrame:
    """Return `evaluation.targets_table` as the study asks for it."""
    study = session.study.evaluation
    chosen = {"specificity": study.specificity, "prevalence": study.prevalence}
    return evaluation.targets_table(validation, test, study.targets, **chosen, **session.study.resamples)


def show_explanations(
    session: Session,
    manifest: Manifest,
    images: np.ndarray,
    model: Any,
    test: AnyPredictions,
    *,
    points: pd.DataFrame,
) -> None:
    """Show heat maps of correct and wrong answers, a check of these maps, and the most confident wrong answers.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: A trained network; the maps do not depend on its temperature.
        test: Its predictions for the test images.
        points: Operating points of findings, whose answers are right or wrong at a threshold.
    """
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
