"""How many images there are of each class or finding, by split, with the patients behind them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scanbook.data.manifest import SPLITS, TRAIN, UNCERTAIN, WITHOUT_FINDING, Manifest, states_of, without_finding
from scanbook.data.presence import notes

_COUNTS_AS = {"ignore": "missing", "positive": "present", "negative": "absent"}
_UNEVEN = 1.5
"""Ratio of the largest to the smallest class from which a reader is told."""


def kind(manifest: Manifest) -> str:
    """Return what the labels are: "class" or "finding"."""
    return "finding" if manifest.findings else "class"


def by_label(manifest: Manifest, table: pd.DataFrame | None = None) -> tuple[pd.DataFrame, list[str]]:
    """Return a table of images with one row per image and label, and the labels in order.

    Args:
        manifest: The dataset.
        table: One row per image, with a column `image_id`; None for the manifest's own.

    Returns:
        For classes the table as it is. For findings `label` is one finding: an image of several has several rows, which
        keep its index. An image without one has "no finding" where all are absent, "partly labelled" where some are,
        and "not labelled" where nothing is known; the last two are listed where the dataset has such images.
    """
    table = manifest.frame if table is None else table
    if manifest.classes:
        return table, list(manifest.classes)
    labels = manifest.labels_of(table["image_id"])
    rows, columns = np.nonzero(np.column_stack([labels.present, without_finding(labels.values)]))
    # a source may call a finding so
    others = [f"{name} (any)" if name in manifest.findings else name for name in WITHOUT_FINDING]
    occurs = without_finding(manifest.labels.values).any(axis=0)
    listed = [name for name, some in zip(others, occurs, strict=True) if some or name == others[0]]
    names = np.array([*manifest.findings, *others], object)
    return table.iloc[rows].assign(label=names[columns]), [*manifest.findings, *listed]


def image_counts(manifest: Manifest) -> pd.DataFrame:
    """Return the images per class or finding and split, with totals and the number of groups per split.

    Returns:
        A row per class, or per finding the images with it, in order; then "all" images, and their "groups".
    """
    used = (manifest.frame["split"] != "").to_numpy()
    frame, present = manifest.frame[used], manifest.labels.present[used]
    split = frame["split"].to_numpy()
    counts = pd.DataFrame({name: present[split == name].sum(axis=0) for name in SPLITS}, list(manifest.names))
    sizes = pd.Series({name: int((split == name).sum()) for name in SPLITS})
    groups = frame.groupby("split")["group"].nunique().reindex(list(SPLITS), fill_value=0)
    counts["all"] = counts.sum(axis=1)
    rows = [[*sizes, sizes.sum()], [*groups, frame["group"].nunique()]]
    # appended, not set by name: a class may be called "all"
    totals = pd.DataFrame(rows, index=["all", "groups"], columns=counts.columns)
    return pd.concat([counts, totals]).rename_axis(index=kind(manifest), columns=None)


def finding_counts(manifest: Manifest) -> pd.DataFrame:
    """Return what the source states of each finding in each split, in images and in the groups behind them.

    Returns:
        Index `finding`, in order; columns `split`, then for each key of `states_of` the images, and `... in groups`:
        patients or lesions with such an image.
    """
    states, split = states_of(manifest.stated), manifest.frame["split"].to_numpy()
    group = pd.factorize(manifest.frame["group"])[0]
    rows = []
    for column, finding in enumerate(manifest.findings):
        for name in SPLITS:
            row: dict[str, object] = {"finding": finding, "split": name}
            for state, values in states.items():
                own = (split == name) & values[:, column]
                row |= {state: int(own.sum()), f"{state}, in groups": len(np.unique(group[own]))}
            rows.append(row)
    return pd.DataFrame(rows).set_index("finding")


def co_occurrence(manifest: Manifest) -> pd.DataFrame:
    """Return the share of the images with one finding (rows) that have another one (columns), over all splits.

    Images in no split do not count, nor do those that are not labelled for the other finding; NaN where none is left.
    """
    rows = (manifest.frame["split"] != "").to_numpy()
    present = manifest.labels.present[rows].astype(float)
    both, labelled = present.T @ present, present.T @ manifest.labels.labelled[rows].astype(float)
    shares = np.divide(both, labelled, out=np.full_like(both, np.nan), where=labelled > 0)
    return pd.DataFrame(shares, list(manifest.findings), list(manifest.findings)).rename_axis("finding")


def findings_per_image(manifest: Manifest) -> pd.DataFrame:
    """Return how many images (and groups) have no finding known to be present, one, two, ...: a row per number.

    Images in no split, and those of which no finding is labelled, do not count.
    """
    labels = manifest.labels
    rows = (manifest.frame["split"] != "").to_numpy() & labels.labelled.any(axis=1)
    count = pd.Series(labels.present[rows].sum(axis=1), name="findings")
    group = manifest.frame["group"].to_numpy()[rows]
    counts = pd.DataFrame({"images": count.value_counts(), "groups": pd.Series(group).groupby(count).nunique()})
    return counts.reindex(range(int(count.max()) + 1 if len(count) else 0), fill_value=0).rename_axis("findings")


def remarks(manifest: Manifest) -> str:
    """Return what a reader must know before the counts: `notes`, the adapter's, missing groups, class imbalance."""
    sentences = [*notes(manifest), *manifest.facts.get("notes", ())]
    if not manifest.facts.get("names_groups", False):
        sentences.append(
            "This source names no patients: every image is a group of its own, and intervals may be too narrow."
        )
    return "\n\n".join([*sentences, balance(manifest)])


