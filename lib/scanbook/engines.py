"""One `predict(images)` over the engines that run a model: OpenVINO and Keras.

An engine is thread-safe and takes uint8 RGB `(n, h, w, 3)`. OpenVINO runs in float32 always: its default on a
processor with bfloat16 moves features by 13 %.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from scanbook import runtime

Mode = Literal["latency", "throughput"]


class Engine(Protocol):
    """Runs a model."""

    name: str

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each."""
        ...


def _batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def _join(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


class OpenVinoEngine:
    """A compiled OpenVINO model with a pool of requests, so that threads never meet in one ("Infer Request is busy").

    Args:
        model: Path of an `.xml` file, or an `openvino.Model`.
        mode: "latency" answers one batch as fast as it can; "throughput" runs several at once.
        threads: Processors to use; None for all.
    """

    name = "OpenVINO"

    def __init__(self, model: Path | Any, mode: Mode = "latency", threads: int | None = None) -> None:
        import openvino as ov

        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": mode.upper()}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        core = ov.Core()
        self._compiled = core.compile_model(str(model) if isinstance(model, Path) else model, "CPU", options)
        self.outputs = len(self._compiled.outputs)
        self.requests = max(
            1,
            self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"),
            runtime.cores() if mode == "latency" else 1,
        )
        self._pool: queue.Queue[Any] = queue.Queue()
        for _ in range(self.requests):
            self._pool.put(self._compiled.create_infer_request())
        self._parallel = mode == "throughput" and self.requests > 1

    @contextmanager
    def _request(self) -> Iterator[Any]:
        request = self._pool.get()
        try:
            yield request
        finally:
            self._pool.put(request)

    def _infer(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        with self._request() as request:
            request.infer({0: images})
            return tuple(request.get_output_tensor(index).data.copy() for index in range(self.outputs))

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each."""
        batches = _batches(images, batch_size)
        if self._parallel and len(batches) > 1:
            with ThreadPoolExecutor(self.requests) as pool:
                return _join(list(pool.map(self._infer, batches)))
        return _join([self._infer(batch) for batch in batches])


class KerasEngine:
    """A Keras model as one traced function, several times faster than `model.predict` on small batches.

    Args:
        model: A Keras model with one uint8 input.
    """

    name = "Keras"

    def __init__(self, model: Any) -> None:
        keras = runtime.keras()
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            self._call = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
        else:
            self._call = lambda images: model(images, training=False)
        self._to_numpy = keras.ops.convert_to_numpy

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each."""
        parts = []
        for batch in _batches(images, batch_size):
            outputs = self._call(batch)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            parts.append(tuple(self._to_numpy(output) for output in outputs))
        return _join(parts)


def to_openvino(model: Any) -> Any:
    """Converts a Keras model to an `openvino.Model`, in float32."""
    import warnings

    import openvino as ov

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The structure of `inputs`")
        return ov.convert_model(model)


def save_openvino(model: Any, path: Path) -> None:
    """Writes an `openvino.Model` as `.xml` and `.bin`, in float32: OpenVINO's default halves the precision."""
    import openvino as ov

    ov.save_model(model, str(path), compress_to_fp16=False)


def parity(reference: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two sets of logits, as a share of the reference's spread (standard deviation).

    Args:
        reference: Logits, `(n, k)`.
        other: Logits of the same images by another engine.
    """
    return float(np.abs(reference - other).max() / reference.std())


def centred_log(probabilities: np.ndarray) -> np.ndarray:
    """Logits recovered from probabilities, up to the temperature: log p less its mean over the classes."""
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny))
    return logs - logs.mean(axis=1, keepdims=True)
