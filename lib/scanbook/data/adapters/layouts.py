"""The layout of class folders: which folders are splits, which are classes, and which are neither."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scanbook.data.adapters.listing import Tree, is_within
from scanbook.data.adapters.spelling import class_of
from scanbook.data.manifest import TEST, TRAIN, VALIDATION
from scanbook.errors import DataError

SPLIT_WORDS = (
    dict.fromkeys(("train", "training", "trainset", "trn"), TRAIN)
    | dict.fromkeys(("val", "valid", "validate", "validation", "valset", "dev"), VALIDATION)
    | dict.fromkeys(("test", "testing", "tst", "testset"), TEST)
)
"""Words that name a split, in the name of a folder or in a column."""
_FILLERS = frozenset(
    [
        *("data", "dataset", "set", "split", "part", "folder", "dir", "image", "images", "img", "imgs", "picture"),
        *("pictures", "photos", "file", "files", "samples", "seg", "input", "new"),
    ]
)
"""Words that may stand beside the word of a split, or that number the parts of a set of images."""
_PARTS = _FILLERS | frozenset(
    [
        *("fold", "subset", "batch", "chunk", "archive", "volume", "vol", "disc", "disk", "base", "label", "labels"),
        *("original", "augmented", "augmentation", "raw", "processed", "preprocessed", "resized", "cropped"),
        *("patient", "patients", "pat", "pt", "subject", "subjects", "subj", "sub", "participant", "person", "case"),
        *("study", "series", "session", "visit", "site", "center", "centre", "hospital", "internal", "external"),
    ]
)
"""Words of folders that hold a part of the images, such as those of a patient or a hospital, and not a class."""
MASK_WORDS = frozenset(
    ["mask", "masks", "annotation", "annotations", "groundtruth", "gt", "segmentation", "segmentations"]
)
"""Words that name masks, in the name of a folder or a column."""
_NOT_A_MASK = frozenset({"with", "without", "no", "non", "not"})


IMAGES = frozenset({"image", "images"})
"""Names of the folder of a class that holds its images, beside one of their masks."""


@dataclass(frozen=True)
class ClassFolders:
    """Class folders of a dataset.

    Attributes:
        root: The folder in which they, or the folders of the splits, lie.
        splits: The folders of the splits and the split of each; the root and "" without splits.
        notes: Sentences on what was ignored.
        ignored: Folders that are not read.
    """

    root: Path
    splits: dict[Path, str]
    notes: list[str]
    ignored: list[Path]


def words_of(name: str) -> list[str]:
    """Return the words of a folder's name, small: those of "SegTrain_set 2" are seg, train, set and 2."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+|\d+", spaced.casefold())


def split_of(name: str) -> str:
    """Return the split that a name stands for, such as "Training", "seg_train", "test set" or "val_data"; "" if none.

    Numbers and words such as "images" may stand beside that of the split.
    """
    words = [word for word in words_of(name) if not word.isdecimal()]
    named = [word for word in words if word in SPLIT_WORDS]
    return SPLIT_WORDS[named[0]] if len(named) == 1 and set(words) - set(named) <= _FILLERS else ""


def splits_in(name: str) -> set[str]:
    """Return the splits that the words of a name or a path stand for, whatever stands beside them."""
    return {SPLIT_WORDS[word] for word in words_of(name) if word in SPLIT_WORDS}


def is_mask_folder(name: str) -> bool:
    """Return whether a folder's name is that of masks: its last word is, as in "GT", "lung masks" or "ManualMask"."""
    words = words_of(re.sub("ground[ _-]?truth", "groundtruth", name, flags=re.IGNORECASE))
    while words and (words[-1].isdecimal() or words[-1] in ("image", "images", "png", "folder")):
        words.pop()
    return bool(words) and words[-1] in MASK_WORDS and not _NOT_A_MASK & set(words)


