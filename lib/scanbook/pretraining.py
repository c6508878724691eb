"""The small weights that scanbook ships: MobileNetV2 0.35, trained on drawn images of other classes and modalities.

They let the default study transfer something without a network. None of the default study's classes is among those
drawn here. The backbone learns to name the class and, of lesions, to say how strong each structure is.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from scanbook import backbones, runtime, training
from scanbook.augmentation import Augmenter
from scanbook.catalogue import BACKBONES
from scanbook.datasets.drawn import pretraining as drawn
from scanbook.store import atomic_write
from scanbook.study import Training

BACKBONE = "mobilenet_v2_0.35"
SIZE, IMAGES, HELD_OUT, SEED = 96, 26_000, 1_000, 2026
VALUES = Training(epochs=14, learning_rate=3e-3, batch_size=64)

keras = runtime.keras()
ops = keras.ops


def pretrain() -> None:
    """Draws the images, trains the backbone from random weights and replaces the shipped file."""
    runtime.configure(SEED)
    print(f"drawing {IMAGES} images: {len(drawn.CLASSES)} classes and mixtures", flush=True)
    images, labels, strengths = drawn.draw(IMAGES, SIZE, SEED, runtime.progress)
    targets = np.concatenate([labels[:, None], strengths], axis=1).astype(np.float32)
    model = backbones.build(BACKBONE, (SIZE, SIZE), len(drawn.CLASSES) + len(drawn.STRUCTURES))
    rows = np.arange(HELD_OUT, IMAGES)
    augment = Augmenter("dermoscopy", len(rows), SEED)
    batches = training.Batches(images, rows, targets[rows], VALUES.batch_size, augment)
    model.compile(training.optimizer(VALUES, batches.num_batches), loss, metrics=[class_accuracy, strength_error])
    model.fit(
        batches,
        validation_data=(images[:HELD_OUT], targets[:HELD_OUT]),
        epochs=VALUES.epochs,
        verbose=int(runtime.interactive()),
        callbacks=[training.Clock("pretraining", lines=True)],
    )
    arrays = {f"{index:03d}": _half(array) for index, array in enumerate(backbones.body_weights(model))}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(backbones.SHIPPED / BACKBONES[BACKBONE].shipped, buffer.getvalue())


def _split(targets: Any, outputs: Any) -> tuple[Any, Any, Any, Any]:
    """Class indices, strengths, logits of the classes and logits of the strengths."""
    count = len(drawn.CLASSES)
    return ops.cast(targets[:, 0], "int32"), targets[:, 1:], outputs[:, :count], outputs[:, count:]


def loss(targets: Any, outputs: Any) -> Any:
    """Cross-entropy of the class where there is one, and of every strength where there is a lesion.

    Args:
        targets: `(n, 1 + structures)`: class index or `NO_CLASS`, then strengths between 0 and 1, or NaN.
        outputs: Logits, `(n, classes + structures)`.

    Returns:
        One loss an image, `(n,)`.
    """
    labels, strengths, class_logits, strength_logits = _split(targets, outputs)
    named = labels != drawn.NO_CLASS
    by_class = keras.losses.sparse_categorical_crossentropy(ops.where(named, labels, 0), class_logits, from_logits=True)
    known = ops.logical_not(ops.isnan(strengths))
    by_strength = ops.binary_crossentropy(ops.where(known, strengths, 0.0), strength_logits, from_logits=True)
    strong = ops.sum(ops.where(known, by_strength, 0.0), axis=-1)
    return ops.where(named, by_class, 0.0) + strong


def class_accuracy(targets: Any, outputs: Any) -> Any:
    """Share of the images with a class that are given it."""
    labels, _, class_logits, _ = _split(targets, outputs)
    named = ops.cast(labels != drawn.NO_CLASS, "float32")
    right = ops.cast(ops.cast(ops.argmax(class_logits, axis=-1), "int32") == labels, "float32")
    return ops.sum(right * named) / ops.maximum(ops.sum(named), 1.0)


def strength_error(targets: Any, outputs: Any) -> Any:
    """Mean absolute error of the strengths of lesions, between 0 and 1."""
    _, strengths, _, strength_logits = _split(targets, outputs)
    known = ops.logical_not(ops.isnan(strengths))
    error = ops.where(known, ops.abs(ops.sigmoid(strength_logits) - ops.where(known, strengths, 0.0)), 0.0)
    return ops.sum(error) / ops.maximum(ops.sum(ops.cast(known, "float32")), 1.0)


def _half(array: np.ndarray) -> np.ndarray:
    """Half precision, except where it would lose small variances of batch normalisation."""
    half = array.astype(np.float16)
    return half if np.allclose(half.astype(np.float32), array, rtol=2e-3, atol=1e-6) else array
