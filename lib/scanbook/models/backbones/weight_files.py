"""Reads the files in which networks' weights are saved, without Keras: nothing of a file is run.

A `.keras` archive holds an HDF5 file of Keras 3, as `.weights.h5` is; `.h5` is that, or the older layout, of weights
alone or of a whole network.
"""

from __future__ import annotations

import io
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil

from scanbook.errors import ModelError

SUFFIXES = (".h5", ".hdf5", ".keras", ".npz")
_ARCHIVED = "model.weights.h5"
_KERAS_3 = ("layers", "vars", "_layer_checkpoint_dependencies")
"""Names in the root of an HDF5 file of Keras 3."""
_DAMAGED = (OSError, KeyError, ValueError, TypeError, EOFError, RuntimeError, SyntaxError, MemoryError)
_DAMAGED += (zipfile.BadZipFile, zlib.error, tokenize.TokenError)
"""What h5py, zipfile and NumPy raise for damaged files."""
_NOT_WEIGHTS = ("seed_generator", "optimizer")
_NUMBERED = re.compile(r"(?P<base>.*?)(?:_(?P<number>\d+))?")


@dataclass(frozen=True)
class Stored:
    """One array of a file.

    Attributes:
        layer: Name of its layer; "" in an archive whose arrays have no names.
        weight: Its name in the layer, such as "kernel"; of Keras 3 its number there.
        shape: Its shape.
        path: Where it is in the file.
        rank: Its place among those of its kind, to tell what comes after a network's last layer: the kind, and a
            number. Layers of older files are of one kind; Keras 3 numbers the layers of each class.
    """

    layer: str
    weight: str
    shape: tuple[int, ...]
    path: str
    rank: tuple[str, int]

    @property
    def title(self) -> str:
        """Its name in messages."""
        if not self.layer:
            return self.path
        return self.layer if self.weight.isdecimal() else f"{self.layer}/{self.weight}"


@dataclass(frozen=True)
class WeightFile:
    """What a file of weights has.

    Attributes:
        arrays: Its arrays, in its order; those of Keras 3 in none.
        layers: Names of all its layers, those without weights too; none of an archive.
        keras_3: Whether it has the layout of Keras 3.
        values: Its arrays by path.
    """

    arrays: tuple[Stored, ...]
    layers: tuple[str, ...]
    keras_3: bool
    values: Any = field(repr=False)

    def read(self, stored: Stored) -> np.ndarray:
        """Return an array, float32, or int64 of a counter.

        Raises:
            ModelError: It has no numbers of that kind.
        """
        source = self.values[stored.path]
        array = np.asarray(source[()])
        if getattr(source, "attrs", {}).get("dtype") == "bfloat16":
            array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)  # the upper half of a float32
        if array.dtype.kind == "f":
            return array.astype(np.float32)
        if array.dtype.kind in "iu" and array.ndim == 0:
            return array.astype(np.int64)
        raise ModelError(
            f"{stored.title} is {array.dtype}, expected floating point; save the weights before quantising"
        )

    @property
    def size(self) -> int:
        """Bytes of its arrays as float32."""
        return sum(4 * math.prod(array.shape) for array in self.arrays)


