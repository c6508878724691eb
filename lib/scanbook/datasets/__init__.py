"""Adapters that turn a source of images into a manifest."""

from __future__ import annotations

import math

import numpy as np

from scanbook.datasets import folder, medmnist, table
from scanbook.datasets.drawn import adapter as drawn
from scanbook.errors import DataError
from scanbook.manifest import Manifest
from scanbook.study import Study

_ADAPTERS = {"drawn": drawn.load, "folder": folder.load, "table": table.load, "medmnist": medmnist.load}


def load(study: Study) -> Manifest:
    """Lists the study's images: one row each, with the parts that the source gives, if any.

    Where the study sets `limit`, whole groups are sampled, by class, until about that many images are listed.

    Raises:
        DataError: The dataset is missing, or is not laid out as the study says.
    """
    manifest = _ADAPTERS[study.dataset.adapter](study)
    if len(manifest.classes) < 2:
        raise DataError(
            f"dataset {study.study}: only the class {', '.join(manifest.classes)} in {study.location}; "
            "expected at least two classes"
        )
    if study.limit and study.limit < len(manifest.frame):
        manifest = _sample(manifest, study.limit, study.parts.test_folds + study.parts.validation_folds, study.seed)
    return manifest


def _sample(manifest: Manifest, limit: int, fewest: int, seed: int) -> Manifest:
    """About `limit` images, as many of each class as of any other while they last, whole groups at a time.

    Where the source has parts, each gives its share of a class. No class gets fewer than `fewest`: it must be split.
    """
    frame = manifest.frame
    shuffled = frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
    in_class = frame["label"].value_counts()
    wanted = max(limit / len(manifest.classes), fewest)
    groups: set[str] = set()
    for (label, _), rows in shuffled.groupby(["label", "part"], sort=True):
        share = math.ceil(wanted * len(rows) / in_class[label])
        sizes = rows.groupby("group", sort=False).size().cumsum()
        groups |= set(sizes.index[: max(2, int((sizes <= share).sum()))])
    return manifest.with_frame(frame[frame["group"].isin(groups)])
