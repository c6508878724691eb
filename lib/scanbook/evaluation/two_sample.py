"""How well two sets of images can be told apart: the AUROC of a classifier of the source, cross-validated by patient.

The classifier is a logistic regression. An AUROC of 0.5 means that it finds no difference (a classifier two-sample
test, Lopez-Paz and Oquab, 2017). Its predictions for a patient come from a fit without that patient. Of equal sources
the AUROC lies a little below 0.5: what the other patients have more of, those that are predicted have less of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scanbook.evaluation.metrics import class_auroc
from scanbook.evaluation.resampling import group_folds, interval, resample

Floats = NDArray[np.float64]
_FOLDS = 5
_COMPONENTS = 32
"""Principal components of longer features."""
_LARGEST_WEIGHT = 20.0
"""Largest weight of an image, relative to the mean: a class that one source nearly lacks would decide alone."""


@dataclass(frozen=True)
class Separation:
    """How well two sources can be told apart.

    Attributes:
        value: AUROC, 0.5 for not at all.
        low: Lower end of its 95 % interval over patients.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def separate(
    features: ArrayLike,
    other: ArrayLike,
    group: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> Separation | None:
    """Return how well a classifier tells from features which source an image is of.

    Args:
        features: (n, d) float, without NaN.
        other: (n,) bool, whether an image is of the second source.
        group: (n,) patient of each image; those of the two sources have different names.
        weights: (n,) float, how much an image counts, as `balance_labels` gives; None for all alike.
        rounds: Number of resamples.
        seed: Seed of the folds and resamples.

    Returns:
        The AUROC with its interval; None where a source has fewer than five patients.
    """
    x, y, members = np.asarray(features, np.float64), np.asarray(other).astype(np.int64), np.asarray(group)
    if min(len(np.unique(members[y == side])) for side in (0, 1)) < _FOLDS:
        return None
    counts = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    scores = out_of_fold(x, y, members, counts, seed)
    both = np.column_stack([1 - scores, scores])

    def area(resampled: NDArray[np.floating]) -> Floats:
        return class_auroc(y, both, resampled * counts)[:, 1]

    low, high = interval(resample(area, members, rounds, seed))
    return Separation(float(area(np.ones((1, len(y))))[0]), float(low), float(high))


def out_of_fold(
    x: Floats, y: NDArray[np.int64], group: NDArray[np.generic], counts: Floats, seed: int
) -> NDArray[np.float64]:
    """Return the probability of the second source for each image, from a fit without its patient, (n,)."""
    scores = np.empty(len(y))
    for train, test in group_folds(y, group, _FOLDS, seed):
        axes = min(_COMPONENTS, len(train))
        steps = [StandardScaler(), *([PCA(axes, random_state=0)] if x.shape[1] > _COMPONENTS else [])]
        # both sources count alike, however many images each has
        balanced = counts[train] / np.where(y[train] == 1, counts[train][y[train] == 1].sum(), 1.0)
        balanced[y[train] == 0] /= counts[train][y[train] == 0].sum()
        steps = [*steps, StandardScaler(), LogisticRegression(max_iter=1000)]
        model = make_pipeline(*steps)
        model.fit(x[train], y[train], logisticregression__sample_weight=balanced * len(train))
        scores[test] = model.predict_proba(x[test])[:, 1]
    return scores


def balance_labels(labels: ArrayLike, other: ArrayLike, group: ArrayLike, seed: int = 0) -> Floats:
    """Return weights with which the second source has the labels of the first as often, (n,) float64.

    The weight of its images is the odds that an image with such labels is of the first source, by a classifier that is
    cross-validated by patient. With them, what remains between the sources is no difference in prevalence.

    Args:
        labels: (n, k) float: 1 present, 0 absent, without NaN.
        other: (n,) bool.
        group: (n,) names.
        seed: Seed of the folds.
    """
    x, y = np.asarray(labels, np.float64), np.asarray(other).astype(np.int64)
    p = np.clip(out_of_fold(x, y, np.asarray(group), np.ones(len(y)), seed), 1e-3, 1 - 1e-3)
    weights = np.where(y == 1, (1 - p) / p, 1.0)
    weights[y == 1] /= weights[y == 1].mean()
    return np.minimum(weights, _LARGEST_WEIGHT)
