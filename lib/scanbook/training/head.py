"""Trains a head on features, which stay in files for any number of images."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.augmentation import Augmenter
from scanbook.config import Study
from scanbook.data.manifest import VALIDATION, Manifest
from scanbook.models import heads
from scanbook.runtime import distribution
from scanbook.training import objectives
from scanbook.training.batches import Batches
from scanbook.training.fitting import fit
from scanbook.training.projection import Rows, principal_axes
from scanbook.training.trained_model import validation_loss

keras = runtime.keras()

_IN_MEMORY = 2**28  # bytes of training features up to which they are in memory, which is faster; else they are read


def fit_head(
    study: Study, manifest: Manifest, train: tuple[Rows, np.ndarray], validation: np.ndarray
) -> tuple[list[list[np.ndarray]], pd.DataFrame]:
    """Train a head for every penalty and return the one with the lowest validation loss.

    It learns on standardised features projected to their principal axes, where Adam, which works axis by axis, reaches
    the optimum in a few epochs; the rotation changes no penalty. Both are folded into the first layer.

    Args:
        study: Study with the hyper-parameters, in `head`.
        manifest: The dataset, split.
        train: Features of n images, augmented views included, and their labels, float32 `(n, k)`.
        validation: Features of the validation images, float32 `(m, channels)`.

    Returns:
        Kernel and bias of each Dense layer, first to last; and one row per epoch.
    """
    plan, (x, y), objective = study.head, train, objectives.of(manifest.labels)
    mean, axes = principal_axes(x)
    projected = x.project(mean, axes)
    if projected.nbytes > _IN_MEMORY and distribution.share() is None:
        # a tensor would be in memory twice: itself, and in the dataset that Keras makes from it
        train_on = Batches(projected, np.arange(len(y)), y, plan.batch_size, Augmenter("none", len(y), study.seed))
    else:  # one tensor for all penalties: Keras would copy an array for each
        train_on = keras.ops.convert_to_tensor(projected), y
    x_validation = keras.ops.convert_to_tensor((validation - mean) @ axes)
    fits = []
    for penalty in plan.l2:
        entry = keras.Input((projected.shape[1],))
        model = keras.Model(entry, heads.attach(entry, len(manifest.names), plan))
        dense = heads.head_layers(model)
        for layer in dense:
            layer.kernel.regularizer = keras.regularizers.L2(objective.penalty(penalty))
        if not plan.units:
            dense[0].kernel.assign(np.zeros(dense[0].kernel.shape))  # convex: the same optimum from anywhere
        heads.start_from(model, objective.prior(y))
        rate = keras.optimizers.schedules.CosineDecay(plan.learning_rate, plan.epochs * -(-len(y) // plan.batch_size))
        model.compile(keras.optimizers.Adam(rate), objective.loss(), metrics=objective.metrics())
        history = fit("head", model, train_on, (x_validation, manifest.label_values(VALIDATION)), plan)
        logits = keras.ops.convert_to_numpy(model(x_validation))
        fits.append((validation_loss(manifest, logits), penalty, [layer.get_weights() for layer in dense], history))
    _, penalty, values, history = min(fits, key=lambda trained: trained[0])
    kernel, bias = values[0]
    return [[axes @ kernel, bias - mean @ axes @ kernel], *values[1:]], history.assign(l2=penalty)
