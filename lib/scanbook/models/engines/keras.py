"""Keras itself as one traced function, and the files that Keras exports for TensorFlow and ONNX Runtime."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.engines.base import Precision, batches, join

MARK = "saved_model.pb"
"""File that makes a folder a SavedModel."""


class KerasEngine:
    """A Keras model as one traced function, several times faster than `model.predict` on small batches.

    Args:
        model: A Keras model with one uint8 input, or the path of a `.keras` file.

    Raises:
        ModelError: The file cannot be loaded.
    """

    name = "Keras"
    precision: Precision = "fp32"
    requests = 1

    def __init__(self, model: Path | Any) -> None:
        keras = runtime.keras()
        if isinstance(model, Path):
            from scanbook.models import backbones  # not part of a bundle, whose service has no Keras either

            model = backbones.load(model)
        self._to_numpy = keras.ops.convert_to_numpy
        self._call = partial(model, training=False)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # not a lambda: TensorFlow would take those of several engines for one that is traced again and again
            self._call = tf.function(self._call, reduce_retracing=True)

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Return the outputs for uint8 RGB `(n, h, w, 3)`: one float32 array of n rows per output."""
        parts = []
        for batch in batches(np.ascontiguousarray(images), batch_size):
            outputs = self._call(batch)
            outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
            parts.append(tuple(self._to_numpy(output) for output in outputs))
        return join(parts)


class SavedModelEngine(KerasEngine):
    """A SavedModel that Keras exported, a folder, run by TensorFlow alone without the Keras model.

    Args:
        path: Its folder.

    Raises:
        ModelError: It cannot be opened, or has no endpoint written by Keras.
    """

    name = "SavedModel"

    def __init__(self, path: Path) -> None:
        self._to_numpy = runtime.keras().ops.convert_to_numpy
        import tensorflow as tf

        try:
            with _quiet():
                self._loaded = tf.saved_model.load(str(path))  # kept: its endpoints do not hold its weights
            self._call = self._loaded.serve
        except Exception as error:  # TensorFlow's own classes and OSError, depending on the fault
            raise ModelError(f"{path} cannot be opened as a SavedModel of Keras's; write it again") from error


def to_saved_model(model: Any, path: Path) -> None:
    """Write a Keras model as a SavedModel, in float32; see `export_model`."""
    export_model(model, path, "tf_saved_model")


def export_model(model: Any, path: Path, file_format: Literal["onnx", "tf_saved_model"]) -> None:
    """Write a Keras model with a free number of images and the outputs in their order, whole or not at all.

    Args:
        model: A Keras model with one input.
        path: The ONNX file, or the folder of the SavedModel.
        file_format: Format, by Keras's name.

    Raises:
        ModelError: Keras runs on another backend than TensorFlow, or the model cannot be written.
    """
    name, alternative = ("ONNX", "OpenVINO") if file_format == "onnx" else ("a SavedModel", "the .keras file")
    backend = runtime.keras().backend.backend()
    if backend != "tensorflow":
        raise ModelError(f"{name} is written by Keras on TensorFlow, not on {backend}; set KERAS_BACKEND=tensorflow")
    source = model.inputs[0]
    model(np.zeros((1, *source.shape[1:]), source.dtype), training=False)  # Keras refuses to export an uncalled model
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _quiet():
            model.export(work, format=file_format, verbose=False)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(work, path)
    except OSError:
        raise
    except Exception as error:  # each layer of a converter fails in its own way
        reason = first_line(error)
        raise ModelError(f"{path} cannot be written as {name} ({reason}); use {alternative} instead") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        work.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress TensorFlow's messages of any level while it writes or reads."""
    import tensorflow as tf

    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
