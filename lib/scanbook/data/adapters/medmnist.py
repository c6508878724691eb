"""MedMNIST archives (.npz): images, labels and official parts, from the official address or a local file."""

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

from scanbook import runtime
from scanbook.config import MedMnistData, Study
from scanbook.data.images import encode_png
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import DataError
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
"""Last resort, another way into the same record: no other server holds the larger sizes unchanged."""


@dataclass(frozen=True)
class Archive:
    """An official archive: its MD5 at each size and the class names in the order of its labels."""

    md5: dict[int, str]
    classes: tuple[str, ...]


def _archive(classes: tuple[str, ...], *md5: str) -> Archive:
    return Archive(dict(zip((28, 64, 128, 224), md5, strict=True)), classes)


_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

# medmnist.INFO, version 3.0.2: the single-label archives, with MD5 at 28, 64, 128 and 224 pixels
ARCHIVES = {
    "pathmnist": _archive(
        (
            "adipose",
            "background",
            "debris",
            "lymphocytes",
            "mucus",
            "smooth muscle",
            "normal colon mucosa",
            "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        "a8b06965200029087d5bd730944a56c1",
        "55aa9c1e0525abe5a6b9d8343a507616",
        "ac42d08fb904d92c244187169d1fd1d9",
        "2c51a510bcdc9cf8ddb2af93af1eadec",
    ),
    "dermamnist": _archive(
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
        "0744692d530f8e62ec473284d019b0c7",
        "b70a2f5635c6199aeaa28c31d7202e1f",
        "2defd784463fa5243564e855ed717de1",
        "8974907d8e169bef5f5b96bc506ae45d",
    ),
    "octmnist": _archive(
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        "c68d92d5b585d8d81f7112f81e2d0842",
        "e229e9440236b774d9f0dfef9d07bdaf",
        "0a97e76651ace45c5d943ee3f65b63ae",
        "abc493b6d529d5de7569faaef2773ba3",
    ),
    "pneumoniamnist": _archive(
        ("normal", "pneumonia"),
        "28209eda62fecd6e6a2d98b1501bb15f",
        "8f4eceb4ccffa70c672198ea285246c6",
        "05b46931834c231683c68f40c47b2971",
        "d6a3c71de1b945ea11211b03746c1fe1",
    ),
    "retinamnist": _archive(
        ("0", "1", "2", "3", "4"),
        "bd4c0672f1bba3e3a89f0e4e876791e4",
        "afda852cc34dcda56f86ad2b2457dbcc",
        "e48e916a24454daf90583d4e6efb1a18",
        "eae7e3b6f3fcbda4ae613ebdcbe35348",
    ),
    "breastmnist": _archive(
        ("malignant", "normal, benign"),
        "750601b1f35ba3300ea97c75c52ff8f6",
        "742edef2a1fd1524b2efff4bd7ba9364",
        "363e4b3f8d712e9b5de15470a2aaadf1",
        "b56378a6eefa9fed602bb16d192d4c8b",
    ),
    "bloodmnist": _archive(
        (
            "basophil",
            "eosinophil",
            "erythroblast",
            "immature granulocytes",
            "lymphocyte",
            "monocyte",
            "neutrophil",
            "platelet",
        ),
        "7053d0359d879ad8a5505303e11de1dc",
        "2b94928a2ae4916078ca51e05b6b800b",
        "adace1e0ed228fccda1f39692059dd4c",
        "b718ff6835fcbdb22ba9eacccd7b2601",
    ),
    "tissuemnist": _archive(
        (
            "Collecting Duct, Connecting Tubule",
            "Distal Convoluted Tubule",
            "Glomerular endothelial cells",
            "Interstitial endothelial cells",
            "Leukocytes",
            "Podocytes",
            "Proximal Tubule Segments",
            "Thick Ascending Limb",
        ),
        "ebe78ee8b05294063de985d821c1c34b",
        "123ece2eba09d0aa5d698fda57103344",
        "61b955355d7425a89687b06cca3ce0c2",
        "b077128c4a949f0a4eb01517f9037b9c",
    ),
    "organamnist": _archive(
        _ORGANS,
        "68e3f8846a6bd62f0c9bf841c0d9eacc",
        "2dcccc29b88e6da5a01161ef20cda288",
        "eeae80d0a227a8d099027e1b3cfd3b60",
        "50747347e05c87dd3aaf92c49f9f3170",
    ),
    "organcmnist": _archive(
        _ORGANS,
        "b9ceb9546e10131b32923c5bbeaea2b1",
        "3ce34a8724ea6f548e6db4744d03b6a9",
        "773c1f009daa3fe5d9a2a201b2a7ed94",
        "050f5e875dc056f6768abf94ec9995d1",
    ),
    "organsmnist": _archive(
        _ORGANS,
        "9ab87b696fb54e2a387ebe992d6ed5f1",
        "53a6d115339d874c25e309a994ff46d3",
        "ded0c5fa01a95dc4978b956f613e9b8e",
        "b354719e553fbbb2513d5533f52a4cb1",
    ),
}
_MULTI_LABEL = ("chestmnist",)
_MD5 = "md5.txt"


def load(study: Study) -> Manifest:
    """Unpacks an archive into the store, once, and lists its images.

    Raises:
        DataError: The archive is unknown, missing, of another size, or not of MedMNIST's layout, or what was downloaded
            is of another MD5.
    """
    layout = study.dataset
    assert isinstance(layout, MedMnistData)
    if layout.flag in _MULTI_LABEL:
        raise DataError(
            f"study {study.study}: {layout.flag} has several labels an image and scanbook tells single classes apart; "
            f"choose one of {', '.join(ARCHIVES)}"
        )
    if layout.flag not in ARCHIVES:
        raise DataError(f"study {study.study}: unknown flag {layout.flag!r}; expected one of {', '.join(ARCHIVES)}")
    archive = ARCHIVES[layout.flag]
    path = study.location if study.data else _fetch(layout.flag, layout.size)
    if not path.is_file():
        raise DataError(f"dataset {study.study}: {path} is not a file; expected {_file(layout.flag, layout.size)}")
    data = tree_fingerprint(path)
    folder = stage(
        "medmnist",
        {"data": data, "classes": archive.classes, "size": layout.size},
        lambda work: _unpack(path, archive.classes, layout.size, work),
        __name__,
    )
    frame = pd.read_csv(folder / "images.csv", dtype=str, keep_default_na=False)
    frame["path"] = [str(folder / "images" / f"{name}.png") for name in frame["image_id"]]
    frame["group"], frame["mask_path"] = frame["image_id"], ""
    official, md5 = archive.md5[layout.size], (folder / _MD5).read_text()
    notes = [f"The archive's MD5 is {md5}, not the official {official}: it was rebuilt or changed."]
    facts = {"data": data, "grouped": False, "notes": notes if md5 != official else []}
    return Manifest(study.study, frame, archive.classes, facts)


def _file(flag: str, size: int) -> str:
    return f"{flag}.npz" if size == 28 else f"{flag}_{size}.npz"


def _fetch(flag: str, size: int) -> Path:
    """The archive in the data folder, from the first source that gives it whole."""
    import pooch

    file, md5 = _file(flag, size), ARCHIVES[flag].md5[size]
    pooch.get_logger().setLevel("CRITICAL")  # what fails is said once, and only when every source fails
    failures = []
    for source in (ZENODO, *MIRRORS.get(size, ()), SAME_HOST):
        address = source.format(file=file)
        try:
            return Path(
                pooch.retrieve(
                    address,
                    f"md5:{md5}",
                    file,
                    runtime.data_dir() / "medmnist",
                    downloader=pooch.HTTPDownloader(timeout=60, progressbar=runtime.interactive()),
                )
            )
        except ValueError:
            failures.append(f"{address} (another MD5 than the official {md5})")
        except OSError as error:
            if isinstance(error.filename, str | Path):  # of this machine, not of the network: a full or read-only disk
                raise DataError(
                    f"cannot write {error.filename} ({error.strerror}); make room or set SCANBOOK_DATA"
                ) from error
            failures.append(f"{address} ({_reason(error)})")
    raise DataError(
        f"cannot download {file}: {', '.join(failures)}; connect, try again later, or pass DATA=path/to/{file}"
    )


def _reason(error: OSError) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__


def _unpack(path: Path, classes: tuple[str, ...], size: int, folder: Path) -> None:
    """Writes every image as a PNG, one at a time: a part at 224 pixels can be larger than memory."""
    rows = []
    (folder / "images").mkdir()
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no .npz file")
        with zipfile.ZipFile(path) as archive:
            for split, key in ((TRAIN, "train"), (VALIDATION, "val"), (TEST, "test")):
                labels = _labels(archive, key, classes)
                for index, (image, label) in enumerate(
                    zip(_images(archive, key, size, len(labels)), labels, strict=True)
                ):
                    name = f"{key}_{index:06d}"
                    (folder / "images" / f"{name}.png").write_bytes(encode_png(image))
                    rows.append((name, classes[label], split))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not a MedMNIST archive of {size} pixels ({str(error).strip(chr(39))}); "
            "expected uint8 images of that size and one label for each, in train, val and test; download it again"
        ) from error
    with path.open("rb") as file:  # here, so that a large archive is read for it once
        atomic_write(folder / _MD5, hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest())
    atomic_write(folder / "images.csv", pd.DataFrame(rows, columns=["image_id", "label", "split"]).to_csv(index=False))


