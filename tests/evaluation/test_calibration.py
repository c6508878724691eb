"""The temperature that was planted is found, and reliability counts every image once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from helpers.models import ranked, simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError


@pytest.mark.parametrize("planted", [0.3, 1.0, 2.5, 400.0])
def test_temperature_recovers_the_planted_one(planted):
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 1.5
    y = (random.random(20_000)[:, None] > softmax(logits, axis=1).cumsum(1)).sum(1)
    assert ev.fit_temperature(logits * planted, y) == pytest.approx(planted, rel=0.05)


def test_temperature_lowers_the_loss_and_keeps_predictions():
    random = np.random.default_rng(1)
    logits = random.normal(size=(300, 3)) * 6
    y = np.where(random.random(300) < 0.7, logits.argmax(1), random.integers(0, 3, 300))
    t = ev.fit_temperature(logits, y)
    rows = np.arange(300)
    loss = [-log_softmax(logits / s, axis=1)[rows, y].mean() for s in (t, t * 0.9, t * 1.1, 1.0)]
    assert loss[0] == min(loss)
    calibrated = softmax(logits / t, axis=1)
    np.testing.assert_array_equal(calibrated.argmax(1), logits.argmax(1))


def test_temperature_of_degenerate_cases():
    logits = np.eye(3)[[0, 1, 2, 0]] * 5
    assert ev.fit_temperature(logits, [0, 1, 2, 0]) == 1.0
    assert ev.fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) == 1.0
    wrong = softmax(logits / ev.fit_temperature(logits, [1, 2, 0, 1]), axis=1)
    np.testing.assert_allclose(wrong, 1 / 3, atol=0.02)
    for bad in (np.zeros(3), np.zeros((0, 3)), np.full((3, 3), np.nan)):
        with pytest.raises(DataError, match="expected"):
            ev.fit_temperature(bad, np.zeros(len(bad), int))
    with pytest.raises(DataError, match="labels run from 0 to 3"):
        ev.fit_temperature(logits, [0, 1, 2, 3])


def test_reliability_counts_every_image_once():
    predictions = simulated(n=500)
    table = ev.reliability(predictions)
    assert len(table) == 10
    assert table["count"].sum() == 500
    full = table[table["count"] > 0]
    assert np.average(full["accuracy"], weights=full["count"]) == pytest.approx(predictions.correct.mean())
    assert ((full["low"] <= full["accuracy"]) & (full["accuracy"] <= full["high"])).all()
    assert table.loc[table["count"] == 0, ["confidence", "accuracy", "low"]].isna().all(axis=None)
    assert table["bin"].iloc[9] == "0.9–1"
    fine = ev.reliability(predictions, 15).dropna()
    error = np.average((fine["accuracy"] - fine["confidence"]).abs(), weights=fine["count"])
    assert error == pytest.approx(ev.METRICS["ece"].point(predictions))
    assert error > 0


def test_reliability_interval_is_wilson():
    y = np.zeros(10, int)
    p = np.tile([0.75, 0.25], (10, 1))
    p[:2] = [0.25, 0.75]
    row = ev.reliability(ev.Predictions([*"0123456789"], [*"0123456789"], y, p, ("a", "b"))).iloc[7]
    assert row["accuracy"] == pytest.approx(0.8)
    assert (row["low"], row["high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson, 8 of 10


def test_temperature_of_predictions_is_that_of_logits():
    random = np.random.default_rng(0)
    logits = random.normal(size=(50, 4)) * 3
    model = replace(simulated(50, 4), probabilities=softmax(logits, axis=1))
    for t in (0.3, 1.0, 2.5):
        np.testing.assert_allclose(model.with_temperature(t).probabilities, softmax(logits / t, axis=1), atol=1e-12)
    cold = model.with_temperature(2.0)
    np.testing.assert_array_equal(cold.y_pred, model.y_pred)
    assert (cold.confidence < model.confidence).all()
    certain = ranked([1.0, 0.8], [True, False]).with_temperature(2.0)
    np.testing.assert_allclose(certain.probabilities, [[1, 0], [1 / 3, 2 / 3]])
    for t in (0, -1, np.inf, np.nan):
        with pytest.raises(DataError, match="temperature is"):
            model.with_temperature(t)
