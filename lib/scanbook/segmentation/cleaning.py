"""Clean-up of masks: opening and closing, the components that can be the target, growth, holes filled."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from scanbook.segmentation.classical import TARGETS, centre_distance, disc


@dataclass(frozen=True)
class Cleaning:
    """Parameters of a clean-up.

    Attributes:
        hair_removal: Whether hairs are painted over before the method sees the image.
        smoothing: Radius of opening and closing, as a share of the image's height.
        growth: Radius by which the mask is dilated, as a share of the height: experts outline a lesion more widely
            than a threshold does.
    """

    hair_removal: bool = False
    smoothing: float = 0.02
    growth: float = 0.0


_SMOOTHING = (0.02, 0.01, 0.035)
_GROWTH = (0.0, 0.015, 0.03, 0.045)
_CENTRE = 0.35
"""Half-diagonals over which a lesion's weight falls off from the centre."""
_SECOND = 0.1
"""Share of the larger lung's area below which a second component is no lung."""


def candidates(target: str, trained: bool) -> list[Cleaning]:
    """The clean-ups that validation chooses from; the first is what is used where there are no masks.

    Args:
        target: One of `TARGETS`.
        trained: Whether the method learned from masks: it has seen hairs, and how widely experts outline.
    """
    hairs = (False, True) if TARGETS[target].hairs and not trained else (False,)
    growth = _GROWTH[:2] if trained else _GROWTH
    return [Cleaning(*each) for each in product(hairs, _SMOOTHING, growth)]


def clean(mask: np.ndarray, target: str, how: Cleaning) -> np.ndarray:
    """Smooths a mask, keeps what can be the target, lets it grow and fills its holes.

    Of a lesion the component that is large and central is kept, of a retina the largest, of lungs the two largest.

    Args:
        mask: bool `(h, w)`.
        target: One of `TARGETS`.
        how: The parameters.

    Returns:
        bool `(h, w)`; all false where nothing is left.
    """
    height = mask.shape[0]
    kernel = disc(max(1, round(how.smoothing * height)))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel)
    kept = _components(closed, target)
    if not kept.any():
        return kept.astype(bool)
    grown = cv2.dilate(kept, disc(round(how.growth * height))) if how.growth else kept
    contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(grown), contours, -1, 1, cv2.FILLED).astype(bool)


def _components(mask: np.ndarray, target: str) -> np.ndarray:
    """The components of a mask, uint8 `(h, w)` of 0 and 1, that can be the target."""
    count, labels = cv2.connectedComponents(mask)
    if count < 2:
        return mask
    weights = None
    if target == "lesion":
        weights = np.exp(-((centre_distance(mask.shape) / _CENTRE) ** 2)).ravel()
    sizes = np.bincount(labels.ravel(), weights, count)
    sizes[0] = 0
    kept = [int(sizes.argmax())]
    if target == "lungs" and count > 2:
        second = int(np.argsort(-sizes, kind="stable")[1])
        kept += [second] if sizes[second] >= _SECOND * sizes[kept[0]] else []
    return np.isin(labels, kept).astype(np.uint8)
