"""Networks and weights from a user's files."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.config import Pretraining
from scanbook.errors import ModelError
from scanbook.models.backbones import matching, networks
from scanbook.models.backbones.kerashub import import_kerashub
from scanbook.models.backbones.matching import check_finite, check_memory
from scanbook.models.backbones.weights import ARRAYS, Weights, spec_of
from scanbook.registry import FILE, SCALINGS, BackboneSpec, describe_backbone
from scanbook.store import atomic_write, file_digest, stage

keras = runtime.keras()

_NETWORK = "network.json"
_DAMAGED = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""Errors of a damaged file; Keras raises a RuntimeError for a layer that is not there, JSON for too many levels."""


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
        values = [value.astype(np.float32) if value.ndim else value for value in network.get_weights()]
        check_finite(name, [weight.path for weight in network.weights], values)
        config = json.loads(json.dumps(network.get_config()))
        atomic_write(folder / _NETWORK, json.dumps(_without_precision(config)))
        np.savez(folder / ARRAYS, *values)

    folder = stage("network", {"file": digest, "packages": runtime.versions_of(["keras"])}, build, __name__)
    config = json.loads((folder / _NETWORK).read_text())
    spec = BackboneSpec(name, "keras:Model", scaling, {"config": config}, smallest=1)
    return Weights("file", folder / ARRAYS, digest, spec, _origin(path, stated))


def read_weights(name: str, text: str, stated: Pretraining) -> Weights:
    """Return the weights of a listed backbone from a file.

    Args:
        name: Name of the backbone.
        text: Path of the file: `.h5`, `.weights.h5`, `.keras` or `.npz`, with or without a head behind the backbone.
        stated: What the study tells of their origin.

    Raises:
        ModelError: The file is missing, cannot be read, or does not fit the backbone; its weights are not finite.
    """
    path, spec = _existing(f"{name} (weights)", text), spec_of(name)
    check_memory(name, path.stat().st_size)
    digest = file_digest(path)

    def build(folder: Path) -> None:
        np.savez(folder / ARRAYS, *matching.read(spec, path))

    folder = stage("weights", {"file": digest, **describe_backbone(spec)}, build, __name__)
    return Weights("file", folder / ARRAYS, digest, pretraining=_origin(path, stated))


def _origin(path: Path, stated: Pretraining) -> Pretraining:
    """Return what a study tells of a file's origin; its name where it tells no source."""
    return stated if stated.source else stated.model_copy(update={"source": f"file {path.name}"})


def _existing(name: str, text: str) -> Path:
    path = runtime.path_in_project(text)
    if not path.is_file():
        raise ModelError(f"backbone {name}: there is no file {path}; expected one that Keras saved; correct the path")
    return path


def _load_network(name: str, path: Path) -> Any:
    """Load a functional network that takes images and has no code of its own."""
    if path.suffix != ".keras":
        raise ModelError(f"backbone {name} is {path.suffix or 'a file'}; expected .keras: save it with model.save()")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        if not isinstance(config, dict) or "class_name" not in config:
            raise ValueError("its config.json describes no network")
        _check_objects(name, config)
        network = keras.models.load_model(path, compile=False, safe_mode=True)
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
        raise ModelError(f"backbone {name} cannot be loaded ({reason}); save it again with model.save()") from error
    if any(isinstance(layer, keras.layers.Lambda) for layer in network._flatten_layers()):
        raise ModelError(_LAMBDA.format(name=name))
    whole = hasattr(network, "operations") or isinstance(network, keras.Sequential)
    if not whole or not getattr(network, "inputs", None):
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
    network = keras.Model(network.inputs[0], network.outputs[0])  # of one class, whatever it was saved as
    networks.free_names(network)
    return network


def _check_objects(name: str, config: Any) -> None:
    """Raise a `ModelError` if a network needs code other than that of Keras and KerasHub, before anything is imported.

    Keras imports the module that a file names; a Lambda layer holds code itself.
    """
    for entry in _objects(config):
        kind, module = str(entry["class_name"]), entry.get("module")
        if kind in ("Lambda", "__lambda__"):
            raise ModelError(_LAMBDA.format(name=name))
        package = str(module or "").split(".")[0]
        if package == "keras_hub":
            import_kerashub()
        if package not in ("keras", "keras_hub", "builtins") and not (module is None and kind.startswith("__")):
            raise ModelError(
                f"backbone {name} has an object {kind!r} of {module or 'its own'}; expected those of Keras and "
                "KerasHub alone, since no code of others is run: build the network with these, and save it again"
            )
        if "Quantized" in kind:
            raise ModelError(f"backbone {name} is quantised; save the network before quantising it")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield the description of every object of a saved network."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            yield from _objects(value)


def _without_precision(config: Any) -> Any:
    """Return a network's configuration with the precision of the session, as all other networks have."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return None
        return {key: _without_precision(value) for key, value in config.items()}
    return [_without_precision(value) for value in config] if isinstance(config, list | tuple) else config


_LAMBDA = (
    "backbone {name} has a Lambda layer, which holds code that a file can run; build the network with layers of Keras "
    "in its place, and save it again"
)


def _shown(shapes: Sequence[tuple[int | None, ...]]) -> str:
    """Return shapes of single images in words, such as "(any, any, 3)"."""
    texts = [", ".join("any" if side is None else str(side) for side in shape[1:]) for shape in shapes]
    return " and ".join(f"({text})" for text in texts)
