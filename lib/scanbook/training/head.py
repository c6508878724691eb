"""Training a head on features, which stay in files however many images they are of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from scanbook import runtime
from scanbook.augmentation import Augmenter
from scanbook.config import Study
from scanbook.data.manifest import VALIDATION, Manifest
from scanbook.models import heads
from scanbook.runtime import distribution
from scanbook.training.batches import Batches
from scanbook.training.fitting import CrossEntropy, fit, metrics
from scanbook.training.trained import validation_loss

keras = runtime.keras()

_CHUNK = 4096
_HELD = 2**28  # bytes of training features up to which they are held in memory, which is faster; larger ones are read


@dataclass(frozen=True)
class Rows:
    """Rows of several arrays, one after the other, of which a few thousand at a time are in memory.

    Attributes:
        parts: Arrays, float32 `(n, channels)`, memory maps as a rule, each with the places of its rows, int `(m,)`.
    """

    parts: Sequence[tuple[np.ndarray, np.ndarray]]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and channels."""
        return sum(len(places) for _, places in self.parts), self.parts[0][0].shape[1]

    def chunks(self) -> Iterator[np.ndarray]:
        """The rows in their order, float32 `(at most 4096, channels)`."""
        for array, places in self.parts:
            for start in range(0, len(places), _CHUNK):
                yield array[places[start : start + _CHUNK]]

    def turned(self, mean: np.ndarray, turn: np.ndarray) -> np.ndarray:
        """`(x - mean) @ turn` of all rows, float32, in a file of the store that has no name and goes with it."""
        count, _ = self.shape
        runtime.store_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=runtime.store_dir()) as file:
            found = np.memmap(file, np.float32, "w+", shape=(count, turn.shape[1]))
        start = 0
        for chunk in self.chunks():
            found[start : start + len(chunk)] = (chunk - mean) @ turn
            start += len(chunk)
        return found


def principal_axes(x: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Mean of features, and the matrix that standardises them and turns them to their principal axes.

    Returns:
        float32 `(channels,)` and float32 `(channels, axes)`: as many axes as there are channels, or rows where these
        are fewer: the other axes hold none of them.
    """
    count, channels = x.shape
    if count < channels:
        whole = np.concatenate(list(x.chunks()))
        mean, deviation = whole.mean(0), whole.std(0) + 1e-3
        axes = PCA(svd_solver="full").fit((whole - mean) / deviation).components_
        return mean, (axes.T / deviation[:, None]).astype(np.float32)
    origin = next(x.chunks()).mean(0)  # sums about it lose no digits
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for chunk in x.chunks():
        moved = chunk - origin
        total += moved.sum(0, dtype=np.float64)
        products += moved.T @ moved
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(covariance.diagonal(), 0)) + 1e-3
    _, axes = np.linalg.eigh(covariance / np.outer(deviation, deviation))
    return (origin + mean).astype(np.float32), (axes[:, ::-1] / deviation[:, None]).astype(np.float32)


def fit_head(
    study: Study, manifest: Manifest, train: tuple[Rows, np.ndarray], validation: np.ndarray
) -> tuple[list[list[np.ndarray]], pd.DataFrame]:
    """Trains a head for every penalty and takes the one that validation likes best.

    It learns on standardised features turned to their principal axes, where Adam, which works axis by axis, comes to
    the optimum in a few epochs; the rotation changes no penalty. Both are folded into the first layer.

    Args:
        study: Its `head` is the plan.
        manifest: The dataset, split.
        train: Features of n images, augmented views included, and one-hot classes, float32 `(n, k)`.
        validation: Features of the validation images, float32 `(m, channels)`.

    Returns:
        Kernel and bias of each Dense layer, first to last; and a row an epoch.
    """
    plan, (x, y) = study.head, train
    mean, turn = principal_axes(x)
    turned = x.turned(mean, turn)
    if turned.nbytes > _HELD and distribution.share() is None:
        # a tensor would be in memory twice: while it is made, and in what Keras makes of it
        train_on = Batches(turned, np.arange(len(y)), y, plan.batch_size, Augmenter("none", len(y), study.seed))
    else:  # tensors, one for all penalties: of arrays, Keras would keep a copy for each
        train_on = keras.ops.convert_to_tensor(turned), y
    held_out = keras.ops.convert_to_tensor((validation - mean) @ turn)
    known = (held_out, manifest.one_hot(VALIDATION))
    fits = []
    for penalty in plan.l2:
        entry = keras.Input((turned.shape[1],))
        model = keras.Model(entry, heads.attach(entry, len(manifest.classes), plan))
        dense = heads.head_layers(model)
        for layer in dense:
            layer.kernel.regularizer = keras.regularizers.L2(penalty)
        if not plan.units:
            dense[0].kernel.assign(np.zeros(dense[0].kernel.shape))  # convex: the same end from anywhere
        rate = keras.optimizers.schedules.CosineDecay(plan.learning_rate, plan.epochs * -(-len(y) // plan.batch_size))
        model.compile(keras.optimizers.Adam(rate), CrossEntropy(), metrics=metrics())
        history = fit("head", model, train_on, known, plan)
        logits = keras.ops.convert_to_numpy(model(held_out))
        fits.append((validation_loss(manifest, logits), penalty, [layer.get_weights() for layer in dense], history))
    _, penalty, values, history = min(fits, key=lambda each: each[0])
    kernel, bias = values[0]
    return [[turn @ kernel, bias - mean @ turn @ kernel], *values[1:]], history.assign(l2=penalty)
