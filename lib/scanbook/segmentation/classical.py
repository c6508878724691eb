"""Masks without training: k-means, Otsu's threshold and GrabCut. They are deterministic and depend on the image alone.

The structure is dark in the image of a lesion and in a chest X-ray, and bright in a fundus image (see `STRUCTURES`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from scanbook.data import images as decoding


@dataclass(frozen=True)
class Structure:
    """How a structure appears in an image.

    Attributes:
        channel: Channel of RGB for Otsu's threshold: the one with the highest contrast.
        dark: Whether the structure is darker than its surroundings.
        hairs: Whether hairs can lie across it.
    """

    channel: int
    dark: bool
    hairs: bool


STRUCTURES: dict[str, Structure] = {
    "lesion": Structure(channel=2, dark=True, hairs=True),  # melanin absorbs blue most
    "lungs": Structure(channel=1, dark=True, hairs=False),
    "retina": Structure(channel=0, dark=False, hairs=False),  # a fundus reflects red; blue is near black in all of it
}

_FIELD_RADIUS = 0.72
"""Distance from the centre, in half-diagonals, beyond which an image may show the dark corners of a dermatoscope."""
_AIR = 30
"""Grey level below which pixels that reach the edge of a radiograph are air around the body."""
_GRABCUT_SIDE = 96
"""Longest side of the image that GrabCut works on: its time grows faster than the number of pixels."""
_GRABCUT_ROUNDS = 3
_HAIR_CONTRAST = 12
"""Grey levels by which a thin dark line must differ from its surroundings to count as a hair."""
_MOST_HAIR = 0.3
"""Share of the image above which apparent hairs are texture."""


def centre_distance(shape: tuple[int, ...]) -> np.ndarray:
    """Return the distance of every pixel from the centre in half-diagonals, float64 `(h, w)`."""
    height, width = shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.hypot(x, y) / np.sqrt(2)


def disc(radius: int) -> np.ndarray:
    """Return a round structuring element with a radius in pixels, uint8 `(2r + 1, 2r + 1)`."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)


