"""Write a study of one's own images from the layout of their folder: class folders, or a table beside the images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from scanbook import config, runtime, store
from scanbook.data import adapters, folds
from scanbook.data.adapters import layouts, spelling, tables
from scanbook.data.adapters.listing import Tree, stem
from scanbook.data.adapters.lookup import ImageIndex, normalise
from scanbook.data.adapters.tables import ImageTable
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import DataError, StudyError
from scanbook.runner.authoring import labels
from scanbook.runner.authoring.labels import Form, named

GROUPS = (
    *("patient_id", "patient", "patientid", "subject_id", "subject", "subjectid", "participant_id", "person_id", "pid"),
    *("lesion_id", "case_id"),
)
"""Names of columns with the patient or lesion; a patient before a lesion, of which a patient may have several."""
SPLITS = ("split", "part", "set", "subset", "partition", "fold", "usage", "data_set", "dataset")
SUBGROUPS = ("sex", "gender", "patient_sex", "patient_gender", "age", "age_approx", "patient_age")
_TAKEN = ("all", "bench")
"""Names with another meaning for `STUDY=` or in the reports folder."""
EXAMS = ("exam_id", "exam", "study_id", "study", "studyid", "accession_number", "accessionnumber", "visit_id", "visit")
"""Names of columns with the exam of an image."""
_IDENTIFIES = frozenset({"id", "patient", "patients", "subject", "case", "person", "participant", "mrn", "number"})
"""Words in the names of columns that may identify patients."""
_PATHS = (
    (r"patient[_-]?\d+", r"patient[_-]?\d+/(?:study|exam|visit)[_-]?\w+"),
    (r"p\d{8}", r"p\d{8}/s\d{8}"),
    (r"(?:subject|sub|case)[_-]?\d+", r"(?:subject|sub|case)[_-]?\d+/(?:study|exam|visit|ses)[_-]?\w+"),
)
"""Regular expressions of the patient and the exam in the folders of a path: CheXpert, MIMIC-CXR, others."""
_FOLDERS = 6
"""The most image folders that a study names one by one."""


@dataclass(frozen=True)
class Scaffold:
    """A new study.

    Attributes:
        path: Its file.
        manifest: Its images.
        reads: What it reads: the table and its columns, or class folders.
        notes: What it does not read, and why.
    """

    path: Path
    manifest: Manifest
    reads: str
    notes: tuple[str, ...]


def create(name: str, data: str = "") -> Scaffold:
    """Write a new study after reading its images with it.

    Args:
        name: Name of the study and its file.
        data: Folder of the images; "" for the study's folder in `data/`.

    Raises:
        StudyError: The name is not one of a study, or is taken.
        DataError: The folder is missing, or no adapter reads its layout.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in _TAKEN:
        raise StudyError(
            f"a study cannot be named {name!r}; expected small letters, digits and _, such as my_images, "
            f"and not {' or '.join(_TAKEN)}"
        )
    path = config.studies_dir() / f"{name}.yaml"
    if path.exists():
        raise StudyError(f"{path} exists; choose another name, or remove it")
    folder = Path(data).expanduser().resolve() if data else runtime.data_dir() / name
    if not folder.is_dir():
        raise DataError(f"no folder of images at {folder}; put them there or name their place: --data path/to/images")
    words = name.replace("_", " ")
    values: dict[str, Any] = yaml.safe_load((config.studies_dir() / "folder.yaml").read_bytes())
    values |= {
        "study": name,
        "title": words.capitalize(),
        "question": f"How well can the classes of {words} be told apart?",
    }
    tree = Tree(folder)
    values["dataset"], ignored, remarks = _layout(tree)
    if "findings" in values["dataset"] or "label_separator" in values["dataset"]:
        values["question"] = f"Which findings do the images of {words} show?"
    subgroups = values["dataset"].get("metadata", [])
    if subgroups:
        values["evaluation"] = {"subgroups": [*subgroups]}
    draft = {key: value for key, value in values.items() if key != "profiles"}
    try:
        manifest = adapters.load(config.Study.model_validate(draft | {"data": str(folder)}))
    except DataError as error:
        raise DataError("; ".join([str(error), *(note.removesuffix(".") for note in ignored[:2])])) from error
    kind = "findings" if manifest.findings else "classes"
    values["dataset"] |= _names(values["dataset"], manifest)
    heading = (
        f"# Run it with: make reports STUDY={name}{' DATA=path/to/the/images' if data else ''}\n"
        f"# {kind}: the name in the data, then the one in reports, in their order there\n"
    )
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    notes = [*ignored, *remarks, *manifest.facts["notes"]]
    if line := folds.propose_folds(manifest):
        text += f"# {line}\n"
        notes.append(f"For narrower intervals, remove the # before {line}, the last line of the study.")
    store.atomic_write(path, heading + text)
    try:
        for profile in config.PROFILES:
            config.load(name, profile, data)
    except StudyError:
        path.unlink()
        raise
    return Scaffold(path, manifest, _describe(values["dataset"], manifest), tuple(notes))


