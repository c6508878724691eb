"""Net benefit against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanbook.errors import DataError
from scanbook.evaluation.decision_curve import decision_curve, useful_range


def curve(positive: object, probability: object, **options: object):
    n = len(np.asarray(positive))
    return decision_curve(positive, probability, np.arange(n).astype(str), rounds=50, **options)


def test_ten_cases_for_twenty_false_alarms_at_one_in_five() -> None:
    """Vickers and Elkin's formula: 10 of 100 detected, 20 false alarms: .10 - .20 × .2 / .8 = .05."""
    positive = np.r_[np.ones(10), np.zeros(90)].astype(bool)
    probability = np.r_[np.full(10, 0.9), np.full(20, 0.5), np.full(70, 0.1)]
    table = curve(positive, probability, thresholds=(0.2,))
    assert table.loc[0.2, "net_benefit"] == pytest.approx(0.05)
    assert table.loc[0.2, "treat_all"] == pytest.approx(0.1 - 0.9 * 0.25)
    assert table.loc[0.2, "net_benefit_low"] < 0.05 < table.loc[0.2, "net_benefit_high"]


def test_a_perfect_model_has_the_prevalence_and_one_that_knows_it_alone_is_as_good_as_treating_all_or_none() -> None:
    positive = np.arange(200) < 60
    perfect = curve(positive, positive.astype(float))
    assert np.allclose(perfect["net_benefit"], 0.3)
    assert useful_range(perfect) == (0.01, 0.99)
    knows = curve(positive, np.full(200, 0.3))
    below = knows.index <= 0.3
    assert np.allclose(knows["net_benefit"][below], knows["treat_all"][below])
    assert np.allclose(knows["net_benefit"][~below], 0)
    assert useful_range(knows) is None


@given(st.integers(0, 10_000), st.floats(0.01, 0.99))
def test_no_model_has_more_than_the_prevalence(seed: int, threshold: float) -> None:
    draw = np.random.default_rng(seed)
    positive = draw.random(40) < 0.4
    table = curve(positive, draw.random(40), thresholds=(threshold,))
    assert table["net_benefit"].iloc[0] <= positive.mean() + 1e-12


def test_a_threshold_of_one_is_refused() -> None:
    with pytest.raises(DataError, match="a threshold is 1: expected probabilities above 0 and below 1"):
        curve([True, False], [0.5, 0.5], thresholds=(0.5, 1.0))
    with pytest.raises(DataError, match="expected one of each per image"):
        curve([True, False], [0.5])
