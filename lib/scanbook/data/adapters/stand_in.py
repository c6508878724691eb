"""Stand-ins: synthetic images of a dataset's modality, as files in the layout of its download.

The adapter of the download reads them. A study therefore runs end to end without its dataset, and the adapter is
exercised on the same layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.config import StandIn, Study, TableData
from scanbook.data.adapters import stand_in_films
from scanbook.data.adapters.synthetic import faults
from scanbook.data.adapters.synthetic.kinds import KINDS, SyntheticImage, modality
from scanbook.data.adapters.synthetic.lesion import sample_skin
from scanbook.data.adapters.synthetic.plan import (
    EXTRAS,
    FEWEST_WITH_FAULTS,
    Extras,
    FileLayout,
    PlannedImage,
    class_sizes,
    name_files,
    plant_faults,
    split_sizes,
    stand_in_blocks,
)
from scanbook.data.adapters.synthetic.primitives import Rng
from scanbook.data.manifest import Manifest
from scanbook.store import fingerprint, stage

_EXTENSIONS = {"clinical": ".jpg", "dermoscopy": ".jpg", "xray": ".png", "fundus": ".png"}
_XRAY_MASK = 256 / 299  # side of a mask of COVID-19 Radiography, relative to its image
_SITES = ("torso", "lower extremity", "upper extremity", "head/neck", "palms/soles", "oral/genital")
_SITE_SHARES = (0.51, 0.26, 0.15, 0.06, 0.01, 0.01)  # of ISIC 2020, rounded


def load(study: Study, read: Callable[[Study], Manifest]) -> Manifest:
    """Return the manifest of the study's stand-in, which is written into the store if it is missing.

    Args:
        study: A study with a `stand_in`, of class folders or a table.
        read: The adapter of the dataset; its argument is the study with the stand-in as `data`.

    Returns:
        The manifest. Its facts state what was planted: `faults` {kind: image ids, or pairs of them},
        `near_duplicate_kinds` {copy: one of `faults.NEAR_DUPLICATES`}, and `tinted`, image ids. Of findings they also
        state `bayes_auroc` (`stand_in_films.best_auroc`), and `bayes_auroc_population`, `odds_ratio` and `shares`, as
        in `stand_in_films.write`.

    Raises:
        StudyError: The study has no stand-in, or names a kind of image that the library cannot synthesise.
    """
    block, layout = stand_in_blocks(study)
    inputs = {
        "study": study.study,
        "dataset": layout.model_dump(mode="json", exclude={"embeddings"}),
        "stand_in": block.model_dump(),
    }
    folder = stage("stand_in", inputs, lambda work: write(work, study), __name__)
    root = folder / "dataset"
    if block.findings:
        layout = stand_in_films.synthetic_layout(block, layout)
    manifest = read(study.model_copy(update={"data": str(root), "dataset": layout}))
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    ids = {
        Path(path).relative_to(root).as_posix(): name
        for path, name in zip(manifest.frame["path"], manifest.frame["image_id"], strict=True)
    }
    planted = {  # a study may read some of the rows only
        kind: [
            ids[item] if isinstance(item, str) else [ids[path] for path in item]
            for item in items
            if ids.keys() >= ({item} if isinstance(item, str) else set(item))
        ]
        for kind, items in truth["faults"].items()
    }
    facts = {name: truth[name] for name in ("bayes_auroc_population", "odds_ratio", "shares") if name in truth}
    facts |= {
        "data": fingerprint(inputs, folder.name),
        "faults": planted,
        "near_duplicate_kinds": {
            ids[path]: kind for path, kind in truth["near_duplicate_kinds"].items() if path in ids
        },
        "tinted": [ids[path] for path in truth["tinted"]],
    }
    if block.findings:
        facts["bayes_auroc"] = stand_in_films.best_auroc(manifest, truth, ids, planted["unreadable"])
    return replace(manifest, facts=manifest.facts | facts)


def write(folder: Path, study: Study) -> None:
    """Write the stand-in; the same study gives the same bytes, whatever the number of threads.

    The files lie in `dataset/`. `truth.json` states what was planted: `faults`, `near_duplicate_kinds` and `tinted`, as
    in `load`, with paths relative to `dataset/` for image ids. Of findings it states more (`stand_in_films.write`).

    Args:
        folder: Where to write.
        study: A study with a `stand_in`.
    """
    block, layout = stand_in_blocks(study)
    extras = EXTRAS.get(study.study, Extras())
    if block.findings:
        assert isinstance(layout, TableData)
        return stand_in_films.write(folder, block, layout, extras)
    counts = class_sizes(study)
    rng = np.random.default_rng([block.seed, 0])
    images = [
        PlannedImage(key, split)
        for key, count in counts.items()
        for split, size in split_sizes(layout, count).items()
        for _ in range(size)
    ]
    if len(images) >= FEWEST_WITH_FAULTS:
        plant_faults(images, layout, extras, rng)
    name_files(images, block, layout, rng)
    root = folder / "dataset"
    paths = [_image_path(image, block, layout, extras, counts) for image in images]
    masks = [_mask_path(path, image, layout, extras) for path, image in zip(paths, images, strict=True)]
    for path in {Path(path).parent for path in (*paths, *masks) if path}:
        (root / path).mkdir(parents=True, exist_ok=True)
    copies: dict[int, list[int]] = {}
    for index, image in enumerate(images):
        if image.source >= 0:
            copies.setdefault(image.source, []).append(index)
    diagnoses = [""] * len(images)

    def save(index: int, data: bytes, mask: np.ndarray | None, diagnosis: str) -> None:
        (root / paths[index]).write_bytes(data)
        if masks[index] and mask is not None:
            (root / masks[index]).write_bytes(faults.encode(mask, ".png"))
        diagnoses[index] = diagnosis

    def write_original(index: int) -> None:
        synthetic, extension = _synthesise(images[index], index, block), Path(paths[index]).suffix
        pixels, mask = synthetic.image, synthetic.mask
        data = faults.encode_with_fault(pixels, images[index].fault, extension)
        save(index, data, mask, synthetic.diagnosis)
        for copy in copies.get(index, ()):
            copied = (data, mask)
            if kind := images[copy].near_duplicate:
                crop_rng = np.random.default_rng([block.seed, 2, copy])
                copied = faults.make_near_duplicate(kind, pixels, mask, crop_rng, extension)
            save(copy, *copied, synthetic.diagnosis)

    originals = [index for index, image in enumerate(images) if image.source < 0]
    for _ in runtime.progress(runtime.in_threads(write_original, originals), "synthesising images", len(originals)):
        pass
    for name, content in extras.other_files.items():
        (root / name).write_bytes(content)
    if isinstance(layout, TableData):
        _write_tables(root, images, diagnoses, layout=layout, extras=extras, rng=rng)
    (folder / "truth.json").write_text(json.dumps(_truth(images, paths), indent=1) + "\n", encoding="utf-8")


def _image_path(image: PlannedImage, block: StandIn, layout: FileLayout, extras: Extras, counts: dict[str, int]) -> str:
    """Return the path of an image, relative to the dataset."""
    file = image.name + _EXTENSIONS[modality(block.classes[image.key])]
    if image.key in layout.extra_classes:
        return f"{layout.extra_classes[image.key]}/{file}"
    if isinstance(layout, TableData):
        return f"{layout.image_folders[0]}/{file}"
    folders = [layout.root, image.split, image.key.replace("{count}", str(counts[image.key]))]
    return Path(*folders, "images" if extras.subfolders else "", file).as_posix()


def _mask_path(path: str, image: PlannedImage, layout: FileLayout, extras: Extras) -> str:
    """Return the path of the mask of the image at `path`, or "" where the layout has no masks."""
    if isinstance(layout, TableData):
        return f"{layout.mask_folder}/{image.name}{layout.mask_suffix}.png" if layout.mask_folder else ""
    return f"{Path(path).parents[1].as_posix()}/masks/{image.name}.png" if extras.subfolders else ""


def _synthesise(image: PlannedImage, index: int, block: StandIn) -> SyntheticImage:
    """Return the pixels of an original, in the format of its camera."""
    kind = block.classes[image.key]
    skin = sample_skin(np.random.default_rng([block.seed, 3, image.patient])) if image.patient >= 0 else None
    synthetic = KINDS[kind](np.random.default_rng([block.seed, 1, index]), block.size, skin)
    pixels, mask = synthetic.image, synthetic.mask
    rng = np.random.default_rng([block.seed, 4, index])
    ratio, upright = rng.choice((2 / 3, 3 / 4)), rng.uniform() < 0.3
    if modality(kind) == "xray":
        side = max(1, round(block.size * _XRAY_MASK))
        mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)
        return SyntheticImage(_tint(pixels, rng) if image.tinted else pixels, mask, synthetic.diagnosis)
    if modality(kind) == "fundus":  # one of two cameras cuts the field off above and below
        ratio, upright = 1.0 if rng.uniform() < 0.5 else 0.8, False
    elif modality(kind) == "dermoscopy":
        ratio, upright = 3 / 4, False
    short = round(block.size * ratio)
    start = (block.size - short) // 2
    box = np.s_[:, start : start + short] if upright else np.s_[start : start + short]
    return SyntheticImage(np.ascontiguousarray(pixels[box]), np.ascontiguousarray(mask[box]), synthetic.diagnosis)


def _tint(grey: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a film with a colour cast, bluish or yellowish, uint8 RGB (h, w, 3)."""
    strength = rng.uniform(0.04, 0.12) * (1.0 if rng.uniform() < 0.5 else -1.0)
    gains = (1.0 - strength, 1.0, 1.0 + strength)
    return np.stack([np.clip(grey * gain, 0, 255).astype(np.uint8) for gain in gains], axis=-1)


