"""The forms in which tables state findings: names in a cell, or a column for each with its value."""

from __future__ import annotations

import glob
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import yaml

from scanbook.config import Study, TableData
from scanbook.data.adapters import spelling
from scanbook.data.adapters.listing import natural_key
from scanbook.data.adapters.rows import Rows
from scanbook.data.manifest import ABSENT, PRESENT, UNCERTAIN, Manifest, finding_column, states_of
from scanbook.errors import DataError

_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "t", "y", "present", "positive", "pos"), PRESENT),
    **dict.fromkeys(("0", "false", "no", "f", "n", "absent", "negative", "neg"), ABSENT),
    **dict.fromkeys(("ja", "oui", "sí", "si", "sim", "예", "是"), PRESENT),
    **dict.fromkeys(("nein", "non", "não", "nao", "아니요", "否"), ABSENT),
    **dict.fromkeys(("positiv", "positif", "positivo", "양성", "阳性"), PRESENT),
    **dict.fromkeys(("negativ", "négatif", "negativo", "음성", "阴性"), ABSENT),
    **dict.fromkeys(("-1", "uncertain"), UNCERTAIN),
}
"""What a small cell states of a finding."""
_AMBIGUOUS = frozenset({"none", "nil", "-", "--", "–", "—"})
"""Spellings of "not told" that may mean that a finding is absent."""
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_PLAIN = re.compile(r"[^\W\d][\w .()/-]*")
"""A name that needs no quotes in an override of a study."""
_NOTHING = frozenset(
    [
        *("no finding", "no findings", "none", "normal", "healthy", "nothing", "no_finding", "no_findings"),
        *("nofinding", "normal findings", "no abnormality", "no disease", "no abnormal finding"),
    ]
)
"""Names of "no finding", small."""
_MOST = 300
"""Most findings of a study: more names are those of another column, such as one of reports."""
_SHOWN = 5
"""Most names that a sentence lists."""


@dataclass(frozen=True)
class Stated:
    """What rows state.

    Attributes:
        values: A column per finding, named as in the study, float64: 1, 0, -1 (uncertain) or NaN (not labelled).
        notes: Sentences for the report.
    """

    values: pd.DataFrame
    notes: list[str]


def read(rows: Rows, layout: TableData) -> Stated:
    """Return what each row states of the findings of a study.

    Raises:
        DataError: A cell is none of the values of a finding, a cell names both a finding and `no_finding`, or
            `uncertain` names another finding.
    """
    stated = _in_cells(rows, layout) if layout.label_column else _in_columns(rows, layout)
    if layout.blank == "absent":
        stated = Stated(stated.values.fillna(ABSENT), stated.notes)
    unlabelled = int(stated.values.isna().all(axis=1).sum())
    if unlabelled:
        stated.notes.append(f"{unlabelled} of {len(stated.values)} rows have no label of any finding.")
    for name in layout.uncertain if isinstance(layout.uncertain, dict) else ():
        if name not in stated.values:
            raise DataError(
                f"uncertain names the finding {name!r}; expected one of {', '.join(stated.values)}; correct the study"
            )
    return stated


def policies(layout: TableData, findings: Sequence[str]) -> dict[str, str]:
    """Return how an uncertain label counts, by finding."""
    given = layout.uncertain
    return {name: given if isinstance(given, str) else given.get(name, "ignore") for name in findings}


def classes(rows: Rows, layout: TableData) -> pd.Series:
    """Return the class of each row of a table with a column per class, of which exactly one is 1.

    Raises:
        DataError: Of a row none is 1, or several are, or a cell holds another value.
    """
    columns = list(layout.classes)
    values = pd.DataFrame({column: _states(rows, column, layout.not_told, False) for column in columns})
    count = (values == PRESENT).sum(axis=1)
    wrong = int((count != 1).sum())
    for row in count.index[count != 1][:1]:
        several = [column for column in columns if values.loc[row, column] == PRESENT]
        problem = f"{' and '.join(several)} are 1" if several else f"none of {', '.join(columns)} is 1"
        advice = "name findings in place of classes where several may apply" if several else "name its class in classes"
        raise DataError(
            f"{rows.place(row)}: {problem} ({wrong} such row{'s' * (wrong > 1)}); expected exactly one; correct the "
            f"row, {advice}, or exclude such rows with include"
        )
    return (values == PRESENT).idxmax(axis=1).map(layout.classes)


