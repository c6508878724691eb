"""scanbook's side of each comparison."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import inputs, requests
from benchmarks.inputs import BATCH
from benchmarks.studies import find_weights, make_manifest, make_study
from scanbook import bundle, runtime, training
from scanbook.augmentation import Augmenter
from scanbook.benchmark import client
from scanbook.config import Training
from scanbook.data import pixels
from scanbook.data.adapters.synthetic import dermoscopy
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.models import backbones, engines, features, heads
from scanbook.serving.uploads import FIELD
from scanbook.training.head import Rows, fit_head


@contextmanager
def empty_store() -> Iterator[Path]:
    """Use an empty store beside the present one; flush its files to the disk at the end."""
    before = runtime.store_dir()
    before.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=before.parent, prefix="store-") as folder:
        os.environ["SCANBOOK_STORE"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ["SCANBOOK_STORE"] = str(before)
    os.sync()


@contextmanager
def transfer(
    *,
    lesions: str,
    backbone: str,
    weights: str,
    size: int,
    units: list[int],
    classes: int,
    train: int,
    validation: int,
    further: int,
    epochs: int,
) -> Iterator[Callable[[], dict[str, float]]]:
    """Time features of a frozen backbone, a head on them and the joined network, in seconds.

    Accuracy is that of `further` images, measured outside the time.
    """
    runtime.configure(0)
    images, labels = inputs.photos(lesions, size, 0, train + validation + further)
    source = find_weights(backbone, weights)

    def measure(count: int = train, held_out: int = validation) -> dict[str, float]:
        selected = np.r_[:count, train : train + held_out]
        manifest = make_manifest(labels[selected], {TRAIN: count, VALIDATION: held_out}, classes)
        study, subset = make_study(backbone, size, {"units": units, "epochs": epochs}), images[selected]
        runtime.keras().backend.clear_session()
        runtime.configure(0)
        with empty_store():
            started = time.perf_counter()
            x, _ = features.extract(manifest, subset, backbone, source)
            extracted = time.perf_counter() - started
            rows, held = manifest.rows(TRAIN), manifest.rows(VALIDATION)
            head, _ = fit_head(study, manifest, (Rows([(x, rows)]), manifest.label_values(TRAIN)), x[held])
            fitted = time.perf_counter() - started
            model = backbones.build(backbone, (size, size), classes, source, study.head)
            for layer, values in zip(heads.head_layers(model), head, strict=True):
                layer.set_weights(values)
            seconds = time.perf_counter() - started
        steps = {"value": seconds, "features": extracted, "head": fitted - extracted, "network": seconds - fitted}
        if not further or count < train:
            return steps
        predictions = engines.OpenVinoEngine(engines.to_openvino(model), "throughput").predict(images[-further:])[0]
        return {**steps, "accuracy": float((predictions.argmax(1) == labels[-further:]).mean())}

    measure(min(train, BATCH), min(validation, BATCH))
    yield measure


@contextmanager
def extract(lesions: str, backbone: str, weights: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Measure features by OpenVINO in throughput mode, images/s."""
    images = inputs.photos(lesions, size, 0, count)[0]
    model = backbones.pooled(backbones.build(backbone, (size, size), 1, find_weights(backbone, weights)))
    yield _rate(engines.OpenVinoEngine(engines.to_openvino(model), "throughput"), images, 1)


def _rate(engine: engines.Engine, images: np.ndarray, passes: int) -> Callable[[], float]:
    def measure() -> float:
        started = time.perf_counter()
        for _ in range(passes):
            engine.predict(images)
        return passes * len(images) / (time.perf_counter() - started)

    return measure


def batches(images: np.ndarray, labels: np.ndarray, policy: str) -> training.Batches:
    """Return augmented batches of images in memory, as training takes them."""
    y = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    return training.Batches(images, np.arange(len(images)), y, BATCH, Augmenter(policy, len(images), 0))


@contextmanager
def augment(lesions: str, size: int, count: int, epochs: int) -> Iterator[Callable[[], float]]:
    """Measure augmented batches of the skin11 policy, images/s over several epochs."""
    augmented = batches(*inputs.photos(lesions, size, 0, count), "skin11")

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(epochs):
            for index in range(augmented.num_batches):
                augmented[index]
            augmented.on_epoch_end()
        return epochs * count / (time.perf_counter() - started)

    yield measure


def list_files(folder: str, count: int, shares: Mapping[str, int] | None = None) -> Manifest:
    """Return JPEG files below a folder as a dataset.

    Args:
        folder: Folder of the files; a class is the name of the folder that holds a file, or random where there is one.
        count: Largest number of files.
        shares: Share of each split, in any unit; None for training alone.
    """
    paths = inputs.jpeg_paths(Path(folder), count)
    generator = np.random.default_rng(0)
    labels = np.array([path.parent.name for path in paths])
    if len(set(labels)) < 2:
        labels = np.array(["class 0", "class 1"])[generator.permutation(len(paths)) % 2]
    shares = shares or {TRAIN: 100}
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    splits = np.array(list(shares))[np.searchsorted(ends, (generator.permutation(len(paths)) + 0.5) / len(paths))]
    ids = np.arange(len(paths)).astype(str)
    values = {"image_id": ids, "path": [str(path) for path in paths], "label": labels, "group": ids, "mask_path": ""}
    return Manifest("bench", pd.DataFrame(values | {"split": splits}), tuple(sorted(set(labels.tolist()))))


