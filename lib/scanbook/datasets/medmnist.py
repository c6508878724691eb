"""MedMNIST archives (.npz): images, labels and official parts, from the official address or a local file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.errors import DataError
from scanbook.images import encode_png
from scanbook.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.store import atomic_write, stage, tree_fingerprint
from scanbook.study import MedMnistData, Study

ADDRESS = "https://zenodo.org/records/10519652/files/{flag}.npz"


@dataclass(frozen=True)
class Archive:
    """An official archive: its MD5 and the class names in the order of its labels."""

    md5: str
    classes: tuple[str, ...]


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

# medmnist.INFO, version 2.1: the single-label archives of 28-pixel images
ARCHIVES = {
    "pathmnist": Archive(
        "a8b06965200029087d5bd730944a56c1",
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
    ),
    "dermamnist": Archive(
        "0744692d530f8e62ec473284d019b0c7",
        (
            "actinic keratoses and intraepithelial carcinoma",
            "basal cell carcinoma",
            "benign keratosis-like lesions",
            "dermatofibroma",
            "melanoma",
            "melanocytic nevi",
            "vascular lesions",
        ),
    ),
    "octmnist": Archive(
        "c68d92d5b585d8d81f7112f81e2d0842",
        ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    ),
    "pneumoniamnist": Archive("28209eda62fecd6e6a2d98b1501bb15f", ("normal", "pneumonia")),
    "retinamnist": Archive("bd4c0672f1bba3e3a89f0e4e876791e4", ("0", "1", "2", "3", "4")),
    "breastmnist": Archive("750601b1f35ba3300ea97c75c52ff8f6", ("malignant", "normal, benign")),
    "bloodmnist": Archive(
        "7053d0359d879ad8a5505303e11de1dc",
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
    ),
    "organamnist": Archive("866b832ed4eeba67bfb9edee1d5544e6", _ORGANS),
    "organcmnist": Archive("0afa5834fb105f7705a7d93372119a21", _ORGANS),
    "organsmnist": Archive("e5c39f1af030238290b9557d9503af9d", _ORGANS),
}


def load(study: Study) -> Manifest:
    """Unpacks an archive into the store, once, and lists its images.

    Raises:
        DataError: The archive is unknown, missing, of another MD5, or not of MedMNIST's layout.
    """
    layout = study.dataset
    assert isinstance(layout, MedMnistData)
    if layout.flag not in ARCHIVES:
        raise DataError(f"study {study.study}: unknown flag {layout.flag!r}; expected one of {', '.join(ARCHIVES)}")
    archive = ARCHIVES[layout.flag]
    path = Path(study.data) if study.data else _fetch(layout.flag, archive)
    if not path.is_file():
        raise DataError(f"dataset {study.study}: {path} is not a file; expected {layout.flag}.npz")
    data = tree_fingerprint(path)
    folder = stage(
        "medmnist", {"data": data, "classes": archive.classes}, lambda work: _unpack(path, archive, work), __name__
    )
    frame = pd.read_csv(folder / "images.csv", dtype=str, keep_default_na=False)
    frame["path"] = [str(folder / "images" / f"{name}.png") for name in frame["image_id"]]
    frame["group"], frame["mask_path"] = frame["image_id"], ""
    return Manifest(study.study, frame, archive.classes, {"data": data, "grouped": False})


def _fetch(flag: str, archive: Archive) -> Path:
    import pooch

    target = runtime.data_dir() / "medmnist"
    try:
        return Path(
            pooch.retrieve(
                ADDRESS.format(flag=flag),
                f"md5:{archive.md5}",
                f"{flag}.npz",
                target,
                progressbar=runtime.interactive(),
            )
        )
    except ValueError as error:
        raise DataError(
            f"{flag}.npz from {ADDRESS.format(flag=flag)} has another MD5 than the official {archive.md5}; "
            f"try again later or pass DATA=path/to/{flag}.npz"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot download {ADDRESS.format(flag=flag)} ({type(error).__name__}); "
            f"connect, or pass DATA=path/to/{flag}.npz"
        ) from error


def _unpack(path: Path, archive: Archive, folder: Path) -> None:
    rows = []
    (folder / "images").mkdir()
    for part, key in ((TRAIN, "train"), (VALIDATION, "val"), (TEST, "test")):
        images, labels = _arrays(path, archive, key)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{key}_{index:06d}"
            (folder / "images" / f"{name}.png").write_bytes(encode_png(image))
            rows.append((name, archive.classes[label], part))
    atomic_write(folder / "images.csv", pd.DataFrame(rows, columns=["image_id", "label", "part"]).to_csv(index=False))


def _arrays(path: Path, archive: Archive, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 `(n, h, w)` or `(n, h, w, 3)`, and labels, `(n,)`, of one part."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no .npz file")
        with np.load(path) as arrays:
            images, labels = arrays[f"{key}_images"], arrays[f"{key}_labels"]
        if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)):
            raise ValueError(f"{key}_images is {images.dtype} {images.shape}")
        if labels.shape not in ((len(images),), (len(images), 1)) or labels.dtype.kind not in "iu":
            raise ValueError(f"{key}_labels is {labels.dtype} {labels.shape} for {len(images)} images")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(archive.classes):
            raise ValueError(
                f"{key}_labels reach from {labels.min()} to {labels.max()}, not 0 to {len(archive.classes) - 1}"
            )
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not a MedMNIST archive ({str(error).strip(chr(39))}); "
            f"expected uint8 {key}_images and one label of {key}_labels for each; download it again"
        ) from error
    return images, labels.reshape(-1)
