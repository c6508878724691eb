"""The plan of a stand-in with findings: which patient has which exams and films, what they show, and what is stated."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scanbook.data.adapters.synthetic import faults, findings
from scanbook.data.adapters.synthetic.primitives import Rng

FEWEST_WITH_FAULTS = 60
_IMAGES_PER_FAULT = {
    **{"truncated": 500, "zero_byte": 1000, "dark": 250, "blurred": 200},
    **{"exact_duplicates": 150, "near_duplicates": 80, "conflicting_labels": 200},
}
_EXAMS_PER_PATIENT = 3.0  # on average; ChestX-ray14 has 3.6 images, CheXpert 2.9 exams
_TEST = 0.23  # share of the images whose patients are in the source's test split, where it has one; ChestX-ray14's
_SECOND_VIEW = 0.12  # share of exams with a second frontal film, where exams may have several
_MISSING_AGE = 0.01


@dataclass(frozen=True)
class Share:
    """Shares of labels that are not labelled, and of those labelled that are uncertain; both at random."""

    missing: float = 0.0
    uncertain: float = 0.0


@dataclass
class Film:
    """One file of a stand-in.

    Attributes:
        patient: Number of the patient, from 1.
        visit: Number of the exam of this patient, from 0.
        view: Number of the film in its exam, from 1.
        lateral: Whether it is a view from the side.
        test: Whether the patient is in the source's test split.
        severities: Float64 (k,), 0 to 1.
        present: What the reader saw, bool (k,): the labels without gaps.
        stated: What the source states, float64 (k,): 1, 0, -1 (uncertain) or NaN (not labelled).
        age: In years; "" where it is not told.
        sex: "M" or "F".
        position: "PA" or "AP"; "" for a view from the side.
        fault: One of `faults.FILE_FAULTS`, or "".
        source: Index of the film that it copies; -1 for an original.
        near_duplicate: One of `faults.NEAR_DUPLICATES` for such a copy, or "".
    """

    patient: int
    visit: int
    view: int
    lateral: bool
    test: bool
    severities: np.ndarray
    present: np.ndarray
    stated: np.ndarray
    age: str
    sex: str
    position: str
    fault: str = ""
    source: int = -1
    near_duplicate: str = ""

    @property
    def exam(self) -> tuple[int, int]:
        """Patient and visit."""
        return self.patient, self.visit


def plan(
    kinds: Sequence[str], images: int, rng: Rng, *, share: Share, has_test: bool, views: bool, lateral: float
) -> list[Film]:
    """Return the films of a stand-in, patient by patient.

    The films of one exam show the same findings and have the same labels.

    Args:
        kinds: Names of `findings.FINDINGS`, in the order of the labels.
        images: Number of films.
        rng: Random generator.
        share: Shares of labels that are missing or uncertain; in the test split none is.
        has_test: Whether the source has a test split.
        views: Whether an exam may have several films.
        lateral: Share of exams with a view from the side.
    """
    exams: list[tuple[int, int, list[bool]]] = []  # patient, visit, and whether each film is from the side
    patient, left = 0, images
    while left:
        patient += 1
        for visit in range(int(rng.geometric(1 / _EXAMS_PER_PATIENT))):
            second, side = rng.uniform(size=2)
            further = [False] * int(views and second < _SECOND_VIEW) + [True] * int(views and side < lateral)
            sides = [False, *further][:left]
            if sides:
                exams.append((patient, visit, sides))
            left -= len(sides)
    patients = np.array([owner for owner, _, _ in exams])
    in_test = _choose_test(exams, patient, images, rng) if has_test else set()
    liabilities = findings.sample_liabilities(kinds, patients - 1, rng)
    severities = np.stack([findings.severity(kind, liabilities[:, k]) for k, kind in enumerate(kinds)], axis=1)
    posterior = np.stack([findings.posterior(kind, severities[:, k]) for k, kind in enumerate(kinds)], axis=1)
    present = rng.uniform(size=posterior.shape) < posterior
    missing, uncertain = rng.uniform(size=(2, *posterior.shape)) < np.array([[[share.missing]], [[share.uncertain]]])
    complete = np.isin(patients, list(in_test))[:, None]
    stated = np.where(uncertain & ~complete, -1.0, present)
    stated[missing & ~complete] = np.nan
    people = _sample_people(patient, rng)
    films = []
    for index, (owner, visit, sides) in enumerate(exams):
        age, sex = people[owner - 1]
        position = "AP" if rng.uniform() < 0.4 else "PA"
        for view, is_lateral in enumerate(sides, 1):
            films.append(
                Film(
                    *(owner, visit, view, is_lateral, owner in in_test),
                    *(severities[index], present[index], stated[index]),
                    *("" if age < 0 else str(age + visit // 2), sex, "" if is_lateral else position),
                )
            )
    if images >= FEWEST_WITH_FAULTS:
        _plant_faults(films, rng)
    return films


def _choose_test(exams: list[tuple[int, int, list[bool]]], patients: int, images: int, rng: Rng) -> set[int]:
    """Return the patients of the test split."""
    sizes = Counter()
    for owner, _, sides in exams:
        sizes[owner] += len(sides)
    order = 1 + rng.permutation(patients)
    ends = np.cumsum([sizes[owner] for owner in order.tolist()])
    return set(order[: np.clip(int((ends <= _TEST * images).sum()), 1, patients - 1)].tolist())


def _sample_people(patients: int, rng: Rng) -> list[tuple[int, str]]:
    """Return age in years, -1 where it is not told, and sex of each patient. Neither changes what a film shows."""
    ages = np.clip(rng.normal(52, 16, patients).round(), 18, 90).astype(int)
    ages[rng.uniform(size=patients) < _MISSING_AGE] = -1
    women = rng.uniform(size=patients) < 0.45
    return [(int(age), "F" if woman else "M") for age, woman in zip(ages, women, strict=True)]


def _plant_faults(films: list[Film], rng: Rng) -> None:
    """Choose the films with a file fault and the copies of other films; no film has two faults.

    Each is the only film of its exam, so that the films of an exam agree. An exact copy belongs to another patient; of
    two with conflicting labels, one finding is present in one and absent in the other. A near-duplicate belongs to the
    same patient.
    """
    alone = Counter(film.exam for film in films)
    free = [
        index
        for index in rng.permutation(len(films)).tolist()
        if alone[films[index].exam] == 1 and not films[index].lateral
    ]
    counts = {kind: math.ceil(len(films) / ratio) for kind, ratio in _IMAGES_PER_FAULT.items()}

    def take(fits: Callable[[Film], bool]) -> int:
        """Return the index of the next film without a fault that fits; -1 when there is none."""
        index = next((index for index in free if fits(films[index])), -1)
        if index >= 0:
            free.remove(index)
        return index

    for kind in faults.FILE_FAULTS:
        for _ in range(counts[kind]):
            films[take(lambda _: True)].fault = kind
    for kind in ("near_duplicates", "exact_duplicates", "conflicting_labels"):
        for number in range(counts[kind]):
            pair = _take_pair(films, free, take, same_patient=kind == "near_duplicates")
            if pair is None:
                continue
            copy, source = (films[index] for index in pair)
            copy.source = pair[1]
            copy.severities, copy.present = source.severities, source.present.copy()
            copy.stated = source.present.astype(np.float64) if copy.test else source.stated.copy()
            if kind == "near_duplicates":
                copy.near_duplicate = faults.NEAR_DUPLICATES[number % len(faults.NEAR_DUPLICATES)]
            elif kind == "conflicting_labels":
                place = int(rng.integers(len(copy.present)))
                copy.present[place] = ~source.present[place]
                source.stated = source.stated.copy()  # that of an exam is shared
                source.stated[place], copy.stated[place] = source.present[place], copy.present[place]


def _take_pair(
    films: list[Film], free: list[int], take: Callable[[Callable[[Film], bool]], int], *, same_patient: bool
) -> tuple[int, int] | None:
    """Return the indices of a copy and of its source, of one patient or of two; None where there are none."""
    counts = Counter(films[index].patient for index in free)
    source = take(lambda film: not same_patient or counts[film.patient] > 1)
    if source < 0:
        return None
    copy = take(lambda film: (film.patient == films[source].patient) == same_patient)
    return None if copy < 0 else (copy, source)