@contextmanager
def opened(path: Path) -> Iterator[WeightFile]:
    """Open a file of weights: `.h5`, `.weights.h5`, `.keras` or `.npz`.

    Raises:
        ModelError: It is none, cannot be read, or refers to other files.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ModelError(f"{path} is {path.suffix or 'a file'}; expected .h5, .weights.h5, .keras or .npz")
    try:
        if suffix == ".npz":
            if not zipfile.is_zipfile(path):
                raise ModelError(f"{path} is no archive; expected one by np.savez(path, *network.get_weights())")
            with np.load(path, allow_pickle=False) as archive:
                yield _of_archive(path, archive)
            return
        with h5py.File(_unpacked(path) if suffix == ".keras" else path, "r") as file:
            yield _of_hdf5(path, file)
    except _DAMAGED as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} cannot be read ({reason}); it is damaged, or no {suffix} file") from error


def _unpacked(path: Path) -> io.BytesIO:
    """Return the weights in a `.keras` archive."""
    with zipfile.ZipFile(path) as archive:
        if _ARCHIVED not in archive.namelist():
            raise ModelError(f"{path} has no {_ARCHIVED}; expected a network saved by model.save() of Keras 3")
        size, free = archive.getinfo(_ARCHIVED).file_size, psutil.virtual_memory().available
        if 2 * size > free:
            raise ModelError(f"{path} has {size / 2**30:.1f} GiB of weights, and {free / 2**30:.1f} GiB are free")
        return io.BytesIO(archive.read(_ARCHIVED))


def _of_archive(path: Path, archive: Any) -> WeightFile:
    stored = []
    for place, key in enumerate(archive.files):
        with archive.zip.open(f"{key}.npy") as member:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = header(member)
        if kind.hasobject:
            raise ModelError(f"{path} has objects in {key}, expected arrays of numbers: objects are code, and not read")
        layer, _, weight = key.rpartition("/")
        stored.append(Stored(layer, _plain(weight), shape, key, ("", place)))
    return WeightFile(tuple(stored), (), False, archive)


def _of_hdf5(path: Path, file: h5py.File) -> WeightFile:
    root = file["model_weights"] if "layer_names" not in _words(file) and "model_weights" in file else file
    if "layer_names" in _words(root):
        return _of_older(path, root)
    if any(name in root for name in _KERAS_3):
        return _of_keras_3(path, root)
    content = ", ".join(list(root)[:3]) or "nothing"
    raise ModelError(
        f"{path} has no weights of a Keras network (it holds {content}); expected a file by save_weights()"
    )


def _of_older(path: Path, root: h5py.Group) -> WeightFile:
    names = _attribute(root, "layer_names")
    stored, first = [], {}
    for layer in names:
        group = _member(path, root, layer)
        for name in _attribute(group, "weight_names"):
            dataset = _member(path, group, name)
            # of nested layers the name has the path, of which the last is the layer
            *outer, weight = name.split("/")
            owner = outer[-1] if outer else layer
            rank = "", first.setdefault(owner, len(stored))
            stored.append(Stored(owner, _plain(weight), dataset.shape, f"{layer}/{name}", rank))
    return WeightFile(tuple(stored), tuple(names), False, root)


def _of_keras_3(path: Path, root: h5py.Group) -> WeightFile:
    stored, layers, waiting, seen = [], [], [("", root)], set()
    while waiting:
        place, group = waiting.pop()
        for name in group:
            if name in _NOT_WEIGHTS:
                continue
            inner, where = _member(path, group, name), f"{place}/{name}".lstrip("/")
            if not isinstance(inner, h5py.Group):
                continue
            address = h5py.h5o.get_info(inner.id).addr
            if address in seen:
                raise ModelError(f"{path} refers to itself in {where}; expected the weights themselves")
            seen.add(address)
            if name != "vars":
                waiting.append((where, inner))
                continue
            layer = str(inner.attrs.get("name", place.rpartition("/")[2]))
            layers.append(layer)
            base, number = numbered(place.rpartition("/")[2])
            rank = f"{place.rpartition('/')[0]}/{base}", number
            for key in sorted(inner, key=int):
                shape = _member(path, inner, key).shape
                stored.append(Stored(layer, key, shape, f"{where}/{key}", rank))
    return WeightFile(tuple(stored), tuple(layers), True, root)


def numbered(name: str) -> tuple[str, int]:
    """Return the base and number of a name that Keras may have given: "conv2d_3" is conv2d, 3, and "conv2d" 0."""
    match = _NUMBERED.fullmatch(name)
    assert match
    return match["base"], int(match["number"] or 0)


def _member(path: Path, group: h5py.Group, name: str) -> Any:
    """Return a member of a group that is in the file itself: HDF5 can refer to other files, even devices."""
    parent = group
    for part in name.split("/"):
        link = parent.get(part, getlink=True)
        if link is None:
            raise ModelError(f"{path} lacks {name}, which it lists; it is damaged: use another one")
        if not isinstance(link, h5py.HardLink):
            raise ModelError(f"{path} refers to something else in {name}; expected the weights themselves")
        parent = parent[part]
    if isinstance(parent, h5py.Dataset) and (parent.external or parent.is_virtual):
        raise ModelError(f"{path} refers to another file in {name}; expected the weights themselves")
    return parent


def _words(group: h5py.Group) -> set[str]:
    return {name.rstrip("0123456789") for name in group.attrs}


def _attribute(group: h5py.Group, name: str) -> list[str]:
    """Return a list of names, which older Keras divides where it is long."""
    parts = (
        [name]
        if name in group.attrs
        else [f"{name}{i}" for i in range(len(group.attrs)) if f"{name}{i}" in group.attrs]
    )
    values = [value for part in parts for value in group.attrs[part]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _plain(weight: str) -> str:
    """Return a weight's name without TensorFlow's number of an output."""
    return weight.removesuffix(":0")
