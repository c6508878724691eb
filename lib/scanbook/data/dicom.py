"""DICOM files: pixels as a reader sees them, and the patient's id as a group.

pydicom, an optional dependency, is imported only for a DICOM file. No message of this module quotes a header: reports
show messages, and a header names the patient.
"""

from __future__ import annotations

import io
import logging
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import scanbook
from scanbook.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MAGIC, _MAGIC_AT = b"DICM", 128
_GREY = ("MONOCHROME1", "MONOCHROME2")
# the only encoding in which a small file may unpack to any size before its header can be read
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def is_dicom(data: bytes) -> bool:
    """Return whether bytes, at least the first 132 of a file, are those of a DICOM file (PS3.10, 7.1)."""
    return data[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def is_dicom_file(path: str | Path) -> bool:
    """Return whether a file starts like a DICOM file; false where it cannot be read."""
    try:
        with open(path, "rb") as file:
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
        return str(dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID") or "").strip()
    except Exception:  # a broken file can make pydicom raise anything; it is reported when its pixels are read
        return ""


def read(data: bytes) -> np.ndarray:
    """Decode a DICOM image of one frame.

    Grey levels go through the modality LUT or rescale, then the first VOI LUT or window (PS3.3, C.11.1 and C.11.2).
    Without a window, unsigned 8-bit levels are unchanged and others are scaled from the lowest to the highest level.
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
        header = dcmread(io.BytesIO(data))
        frames = int(header.get("NumberOfFrames") or 1)
        height, width = int(header.get("Rows") or 0), int(header.get("Columns") or 0)
        burned_in = str(header.get("BurnedInAnnotation") or "").strip().upper() == "YES"
        kind = str(header.get("PhotometricInterpretation") or "")
        syntax = header.file_meta.get("TransferSyntaxUID")
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
    except Exception as error:
        raise ImageError(
            f"the image is a DICOM file that cannot be decoded ({encoding}, {type(error).__name__}); "
            "export it again, uncompressed"
        ) from None


def _decoded(header: Dataset, kind: str) -> np.ndarray:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

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
        grey = stored.astype(float)
    if grey is None:
        padding = header.get("PixelPaddingValue")
        grey = _spread(levels, levels if padding is None else levels[stored != padding])
    del levels  # each of these arrays has 400 MB at 50 megapixels
    if kind == "MONOCHROME1":
        np.subtract(255, grey, out=grey)
    return np.repeat(np.rint(grey, out=grey).clip(0, 255, out=grey).astype(np.uint8)[..., None], 3, axis=2)


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
