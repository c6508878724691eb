"""What datasets of image files share: which files are images, their classes, their masks and their patients."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from scanbook import runtime
from scanbook.config import Study
from scanbook.config.data import Folders
from scanbook.data import dicom
from scanbook.data.adapters import layouts, spelling
from scanbook.data.adapters.listing import Tree, is_dicom, natural_key, stem
from scanbook.data.manifest import EXAM, Manifest
from scanbook.errors import DataError, ImageError
from scanbook.store import fingerprint, tree_fingerprint

FOLDER = "folder"
"""Column with the folder under which reports list an image; `pseudonymise` removes it from the frame."""
Row = tuple[str, ...]
"""The values of `manifest.COLUMNS` and `FOLDER` for one image."""
_MASK_NAME = re.compile(
    rf"(.+?)[ _-]+(?:{'|'.join(sorted(layouts.MASK_WORDS))}|seg)(?:[ _-]*\d+)?(?:\.\w+)?$", re.IGNORECASE
)


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


def class_order(layout: Folders, frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the classes of a frame in the study's order, else by name with numbers in numeric order; extras last."""
    labels, extra = set(frame["label"]), list(layout.extra_classes)
    own = layout.classes.values() if layout.classes else sorted(labels - set(extra), key=natural_key)
    return tuple(label for label in dict.fromkeys([*own, *extra]) if label in labels)


def images_of_class(tree: Tree, folder: Path) -> list[tuple[Path, str]]:
    """Return the images of a class folder, sorted, with the path of the mask of each, "" where there is none.

    The images are those in the subfolder `images` where there is one, else all below the folder, except those in a
    folder of masks and those called as another image beside it and a word more, such as `a.png` and `a_mask.png`. A
    mask has the name of its image, or such a name; its extension may differ. It is read where it is the only one, of
    the only image of that name.
    """
    inside = tree.folders(folder)
    top = next((path for path in inside if path.name.casefold() in layouts.IMAGES), folder)
    mask_folders = [path for path in inside if layouts.is_mask_folder(path.name)]
    images = {path: _stem(path, top) for path in tree.images(top) if not set(mask_folders) & set(path.parents)}
    stems = set(images.values())
    masks: dict[str, list[str]] = {}
    for place in mask_folders:
        for path in tree.images(place):
            name = _stem(path, place)
            masks.setdefault(name if name in stems else _image_of(name), []).append(str(path))
    beside = {path: image for path, name in images.items() if (image := _image_of(name)) in stems and image != name}
    for path, image in beside.items():
        masks.setdefault(image, []).append(str(path))
    names = Counter(name for path, name in images.items() if path not in beside)
    one = {name: paths[0] for name, paths in masks.items() if len(paths) == 1 and names[name] == 1}
    return [(path, one.get(name, "")) for path, name in images.items() if path not in beside]


def is_mask(path: Path) -> bool:
    """Return whether an image has the name of a mask, or lies in a folder of masks."""
    return _image_of(path.name) != path.name or layouts.is_mask_folder(path.parent.name)


def _image_of(mask: str) -> str:
    """Return the name of the image of a mask: "a" of "a_mask", "a-segmentation" and "a_mask_1"; else the name."""
    match = _MASK_NAME.match(mask)
    return match[1] if match else mask


def image_ids(paths: pd.Series, root: Path) -> pd.Series:
    """Return the id of each image: its name without extension where no two have the same, else with its folders.

    Args:
        paths: Paths, no two the same.
        root: The dataset's folder.
    """
    top = os.path.join(root, "")
    relative = [
        path.removeprefix(top) if path.startswith(top) else os.path.relpath(path, root) for path in paths.tolist()
    ]
    names = [stem(path) for path in relative]
    if len(set(names)) < len(names):
        names = [os.path.join(os.path.dirname(path), name) for path, name in zip(relative, names, strict=True)]
    if len(set(names)) < len(names):
        names = relative
    return pd.Series(names, paths.index, dtype=paths.dtype)


