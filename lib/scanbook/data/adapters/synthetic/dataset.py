"""The synthetic dermoscopy dataset: images, masks and a table, written into the store once and listed as a manifest.

`truth.json` holds what was planted and where, so every result of a notebook can be checked against it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.config import Study, SyntheticData
from scanbook.config.data import Hospital
from scanbook.data.adapters.synthetic import dermoscopy, faults
from scanbook.data.adapters.synthetic.lesion import Skin, build_lesion, photograph, sample_skin
from scanbook.data.adapters.synthetic.primitives import Rng
from scanbook.data.manifest import Manifest
from scanbook.errors import StudyError
from scanbook.store import fingerprint, stage

SITES: tuple[str, ...] = ("back", "trunk", "face", "scalp", "upper extremity", "lower extremity")
# Per class: mean and standard deviation of the age in years, fraction of women, and probability of each site. After
# the tables of HAM10000 (Tschandl et al., Scientific Data 2018), rounded. None of it affects the images.
DEMOGRAPHICS: dict[str, tuple[float, float, float, tuple[float, ...]]] = {
    "nevus": (43, 15, 0.49, (0.28, 0.30, 0.05, 0.02, 0.15, 0.20)),
    "melanoma": (60, 15, 0.40, (0.32, 0.18, 0.11, 0.04, 0.19, 0.16)),
    "seborrheic_keratosis": (64, 12, 0.42, (0.30, 0.20, 0.24, 0.06, 0.11, 0.09)),
    "basal_cell_carcinoma": (66, 13, 0.38, (0.30, 0.20, 0.25, 0.07, 0.10, 0.08)),
    "vascular_lesion": (51, 17, 0.52, (0.14, 0.38, 0.10, 0.04, 0.14, 0.20)),
}
_MISSING_AGES = 0.03  # fraction of patients
_SEVERAL = (0.60, 0.28, 0.12)  # probability of 1, 2 or 3 lesions per patient, and of images per lesion
_FEWEST_WITH_FAULTS = 40
# Images per planted fault of each kind; the number of faults is rounded up.
_IMAGES_PER_FAULT = {
    "truncated": 400,
    "zero_byte": 800,
    "dark": 250,
    "blurred": 200,
    "exact_duplicates": 200,
    "near_duplicates": 150,
}


@dataclass(frozen=True)
class _Lesion:
    number: int
    patient: int
    label: int
    latent: np.ndarray
    skin: Skin
    images: range  # their numbers among the originals


@dataclass(frozen=True)
class _Copy:
    """A further row made from an original: the same bytes (kind "exact"), or one of `faults.NEAR_DUPLICATES`."""

    source: int
    kind: str
    label: int
    same_patient: bool


def load(study: Study) -> Manifest:
    """Return the manifest of the study's synthetic images, which are written into the store if they are missing.

    The manifest's facts hold the Bayes accuracy, the planted faults, and the kind of each near-duplicate.
    """
    layout = study.dataset
    assert isinstance(layout, SyntheticData)
    inputs: dict[str, Any] = {"images": layout.images, "size": layout.size, "seed": layout.seed}
    if layout.hospital != Hospital():  # the default images keep their place in the store
        inputs["hospital"] = layout.hospital.model_dump()
    folder = stage("synthetic", inputs, lambda work: write(work, **inputs), __name__)
    source = pd.read_csv(folder / "metadata.csv")
    truth = json.loads((folder / "truth.json").read_text())
    frame = pd.DataFrame(
        {
            "image_id": source["image_id"],
            "path": [str(folder / "images" / f"{name}.jpg") for name in source["image_id"]],
            "label": source["diagnosis"],
            "group": source["patient_id"],
            "mask_path": [str(folder / "masks" / f"{name}.png") for name in source["image_id"]],
            "split": "",
        }
    )
    frame = frame.join(source[["lesion_id", "age", "sex", "site"]])
    facts = {name: truth[name] for name in ("bayes_accuracy", "faults", "near_duplicate_kinds")}
    facts |= {"data": fingerprint(inputs, folder.name), "grouped": True, "names_groups": True}
    return Manifest(study.study, frame, dermoscopy.CLASSES, facts)


def write(
    folder: Path,
    images: int,
    seed: int,
    size: int = 192,
    *,
    hospital: dict[str, Any] | None = None,
    workers: int | None = None,
) -> None:
    """Write the dataset; the same arguments give the same bytes, whatever the number of workers.

    `images/<image_id>.jpg`, `masks/<image_id>.png` (0 or 255; also for unreadable images), `metadata.csv` (image_id,
    patient_id, lesion_id, diagnosis, age in years, sex, site) and, last, `truth.json` (bayes_accuracy,
    bayes_standard_error, classes, class_priors, faults {kind: image ids, or pairs [copy, source]},
    near_duplicate_kinds {copy: one of `faults.NEAR_DUPLICATES`}, posterior {image_id: probability of each class given
    the true latent vector}).

    Args:
        folder: Where to write; created if missing.
        images: Number of rows of the table. From 40 on, every kind of fault is planted.
        seed: Seed of all random numbers.
        size: Side of the images in pixels.
        hospital: How the images differ from the default ones, as the keys of `config.data.Hospital`; None for not.
        workers: Number of threads; by default all cores that the process may use.
    """
    other = Hospital.model_validate(hospital or {})
    priors = _priors(other)
    rng = np.random.default_rng([seed, 0])
    counts = {kind: math.ceil(images / ratio) for kind, ratio in _IMAGES_PER_FAULT.items()}
    if images < _FEWEST_WITH_FAULTS:
        counts = dict.fromkeys(counts, 0)
    conflicts = int(images >= _FEWEST_WITH_FAULTS)
    originals = images - counts["exact_duplicates"] - counts["near_duplicates"] - conflicts
    lesions = _sample_lesions(rng, originals, priors)
    lesion_of = {image: lesion for lesion in lesions for image in lesion.images}
    file_faults, copies = _sample_faults(rng, counts, conflicts, lesion_of)
    names = [f"DRW_{number:06d}" for number in _distinct_numbers(rng, 1_000_000, images)]

    for subfolder in ("images", "masks"):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    copies_of: dict[int, list[int]] = {}
    for index, copy in enumerate(copies):
        copies_of.setdefault(copy.source, []).append(index)

    def write_lesion(lesion: _Lesion) -> None:
        views = ((_photograph_elsewhere(image, other), mask) for image, mask in _views(lesion, seed, size))
        for number, (image, mask) in zip(lesion.images, views, strict=True):
            data = faults.encode_with_fault(image, file_faults.get(number, ""))
            _save(folder, names[number], data, mask)
            for index in copies_of.get(number, ()):
                copied = (data, mask)
                if copies[index].kind != "exact":
                    crop_rng = np.random.default_rng([seed, 2, index])
                    copied = faults.make_near_duplicate(copies[index].kind, image, mask, crop_rng)
                _save(folder, names[originals + index], *copied)

    results = runtime.in_threads(write_lesion, lesions, workers)
    for _ in runtime.progress(results, "synthesising images", len(lesions)):
        pass
    table = _table(rng, lesions, copies, names)
    table.to_csv(folder / "metadata.csv", index=False, lineterminator="\n")
    truth = _truth(lesion_of, file_faults, copies, names, priors)
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _priors(hospital: Hospital) -> tuple[float, ...]:
    """Return the share of each class among the lesions.

    Raises:
        StudyError: The hospital names an unknown class.
    """
    unknown = hospital.frequencies.keys() - set(dermoscopy.CLASSES)
    if unknown:
        raise StudyError(
            f"dataset.hospital.frequencies names the class {min(unknown)!r}; expected some of "
            f"{', '.join(dermoscopy.CLASSES)}"
        )
    if not hospital.frequencies:
        return dermoscopy.PRIORS
    shares = np.array(dermoscopy.PRIORS) * [hospital.frequencies.get(name, 1.0) for name in dermoscopy.CLASSES]
    return tuple((shares / shares.sum()).tolist())


def _photograph_elsewhere(image: np.ndarray, hospital: Hospital) -> np.ndarray:
    """Return an image, uint8 `(h, w, 3)`, as the camera of a hospital takes it."""
    if hospital.blur:
        image = cv2.GaussianBlur(image, (0, 0), hospital.blur)
    if hospital.tint:
        tinted = image + np.array([hospital.tint, 0, -hospital.tint], np.float32)
        image = np.clip(np.rint(tinted), 0, 255).astype(np.uint8)
    return image


def _sample_lesions(rng: Rng, originals: int, priors: tuple[float, ...]) -> list[_Lesion]:
    """Return lesions: one to three per patient, one to three images each, classes in proportion to the priors."""
    sizes: list[tuple[int, int]] = []  # patient, number of images
    remaining, patient = originals, 0
    while remaining:
        for _ in range(int(rng.choice(3, p=_SEVERAL)) + 1):
            images = min(remaining, int(rng.choice(3, p=_SEVERAL)) + 1)
            if images:
                sizes.append((patient, images))
            remaining -= images
        patient += 1
    expected = np.asarray(priors) * len(sizes)
    quota = np.floor(expected).astype(int)
    quota[np.argsort(quota - expected, kind="stable")[: len(sizes) - quota.sum()]] += 1
    labels = rng.permutation(np.repeat(np.arange(len(quota)), quota))
    latent = dermoscopy.sample_latent(labels, rng)
    skins = [sample_skin(rng) for _ in range(patient)]
    ends = np.cumsum([images for _, images in sizes])
    return [
        _Lesion(number, owner, int(labels[number]), latent[number], skins[owner], range(end - images, end))
        for number, ((owner, images), end) in enumerate(zip(sizes, ends.tolist(), strict=True))
    ]


def _sample_faults(
    rng: Rng, counts: dict[str, int], conflicts: int, lesion_of: dict[int, _Lesion]
) -> tuple[dict[int, str], list[_Copy]]:
    """Return the file fault by original, and the copies of other originals; no image has two faults."""
    order = iter(rng.permutation(len(lesion_of)).tolist())
    file_faults = {next(order): kind for kind in faults.FILE_FAULTS for _ in range(counts[kind])}
    copies = []
    for _ in range(counts["exact_duplicates"]):
        source = next(order)
        copies.append(_Copy(source, "exact", lesion_of[source].label, same_patient=False))
    for index in range(counts["near_duplicates"]):
        source = next(order)
        kind = faults.NEAR_DUPLICATES[index % len(faults.NEAR_DUPLICATES)]
        copies.append(_Copy(source, kind, lesion_of[source].label, same_patient=True))
    for _ in range(conflicts):
        source = next(order)
        other = (lesion_of[source].label + int(rng.integers(1, len(dermoscopy.CLASSES)))) % len(dermoscopy.CLASSES)
        copies.append(_Copy(source, "exact", other, same_patient=False))
    return file_faults, copies


def _views(lesion: _Lesion, seed: int, size: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Yield the images of one lesion with their masks: the same lesion in several poses and lights."""
    lesion_rng, *view_rngs = np.random.default_rng([seed, 1, lesion.number]).spawn(1 + len(lesion.images))
    synthetic = build_lesion(dermoscopy.appearance_of(lesion.latent), lesion_rng, size)
    for rng in view_rngs:
        yield photograph(synthetic, lesion.skin, rng, size)


