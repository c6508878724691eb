"""A small U-Net, trained on the training images that have masks.

After Ronneberger et al. (MICCAI 2015), at half the image's resolution inside: outlines are smooth, and it is four times
as fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from scanbook import augmentation, runtime, store, training
from scanbook.augmentation import Augmenter
from scanbook.config import Study
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.pixels import sample_fingerprint
from scanbook.models import engines

keras = runtime.keras()
layers, ops = keras.layers, keras.ops

WIDTHS = (16, 24, 32, 48, 64)
"""Channels at each resolution, from half the image's on down."""
AUGMENTATION = {"lesion": "dermoscopy", "lungs": "xray", "retina": "dermoscopy"}
"""Policy by target: a mirrored chest has its heart on the wrong side, a lesion or a retina has no right way up."""


@dataclass(frozen=True)
class UNet:
    """A trained U-Net.

    Attributes:
        folder: The stage that holds it.
        history: A row an epoch: `epoch`, `loss`, `dice`, `validation_loss`, `validation_dice` and `seconds`.
        images: How many images it learned from.
    """

    folder: Path
    history: pd.DataFrame
    images: int

    @property
    def seconds(self) -> float:
        """Time that training took, in seconds."""
        return store.seconds(self.folder)

    def engine(self, threads: int | None = None) -> engines.OpenVinoEngine:
        """Runs it: uint8 RGB `(n, h, w, 3)` to logits, float32 `(n, h, w)`, above 0 inside the target."""
        mode = "latency" if threads else "throughput"
        return engines.OpenVinoEngine(self.folder / "unet.xml", mode, threads)


def build(size: tuple[int, int]) -> Any:
    """A U-Net of 0.2 million parameters.

    Args:
        size: Height and width of the images; any from 32 on.

    Returns:
        A `keras.Model` from uint8 RGB `(n, h, w, 3)` to logits, float32 `(n, h, w)`.
    """
    images = keras.Input((*size, 3), dtype="uint8", name="images")
    # ops.image.resize, not layers.Resizing: that layer takes itself to be training unless told, and with it all layers
    # after it, so that an exported network would normalise by the batch
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    x = _convolution(x, WIDTHS[0], strides=2)
    skipped = []
    for width in WIDTHS[:-1]:
        x = _convolution(_convolution(x, width), width)
        skipped.append(x)
        x = layers.MaxPooling2D(padding="same")(x)
    x = _convolution(x, WIDTHS[-1])
    for width, skip in zip(WIDTHS[-2::-1], skipped[::-1], strict=True):
        x = ops.image.resize(x, skip.shape[1:3])
        x = layers.Concatenate()([x, skip])
        x = _convolution(_convolution(x, width), width)
    x = layers.Conv2D(1, 1)(x)
    return keras.Model(images, layers.Reshape(size)(ops.image.resize(x, size)), name="unet")


def _convolution(x: Any, width: int, strides: int = 1) -> Any:
    x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)  # as in backbones.build: the default lags behind a short training
    return layers.ReLU()(x)


def loss(truth: Any, logits: Any) -> Any:
    """Binary cross-entropy plus one minus the soft Dice coefficient of each image; `(n, h, w)` both, a loss an image.

    Dice sees a small lesion as well as a large one; cross-entropy has a gradient where Dice is flat.
    """
    truth, axes = ops.cast(truth, logits.dtype), (1, 2)
    entropy = ops.mean(ops.softplus(logits) - truth * logits, axes)
    inside = ops.sigmoid(logits)
    overlap, total = ops.sum(inside * truth, axes), ops.sum(inside, axes) + ops.sum(truth, axes)
    return entropy + 1 - (2 * overlap + 1) / (total + 1)


def dice(truth: Any, logits: Any) -> Any:
    """Dice coefficient of each image's mask, where the logits are above 0; 1 where both are empty."""
    truth, found = ops.cast(truth, "float32"), ops.cast(logits > 0, "float32")
    overlap, total = ops.sum(found * truth, (1, 2)), ops.sum(found, (1, 2)) + ops.sum(truth, (1, 2))
    return ops.where(total > 0, 2 * overlap / ops.maximum(total, 1), 1.0)


class MaskedBatches(training.Batches):
    """Augmented training batches; each mask goes through the same warp as its image."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        places = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        images, masks = super().__getitem__(index)
        drawn = augmentation.parameters(self.augment.policy, self.augment.count, self.augment.seed, self.epoch)
        size = masks.shape[1:]
        warps = augmentation.matrices(drawn.iloc[places], size)
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
    truth: np.ndarray,
    known: np.ndarray,
    held_out: np.ndarray,
) -> UNet:
    """Trains a U-Net, or finds it in the store, and keeps the epoch with the best Dice on validation.

    Args:
        study: Its `segmentation.unet` says how, its seed where from.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        truth: Masks of the source, bool `(n, h, w)`.
        known: Which images have one, bool `(n,)`; some training images must.
        held_out: Rows of the validation images, with masks, that choose the epoch; empty keeps the last epoch.
    """
    values, target = study.segmentation.unet, study.segmentation.structure
    rows = manifest.rows(TRAIN)
    rows = rows[known[rows]]
    drawn = np.random.default_rng([study.seed, 3]).permutation(len(rows))[: values.images]
    rows = rows[np.sort(drawn)]
    inputs = {
        "manifest": manifest.fingerprint(),
        "pixels": sample_fingerprint(images),
        "size": images.shape[1:3],
        "target": target,
        "unet": values,
        "rows": store.fingerprint(rows, held_out),
        "seed": study.seed,
    }

    def make(folder: Path) -> None:
        runtime.configure(study.seed)
        model = build((images.shape[1], images.shape[2]))
        policy = AUGMENTATION[target]
        augment = Augmenter(policy, len(rows), study.seed)
        batches = MaskedBatches(images, rows, truth[rows], values.batch_size, augment)
        model.compile(training.optimizer(values, batches.num_batches), loss, metrics=[dice])
        watched = held_out if len(held_out) else rows[:64]
        clock = training.Clock("U-Net", lines=True)
        best = keras.callbacks.EarlyStopping(
            "val_dice", mode="max", patience=values.epochs, restore_best_weights=len(held_out) > 0
        )
        result = model.fit(
            batches,
            validation_data=(images[watched], truth[watched].astype(np.uint8)),
            validation_batch_size=64,
            epochs=values.epochs,
            verbose=int(runtime.interactive()),
            callbacks=[clock, best],
        )
        history = pd.DataFrame(result.history).rename(columns=lambda key: key.replace("val_", "validation_"))
        history.insert(0, "epoch", np.arange(1, len(history) + 1))
        history["seconds"] = clock.times
        store.atomic_write(folder / "history.csv", history.to_csv(index=False))
        engines.save_openvino(engines.to_openvino(model), folder / "unet.xml")

    folder = store.stage("unet", inputs, make, __name__)
    return UNet(folder, pd.read_csv(folder / "history.csv"), len(rows))


def parameters(size: tuple[int, int]) -> int:
    """How many parameters the network has."""
    return int(build(size).count_params())
