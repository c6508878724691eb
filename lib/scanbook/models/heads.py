"""Heads: layers on a network's pooled features that end in one logit per class or finding, for every form of output.

A head has hidden layers and one of three outputs. Softmax has one logit per class. Sigmoid has one score for two
classes. Ordinal is the continuation-ratio model (Fienberg, The Analysis of Cross-Classified Categorical Data, 1980,
section 6.6; trained jointly as in CORN, Shi et al., arXiv:2111.08851): one step per grade, the probability of going
beyond it once it is reached. All three give logits whose softmax is the distribution over the classes, so that one loss
trains them and one temperature calibrates them. Findings have the same linear layer as softmax, and the sigmoid of a
logit is the probability that its finding is present. All layers are Keras's own: a model loads without scanbook's code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.config import Head
from scanbook.errors import ModelError

keras = runtime.keras()
layers = keras.layers

LOGITS = "logits"
"""Name of the layer that gives the logits, in every model."""
SOFTMAX = Head()
"""A linear layer and the softmax."""

_OUTPUTS = {"softmax": LOGITS, "sigmoid": "score", "ordinal": "steps"}
_HIDDEN = "hidden_"


def attach(features: Any, classes: int, head: Head = SOFTMAX) -> Any:
    """Attach a head to features.

    Args:
        features: Symbolic tensor `(n, channels)`: a network's pooled features, or a `keras.Input` for cached ones.
        classes: Number of classes or findings k.
        head: Hidden layers and form of the output.

    Returns:
        Logits, float32 `(n, k)`, of a layer named "logits"; their softmax is the distribution over the classes. With
        "sigmoid" they are -z/2 and z/2 for the score z, so that the second class has probability sigmoid(z). With
        "ordinal" and steps z, P(y > j | y >= j) = sigmoid(z_j), so logit j, the log-probability itself, is
        sum_{i<j} log sigmoid(z_i) + log sigmoid(-z_j), without the last term for the last class.

    Raises:
        ModelError: The form does not fit the number of classes.
    """
    check(classes, head)
    x = features
    for index, units in enumerate(head.units, 1):
        x = layers.Dense(units, "relu", dtype="float32", name=f"{_HIDDEN}{index}")(x)
    name = _OUTPUTS[head.output]
    if head.output == "softmax":
        return layers.Dense(classes, dtype="float32", name=name)(x)
    if head.output == "sigmoid":
        z = layers.Dense(1, dtype="float32", name=name)(x)
        halves = [layers.Rescaling(scale, dtype="float32")(z) for scale in (-0.5, 0.5)]
        return layers.Concatenate(dtype="float32", name=LOGITS)(halves)
    z = layers.Dense(classes - 1, dtype="float32", name=name)(x)
    reached = keras.ops.cumsum(keras.ops.log_sigmoid(z), axis=-1)  # class j + 1; class 0 always is
    stays = keras.ops.log_sigmoid(-z)  # in class j; in the last class all that reach it do
    padded = [keras.ops.pad(reached, [[0, 0], [1, 0]]), keras.ops.pad(stays, [[0, 0], [0, 1]])]
    return layers.Add(dtype="float32", name=LOGITS)(padded)


def check(classes: int, head: Head) -> None:
    """Raise a `ModelError` if the form of a head does not fit the number of classes."""
    if head.output == "sigmoid" and classes != 2:
        raise ModelError(f"a sigmoid head has two classes, not {classes}; set head.output to softmax or ordinal")
    if head.output == "ordinal" and classes < 2:
        raise ModelError(f"an ordinal head has at least two grades, not {classes}; set head.output to softmax")


def start_from(model: Any, logits: np.ndarray | None) -> None:
    """Let a model's head start with these logits, float `(k,)`; None leaves it as it is."""
    if logits is not None:
        head_layers(model)[-1].bias.assign(logits)


def add_to_logits(model: Any, logits: np.ndarray) -> None:
    """Add logits, float `(k,)`, to what a model's head gives, by its last bias.

    Raises:
        ModelError: The head is ordinal: its logits are no sums of the scores.
    """
    form = output_form(model)
    if form == "ordinal":
        raise ModelError("an ordinal head has no logit of its own for each grade; set logit_adjustment to 0")
    bias = head_layers(model)[-1].bias
    bias.assign_add(logits if form == "softmax" else logits[1:] - logits[:1])


def head_layers(model: Any) -> list[Any]:
    """Return the Dense layers of a model's head, first to last; the last gives the scores."""
    return [layer for layer in model.layers if isinstance(layer, layers.Dense) and names_layer_of_head(layer.name)]


def names_layer_of_head(name: str) -> bool:
    """Return whether a layer of this name belongs to the head."""
    return name in _OUTPUTS.values() or name.startswith(_HIDDEN)


def output_form(model: Any) -> str:
    """Return the form of a model's head: "softmax", "sigmoid" or "ordinal"."""
    last = head_layers(model)[-1].name
    return next(form for form, name in _OUTPUTS.items() if name == last)
