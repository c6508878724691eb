"""Makes a study of one's own images from what lies in their folder: class folders, or a table beside the images."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from scanbook import datasets, runtime, store, study
from scanbook.datasets import files
from scanbook.errors import DataError, StudyError
from scanbook.manifest import Manifest

LABELS = (
    *("label", "class", "diagnosis", "dx", "benign_malignant", "target", "category", "grade", "level", "disease"),
    "finding",
)
"""Names of columns, the likeliest first, that hold the class of an image."""
GROUPS = ("patient_id", "patient", "subject_id", "subject", "lesion_id", "case_id", "person_id")
"""Names of columns that hold whose image it is; a patient before a lesion, of which a patient may have several."""
PARTS = ("split", "part", "set", "subset", "partition")
SUBGROUPS = ("sex", "gender", "age", "age_approx")
_MASKS = re.compile("mask|segment", re.IGNORECASE)
_NAMING, _CLASSES = 0.9, 100
"""Share of a column's values that must name images, and the most classes that a column can hold."""


def create(name: str, data: str = "") -> tuple[Path, Manifest]:
    """Writes a new study, once its images were listed as it says.

    Args:
        name: Of the study and its file.
        data: Folder of the images; "" for the study's place in `data/`.

    Returns:
        The study's file, and what it lists.

    Raises:
        StudyError: The name is none, or is taken.
        DataError: The folder is missing, or is laid out in no way that an adapter reads.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise StudyError(f"a study cannot be named {name!r}; expected small letters, digits and _, such as my_images")
    path = study.studies_dir() / f"{name}.yaml"
    if path.exists():
        raise StudyError(f"{path} is there already; choose another name, or remove it")
    folder = Path(data).expanduser().resolve() if data else runtime.data_dir() / name
    if not folder.is_dir():
        raise DataError(f"no folder of images at {folder}; put them there or name their place: --data path/to/images")
    words = name.replace("_", " ")
    values: dict[str, Any] = yaml.safe_load((study.studies_dir() / "folder.yaml").read_bytes())
    values |= {
        "study": name,
        "title": words.capitalize(),
        "question": f"How well can the classes of {words} be told apart?",
    }
    values["dataset"] = _layout(folder)
    subgroups = values["dataset"].get("metadata", [])
    if subgroups:
        values["evaluation"] = {"subgroups": [*subgroups]}
    draft = {key: value for key, value in values.items() if key != "profiles"}
    manifest = datasets.load(study.Study.model_validate(draft | {"data": str(folder)}))
    # a class folder's name may hold what patterns are made of
    values["dataset"]["classes"] = {glob.escape(each): each for each in manifest.classes}
    heading = (
        f"# Run it with: make reports STUDY={name}{' DATA=path/to/the/images' if data else ''}\n"
        "# classes: the name in the data, then the one in reports, in their order there\n"
    )
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    store.atomic_write(path, heading + text)
    study.load(name, data=data)
    return path, manifest


def _layout(folder: Path) -> dict[str, Any]:
    """Block `dataset` of a study of the images in a folder: a table's where one names them, else class folders'.

    Raises:
        DataError: A table names the images, and none of its columns is known to hold their class.
    """
    own = {"source": "own images", "licence": "unknown"}
    tables = sorted(folder.glob("*.csv"))
    images = files.images_below(folder) if tables else []
    stems = {files.stem(each.name) for each in images}
    for path in tables:
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
            continue  # what is no table names no image
        for column in table:
            names = table[column].str.strip().map(files.stem)
            if names.isin(stems).mean() >= _NAMING:
                found = {"adapter": "table", "csv": path.name, "image_column": column}
                return {
                    **found,
                    **_columns(path, table.drop(columns=column)),
                    **_folders(folder, images, set(names)),
                    **own,
                }
    return {"adapter": "folder", **own}


def _columns(path: Path, table: pd.DataFrame) -> dict[str, Any]:
    """Which of a table's columns, those that name images apart, holds what."""
    called = {name.strip().lower(): name for name in table}
    labels = [called[each] for each in LABELS if each in called]
    label = next((each for each in labels if 1 < table[each].nunique() <= _CLASSES), "")
    if not label:
        raise DataError(
            f"{path} names the images, but no column is known to hold their class; its other columns are "
            f"{', '.join(table)}; rename the one with the class to label"
        )
    found: dict[str, Any] = {"label_column": label}
    if group := next((called[each] for each in GROUPS if each in called), ""):
        found["group_column"] = group
    known = list(files.PART_NAMES)
    parts = [called[each] for each in PARTS if each in called]
    if part := next((each for each in parts if table[each].str.strip().str.lower().isin(known).all()), ""):
        found["part_column"] = part
    if subgroups := [called[each] for each in SUBGROUPS if each in called]:
        found["metadata"] = subgroups
    return found


def _folders(folder: Path, images: Sequence[Path], named: set[str]) -> dict[str, Any]:
    """Folders of the images that a table names and, where there is one, of their masks."""
    inside: dict[str, list[str]] = {}
    for each in images:
        inside.setdefault(each.parent.relative_to(folder).as_posix(), []).append(files.stem(each.name))
    masks = [place for place in inside if _MASKS.search(place)]
    found: dict[str, Any] = {
        "image_folders": [place for place, stems in inside.items() if place not in masks and named & set(stems)]
    }
    if masks:
        first = inside[masks[0]][0]
        # a mask may be called as its image and a word more
        suffix = min((first.removeprefix(stem) for stem in named if first.startswith(stem)), key=len, default="")
        found |= {"mask_folder": masks[0]} | ({"mask_suffix": suffix} if suffix else {})
    return found
