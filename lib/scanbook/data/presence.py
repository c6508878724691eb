"""Which labels are in which split, and what a reader must know where one is missing or contradicted by copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scanbook.data.manifest import SPLITS, TEST, TRAIN, UNCERTAIN, VALIDATION, Manifest

_MOSTLY = 0.5
"""Share of a class's images that are copies of images of other classes from which a reader is told first."""
_NAMED = 5
"""Most classes that a sentence names."""
_CONSEQUENCES = {
    VALIDATION: "the class has no threshold, and temperature, early stopping and the choice of networks do not see it",
    TEST: "no metric of all classes, such as accuracy and AUROC, is defined on test",
}
_OF_FINDINGS = {
    VALIDATION: "it has no threshold and no calibration, and the choice of networks does not see it",
    TEST: "its AUROC is not defined on test, and means are over the other findings",
}


def notes(manifest: Manifest) -> tuple[str, ...]:
    """Return what a reader must know of the splits before any figure, one line each; usually nothing.

    These are classes of which most images are copies of other classes' images, and classes that a split lacks; findings
    of which most images have a copy without them, and findings never present, or never absent, in a split.
    """
    return tuple(manifest.facts.get("split_notes", ()))


def kinds(manifest: Manifest) -> np.ndarray:
    """Return what each image shows, of which every split needs some, bool: its class, `(n, k)`; or its findings.

    Of findings it is `(n, 2k)`: which are present, then which are absent.
    """
    present = manifest.labels.present
    return present if manifest.classes else np.concatenate([present, manifest.labels.values == 0], axis=1)


def conflicts(manifest: Manifest, copy_group: pd.Series) -> np.ndarray:
    """Return whether an exact copy of each image has another label, bool `(n, 1)` of classes, `(n, k)` of findings.

    Args:
        manifest: The dataset.
        copy_group: Number of the exact copies to which an image belongs, NaN for an image without one.
    """
    if manifest.classes:
        return (manifest.frame["label"].groupby(copy_group).transform("nunique") > 1).to_numpy()[:, None]
    copied, table = copy_group.notna().to_numpy(), np.zeros(manifest.labels.values.shape, bool)
    if copied.any():
        values = pd.DataFrame(manifest.labels.values[copied]).groupby(copy_group[copied].to_numpy())
        table[copied] = values.transform("max") > values.transform("min")  # NaN, not labelled, agrees with both
    return table


def copy_conflicts(manifest: Manifest, copy_group: pd.Series, split: np.ndarray) -> pd.DataFrame:
    """Count the groups of byte-identical images whose labels agree or conflict, for each finding.

    Args:
        manifest: A dataset of findings.
        copy_group: As in `conflicts`.
        split: Split of each image before copies were excluded, (n,) names.

    Returns:
        One row per finding; none where no image has a copy. `compared` groups, in which two images or more are
        labelled; `agree: present`, `agree: absent` and `conflict` of these; and the images in conflict, by split.
    """
    copied = copy_group.notna().to_numpy()
    columns = ["compared", "agree: present", "agree: absent", "conflict"]
    columns += [f"images in conflict: {name}" for name in SPLITS]
    if not copied.any():
        return pd.DataFrame(columns=columns).rename_axis("finding")
    values = pd.DataFrame(manifest.labels.values[copied], columns=list(manifest.findings))
    groups = values.groupby(copy_group[copied].to_numpy())
    compared, most, least = groups.count() > 1, groups.max(), groups.min()
    conflicting = conflicts(manifest, copy_group)
    counts = [compared, compared & (least == 1), compared & (most == 0), compared & (most > least)]
    table = [count.sum() for count in counts]
    table += [pd.Series(conflicting[np.asarray(split) == name].sum(axis=0), manifest.findings) for name in SPLITS]
    return pd.concat(table, axis=1).set_axis(columns, axis=1).rename_axis("finding")


