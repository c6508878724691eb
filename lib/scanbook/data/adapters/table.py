"""A table with one row per image, beside folders of images and, optionally, of masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanbook.config import Study, TableData
from scanbook.data.adapters import files, layouts, listing, spelling, tables
from scanbook.data.adapters.lookup import ImageIndex, normalise
from scanbook.data.manifest import COLUMNS, Manifest, metadata_name
from scanbook.errors import DataError


def load(study: Study) -> Manifest:
    """Return the manifest of the images that a table names, in its order, then of the extra classes.

    Raises:
        DataError: The folder, the table, a named column, every image folder or the image of a row is missing, a row may
            name several images, or two rows of one image disagree.
    """
    layout = study.dataset
    assert isinstance(layout, TableData)
    root = files.require_folder(study, f"{layout.csv} and {', '.join(layout.image_folders)}")
    folders = [root / name for name in layout.image_folders if (root / name).is_dir()]
    masks = [root / layout.mask_folder] if layout.mask_folder and (root / layout.mask_folder).is_dir() else []
    tree, table = listing.Tree(root), tables.read(root / layout.csv)
    frame, names, notes = _read_rows(table, layout)
    if not folders:
        raise DataError(
            f"{root} has none of the image folders {', '.join(layout.image_folders)}; "
            "correct image_folders in the study or unpack the images there"
        )
    index = ImageIndex(folders, [folder.resolve() for folder in masks if folder not in folders], tree)
    excluded = {path for name in names.drop(frame.index) for path in index.find(name)}
    frame["path"] = _paths(names[frame.index], index, layout, root)
    frame, repeated = _merge_rows(frame, layout)
    frame["image_id"] = files.image_ids(frame["path"], root)
    frame["mask_path"] = _masks(frame["path"], folders, masks, layout.mask_suffix, tree)
    frame[files.FOLDER] = Path(layout.csv).stem
    extra_rows, more = files.extra_images(layout, root, bool((frame["split"] != "").any()))
    if extra_rows:
        text = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
        extra = pd.DataFrame(extra_rows, columns=[*COLUMNS, files.FOLDER])
        frame = pd.concat([frame, extra], ignore_index=True).fillna(dict.fromkeys(text, ""))
    frame, facts, patients = files.name_groups(frame)
    notes = [*files.missing_class_notes(layout, frame), *notes, *repeated, *more, *patients]
    facts["data"] = files.content_fingerprint(study, layout, root)
    if layout.duplicates_csv and (root / layout.duplicates_csv).is_file():
        pairs = _read_pairs(root / layout.duplicates_csv, index)
        frame["group"], known = _merge_groups(frame["group"], frame["path"], pairs)
        facts["listed_duplicates"] = len(pairs)
        if known < len(pairs):
            notes.append(
                f"{len(pairs) - known} of {len(pairs)} listed pairs of duplicates name an image not listed here."
            )
    facts["unused"] = listing.account(tree, frame, _reason(layout, masks, excluded))
    facts["notes"] = [*notes, *listing.account_notes(tree, facts["unused"])]
    metadata = dict.fromkeys(metadata_name(name) for name in layout.metadata)
    return Manifest(study.study, frame[[*COLUMNS, *metadata]], files.class_order(layout, frame), facts)


def _read_rows(table: tables.Table, layout: TableData) -> tuple[pd.DataFrame, pd.Series, list[str]]:
    """Return what the rows of the study's classes state, the name of the image of every row, and sentences.

    The columns are label, group, split ("" where not told) and metadata; the index is the number of the row.
    """
    source, path = table.rows, table.path
    named = (layout.image_column, layout.label_column, layout.group_column, layout.split_column, *layout.metadata)
    for column in named:
        if column and column not in source:
            raise DataError(
                f"{path} has no column {column!r}; its columns are {', '.join(source.columns)}; "
                "correct the study or the file"
            )
    if source.empty:
        raise DataError(f"{path} has no rows; expected one row per image")
    for column in (layout.image_column, layout.label_column):
        empty = source.index[source[column].str.strip() == ""]
        if len(empty):
            raise DataError(f"{path} row {empty[0]} has no {column}; fill it in or remove the row")
    names = source[layout.image_column].map(lambda name: normalise(name, layout.path_prefix))
    given = source[layout.label_column].str.strip()
    stated, notes = spelling.whole_numbers(given), list(table.notes)
    if not layout.classes:
        stated, more = spelling.merge_case(stated)
        notes += more
        doubtful = ", ".join(sorted(stated[spelling.is_not_told(stated)].unique()))
        means = "counts as a class: if it means that the class is not told, leave it out of classes in the study."
        notes += [f"{doubtful} {means}"] if doubtful else []
    labels = stated.map(lambda label: spelling.class_of(label, layout.classes))
    if layout.classes:  # the study may name the label as it is written, "1.0"
        labels = given.map(lambda label: spelling.class_of(label, layout.classes)).fillna(labels)
    _check_agreement(pd.DataFrame({layout.label_column: labels.fillna(stated)}), names, layout)
    listed = labels.notna()
    if not listed.any():
        raise DataError(
            f"{path}: none of the labels {', '.join(stated.unique()[:5])} is one of the study's "
            f"classes; expected {', '.join(layout.classes)}; correct classes in the study, or label_column"
        )
    frame = pd.DataFrame({"label": labels, "group": "", "split": _splits(source, layout)})[listed]
    source = source[listed]
    if layout.group_column:
        frame["group"], note = spelling.patients(source[layout.group_column], layout.not_told)
        notes += [note] if note else []
    for column in layout.metadata:
        frame[metadata_name(column)] = spelling.metadata(source[column], layout.not_told, table.separator == ";")
    return frame, names, notes


def _splits(source: pd.DataFrame, layout: TableData) -> pd.Series | str:
    """Return the split of each row, "" without a column of splits."""
    if not layout.split_column:
        return ""
    named = source[layout.split_column].str.strip()
    splits = named.map(layouts.split_of)
    unknown = named[splits == ""]
    if len(unknown):
        raise DataError(
            f"{layout.csv} row {unknown.index[0]}: {layout.split_column} is {unknown.iloc[0]!r}; expected train, "
            "validation or test (or such a word as val, training or testing); correct the file, or split_column in the "
            "study"
        )
    return splits


def _paths(names: pd.Series, index: ImageIndex, layout: TableData, root: Path) -> pd.Series:
    """Return the path of the image of each row.

    Raises:
        DataError: A row names no image, or may name several. Names are not shown: that of a DICOM file may be the
            patient's.
    """
    images = index.locate(names)
    counts = images.map(len)
    if (counts == 0).any():
        row = counts.index[counts == 0][0]
        raise DataError(
            f"{layout.csv} names {int((counts == 0).sum())} images that are in no image folder, the first in row "
            f"{row}; expected them in {', '.join(layout.image_folders)} below {root}; {index.advice(names[row])}"
        )
    if (counts > 1).any():
        row = counts.index[counts > 1][0]
        raise DataError(
            f"{layout.csv} row {row}: {counts[row]} different images have the name that {layout.image_column} gives; "
            "expected one; write the folder and the extension into the table"
        )
    return images.str[0]


def _check_agreement(stated: pd.DataFrame, images: pd.Series, layout: TableData) -> None:
    """Raise a `DataError` where two rows of one image state different things.

    Args:
        stated: Columns that must agree; values that are not told agree with any.
        images: What identifies the image of each row.
        layout: Names the table.
    """
    known = stated.replace("", np.nan)
    differing = known.groupby(images).nunique() > 1
    for column in known:
        for image in differing.index[differing[column]][:1]:
            values = known.loc[images == image, column].dropna()
            other = values.index[(values != values.iloc[0])][0]
            raise DataError(
                f"{layout.csv} rows {values.index[0]} and {other} name the same image, and differ in {column}; "
                "expected one value for each image; keep one of the rows, or correct it"
            )


def _merge_rows(frame: pd.DataFrame, layout: TableData) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per image, and a sentence where rows were merged.

    Raises:
        DataError: Two rows of one image disagree.
    """
    copies = int(frame["path"].duplicated().sum())
    if not copies:
        return frame.reset_index(drop=True), []
    named = {"label": layout.label_column, "group": layout.group_column, "split": layout.split_column}
    stated = frame.drop(columns=["path", *(key for key, column in named.items() if not column)])
    _check_agreement(stated.rename(columns=named), frame["path"], layout)
    text = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    merged = frame.replace("", np.nan).groupby("path", sort=False).first().reset_index()[list(frame)]
    note = f"{copies} of {len(frame)} rows of {layout.csv} repeat the image of another row: each image is listed once."
    return merged.fillna(dict.fromkeys(text, "")), [note]


