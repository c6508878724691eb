"""DICOM files: pixels as a reader sees them, and the patient's id as a group.

pydicom, an optional dependency, is imported only for a DICOM file. No message of this module quotes a header: reports
show messages, and a header names the patient.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import scanbook
from scanbook.data import jpeg
from scanbook.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

_MAGIC, _MAGIC_AT = b"DICM", 128
_GREY = ("MONOCHROME1", "MONOCHROME2")
_FIRST_GROUPS = {b"\2\0": "<", b"\x08\0": "<", b"\0\x08": ">"}  # and the byte order that they show
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _LONG_VRS | frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_PIXELS = (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10")
# with loss, of 8 bits or 12; without loss, twice; JPEG-LS
_JPEGS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
# the only encoding in which a small file may unpack to any size before its header can be read
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def is_dicom(data: bytes) -> bool:
    """Return whether bytes, at least the first 132 of a file, are those of a DICOM file.

    Most have a preamble (PS3.10, 7.1). Others, as old devices and some archives write them, start with the data set.
    """
    order = _FIRST_GROUPS.get(data[:2])
    return _has_preamble(data) or (order is not None and _starts_with_elements(data, order))


def _has_preamble(data: bytes) -> bool:
    return data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def _starts_with_elements(data: bytes, order: str) -> bool:
    """Return whether bytes start with two data elements, the first of group 2 or 8 (PS3.5, 7.1)."""
    position, last = 0, (-1, -1)
    for _ in range(2):
        if position + 12 > len(data):
            return False
        group, element, length = struct.unpack_from(f"{order}HHI", data, position)
        if (group, element) <= last or group not in (2, 8):
            return False
        kind, head = data[position + 4 : position + 6], 8
        if kind in _LONG_VRS:
            [length], head = struct.unpack_from(f"{order}I", data, position + 8), 12
        elif kind in _VRS:
            [length] = struct.unpack_from(f"{order}H", data, position + 6)
        last, position = (group, element), position + head + length
    return True


def is_dicom_file(path: str | Path) -> bool:
    """Return whether a file starts like a DICOM file; false where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return is_dicom(file.read(_MAGIC_AT + len(_MAGIC)))
    except OSError:
        return False


def patient(path: str | Path) -> str:
    """Return the PatientID in a file's header, or "". It identifies a person: never print it.

    Raises:
        ImageError: pydicom is not installed.
    """
    _check_installed()
    from pydicom import dcmread

    try:
        force = is_dicom_file(path)  # without it, pydicom refuses a file without a preamble
        header = dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"], force=force)
        return str(header.get("PatientID") or "").strip()
    except Exception:  # a broken file can make pydicom raise anything; it is reported when its pixels are read
        return ""


def read(data: bytes) -> np.ndarray:
    """Decode a DICOM image of one frame.

    Grey levels go through the modality LUT or rescale, then the first VOI LUT or window (PS3.3, C.11.1 and C.11.2).
    Without a window, unsigned levels of up to 8 bits are scaled from all their bits to 8, so those of 8 bits are
    unchanged; others are scaled from the lowest to the highest level.
    MONOCHROME1 is inverted, so that high values are bright.

    Args:
        data: The bytes of the file.

    Returns:
        RGB, uint8 `(h, w, 3)`.

    Raises:
        ImageError: The file is broken, too large, holds several frames or none, is of a kind that cannot be decoded,
            may show the patient's name, or pydicom is not installed.
    """
    _check_installed()
    from pydicom import dcmread

    if _DEFLATED in data[:2048]:
        raise ImageError("the image is a deflated DICOM file, which is not read; export it again, uncompressed")
    try:
        header = dcmread(io.BytesIO(data), force=not _has_preamble(data))
        frames = int(header.get("NumberOfFrames") or 1)
        height, width = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        burned_in = str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"
        kind = str(header.get("PhotometricInterpretation") or "")
        syntax = header.file_meta.get("TransferSyntaxUID")
        if syntax is None:
            header.file_meta.TransferSyntaxUID = syntax = _guess_syntax(header)
        encoding = syntax.name if syntax is not None and syntax.is_transfer_syntax else "an unknown encoding"
    except Exception as error:  # of a broken file; the message may quote the header
        raise ImageError(
            f"the image is a broken DICOM file ({type(error).__name__}); copy or export it again"
        ) from None
    if burned_in:
        raise ImageError(
            "the image has annotations burned in and may show who the patient is; remove or mask it",
            "identifying",
        )
    if "PixelData" not in header and any(tag in data for tag in _PIXELS):
        raise ImageError("the image is a truncated DICOM file; copy or export it again", "truncated")
    if not height or not width:
        raise ImageError("the image is a DICOM file without an image; remove it", "not_an_image")
    if frames > 1:
        raise ImageError(
            f"the image is a DICOM file of {frames} frames, expected 1; export the frames one by one", "several_frames"
        )
    if height * width > scanbook.MAX_PIXELS:
        raise ImageError(
            f"the image declares {width} × {height} pixels; expected at most {scanbook.MAX_PIXELS:,} in all",
            "too_many_pixels",
        )
    try:
        pixels = _decoded(header, kind)
        if pixels.shape != (height, width, 3):
            raise ValueError(f"{pixels.shape}, expected {(height, width, 3)}")  # its header contradicts itself
        return pixels
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            f"the image is a DICOM file that cannot be decoded ({encoding}, {type(error).__name__}); "
            "export it again, uncompressed"
        ) from None