def describe(manifest: Manifest, shared: pd.DataFrame, source: np.ndarray) -> tuple[str, ...]:
    """Return the notes of new splits: labels that most copies contradict, then labels that a split lacks.

    Args:
        manifest: The dataset, split.
        shared: The result of `shared_copies`, or of `copy_conflicts`.
        source: Splits of the source, (n,) names.
    """
    given = tuple(split for split in SPLITS if (source == split).any())
    copies = _describe_conflicts(shared) if manifest.findings else _describe_copies(manifest, shared)
    every = kinds(manifest)
    rows = {split: manifest.rows(split) for split in (VALIDATION, TEST)}
    held = {split: every[own].any(axis=0) for split, own in rows.items() if len(own)}
    lacking: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
    for kind in range(every.shape[1]):
        splits = tuple(split for split, present in held.items() if not present[kind])
        lacking.setdefault((kind >= len(manifest.names), splits), []).append(kind)
    absence = []
    for (_, splits), lacked in lacking.items():
        if splits:
            emptied = (every[:, lacked].any(axis=1) & np.isin(source, splits)).any()
            absence.append(_describe_absence(manifest, splits, lacked, given, emptied))
    return (*copies, *absence)


def refusal(manifest: Manifest, excluded: pd.DataFrame) -> str:
    """Return why the labels cannot be learned, since training lacks images of a class or finding; "" where it has all.

    Args:
        manifest: The dataset, split.
        excluded: The excluded images, as in `splits.SplitDataset`.
    """
    every = kinds(manifest)
    lacking = np.flatnonzero(~every[manifest.rows(TRAIN)].any(axis=0))
    if not len(lacking):
        return ""
    own = manifest.frame[every[:, lacking[0]]]
    if manifest.findings and own.empty:
        return _never(manifest, int(lacking[0]))
    rules = excluded.loc[excluded["image_id"].isin(own["image_id"]), "reason"].astype(str).str.split(":").str[0]
    places = [f"{count} in {split}" for split, count in _counts(own["split"])]
    places += [f"{count} excluded ({rule.replace('_', ' ')})" for rule, count in rules.value_counts().items()]
    unassigned = int((own["split"] == "").sum()) - len(rules)
    places += [f"{unassigned} in no split"] if unassigned else []
    what = "finding" if manifest.findings else "class"
    if rules.str.contains("different label").any():
        merge = "" if manifest.findings else "merge the classes whose images are the same (classes in the study), or "
        remedy = f"{merge}correct the labels"
    elif len(rules) and rules.isin(["unreadable"]).all():
        remedy = f"replace the unreadable files, or remove the {what}"
    elif rules.str.startswith(("dark", "blank", "blurred", "near", "label")).any():
        remedy = f"shorten quality.drop in the study, add images of it, or remove the {what}"
    else:
        remedy = f"add training images {'like these' if manifest.findings else 'of it'}, correct the source's splits, "
        remedy += f"or remove the {what}"
    plural = {"class": "classes", "finding": "findings"}[what] if len(lacking) > 2 else what
    others = f", nor of {len(lacking) - 1} other {plural}" if len(lacking) > 1 else ""
    return (
        f"dataset {manifest.name}: no training image {_of(manifest, int(lacking[0]))}{others}; of its {_amount(own)}, "
        f"{', '.join(places) or 'none can be used'}; {remedy}"
    )


def _never(manifest: Manifest, kind: int) -> str:
    """Return why a finding cannot be learned that no image has, or that no image is labelled as without."""
    name = manifest.findings[kind % len(manifest.findings)]
    count = int((manifest.stated[:, manifest.findings.index(name)] == UNCERTAIN).sum())
    ignored = count and manifest.uncertain.get(name, "ignore") == "ignore"
    remedy = "remove the finding"
    if ignored:
        remedy = f"{count} uncertain labels are ignored: say in the study how they count (uncertain), or {remedy}"
    return f"dataset {manifest.name}: no image is labelled {_of(manifest, kind)}; {remedy}"


def why_undefined(manifest: Manifest, split: str = TEST) -> str:
    """Return why no metric of all classes is defined on a split; "" where all its classes have images.

    The means of findings are over those that are defined: they are undefined where none is.
    """
    names = manifest.absent(split)
    if not names or (manifest.findings and len(names) < len(manifest.findings)):
        return ""
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    named = ", ".join(map(repr, names[:_NAMED])) + more
    if manifest.findings:
        return f"no finding is both present and absent on the {split} split ({named})"
    return f"the {split} split has no image of class{'es' if len(names) > 1 else ''} {named}"


