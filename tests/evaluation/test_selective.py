"""Selective prediction on planted rankings: coverage, accuracy and thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.models import ranked, simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError


def test_coverage_of_a_perfect_ranking():
    """70 of 100 right and all of them surer than the others: at coverage c the accuracy is min(1, 0.7 / c)."""
    table = ev.coverage_curve(ranked(np.linspace(0.99, 0.6, 100), np.arange(100) < 70), rounds=200)
    np.testing.assert_allclose(table.index, np.arange(10, 0, -1) / 10)
    np.testing.assert_allclose(table["value"], np.minimum(1, 0.7 / table.index))
    np.testing.assert_array_equal(table["images"], np.arange(100, 0, -10))
    np.testing.assert_allclose(table["answered"], table.index)
    assert (table["threshold"].diff().dropna() > 0).all()
    assert table["low"].iloc[0] < 0.7 < table["high"].iloc[0]
    assert (table.loc[0.7:, ["low", "high"]] == 1).all(axis=None)


def test_coverage_of_an_uninformed_ranking_and_of_ties():
    random = np.random.default_rng(0)
    table = ev.coverage_curve(ranked(random.uniform(0.5, 1, 4000), random.random(4000) < 0.8), rounds=100)
    assert ((table["low"] - 0.02 < 0.8) & (table["high"] + 0.02 > 0.8)).all()
    tied = ev.coverage_curve(ranked([0.9] * 3 + [0.6] * 3, [1, 1, 0, 0, 0, 1]), 20).loc[[1.0, 0.7, 0.5, 0.1]]
    assert tied["images"].tolist() == [6, 6, 3, 3]
    np.testing.assert_allclose(tied["value"], [0.5, 0.5, 2 / 3, 2 / 3])


def test_coverage_of_patients_is_wider():
    sure, right = np.tile(np.linspace(0.95, 0.6, 100), 5), np.repeat(np.random.default_rng(1).random(50) < 0.7, 10)
    alone, together = (ev.coverage_curve(ranked(sure, right, per), 200).iloc[0] for per in (1, 10))
    assert alone["value"] == together["value"]
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_abstention_on_other_images():
    validation, test = (simulated(seed=seed, skill=1.5, per_group=2) for seed in (1, 2))
    threshold = ev.abstain_below(validation, 0.6)
    table = ev.abstention(test, threshold, rounds=200)
    answered = test.confidence >= threshold
    assert table.loc["coverage", "value"] == pytest.approx(answered.mean())
    assert table.loc["accuracy", "value"] == pytest.approx(test.correct[answered].mean())
    assert table["images"].tolist() == [300, answered.sum()]
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    assert table.loc["accuracy", "value"] > test.correct.mean() + 0.05
    everything = ev.abstention(test, 0.0, rounds=200)
    summary = ev.summary(test, ("accuracy",), rounds=200).loc["accuracy"]
    np.testing.assert_allclose(everything.loc["accuracy", ["value", "low", "high"]], summary)
    assert (everything.loc["coverage", ["value", "low", "high"]] == 1).all()
    nothing = ev.abstention(test, 1.1, rounds=20)
    assert (nothing.loc["coverage", ["images", "value"]] == [300, 0]).all()
    assert nothing.loc["accuracy", ["value", "low", "high"]].isna().all()
    with pytest.raises(DataError, match="threshold is NaN"):
        ev.abstention(test, np.nan)


def test_what_is_answered_is_the_share_asked_for():
    predictions = ev.Predictions(
        np.arange(200).astype(str),
        np.arange(200).astype(str),
        np.zeros(200, int),
        np.stack([np.linspace(0.51, 0.99, 200), 1 - np.linspace(0.51, 0.99, 200)], 1),
        ("a", "b"),
    )
    below = ev.abstain_below(predictions, 0.9)
    assert (predictions.confidence >= below).mean() == pytest.approx(0.9, abs=0.005)
    assert ev.abstain_below(predictions, 1.0) == predictions.confidence.min()
