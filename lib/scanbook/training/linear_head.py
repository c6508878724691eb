"""Trains a head without hidden layers as `head.fit_head` does, in NumPy: Keras takes seconds to start a training.

Loss, penalty, optimizer, learning rate, batches, number of epochs, and what validation selects are the same; the order
of the images in an epoch is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, softmax

from scanbook.config import Head
from scanbook.evaluation.labels import Labels
from scanbook.training import objectives
from scanbook.training.projection import Rows, principal_axes

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-7
"""Keras's constants of Adam."""


@dataclass(frozen=True)
class LinearHead:
    """A trained head.

    Attributes:
        kernel: float32 `(channels, scores)`.
        bias: float32 `(scores,)`.
        l2: Its penalty, which validation selected.
        loss: Its validation loss.
        output: As `Head.output`.
    """

    kernel: np.ndarray
    bias: np.ndarray
    l2: float
    loss: float
    output: str

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits of features, float32 `(n, channels)`; float32 `(n, k)`, as those of `heads.attach`."""
        return to_logits(features @ self.kernel + self.bias, self.output)


def to_logits(z: np.ndarray, output: str) -> np.ndarray:
    """Return the logits of a head's scores, as its Keras layers compute them; `(n, k)`."""
    if output == "softmax":
        return z
    if output == "sigmoid":
        return np.concatenate([-z / 2, z / 2], axis=1)
    reached, stays = np.cumsum(log_expit(z), axis=1), log_expit(-z)
    return np.pad(reached, [(0, 0), (1, 0)]) + np.pad(stays, [(0, 0), (0, 1)])


def fit_linear_head(
    plan: Head, labels: Labels, train: tuple[Rows, np.ndarray], validation: tuple[np.ndarray, np.ndarray], seed: int
) -> LinearHead:
    """Train a head for every penalty and return the one with the lowest validation loss.

    Args:
        plan: Hyper-parameters, without hidden layers.
        labels: Labels of the dataset, which say what is learnt.
        train: Features of n images, augmented views included, and their labels or shares, float32 `(n, k)`.
        validation: Features of the validation images, float32 `(m, channels)`, and their labels.
        seed: Seed of the batches.
    """
    (x, y), objective = train, objectives.of(labels)
    mean, axes = principal_axes(x)
    projected, held_out = x.project(mean, axes), (validation[0] - mean) @ axes
    residuals = _residuals(y, plan.output, exclusive=labels.exclusive)
    fits = []
    for l2 in plan.l2:
        penalty, random = np.float32(2 * objective.penalty(l2)), np.random.default_rng(seed)
        kernel, bias = _start(projected.shape[1], y.shape[1], plan.output, objective.prior(y))
        adam = _Adam((kernel, bias), plan.learning_rate, plan.epochs * -(-len(y) // plan.batch_size))
        for _ in range(plan.epochs):
            order = random.permutation(len(y))
            for start in range(0, len(y), plan.batch_size):
                rows = order[start : start + plan.batch_size]
                batch = projected[rows]
                error = residuals(rows, batch @ kernel + bias) / np.float32(len(rows))
                adam.step((batch.T @ error + penalty * kernel, error.sum(axis=0)))
            loss = objective.validation_loss(validation[1], to_logits(held_out @ kernel + bias, plan.output))
            fits.append((loss, l2, kernel.copy(), bias.copy()))
    loss, l2, kernel, bias = min(fits, key=lambda fit: fit[0])
    kernel = axes @ kernel
    return LinearHead(kernel, bias - mean @ kernel, l2, loss, plan.output)


def _start(axes: int, k: int, output: str, prior: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel and bias with which training starts: zeros, or the findings' log-odds."""
    scores = {"softmax": k, "sigmoid": 1, "ordinal": k - 1}[output]
    bias = np.zeros(scores, np.float32) if prior is None else prior.astype(np.float32)
    return np.zeros((axes, scores), np.float32), bias


def _residuals(y: np.ndarray, output: str, *, exclusive: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Return the function of rows and their scores that gives the gradient of each image's loss, float32 `(n, scores)`.

    Sigmoid, ordinal and findings are yes-or-no questions: of the second class, of going beyond a grade that is
    reached, and of each finding that is labelled. Of mixed images the labels are shares.
    """
    if exclusive and output == "softmax":
        return lambda rows, z: softmax(z, axis=1) - y[rows]
    if not exclusive:
        count = np.float32(y.shape[1])
        answers, weights = np.nan_to_num(y) / count, (~np.isnan(y)).astype(np.float32) / count
    elif output == "sigmoid":
        answers, weights = y[:, 1:], np.ones((len(y), 1), np.float32)
    else:
        beyond = np.cumsum(y[:, ::-1], axis=1)[:, ::-1]  # (n, k): share at or beyond a grade
        answers, weights = beyond[:, 1:], beyond[:, :-1]
    return lambda rows, z: weights[rows] * expit(z) - answers[rows]


class _Adam:
    """Adam with a learning rate that falls to zero on a cosine, as Keras has it; changes the arrays in place.

    Args:
        arrays: What is trained.
        rate: Highest learning rate.
        steps: Number of steps.
    """

    def __init__(self, arrays: tuple[np.ndarray, ...], rate: float, steps: int) -> None:
        self.arrays, self.rate, self.steps, self.done = arrays, rate, steps, 0
        self.first, self.second = ([np.zeros_like(array) for array in arrays] for _ in range(2))

    def step(self, gradients: tuple[np.ndarray, ...]) -> None:
        """Take a step."""
        rate = self.rate * 0.5 * (1 + np.cos(np.pi * self.done / self.steps))
        self.done += 1
        rate = np.float32(rate * np.sqrt(1 - _SECOND**self.done) / (1 - _FIRST**self.done))
        for array, gradient, first, second in zip(self.arrays, gradients, self.first, self.second, strict=True):
            np.add(first, (gradient - first) * np.float32(1 - _FIRST), out=first)
            np.add(second, (gradient * gradient - second) * np.float32(1 - _SECOND), out=second)
            np.subtract(array, first * rate / (np.sqrt(second) + np.float32(_EPSILON)), out=array)
