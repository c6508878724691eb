"""What the sides work on: synthetic lesions, JPEG files, weights and a bundle, written once before measuring."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scanbook import runtime
from scanbook.data.adapters.synthetic import dataset, dermoscopy

EXTENSIONS = (".jpg", ".jpeg")
QUALITY = 90
"""Of the JPEG files."""
BATCH = 32
"""Images in a batch, on both sides."""


@contextmanager
def make(what: str, path: str, **options: Any) -> Iterator[Callable[[], float]]:
    """The side that makes one of them, unless it is there."""

    def once() -> float:
        target = Path(path)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            half = target.with_name(f"half-{target.name}")  # of a maker that was killed; it begins anew
            shutil.rmtree(half, ignore_errors=True)
            _MAKERS[what](half, **options)
            os.replace(half, target)
        return 0.0

    yield once


def photos(path: str | Path, size: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic lesions at a size.

    Args:
        path: The file that `make("lesions", …)` wrote.
        size: Height and width.
        first: The first of them.
        count: How many.

    Returns:
        uint8 `(count, size, size, 3)` and classes, int64 `(count,)`.
    """
    with np.load(path) as arrays:
        images, labels = arrays["images"][first : first + count], arrays["labels"][first : first + count]
    if images.shape[1] != size:
        images = np.stack([cv2.resize(each, (size, size), interpolation=cv2.INTER_AREA) for each in images])
    return images, labels


def files(folder: Path, count: int | None = None) -> list[Path]:
    """JPEG files below a folder, sorted; where a count is named, so many of them at most, drawn by lot."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    lot = np.random.default_rng(0).permutation(len(found))[:count]
    return [found[place] for place in np.sort(lot)]


def _lesions(path: Path, count: int, size: int, seed: int = 0) -> None:
    """Draws lesions of the default study's classes, at its priors."""
    images, labels = _drawn(count, size, seed)
    np.savez(path, images=images, labels=labels)


def _drawn(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng([seed, count])
    labels = draw.choice(len(dermoscopy.CLASSES), count, p=dermoscopy.PRIORS).astype(np.int64)
    latent = dermoscopy.sample_latent(labels, draw)
    seeds = draw.integers(2**31, size=(count, 2))
    images = np.empty((count, size, size, 3), np.uint8)

    def one(index: int) -> None:
        images[index] = dermoscopy.render(latent[index], int(seeds[index, 0]), int(seeds[index, 1]), size)[0]

    with ThreadPoolExecutor(runtime.cores()) as pool:
        list(pool.map(one, range(count)))
    return images, labels


def _jpegs(folder: Path, *, count: int, height: int, width: int, distinct: int, seed: int = 1) -> None:
    """Writes JPEG files in class folders: few synthetic lesions, shifted, mirrored and grained anew in every file."""
    side = max(height, width)
    images, labels = _drawn(min(distinct, count), side, seed)
    grain = np.random.default_rng(seed).normal(0, 4, (2 * side, 2 * side, 3)).astype(np.int8)
    for label in set(labels):
        (folder / dermoscopy.CLASSES[label]).mkdir(parents=True, exist_ok=True)

    def one(index: int) -> None:
        draw = np.random.default_rng([seed, index])
        source = index % len(images)
        picture = images[source][:, :: draw.choice([-1, 1])][:: draw.choice([-1, 1])]
        top, left = draw.integers(0, (side - height + 1, side - width + 1))
        picture = picture[top : top + height, left : left + width]
        y, x = draw.integers(0, side, 2)
        grained = np.clip(picture + grain[y : y + height, x : x + width].astype(np.int16), 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", grained, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        (folder / dermoscopy.CLASSES[labels[source]] / f"{index:06d}.jpg").write_bytes(data)

    with ThreadPoolExecutor(runtime.cores()) as pool:
        list(pool.map(one, range(count)))


def numbered(number: int) -> str:
    """Name of the folder of one of several synthetic datasets."""
    return f"{number:03d}"


def _datasets(folder: Path, *, count: int, each: int, size: int) -> None:
    """Writes so many images of the default study's dataset, `each` of one seed, in a folder of their own.

    Every one is drawn: a few that are varied would be near-duplicates of each other, or else could be told from those.
    """
    # processes: drawing holds Python's lock for half of its time
    with ProcessPoolExecutor(runtime.cores(), multiprocessing.get_context("spawn")) as pool:
        seeds = range(count // each)
        list(pool.map(_dataset, [folder / numbered(seed) for seed in seeds], repeat(each), seeds, repeat(size)))


def _dataset(folder: Path, images: int, seed: int, size: int) -> None:
    cv2.setNumThreads(1)
    dataset.write(folder, images, seed, size, workers=1)


def with_data_statistics(model: Any, images: np.ndarray) -> Any:
    """Gives a network of random weights the batch-norm statistics of images: without, its layers answer all alike."""
    norms = [each for each in model.layers if isinstance(each, runtime.keras().layers.BatchNormalization)]
    momenta = [each.momentum for each in norms]
    for each in norms:
        each.momentum = 0.0
    model(images[:BATCH], training=True)
    for each, momentum in zip(norms, momenta, strict=True):
        each.momentum = momentum
    return model


def _weights(path: Path, backbone: str, lesions: str, size: int, count: int = BATCH) -> None:
    """Random weights of a backbone, with the lesions' batch-norm statistics."""
    from scanbook.models import backbones

    runtime.configure(0)
    model = with_data_statistics(backbones.build(backbone, (size, size), 1), photos(lesions, size, 0, count)[0])
    np.savez(path, *backbones.body_weights(model))


def _classifier(path: Path, *, backbone: str, weights: str, lesions: str, size: int, train: int, held_out: int) -> None:
    """A trained network as a `.keras` file: a head on a frozen backbone, on `train` lesions."""
    from benchmarks import ours
    from scanbook import training

    images, labels = photos(lesions, size, 0, train + held_out)
    manifest = ours.manifest_of(labels, {"train": train, "validation": held_out - 1, "test": 1})
    study = ours.study_of(backbone, size, {"epochs": 12})
    found = training.transfer(study, manifest, images, backbone, ours.weights_of(backbone, weights))
    path.write_bytes((found.folder / "model.keras").read_bytes())


def _bundle(folder: Path, backbone: str, weights: str, size: int, classes: int) -> None:
    """A bundle of a network whose head is random: it answers as fast as a trained one."""
    import pandas as pd

    from benchmarks import ours
    from scanbook import export
    from scanbook.models import backbones

    runtime.configure(0)
    model = backbones.build(backbone, (size, size), classes, ours.weights_of(backbone, weights))
    manifest = ours.manifest_of(np.arange(classes), {"train": classes}, classes)
    metrics = pd.DataFrame({"value": [0.0], "low": [0.0], "high": [0.0]}, index=["accuracy"])
    export.write_bundle(
        folder,
        ours.study_of(backbone, size, {}),
        manifest,
        model,
        temperature=1.0,
        abstain_below=0.0,
        metrics=metrics,
        about={"backbone": backbone},
    )


def _photograph(path: Path, height: int, width: int, seed: int = 2) -> None:
    """One synthetic lesion as a JPEG file."""
    side = max(height, width)
    picture = _drawn(1, side, seed)[0][0][:height, :width]
    path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


_MAKERS: dict[str, Callable[..., None]] = {
    "lesions": _lesions,
    "jpegs": _jpegs,
    "datasets": _datasets,
    "weights": _weights,
    "classifier": _classifier,
    "bundle": _bundle,
    "photograph": _photograph,
}
