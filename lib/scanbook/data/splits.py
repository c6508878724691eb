"""Splits into training, validation and test images: stratified by label, sharing no patient, lesion or image copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.config import Splits, Study
from scanbook.data import adapters, folds, presence, quality, spreading, stratification
from scanbook.data.counts import balance, finding_counts, image_counts, remarks
from scanbook.data.manifest import EXAM, SPLITS, TEST, TRAIN, VALIDATION, Manifest, metadata_name
from scanbook.data.presence import notes
from scanbook.errors import DataError, StudyError

__all__ = [
    "SplitDataset",
    "assign",
    "balance",
    "finding_counts",
    "image_counts",
    "notes",
    "prepare",
    "remarks",
    "split_study",
]


@dataclass(frozen=True)
class SplitDataset:
    """A dataset with its splits and the excluded images.

    Attributes:
        manifest: The dataset; the split of an excluded image is "".
        quality: The result of `quality.scan`, in the manifest's order.
        excluded: One row per excluded image: `image_id`, its `split` before the exclusion ("" if none), `reason`.
        shared: The classes that share byte-identical images, by split, as `presence.shared_copies` counts them; for
            findings, how many exact copies agree, as `presence.copy_conflicts` counts them.
    """

    manifest: Manifest
    quality: pd.DataFrame
    excluded: pd.DataFrame
    shared: pd.DataFrame


def prepare(study: Study) -> Manifest:
    """Return the study's images with their splits: all that notebooks 02 to 07 need of the dataset."""
    return split_study(study).manifest


def split_study(study: Study) -> SplitDataset:
    """Return the study's images with their splits, cleaned and limited as the study says.

    Raises:
        DataError: As `adapters.load` and `assign`, or a target, a prevalence or a subgroup of the study names no class
            or column of the dataset.
        StudyError: The study's `class_names` name a class that the dataset does not have, or findings are to be grades.
    """
    manifest = adapters.load(study)
    _check_options(study, manifest)
    drop = study.quality.drop
    near = quality.near_copies(manifest) if "near_duplicates" in drop else None
    options = {"drop": drop, "near": near, "max_per_class": study.max_per_class, "seed": study.seed}
    return assign(manifest, quality.scan(manifest), folds.one_split(study.splits, manifest), **options)


def _check_options(study: Study, manifest: Manifest) -> None:
    options = study.evaluation
    prevalence = options.prevalence
    if manifest.findings:
        if options.ordered:
            raise StudyError(
                "evaluation.ordered is true, for classes that are grades, but findings have no order: remove it"
            )
        # the stand-in, or a dataset that is partly unpacked, lacks some that the study names
        known = {*study.named_labels, *manifest.facts.get("excluded_findings", ())}
        prevalence = options.prevalence_of({*manifest.names, *(name for name in prevalence if name not in known)})
    evaluation.check_targets(manifest, options.targets, prevalence)
    for column in options.subgroups:
        evaluation.attribute(manifest.frame, metadata_name(column))
    study.names_of(manifest.names)