def _names(block: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Return the key of the names of classes or findings: in the data, and in reports."""
    if manifest.classes:
        if "classes" in block:  # columns, which are no patterns
            return {"classes": {column: name for column, name in block["classes"].items() if name in manifest.classes}}
        return {"classes": {labels.source_name(label): labels.shown_name(label) for label in manifest.classes}}
    if "findings" in block:
        return {}  # as the columns are named
    if block.get("allow_missing"):  # other images may have other findings
        return {}
    return {"findings": {labels.source_name(name): name for name in manifest.findings}}


def _layout(tree: Tree) -> tuple[dict[str, Any], list[str], list[str]]:
    """Return the block `dataset` for the images in a folder: of a table if one names them, else of class folders.

    Of several tables it reads the one that names the most images and has their labels, or those that are called after
    the splits and have the same columns.

    Returns:
        The block, a sentence for each table that it does not read, and sentences on the labels that it reads.

    Raises:
        DataError: Tables name the images, and none has a column that is known to hold their labels.
    """
    own = {"source": "own images", "licence": "unknown"}
    naming, notes = tables.image_tables(tree)
    if not naming:
        return {"adapter": "folder", **own}, notes, []
    forms = {table.path: _form([table]) for table in naming}
    largest = max(naming, key=lambda table: (isinstance(forms[table.path], Form), table.named))
    splits = _split_tables(naming, largest)
    read = list(splits.values()) or [largest]
    form = _form(read) if splits else forms[largest.path]
    if isinstance(form, str):
        raise DataError(form)
    names = {table.path: table.path.relative_to(tree.root).as_posix() for table in naming}
    more = f"{names[largest.path]} is, which names as many images or more; join the tables into one to use both"
    for table in naming:
        if table not in read:
            reason = "" if isinstance(forms[table.path], Form) else "its class is not known"
            notes.append(f"{names[table.path]} is not read: {reason or more}.")
    columns = pd.concat([table.others for table in read], ignore_index=True)
    images = pd.concat([_images(table) for table in read], ignore_index=True)
    others = columns.drop(columns=form.columns)
    keys = _columns(others, images)
    if not {"group_column", "group_pattern"} & set(keys):
        notes += _possible_patients(others, images, keys)
    if splits:
        keys.pop("split_column", None)
    elif "split_column" not in keys:
        for column in named(others, SPLITS):
            values = others[column].drop_duplicates()
            words = values.map(layouts.split_of)
            if words.nunique() > 2:
                notes.append(f"The column {column} is not read as splits: {values[words == ''].iloc[0]!r} is none.")
        keys |= _split_lists(tree, images)
    block = {
        "adapter": "table",
        "csv": {split: names[table.path] for split, table in splits.items()} or names[largest.path],
        "image_column": largest.column,
        **({"path_prefix": largest.prefix} if largest.prefix else {}),
        **form.keys,
        **keys,
        **_folders(tree, read),
        **own,
    }
    return block, notes, form.notes


def _split_tables(naming: Sequence[ImageTable], largest: ImageTable) -> dict[str, ImageTable]:
    """Return the tables of the splits, such as train.csv and valid.csv of the same columns; none if there are no such.

    Beside train, validation alone is test.
    """
    splits: dict[str, ImageTable] = {}
    for table in naming:
        words = layouts.splits_in(stem(table.path.name))
        alike = table.column == largest.column and table.prefix == largest.prefix and not table.rival
        if len(words) == 1 and alike and set(table.table.rows) == set(largest.table.rows):
            split = words.pop()
            if split in splits:
                return {}
            splits[split] = table
    if largest not in splits.values() or TRAIN not in splits or len(splits) < 2:
        return {}
    if TEST not in splits:
        splits[TEST] = splits.pop(VALIDATION)
    return {split: splits[split] for split in (TRAIN, VALIDATION, TEST) if split in splits}


def _images(table: ImageTable) -> pd.Series:
    """Return the names of the images of a table's rows."""
    return table.table.rows[table.column].map(lambda name: normalise(name, table.prefix))


def _form(read: Sequence[ImageTable]) -> Form | str:
    """Return the form of the labels of tables with the same columns, or the reason why they are not read."""
    table = read[0]
    if not table.column:
        return (
            f"the first row of {table.path} names an image, so the table has no header; expected names of columns; "
            "add a first row such as image,label"
        )
    if table.rival:
        return (
            f"the columns {table.column} and {table.rival} of {table.path} both name images; expected one; write a row "
            "for each image, or remove the column of the images that the study does not use"
        )
    columns = pd.concat([other.others for other in read], ignore_index=True)
    taken = [*named(columns, GROUPS), *named(columns, SPLITS), *named(columns, SUBGROUPS), *named(columns, EXAMS)]
    try:
        return labels.recognise(columns, taken, str(table.path))
    except DataError as error:
        return str(error)


def _columns(columns: pd.DataFrame, images: pd.Series) -> dict[str, Any]:
    """Return the keys of a study that name a table's columns, except those with the images and the labels.

    Args:
        columns: The other columns.
        images: The names of the images, of the same rows.
    """
    keys: dict[str, Any] = {}
    groups = [name for name in named(columns, GROUPS) if not spelling.is_not_told(columns[name]).all()]
    if groups:
        keys["group_column"] = groups[0]
    keys |= _exams(columns, images, groups[:1])
    for name in named(columns, SPLITS):
        splits = set(columns[name].map(layouts.split_of))
        if splits > {TRAIN} and "" not in splits:
            keys["split_column"] = name
            break
    if subgroups := named(columns, SUBGROUPS):
        keys["metadata"] = subgroups
    return keys


def _possible_patients(columns: pd.DataFrame, images: pd.Series, keys: dict[str, Any]) -> list[str]:
    """Return a sentence on the columns that may identify patients of several images, such as ID in ODIR, if any."""
    taken = [name for value in keys.values() for name in ([value] if isinstance(value, str) else value)]
    possible = []
    for name in columns.drop(columns=[name for name in taken if name in columns]):
        cells = columns[name][~spelling.is_not_told(columns[name])]
        images_of = images[cells.index].groupby(cells).nunique()
        if _IDENTIFIES & set(layouts.words_of(name)) and len(images_of) > 2 and (images_of > 1).any():
            possible.append(name)
    if not possible:
        return []
    return [
        f"No column is known to hold the patient, who may then be in two splits: if {' or '.join(possible)} does, set "
        "group_column."
    ]


def _exams(columns: pd.DataFrame, images: pd.Series, groups: Sequence[str]) -> dict[str, Any]:
    """Return the keys of exams of several images, and of patients in the folders of the images.

    A column without a known patient is that of exams where its name says that it identifies.
    """

    def several(exams: pd.Series) -> bool:
        known = ~spelling.is_not_told(exams)
        return bool((images[known].groupby(exams[known]).nunique() > 1).any())

    for name in named(columns, EXAMS):
        exams = columns[name].str.strip()
        if groups:
            patients = columns[groups[0]]
            if (patients.groupby(exams).nunique() > 1).any():  # numbered within a patient
                if several(patients.str.cat(exams, sep=" ").mask(spelling.is_not_told(exams), "")):
                    return {"exam_column": [groups[0], name]}
            elif several(exams):
                return {"exam_column": name}
        elif re.search("id|number", name, re.IGNORECASE) and several(exams):
            return {"exam_column": name}
    for patient, exam in _PATHS if not groups else ():
        patients = images.str.extract(f"(?:^|/)({patient})/")[0]
        if patients.notna().all() and patients.nunique() > 1:
            exams = images.str.extract(f"(?:^|/)({exam})/")[0]
            with_exam = exams.notna().all() and several(exams)
            return {"group_pattern": patient} | ({"exam_pattern": exam} if with_exam else {})
    return {}


def _split_lists(tree: Tree, images: pd.Series) -> dict[str, Any]:
    """Return the key of text files that list the images of train and of another split, such as test_list.txt."""
    names = set(images.map(lambda name: stem(name).casefold()))
    lists: dict[str, str] = {}
    for path in tree.below(tree.root):
        words = layouts.splits_in(stem(path.name))
        split = words.pop() if len(words) == 1 else TRAIN if words == {TRAIN, VALIDATION} else ""
        if path.suffix.lower() != ".txt" or not split:
            continue
        try:
            lines = [line.strip() for line in tables.decode(path.read_bytes())[1].splitlines() if line.strip()]
        except (OSError, ValueError):
            continue
        listed = sum(stem(normalise(line)).casefold() in names for line in lines)
        if lines and 2 * listed > len(lines):
            if split in lists:
                return {}
            lists[split] = path.relative_to(tree.root).as_posix()
    return {"split_lists": lists} if TRAIN in lists and len(lists) > 1 else {}


def _folders(tree: Tree, read: Sequence[ImageTable]) -> dict[str, Any]:
    """Return the folders of the images that tables name, of their masks, and whether images are missing."""
    root = tree.root
    inside: dict[str, list[str]] = {}
    for path in tree.images(root):
        inside.setdefault(path.parent.relative_to(root).as_posix(), []).append(str(path))
    masks = [place for place in inside if any(map(layouts.is_mask_folder, place.split("/")))]
    index = ImageIndex([root], [(root / place).resolve() for place in masks], tree)
    names = pd.concat([_images(table).drop_duplicates() for table in read], ignore_index=True)
    images = index.locate(names)
    several = images[images.map(len) > 1]
    if len(several) and len(read) == 1:
        places = ", ".join(sorted({Path(path).parent.relative_to(root).as_posix() for path in several.iloc[0]}))
        raise DataError(
            f"{read[0].path} names {len(several)} images of which several files have the name, and differ, as in "
            f"{places}; expected one; move the others away, or write the folder and the extension into the table"
        )
    keys = _missing(names[images.map(len) == 0], len(names), index)
    places = {path.rsplit("/", 1)[0] for paths in images for path in paths}
    others = [place for place in inside if str(root / place) in places or (place == "." and str(root) in places)]
    if not others:  # the images themselves were segmented
        return {"image_folders": masks or ["."], **keys}
    # the other folders of a dataset that is partly unpacked come later
    if len(others) > _FOLDERS or any("/" in name for name in names) or len(several) or keys:
        others = ["."]
    keys = {"image_folders": others, **keys}
    if masks:
        first = stem(inside[masks[0]][0])
        # the name of a mask may be that of its image and a suffix
        stems = {stem(name) for name in names}
        suffix = min((first.removeprefix(name) for name in stems if first.startswith(name)), key=len, default="")
        keys |= {"mask_folder": masks[0]} | ({"mask_suffix": suffix} if suffix else {})
    return keys


def _missing(names: pd.Series, total: int, index: ImageIndex) -> dict[str, Any]:
    """Return the key of images that may be missing, where a tenth or more are: the dataset is partly unpacked.

    Fewer are a fault of the table or of the folder, which loading reports.
    """
    resembling = any(index.resembles(name) for name in names)
    return {"allow_missing": True} if total > len(names) >= total / 10 and not resembling else {}


def _describe(block: dict[str, Any], manifest: Manifest) -> str:
    """Return what a study reads, and the splits of the source."""
    counts = manifest.frame["split"].value_counts().drop("", errors="ignore")
    splits = "; splits of the source: " + ", ".join(f"{split} {count}" for split, count in counts.items())
    if block["adapter"] == "folder":
        return f"It reads class folders{splits if len(counts) else ''}."
    keys = {"image": "image_column"}
    if "label_column" in block:
        keys["findings" if "label_separator" in block else "class"] = "label_column"
    else:
        keys |= {"classes": "classes", "findings": "findings"}
    keys |= {"no finding": "no_finding", "patient": "group_column", "patient in the path": "group_pattern"}
    keys |= {"exam": "exam_column", "exam in the path": "exam_pattern", "split": "split_column", "lists": "split_lists"}
    keys |= {"metadata": "metadata"}
    columns = [f"{word}: {_joined(block[key])}" for word, key in keys.items() if key in block]
    return f"It reads {_joined(block['csv'])} ({'; '.join(columns)}){splits if len(counts) else ''}."


def _joined(value: str | list[str] | dict[str, str]) -> str:
    if isinstance(value, dict):
        value = [name if name == shown else f"{name} {shown}" for name, shown in value.items()]
    return value if isinstance(value, str) else ", ".join(value)
