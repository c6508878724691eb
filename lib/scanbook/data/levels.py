"""Levels of more than 8 bits, signed levels and floating-point ones become 8 bits by one rule for every image.

The rule depends on the brightest pixel of an image only by a coarse choice of the range. Stretching each image from its
own darkest to its own brightest pixel would make a dark image as bright as a bright one: images could not be compared.
"""

from __future__ import annotations

import numpy as np

from scanbook.errors import ImageError

BITS = (8, 12, 16)
"""Ranges of whole levels. An image has the smallest that holds its highest level, so that 12-bit images that are stored
in 16 bits use all 256 levels. 10 and 14 bits are missing on purpose: with them, a 12-bit image whose brightest pixel is
below a quarter of the range would look four times as bright as others of its dataset. With these three, only one whose
brightest pixel is below a sixteenth does; images of 10 and 14 bits have a quarter of the brightness, all of them."""
HOUNSFIELD = (-1024, 3071)
"""Range of signed levels: those of computed tomography in 12 bits."""
_LOWEST, _HIGHEST = -4096, 4095
_ADVICE = "scale them to 8 or 16 bits with the same limits for all images"


def to_eight_bits(stored: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """Return stored levels as 8-bit levels, and the rule by which they became so.

    Whole levels from 0 keep the upper 8 of 8, 12 or 16 bits (`BITS`). Signed ones are taken for Hounsfield units:
    -1024 to 3071 become 0 to 255, and what lies beyond is cut off. Floating-point levels from 0 to 1 become 0 to 255;
    from 0 to more than 1 they count as whole levels.

    Args:
        stored: Levels of an image, of any number type.
        name: What messages call the image.

    Returns:
        uint8 of the same shape, and a template for the kind of the image: "16-bit {}" for "16-bit grey"; "{}" for 8
        bits.

    Raises:
        ImageError: The levels have no known relation to brightness.
    """
    if stored.dtype == np.uint8:
        return stored, "{}"
    whole = np.issubdtype(stored.dtype, np.integer)
    low, high = stored.min(), stored.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(
            f"{name} has levels that are no numbers (NaN or infinite); replace them, then {_ADVICE}", "levels"
        )
    if low < 0 and whole and stored.dtype != np.int8 and low >= _LOWEST and high <= _HIGHEST:
        shifted = stored.astype(np.int32).clip(*HOUNSFIELD) - HOUNSFIELD[0]
        return (shifted >> 4).astype(np.uint8), f"signed {{}} ({HOUNSFIELD[0]} to {HOUNSFIELD[1]})"
    if low < 0 or high >= 2 ** BITS[-1]:
        kind = "whole" if whole else "floating-point"
        raise ImageError(
            f"{name} has {kind} levels from {low:g} to {high:g}, whose brightness is unknown; expected 0 to 255, 4095 "
            f"or 65535, {'-1024 to 3071 (CT)' if whole else '0 to 1'}; {_ADVICE}",
            "levels",
        )
    if not whole and high <= 1:
        return np.rint(stored * 255.0).astype(np.uint8), "floating-point {} (0 to 1)"
    bits = next(bits for bits in BITS if high < 2**bits)
    eight = (stored >> (bits - 8) if whole else stored / 2 ** (bits - 8)).astype(np.uint8)
    if not whole:
        return eight, f"floating-point {{}} (0 to {2**bits - 1})"
    return eight, f"{bits}-bit {{}}" if bits == 16 else f"{bits}-bit {{}} in {8 * stored.itemsize}-bit"
