"""Targets: groups of classes with a threshold of their own, and their predictive values at a stated prevalence.

A target is a set of classes, such as all classes that need a biopsy; its score is the sum of their probabilities. The
threshold is chosen on validation images. Sensitivity and specificity come from test images, and the predictive values
follow from them by Bayes' rule at a stated prevalence (Altman and Bland, 1994): a test split in which half of
the images are positive does not represent a clinic in which one image in sixty is positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import roc_curve

from scanbook.errors import DataError
from scanbook.evaluation.findings import AnyPredictions, FindingPredictions
from scanbook.evaluation.metrics import ratio
from scanbook.evaluation.predictions import Predictions, choose_by_fold, of_images
from scanbook.evaluation.registry import has_findings
from scanbook.evaluation.resampling import correct_ends, count_groups, interval, interval_columns, resample, widening

Floats = NDArray[np.float64]
# 0.1 % to 50 %, in equal steps of the logarithm.
PREVALENCES = tuple(np.geomspace(0.001, 0.5, 109).tolist())
RATES = ("sensitivity", "specificity", "ppv", "npv")


def choose_threshold(y_true: ArrayLike, score: ArrayLike, specificity: float = 0.9) -> float:
    """Return the threshold with the highest sensitivity among those with at least the requested specificity.

    An image is called positive where its score is at or above the threshold. The threshold lies half way to the next
    lower score, so that the rounding of another inference engine does not change a decision.

    Args:
        y_true: (n,) bool or 0 and 1, on validation images.
        score: (n,) float, higher for positives.
        specificity: Requested share of negatives that are called negative, 0 to 1.

    Returns:
        A finite threshold. It is just above the highest score, and nothing is called positive, if no other threshold
        has the specificity.

    Raises:
        DataError: there is no positive or no negative, or the shapes differ.
    """
    positive, scores = np.asarray(y_true).astype(bool), np.asarray(score, dtype=np.float64)
    if positive.ndim != 1 or positive.shape != scores.shape or len(positive) == 0:
        raise DataError(f"labels have shape {positive.shape}, scores {scores.shape}: expected one of each per image")
    if not 0 <= specificity <= 1:
        raise DataError(f"specificity is {specificity}: expected 0 to 1")
    if positive.all() or not positive.any():
        raise DataError(
            f"{len(positive)} images are all positive or all negative: a threshold needs positives and negatives"
        )
    false, _, thresholds = roc_curve(positive, scores, drop_intermediate=False)
    # roc_curve lowers the threshold step by step: the last one specific enough is the most sensitive.
    last = np.flatnonzero(1 - false >= specificity - 1e-12)[-1]
    if last == 0:
        return float(np.nextafter(scores.max(), np.inf))
    if last == len(thresholds) - 1:
        return float(thresholds[last])
    between = (thresholds[last] + thresholds[last + 1]) / 2
    return float(between if between > thresholds[last + 1] else thresholds[last])


def predictive_values(sensitivity: ArrayLike, specificity: ArrayLike, prevalence: ArrayLike) -> tuple[Floats, Floats]:
    """Return the positive and the negative predictive value (PPV, NPV), by Bayes' rule.

    Args:
        sensitivity: Share of positives called positive; any shape.
        specificity: Share of negatives called negative; of a shape that broadcasts.
        prevalence: Share of positives among all; likewise.

    Returns:
        PPV and NPV, float64 of the common shape. PPV is NaN where nothing is called positive, NPV where nothing is
        called negative.
    """
    sensitivities, specificities, prevalences = np.broadcast_arrays(
        *(np.asarray(share, dtype=np.float64) for share in (sensitivity, specificity, prevalence))
    )
    true_positive, false_positive = sensitivities * prevalences, (1 - specificities) * (1 - prevalences)
    false_negative, true_negative = (1 - sensitivities) * prevalences, specificities * (1 - prevalences)
    ppv = ratio(true_positive, true_positive + false_positive)
    return ppv, ratio(true_negative, true_negative + false_negative)


def targets_table(
    validation: Predictions,
    test: Predictions,
    targets: Mapping[str, Sequence[str]] | None = None,
    *,
    specificity: float = 0.9,
    prevalence: Mapping[str, float] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the operating point of each target, then of each class against the rest, with 95 % intervals over groups.

    Args:
        validation: Images on which each threshold is chosen: the most sensitive one of at least the specificity.
        test: Images on which the rates are reported.
        targets: The classes of each target, by its name.
        specificity: Requested specificity on validation images, 0 to 1.
        prevalence: Share of positives where the model is to be used, above 0 and below 1, by target or class; where
            none is stated, the share among the test images.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `target`: the targets, then the classes that no target is named after; columns threshold, positives (test
        images), sensitivity, specificity, prevalence, ppv and npv; the four rates are each followed by their `_low` and
        `_high`. With several folds each threshold is chosen in its fold: the column threshold is their mean, and the
        last columns, `threshold, <fold>`, have them all. The intervals of ppv and npv are those of sensitivity and
        specificity carried through Bayes' rule at a fixed prevalence. Where the validation images have no positive, or
        no negative, the threshold and the rates are NaN. A rate of exactly 0 or 1 has an interval of zero width, even
        with few images: check `positives` before you trust it.

    Raises:
        DataError: a target has an unknown class, no class or all classes, or the name of another class; a prevalence
            names no row or is not a share; the specificity is not 0 to 1; or the classes of the two splits differ.
    """
    if validation.classes != test.classes:
        raise DataError(f"classes differ, {validation.classes} and {test.classes}: compare splits of one dataset")
    stated = prevalence or {}
    members = _members(test.classes, targets or {})
    _check_prevalence(stated, members)
    chosen = choose_by_fold(
        validation, test, lambda images: [_threshold(images, columns, specificity) for columns in members.values()]
    )
    truth, score = _truth_and_score(test, members)
    prevalences = np.array([stated.get(name, truth[:, index].mean()) for index, name in enumerate(members)])
    value, low, high = rates_at(
        test, (truth, ~truth), score, of_images(chosen, test), prevalences[:, None], rounds=rounds, seed=seed
    )
    table = pd.DataFrame(
        {"threshold": mean_of_folds(chosen), "positives": truth.sum(axis=0)}, pd.Index(list(members), name="target")
    )
    return with_rates(table, prevalences, value, low, high).assign(**columns_by_fold("threshold", chosen))


