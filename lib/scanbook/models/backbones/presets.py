"""Presets: image networks that KerasHub loads, its own or timm's and transformers', from a server or a folder."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from scanbook import runtime
from scanbook.config import Pretraining
from scanbook.errors import ModelError, UnavailableError
from scanbook.models.backbones import families, origins
from scanbook.models.backbones.families import FAMILIES, Family
from scanbook.models.backbones.kerashub import import_kerashub
from scanbook.models.backbones.matching import check_finite, check_memory
from scanbook.models.backbones.weights import ARRAYS, Weights
from scanbook.registry import PRESET, SCALINGS, BackboneSpec, Scaling, preset_folder
from scanbook.runtime import downloads
from scanbook.store import atomic_write, file_digest, stage, tree_fingerprint

_FILE = "preset.json"
_SERVER = "://"
_WRONG = re.compile(r"efficientnet_e[sml]_")
"""Presets whose entries in KerasHub 0.32 point to the files of efficientnet_b1."""
_unavailable: dict[str, str] = {}
"""Reasons by preset that this process could not get: it asks once."""

Result = TypeVar("Result")


def read(name: str, stated: Pretraining) -> Weights:
    """Return the image network of a preset, and its weights.

    Args:
        name: `hub:` and a preset of KerasHub, the address of one (`hf://timm/resnet18.a1_in1k`, `kaggle://…`), or a
            folder with one.
        stated: What the study tells of it; its scaling counts where the preset has none.

    Raises:
        UnavailableError: It is not on this machine and cannot be downloaded, with the reason.
        ModelError: There is no such preset, or it is no image network that can be used, with the reason.
    """
    text = name.removeprefix(PRESET)
    local = preset_folder(name)
    if not local and _SERVER not in text and re.search(r"[/\\.~]", text):
        raise ModelError(
            f"backbone {name}: there is no folder {runtime.path_in_project(text)}; expected one "
            "that save_to_preset wrote, the name of a preset, or such as hub:hf://timm/resnet18.a1_in1k"
        )
    source = {"files": tree_fingerprint(local)} if local else {"preset": text}
    inputs = {**source, "packages": runtime.versions_of(["keras", "keras_hub"])}
    folder = stage("preset", inputs, lambda work: _fetch(name, str(local or text), work, bool(local)), __name__)
    found = json.loads((folder / _FILE).read_text())
    check_memory(name, (folder / ARRAYS).stat().st_size)
    scaling = stated.stated_scaling or (found["scaling"] and _scaling(**found["scaling"]))
    if scaling is None:
        raise ModelError(
            f"backbone {name} does not say which values it expects: it has no image converter; set "
            f"pretraining.'{name}'.scaling to one of {', '.join(SCALINGS)}, or to such as {{mean: 127, deviation: 128}}"
        )
    sizes = families.Sizes(**found["sizes"])
    spec = BackboneSpec(
        name,
        found["builder"],
        scaling,
        {"config": found["config"]},
        pooling=found["pooling"],
        smallest=sizes.smallest,
        patch=sizes.patch,
        square=sizes.square,
        prefix=sizes.prefix,
    )
    known = Pretraining.model_validate(found["pretraining"])
    return Weights("preset", folder / ARRAYS, found["digest"], spec, known)


def _scaling(scale: Any, offset: Any) -> Scaling:
    return Scaling(*(tuple(values) if isinstance(values, list) else values for values in (scale, offset)))


@runtime.step("loading a preset")
def _fetch(name: str, text: str, folder: Path, local: bool) -> None:
    """Save the image network of a preset: configuration, arrays, and how it is to be used."""
    if text in _unavailable:
        raise UnavailableError(_unavailable[text])
    package = import_kerashub()
    utilities = package.src.utils.preset_utils
    if not local:
        _check_listed(name, text, utilities.BUILTIN_PRESETS)
        for listed, presets in utilities.BUILTIN_PRESETS_FOR_BACKBONE.items():
            if text in presets:
                _check_images(name, listed.__name__)
    check_memory(name, _bytes(text, local, utilities))
    with _reached(name, text, local):
        config = _asked(name, text, local, lambda: utilities.load_json(text))
    family, backbone = _class_of(name, text, local, config, utilities)
    with _reached(name, text, local):
        network = _asked(name, text, local, lambda: backbone.from_preset(text, dtype="float32"))
        scaling = _asked(name, text, local, lambda: _converter(package, text, utilities))
    body = getattr(network, family.tower) if family.tower else network
    trunk = families.trunk(body)
    if hasattr(network, families.FINAL_NORM):
        trunk.get_layer(families.FINAL_NORM).set_weights(getattr(network, families.FINAL_NORM).get_weights())
    values = _values(name, trunk)
    np.savez(folder / ARRAYS, *values)
    dropped = ("dtype", "trainable")  # those of the training
    settings = {key: value for key, value in body.get_config().items() if key not in dropped}
    if "use_mask_token" in settings:
        settings["use_mask_token"] = False  # it stands for patches that pretraining hid
    entry = utilities.BUILTIN_PRESETS.get(text, {})
    handle = "" if local else entry.get("kaggle_handle", text)
    description = {
        "builder": f"keras_hub.models:{type(body).__name__}",
        "config": settings,
        "scaling": scaling and {"scale": scaling.scale, "offset": scaling.offset},
        "pooling": family.pooling,
        "sizes": asdict(family.sizes(settings)),
        "pretraining": origins.of_preset(text, handle, config).model_dump(),
        "digest": file_digest(folder / ARRAYS),
    }
    atomic_write(folder / _FILE, json.dumps(description))


def _values(name: str, trunk: Any) -> list[np.ndarray]:
    """Return the arrays of a network in the order of the one that is built from its configuration, checked."""
    weights = [weight for weight in trunk.weights if not weight.path.endswith("mask_token")]
    arrays = [np.asarray(weight) for weight in weights]
    check_finite(name, [weight.path for weight in weights], arrays)
    # DINOv2's are those of its pretraining, and those of its images' size, which it uses: all sizes come from one
    places = {weight.path.split("/")[-1]: place for place, weight in enumerate(weights)}
    used = places.get("interpolated_position_embeddings")
    if used is not None:
        first = places["position_embeddings"]
        source = arrays[used if arrays[used].shape == arrays[first].shape else first]
        arrays[used] = arrays[first] = source
    return arrays


def _check_listed(name: str, text: str, listed: Mapping[str, Any]) -> None:
    """Raise a `ModelError` for a name that KerasHub does not list, or lists wrongly."""
    if _WRONG.match(text):
        raise ModelError(
            f"backbone {name}: KerasHub's entry points to the files of efficientnet_b1, another network; name "
            "hub:efficientnet_b1_ft_imagenet, or timm's, such as hub:hf://timm/efficientnet_es.ra_in1k"
        )
    if _SERVER in text or text in listed:
        return
    _check_installed(name, "", text)
    similar = ", ".join(f"hub:{other}" for other in difflib.get_close_matches(text, listed, 3))
    raise ModelError(
        f"backbone {name}: the installed KerasHub has no preset {text}; expected such as "
        f"{similar or 'hub:dinov2_small'}, an address such as hub:hf://timm/resnet18.a1_in1k, or a folder"
    )


def _check_installed(name: str, class_name: str, preset: str = "") -> None:
    """Raise a `ModelError` if a family's class, or that of a preset's name, is missing from the installed KerasHub."""
    family = families.missing_family(class_name, preset)
    models = import_kerashub().models
    classes = [key for key, value in FAMILIES.items() if value is family]
    if family and not hasattr(models, classes[0]):
        version, keras_version = family.since
        installed = ", ".join(runtime.versions_of(["keras", "keras_hub"]).values())
        raise ModelError(
            f"backbone {name} is a {family.title}, which KerasHub has from version {version} on, with Keras "
            f"{keras_version} or newer; Keras and KerasHub here are {installed}: pip install 'keras-hub>={version}'"
        )


def _class_of(name: str, text: str, local: bool, config: Mapping[str, Any], utilities: Any) -> tuple[Family, Any]:
    """Return the family and the class of a preset, before its weights are read."""
    class_name = str(config.get("registered_name", "")).split(">")[-1]
    _check_installed(name, class_name)
    with _reached(name, text, local):
        backbone = _asked(name, text, local, lambda: utilities.get_preset_loader(text).check_backbone_class())
    _check_images(name, backbone.__name__)
    return FAMILIES[backbone.__name__], backbone


def _check_images(name: str, class_name: str) -> None:
    if class_name not in FAMILIES:
        titles = ", ".join(family.title for family in FAMILIES.values())
        raise ModelError(f"backbone {name} is a {class_name}; expected a network for images, one of {titles}")


def _bytes(text: str, local: bool, utilities: Any) -> int:
    """Return the bytes of a preset's weights, in float32, before they are loaded; 0 where nothing tells."""
    if local:
        return sum(file.stat().st_size for file in Path(text).iterdir() if file.suffix in (".h5", ".safetensors"))
    count = utilities.BUILTIN_PRESETS.get(text, {}).get("metadata", {}).get("params", 0)
    return 4 * int(count or 0)


