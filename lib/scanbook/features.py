"""Features of a frozen backbone, extracted once, by OpenVINO, and kept in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scanbook import backbones, engines, runtime
from scanbook.augmentation import Augmenter
from scanbook.backbones import Weights
from scanbook.manifest import TRAIN, Manifest
from scanbook.store import fingerprint, stage

CHUNK = 512


def extract(
    manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights, kind: str = "original"
) -> np.ndarray:
    """Pooled features of every image.

    Args:
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its weights.
        kind: What the pixels show: "original", or a name of how they were cut out; part of the stage's name.

    Returns:
        float32 `(n, channels)`; rows in no part are zeros.
    """
    rows = np.flatnonzero((manifest.frame["part"] != "").to_numpy())
    inputs = _inputs(manifest, images, backbone, weights) | {"kind": kind}

    def build(folder: Path) -> None:
        engine = _engine(backbone, weights, images.shape[1:3])
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        found = [engine.predict(images[chunk])[0] for chunk in runtime.progress(chunks, f"features of {backbone}")]
        features = np.zeros((len(images), found[0].shape[1]), np.float32)
        features[rows] = np.concatenate(found)
        np.save(folder / "features.npy", features)

    return np.load(stage("features", inputs, build, __name__) / "features.npy")


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
    inputs = _inputs(manifest, images, backbone, weights) | {"policy": policy, "views": views, "seed": seed}

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

    return np.load(stage("features", inputs, build, __name__) / "features.npy")


def sample_fingerprint(images: np.ndarray) -> str:
    """Fingerprint of up to 256 images, evenly spread: it changes with the code that decoded, resized or cut them out.

    The manifest's own fingerprint knows the files, but not what was made of them.

    Args:
        images: uint8 `(n, h, w, 3)`.
    """
    picked = np.linspace(0, len(images) - 1, min(len(images), 256)).astype(int)
    return fingerprint(np.ascontiguousarray(images[picked]).tobytes())


def _inputs(manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> dict[str, object]:
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
