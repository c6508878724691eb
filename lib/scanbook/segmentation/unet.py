"""A small U-Net, trained on the training images that have masks.

After Ronneberger et al. (MICCAI 2015). It works at half the image's resolution, which is four times as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from scanbook import augmentation, registry, runtime, store, training
from scanbook.augmentation import Augmenter
from scanbook.config import Study
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.pixels import sample_fingerprint
from scanbook.models import engines
from scanbook.runtime.steps import reported

keras = runtime.keras()
layers, ops = keras.layers, keras.ops

WIDTHS = (16, 24, 32, 48, 64)
"""Channels at each resolution, from half the image's downwards."""
AUGMENTATION = {"lesion": "dermoscopy", "lungs": "xray", "retina": "dermoscopy"}
"""Augmentation policy by structure: a mirrored chest has its heart on the wrong side; lesions have no orientation."""


@dataclass(frozen=True)
class UNet:
    """A trained U-Net.

    Attributes:
        folder: Its stage.
        history: One row per epoch: `epoch`, `loss`, `dice`, `validation_loss`, `validation_dice`, `seconds` and
            `device`.
        images: Number of training images.
    """

    folder: Path
    history: pd.DataFrame
    images: int

    @property
    def seconds(self) -> float:
        """Training time in seconds."""
        return store.seconds(self.folder)

    def engine(self, threads: int | None = None) -> engines.OpenVinoEngine:
        """Return its engine: uint8 RGB `(n, h, w, 3)` to logits, float32 `(n, h, w)`, above 0 inside the structure."""
        mode = "latency" if threads else "throughput"
        return engines.OpenVinoEngine(self.folder / "unet.xml", mode, threads)


def build(size: tuple[int, int]) -> Any:
    """Return an untrained U-Net of 0.2 million parameters.

    Args:
        size: Height and width of the images, each at least 32.

    Returns:
        A `keras.Model` from uint8 RGB `(n, h, w, 3)` to logits, float32 `(n, h, w)`.
    """
    images = keras.Input((*size, 3), dtype="uint8", name="images")
    # ops.image.resize, not layers.Resizing: that layer defaults to training mode and sets it for all later layers, so
    # an exported network would normalise by the batch.
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    x = _convolution(x, WIDTHS[0], strides=2)
    skips = []
    for width in WIDTHS[:-1]:
        x = _convolution(_convolution(x, width), width)
        skips.append(x)
        x = layers.MaxPooling2D(padding="same")(x)
    x = _convolution(x, WIDTHS[-1])
    for width, skip in zip(WIDTHS[-2::-1], skips[::-1], strict=True):
        x = ops.image.resize(x, skip.shape[1:3])
        x = layers.Concatenate()([x, skip])
        x = _convolution(_convolution(x, width), width)
    x = layers.Conv2D(1, 1)(x)
    return keras.Model(images, layers.Reshape(size)(ops.image.resize(x, size)), name="unet")


def _convolution(x: Any, width: int, strides: int = 1) -> Any:
    """Apply a 3 × 3 convolution, batch normalisation and ReLU."""
    x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)  # as in backbones.build: the default lags behind a short training
    return layers.ReLU()(x)


def loss(expert: Any, logits: Any) -> Any:
    """Return binary cross-entropy plus one minus the soft Dice coefficient, per image, `(n,)`; inputs `(n, h, w)`.

    Dice weights small and large lesions equally. Cross-entropy has a gradient where Dice is flat.
    """
    expert, axes = ops.cast(expert, logits.dtype), (1, 2)
    entropy = ops.mean(ops.softplus(logits) - expert * logits, axes)
    inside = ops.sigmoid(logits)
    overlap, total = ops.sum(inside * expert, axes), ops.sum(inside, axes) + ops.sum(expert, axes)
    return entropy + 1 - (2 * overlap + 1) / (total + 1)


