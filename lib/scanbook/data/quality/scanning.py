"""The scan: every image is read once and described by a few numbers."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from scanbook import runtime
from scanbook.data import dicom, images
from scanbook.data.manifest import Manifest
from scanbook.errors import ImageError
from scanbook.store import stage

SIDE = 64
"""Height and width of the grey pictures on which copies are compared."""
_TEXT = ("error", "sha256", "format", "mode")
_NUMBERS = (
    *("bytes", "width", "height", "brightness", "contrast", "sharpness", "saturation"),
    *("red", "green", "blue"),
)
_MEASURED = 192
_MODES = {"L": "grey", "LA": "grey with alpha", "1": "black and white", "P": "palette", "PA": "palette with alpha"}


def scan(manifest: Manifest) -> pd.DataFrame:
    """Describe every image of a manifest.

    Args:
        manifest: The dataset.

    Returns:
        One row per image, in the manifest's order: `image_id`; `error`, a sentence where the file cannot be decoded,
        else ""; `sha256` of the file; `format` ("JPEG", "PNG", "DICOM") and `mode` ("grey", "RGB", "RGBA", "palette",
        "12-bit grey in 16-bit"), "" where it is unknown; `bytes`, `width`, `height`; `brightness`
        and `contrast` (mean and standard deviation of grey levels, 0 to 255); `sharpness` (decimal logarithm of the
        variance of the Laplacian at 192 pixels); `saturation` (mean over pixels of the largest less the smallest
        channel, 0 to 255); `red`, `green`, `blue` (means, 0 to 255).
    """
    text = dict.fromkeys(("image_id", *_TEXT), str)
    numbers = {name: [""] for name in _NUMBERS}
    return pd.read_csv(_folder(manifest) / "quality.csv", dtype=text, keep_default_na=False, na_values=numbers)


def pictures(manifest: Manifest) -> np.ndarray:
    """Return small grey pictures, uint8 `(n, SIDE, SIDE)`, stretched to a square; black where a file is unreadable.

    They are a memory-mapped file, in the manifest's order.
    """
    return np.load(_folder(manifest) / "pictures.npy", mmap_mode="r")


def _folder(manifest: Manifest) -> Path:
    def build(folder: Path) -> None:
        paths, ids = manifest.frame["path"].to_numpy(), manifest.frame["image_id"].to_numpy()
        small = np.lib.format.open_memmap(folder / "pictures.npy", "w+", np.uint8, (len(paths), SIDE, SIDE))
        described = runtime.progress(runtime.in_threads(describe, paths), "reading images", len(paths))
        with (folder / "quality.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, ["image_id", *_TEXT, *_NUMBERS], lineterminator="\n")
            table.writeheader()
            for index, (row, picture) in enumerate(described):
                table.writerow(
                    {"image_id": ids[index], **{key: value for key, value in row.items() if pd.notna(value)}}
                )
                small[index] = picture
        small.flush()

    return stage("quality", {"manifest": manifest.fingerprint()}, build, __name__)


def describe(path: str) -> tuple[dict[str, str | float], np.ndarray]:
    """Return one image's row of `scan`, without its id, and its grey picture, uint8 `(SIDE, SIDE)`."""
    row: dict[str, str | float] = dict.fromkeys(_TEXT, "") | dict.fromkeys(_NUMBERS, np.nan)
    black = np.zeros((SIDE, SIDE), np.uint8)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return row | {"error": f"cannot be read: {error.strerror}"}, black
    row |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    row["format"], row["mode"] = _header(data)
    try:
        pixels, depth = images.read_with_depth(data)
    except ImageError as error:
        return row | {"error": str(error).split(";")[0].removeprefix("the image ")}, black
    if depth != "{}":
        row["mode"] = depth.format(row["mode"] or ("grey" if (pixels == pixels[..., :1]).all() else "RGB"))
    height, width = pixels.shape[:2]
    scale = _MEASURED / max(height, width)
    small = images.resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    red, green, blue = cv2.mean(small)[:3]
    channels = cv2.split(small)
    lowest, highest = cv2.min(cv2.min(*channels[:2]), channels[2]), cv2.max(cv2.max(*channels[:2]), channels[2])
    row |= {
        "width": width,
        "height": height,
        "brightness": round(float(grey.mean()), 3),
        "contrast": round(float(grey.std()), 3),
        "sharpness": round(float(np.log10(cv2.Laplacian(grey, cv2.CV_32F).var() + 1e-3)), 4),
        "saturation": round(cv2.mean(cv2.subtract(highest, lowest))[0], 3),
        "red": round(red, 3),
        "green": round(green, 3),
        "blue": round(blue, 3),
    }
    if row["format"] == "DICOM":  # its header is not read here: the pixels show whether it is grey
        row["mode"] = "grey" if row["saturation"] == 0 else "RGB"
    return row, images.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (SIDE, SIDE))


def _header(data: bytes) -> tuple[str, str]:
    """Return the format and mode that the header of a file declares; "" where unknown."""
    if dicom.is_dicom(data):
        return "DICOM", ""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind, mode = image.format or "", image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "", ""
    return kind, "grey" if mode == "F" or mode.startswith("I") else _MODES.get(mode, mode)
