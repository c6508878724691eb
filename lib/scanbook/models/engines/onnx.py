"""ONNX Runtime, an extra: the format that most other tools read."""

from __future__ import annotations

import logging
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.engines.base import Mode, Precision, batches, join

_MISSING = 'ONNX needs onnx, onnxruntime and tf2onnx: pip install "scanbook[onnx]"'


class OnnxEngine:
    """An ONNX Runtime session, whose runs threads may share.

    Args:
        path: An `.onnx` file.
        mode: "latency" answers one batch with all threads; "throughput" runs a batch in each thread.
        threads: Processors to use; None for all.

    Raises:
        ModelError: ONNX Runtime is not installed, or the file cannot be opened.
    """

    name = "ONNX Runtime"
    precision: Precision = "fp32"

    def __init__(self, path: Path, mode: Mode = "latency", threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ModelError(_MISSING) from None
        threads = threads or runtime.cores()
        options = onnxruntime.SessionOptions()
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads if mode == "latency" else 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes, which share no base but this
            reason = _first_line(error)
            raise ModelError(f"{path} cannot be opened as an ONNX model ({reason}); write it again") from error
        self._input = self._session.get_inputs()[0].name
        self.requests = 1 if mode == "latency" else threads

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self._session.run(None, {self._input: images}))

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each."""
        parts = batches(images, batch_size)
        if self.requests > 1 and len(parts) > 1:
            with ThreadPoolExecutor(self.requests) as pool:
                return join(list(pool.map(self._run, parts)))
        return join([self._run(batch) for batch in parts])


def to_onnx(model: Any, path: Path) -> None:
    """Writes a Keras model as an ONNX file, in float32, with a free number of images and the outputs in their order.

    Args:
        model: A Keras model with one input.
        path: The `.onnx` file; written whole or not at all.

    Raises:
        ModelError: The packages are not installed, Keras runs on another backend than TensorFlow, or the model cannot
            be written.
    """
    backend = runtime.keras().backend.backend()
    if backend != "tensorflow":
        raise ModelError(f"ONNX is written from Keras on TensorFlow, this is {backend}; set KERAS_BACKEND=tensorflow")
    try:
        import onnx  # noqa: F401  tf2onnx, which needs it, says less when it is missing
        import tf2onnx
    except ImportError:
        raise ModelError(_MISSING) from None
    logging.getLogger(tf2onnx.__name__).setLevel(logging.ERROR)
    source = model.inputs[0]
    model(np.zeros((1, *source.shape[1:]), source.dtype), training=False)  # Keras refuses to export an uncalled model
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="In the future `np.object`", category=FutureWarning)
            model.export(work, format="onnx", verbose=False)
        os.replace(work, path)
    except Exception as error:  # each layer of the converter fails in its own way
        raise ModelError(f"{path} cannot be written as ONNX ({_first_line(error)}); use OpenVINO instead") from error
    finally:
        work.unlink(missing_ok=True)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
