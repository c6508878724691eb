"""Training a whole network: what learns, in which precision, on which batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.augmentation import Augmenter
from scanbook.config import Training
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.models import backbones, heads
from scanbook.training.batches import Batches, class_weights
from scanbook.training.fitting import CrossEntropy, depth_shares, fit, metrics, optimizer, weighted_layers

keras = runtime.keras()

Learning = Literal["head", "top", "all"]


@dataclass(frozen=True)
class Plan:
    """How a whole network is trained.

    Attributes:
        name: What is trained, for progress lines.
        values: Epochs, learning rate, batch size, label smoothing and the rest.
        policy: Augmentation of the training images.
        seed: Seed of shuffling and augmentation.
    """

    name: str
    values: Training
    policy: str
    seed: int


def train_all(
    plan: Plan, model: Any, images: np.ndarray, manifest: Manifest, resume: Path | None = None
) -> pd.DataFrame:
    """Trains all layers of a network that may learn and keeps the epoch with the lowest validation loss.

    Args:
        plan: How to train.
        model: A network of `backbones.build`; trained in place.
        images: uint8 `(n, h, w, 3)`.
        manifest: Class and part of each image.
        resume: Checkpoint to go on from; None keeps none.

    Returns:
        A row an epoch, as `Trained.history`.
    """
    values, rows, y = plan.values, manifest.rows(TRAIN), manifest.one_hot(TRAIN)
    augment = Augmenter(plan.policy, len(rows), plan.seed)
    batches = Batches(images, rows, y, values.batch_size, augment, sampling=values.balance == "sampling")
    held_out = manifest.rows(VALIDATION)
    plain = Augmenter("none", len(held_out), plan.seed)
    validation = Batches(images, held_out, manifest.one_hot(VALIDATION), 64, plain, shuffle=False)
    first = getattr(values, "first_layer_rate", 1.0)
    shares = depth_shares(model, first) if first < 1 else None
    loss = CrossEntropy(values.label_smoothing, class_weights(y) if values.balance == "class_weights" else None)
    model.compile(optimizer(values, batches.num_batches, shares), loss, weighted_metrics=metrics())
    return fit(plan.name, model, batches, validation, values, checkpoint=resume)


def let_learn(model: Any, which: Learning = "all", top: float = 1.0) -> None:
    """Says which layers of a pretrained network learn; its batch normalisation never does.

    Args:
        model: A network of `backbones.build`.
        which: "head"; "top", the head and the last layers; or "all".
        top: The share of the layers with weights that counts as the last ones.
    """
    head = heads.head_layers(model)
    body = [layer for layer in weighted_layers(model) if layer not in head]
    learning = {"head": 0, "top": math.ceil(top * len(body)), "all": len(body)}[which]
    for place, layer in enumerate(body):
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = place >= len(body) - learning and not normalises


def in_training_precision(network: Callable[[], Any]) -> Any:
    """Builds a network in the precision that this machine trains in."""
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(runtime.training_precision())
    try:
        return network()
    finally:
        keras.config.set_dtype_policy(usual)


def in_single_precision(model: Any, network: Callable[[], Any]) -> Any:
    """The same network in float32: what is exported and compared is never of mixed precision."""
    if model.dtype_policy.name == "float32":
        return model
    single = network()
    backbones.set_weights(single, model.get_weights())
    return single