def _labels(archive: zipfile.ZipFile, key: str, classes: tuple[str, ...]) -> np.ndarray:
    """Labels of one part, integers `(n,)`."""
    with archive.open(f"{key}_labels.npy") as file:
        labels = np.lib.format.read_array(file, allow_pickle=False)
    if labels.ndim not in (1, 2) or labels.shape[1:] not in ((), (1,)) or labels.dtype.kind not in "iu":
        raise ValueError(f"{key}_labels is {labels.dtype} {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"{key}_labels reach from {labels.min()} to {labels.max()}, not 0 to {len(classes) - 1}")
    return labels.reshape(-1)


def _images(archive: zipfile.ZipFile, key: str, size: int, count: int) -> Iterator[np.ndarray]:
    """Images of one part in turn, uint8 `(size, size)` or `(size, size, 3)`, read as they are asked for."""
    with archive.open(f"{key}_images.npy") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = header(file)
        side = shape[1] if len(shape) in (3, 4) and shape[1:2] == shape[2:3] else size
        if side != size and side in ARCHIVES["retinamnist"].md5:
            raise DataError(
                f"{archive.filename} holds {key}_images {shape}, of {side} pixels; expected {size}, the study's "
                f'dataset.size; pass SET="dataset.size={side}" or the archive of {size} pixels'
            )
        if dtype != np.uint8 or by_columns or shape not in ((count, size, size), (count, size, size, 3)):
            raise ValueError(f"{key}_images is {dtype} {shape} for {count} {key}_labels")
        length = math.prod(shape[1:])
        for _ in range(count):
            yield np.frombuffer(file.read(length), np.uint8).reshape(shape[1:])
