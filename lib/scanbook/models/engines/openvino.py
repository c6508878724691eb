"""OpenVINO, in float32 always: its default on a processor with bfloat16 moves features by 13 %."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.engines.base import Mode, Precision, predict_batches
from scanbook.models.engines.keras import frozen_function

_FIRST_USE = threading.Lock()


class OpenVinoEngine:
    """A compiled OpenVINO model with a pool of requests, so that threads never meet in one ("Infer Request is busy").

    Args:
        model: Path of an `.xml` file, or an `openvino.Model`.
        mode: "latency" computes one batch as fast as possible; "throughput" computes several at once.
        threads: Processors to use; None for all.

    Attributes:
        precision: "int8" if the graph of the model is quantised, else "fp32".

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

    def _infer(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        request = self._pool.get()
        try:
            request.infer({0: images})
            return tuple(request.get_output_tensor(index).data.copy() for index in range(self.outputs))
        finally:
            self._pool.put(request)

    def predict(self, images: np.ndarray, batch_size: int = 8) -> tuple[np.ndarray, ...]:
        """Return the outputs for uint8 RGB `(n, h, w, 3)`: one float32 array of n rows per output.

        Batches have 8 images by default, whose feature maps stay in the processor's cache: a quarter faster than 32.
        """
        return predict_batches(self._infer, images, batch_size, self.requests if self._parallel else 1)


class Inference(Future[tuple[np.ndarray, ...]]):
    """The outputs for one batch, as `OpenVinoQueue.submit` returns them.

    Attributes:
        started: Start of the request, by `time.perf_counter`.
        seconds: Duration from the start to the outputs.
    """

    started = seconds = 0.0


class OpenVinoQueue:
    """Runs an engine's batches one after another without a thread for each (`AsyncInferQueue`). Threads may share it.

    Args:
        engine: Engine whose model and mode are used.

    Attributes:
        requests: Batches that run or wait.
    """

    def __init__(self, engine: OpenVinoEngine) -> None:
        from openvino import AsyncInferQueue

        self._input = engine._compiled.inputs[0].get_partial_shape()
        streams = engine._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # twice as many as run at the same time: the next batch waits where one ends
        self._queue = AsyncInferQueue(engine._compiled, 2 * streams)
        self.requests = len(self._queue)
        self._queue.set_callback(_set_outputs)
        # a process that ends while OpenVINO still calls back is aborted
        weakref.finalize(self, self._queue.wait_all)
        self._filling = threading.Lock()

    def submit(self, images: np.ndarray) -> Inference:
        """Submit one batch, uint8 RGB `(n, h, w, 3)`; wait while every request has one.

        Returns:
            A future of its outputs, as `OpenVinoEngine.predict` returns them.

        Raises:
            ModelError: The model takes another size or type.
        """
        from openvino import PartialShape

        # OpenVINO does not call back when an inference fails: the future would never be done
        if images.dtype != np.uint8 or not self._input.compatible(PartialShape(list(images.shape))):
            raise ModelError(f"a batch is {images.dtype} {images.shape}, expected uint8 {self._input}")
        inference = Inference()
        # the queue looks up an idle request, fills it and only then takes it: without a lock two threads fill the same
        with self._filling:
            inference.started = time.perf_counter()
            self._queue.start_async({0: images}, inference)
        return inference


def _set_outputs(request: Any, inference: Inference) -> None:
    """Copy the outputs of a request that is done: OpenVINO reuses its tensors as soon as this returns."""
    try:
        outputs = tuple(tensor.data.copy() for tensor in request.output_tensors)
        inference.seconds = time.perf_counter() - inference.started
        inference.set_result(outputs)
    except Exception as error:
        inference.set_exception(error)


def read_openvino(path: Path) -> Any:
    """Read an `openvino.Model` from an `.xml` file. Engines of one model, in two modes, share its weights.

    Raises:
        ModelError: The file cannot be opened.
    """
    import openvino as ov

    try:
        return ov.Core().read_model(path)
    except RuntimeError as error:
        raise ModelError(f"{path} cannot be opened as an OpenVINO model; write it again") from error


@runtime.step("converting to OpenVINO")
def to_openvino(model: Any) -> Any:
    """Convert a Keras model to an `openvino.Model`, in float32.

    Its weights go in as constants: of variables OpenVINO's converter compares each with all the others (MobileNetV2
    0.35: 1.6 s, not 0.5; ResNet50: 3.8 s, not 2.9).
    """
    import openvino as ov

    function = frozen_function(model)
    converted = ov.convert_model(function)
    # activations with a gradient of their own, such as swish, come out as outputs too
    outputs = [converted.output(tensor.name).get_node() for tensor in function.outputs]
    return ov.Model(outputs, converted.get_parameters(), model.name)


def save_openvino(model: Any, path: Path) -> None:
    """Write an `openvino.Model` as `.xml` and `.bin`, in float32: OpenVINO's default halves the precision."""
    import openvino as ov

    ov.save_model(model, str(path), compress_to_fp16=False)
