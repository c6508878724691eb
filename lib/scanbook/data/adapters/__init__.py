"""Adapters that turn a source of images into a manifest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from scanbook.config import KAGGLE, Study
from scanbook.data.adapters import folder, kaggle, medmnist, stand_in, table
from scanbook.data.adapters.synthetic import adapter as drawn
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError

_ADAPTERS = {"synthetic": drawn.load, "folder": folder.load, "table": table.load, "medmnist": medmnist.load}


def load(study: Study) -> Manifest:
    """Lists the study's images: one row each, with the parts that the source gives, if any.

    A study on its stand-in lists synthetic images. With DATA=kaggle the dataset is downloaded first, if it is missing.
    Where the study sets `limit`, whole groups are sampled, by class, until about that many images are listed. Sentences
    that a report has to say about the listing are in `facts["notes"]`.

    Raises:
        DataError: The dataset is missing, cannot be downloaded, or is not laid out as the study says.
    """
    if study.data == KAGGLE and not study.location.exists():
        kaggle.fetch(study)
    adapter = _ADAPTERS[study.dataset.adapter]
    manifest = stand_in.load(study, adapter) if study.on_stand_in else adapter(study)
    if len(manifest.classes) < 2:
        raise DataError(
            f"dataset {study.study}: only the class {', '.join(manifest.classes)} in {study.location}; "
            "expected at least two classes"
        )
    if study.limit and study.limit < len(manifest.frame):
        total = len(manifest.frame)
        manifest = _sample(manifest, study)
        even = "evenly over the classes: the share of each class is not the source's"
        shares = even if study.limit_shares == "even" else "in the class shares of the source"
        note = f"{len(manifest.frame)} of {total} images were taken (limit {study.limit}), {shares}."
        manifest = replace(
            manifest, facts={**manifest.facts, "sampled": True, "notes": [*manifest.facts.get("notes", ()), note]}
        )
    return manifest


def _sample(manifest: Manifest, study: Study) -> Manifest:
    """About `study.limit` images, whole groups at a time, in the class shares that the study asks for.

    Where the source has parts, each gives its share of a class. No class gets fewer than its folds need.
    """
    frame = manifest.frame
    shuffled = frame.iloc[np.random.default_rng(study.seed).permutation(len(frame))]
    in_class = frame["label"].value_counts(ascending=True)
    even = study.limit_shares == "even"
    groups: set[str] = set()
    passed: set[str] = set()  # groups with images of the classes before, which have their share
    for label, count in in_class.items():  # a rare class first: its groups bring images of the others with them
        wanted = study.limit / len(in_class) if even else study.limit * count / len(frame)
        wanted = max(wanted, study.splits.test_folds + study.splits.validation_folds)
        for _, rows in shuffled[shuffled["label"] == label].groupby("split", sort=True):
            taken = rows["group"].isin(groups)
            share = math.ceil(wanted * len(rows) / count) - int(taken.sum())
            rest = rows[~taken].iloc[np.argsort(rows.loc[~taken, "group"].isin(passed), kind="stable")]
            sizes = rest.groupby("group", sort=False).size().cumsum()
            fewest = max(0, 2 - rows.loc[taken, "group"].nunique())
            groups |= set(sizes.index[: max(fewest, int((sizes <= share).sum()))])
        passed |= set(frame.loc[frame["label"] == label, "group"])
    return manifest.with_frame(frame[frame["group"].isin(groups)])