def _save(folder: Path, name: str, image: bytes, mask: np.ndarray) -> None:
    (folder / "images" / f"{name}.jpg").write_bytes(image)
    (folder / "masks" / f"{name}.png").write_bytes(faults.encode(mask, ".png"))


def _table(rng: Rng, lesions: list[_Lesion], copies: list[_Copy], names: list[str]) -> pd.DataFrame:
    """Return the table, rows in random order. A copy of another patient has the age, sex and site of its source."""
    patients = lesions[-1].patient + 1
    others = sum(not copy.same_patient for copy in copies)
    patient_ids = [f"PAT_{number:05d}" for number in _distinct_numbers(rng, 100_000, patients + others)]
    lesion_ids = [f"LES_{number:05d}" for number in _distinct_numbers(rng, 100_000, len(lesions) + others)]
    people: dict[int, tuple[float, str]] = {}
    rows: list[list] = []
    for lesion in lesions:
        label = dermoscopy.CLASSES[lesion.label]
        mean, spread, women, sites = DEMOGRAPHICS[label]
        age = 5.0 * round(float(np.clip(rng.normal(mean, spread), 5, 90)) / 5)
        sex = "female" if rng.uniform() < women else "male"
        age, sex = people.setdefault(lesion.patient, (age, sex))
        site = SITES[int(rng.choice(len(SITES), p=sites))]
        row = [patient_ids[lesion.patient], lesion_ids[lesion.number], label, age, sex, site]
        rows += [[names[image], *row] for image in lesion.images]
    other = 0
    for index, copy in enumerate(copies):
        row = [names[len(names) - len(copies) + index], *rows[copy.source][1:]]
        row[3] = dermoscopy.CLASSES[copy.label]
        if not copy.same_patient:
            row[1], row[2] = patient_ids[patients + other], lesion_ids[len(lesions) + other]
            other += 1
        rows.append(row)
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "lesion_id", "diagnosis", "age", "sex", "site"])
    unknown = rng.choice(patients, math.ceil(_MISSING_AGES * patients), replace=False)
    table.loc[table["patient_id"].isin([patient_ids[patient] for patient in unknown]), "age"] = np.nan
    return table.iloc[rng.permutation(len(table))]


