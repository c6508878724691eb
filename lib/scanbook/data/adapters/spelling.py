"""Spellings of the same value: of a class, of a number, and of "not told"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import pandas as pd

from scanbook import runtime

NOT_TOLD = frozenset(
    [
        *("", "na", "n/a", "n.a.", "n.a", "#n/a", "<na>", "nan", "nat", "null", "nil", "none", "unknown", "unk"),
        *("not known", "unspecified", "not specified", "not available", "not recorded", "not reported", "not provided"),
        *("not applicable", "missing", "undefined", "tbd", "-", "--", "–", "—", "?", "??", ".", "(null)", "(blank)"),
        *("#value!", "#ref!", "#name?", "#div/0!", "#null!", "#num!"),
        *("unbekannt", "k.a.", "k. a.", "keine angabe", "inconnu", "desconocido", "sconosciuto", "onbekend", "未知"),
    ]
)
"""Spellings of a value that is not told, small, for patients and their metadata."""
_NO_PATIENT = frozenset(
    {"anonymous", "anonymized", "anonymised", "anonymous patient", "anon", "deidentified", "de-identified", "no id"}
)
_WHOLE = re.compile(r"([+-]?\d+)[.,]0*")
_AGE = re.compile(r"(\d{3})([DWMY])")
_SEXES = {"m": "male", "f": "female"}
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_IN_YEARS = re.compile(r"[>≥]?=? ?(\d{1,3}(?:\.\d+)?) ?(?:y|yrs?|years?|years? old)?|(\d{2,3}) ?\+", re.IGNORECASE)
_SHARE, _TIMES = 0.2, 10
"""A patient is remarkable with this share of all images, and this many times the images of another."""


def class_of(name: str, classes: Mapping[str, str]) -> str | None:
    """Return the class of a folder or label: that of the first pattern that matches, or None.

    Case and Unicode's form of an accent are ignored. Without patterns the name is the class.
    """
    normal = unicodedata.normalize("NFC", runtime.legible(name))
    if not classes:
        return normal
    for pattern, label in classes.items():
        if fnmatchcase(normal.casefold(), unicodedata.normalize("NFC", pattern).casefold()):
            return label
    return None


def merge_case(labels: pd.Series) -> tuple[pd.Series, list[str]]:
    """Return labels of which those that differ in case alone are one, spelt as most of them, and a sentence on each."""
    counts = labels.value_counts()
    spellings: dict[str, list[str]] = {}
    for label in sorted(counts.index, key=lambda label: (-counts[label], label)):
        spellings.setdefault(label.casefold(), []).append(label)
    several = {names[0]: names for names in spellings.values() if len(names) > 1}
    spelt = {name: first for first, names in several.items() for name in names}
    notes = [
        f"{' and '.join(names)} differ in case alone: they are one class, {first}." for first, names in several.items()
    ]
    return labels.map(lambda label: spelt.get(label, label)), notes


def whole_numbers(labels: pd.Series) -> pd.Series:
    """Return labels without the zeros after the point, "1" for "1.0", where all that are told are numbers."""
    if pd.to_numeric(labels[~is_not_told(labels)], errors="coerce").isna().any():
        return labels
    return labels.map(without_zeros)


def without_zeros(text: str) -> str:
    """Return a whole number without what follows its point or comma, "1" for "1.0"; other text as it is."""
    return match[1] if (match := _WHOLE.fullmatch(text)) else text


def is_not_told(values: pd.Series, more: Collection[str] = ()) -> pd.Series:
    """Return which values are not told, bool `(n,)`.

    Args:
        values: Text.
        more: Further spellings of the study.
    """
    return values.str.strip().str.casefold().isin(NOT_TOLD | {word.strip().casefold() for word in more})


def patients(names: pd.Series, more: Collection[str] = ()) -> tuple[pd.Series, str]:
    """Return the identifiers of patients, "" where none is told, and a sentence where one stands for all images.

    Args:
        names: Identifiers as a source gives them.
        more: Further spellings of "not told".
    """
    stripped = whole_numbers(names.str.strip())
    plain = stripped.str.replace(r"\^+", " ", regex=True)  # DICOM's sign between the parts of a name
    identifiers = stripped.mask(is_not_told(plain, {*more, *_NO_PATIENT}), "")
    total, counts = len(identifiers), identifiers[identifiers != ""].value_counts()
    if total > 1 and len(counts) == 1 and 2 * counts.iloc[0] > total:
        none = pd.Series("", identifiers.index)
        return none, "All images have the same identifier of a patient, so it identifies none."
    if len(counts) > 1 and counts.iloc[0] >= max(_SHARE * total, _TIMES * counts.iloc[1:].median()):
        return identifiers, (
            f"One patient has {counts.iloc[0]} of {total} images: if the identifier means that the patient is not "
            "told, name it in not_told of the study."
        )
    return identifiers, ""


def metadata(values: pd.Series, more: Collection[str] = (), decimal_comma: bool = False) -> pd.Series:
    """Return a column of metadata: numbers where all told values are numbers, else text, "" where not told.

    Ages may be written as DICOM does (PS3.5, 6.2: 058Y), or as 58 years, >89 or 90+; they are then in years. Sexes that
    are written as M and F too become words.

    Args:
        values: Text.
        more: Further spellings of "not told".
        decimal_comma: Whether numbers have a decimal comma.
    """
    stripped = values.str.strip()
    text = stripped.mask(is_not_told(stripped, more), "")
    known = text != ""
    if not known.any():
        return text
    numbers = pd.to_numeric(text.str.replace(",", ".", regex=False) if decimal_comma else text, errors="coerce")
    if numbers[known].notna().all():
        return numbers
    dicom = text.str.fullmatch(_AGE)
    if (dicom | text.str.fullmatch(_IN_YEARS))[known].all():
        parts, years = text.str.extract(_AGE), text.str.extract(_IN_YEARS)
        return years[0].fillna(years[1]).astype(float).mask(dicom, parts[0].astype(float) * parts[1].map(_YEARS))
    small = text.str.casefold()
    return small.replace(_SEXES) if small[known].isin([*_SEXES, *_SEXES.values()]).all() else merge_case(text)[0]
