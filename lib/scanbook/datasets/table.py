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
            "group": source[layout.group_column] if layout.group_column else stems,
            "mask_path": stems.map(lambda stem: masks.get(stem + layout.mask_suffix, "")),
            "part": source[layout.part_column].str.lower().map(_PART_NAMES).fillna("") if layout.part_column else "",
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
                f"{path} has no column {column!r}; its columns are {', '.join(source.columns)}; correct the study or the file"
            )
    if source.empty:
        raise DataError(f"{path} has no rows; expected one row an image")
    empty = source.index[source[layout.label_column] == ""]
    if len(empty):
        raise DataError(f"{path} line {empty[0] + 2} has no {layout.label_column}; fill it in or remove the row")
    return source


def _by_stem(root: Path, folders: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in folders:
        folder = root / name
        if not folder.is_dir():
            raise DataError(
                f"image folder {folder} does not exist; correct image_folders in the study or unpack the images there"
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, extension = os.path.splitext(entry.name)
                if extension.lower() in EXTENSIONS and not stem.startswith("."):
                    found[stem] = entry.path
    return found


def _numbers_where_all_are(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if (numbers.notna() | (column == "")).all() else column
