"""What real datasets have wrong with them, done to a picture: spoilt files, and near-duplicates of ten kinds."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from scanbook.data.adapters.synthetic.canvas import Rng

ORIENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rotated 90": lambda pixels: np.rot90(pixels, 1),
    "rotated 180": lambda pixels: np.rot90(pixels, 2),
    "rotated 270": lambda pixels: np.rot90(pixels, 3),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "flipped": lambda pixels: pixels[::-1],
    "transposed": lambda pixels: np.swapaxes(pixels, 0, 1),
    "transverse": lambda pixels: np.swapaxes(pixels[::-1, ::-1], 0, 1),
}
"""The seven orientations of a picture, (h, w) or (h, w, 3), besides its own; rotations are anticlockwise."""
JPEG_50, HALF, CROP = "JPEG quality 50", "half size", "crop 5 %"
NEAR_DUPLICATES: tuple[str, ...] = (*ORIENTATIONS, JPEG_50, HALF, CROP)
"""Names of the near-duplicates that are planted, in the order in which they are."""
SPOILT: tuple[str, ...] = ("truncated", "zero_byte", "dark", "blurred")
"""Names of the faults of a single file; the first two cannot be decoded."""
UNREADABLE = SPOILT[:2]
_QUALITY, _POOR_QUALITY = 90, 50
_TRIM = 0.05  # of the side, so up to this much at one edge


def near_duplicate(
    how: str, picture: np.ndarray, mask: np.ndarray | None, rng: Rng, extension: str = ".jpg"
) -> tuple[bytes, np.ndarray | None]:
    """Make the file of a near-duplicate.

    Args:
        how: One of `NEAR_DUPLICATES`. A crop trims 5 % of height and width, split at random between opposite edges.
        picture: uint8, RGB (h, w, 3) or grey (h, w).
        mask: uint8 (h, w), changed with the picture, or None.
        rng: Places the crop; used for nothing else.
        extension: Format of the file, ".jpg" or ".png". As PNG, "JPEG quality 50" holds the pixels of such a JPEG.

    Returns:
        The file's content and the mask.

    Raises:
        ValueError: No near-duplicate is called so.
    """
    if how in ORIENTATIONS:
        turn = ORIENTATIONS[how]
        return encode(turn(picture), extension), None if mask is None else np.ascontiguousarray(turn(mask))
    if how == JPEG_50:
        data = encode(picture, ".jpg", _POOR_QUALITY)
        return (data if extension == ".jpg" else encode(_decode(data), extension)), mask
    height, width = picture.shape[:2]
    if how == HALF:
        half = (max(1, width // 2), max(1, height // 2))
        smaller = None if mask is None else cv2.resize(mask, half, interpolation=cv2.INTER_NEAREST)
        return encode(cv2.resize(picture, half, interpolation=cv2.INTER_AREA), extension), smaller
    if how == CROP:
        less_high, less_wide = (max(1, round(_TRIM * side)) for side in (height, width))
        top, left = int(rng.integers(less_high + 1)), int(rng.integers(less_wide + 1))
        kept = np.s_[top : top + height - less_high, left : left + width - less_wide]
        return encode(picture[kept], extension), None if mask is None else np.ascontiguousarray(mask[kept])
    raise ValueError(f"no near-duplicate is called {how!r}; expected one of {', '.join(NEAR_DUPLICATES)}")


def spoil(picture: np.ndarray, fault: str, extension: str = ".jpg") -> bytes:
    """Return the file of a picture, uint8 (h, w, 3) or (h, w), spoilt by one of `SPOILT`; sound where `fault` is ""."""
    if fault == "zero_byte":
        return b""
    if fault == "dark":
        picture = cv2.convertScaleAbs(picture, alpha=0.035)
    elif fault == "blurred":
        picture = cv2.GaussianBlur(picture, (0, 0), max(picture.shape[:2]) / 24)
    data = encode(picture, extension)
    # Decoders fill in a picture whose data stop half-way; one that stops within the tables none can start.
    return data[: 150 if extension == ".jpg" else 30] if fault == "truncated" else data


def encode(pixels: np.ndarray, extension: str = ".jpg", quality: int = _QUALITY) -> bytes:
    """Return the file of a picture, uint8 RGB (h, w, 3), or of a mask or grey picture, (h, w)."""
    ordered = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == ".jpg" else []
    return cv2.imencode(extension, ordered, options)[1].tobytes()


def _decode(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels
