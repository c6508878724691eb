"""Operating points of findings: a threshold for each, a margin around it in which the answer is "not sure", and rates.

A finding is called present where its probability is at or above its threshold. The margin is a distance on the logit
scale, which is the scale of a network's output: the same step from 1 % as from 50 %. Both are chosen on validation
images; sensitivity, specificity and predictive values come from test images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit

from scanbook.errors import DataError
from scanbook.evaluation.findings import FindingPredictions
from scanbook.evaluation.metrics import macro, ratio
from scanbook.evaluation.predictions import choose_by_fold, of_images
from scanbook.evaluation.resampling import correct_ends, count_groups, interval, interval_columns, resample, widening
from scanbook.evaluation.selective import COVERAGES
from scanbook.evaluation.summary import MACRO
from scanbook.evaluation.targets import (
    check_targets,
    choose_threshold,
    chosen_for,
    columns_by_fold,
    mean_of_folds,
    rates_at,
    with_rates,
)

Floats = NDArray[np.float64]
_LEAST = 1e-12
"""Smallest distance of a probability from 0 and 1 at which its logit is taken."""
_SELECTIVE = ("coverage", "sensitivity", "specificity", "accuracy")


def distance(probabilities: ArrayLike, threshold: ArrayLike) -> Floats:
    """Return how far probabilities are from their threshold: |logit p − logit threshold|, float64.

    Args:
        probabilities: Between 0 and 1; any shape.
        threshold: Of a shape that broadcasts; NaN where there is none.
    """
    p, cut = (np.clip(np.asarray(value, np.float64), _LEAST, 1 - _LEAST) for value in (probabilities, threshold))
    return np.abs(logit(p) - logit(cut))


def finding_points(
    validation: FindingPredictions,
    test: FindingPredictions,
    *,
    specificity: float = 0.9,
    coverage: float = 0.9,
    prevalence: Mapping[str, float] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the operating point of each finding, with 95 % intervals over groups.

    Args:
        validation: Images on which thresholds and margins are chosen: the most sensitive threshold of at least the
            specificity.
        test: Images on which the rates are reported.
        specificity: Requested specificity on validation images, 0 to 1.
        coverage: Share of the labelled validation images of each finding to answer, above 0 to 1: the others are
            nearer to the threshold than the margin, and the answer is "not sure".
        prevalence: Share of positives where the model is to be used, above 0 and below 1, by finding; where none is
            stated, the share among the labelled test images.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `finding`; columns threshold, margin, positives and negatives (test images), sensitivity, specificity,
        prevalence, ppv and npv; the four rates are each followed by their `_low` and `_high`, as in `targets_table`.
        They are of all labelled images, those of the answer "not sure" among them. Threshold, margin and rates are NaN
        where the validation images have no positive or no negative; intervals where those of test are of one patient.

    Raises:
        DataError: The findings of the two splits differ; a prevalence names no finding or is not a share; the
            specificity is not 0 to 1.
    """
    if validation.findings != test.findings:
        raise DataError(f"findings differ, {validation.findings} and {test.findings}: compare splits of one dataset")
    stated = prevalence or {}
    check_targets(test, {}, stated)
    columns = range(len(test.findings))
    chosen = choose_by_fold(
        validation, test, lambda images: [_choose(images, column, specificity, coverage) for column in columns]
    )
    cuts, margins = ({fold: values[:, place] for fold, values in chosen.items()} for place in (0, 1))
    positive, negative = test.y_true == 1, test.y_true == 0
    shares = ratio(positive.sum(axis=0).astype(np.float64), (positive | negative).sum(axis=0))
    prevalences = np.array([stated.get(name, share) for name, share in zip(test.findings, shares, strict=True)])
    thresholds = of_images(cuts, test)
    rates = rates_at(
        test, (positive, negative), test.probabilities, thresholds, prevalences[:, None], rounds=rounds, seed=seed
    )
    table = pd.DataFrame(
        {
            "threshold": mean_of_folds(cuts),
            "margin": mean_of_folds(margins),
            "positives": positive.sum(axis=0),
            "negatives": negative.sum(axis=0),
        },
        pd.Index(test.findings, name="finding"),
    )
    by_fold = columns_by_fold("threshold", cuts) | columns_by_fold("margin", margins)
    return with_rates(table, prevalences, *rates).assign(**by_fold)


