"""LiteRT (formerly TensorFlow Lite), an optional extra: phones and small boards run its `.tflite` files."""

from __future__ import annotations

import queue
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.engines.base import Mode, Precision, predict_batches
from scanbook.models.engines.keras import first_line, frozen_function, write_whole

_MISSING = 'LiteRT needs ai-edge-litert: pip install "scanbook[litert]"'
# how the converter lists operations that its runtime lacks, below pages of graph
_LACKING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)


class LiteRtEngine:
    """LiteRT interpreters, each of which one thread uses at a time.

    Args:
        path: A `.tflite` file.
        mode: "latency" computes one batch with all threads; "throughput" computes one batch per thread.
        threads: Processors to use; None for all.

    Attributes:
        precision: "int8" if the file is quantised, else "fp32".

    Raises:
        ModelError: LiteRT is not installed, or the file cannot be opened.
    """

    name = "LiteRT"

    def __init__(self, path: Path, mode: Mode = "latency", threads: int | None = None) -> None:
        interpreter = _interpreter_class()
        threads = threads or runtime.cores()
        self.requests = 1 if mode == "latency" else threads
        each = threads if mode == "latency" else 1
        self._pool: queue.Queue[_Request] = queue.Queue()
        try:
            with runtime.without_native_messages():
                for _ in range(self.requests):
                    self._pool.put(_Request(interpreter(model_path=str(path), num_threads=each)))
        except (ValueError, RuntimeError) as error:
            reason = first_line(error)
            raise ModelError(f"{path} cannot be opened as a LiteRT model ({reason}); write it again") from error
        self.precision: Precision = self._pool.queue[0].precision

    def _run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        request = self._pool.get()
        try:
            return request.run(images)
        finally:
            self._pool.put(request)

    def predict(self, images: np.ndarray, batch_size: int = 8) -> tuple[np.ndarray, ...]:
        """Return the outputs for uint8 RGB `(n, h, w, 3)`: one float32 array of n rows per output."""
        return predict_batches(self._run, images, batch_size, self.requests)


class _Request:
    """One interpreter, whose input has the size of the batch that it ran last."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        interpreter.allocate_tensors()
        self._input = interpreter.get_input_details()[0]["index"]
        self._shape = tuple(interpreter.get_input_details()[0]["shape"])
        outputs = interpreter.get_output_details()
        if interpreter.get_signature_list():  # which has the outputs in their order; the converter mixes the others
            outputs = list(interpreter.get_signature_runner().get_output_details().values())
        self._outputs = [output["index"] for output in outputs]
        integers = any(tensor["dtype"] == np.int8 for tensor in interpreter.get_tensor_details())
        self.precision: Precision = "int8" if integers else "fp32"

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the outputs for one batch, uint8 RGB `(n, h, w, 3)`."""
        if images.shape != self._shape:
            # strict: only the number of images may change; LiteRT would compute with another size, too
            self._interpreter.resize_tensor_input(self._input, images.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._shape = images.shape
        self._interpreter.set_tensor(self._input, images)
        self._interpreter.invoke()
        return tuple(self._interpreter.get_tensor(index) for index in self._outputs)


@runtime.step("converting to LiteRT")
def to_litert(model: Any, path: Path) -> None:
    """Write a Keras model as a `.tflite` file, in float32, for any number of images and the outputs in their order.

    This is `keras.Model.export(path, format="litert")` of Keras 3.13, whose converter it calls without a SavedModel on
    the way (MobileNetV2 0.35: 0.4 s, not 5.5), and without the operations that only a runtime with TensorFlow has.

    Raises:
        ModelError: LiteRT is not installed, or the model cannot be written: the message names operations that it lacks.
    """
    _interpreter_class()

    def write(work: Path) -> None:
        with runtime.without_native_messages(), _naming_operations():
            work.write_bytes(_converter(model).convert())

    write_whole(path, write, "LiteRT", alternative="OpenVINO")


@runtime.step("quantising LiteRT to int8")
def to_litert_int8(model: Any, path: Path, images: np.ndarray) -> None:
    """Write a Keras model as a `.tflite` file whose weights and activations are 8-bit integers.

    It takes uint8 RGB and gives float32 as the model does. What follows the pooled features stays in float32: in
    integers a probability is one of 256 values, many of them 0. In a frozen MobileNetV2 0.35 on HAM10000 (1,000 images)
    int8 gives the same class as float32 to 94 % of the images, 80 % with the head in integers, and 81 % where only the
    weights are integers (dynamic range), which is also several times as slow.

    Args:
        model: A Keras model of one uint8 input.
        path: The file.
        images: Calibration images, uint8 RGB `(n, h, w, 3)`: a few hundred training images.

    Raises:
        ModelError: As `to_litert`.
    """
    _interpreter_class()

    def write(work: Path) -> None:
        import tensorflow as tf

        converter = _converter(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([images[index : index + 1]] for index in range(len(images)))
        convert, debugging = converter.convert, tf.lite.experimental

        def calibrated() -> bytes:
            """Return what the quantiser starts from; values that are not finite would end the process."""
            measured = convert()
            _check_ranges(measured)
            return measured

        converter.convert = calibrated
        with runtime.without_native_messages(), _naming_operations():
            # TensorFlow's way to quantise a part of a network: the converter alone has no such option
            debugger = debugging.QuantizationDebugger(converter=converter)
            head = _names_of_head(debugger.calibrated_model)
            debugger.options = debugging.QuantizationDebugOptions(denylisted_nodes=head)
            work.write_bytes(debugger.get_nondebug_quantized_model())

    write_whole(path, write, "LiteRT in int8", alternative="OpenVINO in int8")


def _interpreter_class() -> Any:
    """Return LiteRT's `Interpreter`; TensorFlow's own is on its way out."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ModelError(_MISSING) from None
    return Interpreter


def _converter(model: Any) -> Any:
    """Return TensorFlow's converter of a Keras model, for operations of LiteRT alone."""
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_concrete_functions([frozen_function(model)], tf.Module())


@contextmanager
def _naming_operations() -> Iterator[None]:
    """Say in a line which operations LiteRT lacks, where the converter fails for them."""
    try:
        yield
    except Exception as error:  # the converter's own class, or the debugger's
        lacking = _LACKING.findall(str(error))
        if lacking:
            raise ValueError(f"LiteRT lacks the operations {', '.join(lacking)}") from error
        raise


def _check_ranges(model: bytes) -> None:
    """Raise an error for a calibrated model that gives values that are not finite.

    Raises:
        ValueError: The message names the operations.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(model, 0).Subgraphs(0)
    names = []
    for index in range(graph.TensorsLength()):
        ranges = graph.Tensors(index).Quantization()
        if ranges and not all(np.isfinite(ends).all() for ends in (ranges.MinAsNumpy(), ranges.MaxAsNumpy())):
            names.append(graph.Tensors(index).Name().decode())
    if names:
        raise ValueError(f"calibration images give values that are not finite in {', '.join(names)}")


def _names_of_head(model: bytes) -> list[str]:
    """Return the names of the operations from the pooled features, `(n, c)`, to the probabilities, `(n, k)`."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(model, 0).Subgraphs(0)
    operations = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    made_by = {output: operation for operation in operations for output in operation.OutputsAsNumpy()}
    names: dict[int, str] = {}
    tensors = list(graph.OutputsAsNumpy())
    while tensors:
        index = tensors.pop()
        if index in names or index not in made_by or graph.Tensors(index).ShapeLength() > 2:
            continue
        names[index] = graph.Tensors(index).Name().decode()
        tensors.extend(made_by[index].InputsAsNumpy())
    return list(names.values())
