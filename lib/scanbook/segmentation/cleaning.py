"""Clean-up of masks: opening and closing, selection of components, growth and filling of holes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import cv2
import numpy as np

from scanbook.segmentation.classical import STRUCTURES, centre_distance, disc


@dataclass(frozen=True)
class Cleaning:
    """Parameters of a clean-up.

    Attributes:
        hair_removal: Whether hairs are removed before the method sees the image.
        smoothing: Radius of opening and closing, as a share of the image's height.
        growth: Radius of the dilation, as a share of the height: experts outline a lesion more widely than a threshold.
    """

    hair_removal: bool = False
    smoothing: float = 0.02
    growth: float = 0.0


_SMOOTHING = (0.02, 0.01, 0.035)
_GROWTH = (0.0, 0.015, 0.03, 0.045)
_CENTRE = 0.35
"""Distance from the centre, in half-diagonals, over which the weight of a lesion decreases."""
_SECOND = 0.1
"""Share of the larger lung's area below which a second component is not a lung."""


def candidates(structure: str, trained: bool) -> list[Cleaning]:
    """Return the clean-ups that validation chooses from; the first is the default where there are no masks.

    Args:
        structure: One of `STRUCTURES`.
        trained: Whether the method learned from masks, and therefore from hairs and from the experts' outlines.
    """
    hairs = (False, True) if STRUCTURES[structure].hairs and not trained else (False,)
    growth = _GROWTH[:2] if trained else _GROWTH
    return [Cleaning(*values) for values in product(hairs, _SMOOTHING, growth)]


def clean(mask: np.ndarray, structure: str, cleaning: Cleaning) -> np.ndarray:
    """Return a mask that is smoothed, reduced to the components of the structure, dilated and without holes.

    A lesion is the largest central component, a retina the largest component, the lungs are the two largest.

    Args:
        mask: bool `(h, w)`.
        structure: One of `STRUCTURES`.
        cleaning: The parameters.

    Returns:
        bool `(h, w)`; all false where no component remains.
    """
    height = mask.shape[0]
    kernel = disc(max(1, round(cleaning.smoothing * height)))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel)
    components = _components(closed, structure)
    if not components.any():
        return components.astype(bool)
    grown = cv2.dilate(components, disc(round(cleaning.growth * height))) if cleaning.growth else components
    contours, _ = cv2.findContours(grown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(grown), contours, -1, 1, cv2.FILLED).astype(bool)


def _components(mask: np.ndarray, structure: str) -> np.ndarray:
    """Return the components of a mask that can be the structure, uint8 `(h, w)` of 0 and 1."""
    count, labels = cv2.connectedComponents(mask)
    if count < 2:
        return mask
    weights = None
    if structure == "lesion":
        weights = np.exp(-((centre_distance(mask.shape) / _CENTRE) ** 2)).ravel()
    sizes = np.bincount(labels.ravel(), weights, count)
    sizes[0] = 0
    first, second = np.argsort(-sizes, kind="stable")[:2]
    selected = [first]
    if structure == "lungs" and sizes[second] >= _SECOND * sizes[first] > 0:
        selected.append(second)
    return np.isin(labels, selected).astype(np.uint8)
