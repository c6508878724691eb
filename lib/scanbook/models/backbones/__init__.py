"""Networks: a name becomes a flat Keras model from uint8 images to logits, with its weights."""

from scanbook.models.backbones.networks import (
    FEATURE_MAP,
    FEATURES,
    LOGITS,
    body_weights,
    build,
    keras,
    layers,
    load,
    pooled,
    set_weights,
    summary,
)
from scanbook.models.backbones.sources import POLICIES, RANDOM, SHIPPED, Weights, describe, pretrained, resolve

__all__ = [
    "FEATURES",
    "FEATURE_MAP",
    "LOGITS",
    "POLICIES",
    "RANDOM",
    "SHIPPED",
    "Weights",
    "body_weights",
    "build",
    "describe",
    "keras",
    "layers",
    "load",
    "pooled",
    "pretrained",
    "resolve",
    "set_weights",
    "summary",
]