def mean_of_folds(chosen: Mapping[str, Floats]) -> Floats:
    """Return the mean over the folds that have a value of what `choose_by_fold` chose; NaN where none has."""
    values = np.stack(list(chosen.values()))
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))


def columns_by_fold(name: str, chosen: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the columns of a table with what was chosen in each fold, `<name>, <fold>`; none without folds."""
    return {f"{name}, {fold}": values for fold, values in chosen.items() if fold}


def chosen_for(test: AnyPredictions, table: pd.DataFrame, name: str) -> Floats:
    """Return what a table says was chosen for the images of test: (1, rows), or (n, rows) with several folds.

    Args:
        test: n images.
        table: Of `targets_table` or `finding_points`.
        name: "threshold" or "margin".
    """
    folds = {"": name} if test.fold is None else {fold: f"{name}, {fold}" for fold in pd.unique(test.fold)}
    return of_images({fold: table[column].to_numpy(np.float64) for fold, column in folds.items()}, test)


def with_rates(table: pd.DataFrame, prevalences: Floats, value: Floats, low: Floats, high: Floats) -> pd.DataFrame:
    """Return a table with the columns of `rates_at` at one prevalence: the four rates, and the prevalence."""
    for index, name in enumerate(RATES):
        if name == "ppv":
            table["prevalence"] = prevalences
        table = table.assign(**interval_columns(name, *(rates[index][:, 0] for rates in (value, low, high))))
    return table


def prevalence_curve(
    test: AnyPredictions,
    classes: Sequence[str],
    threshold: ArrayLike,
    *,
    prevalences: Sequence[float] = PREVALENCES,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the predictive values of one target over prevalences, with 95 % intervals over groups.

    Args:
        test: n images.
        classes: Classes of the target; or one finding.
        threshold: Threshold of the sum of their probabilities, from `targets_table`; or that of each image, (n,).
        prevalences: m shares of positives.
        rounds: Number of resamples.
        seed: Seed of the resamples; with those of `targets_table` the intervals are the same.

    Returns:
        Index `prevalence`; columns ppv and npv, each followed by its `_low` and `_high`.

    Raises:
        DataError: a class is unknown, or there are none or all.
    """
    if isinstance(test, FindingPredictions):
        columns = [test.findings.index(name) for name in classes]
        sides, score = (test.y_true[:, columns] == 1, test.y_true[:, columns] == 0), test.probabilities[:, columns]
    else:
        members = {"": _columns(test.classes, ", ".join(map(str, classes)), classes)}
        truth, score = _truth_and_score(test, members)
        sides = truth, ~truth
    shares = np.asarray(prevalences, dtype=np.float64)
    cut = np.reshape(np.asarray(threshold, np.float64), (-1, 1))
    value, low, high = rates_at(test, sides, score, cut, shares[None], rounds=rounds, seed=seed)
    rates: dict[str, Floats] = {}
    for index, name in enumerate(RATES[2:], start=2):
        rates |= interval_columns(name, value[index][0], low[index][0], high[index][0])
    return pd.DataFrame(rates, index=pd.Index(shares, name="prevalence"))


def check_targets(labels: Any, targets: Mapping[str, Sequence[str]], prevalence: Mapping[str, float]) -> None:
    """Raise a `DataError` where a target or a prevalence does not fit the classes or findings.

    Args:
        labels: A manifest, or predictions.
        targets: As in `targets_table`; findings have none.
        prevalence: As in `targets_table`.
    """
    if has_findings(labels):
        if targets:
            raise DataError(
                f"target {next(iter(targets))!r} is a group of classes, and the study has findings, each of which has "
                "a threshold of its own: remove evaluation.targets"
            )
        _check_prevalence(prevalence, {name: [index] for index, name in enumerate(labels.findings)})
    else:
        _check_prevalence(prevalence, _members(labels.classes, targets))


def rates_at(
    test: AnyPredictions,
    truth: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    score: Floats,
    thresholds: Floats,
    prevalences: Floats,
    *,
    rounds: int,
    seed: int,
) -> tuple[Floats, Floats, Floats]:
    """Return the rates of targets or findings at their thresholds, with intervals over groups.

    Args:
        test: n images.
        truth: (n, targets) bool, which images are positives, and which are negatives.
        score: (n, targets).
        thresholds: (1, targets), or (n, targets) of images of several folds; NaN where there is none.
        prevalences: (targets, m).
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        (4, targets, m) float64: the rates in the order of `RATES` at each prevalence; value, low and high. Of findings,
        the ends are those of `correct_ends`.
    """
    positive, negative = truth
    known = ~np.isnan(thresholds)  # without a threshold no image is classified
    positive, negative, called = positive & known, negative & known, score >= thresholds
    counts = [mask.astype(np.float64) for mask in (positive & called, positive, negative & ~called, negative)]

    def rates(weights: NDArray[np.floating]) -> Floats:
        true_positives, positives, true_negatives, negatives = (weights @ count for count in counts)
        return np.stack([ratio(true_positives, positives), ratio(true_negatives, negatives)], axis=1)

    def with_predictive_values(measured: Floats) -> Floats:
        sensitivity, specificity = measured[:, 0, :, None], measured[:, 1, :, None]
        both = np.broadcast_to(measured[..., None], (*measured.shape, prevalences.shape[1]))
        values = np.stack(predictive_values(sensitivity, specificity, prevalences), axis=1)
        return np.concatenate([both, values], axis=1)

    point = with_predictive_values(rates(np.ones((1, len(test)))))[0]
    low, high = interval(with_predictive_values(resample(rates, test.group, rounds, seed, test.fold)))
    if isinstance(test, FindingPredictions):
        groups = np.stack([count_groups(mask, test.group) for mask in (positive, negative)])[..., None]
        ends = correct_ends(point[:2], low[:2], high[:2], groups, widening(test.group, test.fold))
        # of a rate of 0 or 1, or of one patient, the resamples tell nothing of the predictive values either
        resampled = ~((point[:2] == 0) | (point[:2] == 1) | (groups < 2)).any(axis=0)
        low, high = (
            np.concatenate([end, np.where(resampled, of_resamples[2:], predictive_values(*end, prevalences))])
            for end, of_resamples in zip(ends, (low, high), strict=True)
        )
        low, high = (np.where(np.isnan(point), np.nan, end) for end in (low, high))
    return point, low, high


def _members(classes: tuple[str, ...], targets: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return the class positions of each target, then of each class that is not a target."""
    members = {name: _columns(classes, name, chosen) for name, chosen in targets.items()}
    for name, columns in members.items():
        if name in classes and columns != [classes.index(name)]:
            raise DataError(f"target {name!r} has the name of a class, but holds others: give it another name")
    return members | {name: [index] for index, name in enumerate(classes) if name not in members}


def _columns(classes: tuple[str, ...], target: str, chosen: str | Sequence[str]) -> list[int]:
    """Return the positions of the classes of one target, in class order."""
    names = [chosen] if isinstance(chosen, str) else [str(name) for name in chosen]
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise DataError(f"target {target!r} has class {unknown[0]!r}: expected some of {', '.join(classes)}")
    columns = sorted({classes.index(name) for name in names})
    if not 0 < len(columns) < len(classes):
        raise DataError(f"target {target!r} has {len(columns)} of {len(classes)} classes: expected some, but not all")
    return columns


def _check_prevalence(stated: Mapping[str, float], members: Mapping[str, list[int]]) -> None:
    for name, share in stated.items():
        if name not in members:
            names = ", ".join(members)
            raise DataError(f"prevalence names {name!r}: expected a target, class or finding, one of {names}")
        if not 0 < share < 1:
            raise DataError(f"prevalence of {name!r} is {share}: expected a share above 0 and below 1")


def _threshold(validation: Predictions, columns: list[int], specificity: float) -> float:
    truth, score = _truth_and_score(validation, {"": columns})
    if truth.all() or not truth.any():
        return float("nan")
    return choose_threshold(truth[:, 0], score[:, 0], specificity)


def _truth_and_score(predictions: Predictions, members: Mapping[str, list[int]]) -> tuple[NDArray[np.bool_], Floats]:
    """Return (n, targets): whether each image is positive, and its score."""
    truth = [np.isin(predictions.y_true, columns) for columns in members.values()]
    score = [predictions.probabilities[:, columns].sum(axis=1) for columns in members.values()]
    return np.column_stack(truth), np.column_stack(score)
