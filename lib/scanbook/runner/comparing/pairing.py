"""Whether two runs predict the same images, so that their differences are paired; and why not, if they do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from scanbook.evaluation import AnyPredictions, has_findings
from scanbook.runner.comparing.reading import Compared

_NAMED = 3
"""Most names of classes that a sentence lists."""


def align(first: Compared, run: Compared) -> tuple[str, AnyPredictions | None]:
    """Return the predictions of a run as those of the first one are ordered, or why there are none.

    Args:
        first: The first run.
        run: The run that is compared with it.

    Returns:
        Why the two cannot be paired, or ""; and the run's predictions, whose images, labels, groups and order of
        classes are then those of the first run.
    """
    reason = next(_reasons(first, run), "")
    if reason or first.predictions is None or run.predictions is None:
        return reason, None
    return "", _reorder(run.predictions, first.predictions.names)


def _reasons(first: Compared, run: Compared) -> Iterator[str]:
    """Yield why two runs cannot be paired; only the first reason is certain, since the others build on its absence."""
    a, b = first.predictions, run.predictions
    if a is None or b is None:
        without = [one.name for one in (first, run) if one.predictions is None]
        yield f"{' and '.join(without)} kept no predictions, as reports of earlier versions did not"
        return
    if has_findings(a) != has_findings(b):
        kinds = ("classes", "findings") if has_findings(b) else ("findings", "classes")
        yield f"{first.name} predicts {kinds[0]}, {run.name} {kinds[1]}"
    if set(a.names) != set(b.names):
        sides = ((first.name, _only(a, b)), (run.name, _only(b, a)))
        yield "their labels differ; " + "; ".join(f"only in {name}: {only}" for name, only in sides if only)
        return
    if first.split != run.split:
        yield f"the figures of {first.name} are of {first.split} images, those of {run.name} of {run.split} images"
    if first.whole_study and run.whole_study and first.source != run.source:
        yield "their images are of different datasets"
    shared = len(np.intersect1d(a.image_id, b.image_id))
    images = [len(np.unique(each.image_id)) for each in (a, b)]  # an image is in every repeat of cross-validation
    counts = f"the {images[0]:,} and {images[1]:,} {run.split} images"
    if not shared:
        yield f"none of {counts} is in both"
    if shared < max(images):
        yield f"{shared:,} of {counts} are in both, so the intervals of the differences are too wide"
        return
    if not np.array_equal(a.fold, b.fold):
        yield "they are not of the same folds of cross-validation"
        return
    b = _reorder(b, a.names)
    differ = (a.y_true != b.y_true) & ~(np.isnan(a.y_true) & np.isnan(b.y_true))
    if differ.any():
        rows = int(differ.reshape(len(a), -1).any(axis=1).sum())
        yield f"{rows:,} of the {len(a):,} images that both have are labelled differently"
    if (a.group != b.group).any():
        yield "the same images are grouped by patient in different ways"


def _only(predictions: AnyPredictions, other: AnyPredictions) -> str:
    """Return the labels of one run that the other one lacks."""
    only = [name for name in predictions.names if name not in other.names]
    return ", ".join(only[:_NAMED]) + (f" and {len(only) - _NAMED} more" if len(only) > _NAMED else "")


def _reorder(predictions: AnyPredictions, names: Sequence[str]) -> AnyPredictions:
    """Return the same predictions with their classes or findings in another order."""
    columns = np.array([predictions.names.index(name) for name in names])
    probabilities = predictions.probabilities[:, columns]
    if has_findings(predictions):
        y_true = predictions.y_true[:, columns]
        return replace(predictions, y_true=y_true, probabilities=probabilities, findings=tuple(names))
    y_true = np.argsort(columns)[predictions.y_true]
    return replace(predictions, y_true=y_true, probabilities=probabilities, classes=tuple(names))
