"""Backbones: flat Keras models from uint8 images to logits, and their pretrained weights."""

from scanbook.models.backbones.imagenet import SHIPPED, pretrained
from scanbook.models.backbones.networks import (
    FEATURE_MAP,
    FEATURES,
    LOGITS,
    body_weights,
    build,
    load,
    pooled,
    set_weights,
    summary,
)
from scanbook.models.backbones.sources import (
    NO_NETWORK,
    architectures,
    describe,
    resolve,
    resolve_for_images,
    tabulate,
    tabulate_origins,
)
from scanbook.models.backbones.weights import RANDOM, Weights, identify, spec_of
