"""Adapters that turn a source of images (class folders, a table, MedMNIST, Kaggle, synthetic) into a manifest."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd

from scanbook.config import KAGGLE, Study
from scanbook.data import embeddings
from scanbook.data.adapters import files, findings, folder, kaggle, medmnist, stand_in, table
from scanbook.data.adapters.synthetic import dataset as synthetic
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError

_ADAPTERS = {"synthetic": synthetic.load, "folder": folder.load, "table": table.load, "medmnist": medmnist.load}


def load(study: Study, fewest_classes: int = 2) -> Manifest:
    """Return the manifest of a study's images: one row per image, with the splits of the source where it has any.

    A study on its stand-in lists synthetic images. With DATA=kaggle, a missing dataset is downloaded first. Where the
    study sets `limit`, whole groups are sampled by class, or by finding, until about that many images are listed. The
    sentences on the listing that a report shows are in `facts["notes"]`.

    Args:
        study: The study.
        fewest_classes: Fewest classes; images of another source, on which nothing is trained, may be of one.

    Raises:
        DataError: The dataset is missing, cannot be downloaded, or does not have the layout that the study states.
    """
    if study.data == KAGGLE and not study.location.exists():
        kaggle.fetch(study)
    adapter = _ADAPTERS[study.dataset.adapter]
    with _no_collection():
        manifest = (stand_in.load(study, adapter) if study.on_stand_in else adapter(study)).legible()
    if manifest.findings:
        findings.check(manifest, study)
    elif len(manifest.classes) < fewest_classes:
        lower = files.folders_in_class(manifest) if study.dataset.adapter == "folder" else ""
        raise DataError(
            f"dataset {study.study}: only the class {', '.join(manifest.classes)} in {study.location}; "
            f"expected at least two classes{lower}"
        )
    if study.embeddings and (noted := embeddings.notes(study, manifest)):
        manifest = replace(manifest, facts={**manifest.facts, "notes": [*manifest.facts.get("notes", ()), *noted]})
    if not study.limit or study.limit >= len(manifest.frame):
        return manifest
    sample = _sample(manifest, study)
    if len(sample.frame) == len(manifest.frame):  # no class has more images than its folds need
        return manifest
    kind, several = ("finding", "findings") if manifest.findings else ("class", "classes")
    even = f"evenly over the {several}: the share of each {kind} is not the source's"
    shares = even if study.limit_class_balance == "even" else f"in the {kind} shares of the source"
    note = f"{len(sample.frame)} of {len(manifest.frame)} images were taken (limit {study.limit}), {shares}."
    notes = [*sample.facts.get("notes", ()), note]
    return replace(sample, facts={**sample.facts, "sampled": True, "notes": notes})


def unused_files(manifest: Manifest) -> pd.DataFrame:
    """Return how many files of the dataset's folder are not listed, by reason (index) and extension."""
    rows = [
        (reason, kind, count)
        for reason, kinds in manifest.facts.get("unused", {}).items()
        for kind, count in kinds.items()
    ]
    return pd.DataFrame(rows, columns=["reason", "extension", "files"]).set_index("reason")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Stop Python's garbage collector, which would visit 100,000 paths of a large dataset many times and free none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _sample(manifest: Manifest, study: Study) -> Manifest:
    """Return about `study.limit` images, whole groups at a time, in the shares of classes or findings as requested.

    Where the source has splits, each gives its share. No class, and neither the images with nor those without a
    finding, get fewer images than their folds need.
    """
    frame = manifest.frame
    order = np.random.default_rng(study.seed).permutation(len(frame))
    group, split = (pd.factorize(frame[column], sort=True)[0][order] for column in ("group", "split"))
    sampled = np.zeros(group.max() + 1, bool)
    earlier = sampled.copy()  # groups with images of the classes before, which have their share
    for chosen, quota in _strata(manifest, study):
        count, own = int(chosen.sum()), chosen[order]
        for part in np.unique(split[own]):
            rows = group[own & (split == part)]
            taken = sampled[rows]
            share = math.ceil(quota * len(rows) / count) - int(taken.sum())
            rest = rows[~taken]
            codes, groups = pd.factorize(rest[np.argsort(earlier[rest], kind="stable")])
            sizes = np.bincount(codes).cumsum()
            fewest = max(0, 2 - len(np.unique(rows[taken])))
            sampled[groups[: max(fewest, int((sizes <= share).sum()))]] = True
        earlier[group[own]] = True
    return manifest.with_frame(frame.iloc[np.sort(order[sampled[group]])])


def _strata(manifest: Manifest, study: Study) -> Iterator[tuple[np.ndarray, float]]:
    """Yield which images are of a class or finding, bool `(n,)`, and how many to sample of them; rare ones first.

    The groups of a rare class contain images of the others too, and images with a rare finding often have others.
    """
    values, total = manifest.labels.values, len(manifest.frame)
    even, fewest = study.limit_class_balance == "even", study.splits.test_folds + study.splits.validation_folds
    if manifest.classes:  # those of equal counts in the order of the source
        counts = manifest.frame["label"].value_counts(ascending=True)
        events = [values[:, manifest.classes.index(label)] == 1 for label in counts.index]
    else:
        present = values == 1
        events = [*present.T, ~present.any(axis=1)]
        events = sorted((event for event in events if event.any()), key=np.count_nonzero)
    for event in events:
        share = study.limit / len(events) if even else study.limit * event.sum() / total
        yield event, max(share, fewest)
    if manifest.findings:
        yield from ((absent, fewest) for absent in (values == 0).T if absent.any())
        yield np.ones(total, bool), 0 if even else study.limit
