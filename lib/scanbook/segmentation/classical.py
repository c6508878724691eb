"""Masks without training: k-means, Otsu's threshold and GrabCut, on an image alone; the same image, the same mask.

What is sought is dark in a lesion's image and in a chest X-ray, and bright in a fundus image; `TARGETS` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from scanbook.data import images as decoding


@dataclass(frozen=True)
class Target:
    """How the methods see one kind of target.

    Attributes:
        channel: Channel of RGB that Otsu's threshold is set on: where the target contrasts most.
        dark: Whether it is darker than what is around it.
        hairs: Whether hairs can lie across it.
    """

    channel: int
    dark: bool
    hairs: bool


TARGETS: dict[str, Target] = {
    "lesion": Target(channel=2, dark=True, hairs=True),  # melanin absorbs blue most
    "lungs": Target(channel=1, dark=True, hairs=False),
    "retina": Target(channel=0, dark=False, hairs=False),  # a fundus reflects red; blue is near black in all of it
}

_FIELD_RADIUS = 0.72
"""Half-diagonals from the centre beyond which a dermatoscope shows its own dark corners, not skin."""
_AIR = 30
"""Grey level below which pixels that reach the edge of a radiograph are air around the body."""
_GRABCUT_SIDE = 96
"""Longest side of the image that GrabCut works on: its time grows faster than the number of pixels."""
_GRABCUT_ROUNDS = 3
_HAIR_CONTRAST = 12
"""Levels by which a thin dark line must stand out to count as a hair."""
_MOST_HAIR = 0.3
"""Share of the image above which what looks like hair is texture."""


def centre_distance(shape: tuple[int, ...]) -> np.ndarray:
    """Distance of every pixel from the centre in half-diagonals, float64 `(h, w)`."""
    height, width = shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.hypot(x, y) / np.sqrt(2)


def disc(radius: int) -> np.ndarray:
    """A round structuring element of a radius in pixels, uint8 `(2r + 1, 2r + 1)`."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)


def without_hairs(image: np.ndarray) -> np.ndarray:
    """Paints hairs over: thin dark lines, found by a black-hat and filled from their sides.

    As DullRazor does (Lee et al., Computers in Biology and Medicine 27(6), 1997), with Telea's inpainting.

    Args:
        image: uint8 RGB `(h, w, 3)`.
    """
    radius = max(2, image.shape[0] // 32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    lines = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, disc(radius)) > _HAIR_CONTRAST
    hairs = cv2.dilate(lines.astype(np.uint8), np.ones((3, 3), np.uint8))
    return image if hairs.mean() > _MOST_HAIR else cv2.inpaint(image, hairs, 3, cv2.INPAINT_TELEA)


def find(image: np.ndarray, method: str, target: str, hair_removal: bool = False) -> np.ndarray:
    """The target by one method, as it comes: no clean-up.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        method: One of `METHODS`.
        target: One of `TARGETS`.
        hair_removal: Whether hairs are painted over first.

    Returns:
        bool `(h, w)`; all false where nothing is told apart, as in a blank image.
    """
    image = np.ascontiguousarray(image)
    smooth = cv2.medianBlur(without_hairs(image) if hair_removal else image, 5)
    found = METHODS[method](smooth, target)
    return found if method == GRABCUT or target != "lungs" else _inside_the_body(smooth, found)


def _field(image: np.ndarray, target: str) -> np.ndarray:
    """Pixels in which the target can lie and the two kinds are told apart, bool `(h, w)`."""
    if target == "lesion":
        return centre_distance(image.shape) < _FIELD_RADIUS
    if target == "lungs":
        return ~_reaching_the_edge(image[..., 1] < _AIR)
    return np.ones(image.shape[:2], bool)


def _reaching_the_edge(mask: np.ndarray) -> np.ndarray:
    """The components of a mask that touch the edge of the image."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.isin(labels, touching[touching > 0])


def _kmeans(values: np.ndarray, grey: np.ndarray, field: np.ndarray, dark: bool) -> np.ndarray:
    """Two clusters, started from what is darker and brighter than the mean: deterministic."""
    found = np.zeros(grey.shape, bool)
    inside = grey[field]
    start = (inside > inside.mean()).astype(np.int32)[:, None] if field.any() else np.zeros((0, 1), np.int32)
    if len(np.unique(start)) < 2:
        return found
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 15, 0.5)
    samples = values[field].astype(np.float32)
    _, labels, _ = cv2.kmeans(samples, 2, start, criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    first = labels.ravel() == 0
    if first.all() or not first.any():
        return found
    darker = first if inside[first].mean() < inside[~first].mean() else ~first
    found[field] = darker if dark else ~darker
    return found


def kmeans_rgb(image: np.ndarray, target: str) -> np.ndarray:
    """The melanoma study's method: two clusters of RGB values, of which the darker is the lesion.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        target: What is sought, a key of `TARGETS`.

    Returns:
        Mask, bool `(h, w)`.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _kmeans(image, grey, _field(image, target), TARGETS[target].dark)


def kmeans_lab(image: np.ndarray, target: str) -> np.ndarray:
    """As `kmeans_rgb`, of CIE Lab values, where distances are closer to those that people see."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _kmeans(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), grey, _field(image, target), TARGETS[target].dark)


def otsu(image: np.ndarray, target: str) -> np.ndarray:
    """Otsu's threshold (IEEE Trans. SMC 9(1), 1979) on the channel in which the target contrasts most."""
    field, channel = _field(image, target), image[..., TARGETS[target].channel]
    inside = channel[field]
    if inside.size == 0 or inside.min() == inside.max():
        return np.zeros(field.shape, bool)
    threshold, _ = cv2.threshold(inside[:, None], 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return field & ((channel <= threshold) == TARGETS[target].dark)


def grabcut(image: np.ndarray, target: str) -> np.ndarray:
    """GrabCut (Rother et al., ACM TOG 23(3), 2004), started from Otsu's mask and with a fixed number of rounds.

    The core of Otsu's mask is surely the target, what is far from it surely is not, the rest is to be found.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _GRABCUT_SIDE / max(height, width))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    small = np.ascontiguousarray(decoding.resize(image, size))
    start = otsu(small, target)
    start = (_inside_the_body(small, start) if target == "lungs" else start).astype(np.uint8)
    near = max(2, round(0.04 * max(size)))
    start = cv2.morphologyEx(start, cv2.MORPH_OPEN, disc(max(1, near // 2)))
    sure, possible = cv2.erode(start, disc(near)), cv2.dilate(start, disc(3 * near))
    if not sure.any() or possible.all():  # its two colour models need pixels of each kind
        return _enlarged(start.astype(bool), image.shape)
    labels = np.full(size, cv2.GC_BGD, np.uint8)
    labels[possible > 0] = cv2.GC_PR_BGD
    labels[start > 0] = cv2.GC_PR_FGD
    labels[sure > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # of this thread's generator, which starts GrabCut's clusters
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, labels, None, *models, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return _enlarged((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), image.shape)


def _enlarged(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return decoding.resize(mask.astype(np.uint8) * 255, (shape[0], shape[1])) > 127


def _inside_the_body(image: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """The dark pixels of a radiograph that belong to the lungs.

    The air around the body is as dark as the lungs and often joined to them. A watershed grows from the middle of each
    side of the chest and from the edge of the image, over dark pixels alone, and meets at the chest wall, which is
    bright.
    """
    height, width = dark.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    markers = np.where(dark, 0, 4).astype(np.int32)
    edge = np.ones_like(dark)
    edge[2:-2, 2:-2] = False
    markers[(edge & dark) | _reaching_the_edge(image[..., 1] < _AIR)] = 1
    for label, side in ((2, -1), (3, 1)):
        markers[dark & (((x - side * 0.42) / 0.2) ** 2 + ((y + 0.05) / 0.42) ** 2 < 1)] = label
    smooth = cv2.GaussianBlur(image[..., 1], (0, 0), max(height, width) / 64)
    cv2.watershed(np.repeat(smooth[..., None], 3, axis=2), markers)
    return (markers == 2) | (markers == 3)


GRABCUT = "GrabCut"
METHODS: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "k-means RGB": kmeans_rgb,
    "k-means Lab": kmeans_lab,
    "Otsu": otsu,
    GRABCUT: grabcut,
}
"""From a smoothed uint8 RGB image and a target to bool `(h, w)`."""