@contextmanager
def decode(folder: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Time decoding and resizing of JPEG files into an empty store, in seconds."""
    manifest = list_files(folder, count)
    for path in manifest.frame["path"]:
        Path(path).read_bytes()  # into the page cache
    with empty_store():
        pixels.load(list_files(folder, BATCH), (size, size))

    def measure() -> float:
        with empty_store():
            started = time.perf_counter()
            pixels.load(manifest, (size, size))
            return time.perf_counter() - started

    yield measure


@contextmanager
def from_cache(folder: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Time reading the same images from the store, in batches, in seconds."""
    manifest = list_files(folder, count)
    with empty_store():
        pixels.load(manifest, (size, size))

        def measure() -> float:
            started = time.perf_counter()
            images = pixels.load(manifest, (size, size))
            for start in range(0, len(images), BATCH):
                np.array(images[start : start + BATCH])
            return time.perf_counter() - started

        yield measure


def _build_network(backbone: str, weights: str, size: int, classes: int) -> Any:
    runtime.configure(0)
    model = backbones.build(backbone, (size, size), classes, find_weights(backbone, weights))
    training.set_trainable(model)
    return model


@contextmanager
def fine_tuning(
    *, lesions: str, backbone: str, weights: str, size: int, count: int, policy: str, epochs: int
) -> Iterator[Callable[[], float]]:
    """Measure fine-tuning with augmentation, images/s: the median of the epochs after the first."""
    images, labels = inputs.photos(lesions, size, 0, count + 2)
    manifest = make_manifest(labels, {TRAIN: count, VALIDATION: 2})
    model = _build_network(backbone, weights, size, len(manifest.classes))

    def measure() -> float:
        plan = training.Plan("bench", Training(epochs=epochs + 1, batch_size=BATCH), policy, 0)
        history = training.train_network(plan, model, images, manifest)
        return count / float(np.median(np.diff(history["seconds"])))

    yield measure


@contextmanager
def bare_step(lesions: str, backbone: str, weights: str, size: int, steps: int) -> Iterator[Callable[[], float]]:
    """Measure the same network's compiled training step on one batch that stays in memory, images/s."""
    import tensorflow as tf

    images, labels = inputs.photos(lesions, size, 0, BATCH)
    model = _build_network(backbone, weights, size, len(dermoscopy.CLASSES))
    y = np.eye(len(dermoscopy.CLASSES), dtype=np.float32)[labels]
    model.compile(training.optimizer(Training(), steps), training.objectives.CrossEntropy())
    model.make_train_function()
    step, batch = model.train_function, (tf.constant(images), tf.constant(y))
    again = iter(tf.data.Dataset.from_tensors(batch).cache().repeat())
    for _ in range(3):
        step(again)

    def measure() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            logs = step(again)
        float(logs["loss"])  # waits for the last step
        return steps * len(images) / (time.perf_counter() - started)

    yield measure


@contextmanager
def network(
    *,
    lesions: str,
    backbone: str,
    weights: str,
    classifier: str,
    size: int,
    int8: bool,
    calibration: int,
    count: int,
    passes: int,
    held_out: tuple[int, int],
) -> Iterator[Callable[[], dict[str, float]]]:
    """Measure OpenVINO in float32 or int8, images/s, and the accuracy of a classifier on held-out images."""
    runtime.configure(0)
    model = (
        backbones.load(Path(classifier))
        if classifier
        else backbones.build(backbone, (size, size), len(dermoscopy.CLASSES), find_weights(backbone, weights))
    )
    converted = engines.to_openvino(model)
    if int8:
        converted = engines.quantise(converted, inputs.photos(lesions, size, 0, calibration)[0])
    engine = engines.OpenVinoEngine(converted, "throughput")
    images = inputs.photos(lesions, size, 0, count)[0]
    accuracy = {}
    if classifier:
        x, y = inputs.photos(lesions, size, *held_out)
        accuracy["accuracy"] = float((engine.predict(x)[0].argmax(1) == y).mean())
    rate = _rate(engine, images, passes)
    yield lambda: {"value": rate(), **accuracy}


@contextmanager
def service(folder: str, photograph: str, count: int) -> Iterator[Callable[[], float]]:
    """Measure requests to scanbook's service, in seconds: the median."""
    picture = Path(photograph).read_bytes()
    with client.run_service(Path(folder)) as address:
        requests.median_seconds(address, FIELD, picture, requests.WARM_UP)
        yield lambda: requests.median_seconds(address, FIELD, picture, count)


@contextmanager
def engine_alone(folder: str, count: int) -> Iterator[Callable[[], float]]:
    """Measure the service's engine on one image in memory, in seconds: the median call."""
    loaded = bundle.load(Path(folder))
    engine = engines.OpenVinoEngine(loaded.model_path())
    image = np.random.default_rng(0).integers(0, 256, (1, *loaded.image_size, 3), dtype=np.uint8)

    def measure() -> float:
        seconds = []
        for _ in range(count):
            started = time.perf_counter()
            engine.predict(image)
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds))

    yield measure
