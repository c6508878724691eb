"""Opens a saved model with the engine of its format."""

from __future__ import annotations

from pathlib import Path

from scanbook.errors import ModelError
from scanbook.models.engines.base import Engine, Mode
from scanbook.models.engines.keras import MARK, KerasEngine, SavedModelEngine
from scanbook.models.engines.litert import LiteRtEngine
from scanbook.models.engines.onnx import OnnxEngine
from scanbook.models.engines.openvino import OpenVinoEngine


def open_saved(path: Path, mode: Mode = "latency", threads: int | None = None) -> Engine:
    """Return the engine of a saved model: `.keras`, `.xml` (OpenVINO), `.onnx`, `.tflite`, or a SavedModel's folder.

    Args:
        path: The file or folder.
        mode: See `OpenVinoEngine`; Keras and TensorFlow have one mode only.
        threads: Processors to use, None for all; for Keras and TensorFlow `runtime.configure` sets them per process.

    Raises:
        ModelError: It has another format, cannot be opened, or its engine is not installed.
    """
    if path.suffix == ".keras":
        return KerasEngine(path)
    if path.suffix == ".xml":
        return OpenVinoEngine(path, mode, threads)
    if path.suffix == ".onnx":
        return OnnxEngine(path, mode, threads)
    if path.suffix == ".tflite":
        return LiteRtEngine(path, mode, threads)
    if (path / MARK).is_file():
        return SavedModelEngine(path)
    raise ModelError(f"{path} is no saved model; expected .keras, .xml, .onnx, .tflite, or a folder with a {MARK}")
