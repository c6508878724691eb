"""Outer folds of cross-validation: each in turn is the test split, and no patient or lesion is in two of them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from scanbook import evaluation
from scanbook.config import Splits, Study
from scanbook.data import adapters, stratification
from scanbook.data.manifest import TEST, Manifest, metadata_name
from scanbook.errors import DataError

FEW_IMAGES = 1000
"""Labelled images below which folds are proposed: one test split of so few has a wide interval."""
_PROPOSED = 5


def propose_folds(manifest: Manifest) -> str:
    """Return the line of a study that cross-validates a dataset, with 5 folds or as many as its smallest class allows.

    It is empty for 1,000 labelled images or more, and where a class has too few patients for two folds.
    """
    labelled = manifest.with_frame(manifest.frame[~np.isnan(manifest.labels.values).all(axis=1)])
    count = count_folds(labelled, Splits())
    if len(labelled.frame) >= FEW_IMAGES or count < 2:
        return ""
    pool = ", pool: true" if (labelled.frame["split"] == TEST).any() else ""
    return f"splits: {{folds: {count}{pool}}}"


def count_folds(manifest: Manifest, splits: Splits) -> int:
    """Return how many folds the images would be divided into; where none are stated, how many are possible, up to 5.

    Args:
        manifest: The images that are divided.
        splits: The number of folds, or the column that states them.

    Raises:
        DataError: As `column_values`, where a column states the folds.
    """
    if splits.cross_validated:
        return splits.folds or len(column_values(manifest, splits))
    frame = manifest.frame
    groups = frame.groupby("label")["group"].nunique().min() if manifest.classes else frame["group"].nunique()
    return min(_PROPOSED, int(groups))


def fold_studies(study: Study) -> list[Study]:
    """Return one study for each outer fold, in which that fold is the test split; the study itself without folds.

    Raises:
        DataError: As `column_values`, where a column states the folds.
    """
    splits = study.splits
    if not splits.cross_validated or splits.fold is not None:
        return [study]
    count = splits.repeats * (splits.folds or len(column_values(_divided(adapters.load(study), splits), splits)))
    numbered = [splits.model_copy(update={"fold": number}) for number in range(1, count + 1)]
    return [study.model_copy(update={"splits": fold}) for fold in numbered]


def _divided(manifest: Manifest, splits: Splits) -> Manifest:
    """Return the images that are divided into folds: all, or those that are not in a test split of the source."""
    return manifest if splits.pool else manifest.with_frame(manifest.frame[manifest.frame["split"] != TEST])


def one_split(splits: Splits, manifest: Manifest) -> Splits:
    """Return the splits of a page that is not of all folds: those of the source's test images, or of the first fold."""
    if not splits.cross_validated or splits.fold is not None:
        return splits
    if not splits.pool and (manifest.frame["split"] == TEST).any():
        return splits.model_copy(update={"folds": None, "folds_by": "", "repeats": 1})
    return splits.model_copy(update={"fold": 1})


def study_of_all_images(study: Study) -> Study:
    """Return the study of the network that learns from the images of all folds; a kept test split stays test."""
    splits = one_split(study.splits, adapters.load(study))
    return study.model_copy(update={"splits": splits.model_copy(update={"fold": 0}) if splits.fold else splits})


def keeps_test(study: Study) -> bool:
    """Return whether the study has folds, and its source a test split that is in none of them."""
    return study.splits.cross_validated and one_split(study.splits, adapters.load(study)).fold is None


