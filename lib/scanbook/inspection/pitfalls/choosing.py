"""Mistakes of choice: what validation images are for is done with test images.

The interval holds what was chosen fixed. It says whether the two choices differ by more than the noise of patients,
not how much the best of many figures flatters: the halves of the test images tell that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from scanbook.data.manifest import VALIDATION
from scanbook.evaluation import METRICS, AnyPredictions, FindingPredictions, main_metric, with_interval
from scanbook.evaluation.metrics import ratio
from scanbook.inspection.pitfalls import heads
from scanbook.inspection.pitfalls.measuring import Row, halves, measure, measure_values
from scanbook.inspection.pitfalls.subject import (
    Subject,
    available_backbones,
    backbone_features,
    choose_penalty,
    predictions,
)
from scanbook.registry import short_name

_EPOCHS = 30
_HALVES, _HALVES_OF_THRESHOLDS = 200, 50
"""Random halves of the test groups, for choices and for thresholds."""

EPOCH = Row("epoch", "epoch chosen on test", "none says so")
BACKBONE = Row("backbone", "backbone chosen on test", "skin11 (six, by test accuracy)")
THRESHOLD = Row("threshold", "threshold chosen on test", "none gives a threshold")
OTHER_IMAGES = Row("other_images", "another test set for each model", "chest_xray, skin11")


def rows(subject: Subject) -> list[Row]:
    """Return what the mistakes of choice are worth."""
    return [mistake(subject) for mistake in (epoch, backbone, threshold, other_images)]


def epoch(subject: Subject) -> Row:
    """Return what it is worth to publish the epoch that is best on test images."""
    trained = heads.by_epoch(subject.arm(subject.x[subject.train], subject.train), _EPOCHS, subject.study.seed)
    candidates = {
        str(number): (
            subject.predict(head, subject.manifest.rows(VALIDATION)),
            subject.predict(head, subject.test),
        )
        for number, head in enumerate(trained, 1)
    }
    return _chosen(subject, EPOCH, candidates, "epoch")


def backbone(subject: Subject) -> Row:
    """Return what it is worth to publish the pretrained backbone that is best on test images."""
    names = subject.study.pretrained_backbones
    if not subject.backbone:
        return BACKBONE.because("no backbone has pretrained weights")
    manifest, validation = subject.manifest, subject.manifest.rows(VALIDATION)
    candidates = {}
    for name in available_backbones(subject.study):
        x = backbone_features(subject.study, manifest, subject.images, name)
        _, head = choose_penalty(manifest, x, subject.train)
        candidates[short_name(name)] = tuple(
            predictions(manifest, part, head.logits(x[part])) for part in (validation, subject.test)
        )
    if len(candidates) < 2:
        others = " (of the others there are no weights)" if len(names) > 1 else ""
        return BACKBONE.because(f"there is one pretrained backbone{others}, so none to choose")
    return _chosen(subject, BACKBONE, candidates, "backbone")


def _chosen(
    subject: Subject, row: Row, candidates: Mapping[str, tuple[AnyPredictions, AnyPredictions]], noun: str
) -> Row:
    """Return a row of the candidate that is best on test images against that which is best on validation images.

    Args:
        subject: The subject.
        row: The row to fill.
        candidates: By name, predictions for validation and for test images.
        noun: What a candidate is.
    """
    names, test = list(candidates), [pair[1] for pair in candidates.values()]
    metric = METRICS[main_metric(subject.manifest)]
    points = np.array(
        [
            [metric.compute(images.y_true, images.probabilities, None)[0] for images in pair]
            for pair in candidates.values()
        ]
    )
    if np.isnan(points).any():
        return row.because(f"{metric.title} is not defined on the validation or test images")
    on_validation, on_test = (int(column.argmax()) for column in points.T)
    filled = measure(row, [(test[on_test], test[on_validation])], **subject.study.resamples)
    optimism = _optimism(test, subject.study.seed)
    note = (
        f"Best on test: {noun} {names[on_test]}; on validation: {noun} {names[on_validation]}. The best of "
        f"{len(names)} on one half of the test patients scores {with_interval(-optimism, signed=True)} on the other "
        "half, on average."
    )
    return replace(filled, note=note, more={"change on the other half": -optimism})


def _optimism(candidates: Sequence[AnyPredictions], seed: int) -> float:
    """Return by how much the best candidate on a half of the groups is worse on the other half, on average."""
    metric, first = METRICS[main_metric(candidates[0])], candidates[0]
    weights = halves(first.group, _HALVES, seed)
    scores = np.array(
        [
            [metric.compute(model.y_true, model.probabilities, side) for side in (weights, 1 - weights)]
            for model in candidates
        ]
    )
    best = np.where(np.isnan(scores[:, 0]), -np.inf, scores[:, 0]).argmax(axis=0)
    own, other = (scores[best, side, np.arange(_HALVES)] for side in (0, 1))
    return float(np.nanmean(own - other)) if not np.isnan(own - other).all() else 0.0


def threshold(subject: Subject) -> Row:
    """Return what it is worth to choose thresholds on test images: mean of sensitivity and specificity, macro."""
    row = replace(THRESHOLD, figure="mean of sensitivity and specificity")
    validation = subject.predict(subject.head, subject.manifest.rows(VALIDATION))
    test = subject.predict(subject.head, subject.test)
    columns = [1] if len(test.names) == 2 and not subject.manifest.findings else range(len(test.names))
    usable, cuts = [], []
    for column in columns:
        both = [_binary(images, column) for images in (test, validation)]
        if all(truth.any() and not truth.all() for truth, _ in both):
            usable.append(column)
            cuts.append([_best_threshold(*images) for images in both])
    if not usable:
        return row.because("no class or finding is both present and absent on validation and on test")
    truth = test.y_true[:, usable] if isinstance(test, FindingPredictions) else test.y_true[:, None] == usable
    scores = test.probabilities[:, usable]

    def both_values(_: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([_balanced(truth, scores >= cut, weights) for cut in np.transpose(cuts)], axis=1)

    change = -_optimism_of_thresholds(truth, scores, test.group, subject.study.seed)
    note = (
        f"A threshold for each of {len(usable)} {'findings' if subject.manifest.findings else 'classes'}. Those of one "
        f"half of the test patients score {with_interval(change, signed=True)} on the other half, on average."
    )
    row = replace(row, images=len(test), note=note, more={"change on the other half": change})
    return measure_values(row, both_values, [test.group], **subject.study.resamples)


def _optimism_of_thresholds(
    truth: NDArray[np.generic], scores: NDArray[np.float64], group: NDArray[np.str_], seed: int
) -> float:
    """Return by how much thresholds of a half of the groups are worse on the other half, on average."""
    losses = []
    for side in halves(group, _HALVES_OF_THRESHOLDS, seed):
        own, cuts = side == 1, np.full(scores.shape[1], np.nan)
        for column, score in enumerate(scores.T):
            states = [own & (truth[:, column] == state) for state in (0, 1)]
            if all(state.any() for state in states):
                known = states[0] | states[1]
                cuts[column] = _best_threshold(states[1][known], score[known])
        usable = ~np.isnan(cuts)
        if usable.any():
            both = np.stack([side, 1 - side])
            losses.append(-np.diff(_balanced(truth[:, usable], scores[:, usable] >= cuts[usable], both))[0])
    defined = [loss for loss in losses if not np.isnan(loss)]
    return float(np.mean(defined)) if defined else 0.0


def _binary(images: AnyPredictions, column: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return truth and score of one class or finding, of the images that are labelled for it."""
    if isinstance(images, FindingPredictions):
        known = ~np.isnan(images.y_true[:, column])
        return images.y_true[known, column] == 1, images.probabilities[known, column]
    return images.y_true == column, images.probabilities[:, column]


