"""What datasets of image files share: which files are images, which class they are of, whose they are."""

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
"""Column, beside the manifest's own, of the folder that an image is shown to lie in; `hide_names` takes it off."""
Row = tuple[str, ...]
"""`manifest.COLUMNS` and `FOLDER` of one image."""
_IMAGES, _MASKS = "images", "masks"


def require_folder(study: Study, expected: str) -> Path:
    """The study's data folder.

    Raises:
        DataError: It is not there.
    """
    if study.location.is_dir():
        return study.location
    what = "is a file, not a folder" if study.location.exists() else "does not exist"
    source = f"; get the images from {study.dataset.source}" if study.dataset.source.startswith("http") else ""
    raise DataError(
        f"dataset {study.study}: {study.location} {what}; expected a folder with {expected}{source}; pass DATA=path"
    )


def natural(name: str) -> tuple[tuple[tuple[int, int | str], ...], str]:
    """Sort key with numbers in numeric order: "2. b" before "10. a"; the name settles what is equal otherwise."""
    splits = (split for split in re.split(r"(\d+)", name) if split)
    return tuple((0, int(split)) if split.isdecimal() else (1, split.lower()) for split in splits), name


def class_of(name: str, classes: Mapping[str, str]) -> str | None:
    """Class of a folder or label: the first pattern that matches; None where none does.

    Case does not count, nor in which of Unicode's forms an accent is written. Without patterns the name is the class.
    """
    plain = unicodedata.normalize("NFC", name)
    if not classes:
        return plain
    folded = plain.casefold()
    return next(
        (
            label
            for pattern, label in classes.items()
            if fnmatchcase(folded, unicodedata.normalize("NFC", pattern).casefold())
        ),
        None,
    )


def class_order(found: set[str], classes: Mapping[str, str], extra: Sequence[str] = ()) -> tuple[str, ...]:
    """Classes in the order in which the study names them; by name, numbers in numeric order, where it names none."""
    own = [label for label in dict.fromkeys(classes.values()) if label in found]
    if not classes:
        own = sorted(found - set(extra), key=natural)
    return tuple(dict.fromkeys([*own, *(label for label in extra if label in found)]))


def split_folders(folder: Path, classes: Mapping[str, str], apart: Collection[Path] = ()) -> dict[Path, str]:
    """Folders of parts and the part of each; none where the class folders lie in `folder` itself.

    Folders that lie in those of `apart`, resolved paths, are neither.

    A source with train and one other part has no validation part: the other part is then test, and validation is carved
    from train later.

    Raises:
        DataError: There are class folders beside the parts, or a part is missing.
    """
    folders = [each for each in subfolders(folder) if not within(each, apart)]
    splits = {each: SPLIT_NAMES[each.name.lower()] for each in folders if each.name.lower() in SPLIT_NAMES}
    stray = [each.name for each in folders if each not in splits and class_of(each.name, classes) is not None]
    if splits and stray:
        raise DataError(
            f"{folder} mixes part folders with {stray[0]!r}; expected only train, val and test, or only class folders"
        )
    if set(splits.values()) == {TRAIN, VALIDATION}:
        splits = {each: TRAIN if split == TRAIN else TEST for each, split in splits.items()}
    if splits and not {TRAIN, TEST} <= set(splits.values()):
        raise DataError(
            f"{folder} has the part folders {', '.join(each.name for each in splits)}; "
            "expected train and at least one of val and test"
        )
    return splits


def subfolders(folder: Path) -> list[Path]:
    """Visible folders in a folder, numbers in numeric order."""
    return sorted(
        (each for each in folder.iterdir() if each.is_dir() and _visible(each.name)), key=lambda p: natural(p.name)
    )


def unwrapped(folder: Path) -> Path:
    """The folder, or the one of the same name that is all it holds, as in `train/train`."""
    inside = subfolders(folder)
    again = len(inside) == 1 and inside[0].name.casefold() == folder.name.casefold()
    return unwrapped(inside[0]) if again and subfolders(inside[0]) else folder


def images_of_class(folder: Path) -> list[tuple[Path, str]]:
    """Images of a class folder, sorted, with the path of each one's mask, "" where there is none.

    The images are those in its folder `images`, where it has one, else all below it but those in `masks`. An image's
    mask has its name, whatever the extension.
    """
    inside = {each.name.lower(): each for each in subfolders(folder)}
    top = inside.get(_IMAGES, folder)
    masks_folder = inside.get(_MASKS)
    masks = {_stem(path, masks_folder): str(path) for path in images_below(masks_folder)} if masks_folder else {}
    found = [path for path in images_below(top) if masks_folder is None or masks_folder not in path.parents]
    return [(path, masks.get(_stem(path, top), "")) for path in found]


def images_below(folder: Path) -> list[Path]:
    """Image files at any depth, sorted; hidden files and folders, such as Jupyter's checkpoints, are none."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if _visible(name)]
        found += [Path(parent, name) for name in names if is_image(os.path.join(parent, name))]
    return sorted(found)


def within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path, once links are followed, is one of the folders, resolved paths, or lies in one."""
    place = path.resolve()
    return any(place.is_relative_to(folder) for folder in folders)


def is_image(path: str) -> bool:
    """Whether a path is an image file, by its extension, or a DICOM file by its first bytes where that is unknown.

    DICOM files are often named by numbers, such as 1.2.840.7, whose last is no extension. A link to a file that is gone
    is no image.
    """
    name = os.path.basename(path)
    if name.startswith(".") or name == "DICOMDIR" or not os.path.isfile(path):
        return False
    return os.path.splitext(name)[1].lower() in EXTENSIONS or dicom.is_dicom_file(path)


