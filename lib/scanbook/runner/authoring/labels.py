"""Which columns of a table hold the labels of its images, and in which form: a class, or findings."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from scanbook.data.adapters import findings, spelling
from scanbook.data.adapters.layouts import words_of
from scanbook.data.manifest import ABSENT, PRESENT, UNCERTAIN
from scanbook.errors import DataError

LABELS = (
    *("label", "class", "diagnosis", "dx", "benign_malignant", "target", "category", "grade", "level", "disease"),
    *("finding", "labels", "finding_labels", "pathology", "class_name", "retinopathy_grade", "type", "diagnostic"),
    *("finding_class", "dr_grade", "adjudicated_dr_grade", "histology", "findings", "pathologies", "diagnoses"),
)
"""Names of columns with the class or the findings of an image, the likeliest first."""
_LIST = re.compile(r"\s*\[.*\]\s*", re.DOTALL)
_CLASSES = 100
"""The most classes that a column can hold."""
_MOSTLY = 0.9
"""Share of rows with exactly one 1 from which the columns may be those of classes."""
_NOT_LABELS = frozenset(
    [
        *("sex", "gender", "male", "female", "age", "smoker", "smoking", "ethnicity", "race", "view", "frontal"),
        *("lateral", "train", "test", "val", "valid", "validation", "fold", "split", "quality", "gradable", "usable"),
        *("exclude", "excluded", "visit", "followup", "follow", "id", "number", "index", "count", "side", "eye"),
    ]
)
"""Words in the names of columns with two values that are no findings."""


@dataclass(frozen=True)
class Form:
    """How a table states the labels of its images.

    Attributes:
        keys: Keys of a study's block `dataset`.
        columns: The columns that hold the labels.
        notes: Sentences on columns that are not read.
    """

    keys: dict[str, Any]
    columns: list[str]
    notes: list[str] = field(default_factory=list)


def named(columns: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return the columns of a table that have some of the names, in their order; "Patient ID" is patient_id."""
    by_name = {re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_"): column for column in columns}
    return [by_name[name] for name in names if name in by_name]


def recognise(columns: pd.DataFrame, taken: Sequence[str], path: str) -> Form:
    """Return the form of the labels of a table.

    A column that is called as one of labels goes before columns of findings. These are adjacent columns with no other
    values than those of a finding, two at least, without those that are called as something else.

    Args:
        columns: The table's columns except that of the images.
        taken: Columns that hold something else, such as the patient.
        path: The table, for messages.

    Raises:
        DataError: No column is known to hold labels.
    """
    candidates = [name for name in named(columns, LABELS) if not _is_of_numbers(columns[name])]
    joined = {name: separator for name in candidates if (separator := _separator(columns[name]))}
    single = [name for name in candidates if name not in joined and 1 < columns[name].nunique() <= _CLASSES]
    # of several, one that tells the label of all images
    best = min([*joined, *single], key=lambda name: bool(spelling.is_not_told(columns[name]).any()), default="")
    block, notes = _block(columns, [*taken, *candidates])
    if best:
        if block:
            names = ", ".join(block)
            notes = [f"The columns {names} hold values of findings and are not read: {best} is."]
        form = _in_cells(columns, best, joined[best]) if best in joined else _in_classes(columns, best)
        return Form(form.keys, form.columns, [*form.notes, *notes])
    if len(block) > 1:
        form = _in_columns(columns, block)
        return Form(form.keys, form.columns, [*form.notes, *notes])
    text = f"{path} names images"
    leave = "or move the table away if class folders hold the class"
    if candidates:
        counts = ", ".join(f"{name} has {columns[name].nunique()} values" for name in candidates)
        raise DataError(f"{text}, but {counts}; expected 2 to {_CLASSES} classes in that column; correct it, {leave}")
    others = f"its other columns are {', '.join(columns)}" if len(columns.columns) else "it has no other"
    raise DataError(
        f"{text}, but no column is known to hold their class or findings; {others}; "
        f"rename the one with the class to label, write findings as 1 and 0 or yes and no, {leave}"
    )


def source_name(label: str) -> str:
    """Return the pattern of a label in `classes`, where a name may hold the characters of patterns."""
    return glob.escape(label)


def shown_name(label: str) -> str:
    """Return the name of a class in reports: N for the list "['N']"."""
    return findings.names_in(label, ",")[0] if _LIST.fullmatch(label) and "'" in label else label


def _is_of_numbers(cells: pd.Series) -> bool:
    """Return whether a column holds lists of numbers: `[1, 0, 0]`."""
    return bool(cells.drop_duplicates().str.fullmatch(r"\s*\[[\d., ]*\]\s*").all())


def _distinct(cells: pd.Series) -> pd.Series:
    """Return the different labels of a column, without those that are not told."""
    return cells[~spelling.is_not_told(cells)].drop_duplicates()


def _separator(cells: pd.Series) -> str:
    """Return what separates several findings in the cells of a column, "" where each holds one label.

    A bar separates, as do the commas of a list. Commas and semicolons, which a label may hold, separate where every
    name that they leave stands in another cell too.
    """
    labels = _distinct(cells)
    lists = labels.str.fullmatch(_LIST)
    if lists.any():
        several = any(len(findings.names_in(cell, ",")) != 1 for cell in labels[lists])
        return "," if several else ""
    for separator in "|;,":
        names = [findings.names_in(cell, separator) for cell in labels]
        joined = [cell for cell in names if len(cell) > 1]
        if joined and separator == "|":
            return separator
        counts = pd.Series([name for cell in names for name in cell], dtype=object).value_counts()
        if joined and all(counts[name] > 1 for cell in joined for name in cell):
            return separator
    return ""


def _in_cells(columns: pd.DataFrame, column: str, separator: str) -> Form:
    """Return the keys of a column whose cells name findings."""
    cells = [findings.names_in(cell, separator) for cell in _distinct(columns[column])]
    keys: dict[str, Any] = {"label_column": column, "label_separator": separator}
    alone = {cell[0] for cell in cells if len(cell) == 1}
    alone |= {cell.strip() for cell in columns[column].unique() if cell.strip().casefold() == "none"}
    beside = {name for cell in cells if len(cell) > 1 for name in cell}
    nothing = sorted(name for name in alone - beside if findings.names_nothing(name))
    if nothing:
        keys["no_finding"] = nothing[0]
    return Form(keys, [column])


def _in_classes(columns: pd.DataFrame, column: str) -> Form:
    """Return the key of a column of classes, and a sentence where a cell may name several of them."""
    cells = _distinct(columns[column].str.strip())
    notes = []
    for separator in ";,":
        names = cells.map(lambda cell, separator=separator: findings.names_in(cell.casefold(), separator))
        alone = {cell[0] for cell in names if len(cell) == 1}
        several = cells[[len(cell) > 1 and not alone.isdisjoint(cell) for cell in names]]
        if len(several):
            notes.append(
                f"{several.iloc[0]!r} in {column} counts as one class: if it names several findings, set "
                f"label_separator: '{separator}' in place of classes."
            )
    return Form({"label_column": column}, [column], notes)


def _block(columns: pd.DataFrame, taken: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the most adjacent columns with the values of findings, and a sentence on others with such values."""
    runs: list[list[str]] = [[]]
    others, blank = [], []
    for name in columns:
        is_finding = findings.is_value(columns[name])
        known = name in taken or bool(_NOT_LABELS & set(words_of(name)))
        if is_finding and not known:
            runs[-1] += [*blank, name] if runs[-1] else [name]
            blank = []
        elif not known and spelling.is_not_told(columns[name]).all():
            blank.append(name)  # one of a block, where others follow
        else:
            blank = []
            others += [name] if is_finding and name not in taken else []
            runs.append([])
    block = max(runs, key=len)
    others = [
        name for name in columns if name in {*others, *(name for run in runs if run is not block for name in run)}
    ]
    if len(block) < 2 or not others:
        return block, []
    return block, [f"The columns {', '.join(others)} hold values of findings, and are not read as such."]


def _in_columns(columns: pd.DataFrame, block: Sequence[str]) -> Form:
    """Return the keys of a column per finding, or per class where exactly one is 1 in each row."""
    values = pd.DataFrame({name: findings.values_of(columns[name]) for name in block})
    present = values == PRESENT
    if (present.sum(axis=1) == 1).all() and not (values == UNCERTAIN).any(axis=None):
        return Form({"classes": _shown(block)}, list(block))
    notes = []
    single = (present.sum(axis=1) == 1).mean()
    if single >= _MOSTLY and not values.isna().any(axis=None):
        notes.append(f"{single:.0%} of the rows have exactly one 1: if these are classes, correct the other rows.")
    nothing = [name for name in block if findings.names_nothing(name)]
    constant = [name for name in block if name not in nothing and not {PRESENT, ABSENT} <= set(values[name])]
    if constant:
        notes.append(f"Not read, since it is never 1 or never 0 in the table: {', '.join(constant)}.")
    kept = [name for name in block if name not in constant]
    any_other = {name: present[[other for other in kept if other != name]].any(axis=1) for name in kept}
    if len(kept) > 3:  # of few columns, it may be so by chance
        nothing += [name for name in kept if name not in nothing and (present[name] == ~any_other[name]).all()]
        summaries = [name for name in kept if name not in nothing and (present[name] == any_other[name]).all()]
        if summaries:
            notes.append(f"The column {summaries[0]} is not read: it is 1 exactly where another is.")
        kept = [name for name in kept if name not in summaries[:1]]
    kept = [name for name in kept if name not in nothing[:1]]
    keys: dict[str, Any] = {"findings": _shown(kept)}
    if nothing:
        keys["no_finding"] = nothing[0]
    if (values[kept] == UNCERTAIN).any(axis=None):
        keys["uncertain"] = "ignore"
    if values[kept].isna().any(axis=None) and (values[kept] == ABSENT).any(axis=None):
        note = "A blank cell of a finding is not labelled; set blank: absent where it means that there is none"
        if nothing and values.loc[present[nothing[0]], kept].isna().any(axis=None):
            note += f", or blank: absent with no_finding where it does so in the rows with {nothing[0]} alone"
        notes.append(f"{note}.")
    notes.append(f"Read as findings: {', '.join(kept)}. Remove from findings, in the study, those that are none.")
    return Form(keys, list(block), notes)


def _shown(columns: Sequence[str]) -> dict[str, str]:
    """Return the names of columns in reports: without the spaces around them, unless two are then alike."""
    names = [name.strip() for name in columns]
    return dict(zip(columns, names if len(set(names)) == len(names) and all(names) else columns, strict=True))
