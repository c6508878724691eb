"""JPEG, decoded by libjpeg-turbo with every warning that it gives: a damaged file is refused.

OpenCV decodes to the same pixels, but hides the warnings: the first half of a file, closed by an end marker, becomes an
image whose lower half is grey. No decoder notices every changed byte. Huffman codes fall back into step after an error,
so a change that leaves the number of blocks as it was only moves or recolours some of them, without a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import cv2
import numpy as np
import simplejpeg

import scanbook
from scanbook.data import tiff
from scanbook.errors import ImageError

Segment = tuple[int, int, int]
"""Marker, start and end of a segment; of a scan without its pixels."""
START = b"\xff\xd8"
MAX_SCANS = 100
"""Most scans of a JPEG: progressive ones have about ten, and each costs a pass over all pixels, however short."""
MAX_SEGMENTS = 2**16
"""Most segments that are looked at."""

_END, _SCAN, _EXIF, _JPEG_LS = 0xD9, 0xDA, 0xE1, 0xF7
_WITHOUT_LOSS = (0xC3, 0xC7, 0xCB, 0xCF, _JPEG_LS)
_BARE = frozenset({0x01, 0xD8, _END})  # markers without a length that the pattern below finds
_SCANS = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_NEXT_MARKER = re.compile(rb"\xff[^\0\xd0-\xd7\xff]")
# what libjpeg warns of although the pixels are whole: bytes that a camera left, odd headers
_HARMLESS = re.compile(
    "extraneous bytes|JFIF revision|Adobe color transform|SOS parameters|ICC marker|subsampling level"
)
_RESTARTS, _CUTS, _READ_AHEAD = b"\xff\xdd", 8, 10
_FILLED_WITH_0 = "its data end elsewhere than its pixels do"
_LEFT_OVER = re.compile("([0-9]+) extraneous bytes before marker 0xd9")


def decode(data: bytes, name: str = "the image", least: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Return the pixels, turned as EXIF says; at a half, a quarter or an eighth if at least `least` of them remain.

    Args:
        data: The bytes of a JPEG file. Bytes after its end are ignored.
        name: What messages call it.
        least: Height and width that must remain in any orientation; 0 for the whole image.

    Returns:
        RGB, uint8 `(h, w, 3)`.

    Raises:
        ImageError: The file is broken, cut short, damaged or too large.
    """
    header = list(_header(data))
    height, width = _size(data, header)
    if height * width > scanbook.MAX_PIXELS:
        raise ImageError(
            f"{name} declares {width} × {height} pixels; expected at most {scanbook.MAX_PIXELS:,} in all",
            "too_many_pixels",
        )
    if sum(1 for _ in _SCANS.finditer(data)) > MAX_SCANS:
        raise ImageError(f"{name} is a JPEG of more than {MAX_SCANS} scans; save it again with an image editor")
    if not height * width:
        raise _unreadable(name, data, "no size in its header")
    if header[-1][0] != _SCAN:
        raise _unreadable(name, data, "premature end")
    transformed = _has_transform(header)
    scale = _scale((height, width), least) if transformed else 1
    pixels, text = None, "an unsupported kind, such as JPEG without loss"
    try:
        if transformed:
            pixels = simplejpeg.decode_jpeg(data, min_height=height // scale, min_width=width // scale)
    except (ValueError, KeyError) as error:
        text = str(error)
        if damage := _damage(data, text):
            raise _unreadable(name, data, damage) from None
    if transformed and _lacks_scans(data, header):
        raise ImageError(
            f"{name} is a truncated JPEG (some of its scans are missing); copy or download it again", "truncated"
        )
    if pixels is not None:
        return _upright(pixels, _orientation(data, header))
    # not simplejpeg, which ignores every error where it ignores warnings
    pixels = _decode_by_opencv(data, scale)
    if pixels is None:
        raise _unreadable(name, data, text)
    return pixels


def _decode_by_opencv(data: bytes, scale: int) -> np.ndarray | None:
    """Return the pixels of a JPEG, turned as EXIF says; None where it cannot be decoded."""
    flags = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags.get(scale, cv2.IMREAD_COLOR))
    except cv2.error:
        return None
    return None if pixels is None else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def find_damage(data: bytes) -> str:
    """Return what is damaged in a JPEG, in libjpeg's words; "" where nothing is, or where it cannot be decoded."""
    if not _has_transform(_header(data)):
        return ""
    text = _damage(data, _warning(data))
    return "" if "nsupported" in text else text


def has_sound_header(data: bytes) -> bool:
    """Return whether the header of a JPEG, of any kind, is one at which GDCM does not end the process.

    It does so at bytes between segments, at a depth that its kind cannot have, and at a JFIF of another version.
    """
    header = list(_header(data))
    if not header or header[-1][0] != _SCAN:
        return False
    in_order = [start for _, start, _ in header] == [len(START), *(end for _, _, end in header[:-1])]
    jfif = [
        data[start + 9] for marker, start, _ in header if marker == 0xE0 and data[start + 4 : start + 9] == b"JFIF\0"
    ]
    depths = [(marker, data[start + 4]) for marker, start, _ in header if _is_frame(marker)]
    sound = [depth in (range(2, 17) if marker in _WITHOUT_LOSS else (8, 12)) for marker, depth in depths]
    return in_order and sound == [True] and all(version == 1 for version in jfif)


def _has_transform(header: Iterable[Segment]) -> bool:
    """Return whether a JPEG is of a kind that simplejpeg may decode: of others it would write past its memory."""
    return [marker for marker, _, _ in header if _is_frame(marker)][:1] in ([0xC0], [0xC1], [0xC2], [0xC9], [0xCA])


def _damage(data: bytes, text: str) -> str:
    """Return the first warning or error of libjpeg that tells of damage, given the first of all; "" for none.

    libjpeg gives the text of its first warning alone, which may be a harmless one. Then the tables and scans of the
    file are decoded once more without what harmless warnings are about.
    """
    if not _HARMLESS.search(text):
        return text
    left = None
    bare = _bare(data)
    for _ in range(_CUTS):
        text = _warning(bare)
        if not text:
            return _FILLED_WITH_0 if left and _ends_in_zero(bare) else ""
        left = _LEFT_OVER.search(text)
        if not left:
            return "" if "subsampling level" in text else text
        # without these bytes, the decoder tells what else it missed
        bare = _shortened(bare, int(left[1]))
    return text if _RESTARTS in bare else ""


def _warning(data: bytes) -> str:
    """Return the first warning or error of libjpeg; "" without one."""
    try:
        simplejpeg.decode_jpeg(data, min_height=1, min_width=1)
    except (ValueError, KeyError) as error:
        return str(error) or "unknown colours"
    return ""


def _shortened(bare: bytes, count: int) -> bytes:
    """Return a JPEG without the last bytes of its last scan."""
    return bare[: -2 - count] + bare[-2:]


def _ends_in_zero(bare: bytes) -> bool:
    """Return whether the last byte that the pixels need has a 0 that they do not need.

    An encoder fills the last byte with 1 (ITU-T T.81, F.1.2.3). Where a decoder is out of step after an error, the bits
    that are left are any; three times of four one is 0.
    """
    # the decoder reads some bytes ahead, of which it does not warn
    for _ in range(_READ_AHEAD):
        if _warning(_shortened(bare, 1)):
            break
        bare = _shortened(bare, 1)
    last = bare[-3]
    if last == 0xFF or bare[-4:-2] == b"\xff\0":
        return False
    changed = bytes([last | (last + 1)]).replace(b"\xff", b"\xff\0")
    try:
        pixels = simplejpeg.decode_jpeg(bare[:-3] + changed + bare[-2:])
    except ValueError:
        return False
    return np.array_equal(pixels, simplejpeg.decode_jpeg(bare))


def _bare(data: bytes) -> bytes:
    """Return a JPEG without comments, application data and bytes between segments; scans have standard parameters."""
    parts, sequential = [START], True
    segments = list(_segments(data))
    starts = [start for _, start, _ in segments[1:]]
    for (marker, start, end), following in zip(segments, [*starts, len(data)], strict=True):
        segment = data[start:end]
        if _is_frame(marker):
            sequential = marker in (0xC0, 0xC1)
        if marker == _SCAN:
            parts.append((segment[:-3] + b"\0\x3f\0" if sequential else segment) + data[end:following])
        elif not (0xE0 <= marker <= 0xEF or marker in (0xFE, _END)):
            parts.append(segment)
    return b"".join([*parts, b"\xff\xd9"])


