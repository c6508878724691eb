"""Yes-or-no decisions from class probabilities, and what they are worth where the finding is rare.

A finding is a set of classes, such as all that call for a biopsy; its score is the sum of their probabilities. The
threshold comes from validation images, sensitivity and specificity from test images, and the predictive values follow
from these by Bayes' rule at a stated prevalence (Altman and Bland, 1994): a test part with half of its images positive
says nothing about a clinic in which one in sixty is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scanbook.errors import DataError
from scanbook.evaluation.bootstrap import interval, resample
from scanbook.evaluation.operating_points import choose_threshold
from scanbook.evaluation.predictions import Predictions

Floats = NDArray[np.float64]
# 0.1 % to 50 %, in equal steps of the logarithm.
PREVALENCES = tuple(np.geomspace(0.001, 0.5, 109).tolist())
_RATES = ("sensitivity", "specificity")
_VALUES = ("ppv", "npv")


def predictive_values(sensitivity: ArrayLike, specificity: ArrayLike, prevalence: ArrayLike) -> tuple[Floats, Floats]:
    """Share of the called positive that are (PPV) and of the called negative that are not (NPV), by Bayes' rule.

    Args:
        sensitivity: share of positives called positive; any shape.
        specificity: share of negatives called negative; of a shape that fits.
        prevalence: share of positives among all; likewise.

    Returns:
        PPV and NPV, float64 of the common shape; NaN where nothing is called positive (negative).
    """
    true, false, share = np.broadcast_arrays(
        *(np.asarray(each, dtype=np.float64) for each in (sensitivity, specificity, prevalence))
    )
    found, alarms = true * share, (1 - false) * (1 - share)
    missed, cleared = (1 - true) * share, false * (1 - share)
    return _share(found, found + alarms), _share(cleared, cleared + missed)


def targets_table(
    validation: Predictions,
    test: Predictions,
    findings: Mapping[str, Sequence[str]] | None = None,
    *,
    specificity: float = 0.9,
    prevalence: Mapping[str, float] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One decision for each finding, then for each class against the rest, with 95 % intervals over groups.

    Args:
        validation: images on which each threshold is chosen: the most sensitive of at least the wanted specificity.
        test: images on which it is reported.
        findings: the classes of each finding, by its name.
        specificity: wanted on validation, 0 to 1.
        prevalence: share of positives where the model is to be used, above 0 and below 1, by finding or class; where
            none is stated, the share among the test images.
        rounds: resamples.
        seed: of the resamples.

    Returns:
        Index `finding`: those named, then the classes (one that is a finding already, by the same name, once); columns
        threshold, positives (test images), sensitivity, specificity, prevalence, ppv and npv; the four rates are each
        followed by their `_low` and `_high`. The intervals of ppv and npv are those of sensitivity and specificity
        carried through Bayes' rule, the prevalence held fixed. Where the validation images hold no positive, or no
        negative, there is no threshold: NaN. A rate of exactly 0 or 1 has an interval without width, however few the
        images: read it beside `positives`.

    Raises:
        DataError: a finding has an unknown class, none or all classes, or the name of another class; a prevalence names
            no row or is not a share; the specificity is not 0 to 1; or the classes of the two parts differ.
    """
    if validation.classes != test.classes:
        raise DataError(f"classes differ, {validation.classes} and {test.classes}: compare parts of one dataset")
    stated = dict(prevalence or {})
    members = _members(test.classes, findings or {})
    _check_prevalence(stated, members)
    thresholds = np.array([_threshold(validation, columns, specificity) for columns in members.values()])
    truth, score = (np.column_stack(each) for each in zip(*(_one(test, c) for c in members.values()), strict=True))
    shares = np.array([stated.get(name, truth[:, place].mean()) for place, name in enumerate(members)])
    value, low, high = _with_intervals(test, truth, score, thresholds, shares[:, None], rounds=rounds, seed=seed)
    columns: dict[str, NDArray[np.generic]] = {"threshold": thresholds, "positives": truth.sum(axis=0)}
    for place, name in enumerate((*_RATES, *_VALUES)):
        if name == "ppv":
            columns["prevalence"] = shares
        columns |= {name: value[place][:, 0], f"{name}_low": low[place][:, 0], f"{name}_high": high[place][:, 0]}
    return pd.DataFrame(columns, index=pd.Index(list(members), name="finding"))


