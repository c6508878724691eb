"""Every image decoded once, in parallel, into one memory-mapped array; and its mask, where there is one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scanbook import images, runtime
from scanbook.errors import DataError
from scanbook.manifest import Manifest
from scanbook.store import fingerprint, stage


def load(manifest: Manifest, size: tuple[int, int]) -> np.ndarray:
    """The images of a manifest at a size.

    Args:
        manifest: The dataset, split.
        size: Height and width.

    Returns:
        Read-only memory map, uint8 `(n, h, w, 3)`, RGB, in the manifest's order; rows in no part are zeros.
    """
    return _cached("pixels", manifest, "path", (*size, 3), lambda path: images.load(path, size))


def masks(manifest: Manifest, size: tuple[int, int]) -> np.ndarray:
    """The masks of a manifest at a size.

    Returns:
        Read-only memory map, bool `(n, h, w)`, in the manifest's order; rows without a mask are false.

    Raises:
        DataError: The dataset has no masks.
    """
    if not (manifest.frame["mask_path"] != "").any():
        raise DataError(f"dataset {manifest.name} has no masks; name mask_folder in its study, or skip what needs them")
    return _cached("masks", manifest, "mask_path", size, lambda path: images.load_mask(path, size))


def _cached(
    kind: str, manifest: Manifest, column: str, shape: tuple[int, ...], decode: Callable[[Path], np.ndarray]
) -> np.ndarray:
    frame = manifest.frame
    rows = np.flatnonzero(((frame["part"] != "") & (frame[column] != "")).to_numpy())

    def build(folder: Path) -> None:
        dtype = np.uint8 if len(shape) == 3 else np.bool_
        array = np.lib.format.open_memmap(folder / "array.npy", "w+", dtype, (len(frame), *shape))
        paths = frame[column].to_numpy()

        def fill(row: int) -> None:
            array[row] = decode(Path(paths[row]))

        with ThreadPoolExecutor(runtime.cores()) as pool:
            for _ in runtime.progress(pool.map(fill, rows), f"decoding {kind}", len(rows)):
                pass
        array.flush()

    folder = stage(kind, {"manifest": manifest.fingerprint(), "shape": shape}, build, __name__)
    return np.load(folder / "array.npy", mmap_mode="r")


def sample_fingerprint(images: np.ndarray) -> str:
    """Fingerprint of up to 256 images, evenly spread: it changes with the code that decoded, resized or cut them out.

    The manifest's own fingerprint knows the files, but not what was made of them.

    Args:
        images: uint8 `(n, h, w, 3)`, or masks, bool `(n, h, w)`.
    """
    picked = np.linspace(0, len(images) - 1, min(len(images), 256)).astype(int)
    return fingerprint(np.ascontiguousarray(images[picked]).tobytes())