def _best_threshold(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> float:
    """Return the threshold with the highest sum of sensitivity and specificity (Youden, 1950)."""
    false, true, thresholds = roc_curve(truth, score, drop_intermediate=False)
    return float(thresholds[int(np.argmax(true - false))])


def _balanced(
    truth: NDArray[np.generic], called: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the mean of sensitivity and specificity over the columns, `(rounds,)`, where both are defined."""
    rates = []
    for state, answer in ((1, called), (0, ~called)):
        of = (truth == state).astype(np.float64)
        rates.append(ratio(weights @ (of * answer), weights @ of))
    values = np.mean(rates, axis=0)
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))


def other_images(subject: Subject) -> Row:
    """Return how far apart one network seems to be from itself where it is tested on two sets of images."""
    test = subject.predict(subject.head, subject.test)
    metric, groups = METRICS[main_metric(test)], len(np.unique(test.group))
    row = replace(OTHER_IMAGES, figure=f"{metric.title}, of one network against itself")
    if groups < 2:
        return row.because("all test images are of one group")
    weights = halves(test.group, subject.study.resamples["rounds"], subject.study.seed)
    first, second = (metric.compute(test.y_true, test.probabilities, side) for side in (weights, 1 - weights))
    gaps = (first - second)[~np.isnan(first - second)]
    if not len(gaps):
        return row.because(f"{metric.title} is not defined on halves of the test images")
    typical = float(np.median(np.abs(gaps)))
    low, high = np.quantile(gaps, (0.025, 0.975)).tolist()
    note = (
        "Two halves of the test patients, divided many times: half of the differences are larger than the figure, and "
        "95 % lie in the interval. The mistake favours no model: it adds noise."
    )
    values = {"published": typical, "honest": 0.0, "difference": typical, "low": low, "high": high}
    return replace(row, **values, images=len(test), groups=groups, note=note)