def references(manifest: Manifest, split: str = TEST) -> pd.DataFrame:
    """Return what to compare a model of findings with, by finding.

    Returns:
        Index `finding`; `prevalence` among the labelled images of the split, which is the area under the
        precision-recall curve of chance, NaN where none is labelled; images `with` and `without`, and the groups behind
        those with it; and `best AUROC` where the highest possible one is known (`facts["bayes_auroc"]`).
    """
    rows = manifest.rows(split)
    labels, group = manifest.labels.rows(rows), pd.factorize(manifest.frame["group"].iloc[rows])[0]
    present, labelled = labels.present.sum(axis=0), labels.labelled.sum(axis=0)
    table = pd.DataFrame(index=pd.Index(manifest.findings, name="finding"))
    table["prevalence"] = np.where(labelled > 0, present / np.maximum(labelled, 1), np.nan)
    table["with"], table["without"] = present, labelled - present
    table["groups with"] = [len(np.unique(group[own])) for own in labels.present.T]
    if best := manifest.facts.get("bayes_auroc"):
        table["best AUROC"] = pd.Series(best, dtype=float).reindex(table.index)
    return table


def shared_copies(manifest: Manifest, copy_group: pd.Series, split: np.ndarray) -> pd.DataFrame:
    """Count the images of each class that are byte-identical to an image of another class.

    Args:
        manifest: A dataset of classes.
        copy_group: As in `conflicts`.
        split: Split of each image before copies were excluded, (n,) names.

    Returns:
        Index `class`, of those with such images; columns `split`, `images` of the class in the split, `copied`, and for
        each class that shares any, how many of them have a copy with its label.
    """
    frame = manifest.frame
    labels = frame["label"].groupby(copy_group).agg(frozenset)
    others = copy_group.map(labels[labels.map(len) > 1])
    table = pd.DataFrame(
        {"split": np.asarray(split, object), "class": frame["label"], "images": 1, "copied": others.notna().astype(int)}
    )
    names = [name for name in frame["label"].unique() if others.dropna().map(lambda own, name=name: name in own).any()]
    for name in sorted(names):
        in_other = others.map(lambda own, name=name: isinstance(own, frozenset) and name in own)
        table[name] = (in_other & (frame["label"] != name)).astype(int)
    table = table[table["split"].isin(SPLITS)]
    table = table.assign(split=pd.Categorical(table["split"], SPLITS, ordered=True))
    counts = table.groupby(["split", "class"], observed=True).sum()
    return counts[counts["copied"] > 0].reset_index().set_index("class")


def copied_classes(manifest: Manifest, copy_group: pd.Series) -> pd.DataFrame:
    """Count the images of each class that are byte-identical to an image of each other class, in whatever split.

    Args:
        manifest: A dataset of classes.
        copy_group: As in `conflicts`.

    Returns:
        Index `class` and one column per class, of those that share images; the diagonal is 0.
    """
    conflicting = conflicts(manifest, copy_group).any(axis=1)
    own = pd.DataFrame({"label": manifest.frame["label"][conflicting], "copies": copy_group[conflicting]})
    pairs = own.merge(own.drop_duplicates(), on="copies", suffixes=("", " of the copy"))
    pairs = pairs[pairs["label"] != pairs["label of the copy"]]
    names = [name for name in manifest.classes if name in set(own["label"])]
    table = pd.crosstab(pairs["label"], pairs["label of the copy"]).reindex(index=names, columns=names, fill_value=0)
    return table.rename_axis(index="class", columns=None)


