"""Claims compared with counts: folder names and papers may state other numbers than the files show."""

from __future__ import annotations

import pandas as pd

from scanbook.config import Study
from scanbook.data import counts
from scanbook.data.manifest import NO_FINDING, PRESENT, Manifest

_NAMED = "in the folder's name"


def comparison_note(study: Study, manifest: Manifest) -> str:
    """Return why this run's counts cannot confirm the source's claims, and which folder names are wrong; or "".

    The folders of a stand-in are named after the synthetic files, so their names are compared with these.
    """
    sampled = manifest.facts.get("sampled")
    sentences = []
    if study.on_stand_in:
        sentences.append(
            "The claims are of the real dataset; they are not compared with the synthetic stand-in images."
        )
    elif sampled:
        sentences.append("The claims are of the whole dataset; they are not compared with this run's sample.")
    elif manifest.facts.get("partial"):
        sentences.append("The claims are of the whole dataset; they are not compared with the part that is read.")
    counted = _counted(manifest)
    wrong = [
        f"{label} ({claimed:,} in the name, {counted.get(label, 0):,} counted)"
        for label, claimed in manifest.facts.get("claimed_in_names", {}).items()
        if claimed != counted.get(label, 0)
    ]
    if wrong and not sampled:
        sentences.append(f"A folder's name states another number of images than it holds: {', '.join(wrong)}.")
    return " ".join(sentences)


def claims(study: Study, manifest: Manifest) -> pd.DataFrame:
    """Return the images of each class according to the folder's name, to the source, and to the count.

    Args:
        study: The study, whose dataset states the claims.
        manifest: All images that its adapter listed, including unreadable ones.

    Returns:
        One row per class or finding, in order, then those that are claimed but missing, then, of classes, "all":
        `in the folder's name` and `claimed`, NaN without a claim, absent without any claim; `counted`; `counted minus
        name`, also of a stand-in, but not of a sample; and, where this run reads the whole real dataset, `difference`,
        counted minus claimed.
    """
    stated = {_NAMED: manifest.facts.get("claimed_in_names", {}), "claimed": study.dataset.claimed}
    table = _table(stated, _counted(manifest), list(manifest.names), counts.kind(manifest), _compared(study, manifest))
    return table.drop(index="all", errors="ignore") if manifest.findings else table  # an image may have several


def claimed_splits(study: Study, manifest: Manifest) -> pd.DataFrame:
    """Return the images of each split that the source gives, with the columns of `claims`.

    Args:
        study: The study, whose dataset states the claims.
        manifest: The manifest as its adapter listed it, before scanbook assigned any split.

    Returns:
        No row where the source states nothing about its splits.
    """
    claimed = study.dataset.claimed_splits
    counted = manifest.frame["split"].value_counts()
    return _table({"claimed": claimed}, counted, list(claimed), "split", _compared(study, manifest))


def _counted(manifest: Manifest) -> pd.Series:
    """Return the images of each class; or those that the source states to have each finding, or none."""
    counted = manifest.frame["label"].value_counts()
    if manifest.classes:
        return counted
    stated = pd.Series((manifest.stated == PRESENT).sum(axis=0), manifest.findings)
    return pd.concat([stated, counted[counted.index == NO_FINDING]])


def _compared(study: Study, manifest: Manifest) -> dict[str, str]:
    """Return the columns of claims that this run can confirm, with the columns of their differences."""
    if manifest.facts.get("sampled"):
        return {}
    named = {_NAMED: "counted minus name"}
    return named if study.on_stand_in or manifest.facts.get("partial") else named | {"claimed": "difference"}


def _table(
    stated: dict[str, dict[str, int]], counted: pd.Series, order: list[str], name: str, compared: dict[str, str]
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
