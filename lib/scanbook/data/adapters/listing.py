"""What lies in a dataset's folder: every visible file, once, and what became of each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
from PIL import features

from scanbook import store
from scanbook.data import dicom

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom", ".ima"})
EXTENSIONS = (
    frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"})
    | DICOM_EXTENSIONS
    | ({".avif"} if "avif" in features.modules and features.check("avif") else set())  # unknown to Pillow before 11.3
)
"""Extensions of the files that are listed as images."""
TABLES = (".csv", ".tsv", ".tab", ".psv", ".csv.gz", ".tsv.gz")
"""Extensions of tables that are read."""
WORKBOOKS = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".sav", ".dta", ".sas7bdat", ".rds")
"""Extensions of tables that are not read."""
_TEXTS = frozenset(
    [
        *(*TABLES, *WORKBOOKS, ".txt", ".md", ".rst", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".html", ".htm"),
        *(".log", ".pdf", ".doc", ".docx", ".rtf", ".ini", ".cfg", ".py", ".ipynb", ".m", ".r", ".sh", ".bib", ".tex"),
        *(".license", ".db", ".lnk", ".url", ".md5", ".sha1", ".sha256"),
    ]
)
"""Extensions of files that nobody takes for images."""
NO_IMAGE, NOT_READ = "no image", "format that is not read"


def natural_key(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Return a sort key with numbers in numeric order: "2. b" before "10. a"; ties are broken by the name."""
    pieces = (piece for piece in re.split(r"(\d+)", name) if piece)
    return tuple((0, int(piece)) if piece.isdecimal() else (1, piece.lower()) for piece in pieces), name


