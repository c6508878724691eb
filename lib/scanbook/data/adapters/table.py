"""A CSV with one row an image, beside folders of images and, where there are some, masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanbook.config import Study, TableData
from scanbook.data.adapters import files
from scanbook.data.manifest import COLUMNS, Manifest
from scanbook.errors import DataError


def load(study: Study) -> Manifest:
    """Lists the images that a CSV names, in its order, then those of the extra classes.

    Raises:
        DataError: The folder, the CSV, a named column or every image folder is missing, or a row's image is.
    """
    layout = study.dataset
    assert isinstance(layout, TableData)
    root = files.require_folder(study, f"{layout.csv} and {', '.join(layout.image_folders)}")
    source, labels = _read_csv(root / layout.csv, layout)
    folders = [root / name for name in layout.image_folders if (root / name).is_dir()]
    if not folders:
        raise DataError(
            f"{root} has none of the image folders {', '.join(layout.image_folders)}; "
            "correct image_folders in the study or unpack the images there"
        )
    images = _by_stem(folders)
    masks = _by_stem([root / layout.mask_folder]) if layout.mask_folder and (root / layout.mask_folder).is_dir() else {}
    stems = source[layout.image_column].str.strip().map(files.stem)
    lost = stems[~stems.isin(list(images))]
    if len(lost):
        raise DataError(
            f"{layout.csv} names {len(lost)} images that are in no image folder, the first on line "
            f"{lost.index[0] + 2}; "  # not by its name: that of a DICOM file may be the patient's
            f"expected them in {', '.join(layout.image_folders)} below {root}"
        )
    frame = pd.DataFrame(
        {
            "image_id": stems,
            "path": stems.map(images),
            "label": labels,
            "group": _groups(source, layout, stems),
            "mask_path": stems.map(lambda stem: masks.get(stem + layout.mask_suffix, "")),
            "split": _parts(source, layout),
            files.FOLDER: Path(layout.csv).stem,
        }
    )
    for column in layout.metadata:
        frame[column] = _numbers_where_all_are(source[column])
    more, notes = files.extra_images(layout, root, bool((frame["split"] != "").any()))
    frame = frame.reset_index(drop=True)
    if more:
        extra = pd.DataFrame(more, columns=[*COLUMNS, files.FOLDER])
        text = [column for column in layout.metadata if not pd.api.types.is_numeric_dtype(frame[column])]
        frame = pd.concat([frame, extra.assign(group=extra["image_id"])], ignore_index=True).fillna(
            dict.fromkeys(text, "")
        )
    names = frame["image_id"]
    frame, said = files.hide_names(frame)
    alone = frame["group"] == frame["image_id"]
    if layout.group_column:  # a group may be called as its image
        alone &= ~np.append(source[layout.group_column].str.strip() != "", np.zeros(len(more), bool))
    facts: dict[str, Any] = {"data": files.content(study, layout, root), "grouped": not alone.any()}
    if alone.any() and (layout.group_column or not alone.all()):
        notes.append(
            f"{int(alone.sum())} of {len(frame)} images name no patient (group): each counts as a group of its own."
        )
    if layout.duplicates_csv and (root / layout.duplicates_csv).is_file():
        pairs = _read_pairs(root / layout.duplicates_csv)
        frame["group"], known = _united(frame["group"], names, pairs)
        facts["listed_duplicates"] = len(pairs)
        if known < len(pairs):
            notes.append(
                f"{len(pairs) - known} of {len(pairs)} listed pairs of duplicates name an image not listed here."
            )
    facts["notes"] = [*files.absent(layout, frame), *notes, *said]
    classes = files.class_order(set(frame["label"]), layout.classes, list(layout.extra_classes))
    return Manifest(study.study, frame, classes, facts)


def _read_csv(path: Path, layout: TableData) -> tuple[pd.DataFrame, pd.Series]:
    """The table's rows of the study's classes, and the class of each."""
    source = _table(path)
    for column in (
        layout.image_column,
        layout.label_column,
        layout.group_column,
        layout.split_column,
        *layout.metadata,
    ):
        if column and column not in source:
            raise DataError(
                f"{path} has no column {column!r}; its columns are {', '.join(source.columns)}; "
                "correct the study or the file"
            )
    if source.empty:
        raise DataError(f"{path} has no rows; expected one row an image")
    empty = source.index[source[layout.label_column].str.strip() == ""]
    if len(empty):
        raise DataError(f"{path} line {empty[0] + 2} has no {layout.label_column}; fill it in or remove the row")
    labels = source[layout.label_column].map(lambda label: files.class_of(label.strip(), layout.classes))
    if labels.isna().all():
        raise DataError(
            f"{path}: none of the labels {', '.join(source[layout.label_column].unique()[:5])} is one of the study's "
            f"classes; expected {', '.join(layout.classes)}; correct classes in the study, or label_column"
        )
    return source[labels.notna()], labels[labels.notna()]


def _table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected the table that the study names")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a CSV: {str(error).splitlines()[0]}; expected a header and one row an image"
        ) from error


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    table = _table(path)
    if table.shape[1] < 2:
        raise DataError(
            f"{path} has {table.shape[1]} columns; expected two, the names of two images that are duplicates"
        )
    first, second = (table[column].str.strip().map(files.stem) for column in table.columns[:2])
    return [pair for pair in zip(first, second, strict=True) if all(pair)]


def _united(groups: pd.Series, names: pd.Series, pairs: list[tuple[str, str]]) -> tuple[pd.Series, int]:
    """Groups, those that a pair of duplicates links made one, called as the first of them; and how many pairs count."""
    row = {name: index for index, name in enumerate(names)}
    known = [(row[one], row[other]) for one, other in pairs if one in row and other in row]
    codes, values = pd.factorize(groups)
    ends = codes[np.array(known, np.int64).reshape(-1, 2)]
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(values), len(values)))
    component = connected_components(links, directed=False)[1]
    first = pd.Series(values).groupby(component).first()
    return pd.Series(first.to_numpy()[component[codes]], index=groups.index), len(known)


def _groups(source: pd.DataFrame, layout: TableData, stems: pd.Series) -> pd.Series:
    """The named column; an image whose group is not told is a group of its own, not one with all others like it."""
    if not layout.group_column:
        return stems
    named = source[layout.group_column].str.strip()
    return named.where(named != "", stems)


def _parts(source: pd.DataFrame, layout: TableData) -> pd.Series | str:
    if not layout.split_column:
        return ""
    named = source[layout.split_column].str.strip().str.lower()
    unknown = named[(named != "") & ~named.isin(list(files.SPLIT_NAMES))]
    if len(unknown):
        raise DataError(
            f"{layout.csv} line {unknown.index[0] + 2}: {layout.split_column} is {unknown.iloc[0]!r}; "
            f"expected one of {', '.join(files.SPLIT_NAMES)}; correct the file, or split_column in the study"
        )
    return named.map(files.SPLIT_NAMES).fillna("")


def _by_stem(folders: list[Path]) -> dict[str, str]:
    """Path of each image by its name without extension; the folder named first wins."""
    found: dict[str, str] = {}
    for folder in folders:
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            if entry.is_file() and files.is_image(entry.path):
                found.setdefault(files.stem(entry.name), entry.path)
    return found


def _numbers_where_all_are(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().any() and (numbers.notna() | (column == "")).all() else column
