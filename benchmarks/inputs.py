"""Inputs of the sides: synthetic lesions, JPEG files, weights and a bundle, written once before measuring."""

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
"""Quality of the JPEG files."""
BATCH = 32
"""Images in a batch, on both sides."""


@contextmanager
def write(what: str, path: str, **options: Any) -> Iterator[Callable[[], float]]:
    """Yield a function that writes one input, unless it exists."""

    def write_once() -> float:
        target = Path(path)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(
                f"partial-{target.name}"
            )  # an interrupted writer left it; the next one starts again
            shutil.rmtree(partial, ignore_errors=True)
            _WRITERS[what](partial, **options)
            os.replace(partial, target)
        return 0.0

    yield write_once


def photos(path: str | Path, size: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return synthetic lesions at a size.

    Args:
        path: The file that `write("lesions", …)` wrote.
        size: Height and width.
        first: Index of the first.
        count: Number of images.

    Returns:
        uint8 `(count, size, size, 3)` and classes, int64 `(count,)`.
    """
    with np.load(path) as arrays:
        images, labels = arrays["images"][first : first + count], arrays["labels"][first : first + count]
    if images.shape[1] != size:
        images = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images])
    return images, labels


def jpeg_paths(folder: Path, count: int | None = None) -> list[Path]:
    """Return the JPEG files below a folder, sorted; with a `count`, at most that many, sampled at random."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    sample = np.random.default_rng(0).permutation(len(paths))[:count]
    return [paths[index] for index in np.sort(sample)]


def _lesions(path: Path, count: int, size: int, seed: int = 0) -> None:
    """Write lesions of the default study's classes, at its priors."""
    images, labels = _render_lesions(count, size, seed)
    np.savez(path, images=images, labels=labels)


def _render_lesions(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng([seed, count])
    labels = generator.choice(len(dermoscopy.CLASSES), count, p=dermoscopy.PRIORS).astype(np.int64)
    latent = dermoscopy.sample_latent(labels, generator)
    seeds = generator.integers(2**31, size=(count, 2))
    images = np.empty((count, size, size, 3), np.uint8)

    def process(index: int) -> None:
        images[index] = dermoscopy.render(latent[index], int(seeds[index, 0]), int(seeds[index, 1]), size)[0]

    with ThreadPoolExecutor(runtime.cores()) as pool:
        list(pool.map(process, range(count)))
    return images, labels


def _jpegs(folder: Path, *, count: int, height: int, width: int, distinct: int, seed: int = 1) -> None:
    """Write JPEG files in class folders: few synthetic lesions, each file with its own shift, mirroring and noise."""
    side = max(height, width)
    images, labels = _render_lesions(min(distinct, count), side, seed)
    noise = np.random.default_rng(seed).normal(0, 4, (2 * side, 2 * side, 3)).astype(np.int8)
    for label in set(labels):
        (folder / dermoscopy.CLASSES[label]).mkdir(parents=True, exist_ok=True)

    def process(index: int) -> None:
        generator = np.random.default_rng([seed, index])
        source = index % len(images)
        picture = images[source][:, :: generator.choice([-1, 1])][:: generator.choice([-1, 1])]
        top, left = generator.integers(0, (side - height + 1, side - width + 1))
        picture = picture[top : top + height, left : left + width]
        y, x = generator.integers(0, side, 2)
        noisy = np.clip(picture + noise[y : y + height, x : x + width].astype(np.int16), 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
        (folder / dermoscopy.CLASSES[labels[source]] / f"{index:06d}.jpg").write_bytes(data)

    with ThreadPoolExecutor(runtime.cores()) as pool:
        list(pool.map(process, range(count)))


def dataset_name(number: int) -> str:
    """Return the folder name of one of several synthetic datasets."""
    return f"{number:03d}"


def _datasets(folder: Path, *, count: int, images: int, size: int) -> None:
    """Write `count` images of the default study's dataset, `images` per seed, in one folder per seed.

    Every image is rendered: variations of a few images would be near-duplicates of each other.
    """
    # processes: rendering holds Python's lock for half of its time
    with ProcessPoolExecutor(runtime.cores(), multiprocessing.get_context("spawn")) as pool:
        seeds = range(count // images)
        list(pool.map(_dataset, [folder / dataset_name(seed) for seed in seeds], repeat(images), seeds, repeat(size)))


def _dataset(folder: Path, images: int, seed: int, size: int) -> None:
    cv2.setNumThreads(1)
    dataset.write(folder, images, seed, size, workers=1)


def use_data_statistics(model: Any, images: np.ndarray) -> Any:
    """Give a network of random weights the batch-norm statistics of images, so that its outputs differ by image."""
    norms = [layer for layer in model.layers if isinstance(layer, runtime.keras().layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images[:BATCH], training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model


def _weights(path: Path, backbone: str, lesions: str, size: int, count: int = BATCH) -> None:
    """Write random weights of a backbone, with the lesions' batch-norm statistics."""
    from scanbook.models import backbones

    runtime.configure(0)
    model = use_data_statistics(backbones.build(backbone, (size, size), 1), photos(lesions, size, 0, count)[0])
    np.savez(path, *backbones.body_weights(model))


def _classifier(path: Path, *, backbone: str, weights: str, lesions: str, size: int, train: int, held_out: int) -> None:
    """Write a trained network as a `.keras` file: a head on a frozen backbone, on `train` lesions."""
    from benchmarks import studies
    from scanbook import training

    images, labels = photos(lesions, size, 0, train + held_out)
    manifest = studies.make_manifest(labels, {"train": train, "validation": held_out - 1, "test": 1})
    study = studies.make_study(backbone, size, {"epochs": 12})
    trained = training.train_head(study, manifest, images, backbone, studies.find_weights(backbone, weights))
    path.write_bytes((trained.folder / "model.keras").read_bytes())


def _bundle(folder: Path, backbone: str, weights: str, size: int, classes: int) -> None:
    """Write a bundle of a network with a random head, which is as fast as a trained one."""
    import pandas as pd

    from benchmarks import studies
    from scanbook import export
    from scanbook.models import backbones

    runtime.configure(0)
    model = backbones.build(backbone, (size, size), classes, studies.find_weights(backbone, weights))
    manifest = studies.make_manifest(np.arange(classes), {"train": classes}, classes)
    metrics = pd.DataFrame({"value": [0.0], "low": [0.0], "high": [0.0]}, index=["accuracy"])
    export.write_bundle(
        folder,
        studies.make_study(backbone, size, {}),
        manifest,
        model,
        temperature=1.0,
        abstain_below=0.0,
        metrics=metrics,
        about={"backbone": backbone},
    )


def _photograph(path: Path, height: int, width: int, seed: int = 2) -> None:
    """Write one synthetic lesion as a JPEG file."""
    side = max(height, width)
    picture = _render_lesions(1, side, seed)[0][0][:height, :width]
    path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


_WRITERS: dict[str, Callable[..., None]] = {
    "lesions": _lesions,
    "jpegs": _jpegs,
    "datasets": _datasets,
    "weights": _weights,
    "classifier": _classifier,
    "bundle": _bundle,
    "photograph": _photograph,
}
