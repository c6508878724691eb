"""Counts against claims: folder names and papers state numbers that the files do not bear out."""

from __future__ import annotations

import pandas as pd

from scanbook.config import Study
from scanbook.data.manifest import Manifest

_NAMED = "in the folder's name"


def comparable(study: Study, manifest: Manifest) -> str:
    """Why this run's counts say nothing of the source's claims, and which folders' names are wrong; else "".

    The folders of a stand-in are named after the drawn files, so their names are compared with these.
    """
    return " ".join(filter(None, (_apart(study, manifest), _misnamed(study, manifest))))


def _apart(study: Study, manifest: Manifest) -> str:
    if study.on_stand_in:
        return (
            "The claims are of the real dataset; the synthetic images that stand in for it are not compared with them."
        )
    if manifest.facts.get("sampled"):
        return "The claims are of the whole dataset; this run's sample is not compared with them."
    return ""


def _misnamed(study: Study, manifest: Manifest) -> str:
    """Classes whose folder's name states another number than was counted, in a sentence; "" where none does."""
    counted = manifest.frame["label"].value_counts()
    wrong = [
        f"{name} ({said:,} in the name, {counted.get(name, 0):,} counted)"
        for name, said in manifest.facts.get("claimed_in_names", {}).items()
        if said != counted.get(name, 0)
    ]
    if not wrong or manifest.facts.get("sampled"):
        return ""
    return f"A folder's name states another number of images than it holds: {', '.join(wrong)}."


def claims(study: Study, manifest: Manifest) -> pd.DataFrame:
    """Images of each class: what the folder's name says, what the source states, and what was counted.

    Args:
        study: The study, whose dataset states the claims.
        manifest: All images that its adapter listed, unreadable ones as well.

    Returns:
        One row a class, in class order, then classes that are claimed and not there, then "all": `in the folder's name`
        and `claimed`, NaN where nothing is said, and left out where nothing is said of any class; `counted`; `counted
        minus name`, also of a stand-in, but not of a sample; and, where this run holds the whole of the real dataset,
        `difference`, counted less claimed.
    """
    stated = {
        _NAMED: {name: float(n) for name, n in manifest.facts.get("claimed_in_names", {}).items()},
        "claimed": {name: float(count) for name, count in study.dataset.claimed.items()},
    }
    counted = manifest.frame["label"].value_counts()
    return _table(stated, counted, list(manifest.classes), "class", _compared(study, manifest))


def claimed_splits(study: Study, manifest: Manifest) -> pd.DataFrame:
    """Images of each part that the source gives, as `claims` has those of each class.

    Args:
        study: The study, whose dataset states the claims.
        manifest: As its adapter listed it, before scanbook made or carved any part.

    Returns:
        No row where the source states nothing of its parts.
    """
    stated = {"claimed": {name: float(count) for name, count in study.dataset.claimed_splits.items()}}
    counted = manifest.frame["split"].value_counts()
    splits = [name for name in study.dataset.claimed_splits if name]
    return _table(stated, counted, splits, "split", _compared(study, manifest))


def _compared(study: Study, manifest: Manifest) -> dict[str, str]:
    """Columns of what is stated that this run can bear out, and the columns of their differences."""
    named = {} if manifest.facts.get("sampled") else {_NAMED: "counted minus name"}
    return named if _apart(study, manifest) else named | {"claimed": "difference"}


def _table(
    stated: dict[str, dict[str, float]], counted: pd.Series, order: list[str], name: str, compared: dict[str, str]
) -> pd.DataFrame:
    stated = {column: numbers for column, numbers in stated.items() if numbers}
    if not stated:
        return pd.DataFrame(columns=["counted"]).rename_axis(name)
    rows = [*order, *sorted({key for numbers in stated.values() for key in numbers} - set(order))]
    table = pd.DataFrame({column: pd.Series(numbers, dtype=float).reindex(rows) for column, numbers in stated.items()})
    table["counted"] = counted.reindex(rows, fill_value=0)
    for column, difference in compared.items():
        if column in stated:
            table[difference] = table["counted"] - table[column]
    table.loc["all"] = table.sum(min_count=1)
    table["counted"] = table["counted"].astype(int)
    return table.rename_axis(name)
