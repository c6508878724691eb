"""Each finding is calibrated on its own, by the method that validation supports."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from scanbook import evaluation as ev
from scanbook.errors import DataError


def planted(n: int = 6000, seed: int = 0):
    """Logits of five findings whose true calibration is known: p = sigmoid(slope × logit + offset)."""
    random = np.random.default_rng(seed)
    slope, offset = np.array([1, 0.5, 1, 2, 1]), np.array([0, 0, -2.5, -1, 0])
    logits = random.normal(0, 2, (n, 5))
    y = (random.uniform(size=(n, 5)) < expit(slope * logits + offset)).astype(float)
    y[:, 4] = np.where(np.arange(n) < 4, [1, 0, 0, 0] * (n // 4), np.nan)
    y[random.uniform(size=n) < 0.3, 2] = np.nan
    return logits, y, np.array([f"g{i // 2}" for i in range(n)]), slope, offset


def test_planted_slopes_and_offsets_are_found():
    logits, y, group, slope, offset = planted()
    fitted = ev.fit_calibration(logits, y, group)
    assert fitted.method[1] != "none" and fitted.method[2:4] == ("Platt", "Platt")
    assert fitted.method[4] == "none", "present in one patient alone"
    np.testing.assert_allclose(fitted.slope[:4], slope[:4], rtol=0.08)
    np.testing.assert_allclose(fitted.offset[:4], offset[:4], atol=0.12)
    known = ~np.isnan(y[:, 3])
    reference = LogisticRegression(C=np.inf).fit(logits[known, 3:4], y[known, 3])
    assert fitted.slope[3] == pytest.approx(reference.coef_[0, 0], rel=0.01)
    assert fitted.offset[3] == pytest.approx(reference.intercept_[0], rel=0.02)
    fresh, labels, *_ = planted(seed=1)
    assert fitted.log_loss(fresh, labels) < ev.Calibration.identity(5).log_loss(fresh, labels) - 0.02
    again = ev.Calibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert np.array_equal(again.probabilities(fresh), fitted.probabilities(fresh)) and again.method == fitted.method


def test_labels_tell_which_calibration_is_fitted():
    logits, y, group, _, _ = planted(200)
    of_findings = ev.calibrate(ev.Labels(tuple("abcde"), y, exclusive=False), logits, group, seed=1)
    assert of_findings.to_dict() == ev.fit_calibration(logits, y, group, seed=1).to_dict()
    classes = np.arange(200) % 5
    of_classes = ev.calibrate(ev.Labels(tuple("abcde"), np.eye(5)[classes], exclusive=True), logits, group)
    assert of_classes == ev.fit_temperature(logits, classes)


def test_the_log_loss_is_the_mean_over_findings_of_their_labelled_images():
    logits, y = np.array([[0.0, 2.0], [1.0, -1.0]]), np.array([[1, np.nan], [0, 1]])
    first = (np.log(2) + np.log1p(np.exp(1))) / 2
    assert ev.Calibration.identity(2).log_loss(logits, y) == pytest.approx((first + np.log1p(np.exp(1))) / 2)


def test_a_logit_that_says_nothing_or_the_opposite_keeps_the_order_of_images():
    random = np.random.default_rng(0)
    z = random.normal(size=(400, 3))
    y = np.column_stack([random.uniform(size=400) < 0.2, random.uniform(size=400) < expit(-3 * z[:, 1]), z[:, 2] > 0])
    fitted = ev.fit_calibration(z, y.astype(float), np.arange(400))
    assert (fitted.slope > 0).all()
    p = fitted.probabilities(z)
    assert p[:, 0].mean() == pytest.approx(0.2, abs=0.05)
    assert np.isfinite(p).all() and p[:, 2].min() > 0 and p[:, 2].max() < 1, "separated: still finite"


@pytest.mark.parametrize(
    "y",
    [
        np.full(8, np.nan),
        np.zeros(8),
        np.r_[1, np.zeros(7)],
        np.r_[1, 1, np.full(6, np.nan)],
    ],
)
def test_few_labels_change_nothing(y):
    fitted = ev.fit_calibration(np.linspace(-1, 1, 8)[:, None], y[:, None], [f"g{i // 2}" for i in range(8)])
    assert fitted.method == ("none",) and fitted.slope == 1 and fitted.offset == 0


def test_few_patients_have_no_offset():
    random = np.random.default_rng(3)
    z, y = random.normal(-3, 1, 60), np.repeat([1.0, 0.0], [12, 48])
    group = np.r_[np.arange(12) // 2, 10 + np.arange(48)]  # six patients have it
    assert ev.fit_calibration(z[:, None], y[:, None], group).method[0] in ("none", "temperature")


def test_what_is_no_logit_is_refused():
    with pytest.raises(DataError, match="shape"):
        ev.fit_calibration(np.zeros((3, 2)), np.zeros((3, 1)), list("abc"))
    with pytest.raises(DataError, match="finite"):
        ev.fit_calibration(np.full((2, 1), np.inf), np.zeros((2, 1)), list("ab"))


def test_reliability_of_a_finding_counts_what_is_labelled():
    p = np.r_[np.full(30, 0.01), np.full(10, 0.5), 0.9]
    y = np.r_[np.zeros(29), 1, np.ones(5), np.zeros(5), np.nan]
    names = [f"i{i}" for i in range(41)]
    sample = ev.FindingPredictions(names, names, y[:, None], p[:, None], ("mass",))
    table = ev.finding_reliability(sample, "mass", 4)
    assert table["count"].tolist() == [30, 10]
    np.testing.assert_allclose(table["share"], [1 / 30, 0.5])
    np.testing.assert_allclose(table["probability"], [0.01, 0.5])
    assert ((table["low"] < table["share"]) & (table["share"] < table["high"])).all()
    assert ev.finding_reliability(sample.subset([0, 1]), "mass")["count"].tolist() == [2]
