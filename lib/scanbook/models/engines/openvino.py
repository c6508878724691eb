"""OpenVINO, in float32 always: its default on a processor with bfloat16 moves features by 13 %."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.engines.base import Mode, Precision, batches, join

_FIRST_USE = threading.Lock()


class OpenVinoEngine:
    """A compiled OpenVINO model with a pool of requests, so that threads never meet in one ("Infer Request is busy").

    Args:
        model: Path of an `.xml` file, or an `openvino.Model`.
        mode: "latency" answers one batch as fast as it can; "throughput" runs several at once.
        threads: Processors to use; None for all.

    Attributes:
        precision: "int8" where the model was quantised: its graph then says so itself.

    Raises:
        ModelError: The file cannot be opened.
    """

    name = "OpenVINO"

    def __init__(self, model: Path | Any, mode: Mode = "latency", threads: int | None = None) -> None:
        import openvino as ov

        # The binding makes its table of dtypes when a tensor is first looked at, and lets go of Python's lock then:
        # a second thread that looks at one just then holds that lock and waits for ever (seen in OpenVINO 2026.4).
        with _FIRST_USE:
            ov.Tensor(np.zeros(1, np.float32)).data  # noqa: B018
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": mode.upper()}
        if threads:
            options["INFERENCE_NUM_THREADS"] = threads
        graph = read_openvino(model) if isinstance(model, Path) else model
        quantised = any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())
        self.precision: Precision = "int8" if quantised else "fp32"
        self._compiled = ov.Core().compile_model(graph, "CPU", options)
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

    def predict(self, images: np.ndarray, batch_size: int = 8) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each.

        By default in batches of 8, whose feature maps stay in the processor's cache: a quarter faster than 32.
        """
        parts = batches(images, batch_size)
        if self._parallel and len(parts) > 1:
            with ThreadPoolExecutor(self.requests) as pool:
                return join(list(pool.map(self._infer, parts)))
        return join([self._infer(batch) for batch in parts])


class Inference(Future[tuple[np.ndarray, ...]]):
    """What `OpenVinoQueue.submit` promises: the outputs for one batch.

    Attributes:
        started: When a request took it, by `time.perf_counter`.
        seconds: From there to the outputs.
    """

    started = seconds = 0.0


class OpenVinoQueue:
    """Runs an engine's batches one after another without a thread for each (`AsyncInferQueue`). Threads may share it.

    Args:
        engine: Its model and its mode.

    Attributes:
        requests: Batches that run or lie ready.
    """

    def __init__(self, engine: OpenVinoEngine) -> None:
        from openvino import AsyncInferQueue

        self._input = engine._compiled.inputs[0].get_partial_shape()
        streams = engine._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # twice as many as run at a time: the next batch lies ready where one is done
        self._queue = AsyncInferQueue(engine._compiled, 2 * streams)
        self.requests = len(self._queue)
        self._queue.set_callback(_keep)
        # a process that ends while OpenVINO still calls back is aborted
        weakref.finalize(self, self._queue.wait_all)
        self._filling = threading.Lock()

    def submit(self, images: np.ndarray) -> Inference:
        """Hands over one batch, uint8 RGB `(n, h, w, 3)`; waits while every request has one.

        Returns:
            Its outputs in time, as `OpenVinoEngine.predict` gives them.

        Raises:
            ModelError: The model takes another size or type.
        """
        from openvino import PartialShape

        # OpenVINO calls nobody back when an inference fails: the promise would never be kept
        if images.dtype != np.uint8 or not self._input.compatible(PartialShape(list(images.shape))):
            raise ModelError(f"a batch is {images.dtype} {images.shape}, expected uint8 {self._input}")
        promised = Inference()
        # the queue looks up an idle request, fills it and only then takes it: without a lock two threads fill the same
        with self._filling:
            promised.started = time.perf_counter()
            self._queue.start_async({0: images}, promised)
        return promised


def _keep(request: Any, promised: Inference) -> None:
    """Called by OpenVINO when a request is done: its tensors are those of the next one as soon as this returns."""
    try:
        outputs = tuple(tensor.data.copy() for tensor in request.output_tensors)
        promised.seconds = time.perf_counter() - promised.started
        promised.set_result(outputs)
    except Exception as error:
        promised.set_exception(error)


def read_openvino(path: Path) -> Any:
    """An `openvino.Model` of an `.xml` file. Engines of one model, in two modes, share its weights.

    Raises:
        ModelError: The file cannot be opened.
    """
    import openvino as ov

    try:
        return ov.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(f"{path} cannot be opened as an OpenVINO model; write it again") from error


def to_openvino(model: Any) -> Any:
    """Converts a Keras model to an `openvino.Model`, in float32.

    Its weights go in as constants: of variables OpenVINO's converter compares each with all the others (MobileNetV2
    0.35: 1.6 s, not 0.5; ResNet50: 3.8 s, not 2.9).
    """
    import keras
    import openvino as ov
    import tensorflow as tf

    weights = [(variable, np.asarray(variable)) for variable in model.variables]

    def traced(images: Any) -> Any:
        constants = [(variable, tf.constant(values)) for variable, values in weights]
        with keras.StatelessScope(state_mapping=constants):
            return model(images, training=False)

    [entry] = model.inputs
    signature = tf.TensorSpec(entry.shape, entry.dtype, "images")
    function = tf.function(traced, autograph=False).get_concrete_function(signature)
    converted = ov.convert_model(function)
    # activations with a gradient of their own, such as swish, come out as outputs too
    wanted = [converted.output(tensor.name).get_node() for tensor in function.outputs]
    return ov.Model(wanted, converted.get_parameters(), model.name)


def save_openvino(model: Any, path: Path) -> None:
    """Writes an `openvino.Model` as `.xml` and `.bin`, in float32: OpenVINO's default halves the precision."""
    import openvino as ov

    ov.save_model(model, str(path), compress_to_fp16=False)
