"""What datasets of image files share: which files are images, their classes, their masks and their patients."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from scanbook import runtime
from scanbook.config import Study
from scanbook.config.data import Folders
from scanbook.data import dicom
from scanbook.data.manifest import TEST, TRAIN, VALIDATION
from scanbook.errors import DataError, ImageError
from scanbook.store import fingerprint, tree_fingerprint

DICOM_EXTENSIONS = frozenset({".dcm", ".dicom", ".ima"})
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}) | DICOM_EXTENSIONS
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
}
FOLDER = "folder"
"""Column with the folder under which reports list an image; `pseudonymise` removes it from the frame."""
Row = tuple[str, ...]
"""The values of `manifest.COLUMNS` and `FOLDER` for one image."""
_IMAGES, _MASKS = "images", "masks"


def require_folder(study: Study, expected: str) -> Path:
    """Return the study's data folder.

    Raises:
        DataError: The folder is missing.
    """
    if study.location.is_dir():
        return study.location
    problem = "is a file, not a folder" if study.location.exists() else "does not exist"
    source = f"; get the images from {study.dataset.source}" if study.dataset.source.startswith("http") else ""
    raise DataError(
        f"dataset {study.study}: {study.location} {problem}; expected a folder with {expected}{source}; pass DATA=path"
    )


def natural_key(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Return a sort key with numbers in numeric order: "2. b" before "10. a"; ties are broken by the name."""
    pieces = (piece for piece in re.split(r"(\d+)", name) if piece)
    return tuple((0, int(piece)) if piece.isdecimal() else (1, piece.lower()) for piece in pieces), name


def class_of(name: str, classes: Mapping[str, str]) -> str | None:
    """Return the class of a folder or label: that of the first pattern that matches, or None.

    Case and Unicode's form of an accent are ignored. Without patterns the name is the class.
    """
    normal = unicodedata.normalize("NFC", name)
    if not classes:
        return normal
    for pattern, label in classes.items():
        if fnmatchcase(normal.casefold(), unicodedata.normalize("NFC", pattern).casefold()):
            return label
    return None


def class_order(layout: Folders, frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes of a frame in the study's order, else by name with numbers in numeric order; extras last."""
    labels, extra = set(frame["label"]), list(layout.extra_classes)
    own = layout.classes.values() if layout.classes else sorted(labels - set(extra), key=natural_key)
    return tuple(label for label in dict.fromkeys([*own, *extra]) if label in labels)


def split_folders(folder: Path, classes: Mapping[str, str], apart: Collection[Path] = ()) -> dict[Path, str]:
    """Return the split folders and the split of each; none where the class folders lie in `folder` itself.

    In a source with train and one other split, the other split is test. Validation is taken from train later.

    Args:
        folder: The dataset's folder.
        classes: Class by pattern of a folder's name.
        apart: Resolved paths of folders to ignore.

    Raises:
        DataError: There are class folders beside the split folders, or a split is missing.
    """
    folders = [path for path in subfolders(folder) if not is_within(path, apart)]
    splits = {path: SPLIT_NAMES[path.name.lower()] for path in folders if path.name.lower() in SPLIT_NAMES}
    stray = [path.name for path in folders if path not in splits and class_of(path.name, classes) is not None]
    if splits and stray:
        raise DataError(
            f"{folder} mixes split folders with {stray[0]!r}; expected only train, val and test, or only class folders"
        )
    if set(splits.values()) == {TRAIN, VALIDATION}:
        splits = {path: TRAIN if split == TRAIN else TEST for path, split in splits.items()}
    if splits and not {TRAIN, TEST} <= set(splits.values()):
        raise DataError(
            f"{folder} has the split folders {', '.join(path.name for path in splits)}; "
            "expected train and at least one of val and test"
        )
    return splits


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in a folder, numbers in numeric order."""
    folders = [path for path in folder.iterdir() if path.is_dir() and _is_visible(path.name)]
    return sorted(folders, key=lambda path: natural_key(path.name))


def unwrap(folder: Path) -> Path:
    """Return the folder, or its only subfolder where that has the same name, as in `train/train`."""
    inside = subfolders(folder)
    same_name = len(inside) == 1 and inside[0].name.casefold() == folder.name.casefold()
    return unwrap(inside[0]) if same_name and subfolders(inside[0]) else folder


def images_of_class(folder: Path) -> list[tuple[Path, str]]:
    """Return the images of a class folder, sorted, with the path of the mask of each, "" where there is none.

    The images are those in the subfolder `images` where there is one, else all below the folder except in `masks`. A
    mask has the name of its image; its extension may differ.
    """
    inside = {path.name.lower(): path for path in subfolders(folder)}
    top = inside.get(_IMAGES, folder)
    masks_folder = inside.get(_MASKS)
    masks = {_stem(path, masks_folder): str(path) for path in images_below(masks_folder)} if masks_folder else {}
    paths = [path for path in images_below(top) if masks_folder is None or masks_folder not in path.parents]
    return [(path, masks.get(_stem(path, top), "")) for path in paths]


def images_below(folder: Path) -> list[Path]:
    """Return the image files at any depth, sorted, without hidden files and folders such as Jupyter's checkpoints."""
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if _is_visible(name)]
        paths += [Path(parent, name) for name in names if is_image(os.path.join(parent, name))]
    return sorted(paths)