def assign(
    manifest: Manifest,
    scanned: pd.DataFrame,
    splits: Splits,
    *,
    drop: Sequence[str] = (),
    near: pd.DataFrame | None = None,
    max_per_class: int | None = None,
    seed: int = 0,
) -> SplitDataset:
    """Assign every decodable image to a split, or exclude it.

    Splits given by the source are kept; a missing validation split is taken from train. Where `splits` name an outer
    fold, it is test, and validation is taken from the other images; a test split of the source that is not pooled is
    excluded, and so are images of a patient who is in the fold. Otherwise fold 0 of
    `StratifiedGroupKFold(test_folds)` is test, and fold 0 of `StratifiedGroupKFold(validation_folds)` of the rest is
    validation; of findings, both are `stratification.fold`. Where folds leave a class out of a split, or the images
    labelled with or without a finding, although there are groups for it, whole groups move, as few images as possible
    (`spreading.spread`); a class of one group is in training, one of two in training and test. A training image is then
    excluded if an exact copy of it is in validation or test, or if an exact copy has a different label: present and
    absent for one finding, while one that is not labelled agrees with both. A validation image is excluded if an exact
    copy of it is in test. No test image is excluded.

    Last, training images that `drop` names are excluded, and the training images of each class are limited.

    Args:
        manifest: The dataset.
        scanned: The result of `quality.scan`, in the manifest's order.
        splits: Numbers of folds and seed of the splits that the source does not give.
        drop: Rules of `quality.flags` whose images are excluded from training, and "near_duplicates": training images
            that show nearly the same as an image in validation or test.
        near: The result of `quality.near_copies`; needed where `drop` names near-duplicates.
        max_per_class: Largest number of training images per class; a larger class keeps a random sample of its images.
            An image of several findings counts for its rarest one, and images without any are limited likewise.
        seed: Seed of that sample.

    Raises:
        DataError: A class is too small to be split, or two splits still share a group or copy.
    """
    frame = manifest.frame
    split = frame["split"].to_numpy(dtype=object, copy=True)
    unreadable = (scanned["error"] != "").to_numpy()
    log = _exclude(split, frame, unreadable, "unreadable")
    copy_group = quality.copy_groups(frame, quality.exact_copies(scanned))
    notes: tuple[str, ...] = ()
    if splits.fold is not None:
        split, out_of_folds, name = _take_fold(manifest, split, ~unreadable, copy_group, splits)
        log += out_of_folds
        note = f"Cross-validation: test is {name} here. Notebook 05 evaluates every fold."
        notes = (note if splits.fold else "No image is test here: the network learns from the images of all folds.",)
        manifest = replace(manifest, facts=manifest.facts | {"fold": name})
    split, copied = _complete(manifest, split, ~unreadable, copy_group, splits)
    log += copied
    conflicts = presence.conflicts(manifest, copy_group)
    conflicting = conflicts.any(axis=1)
    reasons = _conflict_reasons(manifest, conflicts)
    log += _exclude(split, frame, conflicting & (split == TRAIN), reasons)
    kept = (frame["split"] == TEST).to_numpy() & ~unreadable & (splits.fold is not None) & (not splits.pool)
    reasons = _drop_reasons(np.where(kept, TEST, split), frame, scanned, drop, near)
    log += _exclude(split, frame, frame["image_id"].isin(list(reasons)).to_numpy() & (split == TRAIN), reasons)
    if max_per_class is not None:
        surplus = _surplus(split, _strata(manifest, split), max_per_class, seed)
        log += _exclude(split, frame, surplus, f"over max_per_class ({max_per_class})")
    excluded = pd.DataFrame(log, columns=["image_id", "split", "reason"])
    assigned = manifest.with_frame(frame.assign(split=split))
    _check(assigned, copy_group, excluded, (TRAIN, VALIDATION) if splits.fold == 0 else SPLITS)
    former = _before_exclusion(split, frame, excluded)
    count_copies = presence.copy_conflicts if manifest.findings else presence.shared_copies
    shared = count_copies(manifest, copy_group, former)
    sentences = (*notes, *presence.describe(assigned, shared, frame["split"].to_numpy()))
    given = bool((frame["split"] == TEST).any())
    assigned = replace(assigned, facts={**assigned.facts, "split_notes": sentences, "gives_test": given})
    return SplitDataset(assigned, scanned, excluded, shared)


def _take_fold(
    manifest: Manifest, source: np.ndarray, readable: np.ndarray, copy_group: pd.Series, splits: Splits
) -> tuple[np.ndarray, list[tuple[str, str, str]], str]:
    """Make one outer fold the test split, and all other images training images.

    Args:
        manifest: The dataset.
        source: Splits of the source, "" for an unreadable image.
        readable: Which images can be decoded, bool `(n,)`.
        copy_group: As in `_complete`.
        splits: The outer folds, and the number of one.

    Returns:
        The splits, "" for an excluded image; what `_exclude` returns for each of these; and its name.

    Raises:
        DataError: As `folds.outer_folds`, or there is no fold of that number.
    """
    frame, split = manifest.frame, source.copy()
    kept = (split == TEST) & (not splits.pool)
    split[readable & ~kept] = TRAIN
    log = _exclude_copies(split, frame, copy_group, TRAIN, TEST)
    log += _exclude(split, frame, kept, "in the source's test split, which is evaluated at the end")
    if splits.fold == 0:
        return split, log, "all folds"
    parts = folds.outer_folds(manifest, np.flatnonzero(split == TRAIN), splits)
    number = splits.fold or 1
    if number > len(parts):
        raise DataError(
            f"splits.fold is {number}, and {splits.folds_by} has {len(parts)} values; expected 1 to {len(parts)}"
        )
    name, inside = parts[number - 1]
    if splits.folds_by:
        in_folds = np.isin(np.arange(len(split)), np.concatenate([rows for _, rows in parts]))
        log += _exclude(split, frame, (split == TRAIN) & ~in_folds, f"no {splits.folds_by} is recorded")
    split[inside] = TEST
    shared = frame["group"].isin(set(frame["group"].iloc[inside])).to_numpy() & (split == TRAIN)
    log += _exclude(split, frame, shared, f"its patient or lesion has images of {name}, which is test")
    return split, log, name


def _before_exclusion(split: np.ndarray, frame: pd.DataFrame, excluded: pd.DataFrame) -> np.ndarray:
    """Return the split of each image, of an excluded one that before its exclusion."""
    former = frame["image_id"].map(excluded.set_index("image_id")["split"])
    return np.where(former.notna(), former, split)


