"""TensorFlow's SavedModel, a folder: what TensorFlow Serving, and other tools of its kind, run."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.engines.base import Precision, batches, join

MARK = "saved_model.pb"
"""The file that makes a folder a SavedModel."""


class SavedModelEngine:
    """A SavedModel that Keras exported, run by TensorFlow alone: Keras is not asked.

    Args:
        path: Its folder.

    Raises:
        ModelError: It cannot be opened, or has no endpoint of Keras's.
    """

    name = "SavedModel"
    precision: Precision = "fp32"
    requests = 1

    def __init__(self, path: Path) -> None:
        runtime.keras()  # sets TensorFlow up as everywhere
        import tensorflow as tf

        try:
            with _quiet():
                self._loaded = tf.saved_model.load(str(path))  # kept: its endpoints do not hold its weights
            self._call = self._loaded.serve
        except Exception as error:  # TensorFlow's own classes and OSError, by what is wrong
            raise ModelError(f"{path} cannot be opened as a SavedModel of Keras's; write it again") from error

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each."""
        parts = []
        for batch in batches(np.ascontiguousarray(images), batch_size):
            outputs = self._call(batch)
            outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
            parts.append(tuple(output.numpy() for output in outputs))
        return join(parts)


def to_saved_model(model: Any, path: Path) -> None:
    """Writes a Keras model as a SavedModel, in float32, with a free number of images and the outputs in their order.

    Args:
        model: A Keras model with one input.
        path: The folder; written whole or not at all.

    Raises:
        ModelError: Keras runs on another backend than TensorFlow, or the model cannot be written.
    """
    backend = runtime.keras().backend.backend()
    if backend != "tensorflow":
        raise ModelError(f"TensorFlow writes a SavedModel, Keras runs on {backend}; set KERAS_BACKEND=tensorflow")
    source = model.inputs[0]
    model(np.zeros((1, *source.shape[1:]), source.dtype), training=False)  # Keras refuses to export an uncalled model
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _quiet():
            model.export(work, format="tf_saved_model", verbose=False)
        shutil.rmtree(path, ignore_errors=True)
        os.replace(work, path)
    except OSError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} cannot be written as a SavedModel ({reason}); use the .keras file instead") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Drops what TensorFlow says of itself, at any level, as it writes or reads."""
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
