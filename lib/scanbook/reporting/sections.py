"""Sections of the test report: each computes its tables and figures and passes them to the notebook's session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.data.manifest import TEST, Manifest, metadata_name
from scanbook.evaluation import Predictions
from scanbook.inspection import robustness
from scanbook.models import engines
from scanbook.reporting import plots
from scanbook.reporting.notebook import Session

if TYPE_CHECKING:
    from scanbook.training import TrainedModel  # which imports Keras

_EXPLAINED, _FAILURES = 5, 18
"""Numbers of correct and of wrong answers with a heat map, and of wrong answers in the montage."""


def compare_with_frozen(
    session: Session, manifest: Manifest, tuned: TrainedModel, frozen: TrainedModel, raw: Predictions
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
    metrics = ("accuracy", "balanced_accuracy", "auroc")
    caption = f"{tuned.name} minus {frozen.name}"
    table = evaluation.comparison(raw, session.on_test(frozen, manifest), metrics, **_options(session))
    session.table("comparison", table, caption)
    differences = {metric: evaluation.Difference(metric, *table.loc[metric]) for metric in metrics}
    figure = plots.difference_plot(differences, f"{caption}, {len(raw)} test images")
    session.figure("difference", figure, "Differences with 95 % intervals")
    session.say(" ".join(f"{gap.sentence(tuned.name, frozen.name)}." for gap in differences.values()))
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
        session.table("seeds", by_seed.round(4), "Test metrics of each seed's network, without temperature")
        figure = plots.seed_dots(by_seed, f"{count} seeds, {images} test images")
        session.figure("seeds", figure, "Distance of each seed's metrics from their mean")


def show_confusion(session: Session, test: Predictions) -> None:
    """Show which class is predicted for which; of very many classes, the pairs that are confused.

    Args:
        session: Shows and keeps the results.
        test: Predictions for the test images.
    """
    table = evaluation.confusion(test)
    many = len(table) > plots.MOST_SQUARES
    caption = "Most frequent confusions" if many else "Confusion matrix"
    session.figure("confusion", plots.confusion_matrix(table), f"{caption} of the test images")
    if many:
        pairs = plots.confusions(table).round(4).set_index("true").rename_axis("true class")
        session.table("confusions", pairs, "Classes that are confused, with the share of the true class's images")


def show_operating_points(session: Session, validation: Predictions, test: Predictions) -> pd.DataFrame:
    """Show thresholds chosen on validation and applied to test, and predictive values by prevalence.

    Args:
        session: Shows and keeps the results; its study names targets, specificity and prevalences.
        validation: Calibrated predictions.
        test: Calibrated predictions.

    Returns:
        `evaluation.targets_table`.
    """
    study, options = session.study.evaluation, _options(session)
    chosen = {"specificity": study.specificity, "prevalence": study.prevalence}
    table = evaluation.targets_table(validation, test, study.targets, **chosen, **options)
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
        curve = evaluation.prevalence_curve(test, members, threshold, **options)
        figure = plots.prevalence_curve(curve, f"{target}, {len(test)} test images", prevalence)
        session.figure("prevalence", figure, f"Predictive values of {target} by prevalence")
    return table


def show_selective_prediction(session: Session, validation: Predictions, test: Predictions) -> pd.DataFrame:
    """Show accuracy on the answered images over their share, and at the abstention threshold from validation.

    Args:
        session: Shows and keeps the results; its study sets the share of validation images that is answered.
        validation: Calibrated predictions.
        test: Calibrated predictions.

    Returns:
        `evaluation.abstention` of the test images.
    """
    threshold = evaluation.abstain_below(validation, session.study.evaluation.coverage)
    chosen = evaluation.abstention(test, threshold, **_options(session))
    caption = f"Results when the model abstains below a confidence of {threshold:.2f}"
    if test.absent:
        chosen.loc["accuracy", ["value", "low", "high"]] = np.nan
        session.say(f"Accuracy is not defined: the test split has no image of {', '.join(test.absent)}.")
        session.table("abstention", chosen.round(4), caption)
        return chosen
    curve = evaluation.coverage_curve(test, **_options(session))
    figure = plots.coverage_curve(curve, f"Most confident answers of {len(test)} test images", chosen)
    session.figure("coverage", figure, "Accuracy by the share of images answered")
    session.table("abstention", chosen.round(4), caption)
    return chosen


def show_subgroups(session: Session, manifest: Manifest, test: Predictions, summary: pd.DataFrame) -> None:
    """Show the metrics by each attribute that the study names.

    Args:
        session: Shows and keeps the results.
        manifest: Holds the attributes.
        test: Predictions for its test images.
        summary: `evaluation.summary` of all of them.
    """
    columns = session.study.evaluation.subgroups
    for column in columns:
        values = evaluation.attribute(manifest.frame.iloc[manifest.rows(TEST)], metadata_name(column))
        table = evaluation.subgroups(test, values, **_options(session))
        session.table(f"subgroups_{column}", table.round(3), f"Metrics by {column}")
        if (table["classes"] < len(test.classes)).any():
            session.say(
                f"Some subgroups have fewer than the {len(test.classes)} classes (column *classes*): their metrics are "
                "of those alone, and a subgroup of one class has no AUROC."
            )
        figure = plots.subgroup_bars(table, f"By {column}, {len(test)} test images", summary)
        session.figure(f"subgroups_{column}", figure, f"Metrics by {column} with 95 % intervals")
    if not columns:
        session.say("The study names no subgroups (`evaluation.subgroups`).")


def show_robustness(session: Session, manifest: Manifest, images: np.ndarray, model: Any) -> pd.DataFrame:
    """Show accuracy on test images with five kinds of corruption.

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
    session.figure("robustness", plots.robustness_curves(curves), "Accuracy by corruption and severity")
    return curves


def show_explanations(session: Session, manifest: Manifest, images: np.ndarray, model: Any, test: Predictions) -> None:
    """Show heat maps of correct and wrong answers, a check of these maps, and the most confident wrong answers.

    Args:
        session: Shows and keeps the results.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: A trained network; the maps do not depend on its temperature.
        test: Its predictions for the test images.
    """
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


def _options(session: Session) -> dict[str, int]:
    return {"rounds": session.study.bootstrap_rounds, "seed": session.study.seed}
