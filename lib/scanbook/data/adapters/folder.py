"""Class folders: `<class>/*`, or with splits, `train|val|test/<class>/*`."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pandas as pd

from scanbook.config import FolderData, Study
from scanbook.data.adapters import files
from scanbook.data.manifest import COLUMNS, Manifest
from scanbook.errors import DataError

_CLAIM = re.compile(r"[\s(](\d[\d,]*(?:\.\d+)?)\s*(k?)\)?\s*$", re.IGNORECASE)


def load(study: Study) -> Manifest:
    """Return the manifest of class folders.

    The class order is that of the study's `classes`, else that of the folder names with numbers in numeric order. Extra
    classes come last. In a source with `train` and one other split, the other split is test; validation is taken from
    train later.

    Raises:
        DataError: The folder is missing, has no class folders, or a class folder holds no image.
    """
    layout = study.dataset
    assert isinstance(layout, FolderData)
    location = files.require_folder(
        study, "class folders such as normal/ and ill/, or train/ and test/ with class folders in them"
    )
    root = files.unwrap(location / layout.root if (location / layout.root).is_dir() else location)
    extra = [(location / name).resolve() for name in layout.extra_classes.values()]
    splits = files.split_folders(root, layout.classes, extra)
    rows: list[files.Row] = []
    claims: Counter[str] = Counter()
    skipped: list[str] = []
    for parent, split in splits.items() or [(root, "")]:
        for folder in files.subfolders(files.unwrap(parent) if split else parent):
            label = files.class_of(folder.name, layout.classes)
            if label is None or files.is_within(folder, extra):
                skipped += [folder.name] if label is None else []
                continue
            images = files.images_of_class(folder)
            inside = [path for path in extra if path.is_relative_to(folder.resolve())]
            if inside:  # the images of an extra class are of that class alone
                images = [(path, mask) for path, mask in images if not files.is_within(path.parent, inside)]
                if not images:
                    continue
            if not images:
                raise DataError(
                    f"class folder {folder} holds no image; expected {', '.join(sorted(files.EXTENSIONS))} files; "
                    "add images or remove the folder"
                )
            name = folder.relative_to(root).as_posix()
            rows += [
                (path.relative_to(root).as_posix(), str(path), label, "", mask, split, name) for path, mask in images
            ]
            claims[label] += claimed_in_name(folder.name) or 0
    if not rows and skipped:
        raise DataError(
            f"{root}: none of the folders {', '.join(skipped)} is one of the study's classes; "
            f"expected {', '.join(layout.classes)}; correct classes in the study, or DATA"
        )
    if not rows:
        raise DataError(f"{root} holds no class folders; expected one folder of images for each class")
    extra_rows, notes = files.extra_images(layout, location, bool(splits))
    frame = pd.DataFrame(rows + extra_rows, columns=[*COLUMNS, files.FOLDER])
    frame["group"] = frame["image_id"]
    frame, dicom_notes = files.pseudonymise(frame)
    facts: dict[str, Any] = {
        "data": files.content_fingerprint(study, layout, root),
        "grouped": bool((frame["group"] != frame["image_id"]).all()),
        "notes": [*files.missing_class_notes(layout, frame), *notes, *dicom_notes],
    }
    if layout.claimed_in_names:
        facts["claimed_in_names"] = {label: count for label, count in claims.items() if count}
    return Manifest(study.study, frame, files.class_order(layout, frame), facts)


def claimed_in_name(name: str) -> int | None:
    """Return the number of images that a folder's name claims, as in "1. Eczema 1677" or "2. Nevi 15.75k", or None."""
    match = _CLAIM.search(name)
    if not match:
        return None
    return round(float(match[1].replace(",", "")) * (1000 if match[2] else 1))
