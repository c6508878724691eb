"""Class folders: `<class>/*`, or with splits, `train|val|test/<class>/*`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pandas as pd

from scanbook.config import FolderData, Study
from scanbook.data.adapters import files, layouts, listing, spelling, tables
from scanbook.data.manifest import COLUMNS, Manifest
from scanbook.errors import DataError

_CLAIM = re.compile(r"[\s(](\d[\d,]*(?:\.\d+)?)\s*(k?)\)?\s*$", re.IGNORECASE)


def load(study: Study) -> Manifest:
    """Return the manifest of class folders.

    The class order is that of the study's `classes`, else that of the folder names with numbers in numeric order. Extra
    classes come last. In a source with `train` and one other split, the other split is test; validation is taken from
    train later.

    Raises:
        DataError: The folder is missing, has no class folders, may be read in several ways, or a class folder holds no
            image.
    """
    layout = study.dataset
    assert isinstance(layout, FolderData)
    location = files.require_folder(
        study, "class folders such as normal/ and ill/, or train/ and test/ with class folders in them"
    )
    tree = listing.Tree(location / layout.root if (location / layout.root).is_dir() else location)
    if not layout.classes:
        tables.refuse_guess(tree)
    extra = [(location / name).resolve() for name in layout.extra_classes.values()]
    place = layouts.find_class_folders(tree, layout.classes, extra)
    rows: list[files.Row] = []
    claims: Counter[str] = Counter()
    skipped: list[str] = []
    for parent, split in place.splits.items():
        for folder in tree.folders(parent):
            label = spelling.class_of(folder.name, layout.classes)
            if folder in place.ignored or listing.is_within(folder, extra):
                continue
            if label is None:
                skipped.append(folder.name)
                continue
            images = files.images_of_class(tree, folder)
            inside = [path for path in extra if path.is_relative_to(folder.resolve())]
            if inside:  # the images of an extra class are of that class alone
                images = [(path, mask) for path, mask in images if not listing.is_within(path.parent, inside)]
                if not images:
                    continue
            if not images:
                raise DataError(
                    f"class folder {folder} holds no image that scanbook reads: it holds "
                    f"{tree.describe(folder)}; expected {', '.join(sorted(listing.EXTENSIONS))} files; "
                    "save its images in one of these formats, or remove the folder"
                )
            name = folder.relative_to(place.root).as_posix()
            rows += [
                (path.relative_to(place.root).as_posix(), str(path), label, "", mask, split, name)
                for path, mask in images
            ]
            claims[label] += claimed_in_name(folder.name) or 0
    if not rows and skipped:
        raise DataError(
            f"{place.root}: none of the folders {', '.join(skipped)} is one of the study's classes; "
            f"expected {', '.join(layout.classes)}; correct classes in the study, or DATA"
        )
    if not rows:
        raise DataError(
            f"{place.root} holds no class folders, but {tree.describe(place.root)}; expected one folder of images for "
            "each class, or a table that names the images"
        )
    extra_rows, notes = files.extra_images(layout, location, place.splits != {place.root: ""})
    frame = pd.DataFrame(rows + extra_rows, columns=[*COLUMNS, files.FOLDER])
    if not layout.classes:
        frame["label"], more = spelling.merge_case(frame["label"])
        notes += more
    frame, facts, patients = files.name_groups(frame)
    facts["data"] = files.content_fingerprint(study, layout, tree.root)
    facts["unused"] = listing.account(tree, frame, _reason)
    notes = [*files.missing_class_notes(layout, frame), *place.notes, *notes, *patients]
    facts["notes"] = [*notes, *listing.account_notes(tree, facts["unused"])]
    if layout.claimed_in_names:
        facts["claimed_in_names"] = {label: count for label, count in claims.items() if count}
    return Manifest(study.study, frame[list(COLUMNS)], files.class_order(layout, frame), facts)


def _reason(path: Path) -> str:
    """Return why an image is not listed."""
    if files.is_mask(path):
        return "masks of no image, or several of one"
    return "they lie outside the folders that are read"


def claimed_in_name(name: str) -> int | None:
    """Return the number of images that a folder's name claims, as in "1. Eczema 1677" or "2. Nevi 15.75k", or None."""
    match = _CLAIM.search(name)
    if not match:
        return None
    return round(float(match[1].replace(",", "")) * (1000 if match[2] else 1))
