"""What labels of another source's own images buy: calibration and thresholds fitted on few of its patients.

Half of the patients are never drawn from; all fits are evaluated on them. The draws are nested: the first 25 patients
of a draw are among its first 50.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit

from scanbook.evaluation.calibration import Calibration, fit_calibration, fit_temperature
from scanbook.evaluation.findings import AnyPredictions, FindingPredictions
from scanbook.evaluation.metrics import brier, ece, ratio
from scanbook.evaluation.resampling import group_weights, interval
from scanbook.evaluation.sources import Point, scores_of_points, truth_of_point
from scanbook.evaluation.targets import choose_threshold

Floats = NDArray[np.float64]
PATIENTS = (25, 50, 100, 200, 400)
"""Numbers of patients that are drawn; then all of the half."""
FEWEST = 20
"""Fewest patients of an external set of which half can be drawn from."""
_DRAWS = 20
_RATES = ("sensitivity", "specificity")
_LEAST = 1e-7
"""Smallest distance of a probability from 0 and 1 at which its logit is taken."""


def stratified_halves(predictions: AnyPredictions, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images are of the half that is drawn from, and which of the half that is evaluated, (n,) bool each.

    Whole groups are in one half, and both halves have the labels about as often: groups are ordered by their labels,
    at random among equal ones, and belong to the halves in turn.
    """
    names, member = np.unique(predictions.group, return_inverse=True)
    labels = np.nan_to_num(np.asarray(predictions.y_true, np.float64)).reshape(len(predictions), -1)
    means = np.stack([np.bincount(member, column, len(names)) for column in labels.T])
    means = means / np.bincount(member)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.lexsort(means[:, order])]
    evaluated = np.zeros(len(names), bool)
    evaluated[order[1::2]] = True
    return ~evaluated[member], evaluated[member]


def refit(predictions: AnyPredictions, local: AnyPredictions, seed: int = 0) -> AnyPredictions:
    """Return predictions with a calibration fitted on local images: a temperature, of findings one for each.

    Args:
        predictions: To be calibrated.
        local: Labelled images of the same source.
        seed: Seed of the folds that choose the calibration of a finding.
    """
    if isinstance(predictions, FindingPredictions):
        p = needed_calibration(local, seed).probabilities(_logits(predictions))
        return FindingPredictions(predictions.image_id, predictions.group, predictions.y_true, p, predictions.findings)
    return predictions.with_temperature(needed_temperature(local))


def needed_temperature(predictions: AnyPredictions) -> float:
    """Return by which number the logits of a model of classes must be divided to be calibrated on these images."""
    return fit_temperature(np.log(np.maximum(predictions.probabilities, _LEAST)), predictions.y_true)


def needed_calibration(predictions: FindingPredictions, seed: int = 0) -> Calibration:
    """Return the calibration that a model of findings needs on these images, on top of its own; seed: of its folds."""
    return fit_calibration(_logits(predictions), predictions.y_true, predictions.group, seed)


def _logits(predictions: AnyPredictions) -> Floats:
    return logit(np.clip(predictions.probabilities, _LEAST, 1 - _LEAST))


def local_labels(
    predictions: AnyPredictions,
    points: Mapping[str, Point],
    *,
    specificity: float = 0.9,
    patients: Sequence[int] = PATIENTS,
    draws: int = _DRAWS,
    rounds: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Return calibration and rates on the evaluated half, as the model is and with labels of k patients.

    Args:
        predictions: A model's predictions for the labelled images of another source.
        points: Targets, classes or findings with the model's own thresholds.
        specificity: Requested of a threshold that is chosen on local images, as by the study.
        patients: Values of k; those above the patients that can be drawn from are not used, and all of these come last.
        draws: Number of draws.
        rounds: Number of resamples of the evaluated half, by its groups.
        seed: Seed of the halves, draws and resamples.

    Returns:
        One row per k and quantity: patients (0: as the model is), quantity ("ece", "brier", then "sensitivity" and
        "specificity" by target), target ("" for none), value, low, high. The value is the mean over draws. The interval
        is of both, the draws and the evaluated patients. A draw without positives or negatives of a target has no
        threshold for it, and does not count there. No row where there are fewer than `FEWEST` patients.
    """
    columns = ["patients", "quantity", "target", "value", "low", "high"]
    if len(np.unique(predictions.group)) < FEWEST:
        return pd.DataFrame(columns=columns)
    pool, evaluated = stratified_halves(predictions, seed)
    local, test = predictions.subset(pool), predictions.subset(evaluated)
    names, member = np.unique(local.group, return_inverse=True)
    weights = group_weights(test.group, rounds, seed).astype(np.float64)
    own = np.array([point.threshold for point in points.values()], np.float64)
    records = _records(0, _evaluate(test, own, points, weights)[None], points)
    for k in [*(k for k in patients if k < len(names)), len(names)]:
        values = []
        for draw in range(draws if k < len(names) else 1):
            order = np.random.default_rng([seed, 1, draw]).permutation(len(names))
            few = local.subset(np.isin(member, order[:k]))
            cuts = _thresholds(refit(few, few, seed), points, specificity)
            values.append(_evaluate(refit(test, few, seed), cuts, points, weights))
        records += _records(k, np.array(values), points)
    return pd.DataFrame(records, columns=columns)


def _thresholds(few: AnyPredictions, points: Mapping[str, Point], specificity: float) -> Floats:
    """Return the threshold of each target on these images, NaN where they lack its positives or negatives."""
    scores, cuts = scores_of_points(few, points), []
    for column, point in enumerate(points.values()):
        positive, negative = truth_of_point(few, point)
        known = positive | negative
        both = positive.any() and negative.any()
        cuts.append(choose_threshold(positive[known], scores[known, column], specificity) if both else np.nan)
    return np.array(cuts)


def _evaluate(test: AnyPredictions, cuts: Floats, points: Mapping[str, Point], weights: Floats) -> Floats:
    """Return ECE and Brier score, then sensitivity and specificity of each target, (1 + rounds, 2 + 2 targets).

    The first row counts every image once.
    """
    every = np.concatenate([np.ones((1, len(test))), weights])
    columns = [metric(test.y_true, test.probabilities, every) for metric in (ece, brier)]
    called = scores_of_points(test, points) >= cuts
    for column, point in enumerate(points.values()):
        positive, negative = truth_of_point(test, point)
        for right, side in ((called[:, column] & positive, positive), (~called[:, column] & negative, negative)):
            share = ratio(every @ right.astype(np.float64), every @ side.astype(np.float64))
            columns.append(np.where(np.isnan(cuts[column]), np.nan, share))
    return np.stack(columns, axis=1)


def _records(k: int, values: Floats, points: Mapping[str, Point]) -> list[tuple[object, ...]]:
    """Return the rows of k patients; `values` is (draws, 1 + rounds, quantities)."""
    named = [("ece", ""), ("brier", ""), *((name, target) for target in points for name in _RATES)]
    resampled = values[:, 1:].reshape(-1, values.shape[-1])
    low, high = interval(resampled)
    undefined = np.isnan(values[:, 0]).all(axis=0)
    mean = np.full(values.shape[-1], np.nan)
    mean[~undefined] = np.nanmean(values[:, 0][:, ~undefined], axis=0)
    return [
        (k, *name, float(value), float(start), float(end))
        for name, value, start, end in zip(named, mean, low, high, strict=True)
    ]
