"""What was planted against what was found."""

from __future__ import annotations

from typing import Any

import pandas as pd

from scanbook.data.manifest import Manifest
from scanbook.data.quality.differences import tinted


def planted(
    manifest: Manifest,
    flagged: pd.DataFrame,
    exact: pd.DataFrame,
    near: pd.DataFrame,
    scanned: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What was planted in a synthetic dataset against what the rules found.

    Two near-duplicates of one image are near-duplicates of each other, and so are an image's exact copies and its
    near-duplicates: such pairs count as planted, too. A kind of fault that no rule is for is left out. Tinted images
    are counted where some were planted and `scanned`, what `scan` found, is given.

    Returns:
        One row a kind of fault: `planted`, `found` of those, `others` that the rule caught as well, and from these
        `recall` and `precision`, NaN where there is nothing to divide by.
    """
    caught: dict[str, set[Any]] = {
        rule: set(flagged.loc[flagged["rule"] == rule, "image_id"])
        for rule in ("unreadable", "dark", "blurred", "blank")
    }
    listed = set(manifest.frame["image_id"])
    hidden = dict(manifest.facts["faults"])
    if manifest.facts.get("tinted") and scanned is not None:
        hidden["tinted"] = manifest.facts["tinted"]
        caught["tinted"] = set(scanned.loc[tinted(scanned), "image_id"])
    faults = {  # a sampled dataset no longer holds all that was planted
        kind: [each for each in members if listed.issuperset([each] if isinstance(each, str) else each)]
        for kind, members in hidden.items()
    }
    if "blank" not in faults:
        caught["dark"] |= caught.pop("blank")
    groups = exact.groupby("copy_group")["image_id"].agg(frozenset)
    labels = manifest.frame.set_index("image_id")["label"]
    conflicting = {group for group in groups if labels[list(group)].nunique() > 1}
    caught |= {"conflicting_labels": conflicting, "exact_duplicates": set(groups) - conflicting}
    caught["near_duplicates"] = {frozenset(pair) for pair in near[["image_id", "other"]].itertuples(index=False)}
    rows = {}
    for kind, members in faults.items():
        if kind not in caught:
            continue
        truth = {member if isinstance(member, str) else frozenset(member) for member in members}
        if kind == "near_duplicates":
            truth = _implied(truth, groups)
        found, others = len(truth & caught[kind]), len(caught[kind] - truth)
        rows[kind.replace("_", " ")] = {
            "planted": len(truth),
            "found": found,
            "others": others,
            "recall": found / len(truth) if truth else float("nan"),
            "precision": found / (found + others) if found + others else float("nan"),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fault")


def _implied(pairs: set[frozenset[str]], copies: pd.Series) -> set[frozenset[str]]:
    """The pairs, and those that follow from them: of one original's near-duplicates, and of their exact copies."""
    from scipy.cluster.hierarchy import DisjointSet

    exact = {name: group for group in copies for name in group}
    families = DisjointSet({name for pair in pairs for one in pair for name in exact.get(one, {one})})
    for pair in pairs:
        first, *rest = [name for one in pair for name in exact.get(one, {one})]
        for name in rest:
            families.merge(first, name)
    return {
        frozenset((one, other))
        for family in families.subsets()
        for one in family
        for other in family
        if one < other and exact.get(one) != exact.get(other, {other})
    }
