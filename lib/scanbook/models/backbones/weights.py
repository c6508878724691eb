"""What a backbone is built from: its entry, its weights, and what is known of their origin."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scanbook.config import Pretraining
from scanbook.errors import ModelError
from scanbook.models.backbones.kerashub import import_kerashub
from scanbook.registry import BACKBONES, BackboneSpec, describe_backbone

ARRAYS = "weights.npz"
"""Name of the file of weights in a folder of the store."""


@dataclass(frozen=True)
class Weights:
    """Pretrained weights of a backbone.

    Attributes:
        source: "imagenet", "scanbook" (synthetic images), "preset" of KerasHub, "file", or "none": random; "embeddings"
            where the file is of vectors, and there is no network.
        path: File of the arrays, in the order of the backbone's `get_weights`; None for random weights.
        digest: SHA-256 of that file, or of the user's that it was made from; "" for random weights.
        spec: The backbone, where the registry has none of its name or the weights expect other values; else None.
        pretraining: What is known of their origin.
        note: What a report says of vectors in place of weights.
    """

    source: str
    path: Path | None = None
    digest: str = ""
    spec: BackboneSpec | None = None
    pretraining: Pretraining = field(default_factory=Pretraining)
    note: str = ""

    @property
    def random(self) -> bool:
        """Whether there are none: the network starts from random weights."""
        return self.path is None

    @property
    def in_words(self) -> str:
        """On what the weights were pretrained."""
        words = {"scanbook": "synthetic images", "none": "none"}
        return self.pretraining.corpus or words.get(self.source, "a corpus that is not stated")


RANDOM = Weights("none")


def spec_of(name: str, weights: Weights = RANDOM) -> BackboneSpec:
    """Return a backbone: that of its weights, or the registry's; the `ModelError` of an unknown one lists all names."""
    if weights.spec:
        return weights.spec
    if name not in BACKBONES:
        raise ModelError(f"unknown backbone {name!r}; expected one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def identify(name: str, weights: Weights) -> dict[str, Any]:
    """Return what the results of a network depend on, for the keys of stages: backbone, its builder, and weights."""
    return {"weights": weights.digest, **describe_backbone(spec_of(name, weights))}


def attribute(path: str) -> Any:
    """Return the object of a `module:attribute` of the registry."""
    module, name = path.split(":")
    if module.startswith("keras_hub"):
        import_kerashub()
    return getattr(importlib.import_module(module), name)
