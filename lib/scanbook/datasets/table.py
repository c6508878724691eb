"""A CSV with one row an image, beside folders of images and, where there are some, masks."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from scanbook.datasets.folder import EXTENSIONS, natural, require_folder
from scanbook.errors import DataError
from scanbook.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.store import tree_fingerprint
from scanbook.study import Study, TableData

_PART_NAMES = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}


def load(study: Study) -> Manifest:
    """Lists the images that a CSV names, in its order.

    Raises:
        DataError: The folder, the CSV, a named column or an image folder is missing, or a row's image is.
    """
    layout = study.dataset
    assert isinstance(layout, TableData)
    root = require_folder(study, f"{layout.csv} and {', '.join(layout.image_folders)}")
    source = _read_csv(root / layout.csv, layout)
    images = _by_stem(root, layout.image_folders)
    masks = _by_stem(root, [layout.mask_folder]) if layout.mask_folder and (root / layout.mask_folder).is_dir() else {}
    names = source[layout.image_column]
    stems = names.where(~names.str.lower().str.endswith(tuple(EXTENSIONS)), names.map(lambda name: Path(name).stem))
    lost = stems[~stems.isin(list(images))]
    if len(lost):
        raise DataError(
            f"{layout.csv} names {len(lost)} images that are in no image folder, first {lost.iloc[0]!r}; "
            f"expected them in {', '.join(layout.image_folders)} below {root}"
        )
    frame = pd.DataFrame(
        {
            "image_id": stems,
            "path": stems.map(images),
            "label": source[layout.label_column],
            "group": _groups(source, layout, stems),
            "mask_path": stems.map(lambda stem: masks.get(stem + layout.mask_suffix, "")),
            "part": _parts(source, layout),
        }
    )
    for column in layout.metadata:
        frame[column] = _numbers_where_all_are(source[column])
    facts = {"data": tree_fingerprint(root), "grouped": bool(layout.group_column)}
    return Manifest(study.study, frame, tuple(sorted(frame["label"].unique(), key=natural)), facts)


def _read_csv(path: Path, layout: TableData) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected the table that the study names as csv")
    try:
        source = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a CSV: {str(error).splitlines()[0]}; expected a header and one row an image"
        ) from error
    for column in (layout.image_column, layout.label_column, layout.group_column, layout.part_column, *layout.metadata):
        if column and column not in source:
            raise DataError(
                f"{path} has no column {column!r}; its columns are {', '.join(source.columns)}; "
                "correct the study or the file"
            )
    if source.empty:
        raise DataError(f"{path} has no rows; expected one row an image")
    empty = source.index[source[layout.label_column] == ""]
    if len(empty):
        raise DataError(f"{path} line {empty[0] + 2} has no {layout.label_column}; fill it in or remove the row")
    return source


def _groups(source: pd.DataFrame, layout: TableData, stems: pd.Series) -> pd.Series:
    """The named column; an image whose group is not told is a group of its own, not one with all others like it."""
    if not layout.group_column:
        return stems
    named = source[layout.group_column]
    return named.where(named != "", stems)


def _parts(source: pd.DataFrame, layout: TableData) -> pd.Series | str:
    if not layout.part_column:
        return ""
    named = source[layout.part_column].str.strip().str.lower()
    unknown = named[(named != "") & ~named.isin(list(_PART_NAMES))]
    if len(unknown):
        raise DataError(
            f"{layout.csv} line {unknown.index[0] + 2}: {layout.part_column} is {unknown.iloc[0]!r}; "
            f"expected one of {', '.join(_PART_NAMES)}; correct the file, or part_column in the study"
        )
    return named.map(_PART_NAMES).fillna("")


def _by_stem(root: Path, folders: list[str]) -> dict[str, str]:
    """Path of each image by its name without extension; the folder named first wins."""
    found: dict[str, str] = {}
    for name in folders:
        folder = root / name
        if not folder.is_dir():
            raise DataError(
                f"image folder {folder} does not exist; correct image_folders in the study or unpack the images there"
            )
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            stem, extension = os.path.splitext(entry.name)
            if extension.lower() in EXTENSIONS and not stem.startswith("."):
                found.setdefault(stem, entry.path)
    return found


def _numbers_where_all_are(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().any() and (numbers.notna() | (column == "")).all() else column
