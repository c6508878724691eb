"""Keras itself, as one traced function."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.models.engines.base import Precision, batches, join


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
        call = partial(model, training=False)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # not a lambda: TensorFlow would take those of several engines for one that is traced again and again
            self._call = tf.function(call, reduce_retracing=True)
        else:
            self._call = call
        self._to_numpy = keras.ops.convert_to_numpy

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each."""
        parts = []
        for batch in batches(images, batch_size):
            outputs = self._call(batch)
            outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            parts.append(tuple(self._to_numpy(output) for output in outputs))
        return join(parts)
