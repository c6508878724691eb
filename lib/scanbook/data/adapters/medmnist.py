"""MedMNIST archives (.npz): images, labels and official splits, from the official address or a local file."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from scanbook import runtime
from scanbook.config import MedMnistData, Study
from scanbook.data.images import encode_png
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest, finding_column
from scanbook.errors import DataError
from scanbook.runtime import downloads
from scanbook.store import atomic_write, stage, tree_fingerprint

ZENODO = "https://zenodo.org/records/10519652/files/{file}"
"""The only official source."""
MIRRORS = {
    28: (
        "https://huggingface.co/datasets/albertvillanova/medmnist-v2/resolve/f6dd981c7400b3e3738bde12ff948b7cc8f0d623/data/{file}",
    ),
}
"""Other servers, by size, tried when the official one fails."""
SAME_HOST = "https://zenodo.org/api/records/10519652/files/{file}/content"
"""Last resort, another address of the same record: no other server holds the larger sizes unchanged."""


@dataclass(frozen=True)
class Archive:
    """An official archive: the classes or the findings in the order of its labels, and its MD5 by size."""

    classes: tuple[str, ...]
    md5: dict[int, str]
    findings: tuple[str, ...] = ()


_LISTED = yaml.safe_load(Path(__file__).with_name("medmnist.yaml").read_text(encoding="utf-8"))
ARCHIVES = {
    flag: Archive(tuple(listed.get("classes", ())), listed["md5"], tuple(listed.get("findings", ())))
    for flag, listed in _LISTED.items()
}
_MD5 = "md5.txt"


def load(study: Study) -> Manifest:
    """Return the manifest of an archive, which is unpacked into the store once.

    Raises:
        DataError: The archive is unknown, missing, of another size, or not of MedMNIST's layout, or the download has
            another MD5.
    """
    layout = study.dataset
    assert isinstance(layout, MedMnistData)
    if layout.flag not in ARCHIVES:
        raise DataError(f"study {study.study}: unknown flag {layout.flag!r}; expected one of {', '.join(ARCHIVES)}")
    archive = ARCHIVES[layout.flag]
    path = study.location if study.data else _fetch(layout.flag, layout.size)
    if not path.is_file():
        raise DataError(f"dataset {study.study}: {path} is not a file; expected {_file(layout.flag, layout.size)}")
    data = tree_fingerprint(path)
    folder = stage(
        "medmnist",
        {"data": data, "classes": archive.classes, "findings": archive.findings, "size": layout.size},
        lambda work: _unpack(path, archive, layout.size, work),
        __name__,
    )
    frame = pd.read_csv(folder / "images.csv", dtype=str, keep_default_na=False)
    frame["path"] = [str(folder / "images" / f"{name}.png") for name in frame["image_id"]]
    frame["group"], frame["mask_path"] = frame["image_id"], ""
    official, md5 = archive.md5[layout.size], (folder / _MD5).read_text()
    notes = [f"The archive's MD5 is {md5}, not the official {official}: it was rebuilt or changed."]
    facts = {"data": data, "grouped": False, "names_groups": False, "notes": notes if md5 != official else []}
    if archive.classes:
        return Manifest(study.study, frame, archive.classes, facts)
    columns = [finding_column(name) for name in archive.findings]
    return Manifest.of_findings(study.study, frame.astype(dict.fromkeys(columns, float)), archive.findings, facts=facts)


def _file(flag: str, size: int) -> str:
    return f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"


def _fetch(flag: str, size: int) -> Path:
    """Return the archive in the data folder, downloaded from the first source that has it complete."""
    import pooch

    file, md5 = _file(flag, size), ARCHIVES[flag].md5[size]
    pooch.get_logger().setLevel("CRITICAL")  # failures are reported once, when every source fails
    failures = []
    for source in (ZENODO, *MIRRORS.get(size, ()), SAME_HOST):
        address = source.format(file=file)
        try:
            with downloads.limited():
                downloader = pooch.HTTPDownloader(timeout=downloads.SILENCE, progressbar=runtime.interactive())
                folder = runtime.data_dir() / "medmnist"
                return Path(pooch.retrieve(address, f"md5:{md5}", file, folder, downloader=downloader))
        except OSError as error:  # first: some of the network's errors are a ValueError, too
            if isinstance(error.filename, str | Path):  # an error of the disk (full or read-only), not of the network
                raise DataError(
                    f"cannot write {error.filename} ({error.strerror}); make room or set SCANBOOK_DATA"
                ) from error
            failures.append(f"{address} ({_reason(error)})")
        except ValueError:
            failures.append(f"{address} (another MD5 than the official {md5})")
    raise DataError(
        f"cannot download {file}: {', '.join(failures)}; connect, try again later, or pass DATA=path/to/{file}"
    )


def _reason(error: OSError) -> str:
    if downloads.silent(error):
        return f"no answer within {downloads.SILENCE:g} s"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__


def _unpack(path: Path, known: Archive, size: int, folder: Path) -> None:
    """Write every image as a PNG, one at a time: a split at 224 pixels can be larger than memory."""
    rows = []
    (folder / "images").mkdir()
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not an .npz file")
        with zipfile.ZipFile(path) as archive:
            for split, key in ((TRAIN, "train"), (VALIDATION, "val"), (TEST, "test")):
                labels = _labels(archive, key, known)
                for index, (image, label) in enumerate(
                    zip(_images(archive, key, size, len(labels)), labels, strict=True)
                ):
                    name = f"{key}_{index:06d}"
                    (folder / "images" / f"{name}.png").write_bytes(encode_png(image))
                    rows.append((name, *(label if known.findings else [known.classes[label]]), split))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not a MedMNIST archive of {size} pixels ({str(error).strip(chr(39))}); "
            f"expected uint8 images of that size and {len(known.findings) or 'one'} label"
            f"{'s' * bool(known.findings)} for each, in train, val and test; download it again"
        ) from error
    with path.open("rb") as file:  # read once, here: the archive may be large
        atomic_write(folder / _MD5, hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest())
    columns = ["image_id", *(map(finding_column, known.findings) if known.findings else ["label"]), "split"]
    atomic_write(folder / "images.csv", pd.DataFrame(rows, columns=columns).to_csv(index=False))


def _labels(archive: zipfile.ZipFile, key: str, known: Archive) -> np.ndarray:
    """Return the labels of one split, integers: classes `(n,)`, or k findings `(n, k)`, 0 or 1."""
    with archive.open(f"{key}_labels.npy") as file:
        labels = np.lib.format.read_array(file, allow_pickle=False)
    shapes = [(len(known.findings),)] if known.findings else [(), (1,)]
    if labels.ndim not in (1, 2) or labels.shape[1:] not in shapes or labels.dtype.kind not in "iu":
        raise ValueError(f"{key}_labels is {labels.dtype} {labels.shape}")
    last = 1 if known.findings else len(known.classes) - 1
    if len(labels) and not 0 <= labels.min() <= labels.max() <= last:
        raise ValueError(f"{key}_labels reach from {labels.min()} to {labels.max()}, not 0 to {last}")
    return labels if known.findings else labels.reshape(-1)


def _images(archive: zipfile.ZipFile, key: str, size: int, count: int) -> Iterator[np.ndarray]:
    """Yield the images of one split, uint8 `(size, size)` or `(size, size, 3)`, read one at a time."""
    with archive.open(f"{key}_images.npy") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = header(file)
        side = shape[1] if len(shape) in (3, 4) and shape[1:2] == shape[2:3] else size
        if side != size and side in ARCHIVES["retinamnist"].md5:
            raise DataError(
                f"{archive.filename} holds {key}_images {shape}, of {side} pixels; expected {size}, the study's "
                f'dataset.size; pass SET="dataset.size={side}" or the archive of {size} pixels'
            )
        if dtype != np.uint8 or fortran_order or shape not in ((count, size, size), (count, size, size, 3)):
            raise ValueError(f"{key}_images is {dtype} {shape} for {count} {key}_labels")
        length = math.prod(shape[1:])
        for _ in range(count):
            yield np.frombuffer(file.read(length), np.uint8).reshape(shape[1:])
