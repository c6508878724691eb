"""Which array of a file belongs to which weight of a listed backbone: by the names of layers, else by their order."""

from __future__ import annotations

import math
import tempfile
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from scanbook import runtime
from scanbook.errors import ModelError
from scanbook.models.backbones import networks
from scanbook.models.backbones.weight_files import Stored, WeightFile, numbered, opened
from scanbook.models.backbones.weights import attribute
from scanbook.registry import BACKBONES, BackboneSpec

keras = runtime.keras()
layers = keras.layers

_SIDE = 224
"""Side of the images of the network that a file is compared with, where its weights depend on it and do not say."""
_COPIES = 4
"""Copies of its weights that a network in training holds: the weights, their gradients and Adam's two moments."""
_EXTRA = 2
"""Convolutions that a head may have."""
# The convolutions of every listed backbone, and their parameters: by these alone a file's candidates are found, since
# building all of them takes minutes. `test_weight_files` compares them with the networks.
CONVOLUTIONS: dict[str, tuple[int, int]] = {
    "baseline_cnn": (4, 97_200),
    "small_cnn": (2, 1_368),
    "mobilenet_0.25": (27, 207_600),
    "mobilenet_0.5": (27, 807_648),
    "mobilenet_0.75": (27, 1_800_144),
    "mobilenet_1.0": (27, 3_185_088),
    "mobilenet_v2_0.35": (52, 382_048),
    "mobilenet_v2_0.5": (52, 669_136),
    "mobilenet_v2_0.75": (52, 1_328_784),
    "mobilenet_v2_1.0": (52, 2_189_760),
    "mobilenet_v2_1.3": (52, 3_677_536),
    "mobilenet_v2_1.4": (52, 4_267_840),
    "efficientnet_b0": (81, 3_956_192),
    "efficientnet_b1": (115, 6_436_976),
    "efficientnet_b2": (115, 7_618_016),
    "efficientnet_b3": (130, 10_588_856),
    "efficientnet_b4": (160, 17_394_376),
    "efficientnet_b5": (194, 28_127_728),
    "vgg16": (13, 14_710_464),
    "vgg19": (16, 20_018_880),
    "densenet121": (120, 6_870_208),
    "densenet201": (200, 17_863_872),
    "inception_v3": (94, 21_751_136),
    "inception_resnet_v2": (244, 54_200_160),
    "xception": (74, 20_752_424),
    "resnet50": (53, 23_454_912),
    "resnet50_v2": (53, 23_454_912),
    "resnet152_v2": (155, 57_992_384),
    "convnext_tiny": (22, 1_877_472),
    "resnet18": (20, 11_166_912),
    "vit_b16": (1, 589_824),
}
_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Wanted:
    """One weight of a backbone.

    Attributes:
        layer: Name of its layer.
        weight: Its name in the layer.
        shape: Its shape.
        path: Where Keras 3 saves it.
    """

    layer: str
    weight: str
    shape: tuple[int, ...]
    path: str

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.layer}/{self.weight}"


def read(spec: BackboneSpec, path: Path) -> list[np.ndarray]:
    """Return a listed backbone's weights from a file, in the order of its `get_weights`.

    Args:
        spec: The backbone.
        path: The file; a head behind the backbone is not read.

    Raises:
        ModelError: The file cannot be read, or its weights do not fit: the message says where, and what they do fit.
    """
    with opened(path) as file:
        if not file.arrays:
            raise ModelError(f"{path} has no weights; expected those of {spec.name}")
        check_memory(spec.name, file.size)
        wanted = _weights_of(spec, file)
        found = _match(wanted, file)
        if found is None:
            raise ModelError(f"{path} does not fit {spec.name}: {_difference(wanted, file)}; {_fitting(spec, file)}")
        values = [file.read(stored) for stored in found]
        check_finite(spec.name, [stored.title for stored in found], values)
        _undo_second_division(wanted, values, file)
        return values