def dice(expert: Any, logits: Any) -> Any:
    """Return the Dice coefficient of each image's mask, where the logits are above 0; 1 where both are empty."""
    expert, predicted = ops.cast(expert, "float32"), ops.cast(logits > 0, "float32")
    overlap, total = ops.sum(predicted * expert, (1, 2)), ops.sum(predicted, (1, 2)) + ops.sum(expert, (1, 2))
    return ops.where(total > 0, 2 * overlap / ops.maximum(total, 1), 1.0)


class MaskedBatches(training.Batches):
    """Augmented training batches; each mask is warped like its image."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        places = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        images, masks = super().__getitem__(index)
        parameters = augmentation.parameters(self.augment.policy, self.augment.count, self.augment.seed, self.epoch)
        size = masks.shape[1:]
        warps = augmentation.matrices(parameters.iloc[places], size)
        flags, border = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, cv2.BORDER_REFLECT_101  # both policies reflect
        warped = [
            cv2.warpAffine(mask.astype(np.uint8), warp, size[::-1], flags=flags, borderMode=border)
            for mask, warp in zip(masks, warps, strict=True)
        ]
        return images, np.stack(warped)


def train(
    study: Study,
    manifest: Manifest,
    images: np.ndarray,
    *,
    experts: np.ndarray,
    has_mask: np.ndarray,
    selection: np.ndarray,
) -> UNet:
    """Return a U-Net, trained unless the store has it, of the epoch with the best Dice on validation.

    Args:
        study: `segmentation.unet` states the training, `seed` the initial weights and the order.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        experts: Masks of the source, bool `(n, h, w)`.
        has_mask: Which images have one, bool `(n,)`; some training images must.
        selection: Rows of the validation images, with masks, that select the epoch; without any, the last is kept.
    """
    values, structure = study.segmentation.unet, study.segmentation.structure
    rows = manifest.rows(TRAIN)
    rows = rows[has_mask[rows]]
    sampled = np.random.default_rng([study.seed, 3]).permutation(len(rows))[: values.images]
    rows = rows[np.sort(sampled)]
    inputs = {
        "manifest": manifest.fingerprint(),
        "pixels": sample_fingerprint(images),
        "size": images.shape[1:3],
        "structure": structure,
        "unet": values,
        "policy": registry.policy(AUGMENTATION[structure]),
        "rows": store.fingerprint(rows, selection),
        "seed": study.seed,
    }

    def fit(folder: Path) -> None:
        runtime.configure(study.seed)
        model = build((images.shape[1], images.shape[2]))
        augment = Augmenter(AUGMENTATION[structure], len(rows), study.seed)
        batches = MaskedBatches(images, rows, experts[rows], values.batch_size, augment)
        model.compile(training.optimizer(values, batches.num_batches), loss, metrics=[dice])
        watched = selection if len(selection) else rows[:64]
        # Keras traces the training step twice where the variables of its optimizer and metrics are not yet built.
        model.optimizer.build(model.trainable_variables)
        model.evaluate(images[watched[:1]], experts[watched[:1]].astype(np.uint8), verbose=0)
        clock = training.Clock("U-Net", lines=True, epochs=values.epochs)
        best = keras.callbacks.EarlyStopping(
            "val_dice", mode="max", patience=values.epochs, restore_best_weights=len(selection) > 0
        )
        with reported(clock.step):
            result = model.fit(
                batches,
                validation_data=(images[watched], experts[watched].astype(np.uint8)),
                validation_batch_size=64,
                epochs=values.epochs,
                verbose=int(runtime.interactive()),
                callbacks=[clock, best],
            )
        history = pd.DataFrame(result.history).rename(columns=lambda key: key.replace("val_", "validation_"))
        history.insert(0, "epoch", np.arange(1, len(history) + 1))
        history["seconds"], history["device"] = clock.times, runtime.device()
        store.atomic_write(folder / "history.csv", history.to_csv(index=False))
        engines.save_openvino(engines.to_openvino(model), folder / "unet.xml")

    folder = store.stage("unet", inputs, fit, __name__)
    return UNet(folder, pd.read_csv(folder / "history.csv"), len(rows))
