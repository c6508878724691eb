"""Writes the drawn dermoscopy dataset as files: pictures, masks, a table, and the truth about all of it.

What is planted, and where, is in `truth.json`, so that whatever a notebook finds can be checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.data.adapters.synthetic import dermoscopy, faults
from scanbook.data.adapters.synthetic.canvas import Rng
from scanbook.data.adapters.synthetic.lesion import Skin, draw_skin, photograph

SITES: tuple[str, ...] = ("back", "trunk", "face", "scalp", "upper extremity", "lower extremity")
# Per class: mean and standard deviation of the age in years, fraction of women, and probability of each site. After
# the tables of HAM10000 (Tschandl et al., Scientific Data 2018), rounded. None of it enters the drawing.
DEMOGRAPHICS: dict[str, tuple[float, float, float, tuple[float, ...]]] = {
    "nevus": (43, 15, 0.49, (0.28, 0.30, 0.05, 0.02, 0.15, 0.20)),
    "melanoma": (60, 15, 0.40, (0.32, 0.18, 0.11, 0.04, 0.19, 0.16)),
    "seborrheic_keratosis": (64, 12, 0.42, (0.30, 0.20, 0.24, 0.06, 0.11, 0.09)),
    "basal_cell_carcinoma": (66, 13, 0.38, (0.30, 0.20, 0.25, 0.07, 0.10, 0.08)),
    "vascular_lesion": (51, 17, 0.52, (0.14, 0.38, 0.10, 0.04, 0.14, 0.20)),
}
_MISSING_AGES = 0.03  # fraction of patients
_SEVERAL = (0.60, 0.28, 0.12)  # probability of 1, 2 or 3 lesions per patient, and of pictures per lesion
_FEWEST_WITH_FAULTS = 40
# One fault of each kind for every so many pictures, rounded up.
_ONE_IN = {
    "truncated": 400,
    "zero_byte": 800,
    "dark": 250,
    "blurred": 200,
    "exact_duplicates": 200,
    "near_duplicates": 150,
}

Progress = Callable[[Iterable, str, int], Iterable]


@dataclass(frozen=True)
class _Lesion:
    number: int
    patient: int
    label: int
    latent: np.ndarray
    skin: Skin
    pictures: range  # their numbers among the originals


@dataclass(frozen=True)
class _Copy:
    """One more row made from an original: byte for byte ('exact'), or one of `faults.NEAR_DUPLICATES`."""

    source: int
    how: str
    label: int
    same_patient: bool


def write(
    folder: Path,
    images: int,
    seed: int,
    size: int = 192,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
) -> None:
    """Write the dataset; the same arguments give the same bytes, whatever the number of workers.

    `images/<image_id>.jpg`, `masks/<image_id>.png` (0 or 255; also for pictures that cannot be read),
    `metadata.csv` (image_id, patient_id, lesion_id, diagnosis, age in years, sex, site) and, last, `truth.json`
    (bayes_accuracy, bayes_standard_error, classes, class_priors, faults {kind: image ids, or pairs [copy, source]},
    near_duplicate_kinds {copy: one of `faults.NEAR_DUPLICATES`}, posterior {image_id: probability of each class given
    the true latent vector}).

    Args:
        folder: Where to write; made if missing.
        images: Rows of the table. From 40 on every kind of fault is planted.
        seed: Seed of everything.
        size: Side of the pictures in pixels.
        progress: Wraps the loop, as `runtime.progress` does: called with an iterable, a description and a total.
        workers: Threads; all cores that the process may use, unless given.
    """
    rng = np.random.default_rng([seed, 0])
    counts = {kind: math.ceil(images / one_in) for kind, one_in in _ONE_IN.items()}
    if images < _FEWEST_WITH_FAULTS:
        counts = dict.fromkeys(counts, 0)
    conflicts = int(images >= _FEWEST_WITH_FAULTS)
    originals = images - counts["exact_duplicates"] - counts["near_duplicates"] - conflicts
    lesions = _lesions(rng, originals, seed)
    lesion_of = {picture: lesion for lesion in lesions for picture in lesion.pictures}
    spoilt, copies = _faults(rng, counts, conflicts, lesion_of)
    names = [f"DRW_{number:06d}" for number in _numbers(rng, 1_000_000, images)]

    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    copies_of: dict[int, list[int]] = {}
    for index, copy in enumerate(copies):
        copies_of.setdefault(copy.source, []).append(index)

    def work(lesion: _Lesion) -> None:
        for number, (picture, mask) in zip(lesion.pictures, _views(lesion, seed, size), strict=True):
            data = faults.spoil(picture, spoilt.get(number, ""))
            _save(folder, names[number], data, mask)
            for index in copies_of.get(number, ()):
                copied = (data, mask)
                if copies[index].how != "exact":
                    place = np.random.default_rng([seed, 2, index])
                    copied = faults.near_duplicate(copies[index].how, picture, mask, place)
                _save(folder, names[originals + index], *copied)

    done = runtime.in_threads(work, lesions, workers)
    for _ in progress(done, "drawing", len(lesions)) if progress else done:
        pass
    table = _table(rng, lesions, copies, names)
    table.to_csv(folder / "metadata.csv", index=False, lineterminator="\n")
    truth = _truth(lesion_of, spoilt, copies, names)
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")


def _lesions(rng: Rng, originals: int, seed: int) -> list[_Lesion]:
    """Patients with one to three lesions with one to three pictures each; classes in proportion to the priors."""
    sizes: list[tuple[int, int]] = []  # patient, pictures
    left, patient = originals, 0
    while left:
        for _ in range(int(rng.choice(3, p=_SEVERAL)) + 1):
            pictures = min(left, int(rng.choice(3, p=_SEVERAL)) + 1)
            if pictures:
                sizes.append((patient, pictures))
            left -= pictures
        patient += 1
    expected = np.asarray(dermoscopy.PRIORS) * len(sizes)
    quota = np.floor(expected).astype(int)
    quota[np.argsort(quota - expected, kind="stable")[: len(sizes) - quota.sum()]] += 1
    labels = rng.permutation(np.repeat(np.arange(len(quota)), quota))
    latent = dermoscopy.draw_latent(labels, rng)
    skins = [draw_skin(rng) for _ in range(patient)]
    starts = np.cumsum([0] + [pictures for _, pictures in sizes])
    return [
        _Lesion(
            number, owner, int(labels[number]), latent[number], skins[owner], range(starts[number], starts[number + 1])
        )
        for number, (owner, _) in enumerate(sizes)
    ]


def _faults(
    rng: Rng, counts: dict[str, int], conflicts: int, lesion_of: dict[int, _Lesion]
) -> tuple[dict[int, str], list[_Copy]]:
    """Which originals are spoilt, and how, and which others are copied; no picture has two faults."""
    order = iter(rng.permutation(len(lesion_of)).tolist())
    spoilt = {next(order): kind for kind in faults.SPOILT for _ in range(counts[kind])}
    copies = []
    for _ in range(counts["exact_duplicates"]):
        source = next(order)
        copies.append(_Copy(source, "exact", lesion_of[source].label, same_patient=False))
    for index in range(counts["near_duplicates"]):
        source = next(order)
        how = faults.NEAR_DUPLICATES[index % len(faults.NEAR_DUPLICATES)]
        copies.append(_Copy(source, how, lesion_of[source].label, same_patient=True))
    for _ in range(conflicts):
        source = next(order)
        other = (lesion_of[source].label + int(rng.integers(1, len(dermoscopy.CLASSES)))) % len(dermoscopy.CLASSES)
        copies.append(_Copy(source, "exact", other, same_patient=False))
    return spoilt, copies


def _views(lesion: _Lesion, seed: int, size: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Pictures of one lesion with their masks: one drawing, several poses and lights."""
    plate_rng, *view_rngs = np.random.default_rng([seed, 1, lesion.number]).spawn(1 + len(lesion.pictures))
    plate = dermoscopy.draw_lesion(lesion.latent, plate_rng, size)
    for rng in view_rngs:
        yield photograph(plate, lesion.skin, rng, size)