def check(manifest: Manifest, study: Study) -> None:
    """Raise a `DataError` where a finding is present, or absent, in no image that is labelled."""
    lacking = manifest.labels.absent
    if lacking:
        count = len(lacking) - _SHOWN
        more = f"; {count} more finding{'s are' if count > 1 else ' is'} never present or never absent"
        raise DataError(
            f"dataset {manifest.name}: {_describe(manifest, lacking[:_SHOWN])}{more if count > 0 else ''}; expected "
            f"images with and without each finding; {_remedy(manifest, lacking, study)}"
        )


def without_constant(manifest: Manifest) -> Manifest:
    """Return a dataset without the findings that no image has, or that all have, and a sentence on them in its facts.

    Where no other finding remains, it is the same dataset, which `check` refuses.
    """
    lacking = manifest.labels.absent
    if not lacking or len(lacking) == len(manifest.findings):
        return manifest
    note = f"Of the images that are there: {_describe(manifest, lacking)}. So the study runs without "
    note += f"{', '.join(lacking)}."
    facts = {**manifest.facts, "excluded_findings": lacking, "notes": [note, *manifest.facts.get("notes", ())]}
    kept = [name for name in manifest.findings if name not in lacking]
    frame = manifest.frame.drop(columns=[finding_column(name) for name in lacking])
    uncertain = {name: policy for name, policy in manifest.uncertain.items() if name in kept}
    return Manifest.of_findings(manifest.name, frame, kept, uncertain, facts)


def is_value(cells: pd.Series) -> bool:
    """Return whether all cells of a column state a finding, and some do."""
    values, invalid = _parse(cells, ())
    return not invalid.any() and bool(values.notna().any())


def values_of(cells: pd.Series) -> pd.Series:
    """Return what each cell states, NaN where it is blank or states nothing of a finding."""
    return _parse(cells, ())[0]


def names_nothing(name: str) -> bool:
    """Return whether a name stands for no finding."""
    return name.strip().casefold() in _NOTHING


def names_in(cell: str, separator: str) -> list[str]:
    """Return the names in a cell, each once; a list, `['a', "b"]`, is split at its quotes."""
    text = cell.strip()
    if text.startswith("[") and text.endswith("]"):
        quoted = [first or second for first, second in _QUOTED.findall(text)]
        names = quoted or text[1:-1].split(separator)
    else:
        names = text.split(separator.strip() or separator)
    return list(dict.fromkeys(name.strip() for name in names if name.strip()))


def _describe(manifest: Manifest, names: Sequence[str]) -> str:
    """Return how many images show some findings, in words; those with equal numbers share a clause."""
    stated, alike = manifest.stated, dict[str, list[str]]()
    for name in names:
        column = stated[:, manifest.findings.index(name)]
        counts = {state: int(rows.sum()) for state, rows in states_of(column).items()}
        shown = [f"{state} in {count}" for state, count in counts.items() if count or state in ("present", "absent")]
        alike.setdefault(", ".join(shown), []).append(repr(name))
    return "; ".join(
        f"finding {own[0]} is {counts} of {len(stated)} images"
        if len(own) == 1
        else f"findings {', '.join(own[:-1])} and {own[-1]} are {counts} of {len(stated)} images"
        for counts, own in alike.items()
    )


