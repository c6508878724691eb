"""Keras itself as one traced function, and the SavedModel that TensorFlow runs without Keras."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

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
        if keras.backend.backend() == "tensorflow":
            self._call, _ = serving_function(model)
        else:
            self._call = partial(model, training=False)

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Return the outputs for uint8 RGB `(n, h, w, 3)`: one float32 array of n rows per output."""
        parts = []
        for batch in batches(np.ascontiguousarray(images), batch_size):
            outputs = self._call(batch)
            outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
            parts.append(tuple(self._to_numpy(output) for output in outputs))
        return join(parts)


class SavedModelEngine(KerasEngine):
    """A SavedModel, a folder, run by TensorFlow alone without the Keras model.

    Args:
        path: Its folder.

    Raises:
        ModelError: It cannot be opened, or has no function `serve`.
    """

    name = "SavedModel"

    def __init__(self, path: Path) -> None:
        self._to_numpy = runtime.keras().ops.convert_to_numpy
        import tensorflow as tf

        try:
            with _quiet():
                self._loaded = tf.saved_model.load(str(path))  # kept: its functions do not hold its weights
            self._call = self._loaded.serve
        except Exception as error:  # TensorFlow's own classes and OSError, depending on the fault
            raise ModelError(f"{path} is no SavedModel with a function `serve`; write it again") from error


@runtime.step("converting to SavedModel")
def to_saved_model(model: Any, path: Path) -> None:
    """Write a Keras model as a SavedModel, in float32; its function and signature are those of `serving_function`.

    TensorFlow writes it itself: Keras's own export takes more than twice as long and holds every weight twice.

    Raises:
        ModelError: See `write_whole`.
    """

    def write(work: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        module.state = [variable.value for variable in model.variables]
        module.serve, _ = serving_function(model)
        tf.saved_model.save(module, str(work))

    write_whole(path, write, "a SavedModel", alternative="the .keras file")


def serving_function(model: Any) -> tuple[Any, Any]:
    """Return a Keras model of one input as a TensorFlow function, and the input's `TensorSpec`.

    The function takes any number of images and returns the outputs in their order.
    """
    import tensorflow as tf

    source = model.inputs[0]
    spec = tf.TensorSpec((None, *source.shape[1:]), source.dtype, name=source.name)

    # not a function of its own: TensorFlow would take those of several networks for one that is traced again and again
    return tf.function(partial(model, training=False), input_signature=[spec], autograph=False), spec


def frozen_function(model: Any) -> Any:
    """Return a Keras model of one input as a concrete TensorFlow function whose weights are constants.

    A converter that is given variables looks for them: OpenVINO's compares each with all the others, and LiteRT's takes
    them for state.
    """
    import keras
    import tensorflow as tf

    weights = [(variable, np.asarray(variable)) for variable in model.variables]

    def traced(images: Any) -> Any:
        constants = [(variable, tf.constant(values)) for variable, values in weights]
        with keras.StatelessScope(state_mapping=constants):
            return model(images, training=False)

    [entry] = model.inputs
    signature = tf.TensorSpec(entry.shape, entry.dtype, "images")
    return tf.function(traced, autograph=False).get_concrete_function(signature)


def write_whole(path: Path, write: Callable[[Path], None], name: str, *, alternative: str) -> None:
    """Write a file or folder of a Keras model by TensorFlow, whole or not at all.

    Args:
        path: The file or folder.
        write: Writes it at another path.
        name: Name of the format, for errors.
        alternative: What to use instead, for errors.

    Raises:
        ModelError: Keras runs on another backend than TensorFlow, or the model cannot be written.
    """
    backend = runtime.keras().backend.backend()
    if backend != "tensorflow":
        raise ModelError(f"{name} is written by TensorFlow, and Keras runs on {backend}; write it in another process")
    work = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _quiet():
            write(work)
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
