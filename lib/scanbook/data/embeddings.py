"""Vectors that the models of a study take in place of images: an `.npz` file, checked, or written in pieces."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook.config import Study
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError
from scanbook.store import atomic_write, file_digest, fingerprint, stage

IDS, VECTORS, ABOUT = "image_id", "vector", "about"
"""Names of the arrays: names of m images, their vectors `(m, channels)`, and JSON that tells where these come from."""
_NAMED = 3
"""Images that a message names."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of a file.

    Attributes:
        path: The file.
        digest: Its SHA-256.
        ids: Names of m images, as texts.
        vectors: Read-only memory map, float32 `(m, channels)`.
        about: What the file tells of their origin, as `scanbook embed` writes it; may be empty.
    """

    path: Path
    digest: str
    ids: np.ndarray
    vectors: np.ndarray
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """What computed the vectors, in words; "" where the file does not tell."""
        about = self.about
        if "backbone" not in about:
            return ""
        height, width = about.get("image_size", (0, 0))
        form = {"cutout": ", cut out by a mask,", "crop": ", cropped to a mask's box,"}.get(about.get("input", ""), "")
        version = f" (scanbook {about['scanbook']})" if "scanbook" in about else ""
        return (
            f"{about['backbone']} at {height} × {width} pixels{form or ','} pretrained on: "
            f"{about.get('pretrained on', 'not stated')}{version}"
        )

    @property
    def in_words(self) -> str:
        """What a report says of the file."""
        count, channels = self.vectors.shape
        computed = f"computed by {self.origin}" if self.origin else "of which the file does not tell the network"
        of = f"{count:,} vectors of {channels:,} channels"
        return f"{of} (file {self.path.name}, SHA-256 {self.digest[:16]}…), {computed}"


def check_file(study: Study) -> None:
    """Raise a `DataError` if a study names a file of vectors that is not there."""
    path = study.embeddings
    if path is not None and not path.is_file():
        raise DataError(
            f"study {study.study}: no file of embeddings at {path}; write it with scanbook embed {study.study} "
            f"--backbone NAME --to {study.dataset.embeddings}, or correct dataset.embeddings"
        )


def read(study: Study) -> Embeddings:
    """Return the vectors of a study's file.

    Raises:
        DataError: The file is missing, is not such an archive, or holds names or vectors that cannot be used.
    """
    check_file(study)
    path = study.embeddings
    digest = _digest(path, *_stamp(path))

    def build(folder: Path) -> None:
        ids, vectors, about = _read(path)
        np.save(folder / "vectors.npy", vectors)
        atomic_write(folder / "about.json", json.dumps({"ids": ids, "about": about}))

    folder = stage("embeddings", {"file": digest}, build, __name__)
    kept = json.loads((folder / "about.json").read_text())
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    return Embeddings(path, digest, np.array(kept["ids"], object), vectors, kept["about"])


def notes(study: Study, manifest: Manifest) -> list[str]:
    """Return what a report says of vectors of no image of the study, or of images that were others; none if all fit.

    Args:
        study: The study.
        manifest: All its images.

    Raises:
        DataError: No name is that of an image, the vectors are of other synthetic images, or the file cannot be used.
    """
    found = read(study)
    computed_of = found.about.get("data", "")
    other = bool(computed_of) and computed_of != manifest.facts.get("data", "")
    stand_in = f"synthetic ones, since there are none at {study.location}" if study.on_stand_in else ""
    if other and (study.on_stand_in or study.dataset.adapter == "synthetic"):
        cause = (
            f"this study runs on {stand_in}" if stand_in else "synthetic ones of another profile, setting or version"
        )
        raise DataError(
            f"study {study.study}: {found.path} was computed from other images: {cause}; name their place with --data, "
            f"or write the file again with scanbook embed {study.study}"
        )
    changed = f"The files of the dataset have changed since {found.path.name} was computed from them."
    noted = [changed] if other else []
    foreign = ~np.isin(found.ids.astype(str), manifest.frame["image_id"].to_numpy(str))
    if not foreign.any():
        return noted
    count, text = int(foreign.sum()), f"{foreign.sum():,} of {len(foreign):,} ids of {found.path.name}"
    if count == len(foreign):
        own = f", {stand_in}" if stand_in else ""
        raise DataError(
            f"study {study.study}: {text} are of no image of this study: they are such as {found.ids[0]!r}, its images "
            f"such as {manifest.frame['image_id'].iloc[0]!r}{own}; name the file of these images in dataset.embeddings"
        )
    return [*noted, f"{text} are of no image of this study ({_some(found.ids[foreign])}); they are not used."]


def load(study: Study, manifest: Manifest) -> np.ndarray:
    """Return the vectors of a manifest's images.

    Args:
        study: The study, with `dataset.embeddings`.
        manifest: The dataset, split.

    Returns:
        Read-only memory map, float32 `(n, channels)`, in the manifest's order; zeros for excluded images without one.

    Raises:
        DataError: An image of a split lacks its vector, or the file cannot be used.
    """
    found, ids = read(study), manifest.frame["image_id"].to_numpy(object)
    rows = pd.Index(found.ids).get_indexer(pd.Index(ids))
    used = (manifest.frame["split"] != "").to_numpy()
    lacking = used & (rows < 0)
    if lacking.any():
        raise DataError(
            f"study {study.study}: {lacking.sum():,} of {used.sum():,} images have no vector in {found.path}: "
            f"{_some(ids[lacking])}; write the file again for all images, such as with scanbook embed {study.study}"
        )

    def build(folder: Path) -> None:
        vectors = np.lib.format.open_memmap(
            folder / "array.npy", "w+", np.float32, (len(rows), found.vectors.shape[1])
        )  # zeros at first
        known = rows >= 0
        vectors[known] = found.vectors[rows[known]]
        vectors.flush()

    folder = stage("vectors", {"file": found.digest, "rows": fingerprint(rows.tobytes())}, build, __name__)
    return np.load(folder / "array.npy", mmap_mode="r")


def write(path: Path, ids: Sequence[str], pieces: Iterable[np.ndarray], shape: tuple[int, int], **more: Any) -> None:
    """Write vectors as a file of embeddings, under a temporary name that is then renamed.

    Args:
        path: The file.
        ids: Names of the images.
        pieces: Their vectors in this order, each `(p, channels)`; one at a time is in memory.
        shape: Number of images and channels.
        more: `dtype`, of the vectors (float32); and `about`, where they come from, as plain values.
    """
    dtype = np.dtype(more.get("dtype", np.float32))
    work = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    try:
        with zipfile.ZipFile(work, "w", zipfile.ZIP_STORED) as archive:
            for name, array in ((IDS, np.array(ids, str)), (ABOUT, np.array(json.dumps(more.get("about", {}))))):
                with archive.open(f"{name}.npy", "w") as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
            with archive.open(f"{VECTORS}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_2_0(file, header)
                for piece in pieces:
                    file.write(np.ascontiguousarray(piece, dtype).tobytes())
        os.replace(work, path)
    finally:
        work.unlink(missing_ok=True)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    """Return the digest of a file, which a process reads once as long as its size and time stay."""
    return file_digest(path)


def _some(ids: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(ids) - _NAMED
    return ", ".join(map(str, ids[:_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def _read(path: Path) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """Return the checked names, vectors, float32, and origin of a file."""
    expected = f"expected an .npz file with {IDS}, texts (n,), and {VECTORS}, float (n, channels), without pickles"
    if not zipfile.is_zipfile(path):  # NumPy would take it for pickled objects
        raise DataError(f"embeddings {path}: the file is not an .npz archive, or only a part of one; {expected}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in (IDS, VECTORS) if name not in archive.files]
            if missing:
                held = ", ".join(archive.files) or "nothing"
                raise DataError(f"embeddings {path}: no array {missing[0]}, the file holds {held}; {expected}")
            ids, vectors = archive[IDS], archive[VECTORS]
            about = archive[ABOUT] if ABOUT in archive.files else np.array("{}")
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        reason = "it holds pickled objects" if "pickle" in str(error).lower() else str(error).splitlines()[0]
        raise DataError(f"embeddings {path} cannot be read: {reason}; {expected}") from error
    _check_shapes(path, ids, vectors)
    names = [name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in ids.tolist()]
    repeated = pd.Series(names)[pd.Series(names).duplicated()].unique()
    if len(repeated):
        raise DataError(
            f"embeddings {path}: {len(repeated):,} ids occur more than once: {_some(repeated)}; keep one vector of each"
        )
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(vectors, np.float32)
    wrong = ~np.isfinite(vectors).all(axis=1)
    if wrong.any():
        raise DataError(
            f"embeddings {path}: {wrong.sum():,} of {len(wrong):,} vectors hold NaN or infinite values: "
            f"{_some(np.array(names, object)[wrong])}; compute them again, or leave out what cannot be computed"
        )
    return names, vectors, _parse(about)


def _check_shapes(path: Path, ids: np.ndarray, vectors: np.ndarray) -> None:
    start = f"embeddings {path}: "
    if ids.ndim != 1 or ids.dtype.kind not in "USiu":
        raise DataError(f"{start}{IDS} is {ids.dtype} {ids.shape}; expected texts (n,), the names of the images")
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or not vectors.shape[1]:
        raise DataError(f"{start}{VECTORS} is {vectors.dtype} {vectors.shape}; expected float (n, channels)")
    if len(ids) != len(vectors) or not len(ids):
        raise DataError(f"{start}{len(ids):,} ids and {len(vectors):,} vectors; expected one vector for each id")


def _parse(about: np.ndarray) -> dict[str, Any]:
    """Return what a file tells of its origin; nothing where another program wrote something else there."""
    try:
        origin = json.loads(str(about[()]))
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}
