"""Write a study of one's own images from the layout of their folder: class folders, or a table beside the images."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
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
"""Names of columns with the class of an image, the likeliest first."""
GROUPS = ("patient_id", "patient", "subject_id", "subject", "lesion_id", "case_id", "person_id")
"""Names of columns with the patient or lesion; a patient before a lesion, of which a patient may have several."""
SPLITS = ("split", "part", "set", "subset", "partition")
SUBGROUPS = ("sex", "gender", "age", "age_approx")
_TAKEN = ("all", "bench")
"""Names with another meaning for `STUDY=` or in the reports folder."""
_MASKS = re.compile("mask|segment", re.IGNORECASE)
_NAMING, _CLASSES = 0.9, 100
"""Share of a column's values that must name images, and the most classes that a column can hold."""


@dataclass(frozen=True)
class Scaffold:
    """A new study.

    Attributes:
        path: Its file.
        manifest: Its images.
        unread: Other tables that name images, which it does not read.
    """

    path: Path
    manifest: Manifest
    unread: tuple[str, ...]


@dataclass(frozen=True)
class _Table:
    """A table that names images: its path, the column with the names, the images named, and the other columns."""

    path: Path
    image_column: str
    named: set[str]
    columns: pd.DataFrame

    @property
    def candidates(self) -> list[str]:
        """Columns whose names are those of a class column, the likeliest first."""
        return _named(self.columns, LABELS)

    @property
    def label_column(self) -> str:
        """The column with the class; "" without one."""
        return next((name for name in self.candidates if 1 < self.columns[name].nunique() <= _CLASSES), "")

    @property
    def refusal(self) -> str:
        """Reason why it has no column with the class."""
        if self.candidates:
            counts = ", ".join(f"{name} has {self.columns[name].nunique()} values" for name in self.candidates)
            return f"{self.path} names the images, but {counts}; expected 2 to {_CLASSES} classes in that column"
        others = f"its other columns are {', '.join(self.columns)}" if len(self.columns.columns) else "it has no other"
        return (
            f"{self.path} names the images, but no column is known to hold their class; {others}; "
            "rename the one with the class to label"
        )


def create(name: str, data: str = "") -> Scaffold:
    """Write a new study after reading its images with it.

    Args:
        name: Name of the study and its file.
        data: Folder of the images; "" for the study's folder in `data/`.

    Raises:
        StudyError: The name is not one of a study, or is taken.
        DataError: The folder is missing, or no adapter reads its layout.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in _TAKEN:
        raise StudyError(
            f"a study cannot be named {name!r}; expected small letters, digits and _, such as my_images, "
            f"and not {' or '.join(_TAKEN)}"
        )
    path = config.studies_dir() / f"{name}.yaml"
    if path.exists():
        raise StudyError(f"{path} exists; choose another name, or remove it")
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
    # a class folder's name may hold the characters of patterns
    values["dataset"]["classes"] = {glob.escape(label): label for label in manifest.classes}
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
    """Return the block `dataset` for the images in a folder: of a table if one names them, else of class folders.

    Of several tables it reads the one that names the most images and has their class.

    Returns:
        The block, and the other tables that name images.

    Raises:
        DataError: Tables name the images, and none has a column that is known to hold the class.
    """
    own = {"source": "own images", "licence": "unknown"}
    tables = list(_tables(folder))
    if not tables:
        return {"adapter": "folder", **own}, ()
    largest = max(tables, key=lambda table: (bool(table.label_column), len(table.named)))
    if not largest.label_column:
        raise DataError(largest.refusal)
    block = {
        **{"adapter": "table", "csv": largest.path.name, "image_column": largest.image_column},
        **_columns(largest),
        **_folders(folder, largest.named),
        **own,
    }
    return block, tuple(table.path.name for table in tables if table is not largest)


def _tables(folder: Path) -> Iterator[_Table]:
    """Yield the tables of a folder that name its images."""
    paths = sorted(folder.glob("*.csv"))
    stems = {files.stem(path.name) for path in files.images_below(folder)} if paths else set()
    for path in paths:
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError):
            continue  # not a table
        for column in table:
            names = table[column].str.strip().map(files.stem)
            if names.isin(stems).mean() >= _NAMING:
                yield _Table(path, column, set(names), table.drop(columns=column))
                break


def _columns(table: _Table) -> dict[str, Any]:
    """Return the keys of a study that name a table's columns, except the one with the images."""
    keys: dict[str, Any] = {"label_column": table.label_column}
    if groups := _named(table.columns, GROUPS):
        keys["group_column"] = groups[0]
    for name in _named(table.columns, SPLITS):
        if table.columns[name].str.strip().str.lower().isin(list(files.SPLIT_NAMES)).all():
            keys["split_column"] = name
            break
    if subgroups := _named(table.columns, SUBGROUPS):
        keys["metadata"] = subgroups
    return keys


def _named(columns: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns of a table that have some of the names, in the order of the names."""
    by_name = {column.strip().lower(): column for column in columns}
    return [by_name[name] for name in names if name in by_name]


def _folders(folder: Path, named: set[str]) -> dict[str, Any]:
    """Return the folders of the images that a table names and, if there is one, of their masks."""
    inside: dict[str, list[str]] = {}
    for path in files.images_below(folder):
        inside.setdefault(path.parent.relative_to(folder).as_posix(), []).append(files.stem(path.name))
    masks = [place for place in inside if _MASKS.search(place)]
    images = [place for place, stems in inside.items() if named & set(stems)]
    others = [place for place in images if place not in masks]
    if not others:  # the images themselves were segmented
        return {"image_folders": images}
    keys: dict[str, Any] = {"image_folders": others}
    if masks:
        first = inside[masks[0]][0]
        # the name of a mask may be that of its image and a suffix
        suffix = min((first.removeprefix(stem) for stem in named if first.startswith(stem)), key=len, default="")
        keys |= {"mask_folder": masks[0]} | ({"mask_suffix": suffix} if suffix else {})
    return keys
