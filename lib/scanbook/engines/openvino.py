"""OpenVINO, in float32 always: its default on a processor with bfloat16 moves features by 13 %."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.engines.base import Mode, Precision, batches, join
from scanbook.errors import ModelError

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
        core = ov.Core()
        try:
            graph = core.read_model(model) if isinstance(model, Path) else model
        except RuntimeError as error:
            raise ModelError(f"{model} cannot be opened as an OpenVINO model; write it again") from error
        quantised = any(node.get_type_name() == "FakeQuantize" for node in graph.get_ops())
        self.precision: Precision = "int8" if quantised else "fp32"
        self._compiled = core.compile_model(graph, "CPU", options)
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