def find_class_folders(tree: Tree, classes: Mapping[str, str], apart: Collection[Path] = ()) -> ClassFolders:
    """Find the class folders of a dataset, and its splits.

    In a source with train and one other split, the other split is test. Validation is taken from train later.

    Args:
        tree: The dataset's folder.
        classes: Class by pattern of a folder's name; empty: every folder is a class.
        apart: Resolved paths of folders to ignore.

    Raises:
        DataError: The layout is not one of class folders, or may be read in several ways.
    """
    root = unwrap(tree, tree.root)
    folders = [path for path in tree.folders(root) if not is_within(path, apart)]
    copies, notes = _copies_of_itself(tree, root, folders)
    folders = [path for path in folders if path not in copies]
    splits = {path: split for path in folders if (split := split_of(path.name))}
    stray = [path for path in folders if path not in splits and class_of(path.name, classes) is not None]
    empty = [path for path in (*splits, *stray) if splits and not tree.images(path)]
    if empty:
        notes.append(f"Folders without images are ignored: {', '.join(path.name for path in empty)}.")
    folders, stray = ([path for path in paths if path not in empty] for paths in (folders, stray))
    splits = {path: split for path, split in splits.items() if path not in empty}
    if not splits:
        if not classes:
            _check_class_names(root, folders)
        _check_levels(tree, root, folders, classes)
        if not classes:
            _check_splits_inside(tree, folders)
        return ClassFolders(root, {root: ""}, notes + _lower_notes(tree, [root]), [*copies, *empty])
    if stray:
        raise DataError(
            f"{root} mixes split folders with {stray[0].name!r}; expected only train, val and test, or only "
            f"class folders; {_move(stray[0])}"
        )
    for path in splits:
        if not any(tree.images(folder) for folder in tree.folders(path)):
            raise DataError(
                f"{path} holds {len(tree.images(path))} images without class folders; expected a folder for each "
                "class, as in the other splits; sort its images into class folders, or move it away: scanbook then "
                "takes the split from the others"
            )
    if TEST not in splits.values():
        notes.append(
            "The source has train and one other split, which is taken for test; validation is a part of train."
        )
    splits = _unwrap_splits(tree, _with_test(root, splits))
    for path in splits if not classes else ():
        _check_class_names(path, tree.folders(path))
    return ClassFolders(root, splits, notes + _lower_notes(tree, splits), [*copies, *empty])


def split_folders(tree: Tree, folder: Path) -> dict[Path, str]:
    """Return the folders in a folder that have names of splits, and the split of each; none where none has.

    Raises:
        DataError: Train, or another split, is missing.
    """
    splits = {path: split for path in tree.folders(folder) if (split := split_of(path.name))}
    return _with_test(folder, splits) if splits else {}


def _with_test(root: Path, splits: Mapping[Path, str]) -> dict[Path, str]:
    """Return the split of each folder; of train and one other split, the other is test.

    Raises:
        DataError: Train, or another split, is missing.
    """
    if TRAIN not in splits.values() or len(set(splits.values())) < 2:
        names = ", ".join(path.name for path in splits)
        raise DataError(
            f"{root} has the split folders {names or 'none'}; expected train and at least one of val and test"
        )
    only_two = TEST not in splits.values()
    return {path: TEST if only_two and split == VALIDATION else split for path, split in splits.items()}


def unwrap(tree: Tree, folder: Path) -> Path:
    """Return the folder, or the only one in it where that has its name, as in `data/data`, or holds the splits."""
    folders = tree.folders(folder)
    if len(folders) != 1 or tree.images(folder, deep=False) or not tree.folders(folders[0]):
        return folder
    (inside,) = folders
    lower = unwrap(tree, inside)
    holds_splits = TRAIN in {split_of(path.name) for path in tree.folders(lower)}
    return lower if holds_splits or inside.name.casefold() == folder.name.casefold() else folder


def _unwrap_splits(tree: Tree, splits: Mapping[Path, str]) -> dict[Path, str]:
    """Return the folders that hold the classes of each split: the only folder of each, where that is no class."""
    unwrapped = {unwrap(tree, path): split for path, split in splits.items()}
    inside = [tree.folders(path) for path in unwrapped]
    names = [{path.name.casefold() for path in tree.folders(folders[0])} for folders in inside]
    if all(len(folders) == 1 for folders in inside) and len(names[0]) > 1 and all(one == names[0] for one in names):
        return {folders[0]: split for folders, split in zip(inside, unwrapped.values(), strict=True)}
    return unwrapped


