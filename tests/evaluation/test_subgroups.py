"""Subgroups: bands, counts, and the group that a model serves less well."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.models import simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.subgroups import bands


def test_ages_have_the_bands_people_use():
    ages = pd.Series([0, 29, 30, 49.5, 50, 69, 70, 85, np.nan, "unknown", "45"], name="age_approx")
    labels = bands(ages)
    assert list(labels.cat.categories) == ["under 30", "30–49", "50–69", "70 and over"]
    names = [*["under 30"] * 2, *["30–49"] * 2, *["50–69"] * 2, *["70 and over"] * 2]
    assert labels.tolist()[:8] == names and labels[8:10].isna().all() and labels[10] == "30–49"
    assert labels.name == "age_approx"
    assert list(bands(ages.rename("dosage")).cat.categories) != list(labels.cat.categories)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(values=st.lists(st.one_of(st.none(), st.integers(-5, 9), st.floats(-1e3, 1e3)), min_size=1, max_size=60))
def test_bands_hold_every_number_once(values):
    numbers = np.array([np.nan if value is None else value for value in values], float)
    if np.isnan(numbers).all():
        with pytest.raises(DataError, match="is a number"):
            bands(numbers)
        return
    labels = bands(pd.Series(numbers, name="ratio"))
    assert (labels.isna() == np.isnan(numbers)).all()
    assert len(labels.cat.categories) <= 4
    codes = labels.cat.codes.to_numpy()
    assert (codes[~np.isnan(numbers)] >= 0).all()
    order = np.argsort(numbers[~np.isnan(numbers)])
    assert (np.diff(codes[~np.isnan(numbers)][order]) >= 0).all()


def test_quartiles_of_a_measure():
    labels = bands(np.arange(100) / 4)
    assert labels.value_counts().tolist() == [25] * 4
    assert list(labels.cat.categories[:2]) == ["under 6.1875", "6.1875 to under 12.375"]
    assert list(bands([5.0, 5.0]).cat.categories) == ["all"]


def test_subgroups_find_who_is_served_less_well():
    good, bad = simulated(seed=6, skill=3.0), simulated(seed=7, skill=0.0)
    ids = [f"{i}" for i in range(600)]
    y, p = np.r_[good.y_true, bad.y_true], np.r_[good.probabilities, bad.probabilities]
    both = ev.Predictions(ids, ids, y, p, good.classes)
    sex = ["f"] * 300 + ["m"] * 291 + [None] * 9
    table = ev.subgroups(both, sex, ("accuracy",), rounds=200)
    assert list(table.columns) == ["images", "groups", "classes", "value", "low", "high"]
    assert table["images"].tolist() == table["groups"].tolist() == [300, 291, 9]
    assert table.loc[("f", "accuracy"), "low"] > table.loc[("m", "accuracy"), "high"] + 0.2
    alone = ev.summary(both.subset(np.arange(300)), ("accuracy",), 200)
    np.testing.assert_allclose(table.loc["f", ["value", "low", "high"]], alone)
    # Nine images say more about themselves than about the model.
    assert table.loc[("not recorded", "accuracy"), ["value", "low", "high"]].isna().all()
    ten = ev.subgroups(both, ["f"] * 590 + [None] * 10, ("accuracy",), rounds=20)
    assert ten["value"].notna().all()
    with pytest.raises(DataError, match="2 values for 600 images"):
        ev.subgroups(both, ["f", "m"])
    with pytest.raises(DataError, match="'dice' is unknown"):
        ev.subgroups(both, sex, ("dice",))


def test_subgroups_stand_in_the_order_of_their_bands():
    model = simulated(n=60)
    ages = pd.Series([25, 55, 80] * 19 + [np.nan] * 3, name="age", index=range(100, 160))
    table = ev.subgroups(model, bands(ages), ("accuracy", "auroc"), rounds=20)
    assert list(table.index.unique("subgroup")) == ["under 30", "50–69", "70 and over", "not recorded"]
    counts = table.xs("accuracy", level="metric")["images"]
    assert counts.to_dict() == {"under 30": 19, "50–69": 19, "70 and over": 19, "not recorded": 3}
    # A value of that name joins the missing ones.
    named = ev.subgroups(model, ["not recorded", None, *["x"] * 58], ("accuracy",), rounds=5)
    assert named["images"].tolist() == [58, 2]


def test_an_attribute_is_bands_of_numbers_or_names():
    frame = pd.DataFrame({"age": [20.0, 40.0, np.nan], "sex": ["female", "", "male"]})
    assert ev.attribute(frame, "age").astype(object).tolist()[:2] == ["under 30", "30–49"]
    assert ev.attribute(frame, "sex").isna().tolist() == [False, True, False]
    with pytest.raises(DataError, match="no metadata 'site' for subgroups; expected one of age, sex"):
        ev.attribute(frame, "site")
