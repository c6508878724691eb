"""A saved model as an engine, whatever wrote it."""

from __future__ import annotations

from pathlib import Path

from scanbook.engines.base import Engine, Mode
from scanbook.engines.keras import KerasEngine
from scanbook.engines.onnx import OnnxEngine
from scanbook.engines.openvino import OpenVinoEngine
from scanbook.errors import ModelError


def open_saved(path: Path, mode: Mode = "latency", threads: int | None = None) -> Engine:
    """The engine of a saved model: `.keras`, `.xml` (OpenVINO) or `.onnx`.

    Args:
        path: The file.
        mode: See `OpenVinoEngine`; Keras knows one mode alone.
        threads: Processors to use, None for all; Keras's are set once a process, by `runtime.configure`.

    Raises:
        ModelError: The suffix is another one, the file cannot be opened, or its engine is not installed.
    """
    if path.suffix == ".keras":
        return KerasEngine(path)
    if path.suffix == ".xml":
        return OpenVinoEngine(path, mode, threads)
    if path.suffix == ".onnx":
        return OnnxEngine(path, mode, threads)
    raise ModelError(f"{path} is no saved model; expected .keras, .xml or .onnx")