def outer_folds(manifest: Manifest, rows: np.ndarray, splits: Splits) -> list[tuple[str, np.ndarray]]:
    """Return the outer folds, stratified by class or finding, or one for each value of a column.

    Args:
        manifest: The dataset.
        rows: Rows that are divided, int `(m,)`.
        splits: Their number, repeats and seed, or the column.

    Returns:
        What each fold is called, and its rows, int; those of every repeat in turn. Where a column states the folds,
        rows without a value are in none.

    Raises:
        DataError: A class, or the dataset, has fewer groups than folds; the column is not there, or has one value.
    """
    if splits.folds_by:
        divided = manifest.with_frame(manifest.frame.iloc[rows])
        values, texts = column_values(divided, splits), _texts(divided.frame[metadata_name(splits.folds_by)])
        return [(f"{splits.folds_by} {value}", rows[(texts == value).to_numpy()]) for value in values]
    count = splits.folds or 1
    _check_smallest(manifest, rows, count)
    folds = []
    for repeat in range(splits.repeats):
        of_repeat = f", repeat {repeat + 1}" if splits.repeats > 1 else ""
        parts = _stratified(manifest, rows, count, splits.seed + repeat)
        folds += [(f"fold {number} of {count}{of_repeat}", part) for number, part in enumerate(parts, 1)]
    return folds


def column_values(manifest: Manifest, splits: Splits) -> list[str]:
    """Return the values of the column of metadata that states the folds of a dataset's images, sorted.

    Raises:
        DataError: The column is not there, or has fewer than two values.
    """
    column = splits.folds_by
    name = metadata_name(column)
    if name not in manifest.metadata:
        known = ", ".join(manifest.metadata)
        expected = f"one of {known}" if known else "a column that dataset.metadata names"
        raise DataError(f"splits.folds_by is {column!r}, which is no metadata of {manifest.name}; expected {expected}")
    values = sorted(_texts(manifest.frame[name]).dropna().unique())
    if len(values) < 2:
        raise DataError(
            f"splits.folds_by is {column!r}, of which {manifest.name} has {len(values)} values; expected two or more, "
            "each of which is one fold: use splits.folds instead"
        )
    return values


def _texts(values: pd.Series) -> pd.Series:
    """Return values as text, missing where they are missing or empty."""
    texts = values.astype(object).map(str, na_action="ignore")
    return texts.where(texts != "")


def _stratified(manifest: Manifest, rows: np.ndarray, count: int, seed: int) -> list[np.ndarray]:
    """Return the rows of each of `count` folds."""
    groups = manifest.frame["group"].to_numpy()[rows]
    if manifest.findings:
        fold = stratification.folds(manifest.labels.values[rows], groups, count, seed)
        return [rows[fold == number] for number in range(count)]
    return [rows[inside] for _, inside in class_folds(manifest.y[rows], groups, count, seed)]


def class_folds(y: np.ndarray, groups: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the positions outside and inside each of `count` folds, stratified by class, with whole groups.

    Args:
        y: Class of each image, int `(m,)`.
        groups: Group of each image, `(m,)`.
        count: Number of folds.
        seed: Seed of the folds.
    """
    with warnings.catch_warnings():  # of a class with fewer images than folds
        warnings.simplefilter("ignore", UserWarning)
        if len(set(groups)) == len(groups):
            return list(StratifiedKFold(count, shuffle=True, random_state=seed).split(y, y))
        return list(evaluation.group_folds(y, groups, count, seed))


def _check_smallest(manifest: Manifest, rows: np.ndarray, count: int) -> None:
    """Raise a `DataError` where the dataset, or one of its classes, has fewer groups than folds."""
    frame = manifest.frame.iloc[rows]
    smallest, groups = "the dataset", frame["group"].nunique()
    if manifest.classes:
        of_classes = frame.groupby("label")["group"].nunique()
        if len(of_classes) and of_classes.min() < groups:
            smallest, groups = f"class {of_classes.idxmin()!r}", int(of_classes.min())
    if groups < count:
        advice = f"set splits.folds to {groups}" if groups > 1 else "remove splits.folds, or add images"
        raise DataError(
            f"dataset {manifest.name}: {smallest} has images of {groups} groups (patients or lesions), and there are "
            f"{count} folds; expected at least one group for each fold; {advice}"
        )
