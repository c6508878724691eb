"""Initial weights of backbones: ImageNet's, scanbook's own, or none, with the reason."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.config import Study
from scanbook.errors import ModelError
from scanbook.registry import BACKBONES, BackboneSpec, describe_backbone
from scanbook.runtime import downloads
from scanbook.store import file_digest, stage

keras = runtime.keras()
layers = keras.layers

SHIPPED = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Weights:
    """Pretrained weights of a backbone.

    Attributes:
        source: "imagenet", "scanbook" (synthetic images), or "none": random.
        path: File of the arrays, in the order of the backbone's `get_weights`; None for random weights.
        digest: SHA-256 of that file, "" for random weights.
    """

    source: str
    path: Path | None = None
    digest: str = ""


RANDOM = Weights("none")
_patience = [downloads.SILENCE]
"""Seconds that the next download waits for an answer: fewer after one that got none, since others hardly will."""
_LITTLE = 5.0
POLICIES = ("auto", "imagenet", "scanbook", "none")
"""Values of a study's `weights`."""


def pretrained(name: str, policy: str) -> Weights:
    """Return the pretrained weights of a backbone.

    Args:
        name: Name of the backbone.
        policy: "imagenet"; "scanbook" for the weights that come with the library; "auto" for ImageNet's if they are in
            the Keras cache or can be downloaded, else the library's; "none" for random weights.

    Raises:
        ModelError: There are no such weights, with the reason; or the backbone or the policy is unknown.
    """
    spec = spec_of(name)
    if policy not in POLICIES:
        raise ModelError(f"unknown policy of weights {policy!r}; expected one of {', '.join(POLICIES)}")
    if policy == "none":
        return RANDOM
    if not spec.pretrained:
        raise ModelError(f"backbone {name} has no pretrained weights; train it from scratch, or name another backbone")
    if policy in ("auto", "imagenet"):
        try:
            folder = stage("imagenet", describe_backbone(name), lambda work: _fetch_imagenet(spec, work), __name__)
        except ModelError:
            if policy == "imagenet" or not spec.shipped:
                raise
        else:
            path = folder / "weights.npz"
            return Weights("imagenet", path, file_digest(path))
    if not spec.shipped:
        shipped = ", ".join(other.name for other in BACKBONES.values() if other.shipped)
        raise ModelError(f"scanbook ships no weights for {name}, only for {shipped}; set weights to auto or imagenet")
    path = SHIPPED / spec.shipped
    if not path.is_file():
        raise ModelError(f"the shipped weights {path} are missing; run make pretrain, or install scanbook again")
    return Weights("scanbook", path, file_digest(path))


def resolve(study: Study) -> tuple[dict[str, Weights], dict[str, str]]:
    """Return the pretrained weights of the study's backbones.

    Returns:
        The weights by backbone, in the study's order; and the reason by backbone without weights.
    """
    weights, missing = {}, {}
    for name in study.pretrained_backbones:
        if study.weights == "none":
            missing[name] = f"no pretrained weights for {name}: the study sets weights to none"
            continue
        try:
            weights[name] = pretrained(name, study.weights)
        except ModelError as error:
            missing[name] = str(error)
    return weights, missing


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
        raise ModelError(
            f"no ImageNet weights for {spec.name}: not in the Keras cache and not downloadable ({reason})"
        ) from error
    np.savez(folder / "weights.npz", *_arrays(source))


def _download(spec: BackboneSpec) -> Any:
    """Return a network with ImageNet weights, from the Keras cache or its server."""
    if spec.builder.startswith("keras_hub"):
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


def describe(weights: dict[str, Weights], missing: dict[str, str]) -> str:
    """Return one sentence with the source of each backbone's pretrained weights, and why some have none."""
    names = {"imagenet": "ImageNet", "scanbook": "synthetic images (shipped with scanbook)", "none": "none"}
    available = ", ".join(f"{name}: {names[values.source]}" for name, values in weights.items())
    not_run = " ".join(f"Not run: {reason}." for reason in missing.values())
    return f"Pretrained weights: {available or 'none'}. {not_run}".strip()


def spec_of(name: str) -> BackboneSpec:
    """Return the registry's entry of a backbone; the `ModelError` of an unknown one lists all names."""
    if name not in BACKBONES:
        raise ModelError(f"unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def attribute(path: str) -> Any:
    """Return the object of a `module:attribute` of the registry."""
    module, name = path.split(":")
    if module.startswith("keras_hub"):
        import_kerashub()
    return getattr(importlib.import_module(module), name)


@cache
def import_kerashub() -> None:
    """Import KerasHub, which registers its layers, and correct a fault that prevents loading a vision transformer.

    Its embedding writes two numbers into its config that its own constructor refuses (seen in KerasHub 0.32).
    """
    embedding = importlib.import_module("keras_hub.src.models.vit.vit_layers").ViTPatchingAndEmbedding
    original = embedding.get_config

    def get_config(self: Any) -> dict[str, Any]:
        return {key: value for key, value in original(self).items() if key not in ("num_patches", "num_positions")}

    embedding.get_config = get_config
