"""scanbook's side of each comparison: its own library."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from benchmarks import material, requests
from benchmarks.material import BATCH
from scanbook import bundle, runtime, training
from scanbook.augmentation import Augmenter
from scanbook.config import Study, Training
from scanbook.data import pixels
from scanbook.data.adapters.synthetic import dermoscopy
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.models import backbones, engines, features, heads
from scanbook.models.backbones import Weights
from scanbook.serving import client
from scanbook.serving.uploads import FIELD
from scanbook.store import file_digest
from scanbook.training.head import Rows, fit_head

PENALTY = 0.05


def manifest_of(labels: np.ndarray, parts: Mapping[str, int], classes: int = len(dermoscopy.CLASSES)) -> Manifest:
    """Images in memory as a dataset: the first so many are of the first part, and so on; the rest is in none."""
    names = tuple(f"class {index}" for index in range(classes))
    ids = np.arange(len(labels)).astype(str)
    frame = pd.DataFrame({"image_id": ids, "path": "", "label": np.array(names)[labels], "group": ids, "mask_path": ""})
    listed = [part for part, count in parts.items() for _ in range(count)]
    frame["split"] = listed + [""] * (len(labels) - len(listed))
    return Manifest("bench", frame, names)


def study_of(backbone: str, size: int, head: dict[str, Any]) -> Study:
    """A study of one backbone."""
    values = {
        "study": "bench",
        "title": "Benchmark",
        "question": "How fast?",
        "dataset": {"adapter": "folder", "source": "drawn by scanbook", "licence": "Apache-2.0"},
        "image_size": size,
        "backbones": [backbone],
        "head": {"l2": [PENALTY], **head},
    }
    return Study.model_validate(values)


def weights_of(backbone: str, path: str) -> Weights:
    """Weights in a file; those that come with scanbook where no file is named."""
    return (
        Weights("scanbook", Path(path), file_digest(Path(path))) if path else backbones.pretrained(backbone, "scanbook")
    )


@contextmanager
def empty_store() -> Iterator[Path]:
    """An empty store, beside the usual one; what was written is on the disk before the next clock starts."""
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
    """A frozen backbone's features once and a head on them, until they are one network again, seconds.

    Accuracy is on `further` images, after the clock has stopped.
    """
    runtime.configure(0)
    images, labels = material.photos(lesions, size, 0, train + validation + further)
    found = weights_of(backbone, weights)

    def once(count: int = train, held_out: int = validation) -> dict[str, float]:
        picked = np.r_[:count, train : train + held_out]
        manifest = manifest_of(labels[picked], {TRAIN: count, VALIDATION: held_out}, classes)
        study, seen = study_of(backbone, size, {"units": units, "epochs": epochs}), images[picked]
        runtime.keras().backend.clear_session()
        runtime.configure(0)
        with empty_store():
            started = time.perf_counter()
            x, _ = features.extract(manifest, seen, backbone, found)
            extracted = time.perf_counter() - started
            rows, held = manifest.rows(TRAIN), manifest.rows(VALIDATION)
            head, _ = fit_head(study, manifest, (Rows([(x, rows)]), manifest.one_hot(TRAIN)), x[held])
            fitted = time.perf_counter() - started
            model = backbones.build(backbone, (size, size), classes, found, study.head)
            for layer, values in zip(heads.head_layers(model), head, strict=True):
                layer.set_weights(values)
            seconds = time.perf_counter() - started
        steps = {"value": seconds, "features": extracted, "head": fitted - extracted, "network": seconds - fitted}
        if not further or count < train:
            return steps
        answers = engines.OpenVinoEngine(engines.to_openvino(model), "throughput").predict(images[-further:])[0]
        return {**steps, "accuracy": float((answers.argmax(1) == labels[-further:]).mean())}

    once(min(train, BATCH), min(validation, BATCH))
    yield once


@contextmanager
def extract(lesions: str, backbone: str, weights: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Features by OpenVINO for throughput, images/s."""
    images = material.photos(lesions, size, 0, count)[0]
    model = backbones.pooled(backbones.build(backbone, (size, size), 1, weights_of(backbone, weights)))
    yield _rate(engines.OpenVinoEngine(engines.to_openvino(model), "throughput"), images, 1)


def _rate(engine: engines.Engine, images: np.ndarray, passes: int) -> Callable[[], float]:
    def once() -> float:
        started = time.perf_counter()
        for _ in range(passes):
            engine.predict(images)
        return passes * len(images) / (time.perf_counter() - started)

    return once


def batches(images: np.ndarray, labels: np.ndarray, policy: str) -> training.Batches:
    """Augmented batches of images in memory, as training takes them."""
    y = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    return training.Batches(images, np.arange(len(images)), y, BATCH, Augmenter(policy, len(images), 0))


@contextmanager
def augment(lesions: str, size: int, count: int, epochs: int) -> Iterator[Callable[[], float]]:
    """Augmented batches of the skin11 policy, images/s over several epochs."""
    drawn = batches(*material.photos(lesions, size, 0, count), "skin11")

    def once() -> float:
        started = time.perf_counter()
        for _ in range(epochs):
            for index in range(drawn.num_batches):
                drawn[index]
            drawn.on_epoch_end()
        return epochs * count / (time.perf_counter() - started)

    yield once


def listed(folder: str, count: int, parts: Mapping[str, int] | None = None) -> Manifest:
    """JPEG files below a folder as a dataset; a class is a folder's name, and drawn by lot where there is one alone."""
    paths = material.files(Path(folder), count)
    draw = np.random.default_rng(0)
    labels = np.array([path.parent.name for path in paths])
    if len(set(labels)) < 2:
        labels = np.array(["class 0", "class 1"])[draw.permutation(len(paths)) % 2]
    shares = parts or {TRAIN: 100}
    ends = np.cumsum(list(shares.values())) / sum(shares.values())
    part = np.array(list(shares))[np.searchsorted(ends, (draw.permutation(len(paths)) + 0.5) / len(paths))]
    ids = np.arange(len(paths)).astype(str)
    values = {"image_id": ids, "path": [str(path) for path in paths], "label": labels, "group": ids, "mask_path": ""}
    return Manifest("bench", pd.DataFrame(values | {"split": part}), tuple(sorted(set(labels.tolist()))))


@contextmanager
def decode(folder: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """JPEG files decoded and resized into an empty store, seconds."""
    manifest = listed(folder, count)
    for path in manifest.frame["path"]:
        Path(path).read_bytes()  # into the page cache
    with empty_store():
        pixels.load(listed(folder, BATCH), (size, size))

    def once() -> float:
        with empty_store():
            started = time.perf_counter()
            pixels.load(manifest, (size, size))
            return time.perf_counter() - started

    yield once


@contextmanager
def from_cache(folder: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """The same images from the store, every one read in batches, seconds."""
    manifest = listed(folder, count)
    with empty_store():
        pixels.load(manifest, (size, size))

        def once() -> float:
            started = time.perf_counter()
            images = pixels.load(manifest, (size, size))
            for start in range(0, len(images), BATCH):
                np.array(images[start : start + BATCH])
            return time.perf_counter() - started

        yield once


def _fine_tuned(backbone: str, weights: str, size: int, classes: int) -> Any:
    runtime.configure(0)
    model = backbones.build(backbone, (size, size), classes, weights_of(backbone, weights))
    training.let_learn(model)
    return model


@contextmanager
def fine_tuning(
    *, lesions: str, backbone: str, weights: str, size: int, count: int, policy: str, epochs: int
) -> Iterator[Callable[[], float]]:
    """Fine-tuning with augmentation, images/s of its epochs after the first, the median; two images validate."""
    images, labels = material.photos(lesions, size, 0, count + 2)
    manifest = manifest_of(labels, {TRAIN: count, VALIDATION: 2})
    model = _fine_tuned(backbone, weights, size, len(manifest.classes))

    def once() -> float:
        plan = training.Plan("bench", Training(epochs=epochs + 1, batch_size=BATCH), policy, 0)
        history = training.train_all(plan, model, images, manifest)
        return count / float(np.median(np.diff(history["seconds"])))

    yield once


@contextmanager
def bare_step(lesions: str, backbone: str, weights: str, size: int, steps: int) -> Iterator[Callable[[], float]]:
    """The same network's compiled train step on one batch that stays in memory, images/s."""
    import tensorflow as tf

    images, labels = material.photos(lesions, size, 0, BATCH)
    model = _fine_tuned(backbone, weights, size, len(dermoscopy.CLASSES))
    y = np.eye(len(dermoscopy.CLASSES), dtype=np.float32)[labels]
    model.compile(training.optimizer(Training(), steps), training.fitting.CrossEntropy())
    model.make_train_function()
    step, batch = model.train_function, (tf.constant(images), tf.constant(y))
    again = iter(tf.data.Dataset.from_tensors(batch).cache().repeat())
    for _ in range(3):
        step(again)

    def once() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            logs = step(again)
        float(logs["loss"])  # the last step has ended
        return steps * len(images) / (time.perf_counter() - started)

    yield once


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
    """OpenVINO in float32 or int8, images/s; and its accuracy on the held-out images, where there is a classifier."""
    runtime.configure(0)
    model = (
        backbones.load(Path(classifier))
        if classifier
        else backbones.build(backbone, (size, size), len(dermoscopy.CLASSES), weights_of(backbone, weights))
    )
    converted = engines.to_openvino(model)
    if int8:
        converted = engines.quantise(converted, material.photos(lesions, size, 0, calibration)[0])
    engine = engines.OpenVinoEngine(converted, "throughput")
    images = material.photos(lesions, size, 0, count)[0]
    known = {}
    if classifier:
        x, y = material.photos(lesions, size, *held_out)
        known["accuracy"] = float((engine.predict(x)[0].argmax(1) == y).mean())
    rate = _rate(engine, images, passes)
    yield lambda: {"value": rate(), **known}


@contextmanager
def service(folder: str, photograph: str, count: int) -> Iterator[Callable[[], float]]:
    """Requests to scanbook's service, seconds of the median one."""
    picture = Path(photograph).read_bytes()
    with client.run_service(Path(folder)) as address:
        port = urlsplit(address).port
        assert port
        requests.median_seconds(port, "/predict", FIELD, picture, requests.WARM_UP)
        yield lambda: requests.median_seconds(port, "/predict", FIELD, picture, count)


@contextmanager
def engine_alone(folder: str, count: int) -> Iterator[Callable[[], float]]:
    """The service's engine on one image in memory, seconds of the median call."""
    loaded = bundle.load(Path(folder))
    engine = engines.OpenVinoEngine(loaded.model_path())
    image = np.random.default_rng(0).integers(0, 256, (1, *loaded.image_size, 3), dtype=np.uint8)

    def once() -> float:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            engine.predict(image)
            taken.append(time.perf_counter() - started)
        return float(np.median(taken))

    yield once
