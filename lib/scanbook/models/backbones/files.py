"""Networks and weights from a user's files."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from scanbook import runtime
from scanbook.config import Pretraining
from scanbook.errors import ModelError
from scanbook.models.backbones.weights import ARRAYS, Weights, import_kerashub
from scanbook.registry import FILE, SCALINGS, BackboneSpec
from scanbook.store import atomic_write, file_digest, stage

keras = runtime.keras()

_NETWORK = "network.json"
_COPIES = 4
"""Copies of its weights that a network in training holds: the weights, their gradients and Adam's two moments."""


def read_network(name: str, stated: Pretraining) -> Weights:
    """Return a whole network that Keras saved, and its weights.

    Args:
        name: `file:` and the path of a `.keras` file with a functional network, from images to a feature map or to a
            vector.
        stated: Its scaling, which must be stated, and its origin.

    Raises:
        ModelError: The file is missing, is no such network, has code of its own, or its weights are not finite; the
            scaling is not stated.
    """
    path = _existing(name, name.removeprefix(FILE))
    scaling = stated.stated_scaling
    if scaling is None:
        raise ModelError(
            f"backbone {name} does not state which values it expects; set pretraining.'{name}'.scaling to one of "
            f"{', '.join(SCALINGS)}, or to such as {{mean: 127, deviation: 128}}"
        )
    check_memory(name, path.stat().st_size)
    digest = file_digest(path)

    def build(folder: Path) -> None:
        network = _load_network(name, path)
        values = network.get_weights()
        check_finite(name, network.weights, values)
        atomic_write(folder / _NETWORK, json.dumps(network.get_config()))
        np.savez(folder / ARRAYS, *values)

    folder = stage("network", {"file": digest, "packages": runtime.versions_of(["keras"])}, build, __name__)
    config = json.loads((folder / _NETWORK).read_text())
    spec = BackboneSpec(name, "keras:Model", scaling, {"config": config}, smallest=1)
    return Weights("file", folder / ARRAYS, digest, spec, stated)


def _existing(name: str, text: str) -> Path:
    path = runtime.project_root() / Path(text).expanduser()
    if not path.is_file():
        raise ModelError(f"backbone {name}: there is no file {path}; expected one that Keras saved; correct the path")
    return path


def _load_network(name: str, path: Path) -> Any:
    """Load a functional network that takes images and has no code of its own."""
    if path.suffix != ".keras":
        raise ModelError(f"backbone {name} is {path.suffix or 'a file'}; expected .keras: save it with model.save()")
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json")
        if b'"keras_hub' in text:
            import_kerashub()
        network = keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if b'"Lambda"' in locals().get("text", b""):
            raise ModelError(_LAMBDA.format(name=name)) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"backbone {name} cannot be loaded ({reason}); save it again with model.save()") from error
    if any(isinstance(layer, keras.layers.Lambda) for layer in network._flatten_layers()):
        raise ModelError(_LAMBDA.format(name=name))
    if not getattr(network, "inputs", None) or not hasattr(network, "operations"):
        raise ModelError(f"backbone {name} is not a functional network; expected keras.Model(inputs, outputs)")
    shapes = [tuple(tensor.shape) for tensor in network.inputs], [tuple(tensor.shape) for tensor in network.outputs]
    inputs, outputs = shapes
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][-1] != 3:
        raise ModelError(f"backbone {name} takes {_shown(inputs)}; expected one input, images (height, width, 3)")
    if len(outputs) != 1 or len(outputs[0]) not in (2, 4):
        raise ModelError(
            f"backbone {name} gives {_shown(outputs)}; expected one output, a map (height, width, channels) or a "
            "vector (channels): save the part of the network before its head"
        )
    return network


_LAMBDA = (
    "backbone {name} has a Lambda layer, which holds code that a file can run; build the network with layers of Keras "
    "in its place, and save it again"
)


def _shown(shapes: Sequence[tuple[int | None, ...]]) -> str:
    """Return shapes of single images in words, such as "(any, any, 3)"."""
    texts = [", ".join("any" if side is None else str(side) for side in shape[1:]) for shape in shapes]
    return " and ".join(f"({text})" for text in texts)


def check_finite(name: str, variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    """Raise a `ModelError` if weights are not finite, with the first of them."""
    for variable, array in zip(variables, values, strict=True):
        wrong = int((~np.isfinite(array)).sum()) if np.issubdtype(array.dtype, np.floating) else 0
        if wrong:
            raise ModelError(
                f"backbone {name}: {wrong} of {array.size} weights of {variable.path} are not numbers; its file is "
                "damaged, or its training failed: use another one"
            )


def check_memory(name: str, size: int) -> None:
    """Raise a `ModelError` if a network in training would not fit into the memory that is free.

    Args:
        name: The backbone.
        size: Bytes of its weights.
    """
    free = psutil.virtual_memory().available
    if _COPIES * size > free:
        raise ModelError(
            f"backbone {name} has {size / 2**30:.1f} GiB of weights; its training needs {_COPIES * size / 2**30:.1f} "
            f"GiB and {free / 2**30:.1f} are free: name a smaller one, or use a machine with more memory"
        )
