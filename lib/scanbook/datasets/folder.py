"""Class folders: `<class>/*`, or with parts, `train|val|test/<class>/*`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from scanbook.errors import DataError
from scanbook.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.store import tree_fingerprint
from scanbook.study import Study

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
_PART_FOLDERS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}


def load(study: Study) -> Manifest:
    """Lists the images of class folders; the class order is that of the folder names, numbers in numeric order.

    A source with `train` and one other part has no validation part: the other part is then test, and validation is
    carved from train later.

    Raises:
        DataError: The folder is missing, has no class folders, or a class folder holds no image.
    """
    root = require_folder(
        study, "class folders such as normal/ and ill/, or train/ and test/ with class folders in them"
    )
    folders = _subfolders(root)
    parts = {folder: _PART_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in _PART_FOLDERS}
    if parts and len(parts) < len(folders):
        stray = next(folder for folder in folders if folder not in parts)
        raise DataError(
            f"{root} mixes part folders with {stray.name!r}; expected only train, val and test, or only class folders"
        )
    if set(parts.values()) == {TRAIN, VALIDATION}:
        parts = {folder: TRAIN if part == TRAIN else TEST for folder, part in parts.items()}
    if parts and not {TRAIN, TEST} <= set(parts.values()):
        raise DataError(
            f"{root} has the part folders {', '.join(f.name for f in parts)}; "
            "expected train and at least one of val and test"
        )
    rows = []
    for parent, part in parts.items() or [(root, "")]:
        for folder in _subfolders(parent):
            files = _images_below(folder)
            if not files:
                raise DataError(
                    f"class folder {folder} holds no image; expected {', '.join(sorted(EXTENSIONS))} files; "
                    "add images or remove the folder"
                )
            rows += [(path.relative_to(root).as_posix(), str(path), folder.name, part) for path in files]
    if not rows:
        raise DataError(f"{root} holds no class folders; expected one folder of images for each class")
    frame = pd.DataFrame(rows, columns=["image_id", "path", "label", "part"])
    frame["group"], frame["mask_path"] = frame["image_id"], ""
    classes = tuple(sorted(frame["label"].unique(), key=natural))
    return Manifest(study.study, frame, classes, {"data": tree_fingerprint(root), "grouped": False})


def require_folder(study: Study, expected: str) -> Path:
    """The study's data folder.

    Raises:
        DataError: It is not there.
    """
    if study.location.is_dir():
        return study.location
    what = "is a file, not a folder" if study.location.exists() else "does not exist"
    source = f"; get the images from {study.dataset.source}" if study.dataset.source.startswith("http") else ""
    raise DataError(
        f"dataset {study.study}: {study.location} {what}; expected a folder with {expected}{source}; pass DATA=path"
    )


def natural(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Sort key with numbers in numeric order: "2. b" before "10. a"; the name settles what is equal otherwise."""
    parts = (part for part in re.split(r"(\d+)", name) if part)
    return tuple((0, int(part)) if part.isdecimal() else (1, part.lower()) for part in parts), name


def _images_below(folder: Path) -> list[Path]:
    """Image files at any depth, sorted; hidden files and folders, such as Jupyter's checkpoints, are none."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        found += [Path(parent, name) for name in names if not name.startswith(".") and _is_image(name)]
    return sorted(found)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))),
        key=lambda p: natural(p.name),
    )
