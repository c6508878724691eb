"""The image that a table names: by its folder and its extension where the table gives them, else by its bare name."""

from __future__ import annotations

import filecmp
import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd

from scanbook.data.adapters import spelling
from scanbook.data.adapters.listing import EXTENSIONS, Tree, is_within

_PICTURES = EXTENSIONS | {".gif", ".avif", ".heic", ".jp2", ".ppm", ".pgm", ".nii", ".npy", ".svg"}
"""Extensions of image files, read or not."""


class ImageIndex:
    """The images in some folders, to be found by the name that a table gives them.

    Args:
        folders: Folders of images, each listed at any depth.
        apart: Resolved paths of folders below them that hold other images, such as masks.
        tree: A tree that may hold the folders, so that they are not listed again.
    """

    def __init__(self, folders: Sequence[Path], apart: Sequence[Path] = (), tree: Tree | None = None) -> None:
        self.folders = [str(folder) for folder in folders]
        trees = [tree if tree is not None and tree.holds(folder) else Tree(folder) for folder in folders]
        # as text, since a large dataset has 100,000 of them
        paths = dict.fromkeys(
            str(path) for folder, own in zip(folders, trees, strict=True) for path in own.images(folder)
        )
        parents = {os.path.dirname(path) for path in paths} if apart else ()
        excluded = {parent for parent in parents if is_within(Path(parent), apart)}
        self._names: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for path in paths:
            folder, base = path.rsplit("/", 1)
            if folder in excluded:
                continue
            name = _key(base)
            self._names.setdefault(name, []).append(path)
            self._stems.setdefault(_without_extension(name), []).append(path)

    def find(self, name: str) -> list[str]:
        """Return the images that a name may stand for: none, one, or several, between which it does not decide.

        Every folder and the extension that the name gives must agree; the case of letters decides where several do. An
        image directly in one of the index's folders, or in the folder that the name gives there, goes before others.

        Args:
            name: As `normalise` returns it.
        """
        folder, base = os.path.split(name)
        key = _key(base)
        stem = _without_extension(key)
        paths = self._names.get(key, [])
        if stem == key:
            paths = list(dict.fromkeys([*paths, *self._stems.get(key, [])]))
        elif not paths:  # a file without an extension cannot contradict the one in the table
            paths = [path for path in self._names.get(stem, []) if _without_extension(path) == path]
        if folder:
            inside = "/" + _key(folder)
            paths = [path for path in paths if _key(os.path.dirname(path)).endswith(inside)]
        if len(paths) < 2:
            return paths
        direct = {os.path.join(place, folder) if folder else place for place in self.folders}
        for preferred in (
            [path for path in paths if _without_extension(path).endswith("/" + _without_extension(name))],
            [path for path in paths if os.path.dirname(path) in direct],
        ):
            paths = [path for path in paths if path in preferred] or paths
        return paths

    def locate(self, names: pd.Series) -> pd.Series:
        """Return what `find` gives for each name.

        Where several folders hold all bare names, the first counts. Of byte-identical files, the first counts.
        """
        images = pd.Series([self.find(name) for name in names.tolist()], names.index, dtype=object)
        several = images.map(len) > 1
        if several.any() and len(self.folders) > 1:
            for folder in self.folders:
                inside = images.map(
                    lambda paths, folder=folder: [path for path in paths if os.path.dirname(path) == folder]
                )
                if (inside.map(len) == 1).all():
                    return inside
        return images.map(lambda paths: paths[:1] if len(paths) > 1 and _identical(paths) else paths)

    def resembles(self, name: str) -> bool:
        """Return whether an image has a name, whatever its folder, its extension and its zeros."""
        key = _key(os.path.basename(name))
        stem, number = _without_extension(key), spelling.without_zeros(key)
        return key in self._names or bool({stem, number} & self._stems.keys()) or self._has_number(stem)

    def is_named_by(self, names: Sequence[str]) -> bool:
        """Return whether some names are those of all images."""
        return {_without_extension(_key(os.path.basename(name))) for name in names} == set(self._stems)

    def advice(self, name: str) -> str:
        """Return what to do about a name that `find` does not find."""
        key = _key(os.path.basename(name))
        stem, number = _without_extension(key), spelling.without_zeros(key)
        near = self._stems.get(stem, [])
        extensions = sorted({os.path.splitext(path)[1] for path in near})
        if os.path.splitext(name)[1].lower() in ("", *(extension.lower() for extension in extensions)) and near:
            return (
                "a file of that name is in another folder: correct the folder in the table, or set path_prefix in the "
                "study where only the start of the names differs"
            )
        if near:
            return f"a file of that name is there as {', '.join(extensions)}: correct the extension in the table"
        if number != key and number in self._stems:
            return f"a file of that number is there: write {number} into the table"
        if self._has_number(stem):
            return "a file of that number is there with other leading zeros: write them into the table"
        return "add them, or remove their rows"

    def _has_number(self, stem: str) -> bool:
        """Return whether an image is called by a number, with other leading zeros."""
        return stem.isdecimal() and stem.lstrip("0") in self._numbers

    @cached_property
    def _numbers(self) -> set[str]:
        return {stem.lstrip("0") for stem in self._stems if stem.isdecimal()}


def _identical(paths: Sequence[str]) -> bool:
    """Return whether files have the same bytes; false where one cannot be read."""
    try:
        return all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])
    except OSError:
        return False


def normalise(name: str, prefix: str = "") -> str:
    """Return the name of an image as a relative path with "/" between folders.

    Args:
        name: As a table gives it.
        prefix: Leading folders to remove, written in any of these ways too.
    """
    if "/" not in name and "\\" not in name:  # quickly, since most names have no folder
        return name.strip()
    path, start = (re.sub(r"/(\./)*/*", "/", text.strip().replace("\\", "/")) for text in (name, prefix))
    # a table in a folder of its own may lead up from it: the rest of the name decides
    path, start = (re.sub(r"^(\.{0,2}/)+", "", text) for text in (path, start))
    return path.removeprefix(start.rstrip("/") + "/")


def is_picture(name: str) -> bool:
    """Return whether a name has the extension of an image file."""
    return os.path.splitext(name)[1].lower() in _PICTURES


def _key(name: str) -> str:
    """Return a name without the differences of case and of Unicode's forms of an accent, which macOS changes."""
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def _without_extension(name: str) -> str:
    base, extension = os.path.splitext(name)
    return base if extension.lower() in _PICTURES else name
