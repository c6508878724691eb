"""Faults of real datasets, planted in synthetic images: faulty files, and near-duplicates of ten kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import cv2
import numpy as np

from scanbook.data.adapters.synthetic.primitives import Rng

ORIENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rotated 90": lambda pixels: np.rot90(pixels, 1),
    "rotated 180": lambda pixels: np.rot90(pixels, 2),
    "rotated 270": lambda pixels: np.rot90(pixels, 3),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "flipped": lambda pixels: pixels[::-1],
    "transposed": lambda pixels: np.swapaxes(pixels, 0, 1),
    "transverse": lambda pixels: np.swapaxes(pixels[::-1, ::-1], 0, 1),
}
"""The seven orientations of an image, (h, w) or (h, w, 3), besides its own; rotations are anticlockwise."""
JPEG_50, HALF, CROP = "JPEG quality 50", "half size", "crop 5 %"
NEAR_DUPLICATES: tuple[str, ...] = (*ORIENTATIONS, JPEG_50, HALF, CROP)
"""Names of the near-duplicates, in the order in which they are planted."""
FILE_FAULTS: tuple[str, ...] = ("truncated", "zero_byte", "dark", "blurred")
"""Names of the faults of a single file; the first two make it undecodable."""
UNREADABLE = FILE_FAULTS[:2]
_QUALITY, _POOR_QUALITY = 90, 50
_TRIM = 0.05  # share of the side that a crop removes


def make_near_duplicate(
    kind: str, image: np.ndarray, mask: np.ndarray | None, rng: Rng, extension: str = ".jpg"
) -> tuple[bytes, np.ndarray | None]:
    """Return the file of a near-duplicate and its mask.

    Args:
        kind: One of `NEAR_DUPLICATES`. A crop trims 5 % of height and width, split at random between opposite edges.
        image: uint8, RGB (h, w, 3) or grey (h, w).
        mask: uint8 (h, w), changed with the image, or None.
        rng: Places the crop.
        extension: Format of the file, ".jpg" or ".png". As PNG, "JPEG quality 50" holds the pixels of such a JPEG.

    Raises:
        ValueError: `kind` is not the name of a near-duplicate.
    """
    if kind in ORIENTATIONS:
        turn = ORIENTATIONS[kind]
        return encode(turn(image), extension), None if mask is None else np.ascontiguousarray(turn(mask))
    if kind == JPEG_50:
        data = encode(image, ".jpg", _POOR_QUALITY)
        return (data if extension == ".jpg" else encode(_decode(data), extension)), mask
    height, width = image.shape[:2]
    if kind == HALF:
        half = (max(1, width // 2), max(1, height // 2))
        smaller = None if mask is None else cv2.resize(mask, half, interpolation=cv2.INTER_NEAREST)
        return encode(cv2.resize(image, half, interpolation=cv2.INTER_AREA), extension), smaller
    if kind == CROP:
        less_high, less_wide = (max(1, round(_TRIM * side)) for side in (height, width))
        top, left = int(rng.integers(less_high + 1)), int(rng.integers(less_wide + 1))
        box = np.s_[top : top + height - less_high, left : left + width - less_wide]
        return encode(image[box], extension), None if mask is None else np.ascontiguousarray(mask[box])
    raise ValueError(f"unknown near-duplicate {kind!r}; expected one of {', '.join(NEAR_DUPLICATES)}")


class PlannedFile(Protocol):
    """What the plan of a stand-in says of a file: its `fault`, and whose copy it is, of which kind."""

    fault: str
    source: int
    near_duplicate: str


def summarise(files: Sequence[PlannedFile], paths: Sequence[str], conflicting: Sequence[bool]) -> dict[str, object]:
    """Return the planted faults of files: `faults` {kind: paths, or pairs [copy, source]}, and `near_duplicate_kinds`.

    Args:
        files: The planned files.
        paths: Their paths, in the same order.
        conflicting: Whether a file is a copy with another label than its source.
    """
    kinds = ("unreadable", "dark", "blurred", "exact_duplicates", "near_duplicates", "conflicting_labels")
    planted: dict[str, list] = {kind: [] for kind in kinds}
    for file, path, conflict in zip(files, paths, conflicting, strict=True):
        if file.fault:
            planted["unreadable" if file.fault in UNREADABLE else file.fault].append(path)
        if file.source >= 0:
            copied = "conflicting_labels" if conflict else "exact_duplicates"
            planted["near_duplicates" if file.near_duplicate else copied].append([path, paths[file.source]])
    near = {path: file.near_duplicate for file, path in zip(files, paths, strict=True) if file.near_duplicate}
    return {"faults": planted, "near_duplicate_kinds": near}


def encode_with_fault(image: np.ndarray, fault: str, extension: str = ".jpg") -> bytes:
    """Return the file of an image, uint8 (h, w, 3) or (h, w), with one of `FILE_FAULTS`, or sound for ""."""
    if fault == "zero_byte":
        return b""
    if fault == "dark":
        image = cv2.convertScaleAbs(image, alpha=0.035)
    elif fault == "blurred":
        image = cv2.GaussianBlur(image, (0, 0), max(image.shape[:2]) / 24)
    data = encode(image, extension)
    # Decoders complete an image whose data end half-way. No decoder starts one that ends within the tables.
    return data[: 150 if extension == ".jpg" else 30] if fault == "truncated" else data


def encode(pixels: np.ndarray, extension: str = ".jpg", quality: int = _QUALITY) -> bytes:
    """Return the file of an image, uint8 RGB (h, w, 3), or of a mask or grey image, (h, w)."""
    ordered = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == ".jpg" else []
    return cv2.imencode(extension, ordered, options)[1].tobytes()


def _decode(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels
