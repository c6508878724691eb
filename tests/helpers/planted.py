"""A tiny dataset whose classes are colours, and small networks with batch-norm statistics of these images."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import export as exports
from scanbook.bundle import Bundle
from scanbook.config import Study
from scanbook.data import images
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest, finding_column
from scanbook.models import backbones
from scanbook.models.backbones import Weights
from scanbook.store import file_digest

CLASSES = ("sky", "leaf", "brick")
COLOURS = np.array([(70, 110, 190), (80, 160, 70), (180, 80, 60)])
SIZE = (64, 64)
COUNT = 60

_FOLDER = tempfile.TemporaryDirectory(prefix="planted-")  # removed when the tests end


@cache
def manifest() -> Manifest:
    """Return PNG files of 80 × 96 pixels, class by class: 36 in train, 11 in validation, 12 in test, one excluded."""
    draw = np.random.default_rng(7)
    rows = []
    for index in range(COUNT):
        label = index * len(CLASSES) // COUNT
        split = (TRAIN, TRAIN, TRAIN, VALIDATION, TEST)[index % 5] if index != 3 else ""
        colour = COLOURS[label] + draw.normal(0, 12, 3)
        texture = draw.normal(0, 25, (10, 12, 3)).repeat(8, 0).repeat(8, 1)
        path = Path(_FOLDER.name) / f"{index}.png"
        path.write_bytes(images.encode_png(np.clip(colour + texture, 0, 255).astype(np.uint8)))
        rows.append((f"i{index}", str(path), CLASSES[label], f"g{index}", "", split))
    frame = pd.DataFrame(rows, columns=["image_id", "path", "label", "group", "mask_path", "split"])
    return Manifest("planted", frame, CLASSES)


FINDINGS = ("cool", "vivid")


@cache
def observed(missing: float = 0.25) -> Manifest:
    """Return the colours as findings: sky is cool, brick is vivid, leaf is both; a share of the labels is missing."""
    frame = manifest().frame
    stated = np.stack([frame["label"] != "brick", frame["label"] != "sky"], 1).astype(float)
    stated[np.random.default_rng(3).random(stated.shape) < missing] = np.nan
    columns = {finding_column(name): stated[:, place] for place, name in enumerate(FINDINGS)}
    return Manifest.of_findings("planted", frame.assign(**columns), FINDINGS)


@cache
def pixels() -> np.ndarray:
    """Return the images of `manifest` at `SIZE`, uint8 `(60, 64, 64, 3)`, read-only."""
    loaded = np.stack([images.load(Path(path), SIZE) for path in manifest().frame["path"]])
    loaded.flags.writeable = False
    return loaded


def study(**changes: Any) -> Study:
    """Return a study of these images with a few epochs."""
    values = {
        "study": "planted",
        "title": "Planted colours",
        "question": "Is it blue?",
        "modality": "photograph",
        "dataset": {"adapter": "folder", "source": "made for a test", "licence": "CC0"},
        "image_size": SIZE[0],
        "backbones": ["baseline_cnn"],
        "head": {"epochs": 8, "learning_rate": 0.1, "batch_size": 16, "l2": [0.001], "views": 2},
        "scratch": {"epochs": 6, "learning_rate": 3e-3, "batch_size": 16},
        "fine_tuning": {"epochs": 2, "learning_rate": 1e-3, "batch_size": 16},
    }
    return Study.model_validate(values | changes)


def use_data_statistics(model: Any, batch: np.ndarray) -> Any:
    """Gives a network the batch-norm statistics of a batch, and scales and offsets that are not the initial ones.

    An untrained network answers every image alike and would pass any test of agreement.
    """
    draw = np.random.default_rng(1)
    norms = [layer for layer in model.layers if isinstance(layer, backbones.networks.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        channels = layer.beta.shape
        if layer.gamma is not None:  # Inception's have none
            layer.gamma.assign(draw.uniform(0.7, 1.3, channels))
        layer.beta.assign(draw.normal(0, 0.2, channels))
        layer.momentum = 0.0
    model(batch, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


@cache
def network(name: str = "baseline_cnn") -> Any:
    """Return a network of three classes with the data's batch-norm statistics; do not change it."""
    backbones.networks.keras.utils.set_random_seed(3)
    return use_data_statistics(backbones.build(name, SIZE, len(CLASSES)), pixels())


@cache
def weights(name: str = "baseline_cnn") -> Weights:
    """Return the weights of `network` without its head, as pretrained weights."""
    path = Path(_FOLDER.name) / f"{name}.npz"
    np.savez(path, *backbones.body_weights(network(name)))
    return Weights("scanbook", path, file_digest(path))


def export(folder: Path, model: Any, temperature: float) -> Bundle:
    """Write the bundle of a network."""
    metrics = pd.DataFrame({"value": [0.5], "low": [0.4], "high": [0.6]}, index=["accuracy"])
    options = {"temperature": temperature, "abstain_below": 0.4, "metrics": metrics, "about": {"backbone": "tiny"}}
    return exports.write_bundle(folder, study(), manifest(), model, **options)
