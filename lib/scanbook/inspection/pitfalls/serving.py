"""Mistakes after training: a service that does not do what the notebook did, and figures of another prevalence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scanbook.data.manifest import VALIDATION
from scanbook.evaluation import AnyPredictions, FindingPredictions
from scanbook.evaluation.metrics import ratio
from scanbook.evaluation.targets import choose_threshold, predictive_values
from scanbook.inspection.pitfalls.measuring import Row, measure, measure_values
from scanbook.inspection.pitfalls.subject import WITHOUT_NETWORK, Subject

BGR = Row("bgr", "BGR served as RGB", "dermnet")
NAMES = Row("names", "class names shifted by one place", "dermnet")
PREVALENCE = Row("prevalence_ppv", "PPV at a prevalence of one half", "melanoma")
PREVALENCE_ACCURACY = Row("prevalence_accuracy", "accuracy at a prevalence of one half", "melanoma")


def rows(subject: Subject) -> list[Row]:
    """Return what the mistakes after training are worth."""
    return [bgr(subject), names(subject), *prevalence(subject)]


def bgr(subject: Subject) -> Row:
    """Return what is lost where the service gives the network BGR images, and the notebook evaluated RGB ones."""
    if subject.of_vectors:
        return BGR.because(WITHOUT_NETWORK)
    x = subject.changed(lambda images, _: images[..., ::-1], subject.test)
    published = subject.predict(subject.head, subject.test)
    served = subject.predict(subject.head, subject.test, x)
    row = measure(BGR, [(published, served)], **subject.study.resamples)
    same = bool(np.allclose(x, subject.x[subject.test], rtol=1e-3, atol=1e-3))
    note = "The images are grey, so the order of the colours changes nothing." if same else ""
    return replace(row, note=note or "The honest figure is that of the service.")


def names(subject: Subject) -> Row:
    """Return what is lost where the service gives every answer the name of the next class or finding."""
    published = subject.predict(subject.head, subject.test)
    if len(published.names) < 2:
        return NAMES.because("there is one finding")
    served = replace(published, probabilities=np.roll(published.probabilities, 1, axis=1))
    row = measure(NAMES, [(published, served)], **subject.study.resamples)
    return replace(row, note="The honest figure is that of the service.")


def prevalence(subject: Subject) -> list[Row]:
    """Return what PPV and accuracy of one target are at a prevalence of one half, and at that of the world."""
    validation = subject.predict(subject.head, subject.manifest.rows(VALIDATION))
    test = subject.predict(subject.head, subject.test)
    name, columns = _target(subject)
    empty = [
        replace(PREVALENCE, figure=f"PPV of {name}"),
        replace(PREVALENCE_ACCURACY, figure=f"accuracy of {name}"),
    ]
    (truth, score, _), (own, own_score, group) = (_binary(images, columns) for images in (validation, test))
    if not all(both.any() and not both.all() for both in (truth, own)):
        reason = f"{name} is not both present and absent on validation and on test"
        return [row.because(reason) for row in empty]
    cut = choose_threshold(truth, score, subject.study.evaluation.specificity)
    stated = subject.study.evaluation.prevalence.get(name)
    share = stated if stated is not None else _share(subject, columns)
    called = own_score >= cut
    if share == 0.5:
        reason = f"half of the images are {name} in the world, too"
        return [row.because(reason) for row in empty]

    def rates(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        sides = ((own, called), (~own, ~called))
        return tuple(ratio(weights @ (of & right).astype(float), weights @ of.astype(float)) for of, right in sides)

    def ppv(_: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([predictive_values(*rates(weights), at)[0] for at in (0.5, share)], axis=1)

    def accuracy(_: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        sensitivity, specificity = rates(weights)
        return np.stack([at * sensitivity + (1 - at) * specificity for at in (0.5, share)], axis=1)

    source = "stated in the study" if stated is not None else "of the source's own images: the study states none"
    trivial = max(share, 1 - share)
    notes = (
        f"At the threshold of validation; prevalence in the world {share:.2%} ({source}).",
        f"The same answers. Always giving the more frequent answer is right for {trivial:.1%} in the world.",
    )
    return [
        measure_values(replace(row, images=len(own), note=note), both, [group], **subject.study.resamples)
        for row, both, note in zip(empty, (ppv, accuracy), notes, strict=True)
    ]


def _target(subject: Subject) -> tuple[str, list[int]]:
    """Return name and columns of what the study states a prevalence of, else its first target, else its rarest name."""
    options, labels = subject.study.evaluation, list(subject.manifest.names)
    for name in (*options.prevalence, *options.targets):
        if name in options.targets:
            return name, [labels.index(member) for member in options.targets[name]]
        if name in labels:
            return name, [labels.index(name)]
    counts = np.nansum(subject.labels[subject.train], axis=0)
    rarest = int(np.where(counts > 0, counts, np.inf).argmin())
    return labels[rarest], [rarest]


def _share(subject: Subject, columns: Sequence[int]) -> float:
    """Return the share of the images with a target among all that are labelled for it."""
    values = subject.labels[(subject.manifest.frame["split"] != "").to_numpy()][:, list(columns)]
    known = ~np.isnan(values).any(axis=1)
    return float((values[known] == 1).any(axis=1).mean())


def _binary(
    images: AnyPredictions, columns: Sequence[int]
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.str_]]:
    """Return truth, score and group of one target, of the images that are labelled for it."""
    if isinstance(images, FindingPredictions):
        known = ~np.isnan(images.y_true[:, columns[0]])
        truth, score = images.y_true[known, columns[0]] == 1, images.probabilities[known, columns[0]]
        return truth, score, images.group[known]
    return np.isin(images.y_true, columns), images.probabilities[:, list(columns)].sum(axis=1), images.group