def _save(folder: Path, name: str, picture: bytes, mask: np.ndarray) -> None:
    (folder / "images" / f"{name}.jpg").write_bytes(picture)
    (folder / "masks" / f"{name}.png").write_bytes(faults.encode(mask, ".png"))


def _table(rng: Rng, lesions: list[_Lesion], copies: list[_Copy], names: list[str]) -> pd.DataFrame:
    """The table, rows in random order. A copy without its patient is somebody else, of the same age, sex and site."""
    patients = lesions[-1].patient + 1
    strangers = sum(not copy.same_patient for copy in copies)
    patient_ids = [f"PAT_{number:05d}" for number in _numbers(rng, 100_000, patients + strangers)]
    lesion_ids = [f"LES_{number:05d}" for number in _numbers(rng, 100_000, len(lesions) + strangers)]
    people: dict[int, tuple[float, str]] = {}
    rows: list[list] = []
    for lesion in lesions:
        mean, spread, women, sites = DEMOGRAPHICS[dermoscopy.CLASSES[lesion.label]]
        age = 5.0 * round(float(np.clip(rng.normal(mean, spread), 5, 90)) / 5)
        sex = "female" if rng.uniform() < women else "male"
        age, sex = people.setdefault(lesion.patient, (age, sex))
        site = SITES[int(rng.choice(len(SITES), p=sites))]
        who = [patient_ids[lesion.patient], lesion_ids[lesion.number], dermoscopy.CLASSES[lesion.label], age, sex, site]
        rows += [[names[picture], *who] for picture in lesion.pictures]
    stranger = 0
    for index, copy in enumerate(copies):
        row = [names[len(names) - len(copies) + index], *rows[copy.source][1:]]
        row[3] = dermoscopy.CLASSES[copy.label]
        if not copy.same_patient:
            row[1], row[2] = patient_ids[patients + stranger], lesion_ids[len(lesions) + stranger]
            stranger += 1
        rows.append(row)
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "lesion_id", "diagnosis", "age", "sex", "site"])
    unknown = rng.choice(patients, math.ceil(_MISSING_AGES * patients), replace=False)
    table.loc[table["patient_id"].isin([patient_ids[patient] for patient in unknown]), "age"] = np.nan
    return table.iloc[rng.permutation(len(table))]


