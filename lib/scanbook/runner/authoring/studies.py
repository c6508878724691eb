"""Write a study of one's own images from the layout of their folder: class folders, or a table beside the images."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from scanbook import config, runtime, store
from scanbook.data import adapters
from scanbook.data.adapters import layouts, spelling, tables
from scanbook.data.adapters.listing import Tree, stem
from scanbook.data.adapters.lookup import ImageIndex, normalise
from scanbook.data.adapters.tables import ImageTable
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError, StudyError

LABELS = (
    *("label", "class", "diagnosis", "dx", "benign_malignant", "target", "category", "grade", "level", "disease"),
    *("finding", "labels", "finding_labels", "pathology", "class_name", "retinopathy_grade", "type", "diagnostic"),
    *("finding_class", "dr_grade", "adjudicated_dr_grade", "histology"),
)
"""Names of columns with the class of an image, the likeliest first."""
GROUPS = (
    *("patient_id", "patient", "patientid", "subject_id", "subject", "subjectid", "participant_id", "person_id", "pid"),
    *("lesion_id", "case_id"),
)
"""Names of columns with the patient or lesion; a patient before a lesion, of which a patient may have several."""
SPLITS = ("split", "part", "set", "subset", "partition", "fold", "usage", "data_set", "dataset")
SUBGROUPS = ("sex", "gender", "patient_sex", "patient_gender", "age", "age_approx", "patient_age")
_TAKEN = ("all", "bench")
"""Names with another meaning for `STUDY=` or in the reports folder."""
_SEVERAL = re.compile(r"\w\s*\|\s*\w|^\[.*\]$")
"""Cells with several findings: `Mass|Nodule`, `['nodule', 'mass']`."""
_CLASSES = 100
"""The most classes that a column can hold."""
_FOLDERS = 6
"""The most image folders that a study names one by one."""


@dataclass(frozen=True)
class Scaffold:
    """A new study.

    Attributes:
        path: Its file.
        manifest: Its images.
        reads: What it reads: the table and its columns, or class folders.
        notes: What it does not read, and why.
    """

    path: Path
    manifest: Manifest
    reads: str
    notes: tuple[str, ...]


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
    tree = Tree(folder)
    values["dataset"], ignored = _layout(tree)
    subgroups = values["dataset"].get("metadata", [])
    if subgroups:
        values["evaluation"] = {"subgroups": [*subgroups]}
    draft = {key: value for key, value in values.items() if key != "profiles"}
    try:
        manifest = adapters.load(config.Study.model_validate(draft | {"data": str(folder)}))
    except DataError as error:
        raise DataError("; ".join([str(error), *(note.removesuffix(".") for note in ignored[:2])])) from error
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
    notes = (*ignored, *manifest.facts["notes"])
    return Scaffold(path, manifest, _describe(values["dataset"], manifest), notes)


def _layout(tree: Tree) -> tuple[dict[str, Any], list[str]]:
    """Return the block `dataset` for the images in a folder: of a table if one names them, else of class folders.

    Of several tables it reads the one that names the most images and has their class.

    Returns:
        The block, and a sentence for each table that it does not read.

    Raises:
        DataError: Tables name the images, and none has a column that is known to hold the class.
    """
    own = {"source": "own images", "licence": "unknown"}
    naming, notes = tables.image_tables(tree)
    if not naming:
        return {"adapter": "folder", **own}, notes
    refusals = {table.path: _refusal(table) for table in naming}
    largest = max(naming, key=lambda table: (not refusals[table.path], table.named))
    if refusals[largest.path]:
        raise DataError(refusals[largest.path])
    name = largest.path.relative_to(tree.root).as_posix()
    more = f"{name} is, which names as many images or more; join the tables into one to use both"
    for table in naming:
        if table is not largest:
            reason = (refusals[table.path] and "its class is not known") or more
            notes.append(f"{table.path.relative_to(tree.root).as_posix()} is not read: {reason}.")
    keys = _columns(largest.others)
    for column in [] if "split_column" in keys else _named(largest.others, SPLITS):
        values = largest.others[column].drop_duplicates()
        splits = values.map(layouts.split_of)
        if splits.nunique() > 2:
            notes.append(f"The column {column} is not read as splits: {values[splits == ''].iloc[0]!r} is none.")
    block = {
        "adapter": "table",
        "csv": name,
        "image_column": largest.column,
        **({"path_prefix": largest.prefix} if largest.prefix else {}),
        **keys,
        **_folders(tree, largest),
        **own,
    }
    return block, notes


def _label_column(columns: pd.DataFrame) -> str:
    """Return the column with the class, before others one that tells it of all images; "" without one."""
    names = [name for name in _named(columns, LABELS) if 1 < columns[name].nunique() <= _CLASSES]
    return min(names, key=lambda name: bool(spelling.is_not_told(columns[name]).any()), default="")


def _refusal(table: ImageTable) -> str:
    """Return the reason why a table that names images is not read; "" where it has a column with the class."""
    if not table.column:
        return (
            f"the first row of {table.path} names an image, so the table has no header; expected names of columns; "
            "add a first row such as image,label"
        )
    if table.rival:
        return (
            f"the columns {table.column} and {table.rival} of {table.path} both name images; expected one; write a row "
            "for each image, or remove the column of the images that the study does not use"
        )
    columns = table.others
    if label := _label_column(columns):
        cells = columns[label].drop_duplicates()
        several = cells[cells.str.contains(_SEVERAL)]
        if several.empty:
            return ""
        return (
            f"{table.path} lists findings in the cells of {label}, such as {several.iloc[0]!r}; expected one class for "
            "each image; keep the rows with one, and write its name alone"
        )
    names = f"{table.path} names images"
    leave = "or move the table away if class folders hold the class"
    candidates = _named(columns, LABELS)
    if candidates:
        counts = ", ".join(f"{name} has {columns[name].nunique()} values" for name in candidates)
        return f"{names}, but {counts}; expected 2 to {_CLASSES} classes in that column; correct it, {leave}"
    others = f"its other columns are {', '.join(columns)}" if len(columns.columns) else "it has no other"
    return (
        f"{names}, but no column is known to hold their class; {others}; "
        f"rename the one with the class to label, {leave}"
    )


def _columns(columns: pd.DataFrame) -> dict[str, Any]:
    """Return the keys of a study that name a table's columns, except the one with the images."""
    keys: dict[str, Any] = {"label_column": _label_column(columns)}
    columns = columns.drop(columns=keys["label_column"])
    groups = [name for name in _named(columns, GROUPS) if not spelling.is_not_told(columns[name]).all()]
    if groups:
        keys["group_column"] = groups[0]
    for name in _named(columns, SPLITS):
        if set(columns[name].map(layouts.split_of)) > {"train"} and (columns[name].map(layouts.split_of) != "").all():
            keys["split_column"] = name
            break
    if subgroups := _named(columns, SUBGROUPS):
        keys["metadata"] = subgroups
    return keys