def _complete(
    manifest: Manifest, source: np.ndarray, readable: np.ndarray, copy_group: pd.Series, splits: Splits
) -> tuple[np.ndarray, list[tuple[str, str, str]]]:
    """Make the splits that the source does not give, and exclude copies across splits.

    Args:
        manifest: The dataset.
        source: Splits of the source, "" for an unreadable image.
        readable: Which images can be decoded, bool `(n,)`.
        copy_group: Number of the exact copies to which an image belongs, NaN for an image without one.
        splits: Numbers of folds and seed.

    Returns:
        The splits, "" for an excluded image; and what `_exclude` returns for each of these.
    """
    frame, split = manifest.frame, source.copy()
    places: tuple[str, ...] = ()
    rows = np.flatnonzero(readable)
    if not (split != "").any():
        split[rows] = TRAIN
        split[_fold(manifest, rows, splits.test_folds, splits.seed)] = TEST
        places = (TRAIN, TEST, VALIDATION)
    log = _exclude_copies(split, frame, copy_group, TRAIN, TEST)
    if not (split == VALIDATION).any():
        of_train = np.flatnonzero(split == TRAIN)
        if places and frame["group"].iloc[of_train].nunique() == 1:  # folds of few groups may leave one for training
            _check_groups(manifest, frame["group"].to_numpy()[rows], len(places), "split")
            groups = frame["group"].where(split == TEST)
            split[groups == groups.value_counts().sort_index().idxmin()] = VALIDATION
        else:
            few = bool(places) or splits.fold is not None
            split[_fold(manifest, of_train, splits.validation_folds, splits.seed, few)] = VALIDATION
        rows, places = (rows, places) if places else (of_train, (TRAIN, VALIDATION))
    log += _exclude_copies(split, frame, copy_group, VALIDATION, TEST)
    log += _exclude_copies(split, frame, copy_group, TRAIN, VALIDATION)
    if not places:
        return split, log
    folded = _before_exclusion(split, frame, pd.DataFrame(log, columns=["image_id", "split", "reason"]))
    excluded = folded != split
    usable = ~presence.conflicts(manifest, copy_group)[rows].any(axis=1)
    copies = copy_group.fillna(-1).to_numpy(np.int64)[rows]
    unit = spreading.units(frame["group"].to_numpy()[rows], np.where(usable, copies, -1))
    images = spreading.Images(presence.kinds(manifest)[rows], unit, usable)
    spread = spreading.spread(images, folded[rows], usable & ~excluded[rows], places)
    if spread is None:
        return split, log
    folded[rows] = spread
    pairs = ((TRAIN, TEST), (VALIDATION, TEST), (TRAIN, VALIDATION))
    return folded, [entry for pair in pairs for entry in _exclude_copies(folded, frame, copy_group, *pair)]


def _exclude(
    split: np.ndarray, frame: pd.DataFrame, mask: np.ndarray, reason: str | dict[str, str]
) -> list[tuple[str, str, str]]:
    """Exclude the images where `mask` is true, with one reason for all or one per image id.

    Returns:
        Id, split before the exclusion and reason of each excluded image.
    """
    ids, former = frame.loc[mask, "image_id"], split[mask]
    split[mask] = ""
    reasons = ids.map(reason) if isinstance(reason, dict) else [reason] * len(ids)
    return list(zip(ids, former, reasons, strict=True))


def _conflict_reasons(manifest: Manifest, conflicts: np.ndarray) -> str | dict[str, str]:
    """Return why images with conflicting copies are excluded; of findings, by image, with the findings named."""
    reason, names = "its exact copy has a different label", np.array(manifest.names, object)
    if not manifest.findings:
        return reason
    ids, rows = manifest.frame["image_id"], np.flatnonzero(conflicts.any(axis=1))
    return {ids.iloc[row]: f"{reason}: {', '.join(names[conflicts[row]])}" for row in rows}


def _exclude_copies(
    split: np.ndarray, frame: pd.DataFrame, copy_group: pd.Series, source: str, other: str
) -> list[tuple[str, str, str]]:
    """Exclude the images of one split whose exact copy is in the other."""
    shared = set(copy_group[split == other].dropna())
    mask = (split == source) & copy_group.isin(shared).to_numpy()
    return _exclude(split, frame, mask, f"its exact copy is in {other}")