def _distinct_numbers(rng: Rng, below: int, count: int) -> np.ndarray:
    """Return `count` distinct random numbers below a limit, which is raised tenfold until it is high enough."""
    while below < count:
        below *= 10
    return rng.choice(below, count, replace=False)


def _truth(
    lesion_of: dict[int, _Lesion],
    file_faults: dict[int, str],
    copies: list[_Copy],
    names: list[str],
    priors: tuple[float, ...],
) -> dict[str, object]:
    """Return what `truth.json` holds."""
    originals = len(names) - len(copies)
    sources = [*range(originals), *(copy.source for copy in copies)]
    probabilities = dermoscopy.posterior(np.stack([lesion_of[source].latent for source in sources]), priors)
    planted: dict[str, list] = {"unreadable": [], "dark": [], "blurred": []}
    for number, kind in file_faults.items():
        planted["unreadable" if kind in faults.UNREADABLE else kind].append(names[number])
    planted |= {"exact_duplicates": [], "near_duplicates": [], "conflicting_labels": []}
    for name, copy in zip(names[originals:], copies, strict=True):
        conflict = copy.label != lesion_of[copy.source].label
        kind = "conflicting_labels" if conflict else "near_duplicates" if copy.same_patient else "exact_duplicates"
        planted[kind].append([name, names[copy.source]])
    best = dermoscopy.bayes_accuracy(priors=priors)
    return {
        "bayes_accuracy": round(best.value, 5),
        "bayes_standard_error": round(best.standard_error, 5),
        "classes": list(dermoscopy.CLASSES),
        "class_priors": dict(zip(dermoscopy.CLASSES, priors, strict=True)),
        "faults": planted,
        "near_duplicate_kinds": {
            name: copy.kind for name, copy in zip(names[originals:], copies, strict=True) if copy.kind != "exact"
        },
        "posterior": {name: np.round(row, 4).tolist() for name, row in zip(names, probabilities, strict=True)},
    }
