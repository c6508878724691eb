"""Linear heads on features, trained for one comparison each: to the optimum, or epoch by epoch.

They are stages, so this module computes no metric: a change of how results are shown trains no head again.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from scanbook import runtime
from scanbook.store import fingerprint, stage

_ITERATIONS = 300
_NEVER = -30.0
"""Logit of a class or finding that no training image shows."""
_RATE, _BATCH = 1e-3, 32
_DECAY = 0.9, 0.999
"""Adam's decay rates of the two moments."""


@dataclass(frozen=True)
class Arm:
    """The training images of one head.

    Attributes:
        x: Features, float32 `(n, channels)`.
        y: Labels, float32 `(n, k)`: 1 present, 0 absent, NaN not labelled.
        exclusive: Whether exactly one of the k applies to an image: classes, not findings.
        penalty: Weight of the squared coefficients, of standardised features, beside the mean loss of an image.
    """

    x: np.ndarray
    y: np.ndarray
    exclusive: bool
    penalty: float

    @property
    def digest(self) -> str:
        """Fingerprint of all that the head depends on."""
        shown = np.ascontiguousarray(self.x, np.float32).tobytes(), np.ascontiguousarray(self.y, np.float32).tobytes()
        return fingerprint(*shown, self.x.shape, self.y.shape, self.exclusive, self.penalty)


@dataclass(frozen=True)
class Head:
    """A linear head.

    Attributes:
        kernel: `(channels, k)`.
        bias: `(k,)`.
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Return the logits of features `(n, channels)`, float64 `(n, k)`."""
        return np.asarray(x, np.float64) @ self.kernel + self.bias


def train(arms: Sequence[Arm]) -> list[Head]:
    """Train a head for each arm by logistic regression, multinomial of classes, or read them from the store."""

    def build(folder: Path) -> None:
        with runtime.single_threaded(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # further iterations change no answer
            trained = runtime.in_threads(_train, arms)
            for number, head in enumerate(runtime.progress(trained, "heads", len(arms))):
                np.savez(folder / f"{number}.npz", kernel=head.kernel, bias=head.bias)

    folder, heads = stage("pitfall_heads", {"arms": [arm.digest for arm in arms]}, build, __name__), []
    for number in range(len(arms)):
        with np.load(folder / f"{number}.npz") as arrays:
            heads.append(Head(arrays["kernel"], arrays["bias"]))
    return heads


def _train(arm: Arm) -> Head:
    mean, deviation = _scale(arm.x)
    kernel, bias = _fit(((arm.x - mean) / deviation).astype(np.float32), arm)
    kernel = kernel / deviation[:, None]
    return Head(kernel, bias - mean @ kernel)


def _scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of features, which never is 0."""
    return x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64) + 1e-3


def _fit(x: np.ndarray, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias of the optimum for standardised features."""
    k = arm.y.shape[1]
    kernel, bias = np.zeros((x.shape[1], k)), np.full(k, _NEVER)
    if not arm.exclusive:
        for column, labels in enumerate(arm.y.T):
            known = ~np.isnan(labels)
            if labels[known].any():
                if labels[known].all():
                    bias[column] = -_NEVER
                else:
                    fitted = _regression(x[known], labels[known].astype(int), arm.penalty)
                    kernel[:, column], bias[column] = fitted.coef_[0], fitted.intercept_[0]
        return kernel, bias
    y = arm.y.argmax(axis=1)
    present = np.unique(y)
    if len(present) == 1:
        bias[present] = 0.0
        return kernel, bias
    fitted = _regression(x, y, arm.penalty)
    if len(present) == 2:  # scikit-learn then gives the second class's coefficients alone
        bias[present] = 0.0
        kernel[:, present[1]], bias[present[1]] = fitted.coef_[0], fitted.intercept_[0]
    else:
        kernel[:, present], bias[present] = fitted.coef_.T, fitted.intercept_
    return kernel, bias


def _regression(x: np.ndarray, y: np.ndarray, penalty: float) -> LogisticRegression:
    # scikit-learn's C is the weight of the summed loss beside half the squared coefficients
    return LogisticRegression(C=1 / (2 * penalty * len(y)), max_iter=_ITERATIONS, tol=1e-4).fit(x, y)


def by_epoch(arm: Arm, epochs: int, seed: int) -> list[Head]:
    """Train a head by Adam (Kingma and Ba, 2015) at a constant rate and return it after every epoch.

    Args:
        arm: The training images.
        epochs: Passes over them.
        seed: Seed of their order.
    """

    def build(folder: Path) -> None:
        mean, deviation = _scale(arm.x)
        x, rng = ((arm.x - mean) / deviation).astype(np.float32), np.random.default_rng(seed)
        x = np.column_stack([x, np.ones(len(x), np.float32)])
        labelled, y = ~np.isnan(arm.y), np.nan_to_num(arm.y)
        weights = np.zeros((x.shape[1], y.shape[1]), np.float32)
        moments, step, saved = [np.zeros_like(weights), np.zeros_like(weights)], 0, []
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for start in range(0, len(x), _BATCH):
                rows = order[start : start + _BATCH]
                scores = x[rows] @ weights
                p = softmax(scores, axis=1) if arm.exclusive else expit(scores)
                error = (p - y[rows]) * labelled[rows]
                gradient = x[rows].T @ error / len(rows)
                step += 1
                for place, (decay, value) in enumerate(zip(_DECAY, (gradient, gradient**2), strict=True)):
                    moments[place] = decay * moments[place] + (1 - decay) * value
                first, second = (moment / (1 - decay**step) for moment, decay in zip(moments, _DECAY, strict=True))
                weights -= _RATE * first / (np.sqrt(second) + 1e-8)
            kernel = weights[:-1] / deviation[:, None]
            saved.append((kernel, weights[-1] - mean @ kernel))
        kernels, biases = zip(*saved, strict=True)
        np.savez(folder / "heads.npz", kernels=np.stack(kernels), biases=np.stack(biases))

    inputs = {"arm": arm.digest, "epochs": epochs, "seed": seed}
    with np.load(stage("pitfall_epochs", inputs, build, __name__) / "heads.npz") as arrays:
        return [Head(kernel, bias) for kernel, bias in zip(arrays["kernels"], arrays["biases"], strict=True)]
