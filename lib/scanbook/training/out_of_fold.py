"""Predictions for images that a head did not learn from: logistic regression on frozen features, folds by patient."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from scanbook import runtime
from scanbook.data.manifest import Manifest
from scanbook.evaluation import group_folds
from scanbook.models import features
from scanbook.models.backbones import Weights
from scanbook.store import fingerprint, stage
from scanbook.training.projection import Rows, principal_axes

FOLDS = 5
"""Number of folds; a class, or either side of a finding, needs as many patients."""
_AXES = 128
_PENALTIES = (0.0001, 0.001, 0.01, 0.1)
"""Inverses of the penalty, of which the one with the lowest loss on the first fold is taken."""
_LEAST = 1e-6


def predict(
    manifest: Manifest,
    images: np.ndarray,
    backbone: tuple[str, Weights],
    *,
    rows: np.ndarray,
    unit: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Return the out-of-fold probabilities of rows of a manifest, or read them from the store.

    Args:
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone, and its pretrained weights.
        rows: The m rows whose labels are used.
        unit: What is never in the training fold of its own prediction, such as a patient, int `(m,)`.
        seed: Seed of the folds.

    Returns:
        Float64 `(m, k)`, as `predict_classes` or `predict_findings` give.
    """
    name, weights = backbone
    inputs = features.inputs(manifest, images, name, weights)
    inputs |= {"rows": fingerprint(rows.tobytes()), "unit": fingerprint(unit.tobytes()), "seed": seed}

    def build(folder: Path) -> None:
        values, _ = features.extract(manifest, images, name, weights)
        of_rows = Rows([(values, rows)])
        mean, axes = principal_axes(of_rows)
        x = np.concatenate([(chunk - mean) @ axes[:, :_AXES] for chunk in of_rows.chunks()])
        labels = manifest.labels.rows(rows)
        predict_labels = predict_classes if labels.exclusive else predict_findings
        np.save(folder / "probabilities.npy", predict_labels(x, labels.values, unit, seed))

    return np.load(stage("out_of_fold", inputs, build, __name__) / "probabilities.npy")


def predict_classes(x: np.ndarray, values: np.ndarray, unit: np.ndarray, seed: int) -> np.ndarray:
    """Return the out-of-fold probabilities of classes.

    Args:
        x: Features, float `(n, d)`.
        values: One-hot classes, float `(n, k)`.
        unit: What is never in the training fold of its own prediction, such as a patient, int `(n,)`.
        seed: Seed of the folds.

    Returns:
        Float64 `(n, k)`; NaN in the rows and columns of classes that fewer than `FOLDS` units have.
    """
    y = values.argmax(axis=1)
    units = [len(np.unique(unit[y == label])) for label in range(values.shape[1])]
    chosen = np.flatnonzero(np.array(units) >= FOLDS)
    probabilities = np.full(values.shape, np.nan)
    rows = np.flatnonzero(np.isin(y, chosen))
    if len(chosen) > 1:
        probabilities[np.ix_(rows, chosen)] = _out_of_fold(x[rows], np.searchsorted(chosen, y[rows]), unit[rows], seed)
    return probabilities


def predict_findings(x: np.ndarray, values: np.ndarray, unit: np.ndarray, seed: int) -> np.ndarray:
    """Return the out-of-fold probability that each finding is present, each finding by itself.

    Args:
        x: Features, float `(n, d)`.
        values: Labels, float `(n, k)`: 1 present, 0 absent, NaN not labelled.
        unit: As in `predict_classes`.
        seed: Seed of the folds.

    Returns:
        Float64 `(n, k)`; NaN where a finding is not labelled, or fewer than `FOLDS` units have it or are without it.
    """
    probabilities = np.full(values.shape, np.nan)
    for column in runtime.progress(range(values.shape[1]), "predictions of findings"):
        rows = np.flatnonzero(~np.isnan(values[:, column]))
        both = np.stack([values[rows, column] == 0, values[rows, column] == 1], axis=1).astype(float)
        probabilities[rows, column] = predict_classes(x[rows], both, unit[rows], seed)[:, 1]
    return probabilities


def _out_of_fold(x: np.ndarray, y: np.ndarray, unit: np.ndarray, seed: int) -> np.ndarray:
    """Return out-of-fold probabilities of a logistic regression, NaN in a row whose class its training fold lacks."""
    classes = int(y.max()) + 1
    with warnings.catch_warnings():  # of a class with fewer images than folds
        warnings.simplefilter("ignore", UserWarning)
        folds = list(group_folds(y, unit, FOLDS, seed))
    probabilities = np.full((len(y), classes), np.nan)

    def fit(train: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
        model = LogisticRegression(C=penalty, max_iter=500).fit(x[train], y[train])
        predicted = np.full((len(test), classes), _LEAST)
        predicted[:, model.classes_] = np.maximum(model.predict_proba(x[test]), _LEAST)
        predicted[~np.isin(y[test], model.classes_)] = np.nan
        return predicted / predicted.sum(axis=1, keepdims=True)

    # several threads of linear algebra per fit take longer than one, and much longer beside other processes
    with runtime.single_threaded():
        folds = [(train, test) for train, test in folds if len(np.unique(y[train])) > 1]
        if not folds:
            return probabilities
        train, test = folds[0]
        first = list(runtime.in_threads(lambda penalty: fit(train, test, penalty), _PENALTIES))
        known = ~np.isnan(first[0]).any(axis=1)
        losses = [log_loss(y[test][known], own[known], labels=range(classes)) for own in first]
        best = int(np.argmin(losses))
        others = runtime.in_threads(lambda fold: fit(*fold, _PENALTIES[best]), folds[1:])
        for (_, held_out), predicted in zip(folds, [first[best], *others], strict=True):
            probabilities[held_out] = predicted
    return probabilities
