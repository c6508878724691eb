"""The pixel cache: every image and mask is decoded once, in parallel, into a memory-mapped array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from scanbook import runtime
from scanbook.data import images
from scanbook.data.manifest import Manifest
from scanbook.errors import ImageError
from scanbook.store import fingerprint, stage


def load(manifest: Manifest, size: tuple[int, int]) -> np.ndarray:
    """Return the images of a manifest at one size.

    Args:
        manifest: The dataset with its splits.
        size: Height and width.

    Returns:
        Read-only memory map, uint8 `(n, h, w, 3)`, RGB, in the manifest's order; excluded images are zeros.
    """
    folder = _decoded("pixels", manifest, "path", (*size, 3), lambda path: images.load(path, size))
    return np.load(folder / "array.npy", mmap_mode="r")


def masks(manifest: Manifest, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of a manifest at one size, and which images have one.

    Returns:
        Read-only memory map, bool `(n, h, w)`, in the manifest's order, and bool `(n,)`: false, like the mask, for
        images that are excluded, have no mask, or have one that cannot be decoded.
    """

    def decode(path: Path) -> np.ndarray | None:
        try:
            return images.load_mask(path, size)
        except ImageError:
            return None

    folder = _decoded("masks", manifest, "mask_path", size, decode)
    return np.load(folder / "array.npy", mmap_mode="r"), np.load(folder / "filled.npy")


def _decoded(
    kind: str, manifest: Manifest, column: str, shape: tuple[int, ...], decode: Callable[[Path], np.ndarray | None]
) -> Path:
    """Return the folder with `array.npy` and `filled.npy`, which of its rows were decoded."""
    frame = manifest.frame
    rows = np.flatnonzero(((frame["split"] != "") & (frame[column] != "")).to_numpy())

    def build(folder: Path) -> None:
        dtype = np.uint8 if len(shape) == 3 else np.bool_
        array = np.lib.format.open_memmap(folder / "array.npy", "w+", dtype, (len(frame), *shape))
        filled = np.zeros(len(frame), bool)
        paths = frame[column].to_numpy()

        def fill(row: int) -> None:
            decoded = decode(Path(paths[row]))
            if decoded is not None:
                array[row], filled[row] = decoded, True

        for _ in runtime.progress(runtime.in_threads(fill, rows), f"decoding {kind}", len(rows)):
            pass
        array.flush()
        np.save(folder / "filled.npy", filled)

    return stage(kind, {"manifest": manifest.fingerprint(splits=False), "shape": shape}, build, __name__)


def sample_fingerprint(images: np.ndarray) -> str:
    """Return a fingerprint of up to 256 evenly spaced images, which depends on how they were decoded and resized.

    The fingerprint of the manifest depends on the files only.

    Args:
        images: uint8 `(n, h, w, 3)`, or masks, bool `(n, h, w)`.
    """
    rows = np.linspace(0, len(images) - 1, min(len(images), 256)).astype(int)
    return fingerprint(np.ascontiguousarray(images[rows]).tobytes())
