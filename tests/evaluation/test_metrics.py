"""Metrics equal those of scikit-learn, under every weighting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from helpers.models import simulated
from scanbook import evaluation as ev
from scanbook.evaluation.metrics import class_auprc, class_auroc, class_rates, confusions


def reference_auroc(y, p, w):
    areas = [
        reference.roc_auc_score(y == c, p[:, c], sample_weight=w)
        for c in range(p.shape[1])
        if 0 < w[y == c].sum() < w.sum()
    ]
    return np.mean(areas) if areas else np.nan


def reference_auprc(y, p, w):
    areas = [
        reference.average_precision_score(y == c, p[:, c], sample_weight=w)
        for c in range(p.shape[1])
        if w[y == c].sum() > 0
    ]
    return np.mean(areas)


def reference_ece(y, p, w):
    confidence, right, total = p.max(1), p.argmax(1) == y, 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if w[inside].sum() > 0:
            gap = np.average(right[inside], weights=w[inside]) - np.average(confidence[inside], weights=w[inside])
            total += abs(gap) * w[inside].sum() / w.sum()
    return total


def present(y, w):
    return w > 0, np.unique(y[w > 0])


def precision_and_f1(y, p, w, average):
    """scikit-learn's defaults on the images that the weighting leaves: never predicted counts as 0."""
    left = w > 0
    values = reference.precision_recall_fscore_support(
        y[left], p.argmax(1)[left], average=average, sample_weight=w[left], zero_division=0
    )
    return values[0], values[2]


REFERENCE = {
    "accuracy": lambda y, p, w: reference.accuracy_score(y, p.argmax(1), sample_weight=w),
    "balanced_accuracy": lambda y, p, w: reference.recall_score(
        y, p.argmax(1), labels=present(y, w)[1], average="macro", sample_weight=w
    ),
    "macro_precision": lambda y, p, w: precision_and_f1(y, p, w, "macro")[0],
    "weighted_precision": lambda y, p, w: precision_and_f1(y, p, w, "weighted")[0],
    "weighted_f1": lambda y, p, w: precision_and_f1(y, p, w, "weighted")[1],
    "macro_f1": lambda y, p, w: reference.f1_score(
        y, p.argmax(1), labels=range(p.shape[1]), average="macro", sample_weight=w, zero_division=np.nan
    ),
    "auroc": reference_auroc,
    "auprc": reference_auprc,
    "brier": lambda y, p, w: np.average(((p - np.eye(p.shape[1])[y]) ** 2).sum(1), weights=w),
    "ece": reference_ece,
    "kappa": lambda y, p, w: reference.cohen_kappa_score(
        y, p.argmax(1), labels=range(p.shape[1]), weights="quadratic", sample_weight=w
    ),
}


@st.composite
def weighted_cases(draw):
    """Labels, probabilities on a coarse grid (so that scores tie) and weights, many of them zero."""
    k, n = draw(st.integers(2, 5)), draw(st.integers(12, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.sampled_from([2, 5, 1000]))
    p = random.integers(0, grid + 1, (n, k)) + 0.01
    p /= p.sum(1, keepdims=True)
    w = random.integers(0, 4, (3, n)) * (random.uniform(0.2, 2, (3, n)) if draw(st.booleans()) else 1.0)
    w[:, :2] = 1.0
    y = random.integers(0, k, n)
    y[:2] = 0, 1
    return y, p, w


def random_case(seed, n, k):
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(k), n)
    return random.integers(0, k, n), p, random.uniform(0, 2, n)


def test_references_cover_every_metric():
    assert set(REFERENCE) == set(ev.OF_CLASSES)
    assert all(metric.name == name for name, metric in ev.METRICS.items())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("name", REFERENCE)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(case=weighted_cases())
def test_metric_equals_scikit_learn_with_sample_weight(name, case):
    y, p, weights = case
    values = ev.METRICS[name].compute(y, p, weights)
    expected = [REFERENCE[name](y, p, w) for w in weights]
    np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
    assert np.isfinite(values).any() or name == "kappa"
    ones = np.ones(len(y))
    np.testing.assert_allclose(
        ev.METRICS[name].compute(y, p, None)[0], REFERENCE[name](y, p, ones), rtol=1e-9, atol=1e-12
    )


def test_brier_equals_scikit_learn_multiclass():
    y, p, w = random_case(0, 80, 4)
    expected = reference.brier_score_loss(y, p, labels=range(4), sample_weight=w, scale_by_half=False)
    np.testing.assert_allclose(ev.METRICS["brier"].compute(y, p, w[None])[0], expected)


def test_macro_auroc_equals_scikit_learn_ovr():
    y, p, _ = random_case(1, 80, 4)
    expected = reference.roc_auc_score(y, p, multi_class="ovr")
    np.testing.assert_allclose(ev.METRICS["auroc"].compute(y, p, None)[0], expected)


def test_weight_two_is_the_image_twice():
    y, p, _ = random_case(2, 50, 3)
    w = np.random.default_rng(2).integers(0, 3, 50)
    again = np.repeat(np.arange(50), w)
    for metric in map(ev.METRICS.get, ev.OF_CLASSES):
        np.testing.assert_allclose(
            metric.compute(y, p, w[None])[0], metric.compute(y[again], p[again], None)[0], rtol=1e-9
        )


def test_absent_class_leaves_the_macro_mean():
    y, p, _ = random_case(3, 60, 3)
    w = (y != 2).astype(float)[None]
    assert np.isnan(class_auroc(y, p, w)[0, 2])
    assert np.isnan(class_auprc(y, p, w)[0, 2])
    rates = class_rates(confusions(y, p.argmax(1), 3, w))["sensitivity"][0]
    assert np.isnan(rates[2])
    assert ev.METRICS["balanced_accuracy"].compute(y, p, w)[0] == pytest.approx(rates[:2].mean())
    assert ev.METRICS["auroc"].compute(y, p, w)[0] == pytest.approx(class_auroc(y, p, w)[0, :2].mean())
    assert all(np.isnan(metric.compute(y, p, 0 * w)[0]) for metric in map(ev.METRICS.get, ev.OF_CLASSES))


def test_kappa_is_shown_of_ordered_classes_only():
    assert ev.metrics_for(simulated(), ordered=True) == ev.OF_CLASSES
    assert set(ev.OF_CLASSES) - set(ev.metrics_for(simulated())) == {"kappa"}
