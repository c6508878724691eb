"""A table with one row per image, beside folders of images and, optionally, of masks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from scanbook.config import Study, TableData
from scanbook.data.adapters import files, layouts, listing, spelling, tables
from scanbook.data.adapters import findings as finding_forms
from scanbook.data.adapters import rows as rows_of
from scanbook.data.adapters.lookup import ImageIndex, normalise
from scanbook.data.adapters.rows import Rows
from scanbook.data.manifest import COLUMNS, EXAM, Manifest, finding_column, metadata_name
from scanbook.errors import DataError

_ROW = "row of the table"
"""Column of the frame with the index of an image's row, until the manifest is made."""
_FINDING = finding_column("")


def load(study: Study) -> Manifest:
    """Return the manifest of the images that a table names, in its order, then of the extra classes.

    Raises:
        DataError: The folder, a table, a named column, every image folder or the image of a row is missing, a row may
            name several images, two rows of one image disagree, or an exam lies in two patients or splits.
    """
    layout = study.dataset
    assert isinstance(layout, TableData)
    names = list(layout.tables)
    expected = f"{' and '.join(names)} and {', '.join(layout.image_folders)}"
    root = rows_of.folder_of_tables(layout, files.require_folder(study, expected))
    folders = [root / name for name in layout.image_folders if (root / name).is_dir()]
    masks = [root / layout.mask_folder] if layout.mask_folder and (root / layout.mask_folder).is_dir() else []
    tree, everything = listing.Tree(root), rows_of.read(layout, root)
    rows = rows_of.included(everything, layout, root)
    frame, notes = _read_rows(rows, layout)
    if not folders:
        raise DataError(
            f"{root} has none of the image folders {', '.join(layout.image_folders)}; "
            "correct image_folders in the study or unpack the images there"
        )
    index = ImageIndex(folders, [folder.resolve() for folder in masks if folder not in folders], tree)
    excluded = {
        path: "of no class of the study" if row in rows.images.index else "their rows are not read"
        for row, name in everything.images.drop(frame.index).items()
        for path in index.find(name)
    }
    frame["path"] = _paths(rows, frame.index, index, layout, root)
    missing = frame["path"] == ""
    if missing.any():
        notes.append(
            f"{int(missing.sum())} of {len(frame)} rows name an image that is not there, and are excluded "
            "(allow_missing)."
        )
    frame[_ROW] = frame.index
    frame, repeated = _merge_rows(frame[~missing], rows, layout)
    frame["image_id"] = files.image_ids(frame["path"], root)
    frame["mask_path"] = _masks(frame["path"], folders, masks, layout.mask_suffix, tree)
    frame[files.FOLDER] = rows.tables[frame[_ROW]].map({name: Path(name).stem for name in names}).to_numpy()
    extra_rows, more = files.extra_images(layout, study.location, bool((frame["split"] != "").any()))
    if extra_rows:
        blanks = _blanks(frame)
        extra = pd.DataFrame(extra_rows, columns=[*COLUMNS, files.FOLDER])
        frame = pd.concat([frame, extra], ignore_index=True).fillna(blanks)
    frame, facts, patients = files.name_groups(frame)
    _check_exams(frame, rows)
    if not layout.has_findings:
        notes = [*files.missing_class_notes(layout, frame), *notes]
    notes = [*notes, *repeated, *more, *patients]
    facts |= {
        "data": files.content_fingerprint(study, layout, root),
        "partial": bool(missing.any() or layout.include),
    }
    if layout.duplicates_csv and (root / layout.duplicates_csv).is_file():
        pairs = _read_pairs(root / layout.duplicates_csv, index)
        frame["group"], known = _merge_groups(frame["group"], frame["path"], pairs)
        facts["listed_duplicates"] = len(pairs)
        if known < len(pairs):
            notes.append(
                f"{len(pairs) - known} of {len(pairs)} listed pairs of duplicates name an image not listed here."
            )
    facts["unused"] = listing.account(tree, frame, _reason(names, masks, excluded))
    facts["notes"] = [*notes, *listing.account_notes(tree, facts["unused"])]
    columns = [*COLUMNS, *([EXAM] if EXAM in frame else [])]
    columns += dict.fromkeys(metadata_name(name) for name in layout.metadata)
    if not layout.has_findings:
        return Manifest(study.study, frame[columns], files.class_order(layout, frame), facts)
    findings = [column.removeprefix(_FINDING) for column in frame if column.startswith(_FINDING)]
    columns = [column for column in columns if column != "label"] + [finding_column(name) for name in findings]
    uncertain = finding_forms.policies(layout, findings)
    manifest = Manifest.of_findings(study.study, frame[columns], findings, uncertain, facts)
    return finding_forms.without_constant(manifest) if missing.any() else manifest