def _named(columns: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns of a table that have some of the names, in their order; "Patient ID" is patient_id."""
    by_name = {re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_"): column for column in columns}
    return [by_name[name] for name in names if name in by_name]


def _folders(tree: Tree, table: ImageTable) -> dict[str, Any]:
    """Return the folders of the images that a table names and, if there is one, of their masks."""
    root = tree.root
    inside: dict[str, list[str]] = {}
    for path in tree.images(root):
        inside.setdefault(path.parent.relative_to(root).as_posix(), []).append(str(path))
    masks = [place for place in inside if any(map(layouts.is_mask_folder, place.split("/")))]
    index = ImageIndex([root], [(root / place).resolve() for place in masks], tree)
    names = table.table.rows[table.column].drop_duplicates().map(lambda name: normalise(name, table.prefix))
    images = index.locate(names)
    several = images[images.map(len) > 1]
    if len(several):
        places = ", ".join(sorted({Path(path).parent.relative_to(root).as_posix() for path in several.iloc[0]}))
        raise DataError(
            f"{table.path} names {len(several)} images of which several files have the name, and differ, as in "
            f"{places}; expected one; move the others away, or write the folder and the extension into the table"
        )
    places = {path.rsplit("/", 1)[0] for paths in images for path in paths}
    others = [place for place in inside if str(root / place) in places or (place == "." and str(root) in places)]
    if not others:  # the images themselves were segmented
        return {"image_folders": masks or ["."]}
    if len(others) > _FOLDERS or any("/" in name for name in names):
        others = ["."]
    keys: dict[str, Any] = {"image_folders": others}
    if masks:
        first = stem(inside[masks[0]][0])
        # the name of a mask may be that of its image and a suffix
        stems = {stem(name) for name in names}
        suffix = min((first.removeprefix(name) for name in stems if first.startswith(name)), key=len, default="")
        keys |= {"mask_folder": masks[0]} | ({"mask_suffix": suffix} if suffix else {})
    return keys


def _describe(block: dict[str, Any], manifest: Manifest) -> str:
    """Return what a study reads, and the splits of the source."""
    counts = manifest.frame["split"].value_counts().drop("", errors="ignore")
    splits = "; splits of the source: " + ", ".join(f"{split} {count}" for split, count in counts.items())
    if block["adapter"] == "folder":
        return f"It reads class folders{splits if len(counts) else ''}."
    keys = {"image": "image_column", "class": "label_column", "patient": "group_column", "split": "split_column"}
    columns = [f"{word}: {block[key]}" for word, key in keys.items() if key in block]
    columns += [f"metadata: {', '.join(block['metadata'])}"] if "metadata" in block else []
    return f"It reads {block['csv']} ({'; '.join(columns)}){splits if len(counts) else ''}."
