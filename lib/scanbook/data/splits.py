"""Parts: stratified by class, never sharing a patient or lesion, never sharing a copy of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from scanbook.config import Splits, Study
from scanbook.data import adapters, quality
from scanbook.data.manifest import SPLITS, TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import DataError
from scanbook.evaluation import group_folds

_Log = list[tuple[str, str, str]]


@dataclass(frozen=True)
class Split:
    """A dataset with its parts, and how they came about.

    Attributes:
        manifest: The dataset; images that are in no part have part "".
        quality: What `quality.scan` found, in the manifest's order.
        excluded: Images in no part, or moved out of one: columns `image_id`, `part` that it left and `why`.
    """

    manifest: Manifest
    quality: pd.DataFrame
    excluded: pd.DataFrame


def prepare(study: Study) -> Manifest:
    """The study's images with their parts, all that the notebooks after the first need."""
    return make(study).manifest


def make(study: Study) -> Split:
    """The study's images with their parts, cleaned and capped as the study says."""
    manifest = adapters.load(study)
    drop = study.quality.drop
    near = quality.near_copies(manifest) if "near_duplicates" in drop else None
    options = {"drop": drop, "near": near, "max_per_class": study.max_per_class, "seed": study.seed}
    return assign(manifest, quality.scan(manifest), study.splits, **options)


def assign(
    manifest: Manifest,
    scanned: pd.DataFrame,
    splits: Splits,
    *,
    drop: Sequence[str] = (),
    near: pd.DataFrame | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
) -> Split:
    """Gives every decodable image a part.

    Parts given by the source are kept; a missing validation part is carved from train. Elsewhere fold 0 of
    `StratifiedGroupKFold(test_folds)` is test and fold 0 of `StratifiedGroupKFold(validation_folds)` of the rest is
    validation. Then an image leaves train when its exact copy is in validation or test, or is labelled otherwise, and
    leaves validation when its exact copy is in test. Test never changes.

    Last, training is cleaned and capped; validation and test stay as they are.

    Args:
        manifest: The dataset.
        scanned: What `quality.scan` found, in the manifest's order.
        splits: Folds of the parts that the source does not give.
        drop: Rules of `quality.flags` whose images leave training, and "near_duplicates": training images that show
            nearly the same as one in validation or test leave.
        near: What `quality.near_copies` found; needed where `drop` names near-duplicates.
        max_per_class: Most training images of a class; which stay is drawn.
        seed: Of that draw.

    Raises:
        DataError: A class is too small to be split, or a group or copy is still shared between parts.
    """
    frame = manifest.frame.copy()
    log: _Log = []
    broken = (scanned["error"] != "").to_numpy()
    log += [(row.image_id, row.split, "unreadable") for row in frame[broken].itertuples()]
    copies = quality.exact_copies(scanned).set_index("image_id")["copy_group"]
    copy_group = frame["image_id"].map(copies)
    split = np.where(broken, "", frame["split"].to_numpy(dtype=object))
    usable = ~broken
    if not (split != "").any():
        split[usable] = TRAIN
        split[_fold(manifest, np.flatnonzero(usable), splits.test_folds, splits.seed)] = TEST
    log += _leave(split, frame, copy_group, TRAIN, TEST)
    if not (split == VALIDATION).any():
        split[_fold(manifest, np.flatnonzero(split == TRAIN), splits.validation_folds, splits.seed)] = VALIDATION
    log += _leave(split, frame, copy_group, VALIDATION, TEST)
    log += _leave(split, frame, copy_group, TRAIN, VALIDATION)
    labels = frame["label"].groupby(copy_group).transform("nunique")
    conflicting = (labels > 1).to_numpy() & (split == TRAIN)
    log += [(name, TRAIN, "its exact copy is labelled otherwise") for name in frame.loc[conflicting, "image_id"]]
    split[conflicting] = ""
    log += _drop(split, frame, _causes(split, frame, scanned, drop, near))
    if max_per_class is not None:
        log += _cap(split, frame, max_per_class, seed)
    frame["split"] = split
    result = Split(manifest.with_frame(frame), scanned, pd.DataFrame(log, columns=["image_id", "split", "why"]))
    check(result.manifest, copy_group)
    return result


def _leave(split: np.ndarray, frame: pd.DataFrame, copy_group: pd.Series, leaving: str, stays: str) -> _Log:
    """Takes the images out of one part whose exact copy is in the other."""
    shared = set(copy_group[split == stays].dropna())
    gone = (split == leaving) & copy_group.isin(shared).to_numpy()
    split[gone] = ""
    return [(name, leaving, f"its exact copy is in {stays}") for name in frame.loc[gone, "image_id"]]


def _causes(
    split: np.ndarray, frame: pd.DataFrame, scanned: pd.DataFrame, drop: Sequence[str], near: pd.DataFrame | None
) -> dict[str, str]:
    """Images that a rule of `drop` catches, and why; of several rules the first named says."""
    causes: dict[str, str] = {}
    # limits come from training alone: validation and test must not decide which training images stay
    flagged = quality.flags(scanned, split == TRAIN) if set(drop) - {"near_duplicates"} else None
    for rule in drop:
        if rule == "near_duplicates":
            if near is None:
                raise DataError("near-duplicates are to be dropped, but none were looked for; pass near=near_copies()")
            at = dict(zip(frame["image_id"], split, strict=True))
            for one, other in near[["image_id", "other"]].itertuples(index=False):
                for leaving, stays in ((one, other), (other, one)):
                    if at[leaving] == TRAIN and at[stays] in (VALIDATION, TEST):
                        causes.setdefault(leaving, f"near_duplicates: shows nearly the same as {stays} in {at[stays]}")
        else:
            caught = flagged[flagged["rule"] == rule]
            for name, why in zip(caught["image_id"], caught["why"], strict=True):
                causes.setdefault(name, f"{rule}: {why}")
    return causes


