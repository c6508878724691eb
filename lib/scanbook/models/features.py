"""Features of a frozen backbone, extracted once, by OpenVINO, and kept in the store."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from scanbook import runtime
from scanbook.augmentation import Augmenter
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.pixels import sample_fingerprint
from scanbook.models import backbones, engines
from scanbook.models.backbones import Weights
from scanbook.store import seconds, stage


def extract(manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> tuple[np.ndarray, float]:
    """Pooled features of every image.

    Args:
        manifest: The dataset, split.
        images: Its pixels, or what was made of them, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its weights.

    Returns:
        Features, a read-only memory map, float32 `(n, channels)`, zeros for rows in no part; and the seconds that
        extracting them took, now or when they came into the store.
    """
    rows = np.flatnonzero((manifest.frame["split"] != "").to_numpy())

    def build(folder: Path) -> None:
        engine = _engine(folder, backbone, weights, images.shape[1:3])
        chunks = [rows[start : start + engines.CHUNK] for start in range(0, len(rows), engines.CHUNK)]
        shape = (len(images), engine.predict(images[rows[:1]])[0].shape[1])
        features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, shape)  # zeros at first
        for chunk in runtime.progress(chunks, f"features of {backbone}"):
            features[chunk] = engine.predict(images[chunk])[0]
        features.flush()

    folder = stage("features", inputs(manifest, images, backbone, weights), build, __name__)
    return np.load(folder / "features.npy", mmap_mode="r"), _seconds(folder)


def extract_views(
    manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights, *, policy: str, views: int, seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Pooled features of augmented copies of the training images, and their labels.

    A policy that mixes does so within chunks of images taken in an order drawn anew for each view: neighbours in a
    manifest are often of one class.

    Args:
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its weights.
        policy: Name of the augmentation policy.
        views: Copies of each image.
        seed: Seed of what the policy draws.

    Returns:
        Features, a read-only memory map, float32 `(views, m, channels)`, and labels as shares of the k classes, float32
        `(views, m, k)`, one-hot unless the policy mixes; for the m training images in the manifest's order. And the
        seconds that extracting them took, now or when they came into the store.
    """
    rows = manifest.rows(TRAIN)
    drawn = {"policy": policy, "views": views, "seed": seed}

    def build(folder: Path) -> None:
        engine = _engine(folder, backbone, weights, images.shape[1:3])
        augment = Augmenter(policy, len(rows), seed)
        one_hot = manifest.one_hot(TRAIN)
        labels = np.tile(one_hot, (views, 1, 1))
        shape = (views, len(rows), engine.predict(images[rows[:1]])[0].shape[1])
        found = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float32, shape)
        for view in runtime.progress(range(views), f"augmented features of {backbone}"):
            everyone = np.arange(len(rows))
            order = np.random.default_rng([seed, 1, view]).permutation(everyone) if augment.mixes else everyone
            for chunk, start in enumerate(range(0, len(rows), engines.CHUNK)):
                places = order[start : start + engines.CHUNK]
                copies = augment(images[rows[places]], places, view)
                copies, labels[view, places] = augment.mix(copies, one_hot[places], view, chunk)
                found[view, places] = engine.predict(copies)[0]
        found.flush()
        np.save(folder / "labels.npy", labels)

    folder = stage("features", inputs(manifest, images, backbone, weights) | drawn, build, __name__)
    return np.load(folder / "features.npy", mmap_mode="r"), np.load(folder / "labels.npy"), _seconds(folder)


def inputs(manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> dict[str, object]:
    """What anything computed from these images by this backbone depends on, for the name of its stage."""
    return {
        "manifest": manifest.fingerprint(),
        "size": images.shape[1:3],
        "pixels": sample_fingerprint(images),
        "backbone": backbone,
        "weights": weights.digest,
    }


def _engine(work: Path, backbone: str, weights: Weights, size: tuple[int, ...]) -> engines.OpenVinoEngine:
    """The backbone as OpenVINO runs it, converted once: that takes longer than the features of a thousand images.

    What converting it would have added, had it not been in the store, is noted in `work`: seconds are compared.
    """

    def build(folder: Path) -> None:
        model = backbones.pooled(backbones.build(backbone, (size[0], size[1]), 1, weights))
        engines.save_openvino(engines.to_openvino(model), folder / "model.xml")

    started = time.perf_counter()
    folder = stage("openvino", {"backbone": backbone, "weights": weights.digest, "size": size}, build, __name__)
    np.save(work / "spared.npy", max(0.0, seconds(folder) - (time.perf_counter() - started)))
    return engines.OpenVinoEngine(folder / "model.xml", "throughput")


def _seconds(folder: Path) -> float:
    """How long features take from images and a backbone's weights alone."""
    return seconds(folder) + float(np.load(folder / "spared.npy"))
