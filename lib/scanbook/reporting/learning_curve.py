"""The section on how many images: results by the number of training patients, and the size of a test set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.data import presence
from scanbook.data.manifest import TEST, Manifest
from scanbook.errors import DataError
from scanbook.evaluation import METRICS, LearningCurve, with_interval
from scanbook.reporting import plots
from scanbook.reporting.notebook import Session

if TYPE_CHECKING:
    from scanbook.training import SizedTraining  # which imports Keras

LEAST_PATIENTS = 20
"""Fewest training patients of which a curve is shown: from a tenth of them, two, nothing is learnt."""
_FLAT = 0.01
"""A gain whose interval holds 0 and ends below this is called small."""
_QUANTILES = (0.5, 0.025, 0.975)


def show_learning_curve(session: Session, manifest: Manifest, *trainings: SizedTraining | None) -> None:
    """Show results by the number of training patients, what twice as many would bring, and the size of a test set.

    Args:
        session: Shows and keeps the results; its study names the half-widths of a test set's interval.
        manifest: The dataset, split.
        trainings: Networks trained with several numbers of patients, the frozen one first; None where there are no
            pretrained weights.
    """
    unit = "patients" if manifest.facts.get("names_groups") else "images"
    trained = [training for training in trainings if training is not None]
    if not trained:
        session.say("No pretrained weights are available, so there is no curve of a frozen backbone.")
        return
    if reason := presence.why_undefined(manifest):
        text = f"Nothing can be said on the number of {unit}: {reason}."
        session.say(text)
        session.result("learning_curve", {"reason": text})
        return
    metrics = ("auroc",) if manifest.findings else ("accuracy", "auroc")
    curves: dict[str, dict[str, LearningCurve]] = {}
    results: dict[str, Any] = {}
    for training in trained:
        record: dict[str, Any] = {"patients": training.patients, "images": training.images.mean(axis=0)}
        results[training.name], curves[training.name] = record, {}
        for metric in metrics:
            scores = _scores(manifest, training, metric)
            record[metric] = {
                "mean": scores.mean(axis=0),
                "sd": scores.std(axis=0, ddof=1) if len(scores) > 1 else None,
            }
            problem = _too_few(training, unit)
            if not problem:
                try:
                    curves[training.name][metric] = evaluation.fit_curve(training.patients, scores, session.study.seed)
                except DataError as error:
                    problem = str(error)
            if problem:
                record[metric]["reason"] = problem
                session.say(f"What twice the {unit} would bring to {METRICS[metric].title} cannot be told: {problem}.")
    _show_curves(session, curves, results, unit)
    _show_test_set(session, manifest, trained[0], results, unit)
    session.result("learning_curve", results)


def _scores(manifest: Manifest, training: SizedTraining, metric: str) -> np.ndarray:
    """Return a metric of each repeat and size, float64 `(r, s)`."""
    flat = training.logits.reshape(-1, *training.logits.shape[2:])
    values = []
    for logits in flat:
        values.append(METRICS[metric].point(manifest.predictions(TEST, logits)))
    return np.reshape(values, training.logits.shape[:2])


def _too_few(training: SizedTraining, unit: str) -> str:
    """Return why the patients are too few for a curve; "" where they are enough."""
    count, sizes = training.patients[-1], len(training.patients)
    if count < LEAST_PATIENTS:
        return f"the training split has {count} {unit}; a curve takes {LEAST_PATIENTS} or more"
    if sizes < evaluation.LEAST_SIZES:
        return (
            f"of the {count} training {unit}, draws of {training.patients[0]} or more show what is to be learnt, and "
            f"that leaves {sizes} numbers of {unit}; a curve takes {evaluation.LEAST_SIZES} or more"
        )
    return ""


def _show_curves(
    session: Session, curves: dict[str, dict[str, LearningCurve]], results: dict[str, Any], unit: str
) -> None:
    """Show the curves, and what twice the patients would bring, with a sentence for the main metric."""
    rows = {}
    for name, of_metrics in curves.items():
        for metric, curve in of_metrics.items():
            twice = 2 * int(curve.sizes[-1])
            predicted = curve.predict([twice], session.study.seed).loc[twice]
            now = float(curve.scores[0, -1])
            gain = predicted - now
            exponent = curve.exponent[curve.rate == 0]
            results[name][metric] |= {
                "now": now,
                "twice": predicted.to_dict(),
                "gain": gain.to_dict(),
                "exponent": np.quantile(exponent, _QUANTILES) if len(exponent) else None,
            }
            label = METRICS[metric].title if len(curves) == 1 else f"{name}: {METRICS[metric].title}"
            column = f"with {twice:,} {unit}"
            rows[label] = {f"with {curve.sizes[-1]:,} {unit}": now}
            rows[label] |= dict(zip((column, f"{column}_low", f"{column}_high"), predicted, strict=True))
            rows[label] |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
    if not rows:
        return
    figure = plots.patient_curves(curves, unit, session.study.seed)
    session.figure(
        "by_patients", figure, f"Test results by the number of training {unit}, and prediction for twice as many"
    )
    table = pd.DataFrame.from_dict(rows, orient="index")
    session.table("by_patients", table, f"What twice the {unit} would bring", ends="95 % prediction intervals")
    for name, of_metrics in curves.items():
        for metric in list(of_metrics)[:1]:
            session.say(
                _describe_gain(name, metric, results[name][metric], 2 * int(of_metrics[metric].sizes[-1]), unit)
            )


def _describe_gain(name: str, metric: str, result: dict[str, Any], twice: int, unit: str) -> str:
    """Return what twice the patients would bring, or that it cannot be told."""
    value, low, high = (result["gain"][key] for key in ("value", "low", "high"))
    title, change = METRICS[metric].title, with_interval(value, low, high, signed=True)
    if low > 0:
        verdict = f"twice the {unit} ({twice:,}) would help"
    elif high < _FLAT:
        verdict = f"the curve is flat: twice the {unit} ({twice:,}) would hardly help"
    else:
        verdict = f"whether twice the {unit} ({twice:,}) would help cannot be told"
    predicted = with_interval(*(result["twice"][key] for key in ("value", "low", "high")))
    return (
        f"{name}: {verdict}. On the same test images the curve predicts {title} {predicted}, now {result['now']:.3f}: "
        f"a change of {change}, with 95 % prediction intervals."
    )


def _show_test_set(
    session: Session, manifest: Manifest, training: SizedTraining, results: dict[str, Any], unit: str
) -> None:
    """Show how many test patients the promised widths take."""
    study, metric = session.study, evaluation.main_metric(manifest)
    title, predictions = METRICS[metric].title, manifest.predictions(TEST, training.logits[0, -1])
    widths = study.learning_curve.half_widths
    sizes = evaluation.sizes_of_test_sets(predictions, metric, widths, **study.resamples)
    if sizes.empty:
        text = f"The size of a test set cannot be told: the interval of {title} has no width on these images."
        session.say(text)
        results["test_set"] = {"reason": text}
        return
    results["test_set"] = {"metric": metric, "sizes": sizes.reset_index().to_dict("records")}
    now, effect, first = sizes.index[0], sizes["design_effect"].iloc[0], sizes.iloc[1]
    shown = sizes[["patients", "images"]] if unit == "patients" else sizes[["images"]]
    table = shown.set_axis([f"± {width:.3f}" for width in sizes.index]).rename_axis("half of the 95 % interval")
    session.table(
        "test_set", table, f"Test set for an interval of {title} of some width; the first row is the present one"
    )
    grouped = ""
    if unit == "patients":
        grouped = (
            f" Several images of one patient are alike: the variance is {effect:.2f} × that of independent images."
        )
    of = f"{first['patients']:,.0f} test patients ({first['images']:,.0f} images)"
    of = of if unit == "patients" else f"{first['images']:,.0f} test images"
    session.say(
        f"An interval of {title} of ± {widths[0]:g} takes {of}, if the model stays as good; the present test set of "
        f"{sizes[unit].iloc[0]:,.0f} {unit} gives ± {now:.3f}.{grouped}"
    )