def balance(manifest: Manifest) -> str:
    """Return a sentence on the imbalance of the classes, or the prevalences of the findings, in training."""
    rows = manifest.rows(TRAIN)
    if manifest.findings:
        labels = manifest.labels.rows(rows)
        positives, labelled = labels.present.sum(axis=0), labels.labelled.sum(axis=0)
        share = positives / np.maximum(labelled, 1)
        most, least = int(share.argmax()), int(share.argmin())
        partly = f" {_uncertain(manifest)}" if (labelled < len(rows)).any() else ""
        if share[most] == share[least]:
            return f"Every finding is present in {share[most]:.1%} of its labelled training images.{partly}"
        return (
            f"{manifest.findings[most]} is the most frequent finding in training, in {share[most]:.1%} of "
            f"{labelled[most]:,} labelled images; {manifest.findings[least]} is the rarest, in {share[least]:.2%} "
            f"({positives[least]:,} of {labelled[least]:,}): always answering absent would be right in "
            f"{1 - share[least]:.1%} of them.{partly}"
        )
    counts = manifest.frame["label"].iloc[rows].value_counts()
    ratio = counts.max() / counts.min()
    if ratio < _UNEVEN:
        return f"The classes are about even: {counts.min():,} to {counts.max():,} training images each."
    return (
        f"The largest class, {counts.idxmax()}, has {ratio:.1f} times as many training images as the smallest, "
        f"{counts.idxmin()} ({counts.max():,} and {counts.min():,}): accuracy alone would hide errors in the smallest."
    )


def _uncertain(manifest: Manifest) -> str:
    """Return how labels count that are neither present nor absent, with their share of training."""
    stated = manifest.stated[manifest.rows(TRAIN)]
    missing = f"{np.isnan(stated).mean():.1%} of the labels of training images are missing, which is not absent"
    doubtful = stated == UNCERTAIN
    if not doubtful.any():
        return f"{missing}."
    ways: dict[str, list[str]] = {}
    for name, some in zip(manifest.findings, doubtful.any(axis=0), strict=True):
        if some:
            ways.setdefault(_COUNTS_AS[manifest.uncertain.get(name, "ignore")], []).append(name)
    texts = [f"{way} ({', '.join(names)})" if len(ways) > 1 else way for way, names in ways.items()]
    return f"{missing}; {doubtful.mean():.1%} are uncertain, and count as {' or as '.join(texts)}."