def finding_errors(test: FindingPredictions, points: pd.DataFrame) -> pd.DataFrame:
    """Return how often each finding is detected, missed and called present where it is absent, in images.

    Args:
        test: n images.
        points: Columns threshold and margin, as `finding_points` gives.

    Returns:
        Index `finding`; int64 columns true_positives, false_negatives, false_positives and true_negatives at the
        threshold, and not_sure, those of them that are nearer to it than the margin.
    """
    thresholds, margins = (chosen_for(test, points, name) for name in ("threshold", "margin"))
    called, known = test.probabilities >= thresholds, ~np.isnan(thresholds)  # without a threshold there is no answer
    positive, negative = known & (test.y_true == 1), known & (test.y_true == 0)
    near = (positive | negative) & (distance(test.probabilities, thresholds) < margins)
    masks = {
        "true_positives": positive & called,
        "false_negatives": positive & ~called,
        "false_positives": negative & called,
        "true_negatives": negative & ~called,
        "not_sure": near,
    }
    index = pd.Index(test.findings, name="finding")
    return pd.DataFrame({name: mask.sum(axis=0) for name, mask in masks.items()}, index)


def co_errors(test: FindingPredictions, points: pd.DataFrame) -> pd.DataFrame:
    """Return which finding is called present in images that have another one instead: a confusion matrix of findings.

    Args:
        test: n images.
        points: Column threshold, as `finding_points` gives.

    Returns:
        Index `present`, columns `called`, (k, k): the share of the images with the finding of the row, and without that
        of the column, in which that of the column is called present; on the diagonal the sensitivity. NaN where there
        is no such image, or no threshold.
    """
    thresholds = chosen_for(test, points, "threshold")
    called, known = (test.probabilities >= thresholds).astype(np.float64), ~np.isnan(thresholds)
    positive, negative = (np.asarray(test.y_true == state, np.float64) for state in (1, 0))
    shares = ratio(positive.T @ (known * negative * called), positive.T @ (known * negative))
    np.fill_diagonal(shares, ratio((known * positive * called).sum(axis=0), (known * positive).sum(axis=0)))
    shares[:, np.isnan(thresholds).all(axis=0)] = np.nan
    names = list(test.findings)
    return pd.DataFrame(shares, pd.Index(names, name="present"), pd.Index(names, name="called"))


def confident(
    test: FindingPredictions, finding: str, points: pd.DataFrame, *, correct: bool, count: int
) -> NDArray[np.int64]:
    """Return the positions of the images whose answer on a finding is farthest from its threshold.

    Args:
        test: n images.
        finding: Its name.
        points: Column threshold, as `finding_points` gives.
        correct: Whether the answer is right and the finding present; else wrong.
        count: Largest number of positions.

    Returns:
        (count or fewer,) int64, in descending order of the distance; none without a threshold.
    """
    column = test.findings.index(finding)
    threshold = np.broadcast_to(chosen_for(test, points.loc[[finding]], "threshold")[:, 0], len(test))
    p, truth = test.probabilities[:, column], test.y_true[:, column]
    called = p >= threshold
    chosen = (called & (truth == 1)) if correct else ((called & (truth == 0)) | (~called & (truth == 1)))
    rows = np.flatnonzero(chosen & ~np.isnan(threshold))
    return rows[np.argsort(-distance(p[rows], threshold[rows]), kind="stable")][:count]


def finding_abstention(
    test: FindingPredictions, points: pd.DataFrame, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return what a model that answers "not sure" near the thresholds achieves, with 95 % intervals over groups.

    Args:
        test: n images.
        points: Columns threshold and margin, as `finding_points` gives.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `finding`, then "macro average"; columns coverage (share of the labelled images that are answered), then
        sensitivity, specificity and accuracy of those; each followed by its `_low` and `_high`, which are NaN where
        the images that a rate is of are of one patient.
    """
    thresholds, margins = (chosen_for(test, points, name) for name in ("threshold", "margin"))
    answered = distance(test.probabilities, thresholds) >= margins
    values = _selective(test, thresholds, answered[:, None], rounds, seed)[..., 0, :]
    index = pd.Index([*test.findings, MACRO], name="finding")
    return _table(_SELECTIVE, values, index)


def finding_coverage_curve(
    test: FindingPredictions, points: pd.DataFrame, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the macro sensitivity and specificity on the images farthest from the thresholds.

    Args:
        test: n images.
        points: Column threshold, as `finding_points` gives.
        rounds: Number of resamples, with the same images answered.
        seed: Seed of the resamples.

    Returns:
        Index `coverage`, every share in `COVERAGES` of each finding's labelled images; columns sensitivity, specificity
        and accuracy, means over the findings, each followed by its `_low` and `_high`.
    """
    thresholds = chosen_for(test, points, "threshold")
    away = np.where(np.isnan(test.y_true), np.nan, distance(test.probabilities, thresholds))
    usable = ~np.isnan(away).all(axis=0)
    least = np.full((len(COVERAGES), len(test.findings)), np.nan)
    least[:, usable] = np.nanquantile(away[:, usable], 1 - np.array(COVERAGES), axis=0)
    values = _selective(test, thresholds, away[:, None] >= least, rounds, seed)[:, 1:, :, -1]
    return _table(_SELECTIVE[1:], values, pd.Index(COVERAGES, name="coverage"))


def _table(names: Sequence[str], values: Floats, index: pd.Index) -> pd.DataFrame:
    """Return the columns of some rates from their values and the ends of their intervals, (3, names, rows)."""
    parts = [interval_columns(name, *values[:, place]) for place, name in enumerate(names)]
    return pd.DataFrame({name: column for part in parts for name, column in part.items()}, index)


def _choose(validation: FindingPredictions, column: int, specificity: float, coverage: float) -> tuple[float, float]:
    """Return threshold and margin of one finding; NaN where the images have no positive or no negative."""
    known = ~np.isnan(validation.y_true[:, column])
    truth, p = validation.y_true[known, column] == 1, validation.probabilities[known, column]
    if truth.all() or not truth.any():
        return np.nan, np.nan
    threshold = choose_threshold(truth, p, specificity)
    return threshold, float(np.quantile(distance(p, threshold), 1 - coverage))


def _selective(
    test: FindingPredictions, thresholds: Floats, answered: NDArray[np.bool_], rounds: int, seed: int
) -> Floats:
    """Return the rates on answered images, with the mean over the findings as the last.

    Args:
        test: n images.
        thresholds: (1, k), or (n, k) of images of several folds.
        answered: (n, coverages, k) bool.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        (3, 4, coverages, k + 1): value, low and high of `_SELECTIVE`.
    """
    called = (test.probabilities >= thresholds)[:, None]
    positive, negative = (test.y_true == 1)[:, None], (test.y_true == 0)[:, None]
    shape = answered.shape[1:]
    masks = [
        np.broadcast_to(mask, answered.shape).reshape(len(test), -1)
        for mask in (
            positive & called & answered,
            positive & answered,
            negative & ~called & answered,
            negative & answered,
            positive | negative,
        )
    ]
    counts = [mask.astype(np.float32) for mask in masks]

    def rates(weights: NDArray[np.floating]) -> Floats:
        sums = [(weights.astype(np.float32) @ count).reshape(-1, *shape).astype(np.float64) for count in counts]
        true_positives, positives, true_negatives, negatives, labelled = sums
        values = np.stack(
            [
                ratio(positives + negatives, labelled),
                ratio(true_positives, positives),
                ratio(true_negatives, negatives),
                ratio(true_positives + true_negatives, positives + negatives),
            ],
            axis=1,
        )
        values[..., np.isnan(thresholds).all(axis=0)] = np.nan  # without a threshold no image is answered
        means = macro(values.reshape(-1, shape[-1])).reshape(values.shape[:-1])
        return np.concatenate([values, means[..., None]], axis=-1)

    point = rates(np.ones((1, len(test))))[0]
    low, high = interval(resample(rates, test.group, rounds, seed, test.fold))
    _, positives, _, negatives, labelled = masks
    of = labelled, positives, negatives, positives | negatives
    of_findings = np.stack([count_groups(mask, test.group).reshape(shape) for mask in of])
    groups = np.concatenate([of_findings, of_findings.max(axis=-1, keepdims=True)], axis=-1)
    return np.stack([point, *correct_ends(point, low, high, groups, widening(test.group, test.fold))])
