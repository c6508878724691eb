"""Stand-ins: pictures of a dataset's modality, drawn as files in the layout of its download.

They are read by the adapter that reads the download, so a study runs end to end where its dataset is not, and what its
layout asks of the adapter is asked here too.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from scanbook import runtime
from scanbook.config import StandIn, Study, TableData
from scanbook.data.adapters.synthetic import faults
from scanbook.data.adapters.synthetic.canvas import Rng
from scanbook.data.adapters.synthetic.kinds import KINDS, Drawing, modality
from scanbook.data.adapters.synthetic.lesion import draw_skin
from scanbook.data.adapters.synthetic.plan import (
    FEWEST_WITH_FAULTS,
    HABITS,
    Files,
    Habit,
    Picture,
    blocks,
    name_files,
    plant,
    shares,
    splits,
)
from scanbook.data.manifest import Manifest
from scanbook.store import fingerprint, stage

Progress = Callable[[Iterable, str, int], Iterable]

_EXTENSIONS = {"clinical": ".jpg", "dermoscopy": ".jpg", "xray": ".png", "fundus": ".png"}
_XRAY_MASK = 256 / 299  # the size of a mask of COVID-19 Radiography, in sizes of its image
_SITES = ("torso", "lower extremity", "upper extremity", "head/neck", "palms/soles", "oral/genital")
_SITE_SHARES = (0.51, 0.26, 0.15, 0.06, 0.01, 0.01)  # of ISIC 2020, rounded


def load(study: Study, read: Callable[[Study], Manifest]) -> Manifest:
    """Draws the study's stand-in, unless it lies in the store, and lists it with its dataset's own adapter.

    Args:
        study: A study with a `stand_in`, of class folders or a table.
        read: The adapter; it is given the study with `data` naming the drawn files.

    Returns:
        The manifest. Its facts say what was planted: `faults` {kind: image ids, or pairs of them},
        `near_duplicate_kinds` {copy: one of `faults.NEAR_DUPLICATES`}, and `tinted`, image ids.

    Raises:
        StudyError: The study has no stand-in, or names a picture that the library does not draw.
    """
    block, layout = blocks(study)
    inputs = {"study": study.study, "dataset": layout.model_dump(mode="json"), "stand_in": block.model_dump()}
    folder = stage("stand_in", inputs, lambda work: write(work, study, runtime.progress), __name__)
    root = folder / "dataset"
    manifest = read(study.model_copy(update={"data": str(root)}))
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    ids = {
        Path(path).relative_to(root).as_posix(): name
        for path, name in zip(manifest.frame["path"], manifest.frame["image_id"], strict=True)
    }
    planted = {
        kind: [ids[each] if isinstance(each, str) else [ids[path] for path in each] for each in members]
        for kind, members in truth["faults"].items()
    }
    facts = {
        "data": fingerprint(inputs, folder.name),
        "faults": planted,
        "near_duplicate_kinds": {ids[path]: how for path, how in truth["near_duplicate_kinds"].items()},
        "tinted": [ids[path] for path in truth["tinted"]],
    }
    return Manifest(manifest.name, manifest.frame, manifest.classes, manifest.facts | facts)


def write(folder: Path, study: Study, progress: Progress | None = None, *, workers: int | None = None) -> None:
    """Write the stand-in; the same study gives the same bytes, whatever the number of workers.

    The files lie in `dataset/`; `truth.json` says what was planted: `faults`, `near_duplicate_kinds` and `tinted`, as
    in `load`, with paths relative to `dataset/` for image ids.

    Args:
        folder: Where to write.
        study: A study with a `stand_in`.
        progress: Wraps the loop, as `runtime.progress` does: called with an iterable, a description and a total.
        workers: Threads; all cores that the process may use, unless given.
    """
    block, layout = blocks(study)
    habit = HABITS.get(study.study, Habit())
    counts = shares(study)
    rng = np.random.default_rng([block.seed, 0])
    pictures = [
        Picture(key, split) for key, count in counts.items() for split, n in splits(layout, count) for _ in range(n)
    ]
    if len(pictures) >= FEWEST_WITH_FAULTS:
        plant(pictures, layout, habit, rng)
    name_files(pictures, block, layout, rng)
    root = folder / "dataset"
    paths = [_path(picture, block, layout, habit, counts) for picture in pictures]
    masks = [_mask_path(path, picture, block, layout, habit) for path, picture in zip(paths, pictures, strict=True)]
    for path in {Path(path).parent for path in (*paths, *masks) if path}:
        (root / path).mkdir(parents=True, exist_ok=True)
    copies: dict[int, list[int]] = {}
    for index, picture in enumerate(pictures):
        if picture.source >= 0:
            copies.setdefault(picture.source, []).append(index)
    diagnoses = [""] * len(pictures)

    def save(index: int, data: bytes, mask: np.ndarray | None, diagnosis: str) -> None:
        (root / paths[index]).write_bytes(data)
        if masks[index] and mask is not None:
            (root / masks[index]).write_bytes(faults.encode(mask, ".png"))
        diagnoses[index] = diagnosis

    def work(index: int) -> None:
        picture = pictures[index]
        drawing = _draw(picture, index, block)
        pixels, mask, extension = drawing.picture, drawing.mask, Path(paths[index]).suffix
        data = faults.spoil(pixels, picture.fault, extension)
        save(index, data, mask, drawing.diagnosis)
        for copy in copies.get(index, ()):
            how, place = pictures[copy].how, np.random.default_rng([block.seed, 2, copy])
            same = (data, mask) if not how else faults.near_duplicate(how, pixels, mask, place, extension)
            save(copy, *same, drawing.diagnosis)

    originals = [index for index, picture in enumerate(pictures) if picture.source < 0]
    with ThreadPoolExecutor(workers or runtime.cores()) as pool:
        done: Iterable = pool.map(work, originals)
        for _ in progress(done, "drawing", len(originals)) if progress else done:
            pass
    for name, content in habit.strays.items():
        (root / name).write_bytes(content)
    if isinstance(layout, TableData):
        _write_tables(root, pictures, diagnoses, study, rng)
    (folder / "truth.json").write_text(json.dumps(_truth(pictures, paths), indent=1) + "\n", encoding="utf-8")


def _path(picture: Picture, block: StandIn, layout: Files, habit: Habit, counts: dict[str, int]) -> str:
    """Where a picture lies, relative to the dataset."""
    file = picture.name + _EXTENSIONS[modality(block.classes[picture.key])]
    if picture.key in layout.extra_classes:
        return f"{layout.extra_classes[picture.key]}/{file}"
    if isinstance(layout, TableData):
        return f"{layout.image_folders[0]}/{file}"
    above = [layout.root, picture.split, picture.key.replace("{count}", str(counts[picture.key]))]
    return Path(*above, "images" if habit.subfolders else "", file).as_posix()


def _mask_path(path: str, picture: Picture, block: StandIn, layout: Files, habit: Habit) -> str:
    """Where its mask lies, or "" where the layout has none."""
    if isinstance(layout, TableData):
        return f"{layout.mask_folder}/{picture.name}{layout.mask_suffix}.png" if layout.mask_folder else ""
    return f"{Path(path).parents[1].as_posix()}/masks/{picture.name}.png" if habit.subfolders else ""


def _draw(picture: Picture, index: int, block: StandIn) -> Drawing:
    """Draw an original, and frame it as its camera does."""
    kind = block.classes[picture.key]
    skin = draw_skin(np.random.default_rng([block.seed, 3, picture.patient])) if picture.patient >= 0 else None
    drawing = KINDS[kind](np.random.default_rng([block.seed, 1, index]), block.size, skin)
    pixels, mask = drawing.picture, drawing.mask
    rng = np.random.default_rng([block.seed, 4, index])
    ratio, upright = rng.choice((2 / 3, 3 / 4)), rng.uniform() < 0.3
    of = modality(kind)
    if of == "xray":
        side = max(1, round(block.size * _XRAY_MASK))
        mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)
        if picture.tinted:
            pixels = _tint(pixels, rng)
        return Drawing(pixels, mask, drawing.diagnosis)
    if of == "fundus":  # one of two cameras cuts the field off above and below
        ratio, upright = 1.0 if rng.uniform() < 0.5 else 0.8, False
    elif of == "dermoscopy":
        ratio, upright = 3 / 4, False
    short = round(block.size * ratio)
    start = (block.size - short) // 2
    kept = np.s_[:, start : start + short] if upright else np.s_[start : start + short]
    return Drawing(np.ascontiguousarray(pixels[kept]), np.ascontiguousarray(mask[kept]), drawing.diagnosis)


def _tint(grey: np.ndarray, rng: Rng) -> np.ndarray:
    """A film photographed in coloured light: bluish or yellowish."""
    strength = rng.uniform(0.04, 0.12) * (1.0 if rng.uniform() < 0.5 else -1.0)
    gains = (1.0 - strength, 1.0, 1.0 + strength)
    return np.stack([np.clip(grey * gain, 0, 255).astype(np.uint8) for gain in gains], axis=-1)


def _write_tables(root: Path, pictures: list[Picture], diagnoses: list[str], study: Study, rng: Rng) -> None:
    """Write the CSV, rows in random order, and the one of known duplicates: every second pair of copies."""
    layout, habit = study.dataset, HABITS.get(study.study, Habit())
    assert isinstance(layout, TableData)
    named = (layout.image_column, layout.label_column, layout.group_column, layout.split_column, *layout.metadata)
    columns = habit.columns or tuple(dict.fromkeys(column for column in named if column))
    people: dict[int, tuple[str, str]] = {}
    rows = []
    for picture, diagnosis in zip(pictures, diagnoses, strict=True):
        sex, age = "female" if rng.uniform() < 0.48 else "male", str(5 * round(rng.normal(50, 14) / 5))
        missing = rng.uniform(size=3)
        person = ("" if missing[0] < 0.01 else sex, "" if missing[0] < 0.02 else age)
        sex, age = people.setdefault(picture.patient, person) if picture.patient >= 0 else person
        row = {
            "sex": sex,
            "age_approx": age,
            "anatom_site_general_challenge": "" if missing[1] < 0.03 else rng.choice(_SITES, p=_SITE_SHARES),
            "diagnosis": _diagnosis(picture.key, diagnosis, told=missing[2] < 0.2),
            "target": int(picture.key == "malignant"),
        }
        row |= {layout.image_column: picture.name, layout.label_column: picture.key}
        row |= {layout.group_column: f"IP_{picture.patient:07d}"} if layout.group_column else {}
        rows.append([row.get(column, "") for column in columns])
    _write_csv(root / layout.csv, columns, [rows[index] for index in rng.permutation(len(rows))])
    if layout.duplicates_csv:
        pairs = [(pictures[each.source].name, each.name) for each in pictures if each.source >= 0]
        _write_csv(root / layout.duplicates_csv, ("image_name_1", "image_name_2"), pairs[::2])


def _diagnosis(label: str, drawn: str, *, told: bool) -> str:
    """What the table says: all malignant lesions were excised and named, most benign ones were not."""
    if label == "malignant":
        return "melanoma"
    return drawn.replace("_", " ") if told and drawn != "melanoma" else "unknown"


def _write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def _truth(pictures: list[Picture], paths: list[str]) -> dict[str, object]:
    found: dict[str, list] = {"unreadable": [], "dark": [], "blurred": []}
    found |= {"exact_duplicates": [], "near_duplicates": [], "conflicting_labels": []}
    for picture, path in zip(pictures, paths, strict=True):
        if picture.fault:
            found["unreadable" if picture.fault in faults.UNREADABLE else picture.fault].append(path)
        if picture.source >= 0:
            conflict = picture.key != pictures[picture.source].key
            kind = "near_duplicates" if picture.how else "conflicting_labels" if conflict else "exact_duplicates"
            found[kind].append([path, paths[picture.source]])
    kinds = {path: picture.how for picture, path in zip(pictures, paths, strict=True) if picture.how}
    tinted = [path for picture, path in zip(pictures, paths, strict=True) if picture.tinted]
    return {"faults": found, "near_duplicate_kinds": kinds, "tinted": tinted}
