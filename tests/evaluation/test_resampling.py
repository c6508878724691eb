"""Resamples move whole groups, and their intervals cover the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.models import simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.resampling import group_weights, interval, resample


def test_group_weights_move_groups_as_one():
    group = np.array(["b", "a", "b", "c", "a", "d"])
    weights = group_weights(group, 500, seed=1)
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    per_group = weights[:, [0, 1, 3, 5]]
    np.testing.assert_array_equal(per_group.sum(1), 4)
    np.testing.assert_allclose(per_group.mean(0), 1, atol=0.15)
    np.testing.assert_allclose(per_group.var(0), 0.75, atol=0.15)
    assert (group_weights(group, 500, seed=1) == weights).all()
    assert (group_weights(group, 500, seed=2) != weights).any()


def test_resamples_do_not_depend_on_the_chunk(monkeypatch):
    group = np.arange(37) // 2
    whole = group_weights(group, 50, seed=4)
    monkeypatch.setattr("scanbook.evaluation.resampling._CHUNK", 37 * 3)
    np.testing.assert_array_equal(group_weights(group, 50, seed=4), whole)
    np.testing.assert_array_equal(resample(lambda w: w.sum(axis=1), group, 50, 4), whole.sum(1))


def test_interval_covers_the_truth():
    right = np.random.default_rng(0).random((120, 200)) < 0.8  # 200 trials of 120 images, which share their resamples
    low, high = interval(resample(lambda w: w @ right / w.sum(1, keepdims=True), np.arange(120), 200, 0))
    assert 0.88 <= np.mean((low <= 0.8) & (high >= 0.8)) <= 0.99


def test_interval_leaves_undefined_rounds_out():
    values = np.column_stack([np.r_[np.nan, np.arange(101.0)], np.full(102, np.nan)])
    low, high = interval(values)
    np.testing.assert_allclose([low[0], high[0]], [2.5, 97.5])
    assert np.isnan([low[1], high[1]]).all()


def test_clustered_patients_widen_the_interval():
    clustered = simulated(n=400, per_group=20, noise=3.0)
    independent = replace(clustered, group=clustered.image_id)
    wide, narrow = (ev.summary(p, ("accuracy",), 400).loc["accuracy"] for p in (clustered, independent))
    assert wide["value"] == narrow["value"]
    assert wide["high"] - wide["low"] > 1.5 * (narrow["high"] - narrow["low"])


def test_empty_resample_is_one_line():
    for group, rounds in (([], 10), (["a"], 0)):
        with pytest.raises(DataError, match="expected at least one"):
            group_weights(group, rounds, 0)


def test_images_of_one_group_have_no_interval():
    y = np.array([0, 1, 1, 0])
    a, b = (
        ev.Predictions(list("wxyz"), ["p"] * 4, y, np.eye(2)[np.where(right, y, 1 - y)], ("no", "yes"))
        for right in (np.ones(4, bool), np.array([True, False, False, True]))
    )
    assert ev.summary(a, ("accuracy",)).loc["accuracy"].isna().tolist() == [False, True, True]
    difference = ev.paired_difference(a, b)
    assert difference.value == 0.5 and np.isnan(difference.low) and not difference.clear
    assert "all images are of one group" in difference.sentence("a", "b")
