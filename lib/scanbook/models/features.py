"""Features of a frozen backbone, extracted once by OpenVINO and cached in the store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import registry, runtime
from scanbook.augmentation import Augmenter
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.pixels import sample_fingerprint
from scanbook.errors import ModelError
from scanbook.models import backbones, engines
from scanbook.models.backbones import Weights
from scanbook.store import seconds, stage


def extract(manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> tuple[np.ndarray, float]:
    """Extract the pooled features of every image, or read them from the store; vectors are features themselves.

    Args:
        manifest: The dataset, split.
        images: Images of all its rows, or what was made of them, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its weights.

    Returns:
        Features, a read-only memory map, float32 `(n, channels)`, zeros for rows without a split; and the seconds of
        their extraction, now or when they were stored.
    """
    if backbone == registry.EMBEDDINGS:
        return images, 0.0
    rows = np.flatnonzero((manifest.frame["split"] != "").to_numpy())

    def build(folder: Path) -> None:
        engine = _engine(folder, backbone, weights, images.shape[1:3])
        shape = (len(images), engine.predict(images[rows[:1]])[0].shape[1])
        features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, shape)  # zeros at first
        for chunk in runtime.progress(engines.chunks(rows), f"features of {backbone}"):
            features[chunk] = engine.predict(images[chunk])[0]
        features.flush()

    needed = inputs(manifest, images, backbone, weights) | {"manifest": manifest.fingerprint(splits=False)}
    folder = stage("features", needed, build, __name__)
    return np.load(folder / "features.npy", mmap_mode="r"), _seconds(folder)


def extract_views(
    manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights, *, policy: str, views: int, seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Extract the pooled features of augmented copies of the training images, with their labels.

    A policy that mixes images does so within chunks, in an order sampled anew for each view: neighbours in a manifest
    are often labelled alike.

    Args:
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its weights.
        policy: Name of the augmentation policy.
        views: Number of copies of each image.
        seed: Seed of the sampled parameters.

    Returns:
        Features, a read-only memory map, float32 `(views, m, channels)`, and labels, float32 `(views, m, k)`, those of
        the images or, if the policy mixes, shares; for the m training images in the manifest's order. And the seconds
        of their extraction, now or when they were stored.
    """
    rows = manifest.rows(TRAIN)
    augmentation = {"policy": registry.policy(policy), "views": views, "seed": seed}

    def build(folder: Path) -> None:
        engine = _engine(folder, backbone, weights, images.shape[1:3])
        augment = Augmenter(policy, len(rows), seed)
        own = manifest.label_values(TRAIN)
        labels = np.tile(own, (views, 1, 1))
        shape = (views, len(rows), engine.predict(images[rows[:1]])[0].shape[1])
        features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, shape)
        for view in runtime.progress(range(views), f"augmented features of {backbone}"):
            order = np.arange(len(rows))
            if augment.mixes:
                order = np.random.default_rng([seed, 1, view]).permutation(order)
            for chunk, places in enumerate(engines.chunks(order)):
                copies = augment(images[rows[places]], places, view)
                copies, labels[view, places] = augment.mix(copies, own[places], view, chunk)
                features[view, places] = engine.predict(copies)[0]
        features.flush()
        np.save(folder / "labels.npy", labels)

    folder = stage("features", inputs(manifest, images, backbone, weights) | augmentation, build, __name__)
    return np.load(folder / "features.npy", mmap_mode="r"), np.load(folder / "labels.npy"), _seconds(folder)


def inputs(manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> dict[str, object]:
    """Return what a stage depends on that uses these images and this backbone."""
    return {
        "manifest": manifest.fingerprint(),
        "size": images.shape[1:3],
        "pixels": sample_fingerprint(images),
        **backbones.identify(backbone, weights),
    }


def _engine(work: Path, backbone: str, weights: Weights, size: tuple[int, ...]) -> engines.OpenVinoEngine:
    """Return the backbone for OpenVINO, converted once: that takes longer than the features of a thousand images.

    The seconds that the store saved are written to `work`, since durations of extraction are compared.
    """
    started = time.perf_counter()
    folder = _converted(backbone, weights, size)
    np.save(work / "saved_seconds.npy", max(0.0, seconds(folder) - (time.perf_counter() - started)))
    return engines.OpenVinoEngine(folder / "model.xml", "throughput")


def open_backbone(backbone: str, weights: Weights, size: tuple[int, int]) -> engines.OpenVinoEngine:
    """Return the engine that extracts features, from uint8 `(n, h, w, 3)` to float32 `(n, channels)`.

    Args:
        backbone: Name of the backbone.
        weights: Its weights.
        size: Height and width of the images.
    """
    return engines.OpenVinoEngine(_converted(backbone, weights, size) / "model.xml", "throughput")


def _converted(backbone: str, weights: Weights, size: tuple[int, ...]) -> Path:
    """Return the folder with the backbone for OpenVINO."""

    def build(folder: Path) -> None:
        model = backbones.pooled(backbones.build(backbone, (size[0], size[1]), 1, weights))
        converted = engines.to_openvino(model)
        if weights.spec:  # of the listed backbones tests compare each
            _check_parity(backbone, model, converted, (size[0], size[1]))
        engines.save_openvino(converted, folder / "model.xml")

    return stage("openvino", {"size": size, **backbones.identify(backbone, weights)}, build, __name__)


def _check_parity(backbone: str, model: Any, converted: Any, size: tuple[int, int]) -> None:
    """Raise a `ModelError` if OpenVINO's features are not Keras's.

    In KerasHub's CSPResNeXt they differ by 4 % of their spread: OpenVINO's conversion is right, and what its plugin for
    processors makes of it is not (seen in 2026.4).
    """
    images = np.random.default_rng(0).integers(0, 256, (4, *size, 3), np.uint8)
    expected = np.asarray(backbones.networks.keras.ops.convert_to_numpy(model(images, training=False)))
    difference = engines.parity(expected, engines.OpenVinoEngine(converted).predict(images)[0])
    if not difference <= engines.PARITY:
        raise ModelError(
            f"backbone {backbone}: its features by OpenVINO differ from Keras's by {difference:.2g} of their spread on "
            f"{len(images)} images, at most {engines.PARITY:g} is allowed; name another backbone"
        )


def _seconds(folder: Path) -> float:
    """Return the seconds of extraction from images and a backbone's weights alone."""
    return seconds(folder) + float(np.load(folder / "saved_seconds.npy"))