def _describe_copies(manifest: Manifest, shared: pd.DataFrame) -> list[str]:
    """Return a sentence on each class of which half of a split's images or more are copies of images of others."""
    sentences = []
    for name in shared.index[shared["copied"] >= _MOSTLY * shared["images"]].unique():
        rows = shared.loc[[name]]
        counts = [f"{row['copied']} of {row['images']} in {row['split']}" for _, row in rows.iterrows()]
        partners = rows.drop(columns=["split", "images", "copied"]).sum()
        left = int((manifest.frame.loc[manifest.rows(TRAIN), "label"] == name).sum())
        sentences.append(
            f"Images of class {name!r} are byte-identical to images of other classes ({', '.join(counts)}; mostly "
            f"{partners.idxmax()!r}): nobody can tell which label is right. Training excludes them, and {left} of its "
            "training images remain; what is measured of the class says nothing. Merge the classes (classes in the "
            "study), or correct the labels."
        )
    return sentences


def _describe_conflicts(shared: pd.DataFrame) -> list[str]:
    """Return a sentence on each finding on which more than half of its groups of copies disagree."""
    return [
        f"{row['conflict']} of {row['compared']} groups of byte-identical images are labelled both with and without "
        f"{name!r}: nobody can tell which label is right. Training excludes them. Correct the labels, or remove the "
        "finding."
        for name, row in shared[shared["conflict"] > _MOSTLY * shared["compared"]].iterrows()
    ]


def _describe_absence(
    manifest: Manifest, splits: Sequence[str], lacked: Sequence[int], given: Sequence[str], emptied: bool
) -> str:
    every = kinds(manifest)
    used = (manifest.frame["split"] != "").to_numpy()
    counted, groups = [], []
    for kind in lacked:
        own = manifest.frame[used & every[:, kind]]
        places = ", ".join(f"{count} in {split}" for split, count in _counts(own["split"]))
        counted.append(f"{manifest.names[kind % len(manifest.names)]!r} ({_amount(own)}: {places})")
        groups.append(own["group"].nunique())
    more = f" and {len(lacked) - _NAMED} others" if len(lacked) > _NAMED else ""
    add = "add images of other patients"
    if emptied:
        cause = "the source's images there are unreadable, or copies"
        add = f"replace them, or add other images to {_and(splits)}"
    elif set(splits) <= set(given):
        like = "like these" if manifest.findings else "of it"
        cause, add = "the source's splits lack it", f"add images {like} to {_and(splits)}"
    elif max(groups) < len(SPLITS):
        cause = "each split needs a patient or lesion of its own"
    else:
        cause = "patients or lesions, and copies of an image, stay in one split"
    of_findings = bool(manifest.findings)
    singular, several = ("finding", "findings") if of_findings else ("class", "classes")
    side = "without" if lacked[0] >= len(manifest.names) else "with"
    what = f"{f'labelled {side}' if of_findings else 'of'} the {several if len(lacked) > 1 else singular}"
    texts = _OF_FINDINGS if of_findings else _CONSEQUENCES
    consequences = "; ".join(texts[split] for split in splits)
    return (
        f"No image in {_and(splits)} {what} {', '.join(counted[:_NAMED])}{more}: {cause}. So {consequences}. "
        f"{add[0].upper()}{add[1:]}, or remove the {singular}."
    )


def _of(manifest: Manifest, kind: int) -> str:
    """Return which images a column of `kinds` is about: "of class 'x'", "with finding 'y'", "without finding 'y'"."""
    if manifest.classes:
        return f"of class {manifest.classes[kind]!r}"
    side = "without" if kind >= len(manifest.findings) else "with"
    return f"{side} finding {manifest.findings[kind % len(manifest.findings)]!r}"


def _counts(split: pd.Series) -> list[tuple[str, int]]:
    """Return the splits that hold images, and how many."""
    return [(place, int((split == place).sum())) for place in SPLITS if (split == place).any()]


def _amount(own: pd.DataFrame) -> str:
    """Return how many images, and of how many patients: "20 images of 1 patient or lesion"."""
    images, groups = len(own), own["group"].nunique()
    text = f"{images} image{'s' if images != 1 else ''}"
    if (own["group"] == own["image_id"]).all():
        return text
    return f"{text} of {groups} {'patient or lesion' if groups == 1 else 'patients or lesions'}"


def _and(names: Iterable[str]) -> str:
    return " and ".join(names)