def _drop_reasons(
    split: np.ndarray, frame: pd.DataFrame, scanned: pd.DataFrame, drop: Sequence[str], near: pd.DataFrame | None
) -> dict[str, str]:
    """Return the reason for each image that a rule of `drop` matches; if several match, the first gives it."""
    reasons: dict[str, str] = {}
    # The limits come from training images: validation and test must not decide which training images stay.
    flagged = quality.flags(scanned, split == TRAIN) if set(drop) - {"near_duplicates"} else None
    for rule in drop:
        if rule == "near_duplicates":
            if near is None:
                raise DataError("near-duplicates are to be dropped, but none were computed; pass near=near_copies()")
            split_of = dict(zip(frame["image_id"], split, strict=True))
            for pair in near[["image_id", "other"]].itertuples(index=False):
                for image, copy in (pair, pair[::-1]):
                    if split_of[image] == TRAIN and split_of[copy] in (VALIDATION, TEST):
                        reason = f"near_duplicates: nearly identical to {copy} in {split_of[copy]}"
                        reasons.setdefault(image, reason)
        else:
            for row in flagged[flagged["rule"] == rule].itertuples():
                reasons.setdefault(row.image_id, f"{rule}: {row.reason}")
    return reasons


def _surplus(split: np.ndarray, labels: pd.Series, limit: int, seed: int) -> np.ndarray:
    """Return which training images exceed `limit` in their class, in a random order, bool `(n,)`."""
    order = np.random.default_rng(seed).permutation(len(split))
    order = order[split[order] == TRAIN]
    shuffled = labels.iloc[order]
    position = shuffled.groupby(shuffled).cumcount().to_numpy()
    return np.isin(np.arange(len(split)), order[position >= limit])


def _strata(manifest: Manifest, split: np.ndarray) -> pd.Series:
    """Return what `max_per_class` limits: the class of each image, or its rarest finding in training; "" for none."""
    if not manifest.findings:
        return manifest.frame["label"]
    values = np.where((split == TRAIN)[:, None], manifest.labels.values, np.nan)
    names = np.array([*manifest.findings, ""], object)
    return pd.Series(names[stratification.rarest(values)], manifest.frame.index)


def _fold(manifest: Manifest, rows: np.ndarray, count: int, seed: int, few: bool = False) -> np.ndarray:
    """Return the rows of fold 0, stratified by class, with whole groups; `few` allows a class fewer rows than folds."""
    groups = manifest.frame["group"].to_numpy()[rows]
    if manifest.findings:
        count = min(count, len(set(groups))) if few else count
        _check_groups(manifest, groups, 2 if few else count)
        return rows[stratification.fold(manifest.labels.values[rows], groups, count, seed)]
    y = manifest.y[rows]
    counts = np.bincount(y, minlength=len(manifest.classes))
    # a class without any image is refused later, where all its images are counted
    smallest = int(np.argmin(np.where(counts > 0, counts, len(y) + 1)))
    needed = 2 if few else count
    count = min(count, len(set(groups)), int(counts.max(initial=0))) if few else count
    if (counts.max(initial=0) if few else counts[smallest]) < needed:
        raise DataError(
            f"dataset {manifest.name}: class {manifest.classes[smallest]!r} has {counts[smallest]} images to split; "
            f"expected at least {needed}, one per fold; add images, or lower the folds of splits in the study"
        )
    _check_groups(manifest, groups, needed)
    return rows[folds.class_folds(y, groups, count, seed)[0][1]]


def _check_groups(manifest: Manifest, groups: np.ndarray, needed: int, part: str = "fold") -> None:
    unique = len(set(groups))
    if unique < needed:
        advice = "lower the folds of splits in the study" if part == "fold" else "add images of further groups"
        raise DataError(
            f"dataset {manifest.name}: its images come in {unique} groups (patients or lesions); expected at least "
            f"{needed}, one per {part}; correct the source's groups, or {advice}"
        )


def _check(manifest: Manifest, copy_group: pd.Series, excluded: pd.DataFrame, needed: Sequence[str]) -> None:
    """Raise a `DataError` where a split is empty, training lacks a class, or splits share a group or an exact copy."""
    used = manifest.frame[manifest.frame["split"] != ""]
    for split in needed:
        if not (used["split"] == split).any():
            raise DataError(
                f"dataset {manifest.name}: the {split} split is empty; add images, or correct splits in the study"
            )
    if reason := presence.refusal(manifest, excluded):
        raise DataError(reason)
    keys_of = {"a group": used["group"], "an exact copy": copy_group[used.index]}
    if manifest.has_exams:
        keys_of["an exam"] = used[EXAM]
    for name, keys in keys_of.items():
        shared = used["split"].groupby(keys).nunique()
        if (shared > 1).any():
            rows = used[keys == shared.index[shared > 1][0]]
            raise DataError(
                f"dataset {manifest.name}: {', '.join(sorted(rows['split'].unique()))} share {name} "
                f"({', '.join(rows['image_id'].head(3))}); correct the source's splits or its group column"
            )
