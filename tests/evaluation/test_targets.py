"""Operating points of findings and their predictive values at a stated prevalence, on planted truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import precision_score

from scanbook import evaluation as ev
from scanbook.errors import DataError

CLASSES = ("melanoma", "naevus", "carcinoma")
MALIGNANT = {"malignant": ("melanoma", "carcinoma")}


def predicted(seed, n=300, skill=1.5, shares=(0.3, 0.4, 0.3), per=2):
    random = np.random.default_rng(seed)
    y = random.choice(3, n, p=shares)
    p = softmax(random.normal(size=(n, 3)) + skill * np.eye(3)[y], axis=1)
    return ev.Predictions([f"i{i}" for i in range(n)], [f"g{i // per}" for i in range(n)], y, p, CLASSES)


def test_predictive_values_by_hand():
    """Per 10,000 at 1.76 %: 176 × 0.8 = 140.8 found, 9824 × 0.1 = 982.4 alarms; 35.2 missed, 8841.6 cleared."""
    ppv, npv = ev.predictive_values(0.8, 0.9, 0.0176)
    assert ppv == pytest.approx(140.8 / 1123.2)
    assert ppv == pytest.approx(0.12536, abs=1e-5)
    assert npv == pytest.approx(8841.6 / 8876.8)
    assert ev.predictive_values(1, 1, 0.01) == (1, 1)
    useless = ev.predictive_values(0.3, 0.7, [0.01, 0.5])
    np.testing.assert_allclose(useless, [[0.01, 0.5], [0.99, 0.5]])
    nobody, everybody = ev.predictive_values(0, 1, 0.1), ev.predictive_values(1, 0, 0.1)
    assert np.isnan(nobody[0]) and nobody[1] == pytest.approx(0.9)
    assert np.isnan(everybody[1]) and everybody[0] == pytest.approx(0.1)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(*[st.floats(0.01, 0.99)] * 3)
def test_predictive_values_turn_with_the_question(sensitivity, specificity, prevalence):
    """Asked for the absence instead, sensitivity and specificity, and PPV and NPV, change places."""
    ppv, npv = ev.predictive_values(sensitivity, specificity, prevalence)
    turned = ev.predictive_values(specificity, sensitivity, 1 - prevalence)
    np.testing.assert_allclose((npv, ppv), turned)
    assert 0 <= ppv <= 1 and 0 <= npv <= 1
    assert (ppv > prevalence) == (sensitivity + specificity > 1) or ppv == pytest.approx(prevalence)


def test_table_is_what_each_rate_says_alone():
    validation, test = predicted(0), predicted(1)
    table = ev.targets_table(
        validation, test, MALIGNANT, specificity=0.8, prevalence={"malignant": 0.0176}, rounds=300, seed=7
    )
    assert list(table.index) == ["malignant", *CLASSES]
    rates = [f"{name}{end}" for name in ("sensitivity", "specificity") for end in ("", "_low", "_high")]
    values = [f"{name}{end}" for name in ("ppv", "npv") for end in ("", "_low", "_high")]
    assert list(table.columns) == ["threshold", "positives", *rates, "prevalence", *values]
    for name, columns in {"malignant": [0, 2], "naevus": [1]}.items():
        row = table.loc[name]
        truth, score = np.isin(test.y_true, columns), test.probabilities[:, columns].sum(1)
        wanted = np.isin(validation.y_true, columns), validation.probabilities[:, columns].sum(1)
        assert row["threshold"] == ev.choose_threshold(*wanted, 0.8)
        assert row["positives"] == truth.sum()
        point = ev.operating_point(truth, score, row["threshold"], test.group, rounds=300, seed=7)
        for rate in ("sensitivity", "specificity"):
            found = row[[rate, f"{rate}_low", f"{rate}_high"]].astype(float)
            np.testing.assert_allclose(found, point.loc[rate])
        ppv, npv = ev.predictive_values(row["sensitivity"], row["specificity"], row["prevalence"])
        assert (row["ppv"], row["npv"]) == pytest.approx((float(ppv), float(npv)))
        assert row["ppv_low"] < row["ppv"] < row["ppv_high"] and row["npv_low"] < row["npv"] < row["npv_high"]
    # At the test images' own share the PPV is the precision.
    naevus = table.loc["naevus"]
    assert naevus["prevalence"] == pytest.approx((test.y_true == 1).mean())
    called = test.probabilities[:, 1] >= naevus["threshold"]
    assert naevus["ppv"] == pytest.approx(precision_score(test.y_true == 1, called))
    assert table.loc["malignant", "prevalence"] == 0.0176
    assert table.loc["malignant", "ppv"] < 0.2


def test_perfect_and_useless_models():
    y = np.tile([0, 1, 2], 40)
    ids = [f"i{i}" for i in range(120)]
    perfect = ev.Predictions(ids, ids, y, np.eye(3)[y], CLASSES)
    table = ev.targets_table(perfect, perfect, MALIGNANT, prevalence={"melanoma": 0.001}, rounds=50)
    assert (table[["sensitivity", "specificity", "ppv", "ppv_low", "npv"]] == 1).all(axis=None)
    blind = ev.Predictions(ids, ids, y, np.full((120, 3), 1 / 3), CLASSES)
    table = ev.targets_table(blind, blind, rounds=50)
    assert list(table.index) == list(CLASSES)
    assert (table["sensitivity"] == 0).all() and (table["specificity"] == 1).all()
    assert table["ppv"].isna().all()
    np.testing.assert_allclose(table["npv"], 2 / 3)


def test_class_that_validation_lacks_is_not_a_number():
    validation, test = predicted(0), predicted(1)
    table = ev.targets_table(validation.subset(validation.y_true != 2), test, MALIGNANT, rounds=50)
    row = table.loc["carcinoma"]
    assert row["positives"] == (test.y_true == 2).sum()
    assert row.drop(["positives", "prevalence"]).isna().all()
    assert table.drop(index="carcinoma").notna().all(axis=None)
    absent = ev.targets_table(validation, test.subset(test.y_true != 2), rounds=50).loc["carcinoma"]
    assert absent["positives"] == 0
    assert np.isnan(absent["sensitivity"]) and absent["specificity"] > 0.7


def test_finding_of_one_class_by_its_name_is_one_row():
    table = ev.targets_table(predicted(0), predicted(1), {"melanoma": "melanoma"}, rounds=20)
    assert list(table.index) == list(CLASSES)


BROKEN = {
    "class": ({"findings": {"malignant": ["melanoma", "cancer"]}}, "'malignant' has class 'cancer': expected some of"),
    "all": ({"findings": {"any": CLASSES}}, "has 3 of 3 classes: expected some, but not all"),
    "none": ({"findings": {"nothing": []}}, "has 0 of 3 classes"),
    "name": ({"findings": {"naevus": ["melanoma"]}}, "give it another name"),
    "row": ({"prevalence": {"malignant": 0.1}}, "prevalence names 'malignant': expected a finding or class"),
    "share": ({"prevalence": {"naevus": 1.76}}, "'naevus' is 1.76: expected a share"),
    "specificity": ({"specificity": 90}, "specificity is 90"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_questions_are_refused_in_one_line(case):
    options, words = BROKEN[case]
    with pytest.raises(DataError, match=words) as caught:
        ev.targets_table(predicted(0, 30), predicted(1, 30), rounds=5, **options)
    assert "\n" not in str(caught.value)


def test_parts_of_other_classes_are_refused():
    other = predicted(0, 30)
    other = ev.Predictions(other.image_id, other.group, other.y_true, other.probabilities, CLASSES[::-1])
    with pytest.raises(DataError, match="classes differ"):
        ev.targets_table(other, predicted(1, 30))


def test_curve_passes_through_the_table():
    validation, test = predicted(0), predicted(1)
    table = ev.targets_table(validation, test, MALIGNANT, prevalence={"malignant": 0.05}, rounds=200, seed=3)
    row = table.loc["malignant"]
    curve = ev.prevalence_curve(
        test, MALIGNANT["malignant"], row["threshold"], prevalences=(0.01, 0.05, 0.4), rounds=200, seed=3
    )
    np.testing.assert_allclose(curve.loc[0.05], row[list(curve.columns)].astype(float))
    whole = ev.prevalence_curve(test, MALIGNANT["malignant"], row["threshold"], rounds=50)
    assert (whole.index[0], whole.index[-1]) == pytest.approx((0.001, 0.5))
    assert (whole["ppv"].diff().dropna() > 0).all() and (whole["npv"].diff().dropna() < 0).all()
    assert (whole["ppv_low"] <= whole["ppv"]).all() and (whole["ppv"] <= whole["ppv_high"]).all()
    with pytest.raises(DataError, match="has class 'cancer'"):
        ev.prevalence_curve(test, ["cancer"], 0.5)
