"""The image that a table names: by its folder and its extension where the table gives them, else by its bare name."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from scanbook.data.adapters.listing import EXTENSIONS, Tree, is_within

_PICTURES = EXTENSIONS | {".gif", ".avif", ".heic", ".jp2", ".ppm", ".pgm", ".nii", ".npy", ".svg"}
"""Extensions of image files, read or not."""


class ImageIndex:
    """The images in some folders, to be found by the name that a table gives them.

    Args:
        folders: Folders of images, each listed at any depth.
        apart: Resolved paths of folders below them that hold other images, such as masks.
    """

    def __init__(self, folders: Sequence[Path], apart: Sequence[Path] = ()) -> None:
        self.folders = [str(folder) for folder in folders]
        paths = [path for folder in folders for path in Tree(folder).images(folder)]
        excluded = {parent for parent in {path.parent for path in paths} if is_within(parent, apart)}
        self.paths = [str(path) for path in dict.fromkeys(paths) if path.parent not in excluded]
        self._names: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for path in self.paths:
            name = os.path.basename(path).casefold()
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
        key = base.casefold()
        stem = _without_extension(key)
        paths = self._names.get(key, [])
        if stem == key:
            paths = list(dict.fromkeys([*paths, *self._stems.get(key, [])]))
        elif not paths:  # a file without an extension cannot contradict the one in the table
            paths = [path for path in self._names.get(stem, []) if _without_extension(path) == path]
        if folder:
            inside = "/" + folder.casefold()
            paths = [path for path in paths if os.path.dirname(path).casefold().endswith(inside)]
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
        found = names.map(self.find)
        several = found.map(len) > 1
        if several.any() and len(self.folders) > 1:
            for folder in self.folders:
                inside = found.map(
                    lambda paths, folder=folder: [path for path in paths if os.path.dirname(path) == folder]
                )
                if (inside.map(len) == 1).all():
                    return inside
        return found.map(lambda paths: paths[:1] if len(paths) > 1 and _identical(paths) else paths)

    def resembles(self, name: str) -> bool:
        """Return whether an image has a name, whatever its folder and its extension."""
        key = os.path.basename(name).casefold()
        return key in self._names or _without_extension(key) in self._stems

    def other_extensions(self, name: str) -> str:
        """Return the extensions of the images that have a name but for its extension."""
        stem = _without_extension(os.path.basename(name)).casefold()
        return ", ".join(sorted({os.path.splitext(path)[1] for path in self._stems.get(stem, ())}))


def _identical(paths: Sequence[str]) -> bool:
    """Return whether files have the same bytes."""
    return all(filecmp.cmp(paths[0], path, shallow=False) for path in paths[1:])


def normalise(name: str, prefix: str = "") -> str:
    """Return the name of an image as a relative path with "/" between folders.

    Args:
        name: As a table gives it.
        prefix: Leading folders to remove.
    """
    path = re.sub(r"/(\./)*/*", "/", name.strip().replace("\\", "/")).removeprefix("./")
    return path.removeprefix(prefix).lstrip("/")


def _without_extension(name: str) -> str:
    base, extension = os.path.splitext(name)
    return base if extension.lower() in _PICTURES else name
