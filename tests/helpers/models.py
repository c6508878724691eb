"""Predictions of simulated models, whose skill and confidence are known."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from scanbook.evaluation import Predictions


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
