"""Operating points of targets and their predictive values at a stated prevalence, on planted truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_score

from helpers.models import simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.resampling import interval, resample
from scanbook.evaluation.targets import choose_threshold, predictive_values


@given(seed=st.integers(0, 10_000), expected=st.sampled_from([0.0, 0.5, 0.8, 0.9, 1.0]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_threshold_is_the_most_sensitive_one_allowed(seed, expected):
    random = np.random.default_rng(seed)
    y = np.r_[True, False, random.random(40) < 0.4]
    score = np.round(random.normal(size=42) + y, 1)
    threshold = choose_threshold(y, score, expected)
    called = score >= threshold
    assert (~called[~y]).mean() >= expected - 1e-9
    better = [(score >= s)[y].mean() for s in score if (score < s)[~y].mean() >= expected - 1e-9]
    assert called[y].mean() == pytest.approx(max(better, default=0.0))


def test_threshold_keeps_clear_of_scores():
    y, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
    assert choose_threshold(y, score, 1.0) == pytest.approx(0.4)
    above = choose_threshold([1, 0], [0.2, 0.9], 0.9)
    assert 0.9 < above < 0.9001
    with pytest.raises(DataError, match="needs positives and negatives"):
        choose_threshold([1, 1], [0.1, 0.2])
    with pytest.raises(DataError, match="one of each per image"):
        choose_threshold([1, 0], [0.1])


CLASSES = ("melanoma", "naevus", "carcinoma")


MALIGNANT = {"malignant": ("melanoma", "carcinoma")}


def predicted(seed, n=300):
    return simulated(n, seed=seed, labels=seed, skill=1.5, per_group=2, classes=CLASSES)


def test_predictive_values_by_hand():
    """Per 10,000 at 1.76 %: 176 × 0.8 = 140.8 true and 9824 × 0.1 = 982.4 false positives; 8841.6 true negatives."""
    ppv, npv = predictive_values(0.8, 0.9, 0.0176)
    assert ppv == pytest.approx(140.8 / 1123.2)
    assert ppv == pytest.approx(0.12536, abs=1e-5)
    assert npv == pytest.approx(8841.6 / 8876.8)
    assert predictive_values(1, 1, 0.01) == (1, 1)
    useless = predictive_values(0.3, 0.7, [0.01, 0.5])
    np.testing.assert_allclose(useless, [[0.01, 0.5], [0.99, 0.5]])
    nobody, everybody = predictive_values(0, 1, 0.1), predictive_values(1, 0, 0.1)
    assert np.isnan(nobody[0]) and nobody[1] == pytest.approx(0.9)
    assert np.isnan(everybody[1]) and everybody[0] == pytest.approx(0.1)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(*[st.floats(0.01, 0.99)] * 3)
def test_predictive_values_swap_when_positive_and_negative_swap(sensitivity, specificity, prevalence):
    """With the other kind as positive, sensitivity and specificity, and PPV and NPV, change places."""
    ppv, npv = predictive_values(sensitivity, specificity, prevalence)
    turned = predictive_values(specificity, sensitivity, 1 - prevalence)
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
        expected = np.isin(validation.y_true, columns), validation.probabilities[:, columns].sum(1)
        assert row["threshold"] == choose_threshold(*expected, 0.8)
        assert row["positives"] == truth.sum()
        called = score >= row["threshold"]
        for rate, correct, kind in (("sensitivity", called, truth), ("specificity", ~called, ~truth)):
            resampled = resample(lambda w, c=correct & kind, k=kind: w @ c / (w @ k), test.group, 300, 7)
            point = [(correct & kind).sum() / kind.sum(), *interval(resampled)]
            np.testing.assert_allclose(row[[rate, f"{rate}_low", f"{rate}_high"]].astype(float), point)
            assert row[f"{rate}_low"] < row[rate] < row[f"{rate}_high"]
        ppv, npv = predictive_values(row["sensitivity"], row["specificity"], row["prevalence"])
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


def test_a_class_without_validation_images_is_not_a_number():
    validation, test = predicted(0), predicted(1)
    table = ev.targets_table(validation.subset(validation.y_true != 2), test, MALIGNANT, rounds=50)
    row = table.loc["carcinoma"]
    assert row["positives"] == (test.y_true == 2).sum()
    assert row.drop(["positives", "prevalence"]).isna().all()
    assert table.drop(index="carcinoma").notna().all(axis=None)
    absent = ev.targets_table(validation, test.subset(test.y_true != 2), rounds=50).loc["carcinoma"]
    assert absent["positives"] == 0
    assert np.isnan(absent["sensitivity"]) and absent["specificity"] > 0.7


def test_a_target_with_the_name_of_its_class_is_one_row():
    table = ev.targets_table(predicted(0), predicted(1), {"melanoma": "melanoma"}, rounds=20)
    assert list(table.index) == list(CLASSES)


BROKEN = {
    "class": ({"targets": {"malignant": ["melanoma", "cancer"]}}, "'malignant' has class 'cancer': expected some of"),
    "all": ({"targets": {"any": CLASSES}}, "has 3 of 3 classes: expected some, but not all"),
    "none": ({"targets": {"nothing": []}}, "has 0 of 3 classes"),
    "name": ({"targets": {"naevus": ["melanoma"]}}, "give it another name"),
    "row": ({"prevalence": {"malignant": 0.1}}, "prevalence names 'malignant': expected a target, class or finding"),
    "share": ({"prevalence": {"naevus": 1.76}}, "'naevus' is 1.76: expected a share"),
    "specificity": ({"specificity": 90}, "specificity is 90"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_questions_are_refused_in_one_line(case):
    options, words = BROKEN[case]
    with pytest.raises(DataError, match=words) as caught:
        ev.targets_table(predicted(0, 30), predicted(1, 30), rounds=5, **options)
    assert "\n" not in str(caught.value)


def test_splits_of_other_classes_are_refused():
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
