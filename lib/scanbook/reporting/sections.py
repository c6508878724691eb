"""Sections of the test report: each computes its tables and figures and hands them to the notebook's session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.data.manifest import TEST, Manifest
from scanbook.evaluation import Predictions
from scanbook.inspection import grad_cam, robustness
from scanbook.models import engines
from scanbook.reporting import plots
from scanbook.reporting.notebook import Session
from scanbook.training import Trained

_SHOWN, _FAILURES = 5, 18
"""Right and wrong answers that are explained, and wrong ones that are shown."""


def check(session: Session, manifest: Manifest) -> None:
    """Refuses what the study asks of the report and the dataset cannot give, before anything is trained.

    Raises:
        DataError: A finding, a prevalence or a subgroup names no class or column of the dataset.
    """
    wanted = session.study.evaluation
    evaluation.check_targets(manifest.classes, wanted.targets, wanted.prevalence)
    for column in wanted.subgroups:
        evaluation.attribute(manifest.frame, column)


def gain(
    session: Session, manifest: Manifest, tuned: Trained, frozen: Trained, raw: Predictions
) -> dict[str, evaluation.Difference]:
    """The final model against the network that fine-tuning started from, on the same test images.

    Args:
        session: Shows and keeps.
        manifest: The dataset, split.
        tuned: The final model.
        frozen: What it started from.
        raw: The final model's predictions for test, without temperature.

    Returns:
        Differences by metric; none where nothing was fine-tuned.
    """
    if tuned.name == frozen.name:
        session.say("The study has no pretrained weights, so that nothing was fine-tuned.")
        return {}
    before, options = session.on_test(frozen, manifest), _options(session)
    metrics = ("accuracy", "balanced_accuracy", "auroc")
    caption = f"{tuned.name} minus {frozen.name}"
    table = evaluation.comparison(raw, before, metrics, **options)
    session.table("comparison", table, caption)
    found = {metric: evaluation.Difference(metric, *table.loc[metric]) for metric in metrics}
    title = f"{caption}, {len(raw)} test images"
    session.figure("difference", plots.difference_plot(found, title), "Differences with 95 % intervals")
    session.say(" ".join(each.sentence(tuned.name, frozen.name) + "." for each in found.values()))
    return found


def seeds(session: Session, by_seed: pd.DataFrame, images: int) -> None:
    """How far the networks of several seeds are from one another; nothing where there is one.

    Args:
        session: Shows and keeps.
        by_seed: `evaluation.over_seeds`, of test images.
        images: How many of them.
    """
    count = sum(column.startswith("seed ") for column in by_seed)
    if count > 1:
        session.table("seeds", by_seed.round(4), "Test figures of each seed's network, without temperature")
        figure = plots.seed_dots(by_seed, f"{count} seeds, {images} test images")
        session.figure("seeds", figure, "Distance of each seed's figures from their mean")


def references(manifest: Manifest) -> dict[str, float]:
    """Accuracies to hold a model against: the most frequent class, and the best possible where it is known."""
    known = {"Bayes accuracy": manifest.facts["bayes_accuracy"]} if "bayes_accuracy" in manifest.facts else {}
    return {"most frequent class": manifest.majority_accuracy()} | known


def decisions(session: Session, validation: Predictions, test: Predictions) -> pd.DataFrame:
    """Thresholds chosen on validation and applied to test, and predictive values by prevalence.

    Args:
        session: Shows and keeps; its study names findings, specificity and prevalences.
        validation: Calibrated predictions.
        test: Calibrated predictions.

    Returns:
        `evaluation.targets_table`.
    """
    wanted, options = session.study.evaluation, _options(session)
    chosen = {"specificity": wanted.specificity, "prevalence": wanted.prevalence}
    table = evaluation.targets_table(validation, test, wanted.targets, **chosen, **options)
    session.table("decisions", table.round(3), f"Thresholds of {wanted.specificity:.0%} specificity on validation")
    finding = next(iter(wanted.targets), test.classes[-1])
    threshold, prevalence = table.loc[finding, ["threshold", "prevalence"]]
    if np.isfinite(threshold) and 0 < prevalence < 1:
        members = wanted.targets.get(finding, [finding])
        curve = evaluation.prevalence_curve(test, members, threshold, **options)
        figure = plots.prevalence_curve(curve, f"{finding}, {len(test)} test images", prevalence)
        session.figure("prevalence", figure, f"Predictive values of {finding} by prevalence")
    return table


def abstaining(session: Session, validation: Predictions, test: Predictions) -> pd.DataFrame:
    """Accuracy on the images that are answered, the surest first, and at the threshold that validation sets.

    Args:
        session: Shows and keeps; its study says which share of the validation images is answered.
        validation: Calibrated predictions.
        test: Calibrated predictions.

    Returns:
        `evaluation.abstention` of the test images.
    """
    below = evaluation.abstain_below(validation, session.study.evaluation.coverage)
    chosen = evaluation.abstention(test, below, **_options(session))
    curve = evaluation.coverage_curve(test, **_options(session))
    figure = plots.coverage_curve(curve, f"Answering the surest of {len(test)} test images", chosen)
    session.figure("coverage", figure, "Accuracy by the share of images answered")
    session.table("abstention", chosen.round(4), f'Where the model says "not sure" below {below:.2f}')
    return chosen


def subgroups(session: Session, manifest: Manifest, test: Predictions, summary: pd.DataFrame) -> None:
    """The same metrics by each attribute that the study names.

    Args:
        session: Shows and keeps.
        manifest: Holds the attributes.
        test: Predictions for its test images.
        summary: `evaluation.summary` of all of them.
    """
    for column in session.study.evaluation.subgroups:
        values = evaluation.attribute(manifest.frame.iloc[manifest.rows(TEST)], column)
        table = evaluation.subgroups(test, values, **_options(session))
        session.table(f"subgroups_{column}", table.round(3), f"By {column}")
        figure = plots.subgroup_bars(table, f"By {column}, {len(test)} test images", summary)
        session.figure(f"subgroups_{column}", figure, f"Metrics by {column} with 95 % intervals")
    if not session.study.evaluation.subgroups:
        session.say("The study names no subgroups (`evaluation.subgroups`).")


def worse_images(session: Session, manifest: Manifest, images: np.ndarray, model: Any) -> pd.DataFrame:
    """Accuracy on test images made worse in five ways.

    Args:
        session: Shows and keeps.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: A trained network.

    Returns:
        `robustness.of_test_images`.
    """
    engine = engines.OpenVinoEngine(engines.to_openvino(model), "throughput")
    curves = robustness.of_test_images(session.study, manifest, images, engine)
    example = robustness.examples(images[manifest.rows(TEST)[0]], session.study.seed)
    session.figure("corruptions", plots.corruption_preview(example), "A test image under each corruption")
    session.figure("robustness", plots.robustness_curves(curves), "Accuracy by corruption and severity")
    return curves


def explanations(session: Session, manifest: Manifest, images: np.ndarray, model: Any, test: Predictions) -> None:
    """Heat maps of right and wrong answers, a check of these maps, and the answers that were surest and wrong.

    Args:
        session: Shows and keeps.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: A trained network; the maps do not depend on its temperature.
        test: Its predictions for the test images.
    """
    rows = manifest.rows(TEST)
    picked = np.concatenate([evaluation.successes(test, _SHOWN), evaluation.failures(test, _SHOWN)])
    shown = images[rows[picked]]
    maps = engines.KerasEngine(grad_cam.with_heat_maps(model, 1.0)).predict(shown)[1]
    heat = grad_cam.grad_cam(maps, test.y_pred[picked], session.study.size)
    figure = plots.heat_maps(shown, heat, test.captions(picked))
    session.figure("grad_cam", figure, "Grad-CAM of the surest right and the surest wrong answers")
    check = grad_cam.randomisation_check(model, shown, session.study.seed)
    session.table("randomisation", check.round(3), "Rank correlation of heat maps with those of the trained network")
    wrong = evaluation.failures(test, _FAILURES)
    figure = plots.montage(list(images[rows[wrong]]), test.captions(wrong), title="Surest wrong answers")
    session.figure("failures", figure, "Test images whose wrong answer was surest")
    session.say(f"One image by hand, {test.image_id[0]}: {test.single(test.image_id[0])}.")


def _options(session: Session) -> dict[str, int]:
    return {"rounds": session.study.bootstrap_rounds, "seed": session.study.seed}
