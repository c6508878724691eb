"""The baseline: the usual practice of the field, complete, as its authors write it.

Images read by `cv2.imread` in one loop; `ImageDataGenerator`; `model.fit` through a frozen backbone in every epoch;
`model.predict`, alone and inside Flask's development server. No code of scanbook computes here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import inputs, requests
from benchmarks.inputs import BATCH
from scanbook.benchmark import client
from scanbook.errors import RunError

_APPLICATIONS = {
    "resnet50": ("ResNet50", "resnet", {}),
    "mobilenet_v2_0.35": ("MobileNetV2", "mobilenet_v2", {"alpha": 0.35}),
}


def _load_application(name: str, weights: str, size: int) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """Return a network of keras.applications without its top, and its preprocessing."""
    import keras

    builder, module, options = _APPLICATIONS[name]
    base = getattr(keras.applications, builder)(include_top=False, weights=None, input_shape=(size, size, 3), **options)
    with np.load(weights) as arrays:
        base.set_weights([arrays[key].astype(np.float32) for key in arrays.files])
    return base, getattr(keras.applications, module).preprocess_input


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
    measured: int,
) -> Iterator[Callable[[], dict[str, float]]]:
    """Time `fit` through a frozen backbone, in seconds.

    `measured` of `epochs` epochs run. All but the first do the same work, so their median counts for each of the rest.
    Accuracy, where all epochs run, is that of `further` images, measured outside the time.
    """
    import keras

    images, labels = inputs.photos(lesions, size, 0, train + validation + further)

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
            self.times: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.started = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.times.append(time.perf_counter() - self.started)

    def measure(train: int = train, validation: int = validation, measured: int = measured) -> dict[str, float]:
        keras.backend.clear_session()
        clock, started = Clock(), time.perf_counter()
        base, preprocess = _load_application(backbone, weights, size)
        base.trainable = False
        hidden = [keras.layers.Dense(unit, activation="relu") for unit in units]
        model = keras.Sequential(
            [base, keras.layers.GlobalAveragePooling2D(), *hidden, keras.layers.Dense(classes, activation="softmax")]
        )
        model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
        x = preprocess(images[: train + validation].astype("float32"))
        y = keras.utils.to_categorical(labels[: train + validation], classes)
        model.fit(
            x[:train],
            y[:train],
            validation_data=(x[train:], y[train:]),
            epochs=measured,
            batch_size=BATCH,
            callbacks=[clock],
            verbose=0,
        )
        seconds = time.perf_counter() - started
        figures = {"value": seconds + (epochs - measured) * float(np.median(clock.times[1:] or clock.times))}
        if measured == epochs and further:
            predictions = model.predict(preprocess(images[-further:].astype("float32")), verbose=0).argmax(1)
            figures["accuracy"] = float((predictions == labels[-further:]).mean())
        return figures

    measure(min(train, BATCH), min(validation, BATCH), 1)
    yield measure


def _pooled(lesions: str, backbone: str, weights: str, size: int, count: int) -> tuple[Any, np.ndarray]:
    import keras

    base, preprocess = _load_application(backbone, weights, size)
    model = keras.Sequential([base, keras.layers.GlobalAveragePooling2D()])
    return model, preprocess(inputs.photos(lesions, size, 0, count)[0].astype("float32"))


@contextmanager
def predict(lesions: str, backbone: str, weights: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Measure features by `model.predict`, images/s."""
    model, x = _pooled(lesions, backbone, weights, size, count)

    def measure() -> float:
        started = time.perf_counter()
        model.predict(x, batch_size=BATCH, verbose=0)
        return count / (time.perf_counter() - started)

    yield measure


@contextmanager
def traced(lesions: str, backbone: str, weights: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Measure features by a traced function, images/s: the fastest way in TensorFlow, which few authors use."""
    import tensorflow as tf

    model, x = _pooled(lesions, backbone, weights, size, count)
    call = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)

    def measure() -> float:
        started = time.perf_counter()
        for start in range(0, count, BATCH):
            call(tf.constant(x[start : start + BATCH])).numpy()
        return count / (time.perf_counter() - started)

    yield measure


def generator(x: np.ndarray, y: np.ndarray, seed: int = 0) -> Any:
    """Return the skin11 study's `ImageDataGenerator` over images in memory.

    Args:
        x: uint8 `(n, h, w, 3)`.
        y: Labels, `(n, …)`.
        seed: Seed of shuffling and augmentation.
    """
    import tensorflow as tf

    options = {"width_shift_range": 0.1, "height_shift_range": 0.1, "shear_range": 0.15, "horizontal_flip": True}
    generate = tf.keras.preprocessing.image.ImageDataGenerator
    return generate(rotation_range=30, fill_mode="nearest", **options).flow(x, y, batch_size=BATCH, seed=seed)


@contextmanager
def augment(lesions: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Measure augmented batches by `ImageDataGenerator`, images/s."""
    flow = generator(*inputs.photos(lesions, size, 0, count))

    def measure() -> float:
        started = time.perf_counter()
        for index in range(len(flow)):
            flow[index]
        flow.on_epoch_end()
        return count / (time.perf_counter() - started)

    yield measure


def read_all(paths: list[str], size: int) -> np.ndarray:
    """Return images read by `cv2.imread` in one loop, uint8 BGR `(n, size, size, 3)`."""
    import cv2

    images = []
    for path in paths:
        image = cv2.imread(path)
        images.append(cv2.resize(image, (size, size)))
    return np.array(images)


@contextmanager
def decode(folder: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Time decoding and resizing of JPEG files, in seconds."""
    import cv2

    cv2.setNumThreads(os.cpu_count() or 1)  # OpenCV's own default, which scanbook changes
    paths = [str(path) for path in inputs.jpeg_paths(Path(folder), count)]
    read_all(paths, size)  # also brings the files into the page cache

    def measure() -> float:
        started = time.perf_counter()
        read_all(paths, size)
        return time.perf_counter() - started

    yield measure


@contextmanager
def flask(
    *, photograph: str, backbone: str, weights: str, size: int, classes: int, count: int
) -> Iterator[Callable[[], float]]:
    """Measure requests to `model.predict` inside Flask's development server, in seconds: the median."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, numbers = f"http://127.0.0.1:{port}", [str(size), str(classes), str(port)]
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as uploads:
        command = [sys.executable, "-m", "benchmarks.baseline", backbone, weights, uploads, *numbers]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 180
            while not client.is_ready(address, "/"):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    last = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
                    raise RunError(f"the Flask application did not start: {last}")
                time.sleep(0.1)
            picture = Path(photograph).read_bytes()
            requests.median_seconds(address, "file", picture, requests.WARM_UP)
            yield lambda: requests.median_seconds(address, "file", picture, count)
        finally:
            server.kill()
            server.wait()


def serve(backbone: str, weights: str, uploads: str, *, size: int, classes: int, port: int) -> None:
    """Run the application, which writes an upload to disk, reads it back, resizes it and predicts."""
    import keras
    from flask import Flask, jsonify, request

    base, preprocess = _load_application(backbone, weights, size)
    model = keras.Sequential(
        [base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, activation="softmax")]
    )
    app = Flask(__name__)
    names = [f"class {index}" for index in range(classes)]

    @app.get("/")
    def index() -> str:
        return "<form method=post action=/predict enctype=multipart/form-data><input type=file name=file></form>"

    @app.post("/predict")
    def predict_upload() -> Any:
        file = request.files["file"]
        path = os.path.join(uploads, os.path.basename(file.filename or "upload"))
        file.save(path)
        image = keras.utils.img_to_array(keras.utils.load_img(path, target_size=(size, size)))
        probabilities = model.predict(preprocess(np.expand_dims(image, 0)))[0]
        return jsonify({"class": names[int(probabilities.argmax())], "confidence": float(probabilities.max())})

    app.run(port=port)


if __name__ == "__main__":
    _, first, second, third, *numbers = sys.argv
    serve(first, second, third, **dict(zip(("size", "classes", "port"), map(int, numbers), strict=True)))