def _drop(split: np.ndarray, frame: pd.DataFrame, causes: dict[str, str]) -> _Log:
    """Takes images out of training."""
    gone = frame["image_id"].isin(causes.keys()).to_numpy() & (split == TRAIN)
    split[gone] = ""
    return [(name, TRAIN, causes[name]) for name in frame.loc[gone, "image_id"]]


def _cap(split: np.ndarray, frame: pd.DataFrame, most: int, seed: int) -> _Log:
    """Takes images out of training until no class has more than `most`."""
    mixed = np.random.default_rng(seed).permutation(len(frame))
    mixed = mixed[split[mixed] == TRAIN]
    place = frame["label"].iloc[mixed].groupby(frame["label"].iloc[mixed]).cumcount().to_numpy()
    gone = np.sort(mixed[place >= most])
    split[gone] = ""
    return [(name, TRAIN, f"over max_per_class ({most})") for name in frame["image_id"].iloc[gone]]


def _fold(manifest: Manifest, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Rows of fold 0, stratified by class and whole by group."""
    y, groups = manifest.y[rows], manifest.frame["group"].to_numpy()[rows]
    counts = np.bincount(y, minlength=len(manifest.classes))
    if counts.min() < folds:
        name = manifest.classes[int(counts.argmin())]
        raise DataError(
            f"dataset {manifest.name}: class {name!r} has {counts.min()} images left to split; "
            f"expected at least {folds}, one a fold; add images, or lower the folds of parts in the study"
        )
    if len(set(groups)) < folds:
        raise DataError(
            f"dataset {manifest.name}: its images come in {len(set(groups))} groups (patients or lesions); expected at "
            f"least {folds}, one a fold; correct the source's groups, or lower the folds of parts in the study"
        )
    if len(set(groups)) == len(groups):
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, y)
    else:
        splits = group_folds(y, groups, folds, seed)
    return rows[next(splits)[1]]


def check(manifest: Manifest, copy_group: pd.Series) -> None:
    """Makes sure that the parts are honest.

    Raises:
        DataError: A part is empty, training lacks a class, or parts share a group or an exact copy.
    """
    frame = manifest.frame
    used = frame[frame["split"] != ""]
    for split in SPLITS:
        if not (used["split"] == split).any():
            raise DataError(
                f"dataset {manifest.name}: the {split} part is empty; add images, or correct parts in the study"
            )
    lacking = set(manifest.classes) - set(used.loc[used["split"] == TRAIN, "label"])
    if lacking:
        raise DataError(
            f"dataset {manifest.name}: no training image of class {min(lacking)!r}; "
            "add images of it or remove the class"
        )
    for name, keys in (("group", used["group"]), ("exact copy", copy_group[used.index])):
        shared = used["split"].groupby(keys).nunique()
        if (shared > 1).any():
            key = shared.index[shared > 1][0]
            where = ", ".join(sorted(used.loc[keys == key, "split"].unique()))
            ids = ", ".join(used.loc[keys == key, "image_id"].head(3))
            raise DataError(
                f"dataset {manifest.name}: {where} share a {name} ({ids}); "
                "correct the source's parts or its group column"
            )


def table(manifest: Manifest) -> pd.DataFrame:
    """Images by class (rows, in class order) and part, with totals and the number of groups in each part."""
    frame = manifest.frame[manifest.frame["split"] != ""]
    counts = pd.crosstab(frame["label"], frame["split"]).reindex(
        index=list(manifest.classes), columns=list(SPLITS), fill_value=0
    )
    counts["all"] = counts.sum(axis=1)
    counts.loc["all"] = counts.sum()
    groups = frame.groupby("split")["group"].nunique().reindex(list(SPLITS), fill_value=0)
    counts.loc["groups"] = [*groups, frame["group"].nunique()]
    return counts.rename_axis(index="class", columns=None)


def remarks(manifest: Manifest) -> str:
    """What has to be said of a dataset before its counts: the adapter's notes, missing groups, uneven classes."""
    said = [*manifest.facts.get("notes", ())]
    if not manifest.facts.get("grouped", False):
        said.append(
            "This source names no patients: every image is a group of its own, and intervals may be too narrow."
        )
    return "\n\n".join([*said, balance(manifest)])


def balance(manifest: Manifest) -> str:
    """How uneven the classes of the training part are, in a sentence."""
    counts = manifest.frame.loc[manifest.rows(TRAIN), "label"].value_counts()
    ratio = counts.max() / counts.min()
    if ratio < 1.5:
        return f"The classes are about even: {counts.min():,} to {counts.max():,} training images each."
    return (
        f"The largest class, {counts.idxmax()}, has {ratio:.1f} times as many training images as the smallest, "
        f"{counts.idxmin()} ({counts.max():,} and {counts.min():,}): accuracy alone would hide the smallest."
    )
