"""A learning curve finds what was planted, its intervals hold what they promise, and it says what cannot be fitted."""

import numpy as np
import pytest

from helpers.models import findings, simulated
from scanbook import evaluation
from scanbook.errors import DataError
from scanbook.evaluation import Predictions, fit_curve, learning_curve

SIZES = np.array([30, 42, 58, 81, 112, 156, 216, 300])


def power_law(n):
    return 0.8 - 1.2 * np.asarray(n, float) ** -0.5


def ending(n):
    return 0.75 - 0.3 * np.exp(-np.asarray(n, float) / 120)


def observe(curve, seed, deviation=0.03, training=0.004, repeats=5):
    """Return scores of nested draws of one pool of patients, and that of one training with twice as many.

    The deviation of n patients from the pool's has variance deviation² × 30 × (1 / n - 1 / 300), as that of a mean has.
    """
    draw = np.random.default_rng(seed)
    steps = np.sqrt(30 / SIZES[:-1] - 30 / SIZES[1:]) * deviation * draw.normal(size=(repeats, len(SIZES) - 1))
    patients = np.pad(np.cumsum(steps[:, ::-1], axis=1)[:, ::-1], [(0, 0), (0, 1)])
    scores = curve(SIZES) + patients + training * draw.normal(size=patients.shape)
    scores[:, -1] = scores[0, -1]  # all patients: one training
    more = deviation * np.sqrt(30 / 300 - 30 / 600) * draw.normal() + training * draw.normal()
    return scores, float(curve(600)) + more


def test_an_exact_power_law_is_found():
    curve = fit_curve(SIZES, [power_law(SIZES)])
    predicted = curve.predict([300, 600, 1200])
    assert predicted["value"].to_numpy() == pytest.approx(power_law([300, 600, 1200]), abs=0.003)
    assert (predicted["high"] - predicted["low"]).max() < 0.05
    assert np.median(curve.exponent[curve.rate == 0]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("curve", [power_law, ending])
def test_prediction_intervals_hold_the_score_of_twice_the_patients(curve):
    held, widths = 0, []
    for seed in range(24):
        scores, truth = observe(curve, seed)
        low, high = fit_curve(SIZES, scores).predict([600]).loc[600, ["low", "high"]]
        held += low <= truth <= high
        widths.append(high - low)
    assert held >= 19, "of 24 with .95, fewer than 19 hold once in a thousand times"
    assert np.median(widths) < 0.12, "an interval that holds everything says nothing"


def test_more_repeats_and_less_noise_make_the_interval_narrower():
    def width(**changes):
        ends = fit_curve(SIZES, observe(power_law, 0, **changes)[0]).predict([600]).loc[600]
        return ends["high"] - ends["low"]

    assert width(deviation=0.003, training=0.0004) < 0.4 * width()
    assert width(repeats=20) < width(repeats=1)


def test_scores_that_are_all_equal_stay_where_they_are():
    predicted = fit_curve(SIZES, np.full((5, 8), 0.9)).predict([600]).loc[600]
    assert predicted["low"] <= 0.9 <= predicted["high"] < 0.93
    perfect = fit_curve(SIZES, np.ones((5, 8))).predict([600]).loc[600]
    assert 0.99 < perfect["low"] <= perfect["value"] <= perfect["high"] <= 1


@pytest.mark.parametrize(
    ("sizes", "scores", "message"),
    [
        (SIZES[:4], np.ones((2, 4)), "5 or more ascending numbers of patients"),
        (SIZES[::-1], np.ones((2, 8)), "ascending"),
        (SIZES, np.ones((2, 7)), "shape"),
        (SIZES, np.where(np.arange(8) == 3, np.nan, 0.5)[None], "not defined"),
        (SIZES, np.linspace(0.9, 0.5, 8)[None], "scores fall from 0.900 to 0.500"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(sizes, scores, message):
    with pytest.raises(DataError, match=message) as caught:
        fit_curve(sizes, scores)
    assert "\n" not in str(caught.value)


def test_draws_of_one_pool_vary_as_means_do():
    """A mean of n of N values varies with 1 / n - 1 / N, and two nested draws as the larger (finite populations)."""
    sizes, draw = np.array([4, 8, 16]), np.random.default_rng(0)
    pool = draw.normal(size=16)
    orders = np.array([draw.permutation(pool) for _ in range(40_000)])
    means = np.stack([orders[:, :size].mean(axis=1) for size in sizes[:-1]], axis=1)
    observed = np.cov(means.T) / np.cov(means.T).trace() * 2
    expected = learning_curve._draws(sizes[:-1, None], sizes[None, :-1], sizes, np.array([1]))[0]
    assert observed == pytest.approx(expected, abs=0.03)


def test_the_size_of_a_test_set_of_independent_images_is_the_textbook_one():
    predictions = simulated(n=600, seed=3)
    accuracy = predictions.correct.mean()
    sizes = evaluation.sizes_of_test_sets(predictions, "accuracy", [0.05, 0.02])
    needed = accuracy * (1 - accuracy) * (1.96 / np.array([0.05, 0.02])) ** 2
    assert sizes["images"].to_numpy()[1:] == pytest.approx(needed, rel=0.15)
    assert sizes["patients"].iloc[0] == 600 and sizes["design_effect"].to_numpy() == pytest.approx(1, abs=0.15)
    assert (sizes["patients"] == sizes["images"]).all()


def test_images_that_repeat_a_patient_are_worth_one():
    one = simulated(n=200, seed=1)
    rows = np.repeat(np.arange(200), 4)
    names = [f"i{row}" for row in range(800)]
    four = Predictions(names, one.group[rows], one.y_true[rows], one.probabilities[rows], one.classes)
    sizes = evaluation.sizes_of_test_sets(four, "accuracy", [0.05])
    assert sizes["design_effect"].iloc[0] == pytest.approx(4, rel=0.2)
    alone = evaluation.sizes_of_test_sets(one, "accuracy", [0.05])
    assert sizes["patients"].to_numpy() == pytest.approx(alone["patients"].to_numpy(), rel=0.02)


@pytest.mark.parametrize("kind", ["a class is missing", "all are right", "one patient"])
def test_a_test_set_without_an_interval_has_no_size(kind):
    predictions = simulated(n=90, skill=1.0)
    if kind == "a class is missing":
        predictions = predictions.subset(predictions.y_true < 2)
    elif kind == "all are right":
        predictions = predictions.subset(predictions.correct)
    else:
        one = np.repeat("only", 90)
        predictions = Predictions(
            predictions.image_id, one, predictions.y_true, predictions.probabilities, predictions.classes
        )
    assert evaluation.sizes_of_test_sets(predictions, "accuracy", [0.05]).empty


def test_the_size_of_a_test_set_of_findings():
    sizes = evaluation.sizes_of_test_sets(findings(n=300), "auroc", [0.05], rounds=200)
    assert list(sizes.columns) == ["patients", "images", "design_effect"] and sizes.notna().all(axis=None)
