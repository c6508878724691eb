"""Where a network looks: Grad-CAM, inside the model itself, and whether it depends on what the model learned.

Grad-CAM weighs the channels of the last feature map by the gradient of a class's logit (Selvaraju et al., ICCV 2017).
From the logits to the pooled features that gradient is a product of the head's matrices, its ReLU masks and the slope
of its output, so it is computed in the graph: exact, without automatic differentiation, and exportable.
"""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from scanbook import runtime
from scanbook.evaluation import group_weights, interval
from scanbook.models import backbones, heads

keras = runtime.keras()
layers = keras.layers

CHECKED = 8
"""Most images that the randomisation check looks at."""
STEPS = {
    "head": 0.0,
    "head, top quarter": 0.25,
    "head, top half": 0.5,
    "head, top three quarters": 0.75,
    "all layers": 1.0,
}
"""What the randomisation check re-initialises: the head, and a share of all other arrays, from the top down."""


def with_heat_maps(model: Any, temperature: float) -> Any:
    """The network as it is exported: calibrated probabilities and heat maps.

    A map is the feature map times the gradient of the logit by the pooled features. For mean pooling that is Grad-CAM
    times the number of positions. For maximum pooling Grad-CAM's weights are the same: the gradient of a channel is at
    its maximum alone, and its mean over the positions is what mean pooling spreads out. In a vision transformer the
    gradient by the class token weighs the patch tokens: an approximation, since attention mixed the tokens before.

    Args:
        model: A network of `backbones.build`, trained.
        temperature: What the logits are divided by before the softmax.

    Returns:
        A `keras.Model` from uint8 RGB `(n, h, w, 3)` to probabilities, float32 `(n, k)`, and class activation maps,
        float32 `(n, h', w', k)`, in logits: with mean pooling and a head without hidden layers, softmax or sigmoid, a
        map's average plus the bias is the class's logit.
    """
    scaled = layers.Rescaling(1.0 / temperature, name="temperature")(model.output)
    probabilities = layers.Softmax(name="probabilities")(scaled)
    feature_map = model.get_layer(backbones.FEATURE_MAP).output
    dense, form = heads.head_layers(model), heads.output_form(model)
    if len(dense) > 1 or form == "ordinal":
        maps, kernels = _weighed(feature_map, dense, form)
    else:
        kernel = dense[0].get_weights()[0]
        kernel = kernel @ _SIGMOID.T if form == "sigmoid" else kernel
        convolution = layers.Conv2D(kernel.shape[1], 1, use_bias=False, name="heat_maps")
        maps, kernels = convolution(feature_map), [(convolution, kernel[None, None])]
    # not its `input`: of a loaded network, Keras 3.10 gives a list there, and the export would ask for one
    exported = keras.Model(model.inputs[0], [probabilities, maps])
    for layer, kernel in kernels:
        layer.set_weights([kernel])
    return exported


_SIGMOID = np.array([[-0.5], [0.5]], np.float32)
"""Gradient of the two logits by the score."""


def _weighed(feature_map: Any, dense: list[Any], form: str) -> tuple[Any, list[tuple[Any, np.ndarray]]]:
    """Heat maps of a head whose gradient depends on the image, and the kernels that its layers are to be given.

    Rows of every gradient are the classes: `(n, k, units)`. One step back through a Dense layer is a product with its
    transposed kernel, one through a ReLU a mask of the units that are on.
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
    """Gradient of the logits by the scores, `(n, k, scores)`; what `heads.attach` makes of the scores, differentiated.

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
    """Grad-CAM of one class an image, from the heat maps that `with_heat_maps` gives.

    Args:
        maps: float32 `(n, h', w', k)`.
        classes: Class to show for each image, int `(n,)`.
        size: Height and width to enlarge to.

    Returns:
        float32 `(n, height, width)` between 0 and 1; all zeros where nothing speaks for the class.
    """
    chosen = np.maximum(maps[np.arange(len(maps)), :, :, classes], 0)
    chosen = chosen / np.maximum(chosen.max((1, 2), keepdims=True), 1e-9)
    return np.stack(
        [cv2.resize(each, size[::-1], interpolation=cv2.INTER_LINEAR) for each in chosen.astype(np.float32)]
    )


def randomisation_check(model: Any, images: np.ndarray, seed: int) -> pd.DataFrame:
    """Whether the heat maps depend on what the network learned (Adebayo et al., NeurIPS 2018, section 3).

    Layers are re-initialised from the top down, and the maps of the class that the trained network predicts are ranked
    position by position. Maps that stay as they were show edges of the image, not evidence of the network. The maps are
    compared before their negative part is cut off, whose zeros would all tie.

    Args:
        model: A network of `backbones.build`, trained; left as it is.
        images: uint8 RGB `(n, h, w, 3)`; of more than `CHECKED`, that many are taken at equal distances.
        seed: Of the new weights, and of the resamples of images.

    Returns:
        A row a step: `randomised`, the layers that are re-initialised; `correlation`, Spearman's rank correlation with
        the trained network's maps, its mean over the images; `low` and `high`, its 95 % interval over resamples of the
        images; `images`, how many. A map that became constant has correlation 0; maps of a single position have none,
        NaN.
    """
    images = images[np.unique(np.linspace(0, len(images) - 1, min(len(images), CHECKED)).round().astype(int))]
    probabilities, maps = _outputs(model, images)
    rows, classes = np.arange(len(images)), probabilities.argmax(1)
    trained = maps[rows, :, :, classes]
    copy = _reinitialised(model, seed)
    fixed = [*heads.head_layers(model), *(each for each in model.layers if isinstance(each, layers.Normalization))]
    outside = {id(weight) for layer in fixed for weight in layer.weights}
    body = [pair for pair in zip(model.weights, copy.weights, strict=True) if id(pair[0]) not in outside]
    resamples = group_weights(rows, 1000, seed)
    table, restored = [], 0
    for step, share in reversed(STEPS.items()):  # the copy starts all random and gets its weights back from below
        kept = len(body) - round(share * len(body))
        for source, target in body[restored:kept]:
            target.assign(source)
        restored = kept
        correlation = _rank_correlation(trained, _outputs(copy, images)[1][rows, :, :, classes])
        low, high = interval(resamples @ correlation / len(rows))
        table.append((step, correlation.mean(), float(low), float(high), len(rows)))
    return pd.DataFrame(table[::-1], columns=["randomised", "correlation", "low", "high", "images"])


def _outputs(model: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and heat maps, called once as they are: tracing a graph would take longer than the images do."""
    probabilities, maps = with_heat_maps(model, 1.0)(images, training=False)
    return keras.ops.convert_to_numpy(probabilities), keras.ops.convert_to_numpy(maps)


def _reinitialised(model: Any, seed: int) -> Any:
    """A copy of a network with new random weights, but for what normalises its images, which is not learned."""
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
    """Spearman's rank correlation of two sets of maps `(n, h, w)`, image by image, float64 `(n,)`."""
    if maps[0].size == 1:
        return np.full(len(maps), np.nan)
    ranks = [rankdata(each.reshape(len(each), -1), axis=1) for each in (maps, others)]
    a, b = (each - each.mean(1, keepdims=True) for each in ranks)
    scale = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), scale, out=np.zeros(len(maps)), where=scale > 0)
