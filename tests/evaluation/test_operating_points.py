"""Thresholds and margins of findings come from validation; what is answered and what is not is counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from helpers.models import findings
from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.targets import choose_threshold, predictive_values


def test_thresholds_and_margins_are_those_of_the_labelled_validation_images():
    validation, test = findings(n=500, labels=1), findings(n=400, labels=2, seed=3)
    points = ev.finding_points(validation, test, specificity=0.8, coverage=0.7, prevalence={"finding 1": 0.02})
    for column, name in enumerate(test.findings):
        rows = ~np.isnan(validation.y_true[:, column])
        y, p = validation.y_true[rows, column], validation.probabilities[rows, column]
        threshold, margin = points.loc[name, ["threshold", "margin"]]
        assert threshold == choose_threshold(y, p, 0.8)
        assert (p < threshold)[y == 0].mean() >= 0.8
        assert np.mean(np.abs(logit(p) - logit(threshold)) >= margin) == pytest.approx(0.7, abs=2 / len(p))
        rows = ~np.isnan(test.y_true[:, column])
        y, p = test.y_true[rows, column], test.probabilities[rows, column]
        sensitivity, specificity = (p >= threshold)[y == 1].mean(), (p < threshold)[y == 0].mean()
        row = points.loc[name]
        assert row["sensitivity"] == pytest.approx(sensitivity) and row["specificity"] == pytest.approx(specificity)
        assert row["prevalence"] == pytest.approx(0.02 if name == "finding 1" else y.mean())
        ppv, npv = predictive_values(sensitivity, specificity, row["prevalence"])
        assert row["ppv"] == pytest.approx(float(ppv)) and row["npv"] == pytest.approx(float(npv))
        assert row["ppv_low"] < row["ppv"] < row["ppv_high"]
        assert row[["positives", "negatives"]].tolist() == [(y == 1).sum(), (y == 0).sum()]
    changed = ev.finding_points(validation, findings(n=400, labels=7), specificity=0.8, coverage=0.7)
    assert (changed[["threshold", "margin"]] == points[["threshold", "margin"]]).all(axis=None), "test chose something"


def by_hand() -> tuple[ev.FindingPredictions, object]:
    z = np.array([[3.0, -2], [0.2, 1], [-1, 0.1], [-3, 2], [1, -0.4]])
    y = np.array([[1, 0], [0, 1], [1, np.nan], [0, 0], [0, 1]])
    test = ev.FindingPredictions(list("abcde"), list("abcde"), y, expit(z), ("edema", "mass"))
    points = ev.finding_points(test, test, rounds=5)
    points[["threshold", "margin"]] = [[0.5, 0.5], [0.5, 0.5]]
    return test, points


def test_errors_and_abstention_are_counted():
    test, points = by_hand()
    errors = ev.finding_errors(test, points)
    assert errors.loc["edema"].tolist() == [1, 1, 2, 1, 1]
    assert errors.loc["mass"].tolist() == [1, 1, 1, 1, 1]
    table = ev.finding_abstention(test, points, rounds=20)
    assert table.loc["edema", ["coverage", "sensitivity", "specificity", "accuracy"]].tolist() == [0.8, 0.5, 0.5, 0.5]
    assert table.loc["mass", ["coverage", "sensitivity", "specificity"]].tolist() == [0.75, 1, 0.5]
    assert table.loc["macro average", "coverage"] == pytest.approx((0.8 + 0.75) / 2)
    confusion = ev.co_errors(test, points)
    # edema without mass: a; mass without edema: b and e, both called edema
    assert confusion.loc["edema", "mass"] == 0 and confusion.loc["mass", "edema"] == 1
    assert confusion.loc["edema", "edema"] == 0.5 and confusion.loc["mass", "mass"] == 0.5


def test_the_most_confident_answers_are_right_and_present_or_wrong():
    test, points = by_hand()
    assert ev.confident(test, "edema", points, correct=True, count=9).tolist() == [0]
    assert ev.confident(test, "edema", points, correct=False, count=9).tolist() == [2, 4, 1]
    assert ev.confident(test, "mass", points, correct=False, count=1).tolist() == [3]


def test_the_coverage_curve_starts_at_the_operating_points():
    validation, test = findings(n=500, labels=1), findings(n=400, labels=2, seed=3)
    points = ev.finding_points(validation, test, rounds=20)
    curve = ev.finding_coverage_curve(test, points, rounds=20)
    for name in ("sensitivity", "specificity"):
        assert curve.at[1.0, name] == pytest.approx(points[name].mean())
    assert curve.at[0.3, "accuracy"] > curve.at[1.0, "accuracy"] + 0.05


def test_a_probability_of_one_has_a_distance():
    assert np.isfinite(ev.distance([0.0, 1.0], 0.5)).all() and np.isnan(ev.distance(0.3, np.nan))


def test_predictive_values_over_prevalence_are_those_of_the_operating_point():
    test = findings()
    points = ev.finding_points(test, test, rounds=50)
    threshold, prevalence = points.loc["finding 2", ["threshold", "prevalence"]]
    curve = ev.prevalence_curve(test, ["finding 2"], threshold, prevalences=[prevalence], rounds=50)
    columns = ["ppv", "ppv_low", "ppv_high", "npv"]
    np.testing.assert_allclose(curve[columns].to_numpy()[0], points.loc["finding 2", columns].to_numpy(float))


@pytest.mark.parametrize(
    ("targets", "prevalence", "message"),
    [
        ({"any": ["finding 0", "finding 1"]}, {}, "the study has findings"),
        ({}, {"mass": 0.1}, "prevalence names 'mass'.* finding 0, finding 1"),
        ({}, {"finding 0": 1.5}, "1.5"),
    ],
)
def test_what_findings_do_not_have_is_refused(targets, prevalence, message):
    with pytest.raises(DataError, match=message):
        ev.check_targets(findings(), targets, prevalence)


def test_splits_of_other_findings_are_refused():
    with pytest.raises(DataError, match="findings differ"):
        ev.finding_points(findings(), findings(k=2))


def test_a_rate_of_0_or_1_is_not_known_exactly():
    y = np.repeat([[1.0, 1.0], [0.0, 0.0]], 20, axis=0)
    p = np.column_stack([0.2 + 0.6 * y[:, 0], np.full(40, 0.1) + 0.8 * (1 - y[:, 1])])
    test = ev.FindingPredictions(
        [str(row) for row in range(40)], [str(row // 2) for row in range(40)], y, p, ("a", "b")
    )
    points = ev.finding_points(test, test, rounds=100, prevalence={"a": 0.1})
    exact = 0.025 ** (1 / 10)  # ten patients of ten (Clopper and Pearson, 1934)
    for rates in (points.loc["a"], ev.finding_abstention(test, points, rounds=100).loc["a"]):
        for name in ("sensitivity", "specificity"):
            assert rates[[name, f"{name}_low", f"{name}_high"]].tolist() == pytest.approx([1, exact, 1])
    low = predictive_values(exact, exact, 0.1)
    assert points.loc["a", ["ppv_low", "npv_low"]].tolist() == pytest.approx([float(value) for value in low])
    assert points.loc["a", ["ppv_high", "npv_high"]].tolist() == [1, 1]
    nothing = ev.finding_points(
        test, ev.FindingPredictions(test.image_id, test.group, y, 0.1 * p, ("a", "b")), rounds=20
    )
    assert nothing.at["a", "sensitivity"] == 0 and nothing.at["a", "sensitivity_high"] == pytest.approx(1 - exact)
    assert np.isnan(nothing.loc["a", ["ppv", "ppv_low", "ppv_high"]].to_numpy(float)).all()
    match = ev.summary(test, ("exact_match", "brier"), rounds=20).loc["exact_match"]
    assert match.tolist() == pytest.approx([0, 0, 1 - 0.025 ** (1 / 20)]), "every image has a wrong label"