def prevalence_curve(
    test: Predictions,
    classes: Sequence[str],
    threshold: float,
    *,
    prevalences: Sequence[float] = PREVALENCES,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Predictive values of one decision over prevalences, with 95 % intervals over groups.

    Args:
        test: n images.
        classes: those of the finding.
        threshold: of the sum of their probabilities, from `targets_table`.
        prevalences: m shares of positives.
        rounds: resamples.
        seed: of the resamples; with those of `targets_table` the intervals are the same.

    Returns:
        Index `prevalence`; columns ppv and npv, each followed by its `_low` and `_high`.

    Raises:
        DataError: a class is unknown, or there are none or all.
    """
    columns = _members(test.classes, {", ".join(map(str, classes)): classes}, every=False).popitem()[1]
    truth, score = (each[:, None] for each in _one(test, columns))
    shares = np.asarray(prevalences, dtype=np.float64)
    value, low, high = _with_intervals(
        test, truth, score, np.array([threshold]), shares[None], rounds=rounds, seed=seed
    )
    found: dict[str, Floats] = {}
    for place, name in enumerate(_VALUES, start=len(_RATES)):
        found |= {name: value[place][0], f"{name}_low": low[place][0], f"{name}_high": high[place][0]}
    return pd.DataFrame(found, index=pd.Index(shares, name="prevalence"))


def _with_intervals(
    test: Predictions,
    truth: NDArray[np.bool_],
    score: Floats,
    thresholds: Floats,
    shares: Floats,
    *,
    rounds: int,
    seed: int,
) -> tuple[Floats, Floats, Floats]:
    """Sensitivity, specificity, PPV and NPV of every finding at its prevalences: (4, findings, prevalences) each."""
    called = score >= thresholds
    counted = [each.astype(np.float64) for each in (truth & called, truth, ~truth & ~called, ~truth)]

    def rates(weights: NDArray[np.floating]) -> Floats:
        found, positives, cleared, negatives = (weights @ each for each in counted)
        return np.stack([_share(found, positives), _share(cleared, negatives)], axis=1)

    def all_four(of_rates: Floats) -> Floats:
        sensitivity, specificity = (of_rates[:, place, :, None] for place in range(2))
        wide = np.broadcast_to(of_rates[..., None], (*of_rates.shape, shares.shape[1]))
        both = np.stack(predictive_values(sensitivity, specificity, shares), axis=1)
        # Without a threshold nothing was decided.
        return np.where(np.isnan(thresholds)[:, None], np.nan, np.concatenate([wide, both], axis=1))

    point = all_four(rates(np.ones((1, len(test)))))[0]
    return point, *interval(all_four(resample(rates, test.group, rounds, seed)))


def check_targets(
    classes: tuple[str, ...], findings: Mapping[str, Sequence[str]], prevalence: Mapping[str, float]
) -> None:
    """Raises a `DataError` where a finding or a prevalence does not fit the classes."""
    _check_prevalence(prevalence, _members(classes, findings))


def _members(
    classes: tuple[str, ...], findings: Mapping[str, Sequence[str]], every: bool = True
) -> dict[str, list[int]]:
    members = {}
    for name, given in findings.items():
        chosen = [given] if isinstance(given, str) else [str(each) for each in given]
        unknown = [each for each in chosen if each not in classes]
        if unknown:
            raise DataError(f"finding {name!r} has class {unknown[0]!r}: expected some of {', '.join(classes)}")
        columns = sorted({classes.index(each) for each in chosen})
        if not 0 < len(columns) < len(classes):
            raise DataError(
                f"finding {name!r} has {len(columns)} of {len(classes)} classes: expected some, but not all"
            )
        if every and name in classes and columns != [classes.index(name)]:
            raise DataError(f"finding {name!r} is called as a class is, but holds others: give it another name")
        members[name] = columns
    if every:
        members |= {name: [place] for place, name in enumerate(classes) if name not in members}
    return members


def _check_prevalence(stated: Mapping[str, float], members: Mapping[str, list[int]]) -> None:
    for name, share in stated.items():
        if name not in members:
            raise DataError(f"prevalence names {name!r}: expected a finding or class, one of {', '.join(members)}")
        if not 0 < share < 1:
            raise DataError(f"prevalence of {name!r} is {share}: expected a share above 0 and below 1")


def _threshold(validation: Predictions, columns: list[int], specificity: float) -> float:
    truth, score = _one(validation, columns)
    if truth.all() or not truth.any():
        return float("nan")
    return choose_threshold(truth, score, specificity)


def _one(predictions: Predictions, columns: list[int]) -> tuple[NDArray[np.bool_], Floats]:
    return np.isin(predictions.y_true, columns), predictions.probabilities[:, columns].sum(axis=1)


def _share(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below > 0)
