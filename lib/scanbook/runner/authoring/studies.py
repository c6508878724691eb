"""Makes a study of one's own images from what lies in their folder: class folders, or a table beside the images."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from scanbook import config, runtime, store
from scanbook.data import adapters
from scanbook.data.adapters import files
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError, StudyError

LABELS = (
    *("label", "class", "diagnosis", "dx", "benign_malignant", "target", "category", "grade", "level", "disease"),
    "finding",
)
"""Names of columns, the likeliest first, that hold the class of an image."""
GROUPS = ("patient_id", "patient", "subject_id", "subject", "lesion_id", "case_id", "person_id")
"""Names of columns that hold whose image it is; a patient before a lesion, of which a patient may have several."""
SPLITS = ("split", "split", "set", "subset", "partition")
SUBGROUPS = ("sex", "gender", "age", "age_approx")
_TAKEN = ("all", "bench")
"""What `STUDY=` and the reports folder mean by other things."""
_MASKS = re.compile("mask|segment", re.IGNORECASE)
_NAMING, _CLASSES = 0.9, 100
"""Share of a column's values that must name images, and the most classes that a column can hold."""


@dataclass(frozen=True)
class Scaffold:
    """A new study.

    Attributes:
        path: Its file.
        manifest: What it lists.
        unread: Tables that name images too, of which it reads nothing.
    """

    path: Path
    manifest: Manifest
    unread: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """A table that names images: where it is, the column with the names, the images named, and the other columns."""

    path: Path
    image_column: str
    named: set[str]
    columns: pd.DataFrame

    @property
    def candidates(self) -> list[str]:
        """Columns that are called as ones with the class are, the likeliest first."""
        called = {name.strip().lower(): name for name in self.columns}
        return [called[each] for each in LABELS if each in called]

    @property
    def label_column(self) -> str:
        """The column with the class; "" where there is none."""
        return next((each for each in self.candidates if 1 < self.columns[each].nunique() <= _CLASSES), "")

    @property
    def refusal(self) -> str:
        """Why it has no column with the class."""
        if self.candidates:
            counts = ", ".join(f"{each} has {self.columns[each].nunique()} values" for each in self.candidates)
            return f"{self.path} names the images, but {counts}; expected 2 to {_CLASSES} classes in that column"
        others = f"its other columns are {', '.join(self.columns)}" if len(self.columns.columns) else "it has no other"
        return (
            f"{self.path} names the images, but no column is known to hold their class; {others}; "
            "rename the one with the class to label"
        )


def create(name: str, data: str = "") -> Scaffold:
    """Writes a new study, once its images were listed as it says.

    Args:
        name: Of the study and its file.
        data: Folder of the images; "" for the study's place in `data/`.

    Raises:
        StudyError: The name is none, or is taken.
        DataError: The folder is missing, or is laid out in no way that an adapter reads.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in _TAKEN:
        raise StudyError(
            f"a study cannot be named {name!r}; expected small letters, digits and _, such as my_images, "
            f"and not {' or '.join(_TAKEN)}"
        )
    path = config.studies_dir() / f"{name}.yaml"
    if path.exists():
        raise StudyError(f"{path} is there already; choose another name, or remove it")
    folder = Path(data).expanduser().resolve() if data else runtime.data_dir() / name
    if not folder.is_dir():
        raise DataError(f"no folder of images at {folder}; put them there or name their place: --data path/to/images")
    words = name.replace("_", " ")
    values: dict[str, Any] = yaml.safe_load((config.studies_dir() / "folder.yaml").read_bytes())
    values |= {
        "study": name,
        "title": words.capitalize(),
        "question": f"How well can the classes of {words} be told apart?",
    }
    values["dataset"], unread = _layout(folder)
    subgroups = values["dataset"].get("metadata", [])
    if subgroups:
        values["evaluation"] = {"subgroups": [*subgroups]}
    draft = {key: value for key, value in values.items() if key != "profiles"}
    manifest = adapters.load(config.Study.model_validate(draft | {"data": str(folder)}))
    # a class folder's name may hold what patterns are made of
    values["dataset"]["classes"] = {glob.escape(each): each for each in manifest.classes}
    heading = (
        f"# Run it with: make reports STUDY={name}{' DATA=path/to/the/images' if data else ''}\n"
        "# classes: the name in the data, then the one in reports, in their order there\n"
    )
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    store.atomic_write(path, heading + text)
    try:
        for profile in config.PROFILES:
            config.load(name, profile, data)
    except StudyError:
        path.unlink()
        raise
    return Scaffold(path, manifest, unread)


def _layout(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Block `dataset` of a study of the images in a folder: a table's where one names them, else class folders'.

    Of several tables it is the one that names the most images and has their class.

    Returns:
        The block, and the tables that name images and are left aside.

    Raises:
        DataError: Tables name the images, and no column of theirs is known to hold the class.
    """
    own = {"source": "own images", "licence": "unknown"}
    tables = list(_tables(folder))
    if not tables:
        return {"adapter": "folder", **own}, ()
    largest = max(tables, key=lambda each: (bool(each.label_column), len(each.named)))
    if not largest.label_column:
        raise DataError(largest.refusal)
    block = {
        **{"adapter": "table", "csv": largest.path.name, "image_column": largest.image_column},
        **_columns(largest),
        **_folders(folder, largest.named),
        **own,
    }
    return block, tuple(each.path.name for each in tables if each is not largest)


def _tables(folder: Path) -> Iterator[_Table]:
    """The tables of a folder that name its images."""
    paths = sorted(folder.glob("*.csv"))
    stems = {files.stem(each.name) for each in files.images_below(folder)} if paths else set()
    for path in paths:
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
            continue  # what is no table names no image
        for column in table:
            names = table[column].str.strip().map(files.stem)
            if names.isin(stems).mean() >= _NAMING:
                yield _Table(path, column, set(names), table.drop(columns=column))
                break


def _columns(table: _Table) -> dict[str, Any]:
    """Which of a table's columns, those that name images apart, holds what."""
    found: dict[str, Any] = {"label_column": table.label_column}
    called = {name.strip().lower(): name for name in table.columns}
    if group := next((called[each] for each in GROUPS if each in called), ""):
        found["group_column"] = group
    known = list(files.SPLIT_NAMES)
    splits = [called[each] for each in SPLITS if each in called]
    if split := next((each for each in splits if table.columns[each].str.strip().str.lower().isin(known).all()), ""):
        found["split_column"] = split
    if subgroups := [called[each] for each in SUBGROUPS if each in called]:
        found["metadata"] = subgroups
    return found


def _folders(folder: Path, named: set[str]) -> dict[str, Any]:
    """Folders of the images that a table names and, where there is one, of their masks."""
    inside: dict[str, list[str]] = {}
    for each in files.images_below(folder):
        inside.setdefault(each.parent.relative_to(folder).as_posix(), []).append(files.stem(each.name))
    masks = [place for place in inside if _MASKS.search(place)]
    images = [place for place, stems in inside.items() if named & set(stems)]
    others = [place for place in images if place not in masks]
    if not others:  # the images themselves were segmented
        return {"image_folders": images}
    found: dict[str, Any] = {"image_folders": others}
    if masks:
        first = inside[masks[0]][0]
        # a mask may be called as its image and a word more
        suffix = min((first.removeprefix(stem) for stem in named if first.startswith(stem)), key=len, default="")
        found |= {"mask_folder": masks[0]} | ({"mask_suffix": suffix} if suffix else {})
    return found