def _converter(package: Any, text: str, utilities: Any) -> Scaling | None:
    """Return the scaling of a preset's image converter; None where it has none.

    Of transformers' presets KerasHub reads no converter (0.32): their `preprocessor_config.json` says the same.
    """
    try:
        converter = package.layers.ImageConverter.from_preset(text)
    except FileNotFoundError:
        return None
    if converter is not None:
        scale, offset = (
            fallback if value is None else np.asarray(value, np.float64).tolist()
            for value, fallback in ((converter.scale, 1.0), (converter.offset, 0.0))
        )
        return Scaling(scale, offset)
    try:
        values = utilities.load_json(text, "preprocessor_config.json")
    except FileNotFoundError:
        return None
    factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0
    if not values.get("do_normalize", True):
        return Scaling(factor, 0.0)
    if "image_mean" not in values or "image_std" not in values:
        return None
    mean, deviation = values["image_mean"], values["image_std"]
    return Scaling([factor / value for value in deviation], [-m / d for m, d in zip(mean, deviation, strict=True)])


def _asked(name: str, text: str, local: bool, ask: Callable[[], Result]) -> Result:
    """Return what KerasHub answers, or raise its error as one line: of the preset, or of its server."""
    try:
        return ask()
    except (ModelError, UnavailableError):
        raise
    except Exception as error:  # KerasHub, h5py, safetensors and each server have errors of their own
        reason = _reason(error)
        if local or isinstance(error, ValueError | KeyError | TypeError | AttributeError):
            raise ModelError(
                f"backbone {name} cannot be loaded ({reason}); expected a preset of an image network: check its files"
            ) from error
        if downloads.silent(error):
            reason = f"no answer within {downloads.SILENCE:g} s"
        _unavailable[text] = f"backbone {name} is not on this machine and cannot be downloaded ({reason})"
        raise UnavailableError(_unavailable[text]) from error


