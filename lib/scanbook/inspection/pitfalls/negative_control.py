"""The negative control: how much is still recognised where the object is painted out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scanbook import segmentation
from scanbook.evaluation import METRICS
from scanbook.inspection.pitfalls import heads
from scanbook.inspection.pitfalls.measuring import Row, measure
from scanbook.inspection.pitfalls.subject import WITHOUT_NETWORK, Subject, predictions
from scanbook.segmentation.derived import bounding_box

_MARGIN = 0.1
"""Margin around the object's box, as a share of its side: the edge shows what is inside."""
_GREY = 128

CONTROL = Row(
    "painted_out",
    "object painted out (control)",
    "none made it; chest_xray and skin11 needed it",
    too_high="something is still recognised",
    too_low="nothing is recognised",
)


def painted_out(subject: Subject) -> Row:
    """Return how much better than a constant answer a head is that never sees the object.

    Its box is painted over in the mean colour of the rest, in training and in test images. What is still recognised
    comes from the surroundings, or from the box itself.
    """
    if subject.of_vectors:
        return CONTROL.because(WITHOUT_NETWORK)
    masks, source = _masks(subject)
    train, test = (part[[bool(masks[row].any()) for row in part]] for part in (subject.train, subject.test))
    if not len(train) or not len(test):
        return CONTROL.because("no mask shows the object in training and in test images")
    used = np.concatenate([train, test])
    boxes = {row: bounding_box(np.asarray(masks[row]), _MARGIN) for row in used.tolist()}
    x = subject.changed(lambda images, chosen: _paint(images, [boxes.get(row) for row in chosen.tolist()]), used)
    places = np.array([_describe(boxes[row], masks.shape[1:]) for row in used.tolist()], np.float32)
    count = len(train)
    painted, box = heads.train([subject.arm(x[:count], train), subject.arm(places[:count], train)])
    frequencies = np.nanmean(subject.labels[train], axis=0)
    constant = np.log(np.clip(frequencies, 1e-6, 1)) - (
        0 if subject.manifest.classes else np.log(np.clip(1 - frequencies, 1e-6, 1))
    )
    without = predictions(subject.manifest, test, np.tile(constant, (len(test), 1)))
    control = subject.predict(painted, test, x[count:])
    row = measure(CONTROL, [(control, without)], **subject.study.resamples, metric="auroc")
    if not row.measured:
        return row
    metric = METRICS["auroc"]
    whole, geometry = (
        float(metric.compute(images.y_true, images.probabilities, None)[0])
        for images in (subject.predict(subject.head, test), subject.predict(box, test, places[count:]))
    )
    above = whole - row.honest
    left = f"What is left is {row.difference / above:.0%} of what whole images ({whole:.3f}) add to a constant answer."
    note = (
        f"A box around {source} hides the object. {left if above > 0 else f'Whole images: {whole:.3f}.'} Place and "
        f"size of the box alone: {geometry:.3f}."
    )
    return replace(row, note=note, more={"whole images": whole, "place and size of the box": geometry})


def rows(subject: Subject) -> list[Row]:
    """Return the row of the negative control."""
    return [painted_out(subject)]


def examples(subject: Subject, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return the first test images with a mask, uint8 `(m, h, w, 3)`, whole and with the object painted out."""
    masks, _ = _masks(subject)
    chosen = np.array([row for row in subject.test if masks[row].any()][:count], np.int64)
    images = np.asarray(subject.images[chosen])
    return images, _paint(images, [bounding_box(np.asarray(masks[row]), _MARGIN) for row in chosen])


def _masks(subject: Subject) -> tuple[np.ndarray, str]:
    """Return masks of all rows, bool `(n, h, w)`, and where they are from."""
    study, manifest, images = subject.study, subject.manifest, subject.images
    masks, has_mask = segmentation.expert_masks(manifest, images.shape[1:3])
    if has_mask[np.concatenate([subject.train, subject.test])].all():
        return masks, "the source's masks"
    method = segmentation.choose_method(study, manifest, images)
    return segmentation.segment(study, manifest, images, method), f"masks by {method}"


def _paint(images: np.ndarray, boxes: list[tuple[slice, slice] | None]) -> np.ndarray:
    """Return images whose boxes are painted over in the mean colour of the rest; grey where there is no rest."""
    painted = images.copy()
    for image, box in zip(painted, boxes, strict=True):
        if box is not None:
            outside = np.ones(image.shape[:2], bool)
            outside[box] = False
            image[box] = np.rint(image[outside].mean(0)) if outside.any() else _GREY
    return painted


def _describe(box: tuple[slice, slice], size: tuple[int, int]) -> list[float]:
    """Return place and size of a box as shares of the image's height and width, and its area."""
    (top, bottom), (left, right) = (
        (part.start or 0, length if part.stop is None else part.stop) for part, length in zip(box, size, strict=True)
    )
    height, width = (bottom - top) / size[0], (right - left) / size[1]
    return [top / size[0], left / size[1], height, width, height * width]