def _decoded(header: Dataset, kind: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

    _check_frame(header)
    stored = pixel_array(header)  # YBR becomes RGB here
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)
        return np.ascontiguousarray(colours[..., :3] if colours.dtype == np.uint8 else colours[..., :3] >> 8, np.uint8)
    if stored.ndim == 3:
        excess = int(header.BitsStored) - 8
        return np.ascontiguousarray(stored >> excess if excess > 0 else stored, np.uint8)
    if kind not in _GREY:
        raise ValueError(f"{stored.shape} of another kind than {_GREY}")
    levels = apply_modality_lut(stored, header)
    grey = _through_voi_lut(levels, header)
    if grey is None:
        grey = _through_window(levels, header)
    if grey is None and stored.dtype == np.uint8 and levels is stored:
        grey = stored * (255 / (2 ** min(int(header.BitsStored), 8) - 1))
    if grey is None:
        padding = header.get("PixelPaddingValue")
        grey = _spread(levels, levels if padding is None else levels[stored != padding])
    del levels  # each of these arrays has 400 MB at 50 megapixels
    if kind == "MONOCHROME1":
        np.subtract(255, grey, out=grey)
    return np.repeat(np.rint(grey, out=grey).clip(0, 255, out=grey).astype(np.uint8)[..., None], 3, axis=2)


def _guess_syntax(header: Dataset) -> UID:
    """Return the uncompressed transfer syntax in which pydicom found a data set that names none."""
    from pydicom import uid

    implicit, little = header.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _check_frame(header: Dataset) -> None:
    """Raise an `ImageError` where a JPEG in the file is damaged, which its decoders show without a word."""
    from pydicom.encaps import generate_frames

    if header.file_meta.TransferSyntaxUID in _JPEGS:
        frame = next(generate_frames(header.PixelData, number_of_frames=1))
        damage = jpeg.find_damage(frame) if jpeg.has_sound_header(frame) else "its header is wrong"
        if damage:
            raise ImageError(f"the image is a DICOM file whose JPEG is damaged ({damage}); copy or export it again")


def _through_voi_lut(levels: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Return the levels through the first VOI LUT, 0 to 255; None without one (PS3.3, C.11.2.1.1).

    pydicom's own look-up wraps around for tables of more than 256 entries of 8 bits.
    """
    tables = header.get("VOILUTSequence")
    if not tables:
        return None
    count, first, bits = (int(number) for number in tables[0].LUTDescriptor)
    raw = tables[0].LUTData
    order = "<" if header.original_encoding[1] else ">"
    table = np.frombuffer(raw, f"{order}u2") if isinstance(raw, bytes) else np.asarray(raw)
    table = table[: count or 2**16].astype(float)
    if first > 2**15 and levels.min() < 0:  # written as unsigned, meant as signed
        first -= 2**16
    return table[(levels.round().astype(np.int64) - first).clip(0, len(table) - 1)] * (255 / (2**bits - 1))


def _through_window(levels: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Return the levels through the first window, 0 to 255; None without a valid one."""
    from pydicom.dataset import Dataset
    from pydicom.pixels import apply_windowing

    window = Dataset()
    for name in ("WindowCenter", "WindowWidth"):
        value = header.get(name)
        if value is None or value == "":
            return None
        setattr(window, name, value if isinstance(value, (int, float)) else value[0])
    shape = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if window.WindowWidth < (1 if shape == "LINEAR" else 1e-9):
        return None
    # the window of an unsigned 8-bit image: pydicom then spreads it from 0 to 255
    window.VOILUTFunction, window.PhotometricInterpretation = shape, "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 8, 0
    return apply_windowing(levels, window)


def _spread(levels: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Return the levels scaled from the lowest to the highest of `counted`, 0 to 255; all 0 where these are equal."""
    finite = counted[np.isfinite(counted)]
    if not finite.size or finite.min() == finite.max():
        return np.zeros(levels.shape)
    low, high = float(finite.min()), float(finite.max())
    return (np.nan_to_num(levels.astype(float), nan=low).clip(low, high) - low) * (255 / (high - low))


def _check_installed() -> None:
    """Raise an `ImageError` where pydicom is not installed."""
    if not _is_installed():
        raise ImageError('the image is DICOM, which needs pydicom: pip install "scanbook[dicom]"', "no_dicom")


@cache
def _is_installed() -> bool:
    """Return whether pydicom is installed; if so, silence it, since its warnings quote header values."""
    if not _importable("pydicom"):
        return False
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")
    if not _importable("gdcm"):
        return True
    import gdcm

    for switch_off in (gdcm.Trace.DebugOff, gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff):
        switch_off()
    return True


def _importable(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True
