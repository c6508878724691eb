"""Abstaining, subgroups, seeds, calibration and single images, on planted truths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from scanbook import evaluation as ev
from scanbook.errors import DataError


def make(n=300, k=3, seed=0, skill=1.5, per=2, truth_seed=0):
    y = np.random.default_rng(truth_seed).integers(0, k, n)
    logits = np.random.default_rng(seed).normal(size=(n, k)) + skill * np.eye(k)[y]
    classes = tuple(f"class {c}" for c in range(k))
    groups = [f"g{i // per}" for i in range(n)]
    return ev.Predictions([f"i{i}" for i in range(n)], groups, y, softmax(logits, axis=1), classes)


def ranked(confidence, right, per=1):
    """Two classes, "a" true of all: the model says "a" where it is right, each time with that confidence."""
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    p = np.c_[np.where(right, confidence, 1 - confidence), np.where(right, 1 - confidence, confidence)]
    ids = [f"i{i}" for i in range(len(right))]
    groups = [f"g{i // per}" for i in range(len(right))]
    return ev.Predictions(ids, groups, np.zeros(len(right), int), p, ("a", "b"))


# Abstaining


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
    tied = ev.coverage_curve(ranked([0.9] * 3 + [0.6] * 3, [1, 1, 0, 0, 0, 1]), 20, coverages=(1.0, 0.7, 0.5, 0.1))
    assert tied["images"].tolist() == [6, 6, 3, 3]
    np.testing.assert_allclose(tied["value"], [0.5, 0.5, 2 / 3, 2 / 3])
    with pytest.raises(DataError, match="coverage is 0: expected"):
        ev.coverage_curve(make(20), coverages=(1.0, 0))


def test_coverage_of_patients_is_wider():
    sure, right = np.tile(np.linspace(0.95, 0.6, 100), 5), np.repeat(np.random.default_rng(1).random(50) < 0.7, 10)
    alone, together = (ev.coverage_curve(ranked(sure, right, per), 200).iloc[0] for per in (1, 10))
    assert alone["value"] == together["value"]
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), wanted=st.sampled_from([0.0, 0.5, 0.8, 0.9, 1.0]))
def test_abstention_is_the_lowest_threshold_that_is_right_enough(seed, wanted):
    random = np.random.default_rng(seed)
    model = ranked(random.integers(51, 100, 30) / 100, random.random(30) < 0.7)
    threshold = ev.choose_abstention(model, wanted)
    answered = model.confidence >= threshold
    enough = [c for c in np.unique(model.confidence) if model.correct[model.confidence >= c].mean() >= wanted]
    if not enough:
        assert not answered.any()
    else:
        np.testing.assert_array_equal(answered, model.confidence >= enough[0])
        # Half way to the next confidence below, so that another engine's rounding changes nothing.
        assert threshold == 0 or np.abs(model.confidence - threshold).min() > 0.004


def test_abstention_on_other_images():
    validation, test = make(seed=1), make(seed=2)
    threshold = ev.choose_abstention(validation, 0.9)
    table = ev.abstention(test, threshold, rounds=200)
    answered = test.confidence >= threshold
    assert table.loc["coverage", "value"] == pytest.approx(answered.mean())
    assert table.loc["accuracy", "value"] == pytest.approx(test.correct[answered].mean())
    assert table["images"].tolist() == [300, answered.sum()]
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    assert table.loc["accuracy", "value"] > test.correct.mean() + 0.05
    everything = ev.abstention(test, ev.choose_abstention(validation, 0.0), rounds=200)
    summary = ev.summary(test, ("accuracy",), rounds=200).loc["accuracy"]
    np.testing.assert_allclose(everything.loc["accuracy", ["value", "low", "high"]], summary)
    assert (everything.loc["coverage", ["value", "low", "high"]] == 1).all()
    nothing = ev.abstention(test, 1.1, rounds=20)
    assert (nothing.loc["coverage", ["images", "value"]] == [300, 0]).all()
    assert nothing.loc["accuracy", ["value", "low", "high"]].isna().all()
    for bad in (-0.1, 90, np.nan):
        with pytest.raises(DataError, match="accuracy is"):
            ev.choose_abstention(validation, bad)
    with pytest.raises(DataError, match="threshold is NaN"):
        ev.abstention(test, np.nan)


# Subgroups


def test_ages_have_the_bands_people_use():
    ages = pd.Series([0, 29, 30, 49.5, 50, 69, 70, 85, np.nan, "unknown", "45"], name="age_approx")
    found = ev.bands(ages)
    assert list(found.cat.categories) == ["under 30", "30–49", "50–69", "70 and over"]
    names = [*["under 30"] * 2, *["30–49"] * 2, *["50–69"] * 2, *["70 and over"] * 2]
    assert found.tolist()[:8] == names and found[8:10].isna().all() and found[10] == "30–49"
    assert found.name == "age_approx"
    assert list(ev.bands([1, 2], (30, 50)).cat.categories) == ["under 30", "30–49", "50 and over"]
    assert list(ev.bands(ages.rename("dosage")).cat.categories) != list(found.cat.categories)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(values=st.lists(st.one_of(st.none(), st.integers(-5, 9), st.floats(-1e3, 1e3)), min_size=1, max_size=60))
def test_bands_hold_every_number_once(values):
    numbers = np.array([np.nan if each is None else each for each in values], float)
    if np.isnan(numbers).all():
        with pytest.raises(DataError, match="is a number"):
            ev.bands(numbers)
        return
    found = ev.bands(pd.Series(numbers, name="ratio"))
    assert (found.isna() == np.isnan(numbers)).all()
    assert len(found.cat.categories) <= 4
    codes = found.cat.codes.to_numpy()
    assert (codes[~np.isnan(numbers)] >= 0).all()
    order = np.argsort(numbers[~np.isnan(numbers)])
    assert (np.diff(codes[~np.isnan(numbers)][order]) >= 0).all()


def test_quartiles_of_a_measure():
    found = ev.bands(np.arange(100) / 4)
    assert found.value_counts().tolist() == [25] * 4
    assert list(found.cat.categories[:2]) == ["under 6.1875", "6.1875 to under 12.375"]
    assert list(ev.bands([5.0, 5.0]).cat.categories) == ["all"]
    for edges in ((50, 30), (30, 30)):
        with pytest.raises(DataError, match="expected rising"):
            ev.bands([1, 2], edges)


def test_subgroups_find_who_is_served_less_well():
    good, bad = make(seed=6, skill=3.0), make(seed=7, skill=0.0)
    ids = [f"{i}" for i in range(600)]
    y, p = np.r_[good.y_true, bad.y_true], np.r_[good.probabilities, bad.probabilities]
    both = ev.Predictions(ids, ids, y, p, good.classes)
    sex = ["f"] * 300 + ["m"] * 291 + [None] * 9
    table = ev.subgroups(both, sex, ("accuracy",), rounds=200)
    assert list(table.columns) == ["images", "groups", "value", "low", "high"]
    assert table["images"].tolist() == table["groups"].tolist() == [300, 291, 9]
    assert table.loc[("f", "accuracy"), "low"] > table.loc[("m", "accuracy"), "high"] + 0.2
    alone = ev.summary(both.subset(np.arange(300)), ("accuracy",), 200)
    np.testing.assert_allclose(table.loc["f", ["value", "low", "high"]], alone)
    # Nine images say more about themselves than about the model.
    assert table.loc[("not recorded", "accuracy"), ["value", "low", "high"]].isna().all()
    ten = ev.subgroups(both, ["f"] * 590 + [None] * 10, ("accuracy",), rounds=20)
    assert ten["value"].notna().all()
    counts = ev.subgroup_counts(both, sex)
    assert list(counts.columns) == ["images", "groups", *both.classes]
    assert counts[list(both.classes)].sum(axis=1).tolist() == counts["images"].tolist() == [300, 291, 9]
    assert counts.loc["m", "class 1"] == (bad.y_true[:291] == 1).sum()
    for function in (ev.subgroups, ev.subgroup_counts):
        with pytest.raises(DataError, match="2 values for 600 images"):
            function(both, ["f", "m"])
    with pytest.raises(DataError, match="'dice' is unknown"):
        ev.subgroups(both, sex, ("dice",))


def test_subgroups_stand_in_the_order_of_their_bands():
    model = make(n=60)
    ages = pd.Series([25, 55, 80] * 19 + [np.nan] * 3, name="age", index=range(100, 160))
    table = ev.subgroups(model, ev.bands(ages), ("accuracy", "auroc"), rounds=20)
    assert list(table.index.unique("subgroup")) == ["under 30", "50–69", "70 and over", "not recorded"]
    counts = ev.subgroup_counts(model, ev.bands(ages))
    assert counts["images"].to_dict() == {"under 30": 19, "50–69": 19, "70 and over": 19, "not recorded": 3}
    # A value of that name joins the missing ones.
    named = ev.subgroup_counts(model, ["not recorded", None, *["x"] * 58])
    assert named["images"].to_dict() == {"x": 58, "not recorded": 2}


# Seeds


def test_over_seeds_is_the_scatter_of_training():
    models = {7: make(seed=1), 8: make(seed=2), 11: make(seed=3)}
    table = ev.over_seeds(models, ("accuracy", "brier"))
    assert list(table.columns) == ["seed 7", "seed 8", "seed 11", "mean", "sd", "min", "max"]
    values = [each.correct.mean() for each in models.values()]
    row = table.loc["accuracy"]
    assert row[:3].tolist() == pytest.approx(values)
    assert row[["mean", "sd", "min", "max"]].tolist() == pytest.approx(
        [np.mean(values), np.std(values, ddof=1), min(values), max(values)]
    )
    assert list(ev.over_seeds(list(models.values())).columns[:3]) == ["seed 0", "seed 1", "seed 2"]
    assert np.isnan(ev.over_seeds([models[7]]).loc["accuracy", "sd"])
    with pytest.raises(DataError, match="no model"):
        ev.over_seeds({})


def test_average_is_better_than_its_members():
    models = [make(n=2000, seed=seed, skill=1.0) for seed in range(1, 6)]
    together = ev.average(models)
    np.testing.assert_allclose(together.probabilities, sum(each.probabilities for each in models) / 5)
    assert together.correct.mean() > max(each.correct.mean() for each in models) + 0.05
    np.testing.assert_array_equal(ev.average(models[:1]).probabilities, models[0].probabilities)
    with pytest.raises(DataError, match="same images"):
        ev.average([models[0], models[1].subset(np.arange(10))])
    with pytest.raises(DataError, match="no model"):
        ev.average([])


# One model's images


def test_temperature_of_predictions_is_that_of_logits():
    random = np.random.default_rng(0)
    logits = random.normal(size=(50, 4)) * 3
    model = replace(make(50, 4), probabilities=softmax(logits, axis=1))
    for t in (0.3, 1.0, 2.5):
        np.testing.assert_allclose(model.with_temperature(t).probabilities, ev.apply_temperature(logits, t), atol=1e-12)
    cold = model.with_temperature(2.0)
    np.testing.assert_array_equal(cold.y_pred, model.y_pred)
    assert (cold.confidence < model.confidence).all()
    certain = ranked([1.0, 0.8], [True, False]).with_temperature(2.0)
    np.testing.assert_allclose(certain.probabilities, [[1, 0], [1 / 3, 2 / 3]])
    for t in (0, -1, np.inf, np.nan):
        with pytest.raises(DataError, match="temperature is"):
            model.with_temperature(t)


def test_single_image_in_words():
    classes = ("1", "5", "10")
    p = np.array([[0.03, 0.874, 0.096], [0.5, 0.25, 0.25]])
    model = ev.Predictions(["a.png", "b.png"], ["p", "q"], [1, 2], p, classes)
    assert model.single("a.png") == "True: 5, Predicted: 5, 0.87"
    assert model.single("b.png") == "True: 10, Predicted: 1, 0.50"
    with pytest.raises(DataError, match=r"'c\.png' is not among the 2 images, such as a\.png"):
        model.single("c.png")


def test_failures_and_successes_are_the_surest():
    model = ranked([0.6, 0.9, 0.7, 0.9, 0.8, 0.95], [0, 0, 1, 0, 1, 1])
    assert ev.failures(model, 2).tolist() == [1, 3]
    assert ev.failures(model).tolist() == [1, 3, 0]
    assert ev.successes(model, 2).tolist() == [5, 4]
    perfect = ranked([0.9, 0.8], [1, 1])
    assert len(ev.failures(perfect)) == 0
    assert not model.correct[ev.failures(model)].any()


def test_what_is_answered_is_the_share_asked_for():
    found = ev.Predictions(
        np.arange(200).astype(str),
        np.arange(200).astype(str),
        np.zeros(200, int),
        np.stack([np.linspace(0.51, 0.99, 200), 1 - np.linspace(0.51, 0.99, 200)], 1),
        ("a", "b"),
    )
    below = ev.abstain_below(found, 0.9)
    assert (found.confidence >= below).mean() == pytest.approx(0.9, abs=0.005)
    assert ev.abstain_below(found, 1.0) == found.confidence.min()


def test_an_attribute_is_bands_of_numbers_or_names():
    frame = pd.DataFrame({"age": [20.0, 40.0, np.nan], "sex": ["female", "", "male"]})
    assert ev.attribute(frame, "age").astype(object).tolist()[:2] == ["under 30", "30–49"]
    assert ev.attribute(frame, "sex").isna().tolist() == [False, True, False]
    with pytest.raises(DataError, match="no metadata 'site' for subgroups; expected one of age, sex"):
        ev.attribute(frame, "site")


def test_captions_say_truth_answer_and_probability():
    found = ev.Predictions(["x", "y"], ["x", "y"], np.array([0, 1]), np.array([[0.3, 0.7], [0.2, 0.8]]), ("a", "b"))
    assert found.captions([1, 0]) == ["true b\nsaid b 0.80", "true a\nsaid b 0.70"]
