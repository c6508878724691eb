"""ImageNet's weights of the listed backbones, and those that come with scanbook."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.config import Pretraining
from scanbook.errors import ModelError, UnavailableError
from scanbook.models.backbones.weights import ARRAYS, RANDOM, Weights, attribute, spec_of
from scanbook.registry import BACKBONES, BackboneSpec, describe_backbone
from scanbook.runtime import downloads
from scanbook.store import file_digest, stage

keras = runtime.keras()
layers = keras.layers

SHIPPED = Path(__file__).parents[1] / "weights"

_patience = [downloads.SILENCE]
"""Seconds that the next download waits for an answer: fewer after one that got none, since others hardly will."""
_LITTLE = 5.0
_CORPUS = "ImageNet-1k"
# Keras stated the licences of these weights by architecture in the documentation of Keras 2, keras-team/keras,
# docs/templates/applications.md, under "License"; it has none of EfficientNet, ConvNeXt and KerasHub's presets.
_LICENCES = {
    "Xception": "MIT",
    "VGG": "CC BY 4.0",
    "ResNet50": "MIT",
    "ResNet50V2": "BSD",
    "ResNet152V2": "BSD",
    "Inception": "Apache-2.0",
    "MobileNet": "Apache-2.0",
    "DenseNet": "BSD-3-Clause",
}
POLICIES = ("auto", "imagenet", "scanbook", "none")
"""Words that a study's `weights` can be."""


def pretrained(name: str, policy: str) -> Weights:
    """Return the pretrained weights of a listed backbone.

    Args:
        name: Name of the backbone.
        policy: "imagenet"; "scanbook" for the weights that come with the library; "auto" for ImageNet's if they are in
            the Keras cache or can be downloaded, else the library's; "none" for random weights.

    Raises:
        UnavailableError: There are no such weights, with the reason.
        ModelError: The backbone or the policy is unknown.
    """
    spec = spec_of(name)
    if policy not in POLICIES:
        raise ModelError(f"unknown policy of weights {policy!r}; expected one of {', '.join(POLICIES)}")
    if policy == "none":
        return RANDOM
    if not spec.pretrained:
        raise UnavailableError(
            f"backbone {name} has no pretrained weights; train it from scratch, or name another backbone"
        )
    if policy in ("auto", "imagenet"):
        try:
            folder = stage("imagenet", describe_backbone(spec), lambda work: _fetch_imagenet(spec, work), __name__)
        except UnavailableError:
            if policy == "imagenet" or not spec.shipped:
                raise
        else:
            path = folder / ARRAYS
            return Weights("imagenet", path, file_digest(path), pretraining=_origin(spec))
    if not spec.shipped:
        shipped = ", ".join(other.name for other in BACKBONES.values() if other.shipped)
        raise UnavailableError(
            f"scanbook ships no weights for {name}, only for {shipped}; set weights to auto or imagenet"
        )
    path = SHIPPED / spec.shipped
    if not path.is_file():
        raise UnavailableError(f"the shipped weights {path} are missing; run make pretrain, or install scanbook again")
    origin = Pretraining(corpus="synthetic images", source="scanbook", licence="Apache-2.0")
    return Weights("scanbook", path, file_digest(path), pretraining=origin)


def _origin(spec: BackboneSpec) -> Pretraining:
    """Return what is known of a backbone's ImageNet weights."""
    package, builder = spec.builder.split(":")
    if "preset" in spec.arguments:
        return Pretraining(corpus=_CORPUS, source=f"KerasHub, preset {spec.arguments['preset']}")
    fitting = [family for family in _LICENCES if builder.startswith(family)]
    licence = _LICENCES[max(fitting, key=len)] if fitting else ""
    return Pretraining(corpus=_CORPUS, source=f"{package}.{builder}", licence=licence)


def _fetch_imagenet(spec: BackboneSpec, folder: Path) -> None:
    """Save ImageNet weights as arrays; the source network takes any image size, so one file serves all."""
    [patience] = _patience
    try:
        with downloads.limited(patience):
            source = _download(spec)
    except Exception as error:  # each source fails in its own way: URLError, OSError, Kaggle's and Keras's own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if downloads.silent(error):
            reason = f"no answer within {patience:g} s"
            _patience[:] = [_LITTLE]
        raise UnavailableError(
            f"no ImageNet weights for {spec.name}: not in the Keras cache and not downloadable ({reason})"
        ) from error
    np.savez(folder / ARRAYS, *_arrays(source))


def _download(spec: BackboneSpec) -> Any:
    """Return a network with ImageNet weights, from the Keras cache or its server."""
    if "preset" in spec.arguments:
        return attribute(spec.builder).from_preset(spec.arguments["preset"])
    with warnings.catch_warnings():
        # MobileNet's builders warn that they take the weights of 224 pixels; without a top they fit any size
        warnings.filterwarnings("ignore", message="`input_shape` is undefined")
        shape = (None, None, 3)
        return attribute(spec.builder)(include_top=False, weights="imagenet", input_shape=shape, **spec.arguments)


def _arrays(source: Any) -> list[np.ndarray]:
    """Return a network's ImageNet weights as they fit the network that its builder makes without weights.

    EfficientNet's builder divides the normalised image once more, with ImageNet weights alone (tensorflow#49930); here
    that is part of the variance, from which `build` normalises.
    """
    for layer, following in pairwise(source.layers):
        if isinstance(layer, layers.Normalization) and isinstance(following, layers.Rescaling):
            mean, variance, count = layer.get_weights()
            layer.set_weights([mean, variance / np.square(following.scale), count])
    return source.get_weights()
