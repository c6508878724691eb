"""Which classes are in which split, and what a reader must know where one is missing or mostly copies of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from scanbook.data.manifest import SPLITS, TEST, TRAIN, VALIDATION, Manifest

_MOSTLY = 0.5
"""Share of a class's images that are copies of images of other classes from which a reader is told first."""
_NAMED = 5
"""Most classes that a sentence names."""
_CONSEQUENCES = {
    VALIDATION: "the class has no threshold, and temperature, early stopping and the choice of networks do not see it",
    TEST: "no metric of all classes, such as accuracy and AUROC, is defined on test",
}


def notes(manifest: Manifest) -> tuple[str, ...]:
    """Return what a reader must know of the splits before any figure, one line each; usually nothing.

    These are classes of which most images are copies of other classes' images, and classes that a split lacks.
    """
    return tuple(manifest.facts.get("split_notes", ()))


def describe(manifest: Manifest, shared: pd.DataFrame, source: np.ndarray) -> tuple[str, ...]:
    """Return the notes of new splits: classes that are mostly copies of others, then classes that a split lacks.

    Args:
        manifest: The dataset, split.
        shared: The result of `shared_copies`.
        source: Splits of the source, (n,) names.
    """
    given = tuple(split for split in SPLITS if (source == split).any())
    labels = manifest.frame["label"]
    lacking: dict[tuple[str, ...], list[str]] = {}
    for name in manifest.classes:
        splits = tuple(split for split in (VALIDATION, TEST) if name in manifest.absent(split))
        lacking.setdefault(splits, []).append(name)
    lacking.pop((), None)
    return (
        *(_describe_copies(manifest, shared, name) for name in _mostly_copies(shared)),
        *(
            _describe_absence(manifest, splits, names, given, (labels.isin(names) & np.isin(source, splits)).any())
            for splits, names in lacking.items()
        ),
    )


def refusal(manifest: Manifest, excluded: pd.DataFrame) -> str:
    """Return why the classes cannot be learned, one of which has no training image; "" where each has one.

    Args:
        manifest: The dataset, split.
        excluded: The excluded images, as in `splits.SplitDataset`.
    """
    lacking = manifest.absent(TRAIN)
    if not lacking:
        return ""
    name = lacking[0]
    own = manifest.frame[manifest.frame["label"] == name]
    rules = excluded.loc[excluded["image_id"].isin(own["image_id"]), "reason"].astype(str).str.split(":").str[0]
    places = [f"{count} in {split}" for split, count in _counts(own["split"])]
    places += [f"{count} excluded ({rule.replace('_', ' ')})" for rule, count in rules.value_counts().items()]
    unassigned = int((own["split"] == "").sum()) - len(rules)
    places += [f"{unassigned} in no split"] if unassigned else []
    if rules.str.contains("different label").any():
        remedy = "merge the classes whose images are the same (classes in the study), or correct the labels"
    elif len(rules) and rules.isin(["unreadable"]).all():
        remedy = "replace the unreadable files, or remove the class"
    elif rules.str.startswith(("dark", "blank", "blurred", "near")).any():
        remedy = "shorten quality.drop in the study, add images of it, or remove the class"
    else:
        remedy = "add training images of it, correct the source's splits, or remove the class"
    others = f", nor of {len(lacking) - 1} other class{'es' * (len(lacking) > 2)}" if len(lacking) > 1 else ""
    return (
        f"dataset {manifest.name}: no training image of class {name!r}{others}; of its {_amount(own)}, "
        f"{', '.join(places) or 'none can be used'}; {remedy}"
    )


def why_undefined(manifest: Manifest, split: str = TEST) -> str:
    """Return why no metric of all classes is defined on a split; "" where all its classes have images."""
    names = manifest.absent(split)
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    plural = "es" if len(names) > 1 else ""
    return f"the {split} split has no image of class{plural} {', '.join(map(repr, names[:_NAMED]))}{more}"


def shared_copies(frame: pd.DataFrame, copy_group: pd.Series, split: np.ndarray) -> pd.DataFrame:
    """Count the images of each class that are byte-identical to an image of another class.

    Args:
        frame: A manifest's.
        copy_group: Number of the exact copies to which an image belongs, NaN for an image without one.
        split: Split of each image before copies were excluded, (n,) names.

    Returns:
        Index `split` and `class`, of those with such images; columns `images` of the class in the split, `copied`, and
        for each class that shares any, how many of them have a copy with its label.
    """
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
    return counts[counts["copied"] > 0]


def _mostly_copies(shared: pd.DataFrame) -> list[str]:
    """Return the classes of which half of a split's images or more are copies of images of others."""
    mostly = shared[shared["copied"] >= _MOSTLY * shared["images"]]
    return list(dict.fromkeys(mostly.index.get_level_values("class")))


def _describe_copies(manifest: Manifest, shared: pd.DataFrame, name: str) -> str:
    rows = shared.xs(name, level="class")
    counts = [f"{row['copied']} of {row['images']} in {split}" for split, row in rows.iterrows()]
    partners = rows.drop(columns=["images", "copied"]).sum()
    partners = partners[partners > 0].sort_values(ascending=False)
    left = int((manifest.frame.loc[manifest.rows(TRAIN), "label"] == name).sum())
    return (
        f"Images of class {name!r} are byte-identical to images of other classes ({', '.join(counts)}; mostly "
        f"{partners.index[0]!r}): nobody can tell which label is right. Training excludes them, and {left} of its "
        "training images remain; what is measured of the class says nothing. Merge the classes (classes in the study), "
        "or correct the labels."
    )


def _describe_absence(
    manifest: Manifest, splits: Sequence[str], names: Sequence[str], given: Sequence[str], emptied: bool
) -> str:
    used = manifest.frame[manifest.frame["split"] != ""]
    counted = []
    for name in names[:_NAMED]:
        own = used[used["label"] == name]
        places = ", ".join(f"{count} in {split}" for split, count in _counts(own["split"]))
        counted.append(f"{name!r} ({_amount(own)}: {places})")
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    if emptied:
        cause = "the source's images there are unreadable, or copies"
        remedy = f"replace them, or add other images to {_and(splits)}"
    elif set(splits) <= set(given):
        cause, remedy = "the source's splits lack it", f"add images of it to {_and(splits)}"
    elif used.loc[used["label"].isin(list(names))].groupby("label")["group"].nunique().max() < len(SPLITS):
        cause, remedy = "each split needs a patient or lesion of its own", "add images of other patients"
    else:
        cause, remedy = "patients or lesions, and copies of an image, stay in one split", "add images of other patients"
    consequences = "; ".join(_CONSEQUENCES[split] for split in splits)
    plural = "es" if len(names) > 1 else ""
    return (
        f"No image in {_and(splits)} of the class{plural} {', '.join(counted)}{more}: {cause}. So {consequences}. "
        f"{remedy[0].upper()}{remedy[1:]}, or remove the class."
    )


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