def name_groups(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Give every image a group, and remove what may identify a person from the images that are DICOM files.

    An image without a known patient is of that of its exam, else a group of its own. One without an exam is an exam of
    its own.

    Args:
        frame: A manifest's columns and `FOLDER`; `group`, and `exam` where there is such a column, are "" where not
            known.

    Returns:
        The frame without `FOLDER`; the facts `grouped`, whether the group of every image is known, and `names_groups`,
        whether that of any is; and sentences for the report.
    """
    frame, notes = pseudonymise(frame)
    if EXAM in frame:
        frame = _name_exams(frame)
    unknown = frame["group"] == ""
    if unknown.any() and not unknown.all():
        notes.append(
            f"{int(unknown.sum())} of {len(frame)} images name no patient (group): each counts as a group of its own."
        )
    facts = {"grouped": not unknown.any(), "names_groups": not unknown.all()}
    return frame.assign(group=frame["group"].where(~unknown, _own_names(frame, "group"))), facts, notes


def _name_exams(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which every image has an exam, and the images of a known exam a patient."""
    has_exam, has_group = frame[EXAM] != "", frame["group"] != ""
    patients = frame[has_exam & has_group].groupby(EXAM)["group"].first().to_dict()
    taken = set(frame["group"])
    of_exam = frame[EXAM].map(lambda exam: patients.get(exam) or (f"exam {exam}" if exam in taken else exam))
    groups = frame["group"].where(has_group | ~has_exam, of_exam)
    return frame.assign(group=groups, **{EXAM: frame[EXAM].where(has_exam, _own_names(frame, EXAM))})


def _own_names(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return a name for each image that no group, or no exam, of a column has."""
    ids = frame["image_id"]
    return ids.where(~ids.isin(frame[column]), "image " + ids)


def patient_pseudonyms(paths: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the pseudonym ("patient 0001") of the patient by path, for DICOM files whose header names one.

    Returns:
        Pseudonyms, and a sentence where the headers of all files name the same patient, which is none.

    Raises:
        DataError: pydicom is not installed.
    """
    try:
        with ThreadPoolExecutor(runtime.cores()) as pool:
            names = pd.Series(list(pool.map(dicom.patient, paths)), list(paths), dtype=str)
    except ImageError as error:
        raise DataError(
            f"the dataset holds {len(paths)} DICOM files: {str(error).removeprefix('the image is ')}"
        ) from None
    identifiers, note = spelling.patients(names)
    return _pseudonyms({path: name for path, name in identifiers.items() if name}, "patient"), [note] if note else []


def folders_in_class(manifest: Manifest) -> str:
    """Return what to do where the only class folder holds several folders, which may be the classes; else ""."""
    (label,) = manifest.classes
    paths = manifest.frame["path"].tolist()
    inside, shared = [Path(path).parts for path in paths], os.path.commonpath(paths)
    names = {parts[len(Path(shared).parts)] for parts in inside if len(parts) > len(Path(shared).parts) + 1}
    if len(names) < 2:
        return ""
    # the names are not shown: they may be those of patients
    return f"; {label} holds {len(names)} folders: if these are the classes, pass DATA={shared}"


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
        tree = Tree(folder)
        splits = layouts.split_folders(tree, folder) if with_splits and folder.is_dir() else {}
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
            for path, mask in images_of_class(tree, parent)
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
    """Remove file names, patients and exams from the rows whose files are DICOM: these may identify a person.

    Such an image is called after its folder and a running number. Its patient is its group, under a pseudonym, where no
    group was known; known groups and exams get pseudonyms too.

    Args:
        frame: A manifest's columns and `FOLDER`; `group`, and `exam` where there is such a column, are "" where not
            known.

    Returns:
        The frame without `FOLDER`, and a sentence for the report, none where no file is DICOM.
    """
    folders = frame[FOLDER]
    frame = frame.drop(columns=FOLDER)
    medical = pd.Series([is_dicom(path) for path in frame["path"].tolist()], frame.index, dtype=bool)
    if not medical.any():
        return frame, []
    has_group = frame["group"] != ""
    pseudonyms, notes = patient_pseudonyms(frame.loc[medical & ~has_group, "path"].tolist())
    numbers = frame[medical].groupby(folders[medical]).cumcount() + 1
    ids = frame["image_id"].copy()
    ids[medical] = folders[medical] + "/" + numbers.map("{:06d}".format)
    groups = frame["path"].map(lambda path: pseudonyms.get(path, ""))
    named = frame.loc[has_group, "group"]
    groups[has_group] = named.map(_pseudonyms({name: name for name in named}, "group"))
    if EXAM in frame:
        exams = frame.loc[frame[EXAM] != "", EXAM]
        numbered = exams.map(_pseudonyms({name: name for name in exams}, "exam"))
        frame = frame.assign(**{EXAM: numbered.reindex(frame.index, fill_value="")})
    known = len(pseudonyms) + int((has_group & medical).sum())
    note = (
        f"{int(medical.sum())} of {len(frame)} images are DICOM files. They have running numbers in place of names; "
        f"{known} of them have a patient, whose number in the report is not the one in the file."
    )
    return frame.assign(image_id=ids, group=groups), [note, *notes]


def _pseudonyms(names: Mapping[str, str], word: str) -> dict[str, str]:
    numbered = {name: f"{word} {index:04d}" for index, name in enumerate(sorted(set(names.values())), 1)}
    return {key: numbered[name] for key, name in names.items()}


def _stem(path: Path, folder: Path) -> str:
    return (path.relative_to(folder).parent / stem(path.name)).as_posix()
