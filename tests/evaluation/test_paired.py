"""Differences of two models on the same images, by resampling and by the tests of DeLong and McNemar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from helpers.models import simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.paired import area_variance, delong, placements


def test_planted_difference_is_found_and_named():
    better, worse = simulated(skill=2.5), simulated(skill=0.5)
    for metric in ("accuracy", "auroc", "brier"):
        difference = ev.paired_difference(better, worse, metric, rounds=300)
        assert difference.clear
        assert difference.low <= difference.value <= difference.high
        assert difference.p_value < 0.05
        sentence = difference.sentence("fine-tuned", "frozen")
        assert sentence.startswith("fine-tuned is better than frozen by 0.")
        assert "−" not in sentence
        swapped = ev.paired_difference(worse, better, metric, rounds=300)
        assert swapped.value == pytest.approx(-difference.value)
        assert swapped.sentence("frozen", "fine-tuned") == sentence
    assert ev.mcnemar(better, worse) < 0.001


def test_identical_models_are_within_noise():
    a = simulated()
    difference = ev.paired_difference(a, a, rounds=50)
    assert (difference.value, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)
    assert "within noise (95 % interval 0.000 to 0.000)" in difference.sentence("one", "other")
    assert ev.mcnemar(a, a) == 1.0


def test_an_undefined_metric_is_not_reported_as_noise():
    a = simulated()
    one_class = a.subset(a.y_true == 0)
    difference = ev.paired_difference(one_class, one_class, "auroc", rounds=20)
    assert np.isnan(difference.value)
    assert (
        difference.sentence("one", "other")
        == "one and other cannot be compared: macro AUROC is not defined on these images"
    )


def test_equally_good_models_are_rarely_told_apart():
    random = np.random.default_rng(0)
    y, ids = np.zeros(150, int), [f"{i}" for i in range(150)]
    clear = 0
    for trial in range(100):
        a, b = (
            ev.Predictions(ids, ids, y, np.eye(2)[(random.random(150) < 0.2).astype(int)], ("no", "yes"))
            for _ in range(2)
        )
        clear += ev.paired_difference(a, b, rounds=200, seed=trial).clear
    assert clear <= 12


def test_pairing_narrows_the_interval():
    a = simulated(n=400)
    probabilities = a.probabilities.copy()
    probabilities[:8] = 1 / 3
    paired = ev.paired_difference(a, replace(a, probabilities=probabilities), rounds=300)
    alone = ev.summary(a, ("accuracy",), 300).loc["accuracy"]
    assert paired.high - paired.low < 0.5 * (alone["high"] - alone["low"])


@pytest.mark.parametrize("field", ["image_id", "y_true", "group", "classes", "length"])
def test_different_images_are_refused(field):
    a = simulated(n=30)
    other = {
        "image_id": lambda: replace(a, image_id=np.r_[["other"], a.image_id[1:]]),
        "group": lambda: replace(a, group=np.r_[["other"], a.group[1:]]),
        "y_true": lambda: replace(a, y_true=(a.y_true + 1) % 3),
        "classes": lambda: replace(a, classes=a.classes[::-1]),
        "length": lambda: a.subset(np.arange(29)),
    }[field]()
    for compare in (ev.paired_difference, ev.mcnemar):
        with pytest.raises(DataError) as caught:
            compare(a, other)
        assert "\n" not in str(caught.value)


def test_mcnemar_is_the_exact_binomial():
    y, ids = np.zeros(20, int), [str(i) for i in range(20)]
    right = np.eye(2)[np.r_[np.zeros(18, int), 1, 1]]
    half = np.eye(2)[np.r_[np.zeros(10, int), np.ones(8, int), 0, 1]]
    a, b = (ev.Predictions(ids, ids, y, p, ("no", "yes")) for p in (right, half))
    # 8 images only a has right, 1 only b: 2 * (C(9,0) + C(9,1)) / 2^9
    assert ev.mcnemar(a, b) == pytest.approx(2 * 10 / 512)


def test_comparison_holds_what_each_test_says():
    good, bad = simulated(240, skill=2.5, per_group=2), simulated(240, seed=1, skill=0.5, per_group=2)
    table = ev.comparison(good, bad, ("accuracy", "auroc", "brier"), rounds=200, seed=5)
    tests = [f"AUROC of class {c} (DeLong)" for c in range(3)]
    assert list(table.index) == ["accuracy", "auroc", "brier", *tests, "accuracy (McNemar)"]
    assert list(table.columns) == ["difference", "low", "high", "p_value"]
    for metric in ("accuracy", "auroc", "brier"):
        single = ev.paired_difference(good, bad, metric, 200, 5)
        assert table.loc[metric].tolist() == [single.value, single.low, single.high, single.p_value]
    area = delong(good, bad, "class 1")
    assert table.loc[tests[1]].tolist() == [area.value, area.low, area.high, area.p_value]
    assert table.loc[tests, "difference"].mean() == pytest.approx(table.loc["auroc", "difference"])
    last = table.loc["accuracy (McNemar)"]
    assert last["p_value"] == ev.mcnemar(good, bad)
    assert last["difference"] == pytest.approx(table.loc["accuracy", "difference"])
    assert last[["low", "high"]].isna().all()
    assert (table["p_value"] < 0.05).all()


def test_comparison_of_a_model_with_itself_and_of_two_classes():
    a = simulated(240, per_group=2)
    table = ev.comparison(a, a, rounds=20)
    assert (table["difference"] == 0).all() and (table["p_value"] == 1).all()
    y, scores, group = clustered(0)
    binary = ev.comparison(*two(y, scores, group), ("auroc",), rounds=20)
    assert list(binary.index) == ["auroc", "AUROC of yes (DeLong)", "accuracy (McNemar)"]
    with pytest.raises(DataError, match="same images"):
        ev.comparison(a, replace(a, image_id=a.image_id[::-1]))
    with pytest.raises(DataError, match="'dice' is unknown"):
        ev.comparison(a, a, ("dice",))


def two(y, scores, group=None):
    """Two models of the class "yes", from their scores."""
    ids = [f"i{i}" for i in range(len(y))]
    group = ids if group is None else [f"g{g}" for g in group]
    p = expit(np.asarray(scores, float))
    return [
        ev.Predictions(ids, group, np.asarray(y, int), np.c_[1 - positive, positive], ("no", "yes")) for positive in p
    ]


@st.composite
def cases(draw):
    """Labels, two models' scores (on a coarse grid, so that they tie) and groups of one to five images."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(8, 40))
    y = np.r_[0, 1, 0, 1, random.integers(0, 2, n - 4)]
    grid = draw(st.sampled_from([2, 6, 1000]))
    scores = (random.integers(0, grid, (2, n)) + y * grid // 3) / grid
    return y.astype(bool), scores, np.r_[0, 1, 2, 3, random.integers(0, max(4, n // draw(st.integers(1, 5))), n - 4)]


def kernel(y, score):
    positive, negative = score[y][:, None], score[~y][None]
    return (positive > negative) + 0.5 * (positive == negative)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(case=cases())
def test_plain_variance_is_the_u_statistics(case):
    y, scores, _ = case
    wins = [kernel(y, score) for score in scores]
    for score, win in zip(scores, wins, strict=True):
        placed = placements(y, score)
        np.testing.assert_allclose(placed[y], win.mean(1), atol=1e-12)
        np.testing.assert_allclose(placed[~y], win.mean(0), atol=1e-12)
        assert placed[y].mean() == pytest.approx(roc_auc_score(y, score))
    covariance = sum(np.cov([win.mean(axis) for win in wins]) / size for axis, size in ((1, y.sum()), (0, (~y).sum())))
    contrast = np.array([1, -1])
    variance = contrast @ covariance @ contrast
    difference = placements(y, scores[0]) - placements(y, scores[1])
    assert area_variance(y, difference, np.arange(len(y))) == pytest.approx(variance, abs=1e-14)
    placed = delong(*two(y, scores), "yes")
    assert placed.value == pytest.approx(wins[0].mean() - wins[1].mean(), abs=1e-15)
    if variance > 1e-12:
        z = placed.value / np.sqrt(variance)
        assert placed.p_value == pytest.approx(2 * norm.cdf(-abs(z)))
        assert placed.high - placed.low == pytest.approx(2 * 1.959964 * np.sqrt(variance), rel=1e-6)


def clustered_covariance(y, scores, group):
    """Obuchowski's (1997) sums as the paper writes them, patient by patient."""
    v10, v01 = zip(*((kernel(y, s).mean(1), kernel(y, s).mean(0)) for s in scores), strict=True)
    theta = [rows.mean() for rows in v10]
    m, n, patients = y.sum(), (~y).sum(), np.unique(group)
    with_positive, with_negative = len(set(group[y])), len(set(group[~y]))

    def positive(model, patient):
        own = group[y] == patient
        return v10[model][own].sum() - own.sum() * theta[model]

    def negative(model, patient):
        own = group[~y] == patient
        return v01[model][own].sum() - own.sum() * theta[model]

    def total(first, second):
        return lambda r, s: sum(first(r, i) * second(s, i) for i in patients)

    covariance = np.empty((2, 2))
    for r, s in np.ndindex(2, 2):
        s10 = with_positive / ((with_positive - 1) * m) * total(positive, positive)(r, s)
        s01 = with_negative / ((with_negative - 1) * n) * total(negative, negative)(r, s)
        s11 = [len(patients) / (len(patients) - 1) * total(positive, negative)(*pair) for pair in ((r, s), (s, r))]
        covariance[r, s] = s10 / m + s01 / n + sum(s11) / (m * n)
    return covariance


@settings(max_examples=20, deadline=None, derandomize=True)
@given(case=cases())
def test_clustered_variance_is_obuchowskis(case):
    y, scores, group = case
    covariance = clustered_covariance(y, scores, group)
    for place, score in enumerate(scores):
        expected = max(covariance[place, place], 0)
        assert area_variance(y, placements(y, score), group) == pytest.approx(expected, abs=1e-14)
    expected = max(np.array([1, -1]) @ covariance @ np.array([1, -1]), 0)
    difference = placements(y, scores[0]) - placements(y, scores[1])
    assert area_variance(y, difference, group) == pytest.approx(expected, abs=1e-14)


def clustered(seed, gain=0.0, patients=60, per=5):
    """Two models whose errors the images of a patient share, as they share the label; model a separates `gain` more."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), per)
    y = (random.random(patients) < 0.5)[group]
    shared = random.normal(size=(2, patients))[:, group]
    scores = y * np.array([[1 + gain], [1]]) + shared + 0.5 * random.normal(size=(2, len(group)))
    return y, scores, group


def test_patients_of_several_images_do_not_pass_for_more_evidence():
    """At no difference p is below 5 % in about 5 % of trials; with images taken as independent much more often."""
    apart, together = [], []
    for trial in range(150):
        y, scores, group = clustered(trial)
        together.append(delong(*two(y, scores, group), "yes").p_value)
        apart.append(delong(*two(y, scores), "yes").p_value)
    assert 0.02 <= np.mean(np.array(together) < 0.05) <= 0.095
    assert np.mean(np.array(apart) < 0.05) > 0.1


def test_interval_agrees_with_the_bootstrap_over_patients():
    y, scores, group = clustered(1, gain=0.5, patients=150)
    a, b = two(y, scores, group)
    difference, resampled = delong(a, b, "yes"), ev.paired_difference(a, b, "auroc", rounds=2000)
    assert difference.value == pytest.approx(resampled.value)
    assert difference.high - difference.low == pytest.approx(resampled.high - resampled.low, rel=0.1)
    assert difference.p_value == pytest.approx(resampled.p_value, abs=0.03)


def test_p_agrees_with_permutations():
    """Under no difference the two models' placements of an image may be swapped."""
    random = np.random.default_rng(4)
    y = random.random(200) < 0.5
    scores = random.normal(size=(2, 200)) + y * np.array([[1.2], [0.8]])
    ranks = scores.argsort(1).argsort(1)

    def gap(first, second):
        positives = y.sum()
        sums = [rankdata(values, axis=1)[:, y].sum(1) for values in (first, second)]
        return (sums[0] - sums[1]) / (positives * (len(y) - positives))

    observed = gap(*ranks[:, None])
    swaps = random.random((1000, 200)) < 0.5
    under = gap(np.where(swaps, *ranks), np.where(swaps, *ranks[::-1]))
    difference = delong(*two(y, scores), "yes")
    assert difference.p_value == pytest.approx(np.mean(np.abs(under) >= abs(observed)), abs=0.04)


def test_planted_differences_and_none():
    y, scores, group = clustered(2, gain=3.0)
    a, b = two(y, scores, group)
    difference, swapped = delong(a, b, "yes"), delong(b, a, "yes")
    assert difference.value > difference.low > 0 and difference.p_value < 0.001
    assert (swapped.value, swapped.low, swapped.p_value) == pytest.approx(
        (-difference.value, -difference.high, difference.p_value)
    )
    other = delong(a, b, "no")
    assert (other.value, other.p_value) == pytest.approx((difference.value, difference.p_value))
    same = delong(a, a, "yes")
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_differences_that_cannot_be_judged_are_not_a_number():
    y = np.array([0, 0, 1, 1, 1, 0])
    perfect, useless = two(y, [y * 2.0 - 1, np.zeros(6)])
    difference = delong(perfect, useless, "yes")
    assert difference.value == 0.5
    assert np.isnan([difference.low, difference.high, difference.p_value]).all()
    healthy = perfect.subset(y == 0)
    assert np.isnan(delong(healthy, healthy, "yes").value)
    one_patient = two(y, [[0.1, 0.2, 0.3, 0.1, 0.5, 0.4], [1, 2, 3, 4, 5, 6]], [0, 1, 2, 2, 2, 3])
    assert np.isnan(delong(*one_patient, "yes").p_value)
    with pytest.raises(DataError, match="class 'maybe' is unknown: expected one of no, yes"):
        delong(perfect, useless, "maybe")
    with pytest.raises(DataError, match="same images"):
        delong(perfect, useless.subset([0, 1, 2]), "yes")