def _numbers(rng: Rng, below: int, count: int) -> np.ndarray:
    """As many different numbers as asked for, below a limit that is ten times as high as often as they need it."""
    while below < count:
        below *= 10
    return rng.choice(below, count, replace=False)


def _truth(
    lesion_of: dict[int, _Lesion], spoilt: dict[int, str], copies: list[_Copy], names: list[str]
) -> dict[str, object]:
    originals = len(names) - len(copies)
    sources = [*range(originals), *(copy.source for copy in copies)]
    probabilities = dermoscopy.posterior(np.stack([lesion_of[source].latent for source in sources]))
    found: dict[str, list] = {"unreadable": [], "dark": [], "blurred": []}
    for number, kind in spoilt.items():
        found["unreadable" if kind in faults.UNREADABLE else kind].append(names[number])
    found |= {"exact_duplicates": [], "near_duplicates": [], "conflicting_labels": []}
    for index, copy in enumerate(copies):
        conflict = copy.label != lesion_of[copy.source].label
        kind = "conflicting_labels" if conflict else "near_duplicates" if copy.same_patient else "exact_duplicates"
        found[kind].append([names[originals + index], names[copy.source]])
    best = dermoscopy.bayes_accuracy()
    return {
        "bayes_accuracy": round(best.value, 5),
        "bayes_standard_error": round(best.standard_error, 5),
        "classes": list(dermoscopy.CLASSES),
        "class_priors": dict(zip(dermoscopy.CLASSES, dermoscopy.PRIORS, strict=True)),
        "faults": found,
        "near_duplicate_kinds": {
            names[originals + index]: copy.how for index, copy in enumerate(copies) if copy.how != "exact"
        },
        "posterior": {name: np.round(row, 4).tolist() for name, row in zip(names, probabilities, strict=True)},
    }
