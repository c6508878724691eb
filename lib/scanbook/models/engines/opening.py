"""A saved model as an engine, whatever wrote it."""

from __future__ import annotations

from pathlib import Path

from scanbook.errors import ModelError
from scanbook.models.engines.base import Engine, Mode
from scanbook.models.engines.keras import KerasEngine
from scanbook.models.engines.onnx import OnnxEngine
from scanbook.models.engines.openvino import OpenVinoEngine
from scanbook.models.engines.saved_model import MARK, SavedModelEngine


def open_saved(path: Path, mode: Mode = "latency", threads: int | None = None) -> Engine:
    """The engine of a saved model: `.keras`, `.xml` (OpenVINO), `.onnx`, or the folder of a SavedModel.

    Args:
        path: The file or folder.
        mode: See `OpenVinoEngine`; Keras and TensorFlow know one mode alone.
        threads: Processors to use, None for all; those two's are set once a process, by `runtime.configure`.

    Raises:
        ModelError: It is of another kind, cannot be opened, or its engine is not installed.
    """
    if path.suffix == ".keras":
        return KerasEngine(path)
    if path.suffix == ".xml":
        return OpenVinoEngine(path, mode, threads)
    if path.suffix == ".onnx":
        return OnnxEngine(path, mode, threads)
    if (path / MARK).is_file():
        return SavedModelEngine(path)
    raise ModelError(f"{path} is no saved model; expected .keras, .xml, .onnx, or a folder with a {MARK}")
