"""One model on two sources: values by hand, intervals that hold the truth, and what a single class defines."""

from __future__ import annotations

import numpy as np
import pytest

from scanbook import evaluation
from scanbook.errors import DataError
from scanbook.evaluation import FindingPredictions, Predictions
from scanbook.evaluation.sources import Point, compare_sources, metrics_of_sources, prevalences, rates_of_points

CLASSES = ("a", "b", "c")


def predictions(n: int, seed: int = 0, right: float = 0.7, per_patient: int = 2) -> Predictions:
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, n)
    answer = np.where(draw.random(n) < right, y, (y + draw.integers(1, 3, n)) % 3)
    p = np.full((n, 3), 0.15)
    p[np.arange(n), answer] = 0.7
    names = np.array([f"{seed}-{number}" for number in range(n)])
    return Predictions(names, np.array([f"{seed}-p{number // per_patient}" for number in range(n)]), y, p, CLASSES)


def test_the_values_are_those_of_the_summary_and_the_difference_is_external_less_internal() -> None:
    internal, external = predictions(90), predictions(120, 1, right=0.5)
    table = compare_sources(internal, external, metrics_of_sources(internal, ordered=True), rounds=100)
    assert list(table.index) == ["accuracy", "balanced_accuracy", "auroc", "kappa", "brier", "ece"]
    for name, side in (("internal", internal), ("external", external)):
        expected = evaluation.summary(side, tuple(table.index), rounds=100)["value"]
        assert np.allclose(table[name], expected)
    assert np.allclose(table["difference"], table["external"] - table["internal"])
    assert (table["difference_low"] < table["difference"]).loc[["accuracy", "auroc"]].all()


def test_the_interval_of_the_difference_holds_the_planted_one() -> None:
    held = 0
    for seed in range(0, 60, 2):
        pair = predictions(150, seed, 0.8), predictions(150, seed + 1, 0.6)
        row = compare_sources(*pair, ("accuracy",), rounds=200).loc["accuracy"]
        held += row["difference_low"] <= -0.2 <= row["difference_high"]
    assert held >= 25


def test_no_resample_of_one_source_moves_the_other() -> None:
    """The variance of the difference is the sum of both: neither is resampled along with the other."""
    pair = predictions(200), predictions(200, 1)
    row = compare_sources(*pair, ("accuracy",), rounds=2000).loc["accuracy"]
    widths = [row[f"{name}_high"] - row[f"{name}_low"] for name in ("internal", "external", "difference")]
    assert widths[2] == pytest.approx(np.hypot(*widths[:2]), rel=0.1)


def test_a_single_class_defines_accuracy_and_no_area() -> None:
    one = predictions(60).subset(predictions(60).y_true == 1)
    table = compare_sources(predictions(60, 1), one, metrics_of_sources(one, ordered=True), rounds=50)
    undefined = ["balanced_accuracy", "auroc", "kappa"]
    assert table.loc[undefined, ["external", "external_low", "difference"]].isna().all(axis=None)
    assert table.drop(index=undefined).notna().all(axis=None)
    wrong = Predictions(one.image_id, one.group, one.y_true, np.tile([1.0, 0, 0], (len(one), 1)), CLASSES)
    row = compare_sources(None, wrong, ("accuracy",), rounds=50).loc["accuracy"]
    assert row["external"] == row["external_low"] == 0 < row["external_high"] < 0.3


def test_sources_of_other_labels_are_not_compared() -> None:
    other = predictions(30)
    other = Predictions(other.image_id, other.group, other.y_true, other.probabilities, ("a", "b", "d"))
    with pytest.raises(DataError, match="map them to those of the model first"):
        compare_sources(predictions(30), other, ("accuracy",))


def test_rates_of_a_threshold_by_hand() -> None:
    y = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    score = np.array([0.1, 0.2, 0.6, 0.3, 0.9, 0.4, 0.7, 0.8, 0.2, 0.1])
    p = np.column_stack([1 - score, score, np.zeros(10)])
    made = Predictions(np.arange(10).astype(str), np.arange(10).astype(str), y, p, CLASSES)
    points = {"b": Point(("b",), 0.5), "b or c": Point(("b", "c"), 0.5), "none": Point(("a",), np.nan)}
    table = rates_of_points(made, points, rounds=50)
    assert table["positives"].tolist() == [3, 6, 4]
    values = table.loc["b", ["prevalence", "flagged", "sensitivity", "specificity", "ppv", "npv"]].astype(float)
    assert np.allclose(values, [0.3, 0.4, 2 / 3, 5 / 7, 0.5, 5 / 6])
    assert table.loc["b or c", "sensitivity"] == pytest.approx(0.5)
    assert table.loc["none", ["flagged", "sensitivity", "ppv"]].isna().all() and table.loc["none", "prevalence"] == 0.4


def test_findings_that_are_not_labelled_count_nowhere() -> None:
    y = np.array([[1, np.nan], [0, 1], [0, np.nan], [np.nan, 0], [1, 0], [0, 0]])
    p = np.array([[0.9, 0.9], [0.2, 0.8], [0.7, 0.1], [0.9, 0.3], [0.4, 0.6], [0.1, 0.2]])
    names = np.arange(6).astype(str)
    made = FindingPredictions(names, names, y, p, ("mass", "edema"))
    table = rates_of_points(made, {name: Point((name,), 0.5) for name in made.findings}, rounds=50)
    assert np.allclose(table["prevalence"], [2 / 5, 1 / 4])
    assert np.allclose(table["sensitivity"], [0.5, 1.0]) and np.allclose(table["specificity"], [2 / 3, 2 / 3])
    shares = prevalences(None, made, rounds=50)
    assert shares.index.name == "finding" and np.allclose(shares["external"], table["prevalence"])
    assert metrics_of_sources(made) == ("auroc", "auprc", "brier", "ece")