def is_within(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path, links followed, is one of the folders (resolved paths) or lies in one."""
    resolved = path.resolve()
    return any(resolved.is_relative_to(folder) for folder in folders)


def is_image(path: str) -> bool:
    """Return whether a path is an image file, by its extension, or by its first bytes where that is unknown.

    DICOM files often have numbers as names, such as 1.2.840.7, where the last number is not an extension. A link to a
    missing file is not an image.
    """
    name = os.path.basename(path)
    if name.startswith(".") or name == "DICOMDIR" or not os.path.isfile(path):
        return False
    return os.path.splitext(name)[1].lower() in EXTENSIONS or dicom.is_dicom_file(path)


def is_dicom(path: str) -> bool:
    """Return whether an image file is a DICOM file, by its extension or its first bytes."""
    extension = os.path.splitext(path)[1].lower()
    # An image with an unknown extension was identified by its first bytes, so it is a DICOM file.
    return extension in DICOM_EXTENSIONS or extension not in EXTENSIONS or dicom.is_dicom_file(path)


def stem(name: str) -> str:
    """Return the name of an image without its folder and its extension."""
    base, extension = os.path.splitext(name)
    return os.path.basename(base if extension.lower() in EXTENSIONS else name)


def patient_pseudonyms(paths: Sequence[str]) -> dict[str, str]:
    """Return the pseudonym ("patient 0001") of the patient by path, for DICOM files whose header names one.

    Raises:
        DataError: pydicom is not installed.
    """
    try:
        with ThreadPoolExecutor(runtime.cores()) as pool:
            names = dict(zip(paths, pool.map(dicom.patient, paths), strict=True))
    except ImageError as error:
        raise DataError(
            f"the dataset holds {len(paths)} DICOM files: {str(error).removeprefix('the image is ')}"
        ) from None
    return _pseudonyms({path: name for path, name in names.items() if name}, "patient")


def extra_images(layout: Folders, root: Path, with_splits: bool) -> tuple[list[Row], list[str]]:
    """Return the images of the study's `extra_classes`, and a sentence for each class whose folder is missing.

    Args:
        layout: The study's dataset.
        root: The folder that relative paths of the classes start from.
        with_splits: Whether the dataset has splits, so that these images need splits too.

    Raises:
        DataError: A folder has no split folders where the dataset has splits.
    """
    rows: list[Row] = []
    notes = []
    for label, name in layout.extra_classes.items():
        folder = root / name
        splits = split_folders(folder, {}) if with_splits and folder.is_dir() else {}
        if with_splits and folder.is_dir() and not splits:
            raise DataError(
                f"{folder} holds the extra class {label!r} without splits, but the dataset has splits; "
                "expected train and test folders in it; sort its images into them"
            )
        prefix = f"{label}/{folder.name}"  # the class distinguishes two folders of one name
        images = [
            (
                f"{prefix}/{path.relative_to(folder).as_posix()}",
                *(str(path), label, "", mask, split),
                f"{prefix}/{parent.name}" if split else prefix,
            )
            for parent, split in (splits or {folder: ""}).items()
            if parent.is_dir()
            for path, mask in images_of_class(parent)
        ]
        if not images:
            notes.append(f"The folder {name} is missing or holds no image, so the class {label} is excluded.")
        rows += images
    return rows, notes


def missing_class_notes(layout: Folders, frame: pd.DataFrame) -> list[str]:
    """Return a sentence for each class that the study names and the dataset lacks."""
    labels = set(frame["label"])
    missing = [name for name in dict.fromkeys(layout.classes.values()) if name not in labels]
    return [f"No image is of the class {name}." for name in missing]


def content_fingerprint(study: Study, layout: Folders, root: Path) -> str:
    """Return the fingerprint of the files below a dataset's own folder and of its other sources."""
    own, location = root.resolve(), study.location.resolve()
    extra = [path for name in layout.extra_classes.values() if (path := location / name).is_dir()]
    sources = dict.fromkeys(path.resolve() for path in (*study.sources, *extra))
    around = [path for path in sources if own.is_relative_to(path) and path.is_relative_to(location)]
    elsewhere = [path for path in sources if path not in around and not path.is_relative_to(own)]
    digest = tree_fingerprint(root)
    return fingerprint(digest, [tree_fingerprint(path) for path in elsewhere]) if elsewhere else digest


def pseudonymise(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Remove file names and patients from the rows whose files are DICOM: both may identify a person.

    Such an image is called after its folder and a running number. Its patient is its group, under a pseudonym, where no
    group was known; known groups get pseudonyms too.

    Args:
        frame: A manifest's columns and `FOLDER`; `group` is `image_id` where the group is unknown.

    Returns:
        The frame without `FOLDER`, and a sentence for the report, none where no file is DICOM.
    """
    folders = frame[FOLDER]
    frame = frame.drop(columns=FOLDER)
    medical = frame["path"].map(is_dicom)
    if not medical.any():
        return frame, []
    has_group = frame["group"] != frame["image_id"]
    pseudonyms = patient_pseudonyms(frame.loc[medical & ~has_group, "path"].tolist())
    numbers = frame[medical].groupby(folders[medical]).cumcount() + 1
    ids = frame["image_id"].copy()
    ids[medical] = folders[medical] + "/" + numbers.map("{:06d}".format)
    groups = frame["path"].map(lambda path: pseudonyms.get(path, ""))
    groups = groups.where(groups != "", ids)
    named = frame.loc[has_group, "group"]
    groups[has_group] = named.map(_pseudonyms({name: name for name in named}, "group"))
    known = len(pseudonyms) + int((has_group & medical).sum())
    note = (
        f"{int(medical.sum())} of {len(frame)} images are DICOM files. They have running numbers in place of names; "
        f"{known} of them have a patient, whose number in the report is not the one in the file."
    )
    return frame.assign(image_id=ids, group=groups), [note]


def _pseudonyms(names: Mapping[str, str], word: str) -> dict[str, str]:
    numbered = {name: f"{word} {index:04d}" for index, name in enumerate(sorted(set(names.values())), 1)}
    return {key: numbered[name] for key, name in names.items()}


def _stem(path: Path, folder: Path) -> str:
    return (path.relative_to(folder).parent / stem(path.name)).as_posix()


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "__"))
