"""Faults planted in synthetic images, compared with the faults that the rules find."""

from __future__ import annotations

from typing import Any

import pandas as pd
from scipy.cluster.hierarchy import DisjointSet

from scanbook.data import presence
from scanbook.data.manifest import Manifest
from scanbook.data.quality.copies import copy_groups
from scanbook.data.quality.differences import tinted


def planted(
    manifest: Manifest,
    flagged: pd.DataFrame,
    exact: pd.DataFrame,
    near: pd.DataFrame,
    scanned: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compare the faults planted in a synthetic dataset with those that the rules find.

    Two near-duplicates of one image are near-duplicates of each other, and so are an image's exact copies and its
    near-duplicates: such pairs count as planted. A kind of fault without a rule is excluded. Tinted images are counted
    where some were planted and `scanned`, the result of `scan`, is given.

    Returns:
        One row per kind of fault: `planted`, `found` of those, `others` that the rule flags as well, `recall` and
        `precision`, NaN where the denominator is zero.
    """
    detected: dict[str, set[Any]] = {
        rule: set(flagged.loc[flagged["rule"] == rule, "image_id"])
        for rule in ("unreadable", "dark", "blurred", "blank")
    }
    ids = set(manifest.frame["image_id"])
    hidden = dict(manifest.facts["faults"])
    if manifest.facts.get("tinted") and scanned is not None:
        hidden["tinted"] = manifest.facts["tinted"]
        detected["tinted"] = set(scanned.loc[tinted(scanned), "image_id"])
    if "blank" not in hidden:
        detected["dark"] |= detected.pop("blank")
    groups = exact.groupby("copy_group")["image_id"].agg(frozenset)
    conflicts = presence.conflicts(manifest, copy_groups(manifest.frame, exact)).any(axis=1)
    in_conflict = set(manifest.frame.loc[conflicts, "image_id"])
    conflicting = {group for group in groups if group & in_conflict}
    detected |= {"conflicting_labels": conflicting, "exact_duplicates": set(groups) - conflicting}
    detected["near_duplicates"] = {frozenset(pair) for pair in near[["image_id", "other"]].itertuples(index=False)}
    rows = {}
    for kind in (kind for kind in hidden if kind in detected):
        images = [[member] if isinstance(member, str) else member for member in hidden[kind]]
        # A sampled dataset no longer holds all that was planted.
        truth = {frozenset(member) for member in images if ids.issuperset(member)}
        matches = {frozenset([member]) if isinstance(member, str) else member for member in detected[kind]}
        if kind == "near_duplicates":
            truth = _implied_pairs(truth, groups)
        found, others = len(truth & matches), len(matches - truth)
        rows[kind.replace("_", " ")] = {
            "planted": len(truth),
            "found": found,
            "others": others,
            "recall": found / len(truth) if truth else float("nan"),
            "precision": found / (found + others) if found + others else float("nan"),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fault")


def _implied_pairs(pairs: set[frozenset[str]], copies: pd.Series) -> set[frozenset[str]]:
    """Return the pairs and those that follow from them: near-duplicates of one original, and their exact copies."""
    copies_of = {image_id: group for group in copies for image_id in group}
    members = [sorted(set().union(*(copies_of.get(image_id, {image_id}) for image_id in pair))) for pair in pairs]
    families = DisjointSet({image_id for family in members for image_id in family})
    for first, *rest in members:
        for image_id in rest:
            families.merge(first, image_id)
    return {
        frozenset((first, second))
        for family in families.subsets()
        for first in family
        for second in family
        if first < second and copies_of.get(first) != copies_of.get(second, {second})
    }
