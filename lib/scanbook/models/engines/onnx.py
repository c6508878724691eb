"""ONNX Runtime, an optional extra: most other tools read its format."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.engines.base import Mode, Precision, predict_batches
from scanbook.models.engines.keras import first_line, serving_function, write_whole

_MISSING = 'ONNX needs onnx, onnxruntime and tf2onnx: pip install "scanbook[onnx]"'


class OnnxEngine:
    """An ONNX Runtime session, whose runs threads may share.

    Args:
        path: An `.onnx` file.
        mode: "latency" computes one batch with all threads; "throughput" computes one batch per thread.
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
            reason = first_line(error)
            raise ModelError(f"{path} cannot be opened as an ONNX model ({reason}); write it again") from error
        self._input = self._session.get_inputs()[0].name
        self.requests = 1 if mode == "latency" else threads

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(self._session.run(None, {self._input: images}))

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Return the outputs for uint8 RGB `(n, h, w, 3)`: one float32 array of n rows per output."""
        return predict_batches(self._run, images, batch_size, self.requests)


@runtime.step("converting to ONNX")
def to_onnx(model: Any, path: Path) -> None:
    """Write a Keras model as an ONNX file, in float32, for any number of images and with the outputs in their order.

    Raises:
        ModelError: The packages are not installed, or the model cannot be written.
    """
    try:
        import onnx  # noqa: F401  tf2onnx, which needs it, says less when it is missing
        import tf2onnx
    except ImportError:
        raise ModelError(_MISSING) from None
    logging.getLogger(tf2onnx.__name__).setLevel(logging.ERROR)

    def write(work: Path) -> None:
        function, spec = serving_function(model)
        with _inlined():
            tf2onnx.convert.from_function(
                function, [spec], custom_op_handlers={"Erfc": (_erfc, [])}, output_path=str(work)
            )

    write_whole(path, write, "ONNX", alternative="OpenVINO")


def _erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """Write the complementary error function of TensorFlow's exact GELU as 1 - erf(x).

    tf2onnx 1.17 does not know it, and writes a file without an error that ONNX Runtime cannot open.
    """
    output, source = node.output[0], node.input[0]
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    context.remove_node(node.name)
    erf = context.make_node("Erf", [source], shapes=[shape], dtypes=[dtype])
    one = context.make_const(f"{node.name}_one", np.array(1, np.float32))
    context.make_node("Sub", [one.output[0], erf.output[0]], outputs=[output], shapes=[shape], dtypes=[dtype])


@contextmanager
def _inlined() -> Iterator[None]:
    """Trace functions inside a model as part of it.

    Keras 3.15 compiles a grouped convolution as a function of its own, StatefulPartitionedCall, which tf2onnx 1.17
    does not convert.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)