def _reason(error: BaseException) -> str:
    """Return the first sentence of the error that others came from."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    texts = [str(cause).strip() for cause in causes]
    text = next((line for line in reversed(texts) if line), type(error).__name__)
    if cause := re.search(r"host='([\w.-]+)'.*Caused by (\w+)", text):  # of requests, at length
        return f"{cause[1]}: {cause[2]}"
    return re.sub(r"\s+", " ", text.splitlines()[0]).rstrip(".")[:200]


@contextmanager
def _reached(name: str, text: str, local: bool) -> Iterator[None]:
    """Limit downloads of the block; do not let Hugging Face's library try again for half a minute without a network."""
    if local:
        yield
        return
    with downloads.limited():
        if not text.startswith("hf://"):
            yield
            return
        import huggingface_hub as hub
        from huggingface_hub import constants

        before = constants.HF_HUB_OFFLINE
        try:
            hub.utils.get_session().head(constants.ENDPOINT, timeout=downloads.SILENCE)
        except Exception as error:  # of the library's client, which is another in each of its versions
            if not hub.try_to_load_from_cache(text.removeprefix("hf://"), "config.json"):
                _unavailable[text] = f"backbone {name} is not on this machine, and no server answers ({_reason(error)})"
                raise UnavailableError(_unavailable[text]) from error
            constants.HF_HUB_OFFLINE = True
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE = before
