"""What labels of local patients repair, where the fault is planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax

from scanbook.evaluation import METRICS, FindingPredictions, Predictions
from scanbook.evaluation.local_labels import FEWEST, local_labels, needed_temperature, refit, stratified_halves
from scanbook.evaluation.sources import Point


def overconfident(patients: int = 300, factor: float = 4.0, seed: int = 0) -> Predictions:
    """Images, two of a patient, whose labels are drawn from calibrated probabilities; the stated logits are larger."""
    draw = np.random.default_rng(seed)
    n = 2 * patients
    z = 1.5 * draw.normal(size=(n, 3))
    y = np.array([draw.choice(3, p=row) for row in softmax(z, axis=1)])
    group = np.array([f"p{number // 2}" for number in range(n)])
    return Predictions(np.arange(n).astype(str), group, y, softmax(factor * z, axis=1), ("a", "b", "c"))


def confident_findings(n: int = 800, seed: int = 0) -> FindingPredictions:
    """Findings whose logits are too large and moved: frequent where the labels are rare."""
    draw = np.random.default_rng(seed)
    z = 1.5 * draw.normal(size=(n, 2)) - 1
    y = (draw.random((n, 2)) < expit(z)).astype(float)
    names = np.arange(n).astype(str)
    return FindingPredictions(names, names, y, expit(3 * z + 4), ("mass", "edema"))


POINTS = {"c": Point(("c",), 0.5), "a or b": Point(("a", "b"), 0.5)}


def test_no_patient_is_in_both_halves_and_the_labels_are() -> None:
    made = overconfident()
    pool, evaluated = stratified_halves(made)
    assert (pool ^ evaluated).all()
    assert not set(made.group[pool]) & set(made.group[evaluated])
    shares = [np.bincount(made.y_true[half], minlength=3) / half.sum() for half in (pool, evaluated)]
    assert np.abs(shares[0] - shares[1]).max() < 0.03


def test_few_labels_bring_the_calibration_back() -> None:
    made = overconfident()
    assert needed_temperature(made) == pytest.approx(4, rel=0.2)
    table = local_labels(made, POINTS, specificity=0.9)
    errors = table[table["quantity"] == "ece"].set_index("patients")
    assert list(errors.index) == [0, 25, 50, 100, 150]
    honest = made.with_temperature(4).subset(stratified_halves(made)[1])
    best = METRICS["ece"].point(honest)
    assert errors.loc[0, "low"] > 0.15 and errors.loc[50, "high"] < errors.loc[0, "low"]
    assert errors.loc[150, "value"] < best + 0.03
    assert errors.loc[25, "value"] >= errors.loc[100, "value"] - 0.01
    rates = table[(table["target"] == "c") & (table["patients"] == 150)].set_index("quantity")
    assert rates.loc["specificity", "low"] < 0.9 < rates.loc["specificity", "high"]


def test_a_draw_of_more_patients_narrows_the_choice_of_thresholds() -> None:
    table = local_labels(overconfident(), POINTS)
    rates = table[(table["target"] == "c") & (table["quantity"] == "specificity")].set_index("patients")
    widths = rates["high"] - rates["low"]
    assert widths[100] < widths[25]


def test_findings_are_moved_back_too() -> None:
    made = confident_findings()
    points = {name: Point((name,), 0.5) for name in made.findings}
    errors = local_labels(made, points, draws=5, rounds=100).query("quantity == 'ece'").set_index("patients")
    assert errors.loc[0, "low"] > 0.2 and errors.loc[100, "high"] < errors.loc[0, "low"]
    assert errors.loc[400, "value"] < 0.08
    pool, evaluated = stratified_halves(made)
    fitted = refit(made.subset(evaluated), made.subset(pool))
    assert fitted.probabilities.mean() == pytest.approx(made.y_true[evaluated].mean(), abs=0.05)


def test_the_draws_are_the_same_again_and_few_patients_give_none() -> None:
    made = overconfident(60)
    first, again = (local_labels(made, POINTS, draws=3, rounds=20) for _ in range(2))
    assert first.equals(again)
    few = made.subset(np.isin(made.group, [f"p{number}" for number in range(FEWEST - 1)]))
    assert local_labels(few, POINTS).empty


def test_a_draw_without_positives_has_no_threshold_and_the_others_count() -> None:
    made = overconfident()
    rare = made.y_true == 2
    kept = made.subset(~rare | np.isin(made.group, made.group[rare][:6]))
    table = local_labels(kept, POINTS, draws=5, rounds=20)
    assert table[table["patients"] == 0]["value"].notna().all()
    assert table[table["quantity"] == "ece"]["value"].notna().all()
