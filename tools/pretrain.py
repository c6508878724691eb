"""The small weights that scanbook ships: MobileNetV2 0.35, trained on synthetic images of other classes and modalities.

They let the default study transfer something without a network. None of the default study's classes is among
the classes of these images.
"""

from __future__ import annotations

import io

import numpy as np
import pandas as pd

from scanbook import runtime, training
from scanbook.config import Training
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.models import backbones
from scanbook.registry import BACKBONES
from scanbook.store import atomic_write
from tools import pretraining_images

BACKBONE = "mobilenet_v2_0.35"
SIZE, IMAGES, HELD_OUT, SEED = 96, 22_000, 2_000, 2026
VALUES = Training(epochs=14, learning_rate=2e-3, batch_size=64, label_smoothing=0.1)


def pretrain() -> pd.DataFrame:
    """Synthesise the images, train the backbone from random weights and replace the shipped file.

    Returns:
        The history of the training: one row per epoch.
    """
    runtime.configure(SEED)
    print(f"synthesising {IMAGES} images of {len(pretraining_images.CLASSES)} classes", flush=True)
    images, y = pretraining_images.synthesise(IMAGES, SIZE, SEED)
    frame = pd.DataFrame({"image_id": np.arange(IMAGES).astype(str), "label": np.array(pretraining_images.CLASSES)[y]})
    frame["split"] = np.where(np.arange(IMAGES) < HELD_OUT, VALIDATION, TRAIN)
    frame = frame.assign(path="", group=frame["image_id"], mask_path="")
    model = backbones.build(BACKBONE, (SIZE, SIZE), len(pretraining_images.CLASSES))
    plan = training.Plan(f"{BACKBONE}, pretraining", VALUES, "dermoscopy", SEED)
    history = training.train_network(plan, model, images, Manifest("pretraining", frame, pretraining_images.CLASSES))
    body = backbones.body_weights(model)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{f"{index:03d}": _half(array) for index, array in enumerate(body)})
    atomic_write(backbones.SHIPPED / BACKBONES[BACKBONE].shipped, buffer.getvalue())
    return history


def _half(array: np.ndarray) -> np.ndarray:
    """Half precision, except where it would lose small variances of batch normalisation."""
    half = array.astype(np.float16)
    return half if np.allclose(half.astype(np.float32), array, rtol=2e-3, atol=1e-6) else array


if __name__ == "__main__":
    pretrain()
