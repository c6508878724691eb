"""Grad-CAM inside the model itself, and a check that it depends on the trained weights.

Grad-CAM weighs the channels of the last feature map by the gradient of a logit (Selvaraju et al., ICCV 2017): that of a
class, or of a finding.
From the logits to the pooled features that gradient is a product of the head's matrices, its ReLU masks and the slope
of its output, so it is computed in the graph: exact, without automatic differentiation, and exportable.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.evaluation import Calibration, group_weights, interval
from scanbook.models import backbones, heads

keras = runtime.keras()
layers = keras.layers

MAX_IMAGES = 8
"""Largest number of images of the randomisation check."""
STEPS = {
    "head": 0.0,
    "head, top quarter": 0.25,
    "head, top half": 0.5,
    "head, top three quarters": 0.75,
    "all layers": 1.0,
}
"""Steps of the randomisation check: it re-initialises the head, and a share of all other arrays from the top down."""


def add_heat_maps(model: Any, calibration: float | Calibration) -> Any:
    """Return the network that is exported, with calibrated probabilities and heat maps.

    A map is the feature map times the gradient of the logit by the pooled features. For mean pooling that is Grad-CAM
    times the number of positions. For maximum pooling Grad-CAM's weights are the same: the gradient of a channel is at
    its maximum alone, and its mean over the positions is what mean pooling spreads out. In a vision transformer the
    gradient by the class token weighs the patch tokens: an approximation, since attention mixed the tokens before.

    Args:
        model: A network of `backbones.build`, trained.
        calibration: Of classes, the temperature that divides the logits before the softmax; of findings, the
            calibration of each, whose logits end in a sigmoid of their own.

    Returns:
        A `keras.Model` from uint8 RGB `(n, h, w, 3)` to probabilities, float32 `(n, k)`, and activation maps, float32
        `(n, h', w', k)`, in logits before calibration: with mean pooling and a head without hidden layers, softmax or
        sigmoid, a map's average plus the bias is the logit of the class or finding.
    """
    probabilities = _calibrated(model.output, calibration)
    feature_map = model.get_layer(backbones.FEATURE_MAP).output
    dense, form = heads.head_layers(model), heads.output_form(model)
    if len(dense) > 1 or form == "ordinal":
        maps, kernels = _image_dependent_maps(feature_map, dense, form)
    else:
        kernel = dense[0].get_weights()[0]
        kernel = kernel @ _SIGMOID.T if form == "sigmoid" else kernel
        convolution = layers.Conv2D(kernel.shape[1], 1, use_bias=False, name="heat_maps")
        maps, kernels = convolution(feature_map), [(convolution, kernel[None, None])]
    # not its `input`: for a loaded network, Keras 3.10 gives a list, and the export would ask for one
    exported = keras.Model(model.inputs[0], [probabilities, maps])
    for layer, kernel in kernels:
        layer.set_weights([kernel])
    return exported


def average(models: Sequence[Any]) -> Any:
    """Return one network with the mean of the probabilities, and of the heat maps, of several.

    Args:
        models: Networks of `add_heat_maps`, each with its calibration, for images of one size.
    """
    if len({tuple(model.outputs[1].shape[1:3]) for model in models}) > 1:
        sizes = ", ".join(f"{model.outputs[1].shape[1]} × {model.outputs[1].shape[2]}" for model in models)
        raise ModelError(
            f"the folds chose backbones whose heat maps have different sizes ({sizes}), which have no average; set "
            "splits.exported to all_images, or name one backbone"
        )
    images = keras.Input(models[0].inputs[0].shape[1:], dtype=models[0].inputs[0].dtype)
    for number, model in enumerate(models, 1):
        model.name = f"fold_{number}"
    outputs = [model(images) for model in models]
    probabilities = layers.Average(name="probabilities")([output[0] for output in outputs])
    maps = layers.Average(name="heat_maps")([output[1] for output in outputs])
    return keras.Model(images, [probabilities, maps])


def _calibrated(logits: Any, calibration: float | Calibration) -> Any:
    """Return the probabilities of logits, `(n, k)`: of classes, which sum to 1, or of findings."""
    if isinstance(calibration, Calibration):
        slope, offset = calibration.slope.tolist(), calibration.offset.tolist()
        scaled = layers.Rescaling(slope, offset, dtype="float32", name="calibration")(logits)
        return layers.Activation("sigmoid", dtype="float32", name="probabilities")(scaled)
    scaled = layers.Rescaling(1.0 / calibration, name="temperature")(logits)
    return layers.Softmax(name="probabilities")(scaled)


_SIGMOID = np.array([[-0.5], [0.5]], np.float32)
"""Gradient of the two logits by the score."""


def _image_dependent_maps(feature_map: Any, dense: list[Any], form: str) -> tuple[Any, list[tuple[Any, np.ndarray]]]:
    """Return the heat maps of a head whose gradient depends on the image, and the kernels of their layers.

    Rows of every gradient are the classes: `(n, k, units)`. One step back through a Dense layer is a product with its
    transposed kernel, one through a ReLU a mask of the positive units.
    """
    gradient = _output_gradient(dense[-1].output, form)
    kernels = []
    for index, layer in reversed(list(enumerate(dense))):
        kernel = layer.get_weights()[0].T
        back = layers.Dense(kernel.shape[1], use_bias=False, dtype="float32", name=f"gradient_{index}")
        gradient = back(gradient)
        kernels.append((back, kernel))
        if index:
            on = keras.ops.cast(dense[index - 1].output > 0, "float32")
            gradient = keras.ops.multiply(gradient, keras.ops.expand_dims(on, 1))
    _, height, width, channels = feature_map.shape
    flat = layers.Reshape((height * width, channels))(feature_map)
    maps = keras.ops.matmul(flat, keras.ops.transpose(gradient, (0, 2, 1)))
    return layers.Reshape((height, width, gradient.shape[1]), name="heat_maps")(maps), kernels


def _output_gradient(z: Any, form: str) -> Any:
    """Return the gradient of the logits of `heads.attach` by the scores, `(n, k, scores)`.

    For an ordinal head, of logit j by step i: sigmoid(-z_i) where i < j, -sigmoid(z_j) where i = j, else 0.
    """
    scores = keras.ops.expand_dims(z, 1)
    if form == "ordinal":
        before = np.tri(z.shape[1] + 1, z.shape[1], -1, dtype=np.float32)
        at = np.eye(z.shape[1] + 1, z.shape[1], dtype=np.float32)
        return keras.ops.sigmoid(-scores) * before - keras.ops.sigmoid(scores) * at
    constant = _SIGMOID if form == "sigmoid" else np.eye(z.shape[1], dtype=np.float32)
    return keras.ops.zeros_like(scores) + constant  # one for each image


def grad_cam(maps: np.ndarray, classes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return Grad-CAM of one class or finding per image, from the heat maps of `add_heat_maps`.

    Args:
        maps: float32 `(n, h', w', k)`.
        classes: Class or finding to show for each image, int `(n,)`.
        size: Height and width to enlarge to.

    Returns:
        float32 `(n, height, width)` between 0 and 1; all zeros if no position has evidence of the class.
    """
    positive = np.maximum(maps[np.arange(len(maps)), :, :, classes], 0)
    heat = (positive / np.maximum(positive.max((1, 2), keepdims=True), 1e-9)).astype(np.float32)
    return np.stack([cv2.resize(heat_map, size[::-1], interpolation=cv2.INTER_LINEAR) for heat_map in heat])