def remove_hairs(image: np.ndarray) -> np.ndarray:
    """Return an image without hairs: a black-hat detects thin dark lines, and inpainting fills them from their sides.

    After DullRazor (Lee et al., Computers in Biology and Medicine 27(6), 1997), with Telea's inpainting.

    Args:
        image: uint8 RGB `(h, w, 3)`.
    """
    radius = max(2, image.shape[0] // 32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    lines = cv2.morphologyEx(grey, cv2.MORPH_BLACKHAT, disc(radius)) > _HAIR_CONTRAST
    hairs = cv2.dilate(lines.astype(np.uint8), np.ones((3, 3), np.uint8))
    return image if hairs.mean() > _MOST_HAIR else cv2.inpaint(image, hairs, 3, cv2.INPAINT_TELEA)


def segment_image(image: np.ndarray, method: str, structure: str, hair_removal: bool = False) -> np.ndarray:
    """Return the mask of the structure by one method, before clean-up.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        method: One of `METHODS`.
        structure: One of `STRUCTURES`.
        hair_removal: Whether hairs are removed first.

    Returns:
        bool `(h, w)`; all false where the image has no contrast, as in a blank image.
    """
    image = np.ascontiguousarray(image)
    smooth = cv2.medianBlur(remove_hairs(image) if hair_removal else image, 5)
    mask = METHODS[method](smooth, structure)
    return mask if method == GRABCUT or structure != "lungs" else _inside_body(smooth, mask)


def _field(image: np.ndarray, structure: str) -> np.ndarray:
    """Return the pixels in which the structure can lie, bool `(h, w)`."""
    if structure == "lesion":
        return centre_distance(image.shape) < _FIELD_RADIUS
    if structure == "lungs":
        return ~_touching_edge(image[..., 1] < _AIR)
    return np.ones(image.shape[:2], bool)


def _touching_edge(mask: np.ndarray) -> np.ndarray:
    """Return the components of a mask that touch the edge of the image, bool `(h, w)`."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    touching = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return np.isin(labels, touching[touching > 0])


def _kmeans(values: np.ndarray, grey: np.ndarray, field: np.ndarray, dark: bool) -> np.ndarray:
    """Return the darker or the brighter of two clusters, which start from the mean grey level: deterministic."""
    mask = np.zeros(grey.shape, bool)
    inside = grey[field]
    start = (inside > inside.mean()).astype(np.int32)[:, None] if field.any() else np.zeros((0, 1), np.int32)
    if len(np.unique(start)) < 2:
        return mask
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 15, 0.5)
    samples = values[field].astype(np.float32)
    _, labels, _ = cv2.kmeans(samples, 2, start, criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS)
    first = labels.ravel() == 0
    if first.all() or not first.any():
        return mask
    darker = first if inside[first].mean() < inside[~first].mean() else ~first
    mask[field] = darker if dark else ~darker
    return mask


def kmeans_rgb(image: np.ndarray, structure: str) -> np.ndarray:
    """Return the mask by two clusters of RGB values, the melanoma study's method: the darker one is the lesion.

    Args:
        image: uint8 RGB `(h, w, 3)`.
        structure: One of `STRUCTURES`.

    Returns:
        Mask, bool `(h, w)`.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _kmeans(image, grey, _field(image, structure), STRUCTURES[structure].dark)


def kmeans_lab(image: np.ndarray, structure: str) -> np.ndarray:
    """Return the mask by two clusters of CIE Lab values, whose distances are closer to perceived differences."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return _kmeans(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), grey, _field(image, structure), STRUCTURES[structure].dark)


def otsu(image: np.ndarray, structure: str) -> np.ndarray:
    """Return the mask by Otsu's threshold (IEEE Trans. SMC 9(1), 1979) on the channel with the highest contrast."""
    field, channel = _field(image, structure), image[..., STRUCTURES[structure].channel]
    inside = channel[field]
    if inside.size == 0 or inside.min() == inside.max():
        return np.zeros(field.shape, bool)
    threshold, _ = cv2.threshold(inside[:, None], 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return field & ((channel <= threshold) == STRUCTURES[structure].dark)


def grabcut(image: np.ndarray, structure: str) -> np.ndarray:
    """Return the mask by GrabCut (Rother et al., ACM TOG 23(3), 2004), started from Otsu's mask.

    The core of Otsu's mask is certain foreground, and pixels far from the mask are certain background. GrabCut decides
    the rest.
    """
    height, width = image.shape[:2]
    scale = min(1.0, _GRABCUT_SIDE / max(height, width))
    size = max(8, round(height * scale)), max(8, round(width * scale))
    small = np.ascontiguousarray(decoding.resize(image, size))
    start = otsu(small, structure)
    start = (_inside_body(small, start) if structure == "lungs" else start).astype(np.uint8)
    near = max(2, round(0.04 * max(size)))
    start = cv2.morphologyEx(start, cv2.MORPH_OPEN, disc(max(1, near // 2)))
    sure, possible = cv2.erode(start, disc(near)), cv2.dilate(start, disc(3 * near))
    if not sure.any() or possible.all():  # its two colour models need pixels of each kind
        return _enlarge(start.astype(bool), image.shape)
    labels = np.full(size, cv2.GC_BGD, np.uint8)
    labels[possible > 0] = cv2.GC_PR_BGD
    labels[start > 0] = cv2.GC_PR_FGD
    labels[sure > 0] = cv2.GC_FGD
    cv2.setRNGSeed(0)  # of this thread's generator, which starts GrabCut's clusters
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(small, labels, None, *models, _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return _enlarge((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD), image.shape)


def _enlarge(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return decoding.resize(mask.astype(np.uint8) * 255, (shape[0], shape[1])) > 127


def _inside_body(image: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Return the dark pixels of a radiograph that belong to the lungs.

    The air around the body is as dark as the lungs and often connected to them. A watershed grows over dark pixels from
    the middle of each side of the chest and from the edge of the image. Its regions meet at the bright chest wall.
    """
    height, width = dark.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    markers = np.where(dark, 0, 4).astype(np.int32)
    edge = np.ones_like(dark)
    edge[2:-2, 2:-2] = False
    markers[(edge & dark) | _touching_edge(image[..., 1] < _AIR)] = 1
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
"""Functions from a smoothed uint8 RGB image and a structure to a mask, bool `(h, w)`."""
