"""What a stand-in consists of: how many pictures of which class and part, whose they are, what is wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from scanbook.config import FolderData, StandIn, Study, TableData
from scanbook.data.adapters.synthetic import faults
from scanbook.data.adapters.synthetic.canvas import Rng
from scanbook.data.adapters.synthetic.kinds import KINDS, modality
from scanbook.errors import StudyError
from scanbook.store import fingerprint

Files = FolderData | TableData
FEWEST_WITH_FAULTS = 60
_ROOMY = 6  # files of a class in a part, more than which it can spare one for a fault
# one fault of each kind for every so many pictures, rounded up
_ONE_IN = {
    **{"truncated": 500, "zero_byte": 1000, "dark": 250, "blurred": 200},
    **{"exact_duplicates": 150, "near_duplicates": 80, "conflicting_labels": 300},
}
_PICTURES_OF_A_PATIENT = 4  # on average
_TEST_FEWEST = 2


@dataclass(frozen=True)
class Habit:
    """What a download is like that its study does not say.

    `subfolders`: a class folder holds `images` and `masks`. `columns`: the table's, in order. `tinted`: the class of
    which some pictures have a colour cast. `strays`: files that are no images. `rates`: faults that are more frequent.
    """

    subfolders: bool = False
    columns: tuple[str, ...] = ()
    tinted: str = ""
    strays: dict[str, bytes] = field(default_factory=dict)
    rates: dict[str, int] = field(default_factory=dict)


_NOTE = b"Drawn by scanbook in the layout of this dataset. No patient was photographed.\n"
_EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
_COVID = "COVID-19_Radiography_Dataset"
HABITS = {
    "chest_xray": Habit(
        subfolders=True,
        tinted="COVID",
        strays={f"{_COVID}/README.md.txt": _NOTE, f"{_COVID}/COVID.metadata.xlsx": _EMPTY_ZIP},
    ),
    "melanoma": Habit(
        columns=(
            *("image_name", "patient_id", "sex", "age_approx", "anatom_site_general_challenge", "diagnosis"),
            *("benign_malignant", "target"),
        )
    ),
    # 123 byte-identical groups in 3,662 images, 30 of them with conflicting labels
    "retinopathy": Habit(rates={"exact_duplicates": 40, "conflicting_labels": 120}),
    "skin11": Habit(strays={"IMG_CLASSES/Thumbs.db": b"", "normal_skin/Thumbs.db": b""}),
}
_TINTED = 0.15  # of the pictures of that class


@dataclass
class Picture:
    """One file to be: its class folder or label, its part, name and patient, and what is done to it."""

    key: str
    split: str
    name: str = ""
    patient: int = -1
    fault: str = ""
    tinted: bool = False
    source: int = -1  # the picture that it copies
    how: str = ""


def shares(study: Study) -> dict[str, int]:
    """Return how many files each of `stand_in.classes` gets, copies included.

    In proportion to what the dataset claims for its class, and at least `fewest`; evenly where nothing is claimed. A
    class without a claim beside others that have one gets `fewest`.
    """
    block, layout = blocks(study)
    claimed = {key: layout.claimed.get(class_of(key, layout) or "", 0) for key in block.classes}
    if not any(claimed.values()):
        claimed = dict.fromkeys(claimed, 1)
    counts = dict.fromkeys(claimed, block.fewest)
    large = {key: claim for key, claim in claimed.items() if claim}
    while large:
        left = block.images - sum(counts[key] for key in counts if key not in large)
        exact = {key: left * claim / sum(large.values()) for key, claim in large.items()}
        small = [key for key, share in exact.items() if share < block.fewest]
        if not small:
            counts |= {key: int(share) for key, share in exact.items()}
            rest = max(left - sum(counts[key] for key in large), 0)
            for key in sorted(large, key=lambda key: int(exact[key]) - exact[key])[:rest]:
                counts[key] += 1
            break
        large = {key: claim for key, claim in large.items() if key not in small}
    return counts


def blocks(study: Study) -> tuple[StandIn, Files]:
    """Return the blocks that say what is drawn, and how it is laid out.

    Raises:
        StudyError: The study has no stand-in, or names a picture that the library does not draw.
    """
    block, layout = study.stand_in, study.dataset
    if block is None or not block.classes or not isinstance(layout, FolderData | TableData):
        raise StudyError(
            f"study {study.study} has no stand-in; expected stand_in.classes, and class folders or a table as dataset; "
            "pass DATA=path"
        )
    for key, kind in block.classes.items():
        if kind not in KINDS:
            raise StudyError(
                f"study {study.study}: stand_in.classes.{key} is {kind!r}; expected one of {', '.join(KINDS)}"
            )
    return block, layout


def class_of(key: str, layout: Files) -> str | None:
    """The class of a class folder or label, as the adapter reads it; None for one that the study leaves out."""
    if key in layout.extra_classes or not layout.classes:
        return key
    named = (name for pattern, name in layout.classes.items() if fnmatchcase(key.lower(), pattern.lower()))
    return next(named, None)


def splits(layout: Files, count: int) -> list[tuple[str, int]]:
    """Files of a class of `count` in each part that the source has."""
    if not layout.claimed_splits or isinstance(layout, TableData):
        return [("", count)]
    total, (first, *others) = sum(layout.claimed_splits.values()), layout.claimed_splits
    sizes = {split: max(_TEST_FEWEST, round(count * layout.claimed_splits[split] / total)) for split in others}
    return [(first, count - sum(sizes.values())), *sizes.items()]


def plant(pictures: list[Picture], layout: Files, habit: Habit, rng: Rng) -> None:
    """Decide which pictures are spoilt, and which are copies of which; no picture has two faults."""
    cells: dict[tuple[str, str], int] = {}
    for picture in pictures:
        cells[picture.key, picture.split] = cells.get((picture.key, picture.split), 0) + 1
    free = [index for index in rng.permutation(len(pictures)).tolist() if class_of(pictures[index].key, layout)]
    counts = {kind: math.ceil(len(pictures) / one_in) for kind, one_in in (_ONE_IN | habit.rates).items()}

    def take(fits: Callable[[Picture], bool]) -> int:
        """The next picture without a fault that fits; -1 when there is none."""
        found = next((index for index in free if fits(pictures[index])), -1)
        if found >= 0:
            free.remove(found)
        return found

    def spare(picture: Picture) -> bool:
        return cells[picture.key, picture.split] > _ROOMY

    for kind in faults.SPOILT:
        for _ in range(counts[kind]):
            if (index := take(spare)) >= 0:
                pictures[index].fault = kind
    for kind in ("exact_duplicates", "near_duplicates", "conflicting_labels"):
        for number in range(counts[kind]):
            source = take(spare)
            copy = take(_partner(pictures[source], kind, bool(number % 2), layout)) if source >= 0 else -1
            if copy < 0:
                continue
            pictures[copy].source = source
            if kind == "near_duplicates":
                pictures[copy].how = faults.NEAR_DUPLICATES[number % len(faults.NEAR_DUPLICATES)]
    if habit.tinted:
        for picture in pictures:
            chosen = bool(rng.uniform() < _TINTED)
            picture.tinted = chosen and picture.key == habit.tinted and not picture.fault and picture.source < 0
        for picture in pictures:
            if picture.source >= 0:
                picture.tinted = pictures[picture.source].tinted


def _partner(source: Picture, kind: str, same_split: bool, layout: FolderData | TableData) -> Callable[[Picture], bool]:
    """Whether a picture may be the copy of `source`; every second pair crosses the parts, where there are some."""
    parted = bool(layout.claimed_splits) and isinstance(layout, FolderData)
    conflict = kind == "conflicting_labels"

    def fits(picture: Picture) -> bool:
        if conflict:
            return picture.key != source.key and class_of(picture.key, layout) != class_of(source.key, layout)
        return picture.key == source.key and (not parted or (picture.split == source.split) == same_split)

    return fits


def name_files(pictures: list[Picture], block: StandIn, layout: Files, rng: Rng) -> None:
    """Name the files, and give each to a patient where the source knows patients."""
    numbers = iter(rng.choice(10_000_000, len(pictures), replace=False).tolist())
    order: dict[str, Iterable[int]] = {}
    for key in block.classes:
        order[key] = iter(1 + rng.permutation(sum(picture.key == key for picture in pictures)))
    for picture in pictures:
        number, kind = next(numbers), modality(block.classes[picture.key])
        if kind == "dermoscopy":
            picture.name = f"ISIC_{number:07d}"
        elif isinstance(layout, TableData):
            picture.name = fingerprint(number)[:12]
        else:
            words = re.sub(r"[^A-Za-z]+", "-", picture.key.replace("{count}", "")).strip("-")
            picture.name = f"{words}-{next(order[picture.key])}"
    if not (isinstance(layout, TableData) and layout.group_column):
        return
    left, patient = rng.permutation(len(pictures)).tolist(), 0
    while left:
        size = int(rng.geometric(1 / _PICTURES_OF_A_PATIENT))
        for index in left[:size]:
            pictures[index].patient = patient
        left, patient = left[size:], patient + 1
    for picture in pictures:
        if picture.how:
            picture.patient = pictures[picture.source].patient
        elif picture.source >= 0 and picture.patient == pictures[picture.source].patient:
            picture.patient = patient
            patient += 1
