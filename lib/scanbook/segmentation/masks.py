"""Masks of the lesion by k-means and by Otsu's threshold, cleaned up the same way, and images cut out by them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from scanbook import runtime
from scanbook.manifest import Manifest
from scanbook.pixels import sample_fingerprint
from scanbook.store import stage

_FIELD_RADIUS = 0.72
"""Half-diagonals from the centre beyond which pixels are the instrument's dark corners, not skin."""


def _kmeans(values: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """Two clusters, started from what is darker and brighter than the mean: deterministic. The darker is the lesion."""
    start = (grey.reshape(-1) > grey.mean()).astype(np.int32)[:, None]
    if start.min() == start.max():
        return np.zeros(grey.shape, bool)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 15, 0.5)
    _, labels, _ = cv2.kmeans(
        values.reshape(-1, 3).astype(np.float32), 2, start, criteria, 1, cv2.KMEANS_USE_INITIAL_LABELS
    )
    labels = labels.reshape(grey.shape).astype(bool)
    if labels.all() or not labels.any():
        return np.zeros(grey.shape, bool)
    return labels if grey[labels].mean() < grey[~labels].mean() else ~labels


def kmeans_rgb(image: np.ndarray) -> np.ndarray:
    """The melanoma study's method: two clusters of RGB values, the darker one is the lesion."""
    return _kmeans(image, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def kmeans_lab(image: np.ndarray) -> np.ndarray:
    """Two clusters of CIE Lab values, where distances are closer to those that people see."""
    return _kmeans(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def otsu(image: np.ndarray) -> np.ndarray:
    """Otsu's threshold (IEEE Trans. SMC 9(1), 1979) on the blue channel, where pigment contrasts most."""
    _, binary = cv2.threshold(np.ascontiguousarray(image[..., 2]), 0, 1, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)
    return binary.astype(bool)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "k-means RGB": kmeans_rgb,
    "k-means Lab": kmeans_lab,
    "Otsu": otsu,
}


def clean(mask: np.ndarray) -> np.ndarray:
    """Drops dark corners and specks, keeps the component that is large and central, and fills its holes.

    Args:
        mask: bool `(h, w)`.

    Returns:
        bool `(h, w)`; all true where nothing is left, so that a failed segmentation hides nothing.
    """
    if mask.all():  # nothing was told apart, as in a black image
        return mask.copy()
    height, width = mask.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = np.hypot(x, y) / np.sqrt(2)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, height // 24) | 1,) * 2)
    inside = (mask & (radius < _FIELD_RADIUS)).astype(np.uint8)
    closed = cv2.morphologyEx(cv2.morphologyEx(inside, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    count, labels = cv2.connectedComponents(closed)
    if count < 2:
        return np.ones_like(mask)
    central = np.bincount(labels.ravel(), np.exp(-((radius / 0.35) ** 2)).ravel(), count)
    best = (labels == 1 + int(central[1:].argmax())).astype(np.uint8)
    contours, _ = cv2.findContours(best, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(best), contours, -1, 1, cv2.FILLED).astype(bool)


def segment(manifest: Manifest, images: np.ndarray, method: str) -> np.ndarray:
    """Masks of every image by one method, cleaned up.

    Args:
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        method: One of `METHODS`.

    Returns:
        Read-only memory map, bool `(n, h, w)`; rows in no part are false.
    """

    def build(folder: Path) -> None:
        found = np.lib.format.open_memmap(folder / "array.npy", "w+", np.bool_, images.shape[:3])

        def one(row: int) -> None:
            smooth = cv2.medianBlur(images[row], 5)
            found[row] = clean(METHODS[method](smooth))

        _for_each_row(manifest, one, f"segmenting by {method}")
        found.flush()

    inputs = {"manifest": manifest.fingerprint(), "pixels": sample_fingerprint(images), "method": method}
    return np.load(stage("segmented", inputs, build, __name__) / "array.npy", mmap_mode="r")


def cut_outs(manifest: Manifest, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Images with everything outside the mask painted white, as the melanoma study did.

    Args:
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        masks: bool `(n, h, w)`.

    Returns:
        Read-only memory map, uint8 `(n, h, w, 3)`.
    """

    def build(folder: Path) -> None:
        painted = np.lib.format.open_memmap(folder / "array.npy", "w+", np.uint8, images.shape)

        def one(row: int) -> None:
            painted[row] = np.where(masks[row][..., None], images[row], 255)

        _for_each_row(manifest, one, "cutting out")
        painted.flush()

    inputs = {
        "manifest": manifest.fingerprint(),
        "pixels": sample_fingerprint(images),
        "masks": sample_fingerprint(masks),
    }
    return np.load(stage("cut_outs", inputs, build, __name__) / "array.npy", mmap_mode="r")


def _for_each_row(manifest: Manifest, work: Callable[[int], None], description: str) -> None:
    rows = np.flatnonzero((manifest.frame["part"] != "").to_numpy())
    with ThreadPoolExecutor(runtime.cores()) as pool:
        for _ in runtime.progress(pool.map(work, rows), description, len(rows)):
            pass