def is_dicom(path: str) -> bool:
    """Whether a file that `is_image` is a DICOM file, by its extension or its first bytes, whatever it is called."""
    extension = os.path.splitext(path)[1].lower()
    # one of an unknown extension is an image only if its first bytes were read and said so
    return extension in DICOM_EXTENSIONS or extension not in EXTENSIONS or dicom.is_dicom_file(path)


def stem(name: str) -> str:
    """Name of an image without its folder and extension, if it has one."""
    base, extension = os.path.splitext(name)
    return os.path.basename(base if extension.lower() in EXTENSIONS else name)


def patients(paths: Sequence[str]) -> dict[str, str]:
    """Pseudonym ("patient 0001") of the patient of each DICOM file whose header names one, by path.

    Raises:
        DataError: pydicom is not installed.
    """
    try:
        with ThreadPoolExecutor(runtime.cores()) as pool:
            named = dict(zip(paths, pool.map(dicom.patient, paths), strict=True))
    except ImageError as error:
        raise DataError(
            f"the dataset holds {len(paths)} DICOM files: {str(error).removeprefix('the image is ')}"
        ) from None
    return _pseudonyms({path: name for path, name in named.items() if name}, "patient")


def extra_images(layout: Folders, place: Path, with_splits: bool) -> tuple[list[Row], list[str]]:
    """Images of the study's `extra_classes`, and a sentence for each class whose folder is missing.

    Args:
        layout: The study's dataset.
        place: What their folders are relative to.
        with_splits: Whether the dataset gives parts, so that these images need parts too.

    Raises:
        DataError: A folder has no part folders where the dataset gives parts.
    """
    rows: list[Row] = []
    notes = []
    for label, name in layout.extra_classes.items():
        folder = place / name
        splits = split_folders(folder, {}) if with_splits and folder.is_dir() else {}
        if with_splits and folder.is_dir() and not splits:
            raise DataError(
                f"{folder} holds the extra class {label!r} without parts, but the dataset has parts; "
                "expected train and test folders in it; sort its images into them"
            )
        # the class tells two folders of one name apart
        name_of = f"{label}/{folder.name}"
        found = [
            (
                f"{name_of}/{each.relative_to(folder).as_posix()}",
                *(str(each), label, "", mask, split),
                f"{name_of}/{parent.name}" if split else name_of,
            )
            for parent, split in (splits or {folder: ""}).items()
            if parent.is_dir()
            for each, mask in images_of_class(parent)
        ]
        if not found:
            notes.append(f"The folder {name} is missing or holds no image, so the class {label} is left out.")
        rows += found
    return rows, notes


def absent(layout: Folders, frame: pd.DataFrame) -> list[str]:
    """A sentence for each class that the study names and the dataset lacks."""
    found = set(frame["label"])
    return [f"No image is of the class {name}." for name in dict.fromkeys(layout.classes.values()) if name not in found]


def content(study: Study, layout: Folders, root: Path) -> str:
    """Fingerprint of the files below a dataset's own folder and of its other sources, wherever they lie."""
    own, place = root.resolve(), study.location.resolve()
    extra = [each for name in layout.extra_classes.values() if (each := place / name).is_dir()]
    sources = dict.fromkeys(each.resolve() for each in (*study.sources, *extra))
    around = [each for each in sources if own.is_relative_to(each) and each.is_relative_to(place)]
    elsewhere = [each for each in sources if each not in around and not each.is_relative_to(own)]
    found = tree_fingerprint(root)
    return fingerprint(found, [tree_fingerprint(each) for each in elsewhere]) if elsewhere else found


def hide_names(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Takes file names and patients out of the rows whose files are DICOM: both may say who a person is.

    Such an image is called after its folder and a running number. Its patient is its group, under a pseudonym, where no
    group was told; told groups get pseudonyms too.

    Args:
        frame: A manifest's columns and `FOLDER`; `group` is `image_id` where no group was told.

    Returns:
        The frame without `FOLDER`, and a sentence for the report, none where no file is DICOM.
    """
    folders = frame[FOLDER]
    frame = frame.drop(columns=FOLDER)
    medical = frame["path"].map(is_dicom)
    if not medical.any():
        return frame, []
    told = frame["group"] != frame["image_id"]
    pseudonyms = patients(frame.loc[medical & ~told, "path"].tolist())
    numbers = frame[medical].groupby(folders[medical]).cumcount() + 1
    ids = frame["image_id"].copy()
    ids[medical] = folders[medical] + "/" + numbers.map("{:06d}".format)
    groups = frame["path"].map(lambda path: pseudonyms.get(path, "")).mask(lambda each: each == "", ids)
    groups[told] = frame.loc[told, "group"].map(_pseudonyms({name: name for name in frame.loc[told, "group"]}, "group"))
    known = len(pseudonyms) + int((told & medical).sum())
    note = (
        f"{int(medical.sum())} of {len(frame)} images are DICOM files. They have running numbers in place of names; "
        f"{known} of them have a patient, whose number in the report is not the one in the file."
    )
    return frame.assign(image_id=ids, group=groups), [note]


def grouped(frame: pd.DataFrame) -> bool:
    """Whether the source says of every image which patient or lesion it shows."""
    return bool((frame["group"] != frame["image_id"]).all())


def _pseudonyms(names: Mapping[str, str], what: str) -> dict[str, str]:
    number = {name: f"{what} {index:04d}" for index, name in enumerate(sorted(set(names.values())), 1)}
    return {key: number[name] for key, name in names.items()}


def _stem(path: Path, folder: Path) -> str:
    return (path.relative_to(folder).parent / stem(path.name)).as_posix()


def _visible(name: str) -> bool:
    return not name.startswith((".", "__"))
