"""Features of a frozen backbone, extracted once, by OpenVINO, and kept in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanbook import backbones, engines, runtime
from scanbook.augmentation import Augmenter
from scanbook.backbones import Weights
from scanbook.manifest import TRAIN, Manifest
from scanbook.pixels import sample_fingerprint
from scanbook.store import seconds, stage

CHUNK = 512


def extract(manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> tuple[np.ndarray, float]:
    """Pooled features of every image.

    Args:
        manifest: The dataset, split.
        images: Its pixels, or what was made of them, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its weights.

    Returns:
        Features, float32 `(n, channels)`, zeros for rows in no part; and the seconds that extracting them took, now or
        when they came into the store.
    """
    rows = np.flatnonzero((manifest.frame["part"] != "").to_numpy())

    def build(folder: Path) -> None:
        engine = _engine(backbone, weights, images.shape[1:3])
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        found = [engine.predict(images[chunk])[0] for chunk in runtime.progress(chunks, f"features of {backbone}")]
        features = np.zeros((len(images), found[0].shape[1]), np.float32)
        features[rows] = np.concatenate(found)
        np.save(folder / "features.npy", features)

    folder = stage("features", inputs(manifest, images, backbone, weights), build, __name__)
    return np.load(folder / "features.npy"), seconds(folder)


def extract_views(
    manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights, *, policy: str, views: int, seed: int
) -> np.ndarray:
    """Pooled features of augmented copies of the training images.

    Args:
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its weights.
        policy: Name of the augmentation policy.
        views: Copies of each image.
        seed: Seed of what the policy draws.

    Returns:
        float32 `(views, m, channels)`, for the m training images in the manifest's order.
    """
    rows = manifest.rows(TRAIN)
    drawn = {"policy": policy, "views": views, "seed": seed}

    def build(folder: Path) -> None:
        engine = _engine(backbone, weights, images.shape[1:3])
        augment = Augmenter(policy, len(rows), seed)
        passes = []
        for view in runtime.progress(range(views), f"augmented features of {backbone}"):
            places = [np.arange(start, min(start + CHUNK, len(rows))) for start in range(0, len(rows), CHUNK)]
            passes.append(
                np.concatenate([engine.predict(augment(images[rows[place]], place, view))[0] for place in places])
            )
        np.save(folder / "features.npy", np.stack(passes))

    folder = stage("features", inputs(manifest, images, backbone, weights) | drawn, build, __name__)
    return np.load(folder / "features.npy")


def inputs(manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> dict[str, object]:
    """What anything computed from these images by this backbone depends on, for the name of its stage."""
    return {
        "manifest": manifest.fingerprint(),
        "size": images.shape[1:3],
        "pixels": sample_fingerprint(images),
        "backbone": backbone,
        "weights": weights.digest,
    }


def _engine(backbone: str, weights: Weights, size: tuple[int, ...]) -> engines.OpenVinoEngine:
    model = backbones.pooled(backbones.build(backbone, (size[0], size[1]), 1, weights))
    return engines.OpenVinoEngine(engines.to_openvino(model), "throughput")
