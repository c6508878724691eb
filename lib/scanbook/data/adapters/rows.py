"""The rows of a study's tables: which are read, the image, the split, the patient and the exam that each names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from scanbook.config import TableData
from scanbook.data.adapters import layouts, spelling, tables
from scanbook.data.adapters.listing import stem
from scanbook.data.adapters.lookup import normalise
from scanbook.errors import DataError


@dataclass(frozen=True)
class Rows:
    """Rows of one table or several.

    Attributes:
        cells: The columns that the study names, all values as text.
        images: The name of the image of each row, as `lookup.normalise` returns it.
        splits: The split of each row, "" where it is not told.
        tables: The path of the table of each row, as the study gives it.
        numbers: The number of each row in its table, where the header is row 1.
        notes: Sentences for the report.
        decimal_comma: Whether numbers have a decimal comma.
    """

    cells: pd.DataFrame
    images: pd.Series
    splits: pd.Series
    tables: pd.Series
    numbers: pd.Series
    notes: list[str]
    decimal_comma: bool

    def place(self, *rows: int) -> str:
        """Return how a message names some rows: "labels.csv rows 2 and 9", "train.csv row 2 and valid.csv row 9"."""
        names, numbers = self.tables[list(rows)], self.numbers[list(rows)].astype(str)
        if len(rows) > 1 and names.nunique() == 1:
            return f"{names.iloc[0]} rows {' and '.join(numbers)}"
        return " and ".join(f"{name} row {number}" for name, number in zip(names, numbers, strict=True))

    def select(self, chosen: pd.Series) -> Rows:
        """Return some of the rows.

        Args:
            chosen: Bool, for each row.
        """
        columns = {key: getattr(self, key)[chosen] for key in ("cells", "images", "splits", "tables", "numbers")}
        return replace(self, **columns)


def folder_of_tables(layout: TableData, root: Path) -> Path:
    """Return the only folder in the dataset's folder that holds all tables, where that itself holds none; else that.

    A download is often unpacked into a folder of its own.
    """
    if any((root / name).exists() for name in layout.tables):
        return root
    inside = [path for path in root.iterdir() if all(os.path.isfile(path / name) for name in layout.tables)]
    return inside[0] if len(inside) == 1 else root


def read(layout: TableData, root: Path) -> Rows:
    """Return the rows of the tables of a study that lies in a folder.

    Raises:
        DataError: A table, or a column that the study names, is missing, a table has no rows, or a row names no image.
    """
    patterns = (layout.group_pattern and not layout.group_column) or (layout.exam_pattern and not layout.exam_column)
    named = [layout.image_column, layout.label_column, layout.group_column, *layout.exam_columns, layout.split_column]
    named += [*layout.include, layout.image_column if patterns else ""]
    if not layout.label_column:
        named += [*(layout.finding_names or layout.classes)]
        named += [layout.no_finding] if layout.no_finding else []
    metadata = [column for column in layout.metadata if column not in named]
    columns = [column for column in dict.fromkeys([*named, *metadata]) if column]
    parts, notes, separators = [], [], set()
    for name, split in layout.tables.items():
        table = tables.read(root / name)
        source, path = table.rows, table.path
        lacking = [name for name in metadata if name not in source] if layout.allow_missing else []
        if lacking:
            source = source.assign(**dict.fromkeys(lacking, ""))
            notes.append(f"{name} has no column {' and '.join(lacking)}: this metadata is not known (allow_missing).")
        for column in columns:
            if column not in source:
                raise DataError(
                    f"{path} has no column {column!r}; its columns are {', '.join(source.columns)}; "
                    "correct the study or the file"
                )
        if source.empty:
            raise DataError(f"{path} has no rows; expected one row per image")
        empty = source.index[source[layout.image_column].str.strip() == ""]
        if len(empty):
            raise DataError(f"{path} row {empty[0]} has no {layout.image_column}; fill it in or remove the row")
        parts.append((source[columns], name, split, source.index))
        notes += table.notes
        separators.add(table.separator)
    cells = pd.concat([part[0] for part in parts], ignore_index=True)
    repeated = [[name, split, number] for _, name, split, index in parts for number in index]
    origins = pd.DataFrame(repeated, columns=["table", "split", "number"])
    named_images = [normalise(name, layout.path_prefix) for name in cells[layout.image_column].tolist()]
    images = pd.Series(named_images, cells.index, dtype=cells[layout.image_column].dtype)
    rows = Rows(cells, images, origins["split"], origins["table"], origins["number"], notes, separators == {";"})
    if layout.split_column:
        rows = replace(rows, splits=_splits(rows, layout))
    return rows


def included(rows: Rows, layout: TableData, root: Path) -> Rows:
    """Return the rows that a study reads: those with the values of `include`, and in a list of `split_lists`.

    Raises:
        DataError: No row has a value, a list is missing, or names no image of the table, or two name the same one.
    """
    total = len(rows.images)
    for column, values in layout.include.items():
        chosen = _matches(rows.cells[column], values)
        if not chosen.any():
            shown = ", ".join(rows.cells[column].str.strip().unique()[:5])
            raise DataError(
                f"{' and '.join(layout.tables)}: no row has {', '.join(map(str, values))} in {column}; its "
                f"values are {shown}; correct include in the study"
            )
        rows = rows.select(chosen)
    if len(rows.images) < total:
        names = ", ".join(layout.include)
        rows.notes.append(f"{len(rows.images)} of {total} rows are read: those that include names ({names}).")
    return _listed(rows, layout, root) if layout.split_lists else rows


def patients(rows: Rows, layout: TableData) -> tuple[pd.Series, list[str]]:
    """Return the patient or lesion of each row, "" where none is told, and sentences."""
    if not (layout.group_column or layout.group_pattern):
        return pd.Series("", rows.cells.index), []
    values = rows.cells[layout.group_column or layout.image_column]
    names, notes = _matched(values, layout.group_pattern, "group_pattern")
    identifiers, note = spelling.patients(names, layout.not_told)
    return identifiers, [*notes, note] if note else notes


def exams(rows: Rows, layout: TableData) -> tuple[pd.Series, list[str]]:
    """Return the exam of each row, "" where none is told, and sentences."""
    parts = []
    for column in layout.exam_columns:
        values = spelling.whole_numbers(rows.cells[column].str.strip())
        parts.append(values.mask(spelling.is_not_told(values, layout.not_told), ""))
    stated = pd.concat(parts, axis=1)
    joined = parts[0].str.cat(parts[1:], sep=" ") if len(parts) > 1 else parts[0]
    return _matched(joined.where((stated != "").all(axis=1), ""), layout.exam_pattern, "exam_pattern")


def _matched(values: pd.Series, pattern: str, key: str) -> tuple[pd.Series, list[str]]:
    """Return what a pattern finds in each value, "" where nothing, and a sentence on values without it.

    Raises:
        DataError: It finds nothing in any value.
    """
    if not pattern:
        return values, []
    expression = re.compile(pattern)

    def part(value: str) -> str:
        match = expression.search(value)
        return "" if match is None else (match[1] or "") if expression.groups else match[0]

    distinct = values.drop_duplicates()
    parts = values.map(dict(zip(distinct, distinct.map(part), strict=True)))
    lacking = int((parts == "").sum())
    if lacking == len(values):
        raise DataError(
            f"{key} {pattern!r} matches nothing in {values.name!r}; correct it, or the column, in the study"
        )
    return parts, [
        f"{lacking} of {len(values)} rows name no {key.removesuffix('_pattern')} that {key} finds."
    ] if lacking else []


def _matches(cells: pd.Series, values: list[str | bool | int | float]) -> pd.Series:
    """Return which cells have one of some values; case and the zeros of "1.0" do not count. YAML reads yes as true."""

    def plain(text: str) -> str:
        return spelling.without_zeros(text.strip().casefold())

    words = {True: {"true", "yes", "on"}, False: {"false", "no", "off"}}
    wanted = {plain(str(value)) for value in values if not isinstance(value, bool)}
    wanted |= {word for value in values if isinstance(value, bool) for word in words[value]}
    return cells.map(plain).isin(wanted)


def _splits(rows: Rows, layout: TableData) -> pd.Series:
    """Return the split that a column names for each row."""
    named = rows.cells[layout.split_column].str.strip()
    splits = named.map(layouts.split_of)
    unknown = named[splits == ""]
    if len(unknown):
        raise DataError(
            f"{rows.place(unknown.index[0])}: {layout.split_column} is {unknown.iloc[0]!r}; expected train, "
            "validation or test (or such a word as val, training or testing); correct the file, or split_column in the "
            "study"
        )
    return splits


def _listed(rows: Rows, layout: TableData, root: Path) -> Rows:
    """Return the rows whose image a list names, with the split of the list.

    Where images may be missing, the lists may be too, but not some of them.
    """
    lists = ", ".join(layout.split_lists.values())
    if layout.allow_missing and not any((root / name).exists() for name in layout.split_lists.values()):
        rows.notes.append(
            f"The lists of the splits are not there ({lists}), so the splits are not those of the source."
        )
        return rows
    named = [
        (split, name, number, normalise(line, layout.path_prefix).casefold())
        for split, name in layout.split_lists.items()
        for number, line in enumerate(_lines(root / name), 1)
        if line.strip()
    ]
    lines = pd.DataFrame(named, columns=["split", "list", "line", "image"])
    images = rows.images.str.casefold()
    other = ~lines["image"].isin(images)
    if other.any():  # without the folder or the extension that the table gives
        lines.loc[other, "image"] = (
            lines["image"][other].map(_bare).map(dict(zip(images.map(_bare), images, strict=True)))
        )
    known = lines.dropna(subset="image")
    for image in known["image"][known.groupby("image")["split"].transform("nunique") > 1][:1]:
        own = known[known["image"] == image].drop_duplicates("split")
        places = " and ".join(own["list"] + " line " + own["line"].astype(str))
        raise DataError(
            f"{places} name the same image; expected each image in one list of split_lists; correct the lists"
        )
    split_of = dict(zip(known["image"], known["split"], strict=True))
    splits = images.map(lambda image: split_of.get(image, ""))
    chosen = splits != ""
    if not chosen.any():
        raise DataError(
            f"{lists}: no line names an image of {' and '.join(layout.tables)}; expected one name per line; "
            "correct split_lists in the study"
        )
    if len(known) < len(lines):
        rows.notes.append(
            f"{len(lines) - len(known)} of {len(lines)} lines of {lists} name no image of the rows that are read."
        )
    if not chosen.all():
        rows.notes.append(f"{int((~chosen).sum())} of {len(chosen)} rows are in no list ({lists}) and excluded.")
    return replace(rows.select(chosen), splits=splits[chosen])


def _lines(path: Path) -> list[str]:
    try:
        return tables.decode(path.read_bytes())[1].splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise DataError(
            f"cannot read {path} ({reason}); expected a text file with the name of an image on each line"
        ) from error


def _bare(name: str) -> str:
    """Return the name of an image without folder, extension and case."""
    return stem(name).casefold()