def _remedy(manifest: Manifest, lacking: Sequence[str], study: Study) -> str:
    """Return what to do about findings that are present, or absent, in no image."""
    layout = study.dataset
    if study.on_stand_in:
        return "raise stand_in.images in the study"
    if not isinstance(layout, TableData):
        return "use the source's complete dataset"
    remain = [name for name in manifest.findings if name not in lacking]
    names = [source for source, name in layout.finding_names.items() if name in remain] or remain
    text = f"[{','.join(names)}]"
    remedies = [f"remove {'it' if len(lacking) == 1 else 'them'} from dataset.findings in the study"]
    if not layout.finding_names:
        remedies = ["name the others in dataset.findings of the study"]
    # where findings are joined or have policies of their own, a list would not mean the same
    joined = len(names) > len(remain) or not isinstance(layout.uncertain, str)
    if names and not joined and all(map(_PLAIN.fullmatch, names)) and yaml.safe_load(text) == names:
        remedies.append(f'pass SET="dataset.findings={shlex.quote(text) if " " in text else text}"')
    remedies.append("add images")
    stated = manifest.stated[:, np.isin(manifest.findings, lacking)]
    hint = "" if np.isin(stated, (0, 1)).all() else " (blank and uncertain in the study say how such labels count)"
    return f"{', '.join(remedies[:-1])}, or {remedies[-1]}{hint}"


def _in_columns(rows: Rows, layout: TableData) -> Stated:
    """Return what a column per finding states; several columns of one finding are joined."""
    columns: dict[str, list[pd.Series]] = {}
    for column, name in layout.finding_names.items():
        columns.setdefault(name, []).append(_states(rows, column, layout.not_told, True))
    values = pd.DataFrame({name: _join(parts) for name, parts in columns.items()})
    notes = []
    if layout.no_finding:
        nothing = _states(rows, layout.no_finding, layout.not_told, True) == PRESENT
        both = values[nothing] == PRESENT
        if both.any(axis=None):
            counts = both.sum()[lambda counts: counts > 0].sort_values(ascending=False)
            names = ", ".join(f"{name} {count}" for name, count in counts.head(_SHOWN).items())
            rows_with_both = f"{int(both.any(axis=1).sum())} of {len(values)}"
            notes.append(f"Rows with {layout.no_finding} beside a finding: {rows_with_both} ({names}).")
        if layout.blank == "absent with no_finding":
            values[nothing] = values[nothing].fillna(ABSENT)
    return Stated(values, notes)


def _join(parts: Sequence[pd.Series]) -> pd.Series:
    """Return what several columns of one finding state: present where one is, absent where all are."""
    if len(parts) == 1:
        return parts[0]
    table = pd.concat(parts, axis=1)
    absent = (table == ABSENT).all(axis=1)
    joined = pd.Series(np.where(absent, ABSENT, np.nan), table.index)
    return joined.mask((table == UNCERTAIN).any(axis=1), UNCERTAIN).mask((table == PRESENT).any(axis=1), PRESENT)


def _in_cells(rows: Rows, layout: TableData) -> Stated:
    """Return what names in the cells of a column state: a finding that a labelled cell does not name is absent."""
    cells = rows.cells[layout.label_column].str.strip()
    codes, distinct = pd.factorize(cells)
    counts = np.bincount(codes, minlength=len(distinct))
    nothing = layout.no_finding.strip().casefold()
    blank = spelling.is_not_told(pd.Series(distinct, dtype=object), layout.not_told).to_numpy()
    # "None" may be the name for nothing; an empty list, [], names nothing, while an empty cell tells nothing
    blank = blank & np.array([not nothing or cell.casefold() != nothing for cell in distinct], bool)
    named = [
        [] if empty else names_in(cell, layout.label_separator) for cell, empty in zip(distinct, blank, strict=True)
    ]
    occurrences = Counter[str]()
    for names, count in zip(named, counts, strict=True):
        occurrences.update(dict.fromkeys(names, int(count)))
    named_findings = Counter({name: count for name, count in occurrences.items() if name.casefold() != nothing})
    spelt, notes = _spellings(named_findings)
    mapping: Mapping[str, str] = layout.finding_names
    if isinstance(layout.findings, list):  # names, and not patterns
        mapping = {glob.escape(name): name for name in layout.findings}
    found = {name: spelling.class_of(spelt[name], mapping) for name in named_findings}
    findings = list(dict.fromkeys(mapping.values())) or sorted({*found.values()}, key=natural_key)
    if len(findings) > _MOST:
        raise DataError(
            f"{rows.tables.iloc[0]}: the cells of {layout.label_column} hold {len(findings)} names, such as "
            f"{findings[0]!r}; expected at most {_MOST} findings; correct label_column or label_separator, or "
            "name those of the study in findings"
        )
    position = {name: number for number, name in enumerate(findings)}
    table = np.full((len(distinct), len(findings)), ABSENT)
    for number, names in enumerate(named):
        present = [position[finding] for name in names if (finding := found.get(name)) is not None]
        if blank[number]:
            table[number] = np.nan
        table[number, present] = PRESENT
        if nothing and present and any(name.casefold() == nothing for name in names):
            row = rows.cells.index[codes == number][0]
            raise DataError(
                f"{rows.place(row)}: {layout.label_column} is {distinct[number]!r}, which names {layout.no_finding} "
                "beside a finding; expected one or the other; correct the cell"
            )
    notes += _remarks(layout, occurrences, found, nothing)
    if not any(len(names) > 1 for names in named):
        notes.append(f"No cell of {layout.label_column} names several findings: check label_separator.")
    return Stated(pd.DataFrame(table[codes], rows.cells.index, findings), notes)


