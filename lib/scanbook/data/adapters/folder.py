"""Class folders: `<class>/*`, or with parts, `train|val|test/<class>/*`."""

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
    """Lists the images of class folders.

    The class order is that of the study's `classes`, else that of the folder names, numbers in numeric order; extra
    classes come last. A source with `train` and one other part has no validation part: the other part is then test, and
    validation is carved from train later.

    Raises:
        DataError: The folder is missing, has no class folders, or a class folder holds no image.
    """
    layout = study.dataset
    assert isinstance(layout, FolderData)
    place = files.require_folder(
        study, "class folders such as normal/ and ill/, or train/ and test/ with class folders in them"
    )
    root = files.unwrapped(place / layout.root if (place / layout.root).is_dir() else place)
    extra = [(place / name).resolve() for name in layout.extra_classes.values()]
    splits = files.split_folders(root, layout.classes, extra)
    rows: list[files.Row] = []
    claims: Counter[str] = Counter()
    skipped: list[str] = []
    for parent, split in splits.items() or [(root, "")]:
        for folder in files.subfolders(files.unwrapped(parent) if split else parent):
            label = files.class_of(folder.name, layout.classes)
            if label is None or files.within(folder, extra):
                skipped += [folder.name] if label is None else []
                continue
            found = files.images_of_class(folder)
            inside = [each for each in extra if each.is_relative_to(folder.resolve())]
            if inside:  # an extra class's images are of that class alone
                found = [(path, mask) for path, mask in found if not files.within(path.parent, inside)]
                if not found:
                    continue
            if not found:
                raise DataError(
                    f"class folder {folder} holds no image; expected {', '.join(sorted(files.EXTENSIONS))} files; "
                    "add images or remove the folder"
                )
            shown = folder.relative_to(root).as_posix()
            rows += [(p.relative_to(root).as_posix(), str(p), label, "", mask, split, shown) for p, mask in found]
            claims[label] += claimed_in_name(folder.name) or 0
    if not rows and skipped:
        raise DataError(
            f"{root}: none of the folders {', '.join(skipped)} is one of the study's classes; "
            f"expected {', '.join(layout.classes)}; correct classes in the study, or DATA"
        )
    if not rows:
        raise DataError(f"{root} holds no class folders; expected one folder of images for each class")
    more, notes = files.extra_images(layout, place, bool(splits))
    frame = pd.DataFrame(rows + more, columns=[*COLUMNS, files.FOLDER])
    frame["group"] = frame["image_id"]
    frame, said = files.hide_names(frame)
    facts: dict[str, Any] = {"data": files.content(study, layout, root), "grouped": files.grouped(frame)}
    facts["notes"] = [*files.absent(layout, frame), *notes, *said]
    if layout.claimed_in_names:
        facts["claimed_in_names"] = {label: count for label, count in claims.items() if count}
    classes = files.class_order(set(frame["label"]), layout.classes, list(layout.extra_classes))
    return Manifest(study.study, frame, classes, facts)


def claimed_in_name(name: str) -> int | None:
    """Number of images that a folder's name claims, as in "1. Eczema 1677" or "2. Melanoma 15.75k"; None if none."""
    found = _CLAIM.search(name)
    if not found:
        return None
    return round(float(found[1].replace(",", "")) * (1000 if found[2] else 1))
