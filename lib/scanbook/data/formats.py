"""Files that are not read: what their first bytes say they are, and what to do with them."""

from __future__ import annotations

from collections.abc import Callable

from scanbook.data import tiff
from scanbook.errors import Reason

_PICTURE = "save it as PNG"
_VOLUME = "export its slices as DICOM, or as PNG with the same grey levels for all"
_ARRAY = "save each image in it as PNG"
_RAW = ("a camera's raw file", "develop it to PNG or TIFF")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF = (b"avif", b"avis")

# first bytes, name, advice
_FORMATS: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    ((b"GIF8",), "a GIF", _PICTURE),
    ((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "a JPEG 2000 image", _PICTURE),
    ((b"\0\0\0\x0cJXL ", b"\xff\x0a"), "a JPEG XL image", _PICTURE),
    (tuple(b"P%d%c" % (n, c) for n in range(1, 8) for c in b" \t\n\r#"), "a PPM, PGM or PBM image", _PICTURE),
    ((b"8BPS",), "a Photoshop file (PSD)", _PICTURE),
    ((b"\x76\x2f\x31\x01",), "an OpenEXR image", _PICTURE),
    ((b"#?RADIANCE", b"#?RGBE"), "a Radiance HDR image", _PICTURE),
    ((b"\0\0\1\0", b"\0\0\2\0"), "an icon (ICO)", _PICTURE),
    ((b"IIRO", b"IIRS", b"IIU\0", b"MMOR", b"FUJIFILMCCD-RAW", b"\0MRM"), *_RAW),
    ((b"NRRD000",), "an NRRD volume", _VOLUME),
    ((b"ObjectType =", b"NDims ="), "a MetaImage volume", _VOLUME),
    ((b"\x93NUMPY",), "a NumPy array (.npy)", _ARRAY),
    ((b"\x89HDF\r\n",), "an HDF5 file", _ARRAY),
    ((b"MATLAB 5.0",), "a MATLAB file", _ARRAY),
)
_OTHER_FILES: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    ((b"%PDF",), "a PDF document", "save each of its images as PNG"),
    ((b"PK\3\4",), "a ZIP archive or .npz file", "unpack it"),
    ((b"\x1f\x8b",), "a gzip archive, such as a .nii.gz volume", f"unpack it; of a volume, {_VOLUME}"),
    ((b"version https://git-lfs",), "a Git LFS pointer in place of the file", "fetch the file with: git lfs pull"),
    ((b"\0\5\x16\7", b"\0\5\x16\0"), "a side file of a Mac", "remove it"),
)


def is_avif(data: bytes) -> bool:
    """Return whether a file is an AVIF image, by its brands (ISO/IEC 14496-12, 4.3)."""
    brands = _brands(data)
    return any(brand in _AVIF for brand in brands) and not any(brand in _HEIC[:6] for brand in brands)


def identify(data: bytes) -> tuple[str, str, Reason] | None:
    """Return what a file is that is not read, what to do with it and why it is refused; None for any other file."""
    for table, reason in ((_FORMATS, "format"), (_OTHER_FILES, "not_an_image")):
        for starts, name, advice in table:
            if data.startswith(starts):
                return name, advice, reason
    return next(((name, advice, "format") for applies, name, advice in _BY_CONTENT if applies(data)), None)


def _brands(data: bytes) -> tuple[bytes, ...]:
    """Return the brands of a file in ISO's container, none of another."""
    if data[4:8] != b"ftyp":
        return ()
    end = min(int.from_bytes(data[:4], "big"), 256, len(data))
    return (data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4)))


# what the first bytes alone do not tell; the first that applies
_BY_CONTENT: tuple[tuple[Callable[[bytes], bool], str, str], ...] = (
    (lambda data: b"crx " in _brands(data), *_RAW),
    (lambda data: any(brand in _HEIC for brand in _brands(data)), "a HEIC image", "save it as JPEG or PNG"),
    (lambda data: bool(_brands(data)), "a video (MP4 or MOV)", "save its frames as PNG"),
    (lambda data: data[344:348] in (b"n+1\0", b"ni1\0"), "a NIfTI volume", _VOLUME),
    (lambda data: data.startswith(tiff.SIGNATURES) and tiff.is_camera_raw(data), *_RAW),
    (lambda data: data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"), "an SVG, HTML or XML text", _PICTURE),
)
