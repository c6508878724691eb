"""Synthetic chest X-rays with findings: each is visible, and the population behind them is as planned."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from scanbook.data.adapters.synthetic import chest, films, findings
from scanbook.data.adapters.synthetic.films import Film, Share

KINDS = ("cardiomegaly", "effusion", "edema", "pneumothorax")
VISIBLE = 0.6  # a severity that nobody overlooks


@cache
def population() -> list[Film]:
    rng = np.random.default_rng(5)
    return films.plan(KINDS, 16_000, rng, share=Share(0.3, 0.1), has_test=True, views=True, lateral=0.2)


def exams() -> list[Film]:
    return [film for film in population() if film.view == 1 and film.source < 0]


def film(draw: Callable, severities: dict[str, float], patient: int, seed: int) -> np.ndarray:
    """A film of 96 pixels, float (96, 96)."""
    return draw(severities, np.random.default_rng([1, patient]), np.random.default_rng([2, seed]), 96).astype(float)


# What the films show


@pytest.mark.parametrize("name", chest.NAMES)
def test_a_finding_changes_the_film_and_more_so_when_it_is_more_severe(name: str) -> None:
    for seed in range(3):
        shown = [film(chest.render, {name: severity}, seed, seed) for severity in (0.0, 0.0, VISIBLE, 1.0)]
        assert np.array_equal(shown[0], shown[1])
        changes = [np.abs(film - shown[0]).mean() for film in shown[2:]]
        assert 0.5 < changes[0] < changes[1]


def test_fluid_and_opacities_are_bright_and_air_outside_of_the_lung_is_dark() -> None:
    for name, sign in {"effusion": 1, "mass": 1, "consolidation": 1, "devices": 1, "pneumothorax": -1}.items():
        change = film(chest.render, {name: 1.0}, 4, 4) - film(chest.render, {}, 4, 4)
        strong = change[np.abs(change) > 25]
        assert strong.size > 60 and np.sign(np.median(strong)) == sign


def test_a_view_from_the_side_looks_otherwise_and_two_films_of_a_patient_alike() -> None:
    one, again, side = film(chest.render, {}, 1, 1), film(chest.render, {}, 1, 2), film(chest.render_lateral, {}, 1, 1)
    assert np.corrcoef(one.ravel(), again.ravel())[0, 1] > 0.7 > np.corrcoef(one.ravel(), side.ravel())[0, 1]


# The population


def test_the_known_best_auroc_is_that_of_the_posterior() -> None:
    planned = exams()
    present = np.array([film.present for film in planned])
    for place, kind in enumerate(KINDS):
        posterior = findings.posterior(kind, np.array([film.severities[place] for film in planned]))
        reached = roc_auc_score(present[:, place], posterior)
        assert abs(reached - findings.best_auroc(kind)) < 0.015, kind
        assert posterior.mean() == pytest.approx(present[:, place].mean(), abs=0.01)
        assert 0.85 < findings.best_auroc(kind) < 0.975


def test_planted_prevalence_and_co_occurrence_are_there() -> None:
    present = np.array([film.present for film in exams()])
    for place, kind in enumerate(KINDS):
        assert present[:, place].mean() == pytest.approx(findings.prevalence(kind), abs=0.025)
    for one, other in combinations(range(len(KINDS)), 2):
        both, first, second = (present[:, one] & present[:, other]), present[:, one], present[:, other]
        ratio = (both.sum() * (~first & ~second).sum()) / ((first & ~second).sum() * (~first & second).sum())
        assert ratio == pytest.approx(findings.odds_ratio(KINDS[one], KINDS[other]), rel=0.25)
    assert findings.odds_ratio("effusion", "edema") > 2.5
    assert findings.odds_ratio("effusion", "pneumothorax") == pytest.approx(1, abs=1e-3)


def test_every_finding_that_is_drawn_has_a_frequency_and_their_correlations_are_possible() -> None:
    assert set(findings.FINDINGS) == set(chest.NAMES)
    assert np.linalg.eigvalsh(findings.correlation(chest.NAMES)).min() > 0.05


def test_visits_of_a_patient_are_alike() -> None:
    planned = pd.DataFrame([(film.patient, film.visit, *film.present) for film in exams()])
    planned.columns = ["patient", "visit", *KINDS]
    per_patient = planned.groupby("patient").size()
    assert 2.7 < per_patient.mean() < 3.3 and per_patient.max() > 8
    following = planned.assign(visit=planned["visit"] - 1)
    pairs = planned.merge(following, on=["patient", "visit"])
    for kind in KINDS:
        assert 0.2 < np.corrcoef(pairs[f"{kind}_x"], pairs[f"{kind}_y"])[0, 1] < 0.7


def test_films_of_an_exam_agree_and_patients_are_in_one_split() -> None:
    planned = pd.DataFrame(
        [(film.exam, film.patient, film.test, film.stated.tobytes(), film.lateral) for film in population()],
        columns=["exam", "patient", "test", "stated", "lateral"],
    )
    assert (planned.groupby("exam")["stated"].nunique() == 1).all()
    assert (planned.groupby("patient")["test"].nunique() == 1).all()
    assert planned["test"].mean() == pytest.approx(0.23, abs=0.01)
    assert planned.groupby("exam")["lateral"].sum().mean() == pytest.approx(0.2, abs=0.01)
    assert planned.groupby("exam").size().max() == 3


def test_missing_and_uncertain_labels_have_their_shares_at_random() -> None:
    planned = exams()
    stated, present = (np.array([getattr(film, name) for film in planned]) for name in ("stated", "present"))
    in_test = np.array([film.test for film in planned])
    assert all(np.array_equal(film.stated, film.present) for film in population() if film.test)  # copies, too
    stated, present = stated[~in_test], present[~in_test]
    for chosen, of, share in (
        (np.isnan(stated), np.ones_like(present), 0.3),
        (stated == -1, ~np.isnan(stated), 0.1),
    ):
        for value in (False, True):  # whether a finding is present changes nothing
            rows = of & (present == value)
            low, high = binom.interval(0.9999, int(rows.sum()), share)
            assert low <= (chosen & rows).sum() <= high
    told = ~np.isnan(stated) & (stated != -1)
    assert np.array_equal(stated[told], present[told])