def _copies_of_itself(tree: Tree, root: Path, folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the folders that hold a copy of all others, and a sentence on each.

    Raises:
        DataError: A folder holds folders of the same names with other files.
    """
    for folder in folders:
        others = {path.name.casefold(): path for path in folders if path != folder}
        inside = {path.name.casefold(): path for path in tree.folders(folder) if path.name.casefold() in others}
        if len(others) < 2 or inside.keys() != others.keys():
            continue
        name = folder.name
        names = ", ".join(path.name for path in others.values())
        if all(tree.sizes(path) == tree.sizes(others[key]) for key, path in inside.items()):
            return [folder], [f"The folder {name} is ignored: it is a copy of {names} beside it."]
        raise DataError(
            f"{root} holds {names}, and {name} holds folders of the same names with other files; expected one dataset; "
            f"move {name} away, or pass DATA={folder}"
        )
    return [], []


def _check_class_names(root: Path, folders: Sequence[Path]) -> None:
    """Raise a `DataError` where folders have names of splits, of parts of one set, or of masks, and not of classes."""
    words = {path: words_of(path.name) for path in folders}
    names = ", ".join(path.name for path in folders[:4]) + (", …" if len(folders) > 4 else "")
    splits = {SPLIT_WORDS[word] for some in words.values() for word in some if word in SPLIT_WORDS}
    if len(splits) > 1:
        raise DataError(
            f"{root}: the folders {names} look like splits, not classes; expected train/<class> and test/<class>; "
            "sort the class folders into train and test, or name them in classes of a study"
        )
    named = [{word for word in some if not word.isdecimal() and len(word) > 1} for some in words.values()]
    if len(named) > 1 and all(some and some <= _PARTS for some in named):
        raise DataError(
            f"{root}: the folders {names} look like parts of one set of images, or patients, not classes; expected a "
            "folder for each class, or a table that names each image and its class; name them in classes of a study if "
            "they are"
        )
    for path in folders:
        if len(folders) > 1 and is_mask_folder(path.name):
            raise DataError(
                f"{root}: the folder {path.name} looks like one of masks, not a class; expected class "
                "folders, with masks in a folder masks inside each; move it away, or name the classes in classes of "
                "a study"
            )


def _check_splits_inside(tree: Tree, folders: Sequence[Path]) -> None:
    """Raise a `DataError` where a folder that would be a class holds splits."""
    for folder in folders:
        inside = tree.folders(unwrap(tree, folder))
        names = ", ".join(path.name for path in inside)
        if {split_of(path.name) for path in inside} > {TRAIN} and all(split_of(path.name) for path in inside):
            raise DataError(
                f"{folder} holds the splits {names}; expected the splits outside, as in train/<class>; move the class "
                f"folders into the splits, or pass DATA={folder} if it is a dataset of its own"
            )


def _check_levels(tree: Tree, root: Path, folders: Sequence[Path], classes: Mapping[str, str]) -> None:
    """Raise a `DataError` where all folders hold folders of the same names: splits, or the classes themselves."""
    inside = [
        {
            path.name.casefold()
            for path in tree.folders(folder)
            if not (is_mask_folder(path.name) or path.name.casefold() in IMAGES)
        }
        for folder in folders
    ]
    if len(inside) < 2 or len(inside[0]) < 2 or any(names != inside[0] for names in inside):
        return
    names = ", ".join(sorted(inside[0])[:4])
    outer = ", ".join(folder.name for folder in folders[:4])
    if all(split_of(name) for name in inside[0]):
        raise DataError(
            f"{root}: each of the folders {outer} holds {names}; expected the splits outside, as in train/<class>; "
            "move the class folders into the splits"
        )
    if not classes and not any(re.search(r"\d", name) for name in inside[0]):
        raise DataError(
            f"{root}: each of the folders {outer} holds folders of the same names ({names}), so that the classes may "
            f"be either; expected one level of class folders; pass DATA={folders[0]}, or name the classes in classes "
            "of a study"
        )


def _lower_notes(tree: Tree, parents: Collection[Path]) -> list[str]:
    """Return a sentence on the first class folder whose images lie in several folders in it, which may be classes.

    The names of these are not shown: they may be those of patients.
    """
    for folder in (folder for parent in parents for folder in tree.folders(parent)):
        count = sum(bool(tree.images(path)) for path in tree.folders(folder) if not is_mask_folder(path.name))
        if count > 1 and not tree.images(folder, deep=False):
            return [f"The images of {folder.name} lie in {count} folders in it, which count as one class."]
    return []


def _move(stray: Path) -> str:
    """Return what to do with a folder that lies beside the splits."""
    if is_mask_folder(stray.name):
        return f"move {stray.name}, which looks like one of masks, away"
    if any(word in SPLIT_WORDS for word in words_of(stray.name)):
        return f"rename {stray.name} to the split that it is, or move it away"
    return f"move {stray.name} away"