def _write_tables(
    root: Path, images: list[PlannedImage], diagnoses: list[str], *, layout: TableData, extras: Extras, rng: Rng
) -> None:
    """Write the CSV, rows in random order, and the one of known duplicates: every second pair of copies."""
    named = (layout.image_column, layout.label_column, layout.group_column, layout.split_column, *layout.metadata)
    columns = extras.columns or tuple(dict.fromkeys(column for column in named if column))
    people: dict[int, tuple[str, str]] = {}
    rows = []
    for image, diagnosis in zip(images, diagnoses, strict=True):
        sex, age = "female" if rng.uniform() < 0.48 else "male", str(5 * round(rng.normal(50, 14) / 5))
        missing = rng.uniform(size=3)
        person = ("" if missing[0] < 0.01 else sex, "" if missing[0] < 0.02 else age)
        sex, age = people.setdefault(image.patient, person) if image.patient >= 0 else person
        row = {
            "sex": sex,
            "age_approx": age,
            "anatom_site_general_challenge": "" if missing[1] < 0.03 else rng.choice(_SITES, p=_SITE_SHARES),
            "diagnosis": _stated_diagnosis(image.key, diagnosis, excised=missing[2] < 0.2),
            "target": int(image.key == "malignant"),
        }
        row |= {layout.image_column: image.name, layout.label_column: image.key}
        row |= {layout.group_column: f"IP_{image.patient:07d}"} if layout.group_column else {}
        rows.append([row.get(column, "") for column in columns])
    _write_csv(root / layout.csv, columns, [rows[index] for index in rng.permutation(len(rows))])
    if layout.duplicates_csv:
        pairs = [(images[image.source].name, image.name) for image in images if image.source >= 0]
        _write_csv(root / layout.duplicates_csv, ("image_name_1", "image_name_2"), pairs[::2])


def _stated_diagnosis(label: str, diagnosis: str, *, excised: bool) -> str:
    """Return the table's diagnosis: every malignant lesion was excised and has one, most benign lesions have none."""
    if label == "malignant":
        return "melanoma"
    return diagnosis.replace("_", " ") if excised and diagnosis != "melanoma" else "unknown"


def _write_csv(path: Path, columns: Iterable[str], rows: list[Iterable]) -> None:
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False, lineterminator="\n")


def _truth(images: list[PlannedImage], paths: list[str]) -> dict[str, object]:
    """Return what `truth.json` holds."""
    conflicting = [image.source >= 0 and image.key != images[image.source].key for image in images]
    tinted = [path for image, path in zip(images, paths, strict=True) if image.tinted]
    return faults.summarise(images, paths, conflicting) | {"tinted": tinted}