def _read_rows(rows: Rows, layout: TableData) -> tuple[pd.DataFrame, list[str]]:
    """Return what the rows of the study's labels state, and sentences.

    The columns are the label, or one for each finding, then group, split ("" where not told), exam and metadata.
    """
    if layout.has_findings:
        stated = finding_forms.read(rows, layout)
        frame, notes = stated.values.rename(columns=finding_column), [*rows.notes, *stated.notes]
        if rows.images.duplicated().any() and not isinstance(layout.csv, dict):
            _check_agreement(stated.values, rows.images, rows)
    else:
        labels, notes = _classes(rows, layout)
        frame = pd.DataFrame({"label": labels[labels.notna()]})
    rows = rows.select(rows.images.index.isin(frame.index))
    frame["group"], more = rows_of.patients(rows, layout)
    notes += more
    frame["split"] = rows.splits
    if layout.exam_columns:
        frame[EXAM], more = rows_of.exams(rows, layout)
        notes += more
    for column in layout.metadata:
        frame[metadata_name(column)] = spelling.metadata(rows.cells[column], layout.not_told, rows.decimal_comma)
    return frame, notes


def _classes(rows: Rows, layout: TableData) -> tuple[pd.Series, list[str]]:
    """Return the class of each row, None where it is none of the study's, and sentences.

    Raises:
        DataError: A row has no label, no label is a class of the study, or two rows of one image disagree.
    """
    notes = list(rows.notes)
    if not layout.label_column:
        labels = finding_forms.classes(rows, layout)
        _check_agreement(pd.DataFrame({"the column that is 1": labels}), _image_keys(rows), rows)
        return labels, notes
    cells = rows.cells[layout.label_column]
    empty = cells.index[cells.str.strip() == ""]
    if len(empty):
        raise DataError(f"{rows.place(empty[0])} has no {layout.label_column}; fill it in or remove the row")
    given = cells.str.strip()
    stated = spelling.whole_numbers(given)
    if not layout.classes:
        stated, more = spelling.merge_case(stated)
        notes += more
        doubtful = ", ".join(sorted(stated[spelling.is_not_told(stated)].unique()))
        means = "counts as a class: if it means that the class is not told, leave it out of classes in the study."
        notes += [f"{doubtful} {means}"] if doubtful else []
    labels = stated.map(lambda label: spelling.class_of(label, layout.classes))
    if layout.classes:  # the study may name the label as it is written, "1.0"
        labels = given.map(lambda label: spelling.class_of(label, layout.classes)).fillna(labels)
    several = "where an image has several findings, write them into one cell and name label_separator; else "
    _check_agreement(pd.DataFrame({layout.label_column: labels.fillna(stated)}), _image_keys(rows), rows, several)
    if labels.isna().all():
        raise DataError(
            f"{' and '.join(layout.tables)}: none of the labels {', '.join(stated.unique()[:5])} is "
            f"one of the study's classes; expected {', '.join(layout.classes)}; correct classes in the study, or "
            "label_column"
        )
    return labels, notes


def _image_keys(rows: Rows) -> pd.Series:
    """Return what identifies the image of each row before it is found: two tables may name two images alike."""
    return rows.images if rows.tables.nunique() == 1 else rows.tables + "\n" + rows.images