def check_finite(name: str, titles: Sequence[str], values: Sequence[np.ndarray]) -> None:
    """Raise a `ModelError` if weights are not finite, with the first of them."""
    for title, array in zip(titles, values, strict=True):
        wrong = int((~np.isfinite(array)).sum()) if np.issubdtype(array.dtype, np.floating) else 0
        if wrong:
            raise ModelError(
                f"backbone {name}: {wrong} of {array.size} weights of {title} are not numbers; its file is damaged, or "
                "its training failed: use another one"
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


def _weights_of(spec: BackboneSpec, file: WeightFile) -> list[Wanted]:
    """Return the weights of a backbone, without its head."""
    size = (_SIDE, _SIDE)
    if "config" in spec.arguments:
        network = networks._from_config(spec, _size_of_positions(spec, file) or size)
    elif spec.builder:
        shape = (None, None, 3)
        network = attribute(spec.builder)(include_top=False, weights=None, input_shape=shape, **spec.arguments)
    else:
        network = networks._body(spec, keras.Input((*size, 3), dtype="uint8"), size, networks.RANDOM)
    paths = _paths(network) if file.keras_3 else [""] * len(network.weights)
    names = [weight.path.split("/") for weight in network.weights]
    owners = [name[-2] if len(name) > 1 else "" for name in names]
    return [
        Wanted(owner, name[-1], tuple(weight.shape), paths[place])
        for place, (owner, name, weight) in enumerate(zip(owners, names, network.weights, strict=True))
    ]


def _size_of_positions(spec: BackboneSpec, file: WeightFile) -> tuple[int, int] | None:
    """Return the size of the images of a transformer, of which the number of its positions depends."""
    channels = spec.arguments["config"].get("hidden_dim")
    for stored in file.arrays:
        if len(stored.shape) == 2 and stored.shape[1] == channels and stored.shape[0] > 1:
            side = math.isqrt(stored.shape[0] - 1)
            if side * side == stored.shape[0] - 1:
                return side * spec.patch, side * spec.patch
    return None


def _paths(network: Any) -> list[str]:
    """Return where the installed Keras saves each weight: they are saved once, each filled with its number."""
    for place, weight in enumerate(network.weights):
        weight.assign(np.full(weight.shape, place))
    paths = [""] * len(network.weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "numbers.weights.h5"
        network.save_weights(path)
        with opened(path) as file:
            for stored in file.arrays:
                dataset = file.values[stored.path]
                paths[int(dataset[(0,) * dataset.ndim])] = stored.path
    return paths


def _match(wanted: Sequence[Wanted], file: WeightFile) -> list[Stored] | None:
    """Return the array of every weight; None where none of the ways fits."""
    if file.keras_3:
        by_path = {stored.path: stored for stored in file.arrays}
        # the network may be part of a larger one, as a layer of it
        ends = {
            stored.path.removesuffix(wanted[0].path) for stored in file.arrays if stored.path.endswith(wanted[0].path)
        }
        ways = [[by_path.get(start + weight.path) for weight in wanted] for start in sorted(ends, key=len)]
    else:
        ways = []
    ways.append(_by_names(wanted, file))
    if not file.keras_3:
        ways.append([*file.arrays[: len(wanted)], *[None] * (len(wanted) - len(file.arrays))])
        ways.append(_in_layers(wanted, file))
    for way in ways:
        fits = all(stored and _same(stored, weight) for stored, weight in zip(way, wanted, strict=True))
        if fits and len({stored.path for stored in way}) == len(way) and _is_head(way, file):
            return way
    return None


def _same(stored: Stored, weight: Wanted) -> bool:
    return stored.shape == weight.shape


def _by_names(wanted: Sequence[Wanted], file: WeightFile) -> list[Stored | None]:
    """Find the weights of layers of the same names; numbered names count by their order in each file."""
    return _join(_grouped(wanted), _grouped(file.arrays))


def _in_layers(wanted: Sequence[Wanted], file: WeightFile) -> list[Stored | None]:
    """Find the weights of layers at the same places, whatever their names."""
    theirs = {place: group for place, group in enumerate(_grouped(file.arrays).values())}
    return _join(dict(enumerate(_grouped(wanted).values())), theirs)


def _join(
    ours: Mapping[Hashable, Sequence[Wanted]], theirs: Mapping[Hashable, Sequence[Stored]]
) -> list[Stored | None]:
    """Return the array of every weight of layers: by the names in the layer if they are the same, else by order."""
    found: list[Stored | None] = []
    for layer, weights in ours.items():
        arrays = theirs.get(layer, [])
        names = {stored.weight: stored for stored in arrays}
        if all(weight.weight in names for weight in weights):
            found += [names[weight.weight] for weight in weights]
        else:
            found += [*arrays[: len(weights)], *[None] * (len(weights) - len(arrays))]
    return found


def _grouped(items: Iterable[Any]) -> dict[Hashable, list[Any]]:
    """Return weights by layer. Of numbered names the ranks count: a network built second starts at a higher number."""
    groups: dict[Hashable, list[Any]] = {}
    for item in items:
        groups.setdefault(item.layer, []).append(item)
    numbers = defaultdict(list)
    for name in groups:
        base, number = numbered(str(name))
        numbers[base].append(number)
    ranks = {base: {number: rank for rank, number in enumerate(sorted(found))} for base, found in numbers.items()}
    return {
        (base, ranks[base][number]): group
        for (base, number), group in ((numbered(str(n)), g) for n, g in groups.items())
    }


def _is_head(found: Sequence[Stored], file: WeightFile) -> bool:
    """Return whether all other arrays of a file come after those that were found: they are its head's."""
    last: dict[str, int] = {}
    for stored in found:
        if stored.weight in ("mean", "variance", "count"):  # not trained: in a nested network these come last of all
            continue
        last[stored.rank[0]] = max(stored.rank[1], last.get(stored.rank[0], -1))
    used = {stored.path for stored in found}
    return all(stored.path in used or stored.rank[1] > last.get(stored.rank[0], -1) for stored in file.arrays)


def _difference(wanted: Sequence[Wanted], file: WeightFile) -> str:
    """Return which layer of a file differs first, in a few words."""
    named = _by_names(wanted, file)
    if sum(stored is not None for stored in named) > len(wanted) / 2 or file.keras_3:
        for stored, weight in zip(named, wanted, strict=True):
            if stored is None:
                return f"it has no {weight.title} {_shown(weight.shape)}"
            if not _same(stored, weight):
                return f"its {stored.layer}/{weight.weight} is {_shown(stored.shape)}, expected {_shown(weight.shape)}"
        used = {stored.path for stored in named if stored}
        more = next((stored for stored in file.arrays if stored.path not in used), None)
        return f"it has {more.title} {_shown(more.shape)} besides" if more else "its layers are in another order"
    for place, weight in enumerate(wanted):
        if place == len(file.arrays):
            return f"it has {place} arrays, expected {len(wanted)}; the next is {weight.title} {_shown(weight.shape)}"
        stored = file.arrays[place]
        if not _same(stored, weight):
            return f"its {stored.title} is {_shown(stored.shape)}, expected {weight.title} {_shown(weight.shape)}"
    return "its arrays are in another order"


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _fitting(spec: BackboneSpec, file: WeightFile) -> str:
    """Return which listed backbone a file fits, as what to do; only those with the file's convolutions are built."""
    sizes = [math.prod(stored.shape) for stored in file.arrays if len(stored.shape) == 4]
    distances = {
        name: (len(sizes) - count, sum(sizes) - parameters)
        for name, (count, parameters) in CONVOLUTIONS.items()
        if name != spec.name
    }
    near = {name: (more, rest) for name, (more, rest) in distances.items() if 0 <= more <= _EXTRA and rest >= 0}
    exact = [name for name, (more, rest) in near.items() if not more and not rest]
    with_head = sorted((name for name, (more, _) in near.items() if more), key=lambda name: near[name][1])
    for name in exact + with_head[: 2 - len(exact)]:
        if _match(_weights_of(BACKBONES[name], file), file):
            return f"it fits {name}"
    return "it fits none of the listed backbones; use file: for a network of your own"


def _undo_second_division(wanted: Sequence[Wanted], values: list[np.ndarray], file: WeightFile) -> None:
    """Put the second division of EfficientNet's networks with ImageNet weights into the variance.

    As `imagenet._arrays` does. Such a network has two layers that rescale; an archive does not tell, but its variance
    does: it is ImageNet's deviation, which the second division makes up for.
    """
    kinds = [(numbered(weight.layer)[0], weight.weight) for weight in wanted]
    place = kinds.index(("normalization", "variance")) if ("normalization", "variance") in kinds else None
    if place is None:
        return
    if file.layers:
        twice = sum(numbered(name)[0] == "rescaling" for name in file.layers) > 1
    else:
        twice = np.allclose(values[place], _DEVIATION, atol=1e-4)
    if twice:
        values[place] = values[place] * np.asarray(_DEVIATION, np.float32)
