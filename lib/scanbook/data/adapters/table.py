"""A CSV with one row per image, beside folders of images and, optionally, of masks."""

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
    """Return the manifest of the images that a CSV names, in its order, then of the extra classes.

    Raises:
        DataError: The folder, the CSV, a named column, every image folder or the image of a row is missing.
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
    missing = stems[~stems.isin(list(images))]
    if len(missing):
        raise DataError(
            f"{layout.csv} names {len(missing)} images that are in no image folder, the first on line "
            f"{missing.index[0] + 2}; "  # the line, since the name of a DICOM file may be the patient's
            f"expected them in {', '.join(layout.image_folders)} below {root}"
        )
    frame = pd.DataFrame(
        {
            "image_id": stems,
            "path": stems.map(images),
            "label": labels,
            "group": _groups(source, layout, stems),
            "mask_path": stems.map(lambda stem: masks.get(stem + layout.mask_suffix, "")),
            "split": _splits(source, layout),
            files.FOLDER: Path(layout.csv).stem,
        }
    )
    for column in layout.metadata:
        frame[column] = _as_numbers(source[column])
    extra_rows, notes = files.extra_images(layout, root, bool((frame["split"] != "").any()))
    frame = frame.reset_index(drop=True)
    if extra_rows:
        extra = pd.DataFrame(extra_rows, columns=[*COLUMNS, files.FOLDER])
        text = [column for column in layout.metadata if not pd.api.types.is_numeric_dtype(frame[column])]
        frame = pd.concat([frame, extra.assign(group=extra["image_id"])], ignore_index=True)
        frame = frame.fillna(dict.fromkeys(text, ""))
    names = frame["image_id"]
    frame, dicom_notes = files.pseudonymise(frame)
    alone = frame["group"] == frame["image_id"]
    if layout.group_column:  # a group may have the name of its image
        alone &= ~np.append(source[layout.group_column].str.strip() != "", np.zeros(len(extra_rows), bool))
    facts: dict[str, Any] = {"data": files.content_fingerprint(study, layout, root), "grouped": not alone.any()}
    if alone.any() and (layout.group_column or not alone.all()):
        notes.append(
            f"{int(alone.sum())} of {len(frame)} images name no patient (group): each counts as a group of its own."
        )
    if layout.duplicates_csv and (root / layout.duplicates_csv).is_file():
        pairs = _read_pairs(root / layout.duplicates_csv)
        frame["group"], known = _merge_groups(frame["group"], names, pairs)
        facts["listed_duplicates"] = len(pairs)
        if known < len(pairs):
            notes.append(
                f"{len(pairs) - known} of {len(pairs)} listed pairs of duplicates name an image not listed here."
            )
    facts["notes"] = [*files.missing_class_notes(layout, frame), *notes, *dicom_notes]
    return Manifest(study.study, frame, files.class_order(layout, frame), facts)


def _read_csv(path: Path, layout: TableData) -> tuple[pd.DataFrame, pd.Series]:
    """Return the rows of the study's classes, and the class of each."""
    source = _read_table(path)
    named = (layout.image_column, layout.label_column, layout.group_column, layout.split_column, *layout.metadata)
    for column in named:
        if column and column not in source:
            raise DataError(
                f"{path} has no column {column!r}; its columns are {', '.join(source.columns)}; "
                "correct the study or the file"
            )
    if source.empty:
        raise DataError(f"{path} has no rows; expected one row per image")
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


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected the table that the study names")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a CSV: {str(error).splitlines()[0]}; expected a header and one row per image"
        ) from error


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    table = _read_table(path)
    if table.shape[1] < 2:
        raise DataError(
            f"{path} has {table.shape[1]} columns; expected two, the names of two images that are duplicates"
        )
    first, second = (table[column].str.strip().map(files.stem) for column in table.columns[:2])
    return [pair for pair in zip(first, second, strict=True) if all(pair)]


def _merge_groups(groups: pd.Series, names: pd.Series, pairs: list[tuple[str, str]]) -> tuple[pd.Series, int]:
    """Return the groups, merged where a pair of duplicates links them, and the number of pairs whose images are listed.

    Merged groups have the name of the first of them.
    """
    row = {name: index for index, name in enumerate(names)}
    known = [(row[first], row[second]) for first, second in pairs if first in row and second in row]
    codes, values = pd.factorize(groups)
    ends = codes[np.array(known, np.int64).reshape(-1, 2)]
    links = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(values), len(values)))
    component = connected_components(links, directed=False)[1]
    names_of = pd.Series(values).groupby(component).first().to_numpy()
    return pd.Series(names_of[component[codes]], index=groups.index), len(known)


def _groups(source: pd.DataFrame, layout: TableData, stems: pd.Series) -> pd.Series:
    """Return the group of each image; an image without one is a group of its own."""
    if not layout.group_column:
        return stems
    named = source[layout.group_column].str.strip()
    return named.where(named != "", stems)


def _splits(source: pd.DataFrame, layout: TableData) -> pd.Series | str:
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
    """Return the path of each image by its name without extension; the first folder takes precedence."""
    paths: dict[str, str] = {}
    for folder in folders:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.is_file() and files.is_image(entry.path):
                paths.setdefault(files.stem(entry.name), entry.path)
    return paths


def _as_numbers(column: pd.Series) -> pd.Series:
    """Return a column as numbers where every value that is not empty is one, else unchanged."""
    numbers = pd.to_numeric(column, errors="coerce")
    return numbers if numbers.notna().any() and (numbers.notna() | (column == "")).all() else column
