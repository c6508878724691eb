"""Predictions of simulated models, whose skill and confidence are known."""

from __future__ import annotations

import numpy as np
from scipy.special import expit, softmax

from scanbook.evaluation import FindingPredictions, Predictions


def simulated(
    n: int = 300,
    k: int = 3,
    seed: int = 0,
    *,
    skill: float = 1.0,
    per_group: int = 1,
    noise: float = 0.0,
    labels: int = 0,
    classes: tuple[str, ...] | None = None,
) -> Predictions:
    """Return n images of k classes; the same `labels` give the same images, `noise` is shared by a group's images."""
    y = np.random.default_rng(labels).integers(0, k, n)
    random = np.random.default_rng([seed, 1])
    logits = random.normal(size=(n, k)) + skill * np.eye(k)[y]
    logits[np.arange(n), y] += noise * np.repeat(random.normal(size=-(-n // per_group)), per_group)[:n]
    groups = [f"g{i // per_group}" for i in range(n)]
    classes = classes or tuple(f"class {c}" for c in range(k))
    return Predictions([f"i{i}" for i in range(n)], groups, y, softmax(logits, axis=1), classes)


def ranked(confidence: object, correct: object, per_group: int = 1) -> Predictions:
    """Return images of class "a", predicted as "a" where correct and as "b" elsewhere, with the given confidence."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, bool)
    p = np.where(correct, confidence, 1 - confidence)
    ids = [f"i{i}" for i in range(len(p))]
    groups = [f"g{i // per_group}" for i in range(len(p))]
    return Predictions(ids, groups, np.zeros(len(p), int), np.c_[p, 1 - p], ("a", "b"))


def findings(
    n: int = 400,
    k: int = 3,
    seed: int = 0,
    *,
    skill: float = 1.5,
    prevalence: float = 0.3,
    missing: float = 0.2,
    per_group: int = 1,
    noise: float = 0.0,
    labels: int = 0,
    names: tuple[str, ...] = (),
) -> FindingPredictions:
    """Return n images of k findings; the same `labels` give the same images, `noise` is shared by a group's images."""
    truth = np.random.default_rng(labels)
    y = (truth.uniform(size=(n, k)) < prevalence).astype(float)
    y[truth.uniform(size=(n, k)) < missing] = np.nan
    random = np.random.default_rng([seed, 2])
    logits = random.normal(size=(n, k)) + skill * (np.nan_to_num(y) - 1)
    logits += noise * np.repeat(random.normal(size=(-(-n // per_group), k)), per_group, axis=0)[:n]
    groups = [f"g{i // per_group}" for i in range(n)]
    return FindingPredictions(
        [f"i{i}" for i in range(n)], groups, y, expit(logits), names or tuple(f"finding {c}" for c in range(k))
    )
