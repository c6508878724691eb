"""The plan of a stand-in: how many images of which class and split, whose they are, and which faults they have."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from scanbook.config import FolderData, StandIn, Study, TableData
from scanbook.data.adapters.synthetic import faults
from scanbook.data.adapters.synthetic.kinds import FINDING_KINDS, KINDS, modality
from scanbook.data.adapters.synthetic.primitives import Rng
from scanbook.errors import StudyError
from scanbook.store import fingerprint

FileLayout = FolderData | TableData
FEWEST_WITH_FAULTS = 60
_FEWEST_INTACT = 6  # a class keeps at least so many images of a split without a fault
# Images per planted fault of each kind; the number of faults is rounded up.
_IMAGES_PER_FAULT = {
    **{"truncated": 500, "zero_byte": 1000, "dark": 250, "blurred": 200},
    **{"exact_duplicates": 150, "near_duplicates": 80, "conflicting_labels": 300},
}
_IMAGES_PER_PATIENT = 4  # on average
_FEWEST_IN_TEST = 2


@dataclass(frozen=True)
class Extras:
    """Properties of a published dataset that its study does not state.

    Attributes:
        subfolders: Whether a class folder holds the folders `images` and `masks`.
        columns: Columns of the table, in order.
        tinted: The class of which some images have a colour cast.
        other_files: Files that are not images, by path.
        images_per_fault: Faults that are more frequent than `_IMAGES_PER_FAULT` states.
        file: Path of a film with findings in its folder of images, of `patient`, `visit` (from 0), `exam` (from 1),
            `view`, `side` and `split`. The table names the path where it has folders.
        lateral: Share of the exams with a view from the side, where exams have several films.
        other_findings: Columns of findings that the stand-in may lack.
        no_disease: Findings without which there is no disease.
        long_sex: Whether the table writes Male and Female.
    """

    subfolders: bool = False
    columns: tuple[str, ...] = ()
    tinted: str = ""
    other_files: dict[str, bytes] = field(default_factory=dict)
    images_per_fault: dict[str, int] = field(default_factory=dict)
    file: str = "{patient:05d}_{visit:02d}_{view}.png"
    lateral: float = 0.0
    other_findings: tuple[str, ...] = ()
    no_disease: tuple[str, ...] = ()
    long_sex: bool = False


_NOTE = b"Synthetic images in the layout of this dataset, made by scanbook. They show no patient.\n"
_EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
_COVID = "COVID-19_Radiography_Dataset"
_NO_BOXES = b"Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
_CHEXPERT = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
EXTRAS = {
    "chest_xray": Extras(
        subfolders=True,
        tinted="COVID",
        other_files={f"{_COVID}/README.md.txt": _NOTE, f"{_COVID}/COVID.metadata.xlsx": _EMPTY_ZIP},
    ),
    "melanoma": Extras(
        columns=(
            *("image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge", "diagnosis"),
            *("benign_malignant", "target"),
        )
    ),
    # 123 groups of identical files in 3,662 images, 30 of them with conflicting labels
    "retinopathy": Extras(images_per_fault={"exact_duplicates": 40, "conflicting_labels": 120}),
    "chestxray14": Extras(
        columns=(
            *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"),
            # the header has commas in its brackets, and one at its end
            *("View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]", ""),
        ),
        other_files={
            "README_CHESTXRAY.pdf": _NOTE,
            "BBox_List_2017.csv": _NO_BOXES,
        },
        file="{patient:08d}_{visit:03d}.png",
    ),
    "chexpert": Extras(
        columns=("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *_CHEXPERT),
        file="{split}/patient{patient:05d}/study{exam}/view{view}_{side}.jpg",
        lateral=0.12,
        other_findings=_CHEXPERT,
        no_disease=("Support Devices",),
        long_sex=True,
    ),
    "skin11": Extras(other_files={"IMG_CLASSES/Thumbs.db": b"", "normal_skin/Thumbs.db": b""}),
}
_TINTED = 0.15  # share of the images of that class


@dataclass
class PlannedImage:
    """One file of a stand-in.

    Attributes:
        key: Class folder or label.
        split: Split, "" where the source has none.
        name: File name without extension.
        patient: Number of the patient; -1 where the source names none.
        fault: One of `faults.FILE_FAULTS`, or "".
        tinted: Whether it has a colour cast.
        source: Index of the image that it copies; -1 for an original.
        near_duplicate: One of `faults.NEAR_DUPLICATES` for such a copy, or "".
    """

    key: str
    split: str
    name: str = ""
    patient: int = -1
    fault: str = ""
    tinted: bool = False
    source: int = -1
    near_duplicate: str = ""


def class_sizes(study: Study) -> dict[str, int]:
    """Return the number of files of each of `stand_in.classes`, copies included.

    The numbers are in proportion to what the dataset claims for each class, and at least `min_per_class`; equal where
    nothing is claimed. A class without a claim beside others that have one gets `min_per_class`.
    """
    block, layout = stand_in_blocks(study)
    claimed = {key: layout.claimed.get(class_of(key, layout) or "", 0) for key in block.classes}
    if not any(claimed.values()):
        claimed = dict.fromkeys(claimed, 1)
    counts = dict.fromkeys(claimed, block.min_per_class)
    large = {key: claim for key, claim in claimed.items() if claim}
    while large:
        available = block.images - sum(counts[key] for key in counts if key not in large)
        exact = {key: available * claim / sum(large.values()) for key, claim in large.items()}
        small = [key for key, share in exact.items() if share < block.min_per_class]
        if not small:
            counts |= {key: int(share) for key, share in exact.items()}
            rest = max(available - sum(counts[key] for key in large), 0)
            for key in sorted(large, key=lambda key: int(exact[key]) - exact[key])[:rest]:
                counts[key] += 1
            break
        large = {key: claim for key, claim in large.items() if key not in small}
    return counts


def stand_in_blocks(study: Study) -> tuple[StandIn, FileLayout]:
    """Return the study's blocks `stand_in` and `dataset`.

    Raises:
        StudyError: The study has no stand-in, or names a kind of image that the library cannot synthesise, or labels
            that its layout cannot hold.
    """
    block, layout = study.stand_in, study.dataset
    if block is None or not (block.classes or block.findings) or not isinstance(layout, FolderData | TableData):
        raise StudyError(
            f"study {study.study} has no stand-in; expected stand_in.classes, and class folders or a table as dataset; "
            "pass DATA=path"
        )
    for key, kinds in (("classes", KINDS), ("findings", FINDING_KINDS)):
        for name, kind in getattr(block, key).items():
            if kind not in kinds:
                raise StudyError(
                    f"study {study.study}: stand_in.{key}.{name} is {kind!r}; expected one of {', '.join(kinds)}"
                )
    has_findings = bool(getattr(layout, "has_findings", False))  # class folders never have
    if bool(block.findings) != has_findings:
        stated, other = ("findings", "classes") if has_findings else ("classes", "findings")
        raise StudyError(
            f"study {study.study}: its dataset has {stated}, and its stand-in {other}; name stand_in.{stated} instead"
        )
    for name in block.findings:
        if layout.finding_names and name not in layout.finding_names:
            raise StudyError(
                f"study {study.study}: stand_in.findings names {name!r}, which dataset.findings does not; expected one "
                f"of {', '.join(layout.finding_names)}"
            )
    if block.findings and layout.label_separator and (block.missing or block.uncertain):
        raise StudyError(
            f"study {study.study}: cells of several names ({layout.label_column}) have no missing and no uncertain "
            "labels; expected stand_in.missing and stand_in.uncertain to be 0, or a column for each finding"
        )
    return block, layout


def class_of(key: str, layout: FileLayout) -> str | None:
    """Return the class of a class folder or label, as the adapter reads it; None where the study excludes it."""
    if key in layout.extra_classes or not layout.classes:
        return key
    matching = (name for pattern, name in layout.classes.items() if fnmatchcase(key.lower(), pattern.lower()))
    return next(matching, None)


def split_sizes(layout: FileLayout, count: int) -> dict[str, int]:
    """Return the number of files in each split of the source, of a class of `count` files."""
    if not layout.claimed_splits or isinstance(layout, TableData):
        return {"": count}
    total, (first, *others) = sum(layout.claimed_splits.values()), layout.claimed_splits
    sizes = {split: max(_FEWEST_IN_TEST, round(count * layout.claimed_splits[split] / total)) for split in others}
    return {first: count - sum(sizes.values()), **sizes}


def plant_faults(images: list[PlannedImage], layout: FileLayout, extras: Extras, rng: Rng) -> None:
    """Choose the images with a file fault and the copies of other images; no image has two faults."""
    cells = Counter((image.key, image.split) for image in images)
    free = [index for index in rng.permutation(len(images)).tolist() if class_of(images[index].key, layout)]
    ratios = _IMAGES_PER_FAULT | extras.images_per_fault
    counts = {kind: math.ceil(len(images) / ratio) for kind, ratio in ratios.items()}

    def take(fits: Callable[[PlannedImage], bool]) -> int:
        """Return the index of the next image without a fault that fits; -1 when there is none."""
        index = next((index for index in free if fits(images[index])), -1)
        if index >= 0:
            free.remove(index)
        return index

    def can_spare(image: PlannedImage) -> bool:
        return cells[image.key, image.split] > _FEWEST_INTACT

    for kind in faults.FILE_FAULTS:
        for _ in range(counts[kind]):
            if (index := take(can_spare)) >= 0:
                images[index].fault = kind
    for kind in ("exact_duplicates", "near_duplicates", "conflicting_labels"):
        for number in range(counts[kind]):
            source = take(can_spare)
            copy = take(_copy_filter(images[source], kind, bool(number % 2), layout)) if source >= 0 else -1
            if copy < 0:
                continue
            images[copy].source = source
            if kind == "near_duplicates":
                images[copy].near_duplicate = faults.NEAR_DUPLICATES[number % len(faults.NEAR_DUPLICATES)]
    if extras.tinted:
        for image in images:
            chosen = bool(rng.uniform() < _TINTED)
            image.tinted = chosen and image.key == extras.tinted and not image.fault and image.source < 0
        for image in images:
            if image.source >= 0:
                image.tinted = images[image.source].tinted


def _copy_filter(
    source: PlannedImage, kind: str, same_split: bool, layout: FileLayout
) -> Callable[[PlannedImage], bool]:
    """Return whether an image may be the copy of `source`; every second pair crosses the splits of the source."""
    has_splits = bool(layout.claimed_splits) and isinstance(layout, FolderData)

    def fits(image: PlannedImage) -> bool:
        if kind == "conflicting_labels":
            return image.key != source.key and class_of(image.key, layout) != class_of(source.key, layout)
        return image.key == source.key and (not has_splits or (image.split == source.split) == same_split)

    return fits


def name_files(images: list[PlannedImage], block: StandIn, layout: FileLayout, rng: Rng) -> None:
    """Name the files, and assign each to a patient where the source names patients."""
    numbers = rng.choice(10_000_000, len(images), replace=False).tolist()
    sizes = Counter(image.key for image in images)
    order = {key: iter(1 + rng.permutation(sizes[key])) for key in block.classes}
    for image, number in zip(images, numbers, strict=True):
        if modality(block.classes[image.key]) == "dermoscopy":
            image.name = f"ISIC_{number:07d}"
        elif isinstance(layout, TableData):
            image.name = fingerprint(number)[:12]
        else:
            words = re.sub(r"[^A-Za-z]+", "-", image.key.replace("{count}", "")).strip("-")
            image.name = f"{words}-{next(order[image.key])}"
    if not (isinstance(layout, TableData) and layout.group_column):
        return
    unassigned, patient = rng.permutation(len(images)).tolist(), 0
    while unassigned:
        size = int(rng.geometric(1 / _IMAGES_PER_PATIENT))
        for index in unassigned[:size]:
            images[index].patient = patient
        unassigned, patient = unassigned[size:], patient + 1
    for image in images:
        if image.near_duplicate:
            image.patient = images[image.source].patient
        elif image.source >= 0 and image.patient == images[image.source].patient:
            image.patient = patient
            patient += 1