def _lacks_scans(data: bytes, header: list[Segment]) -> bool:
    """Return whether a coefficient of a component never comes, or not to its last bit (ITU-T T.81, G.1.1.1)."""
    [frame] = [data[start:end] for marker, start, end in header if _is_frame(marker)][:1]
    if frame[1] in (0xC0, 0xC1) and data[header[-1][1] + 4] == frame[9]:
        return False  # sequential, and the first scan holds every component
    missing = {component: set(range(64)) for component in frame[10::3]}
    for marker, start, end in _segments(data):
        if marker == _SCAN:
            first, last, bits = data[end - 3 : end].ljust(3, b"\0")
            for component in data[start + 5 : end - 3 : 2]:
                if not bits & 15:
                    missing.get(component, set()).difference_update(range(first, last + 1))
    return any(missing.values())


def _unreadable(name: str, data: bytes, text: str) -> ImageError:
    """Return the error for a JPEG that libjpeg refuses or warns of with a text."""
    text = text.removeprefix("Corrupt JPEG data: ")
    pixels = next((end for marker, _, end in _header(data) if marker == _SCAN), len(START))
    if data.find(b"\xff\xd9", pixels) < 0:
        return ImageError(f"{name} is a truncated JPEG (no end marker); copy or download it again", "truncated")
    if text.lower().startswith("premature end"):
        return ImageError(
            f"{name} is a truncated JPEG (its data end before its pixels do); copy or download it again", "truncated"
        )
    if "nsupported" in text or "not implemented" in text or "subsampling" in text:
        if "subsampling" in text:
            text = "its header is damaged, or its colours are sampled in an unusual way"
        reason = "unreadable" if "damaged" in text else "format"
        return ImageError(
            f"{name} is a JPEG that cannot be decoded ({text}); save it as an ordinary JPEG or PNG", reason
        )
    return ImageError(f"{name} is a damaged JPEG that cannot be decoded ({text}); copy or download it again")


def _scale(size: tuple[int, int], least: tuple[int, int]) -> int:
    """Return by how much a JPEG may be reduced so that at least `least` pixels remain in any orientation."""
    for scale in (8, 4, 2):
        # With a size that is not divisible, a part of the last row would be stretched over a whole row.
        if all(least) and min(size) >= scale * max(least) and not any(n % scale for n in size):
            return scale
    return 1


def _segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments up to the end of the image."""
    position = len(START)
    for _ in range(MAX_SEGMENTS):
        match = _NEXT_MARKER.search(data, position)
        if not match:
            return
        start, marker = match.start(), data[match.start() + 1]
        position = start + 2
        if marker not in _BARE:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
        yield marker, start, position
        if marker == _END:
            return


def _header(data: bytes) -> Iterator[Segment]:
    """Yield the segments up to the first scan, that one too."""
    for segment in _segments(data):
        yield segment
        if segment[0] == _SCAN:
            return


def _size(data: bytes, header: list[Segment]) -> tuple[int, int]:
    """Return height and width that a JPEG declares; 0 where it declares none."""
    start = next((start for marker, start, _ in header if _is_frame(marker)), len(data))
    return int.from_bytes(data[start + 5 : start + 7], "big"), int.from_bytes(data[start + 7 : start + 9], "big")


def _is_frame(marker: int) -> bool:
    return (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == _JPEG_LS


def _orientation(data: bytes, header: list[Segment]) -> int:
    """Return the orientation of the first EXIF block, 1 to 8; 1 without one (EXIF 2.3, 4.6.4)."""
    for marker, start, end in header:
        if marker == _EXIF and data[start + 4 : start + 10] == b"Exif\0\0":
            value = tiff.read_tags(data[start + 10 : end]).get(tiff.ORIENTATION, 1)
            return value if 1 <= value <= 8 else 1
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return the pixels in the orientation in which they are seen (EXIF 2.3, tag 0x0112)."""
    if orientation > 4:
        pixels = cv2.transpose(pixels)
    # of rows, of columns or of both
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip)