def _masks(
    paths: pd.Series, folders: list[Path], mask_folders: list[Path], suffix: str, tree: listing.Tree
) -> pd.Series:
    """Return the path of the mask of each image, "" where there is none.

    A mask lies in the folder of its image, as seen from the image folder, or has a name that no other mask has.
    """
    if not mask_folders:
        return pd.Series("", paths.index)
    index = ImageIndex(mask_folders, tree=tree)

    def mask_of(path: str) -> str:
        base = listing.stem(path) + suffix
        places = [
            os.path.relpath(os.path.dirname(path), folder) for folder in folders if Path(path).is_relative_to(folder)
        ]
        candidates = [index.find(os.path.join(place, base)) for place in places if place != "."] + [index.find(base)]
        return next((masks[0] for masks in candidates if len(masks) == 1), "")

    return paths.map(mask_of)


def _reason(layout: TableData, masks: list[Path], excluded: set[str]) -> Callable[[Path], str]:
    """Return a function that tells why an image is not listed."""
    inside = [folder.resolve() for folder in masks]

    def reason(path: Path) -> str:
        if str(path) in excluded:
            return "of no class of the study"
        return "masks of no image" if listing.is_within(path, inside) else f"{layout.csv} does not name them"

    return reason


def _read_pairs(path: Path, index: ImageIndex) -> list[tuple[str, str]]:
    """Return the paths of the images of each pair; its name where an image is not found."""
    table = tables.read(path).rows
    if table.shape[1] < 2:
        raise DataError(
            f"{path} has {table.shape[1]} columns; expected two, the names of two images that are duplicates"
        )
    names = table.iloc[:, :2].map(normalise)
    names = names[(names != "").all(axis=1)]
    first, second = (index.locate(names[column]).str[0].fillna(names[column]) for column in names)
    return list(zip(first, second, strict=True))


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