def _paths(rows: Rows, chosen: pd.Index, index: ImageIndex, layout: TableData, root: Path) -> pd.Series:
    """Return the path of the image of some rows, "" where it is not there and may be missing.

    Of several images of one name, that below the folder of the row's table counts where there are several tables, else
    that below a folder that is called after the split of the table.

    Raises:
        DataError: A row names no image, or may name several. Names are not shown: that of a DICOM file may be the
            patient's.
    """
    names = rows.images[chosen]
    images = index.locate(names)
    counts = images.map(len)
    if (counts > 1).any() and isinstance(layout.csv, dict):
        for row in counts.index[counts > 1]:
            home, split = os.path.join((root / rows.tables[row]).parent, ""), rows.splits[row]
            own = [path for path in images[row] if path.startswith(home)] or images[row]
            places = {path: os.path.dirname(os.path.relpath(path, root)) for path in own}
            named = [path for path in own if layouts.splits_in(places[path]) == {split}]
            images[row] = named if len(own) > 1 and named else own
        counts = images.map(len)
    absent = counts == 0
    if absent.any() and (absent.all() or not layout.allow_missing):
        row = counts.index[absent][0]
        folders = f"in {', '.join(layout.image_folders)} " if layout.image_folders != ["."] else ""
        partly = ", or set allow_missing in the study where only some are unpacked" if not absent.all() else ""
        raise DataError(
            f"{rows.tables[row]} names {int(absent.sum())} images that are in no image folder, the first in row "
            f"{rows.numbers[row]}; expected them {folders}below {root}; {index.advice(names[row])}{partly}"
        )
    if (counts > 1).any():
        row = counts.index[counts > 1][0]
        raise DataError(
            f"{rows.place(row)}: {counts[row]} different images have the name that {layout.image_column} gives; "
            "expected one; write the folder and the extension into the table"
        )
    return images.str[0].fillna("")


def _check_agreement(stated: pd.DataFrame, images: pd.Series, rows: Rows, advice: str = "") -> None:
    """Raise a `DataError` where two rows of one image state different things.

    Args:
        stated: Columns that must agree; values that are not told agree with any.
        images: What identifies the image of each row.
        rows: The rows, of the same index.
        advice: What else the reader may do, before "keep one of the rows".
    """
    if not images.duplicated().any():
        return
    known = stated.replace("", np.nan)
    differing = known.groupby(images).nunique() > 1
    for column in known:
        for image in differing.index[differing[column]][:1]:
            values = known.loc[images == image, column].dropna()
            other = values.index[(values != values.iloc[0])][0]
            raise DataError(
                f"{rows.place(values.index[0], other)} name the same image, and differ in {column}; "
                f"expected one value for each image; {advice}keep one of the rows, or correct it"
            )


def _check_exams(frame: pd.DataFrame, rows: Rows) -> None:
    """Raise a `DataError` where the images of one exam are of two patients, or lie in two splits of the source."""
    if EXAM not in frame:
        return
    for column, word in (("group", "patients"), ("split", "splits")):
        shared = frame.groupby(EXAM)[column].nunique() > 1
        for exam in shared.index[shared][:1]:
            own = frame[frame[EXAM] == exam]
            first, other = own[_ROW].iloc[0], own.loc[own[column] != own[column].iloc[0], _ROW].iloc[0]
            count = int(shared.sum())
            raise DataError(
                f"{rows.place(int(first), int(other))} are of one exam, and of two {word} ({count} such "
                f"exam{'s' * (count > 1)}); expected the images of an exam together; where exams are numbered within a "
                "patient, name both columns in exam_column, else correct the table"
            )


def _merge_rows(frame: pd.DataFrame, rows: Rows, layout: TableData) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per image, and a sentence where rows were merged.

    Raises:
        DataError: Two rows of one image disagree.
    """
    copies = int(frame["path"].duplicated().sum())
    if not copies:
        return frame.reset_index(drop=True), []
    columns = {
        **{"label": layout.label_column or "the column that is 1", "split": layout.split_column or "the split"},
        **{"group": layout.group_column or "the patient", EXAM: "the exam"},
    }
    columns |= {column: column.removeprefix(_FINDING) for column in frame if column.startswith(_FINDING)}
    _check_agreement(frame.drop(columns=["path", _ROW]).rename(columns=columns), frame["path"], rows)
    merged = frame.replace("", np.nan).groupby("path", sort=False).first().reset_index()[list(frame)]
    names = " and ".join(layout.tables)
    note = f"{copies} of {len(frame)} rows of {names} repeat the image of another row: each image is listed once."
    return merged.fillna(_blanks(frame)), [note]


def _blanks(frame: pd.DataFrame) -> dict[str, str]:
    """Return "", which stands for "not told", for each column of text."""
    return {name: "" for name in frame if not pd.api.types.is_numeric_dtype(frame[name])}


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


def _reason(names: Sequence[str], masks: list[Path], excluded: Mapping[str, str]) -> Callable[[Path], str]:
    """Return a function that tells why an image is not listed."""
    inside = [folder.resolve() for folder in masks]
    unnamed = f"{' and '.join(names)} {'do' if len(names) > 1 else 'does'} not name them"

    def reason(path: Path) -> str:
        if str(path) in excluded:
            return excluded[str(path)]
        return "masks of no image" if listing.is_within(path, inside) else unnamed

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
