"""TIFF: the fields of the first page, and its pixels with the levels that the file stores."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np

import scanbook
from scanbook.data import levels
from scanbook.errors import ImageError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = 274

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _PLANAR, _TILE_WIDTH, _SUBFILES, _EXTRA, _SAMPLE_FORMAT = 277, 284, 322, 330, 338, 339
_REDUCED, _DNG = 254, 50706
_ASSOCIATED, _UNASSOCIATED = 1, 2
_SIGNED, _FLOAT = 2, 3
_WHITE_IS_ZERO = 0
_SENSOR = (32803, 34892)  # a camera's colour filter, and linear raw
_CHECKED = (5, 8, 32773, 32946)  # LZW, deflate, PackBits and deflate by its old number
_MAX_FIELDS = 2**12
_MAX_BYTES = 6 * scanbook.MAX_PIXELS  # of 16-bit RGB
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}  # of the fields that are read: whole numbers


def read_tags(data: bytes) -> dict[int, int]:
    """Return the first number of each field of the first page by its tag (TIFF 6.0, section 2; BigTIFF too)."""
    return {tag: value for tag, (value, _) in _fields(data).items()}


def _fields(data: bytes) -> dict[int, tuple[int, int]]:
    """Return for each tag its first number and the place of it."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return {}
    big = data[2:4] in (b"+\0", b"\0+")
    count_format, entry, offset = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    size = struct.calcsize("=" + entry)
    fields: dict[int, tuple[int, int]] = {}
    try:
        [start] = struct.unpack_from(order + offset, data, 8 if big else 4)
        [count] = struct.unpack_from(order + count_format, data, start)
        start += struct.calcsize("=" + count_format)
        for place in range(start, start + min(count, _MAX_FIELDS) * size, size):
            tag, kind, number, _ = struct.unpack_from(order + entry, data, place)
            if kind not in _TYPES or not number:
                continue
            at = place + size - (8 if big else 4)
            if number * struct.calcsize("=" + _TYPES[kind]) > (8 if big else 4):
                [at] = struct.unpack_from(order + offset, data, at)
            fields.setdefault(tag, (struct.unpack_from(order + _TYPES[kind], data, at)[0], at))
    except (struct.error, OverflowError):
        pass  # a broken file: the fields before the fault
    return fields


def is_camera_raw(data: bytes) -> bool:
    """Return whether a TIFF holds a camera's raw data: its first page is only a small preview."""
    tags = read_tags(data)
    preview = tags.get(_REDUCED, 0) & 1 and _SUBFILES in tags
    return _DNG in tags or tags.get(_PHOTOMETRIC) in _SENSOR or bool(preview) or data[8:10] == b"CR"


def decode(data: bytes, name: str = "the image") -> tuple[np.ndarray, str]:
    """Decode the first page, without its alpha.

    Args:
        data: The bytes of a TIFF file.
        name: What messages call it.

    Returns:
        RGB, uint8 `(h, w, 3)`, and how its levels became 8 bits (`levels.to_eight_bits`).

    Raises:
        ImageError: The file is broken or too large, or its levels have no brightness.
    """
    fields = _fields(data)
    tags = {tag: value for tag, (value, _) in fields.items()}
    height, width, samples = tags.get(_HEIGHT, 0), tags.get(_WIDTH, 0), tags.get(_SAMPLES, 1)
    bits, kind, extra = tags.get(_BITS, 1), tags.get(_SAMPLE_FORMAT, 1), tags.get(_EXTRA)
    deep = bits > 8 or kind in (_SIGNED, _FLOAT)
    if height * width > scanbook.MAX_PIXELS or (deep and height * width * samples * bits > 8 * _MAX_BYTES):
        raise ImageError(
            f"{name} declares {width} × {height} pixels of {samples} × {bits} bits; expected at most "
            f"{scanbook.MAX_PIXELS:,} pixels in all, and {_MAX_BYTES // 10**6} MB",
            "too_many_pixels",
        )
    if samples > 4:
        raise ImageError(
            f"{name} has {samples} channels; expected grey or RGB; save the channels to show as RGB", "levels"
        )
    alpha = samples in (2, 4) and extra in (_ASSOCIATED, _UNASSOCIATED)
    if extra == _UNASSOCIATED and alpha:
        data = _with_number(data, fields[_EXTRA][1], 0)  # OpenCV would multiply the colours by alpha
    separate = tags.get(_PLANAR) == 2 and samples > 1  # OpenCV mixes the channels up, unless it makes 8 bits of them
    raw = (deep or (alpha and extra == _ASSOCIATED)) and not separate
    shifted = samples == 2 and _TILE_WIDTH in tags  # OpenCV shifts the rows of the tiles at the right edge
    pixels = None if shifted else _imdecode(data, cv2.IMREAD_UNCHANGED if raw else cv2.IMREAD_COLOR)
    if pixels is None:
        raise ImageError(
            f"{name} is a TIFF that cannot be decoded: it is broken, or of a rare kind ({samples} × {bits} bits, "
            f"compression {tags.get(_COMPRESSION, 1)}); copy it again, or save it as 8-bit PNG"
        )
    if not deep and tags.get(_COMPRESSION) in _CHECKED:
        _check_strips(data, name)
    if extra == _ASSOCIATED and alpha and pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _divide_by_alpha(pixels)
    bytes_already = pixels.dtype == np.uint8
    pixels, how = levels.to_eight_bits(pixels, name)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and not bytes_already:
        pixels = 255 - pixels
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        return np.ascontiguousarray(pixels[..., 2::-1]), how
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), how


def _imdecode(data: bytes, flag: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        return None


def _with_number(data: bytes, place: int, number: int) -> bytes:
    """Return the file with another first number of 16 bits at a place, in the file's byte order."""
    return data[:place] + struct.pack(("<" if data[:2] == b"II" else ">") + "H", number) + data[place + 2 :]


def _divide_by_alpha(pixels: np.ndarray) -> np.ndarray:
    """Return colours that were stored multiplied by alpha as they were; black where nothing is seen."""
    whole = np.issubdtype(pixels.dtype, np.integer)
    full = np.iinfo(pixels.dtype).max if whole else 1.0
    alpha = pixels[..., 3:].astype(np.float64)
    colours = pixels[..., :3] * np.divide(full, alpha, out=np.zeros_like(alpha), where=alpha > 0)
    return (np.rint(colours).clip(0, full) if whole else colours).astype(pixels.dtype)


def _check_strips(data: bytes, name: str) -> None:
    """Raise an `ImageError` where a compressed strip is damaged, which OpenCV leaves black without a word."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=["TIFF"]) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # of a kind that only OpenCV reads
    except Exception as error:  # OSError as a rule; a broken file can make Pillow raise anything
        raise ImageError(
            f"{name} is a damaged TIFF ({type(error).__name__} while it was unpacked); copy or download it again"
        ) from None
