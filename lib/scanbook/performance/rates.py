"""What the projection measures here, each in a process of its own: steps, features, augmentation, arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from scanbook import backbones, engines, runtime, training
from scanbook.augmentation import Augmenter
from scanbook.benchmark import flops
from scanbook.study import Head, Training
from scanbook.training import networks as whole

_SIDE = 2048
"""Of the square matrices whose product shows what this machine can compute."""


def _pictures(count: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images, uint8 `(n, h, w, 3)`, and one-hot classes: how long work takes does not depend on them."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, size, size, 3), np.uint8)
    return images, np.eye(classes, dtype=np.float32)[draw.integers(0, classes, count)]


@contextmanager
def steps(
    *, backbone: str, size: int, classes: int, head: dict[str, Any], batch: int, count: int
) -> Iterator[Callable[[], float]]:
    """Training steps of a whole network as fine-tuning takes them, batch norm frozen, images/s of the median one.

    Args:
        backbone: The network.
        size: Side of the images.
        classes: Of the head.
        head: The study's.
        batch: Images in a step.
        count: Steps of a measurement.
    """
    runtime.configure(0)
    shape = Head.model_validate(head)
    model = whole.in_training_precision(lambda: backbones.build(backbone, (size, size), classes, head=shape))
    training.let_learn(model)
    # so slow that random weights stay where they are
    model.compile(training.optimizer(Training(learning_rate=1e-9), count), training.fitting.CrossEntropy())
    images, y = _pictures(batch, size, classes)
    for _ in range(2):
        model.train_on_batch(images, y)

    def once() -> float:
        taken = []
        for _ in range(count):
            started = time.perf_counter()
            float(model.train_on_batch(images, y))
            taken.append(time.perf_counter() - started)
        return batch / float(np.median(taken))

    yield once


@contextmanager
def features(*, backbone: str, size: int, count: int) -> Iterator[Callable[[], float]]:
    """Features by OpenVINO, as studies extract them, images/s."""
    model = backbones.pooled(backbones.build(backbone, (size, size), 1))
    engine = engines.OpenVinoEngine(engines.to_openvino(model), "throughput")
    images = _pictures(count, size, 2)[0]
    engine.predict(images[: max(8, count // 4)])

    def once() -> float:
        started = time.perf_counter()
        engine.predict(images)
        return count / (time.perf_counter() - started)

    yield once


@contextmanager
def augmentation(*, policy: str, size: int, batch: int, count: int) -> Iterator[Callable[[], float]]:
    """Augmented batches, read as training reads them, images/s."""
    images, y = _pictures(count, size, 2)
    batches = training.Batches(images, np.arange(count), y, batch, Augmenter(policy, count, 0))

    def once() -> float:
        started = time.perf_counter()
        for index in range(batches.num_batches):
            batches[index]
        return count / (time.perf_counter() - started)

    once()
    yield once


@contextmanager
def arithmetic(*, networks: Sequence[dict[str, Any]]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Operations of a forward pass of each network, and of large float32 matrix products a second.

    Args:
        networks: Of each, `backbone`, `size`, `classes` and `head`.
    """
    import tensorflow as tf

    runtime.configure(0)

    def once() -> dict[str, Any]:
        counted = []
        for each in networks:
            size, head = (each["size"], each["size"]), Head.model_validate(each["head"])
            model = backbones.build(each["backbone"], size, each["classes"], head=head)
            training.let_learn(model)
            counted.append(
                {
                    "flops": flops.forward(model),
                    "depthwise": flops.depthwise(model),
                    "learning": backbones.summary(model)["trainable"],
                }
            )
        matrix = tf.random.normal((_SIDE, _SIDE))
        taken = []
        for _ in range(20):
            started = time.perf_counter()
            float(tf.linalg.matmul(matrix, matrix)[0, 0])
            taken.append(time.perf_counter() - started)
        return {"value": 2 * _SIDE**3 / min(taken), "networks": counted}

    yield once