def _remarks(layout: TableData, occurrences: Counter[str], found: Mapping[str, str | None], nothing: str) -> list[str]:
    """Return sentences on the names in the cells that a reader may not expect."""
    notes = []
    ignored = Counter({name: occurrences[name] for name, finding in found.items() if finding is None})
    if ignored:
        shown = ", ".join(f"{name} ({count})" for name, count in ignored.most_common(_SHOWN))
        more = f" and {len(ignored) - _SHOWN} others" if len(ignored) > _SHOWN else ""
        notes.append(f"Names in {layout.label_column} that findings does not name are ignored: {shown}{more}.")
    if nothing and not any(name.casefold() == nothing for name in occurrences):
        notes.append(f"No cell of {layout.label_column} names {layout.no_finding} (no_finding).")
    for finding in sorted({finding for finding in found.values() if finding and names_nothing(finding)}):
        notes.append(f"{finding} counts as a finding: if it means that there is none, name it in no_finding.")
    return notes


def _spellings(occurrences: Counter[str]) -> tuple[dict[str, str], list[str]]:
    """Return the spelling of each name that most cells have, and a sentence where names differ in case alone."""
    names = pd.Series(list(occurrences.elements()), dtype=object) if occurrences else pd.Series([], dtype=object)
    merged, notes = spelling.merge_case(names)
    return dict(zip(names, merged, strict=True)), [note.replace("one class", "one finding") for note in notes]


def _states(rows: Rows, column: str, not_told: Collection[str], with_uncertain: bool) -> pd.Series:
    """Return what each cell of a column states of a finding.

    Raises:
        DataError: A cell states nothing of a finding.
    """
    cells = rows.cells[column]
    values, invalid = _parse(cells, not_told)
    if not with_uncertain:
        invalid |= values == UNCERTAIN
    if invalid.any():
        row, count = cells.index[invalid][0], int(invalid.sum())
        uncertain = "-1 (uncertain) " if with_uncertain else ""
        raise DataError(
            f"{rows.place(row)}: {column} is {cells[row].strip()!r} ({count} such cell{'s' * (count > 1)}); expected "
            f"1 or 0, true or false, yes or no, {uncertain}or nothing (not labelled); correct it, name it in not_told "
            f"where it means that nothing is known, or leave {column} out of the study"
        )
    return values


def _parse(cells: pd.Series, not_told: Collection[str]) -> tuple[pd.Series, pd.Series]:
    """Return what cells state, float64, NaN where they are blank, and which state nothing of a finding, bool."""
    codes, distinct = pd.factorize(cells)
    text = pd.Series(distinct, dtype=object).str.strip().str.casefold()
    more = {word.strip().casefold() for word in not_told}
    plain = text.map(spelling.without_zeros).str.removeprefix("+")
    values = plain.map(_WORDS).astype(np.float64)
    values[text.isin(more)] = np.nan
    blank = (spelling.is_not_told(text) & ~text.isin(_AMBIGUOUS)) | text.isin(more)
    invalid = values.isna() & ~blank
    return (
        pd.Series(values.to_numpy()[codes], cells.index, name=cells.name),
        pd.Series(invalid.to_numpy()[codes], cells.index),
    )