def is_image(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is an image, by its extension, or by its first bytes where that is unknown.

    DICOM files often have numbers as names, such as 1.2.840.7, where the last number is not an extension.
    """
    name = os.path.basename(path)
    if name == "DICOMDIR":
        return False
    extension = os.path.splitext(name)[1].lower()
    return extension in EXTENSIONS or (extension not in _TEXTS and dicom.is_dicom_file(path))


def is_dicom(path: str) -> bool:
    """Return whether an image file is a DICOM file, by its extension or its first bytes."""
    extension = os.path.splitext(path)[1].lower()
    # An image with an unknown extension was identified by its first bytes, so it is a DICOM file.
    return extension in DICOM_EXTENSIONS or extension not in EXTENSIONS or dicom.is_dicom_file(path)


def stem(name: str) -> str:
    """Return the name of an image without its folder and its extension."""
    base, extension = os.path.splitext(name)
    return os.path.basename(base if extension.lower() in EXTENSIONS else name)


@dataclass(frozen=True)
class Tree:
    """The visible files and folders below a folder.

    Attributes:
        root: The folder.
    """

    root: Path
    _images: dict[str, bool] = field(default_factory=dict, repr=False)
    _files: dict[Path, list[Path]] = field(default_factory=dict, repr=False)
    _below: dict[Path, list[Path]] = field(default_factory=dict, repr=False)

    @cached_property
    def _walk(self) -> store.Walk:
        return store.walk(self.root)

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, numbers in numeric order."""
        return [folder / name for name in sorted(self._walk.folders.get(str(folder), ()), key=natural_key)]

    def files(self, folder: Path) -> list[Path]:
        """Return the files in a folder, sorted."""
        if folder not in self._files:
            self._files[folder] = [folder / entry.name for entry in self._walk.files.get(str(folder), ())]
        return self._files[folder]

    def holds(self, folder: Path) -> bool:
        """Return whether a folder is one of the tree."""
        return str(folder) in self._walk.folders

    def below(self, folder: Path) -> list[Path]:
        """Return the files below a folder at any depth, sorted."""
        if folder not in self._below:
            paths, pending = [], [folder]
            while pending:
                current = pending.pop()
                paths += self.files(current)
                pending += self.folders(current)
            self._below[folder] = sorted(paths, key=lambda path: str(path).split("/"))  # path.parts takes longer
        return self._below[folder]

    def images(self, folder: Path, deep: bool = True) -> list[Path]:
        """Return the images in a folder, at any depth or directly in it, sorted."""
        return [path for path in (self.below(folder) if deep else self.files(folder)) if self.is_image(path)]

    def is_image(self, path: Path) -> bool:
        """Return whether a file of the tree is an image; each is looked at once."""
        key = str(path)
        if key not in self._images:
            self._images[key] = is_image(key)
        return self._images[key]

    def sizes(self, folder: Path) -> Counter[str]:
        """Return the name, relative to a folder, and the size of each file below it, as one text each."""
        return Counter(f"{path.relative_to(folder)} {path.stat().st_size}" for path in self.below(folder))

    @property
    def links(self) -> list[str]:
        """Links to folders that are not followed: they lead to a folder that is listed anyway, or to one around it."""
        return self._walk.skipped

    def describe(self, folder: Path) -> str:
        """Return how many files of which kinds lie below a folder, such as "8 .gif, 2 .txt", or "nothing"."""
        return describe_kinds(Counter(kind_of(path) for path in self.below(folder))) or "nothing"


def kind_of(path: str | os.PathLike[str]) -> str:
    """Return the extension of a file, small; "no extension" where there is none, or one that may be part of a name."""
    extension = os.path.splitext(path)[1].lower()
    usual = re.fullmatch(r"\.[a-z][a-z0-9]{0,7}|\.\d?[a-z]{2,4}", extension)
    # of DICOM, "SMITH.JOHN" has none
    return extension if usual and (extension in EXTENSIONS or not is_image(path)) else "no extension"


def describe_kinds(kinds: Mapping[str, int]) -> str:
    """Return counted extensions as a list, most first."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))


def account(tree: Tree, frame: pd.DataFrame, reason: Callable[[Path], str]) -> dict[str, dict[str, int]]:
    """Count the files that are not in a manifest, by reason and extension.

    Names are not kept: the names of DICOM files and of their folders may be those of patients.

    Args:
        tree: The dataset's folder.
        frame: The manifest's `path` and `mask_path`.
        reason: Why an image in a format that is read is not used.

    Returns:
        Reason to extension to number of files.
    """
    top = os.path.join(tree.root, "")
    paths = (*frame["path"], *frame["mask_path"])
    listed = {path if path.startswith(top) else os.path.realpath(path) for path in paths}
    linked = not all(path.startswith(top) for path in listed)  # an extra class may be named through a link
    counts: dict[str, Counter[str]] = {}
    for path in tree.below(tree.root):
        if str(path) not in listed and not (linked and os.path.realpath(path) in listed):
            text = path.name == "DICOMDIR" or path.name.lower().endswith(tuple(_TEXTS))
            why = reason(path) if tree.is_image(path) else NO_IMAGE if text else NOT_READ
            counts.setdefault(why, Counter())[kind_of(path)] += 1
    return {why: dict(kinds) for why, kinds in sorted(counts.items())}


def account_notes(tree: Tree, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a sentence on the files of `account` that may be images, and one on links that are not followed."""
    reasons = {NOT_READ: "formats that are not read; convert images among them, for example to PNG"}
    lists = [
        f"{describe_kinds(kinds)} ({reasons.get(reason, reason)})"
        for reason, kinds in counts.items()
        if reason != NO_IMAGE
    ]
    notes = [f"Not used: {'; '.join(lists)}."] if lists else []
    if tree.links:
        notes.append(
            f"{len(tree.links)} links to folders are not followed: each leads to a folder that is listed anyway, or to "
            "one around it."
        )
    return notes


def is_within(path: Path, folders: Collection[Path]) -> bool:
    """Return whether a path, links followed, is one of the folders (resolved paths) or lies in one."""
    resolved = path.resolve() if folders else path
    return any(resolved.is_relative_to(folder) for folder in folders)