def randomisation_check(model: Any, images: np.ndarray, seed: int) -> pd.DataFrame:
    """Check whether the heat maps depend on the trained weights (Adebayo et al., NeurIPS 2018, section 3).

    Layers are re-initialised from the top down, and the maps of the class that the trained network predicts, or of the
    finding of the largest logit, are ranked position by position. Maps that do not change show edges of the image, not
    evidence of the network. The maps are compared with their negative part, whose zeros would otherwise be tied.

    Args:
        model: A network of `backbones.build`, trained; not changed.
        images: uint8 RGB `(n, h, w, 3)`; at most `MAX_IMAGES` of them are used, at equal distances.
        seed: Seed of the new weights, and of the resamples of images.

    Returns:
        One row per step: `randomised`, the re-initialised layers; `correlation`, Spearman's rank correlation with
        the trained network's maps, its mean over the images; `low` and `high`, its 95 % interval over resamples of the
        images; `images`, how many. A map that became constant has correlation 0; maps of a single position have none,
        NaN.
    """
    images = images[np.unique(np.linspace(0, len(images) - 1, min(len(images), MAX_IMAGES)).round().astype(int))]
    probabilities, maps = _outputs(model, images)
    rows, classes = np.arange(len(images)), probabilities.argmax(1)
    trained = maps[rows, :, :, classes]
    copy = _reinitialised(model, seed)
    fixed = [*heads.head_layers(model), *(layer for layer in model.layers if isinstance(layer, layers.Normalization))]
    outside = {id(weight) for layer in fixed for weight in layer.weights}
    body = [pair for pair in zip(model.weights, copy.weights, strict=True) if id(pair[0]) not in outside]
    resamples = group_weights(rows, 1000, seed)
    table, restored = [], 0
    for step, share in reversed(
        STEPS.items()
    ):  # the copy starts all random and gets its weights back from the first layer on
        trained_arrays = len(body) - round(share * len(body))
        for source, target in body[restored:trained_arrays]:
            target.assign(source)
        restored = trained_arrays
        correlation = _rank_correlation(trained, _outputs(copy, images)[1][rows, :, :, classes])
        low, high = interval(resamples @ correlation / len(rows))
        table.append((step, correlation.mean(), float(low), float(high), len(rows)))
    return pd.DataFrame(table[::-1], columns=["randomised", "correlation", "low", "high", "images"])


def _outputs(model: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and heat maps without a traced graph: tracing would take longer than the images."""
    probabilities, maps = add_heat_maps(model, 1.0)(images, training=False)
    return keras.ops.convert_to_numpy(probabilities), keras.ops.convert_to_numpy(maps)


def _reinitialised(model: Any, seed: int) -> Any:
    """Return a copy of a network with new random weights, except its normalisation of images, which is not trained."""
    state = random.getstate()
    random.seed(seed)  # Keras draws the seeds of its initialisers from Python's generator
    try:
        copy = keras.models.clone_model(keras.Model(model.input, model.output))  # not its optimizer
    finally:
        random.setstate(state)
    for source, target in zip(model.layers, copy.layers, strict=True):
        if isinstance(source, layers.Normalization):
            target.set_weights(source.get_weights())
            target.finalize_state()
    return copy


def _rank_correlation(maps: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return Spearman's rank correlation of two sets of maps `(n, h, w)` per image, float64 `(n,)`."""
    if maps[0].size == 1:
        return np.full(len(maps), np.nan)
    ranks = [rankdata(values.reshape(len(values), -1), axis=1) for values in (maps, others)]
    a, b = (values - values.mean(1, keepdims=True) for values in ranks)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.zeros(len(maps)), where=scale > 0)
