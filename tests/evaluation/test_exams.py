"""Images of one exam become one prediction; the rule is chosen on validation and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from scanbook import evaluation as ev
from scanbook.evaluation import Exams, Labels, combine, fit_exam_rule

NAN = np.nan


def test_logits_are_combined_as_written_by_hand():
    logits = np.array([[1.0, -2], [3, 0], [5, 5], [-1, 4]])
    member = np.array([0, 1, 0, 0])
    assert combine(logits, member, "mean", False).tolist() == [[5 / 3, 7 / 3], [3, 0]]
    assert combine(logits, member, "maximum", False).tolist() == [[5, 5], [3, 0]]
    classes = log_softmax(logits, axis=1)
    np.testing.assert_allclose(combine(logits, member, "maximum", True)[0], classes[[0, 2, 3]].max(axis=0))
    means = softmax(combine(logits, member, "mean", True), axis=1)
    np.testing.assert_allclose(means[0], softmax(logits[[0, 2, 3]].mean(axis=0)))
    shifted = logits + np.array([[0], [7], [3], [-2]])
    np.testing.assert_allclose(combine(shifted, member, "maximum", True), combine(logits, member, "maximum", True))


def test_exams_of_two_patients_are_two_though_they_have_one_name():
    exams = Exams.of(["study1", "study1", "study2", "study1"], ["a", "b", "a", "a"])
    assert exams.names.tolist() == ["a study1", "b study1", "study2"]
    assert exams.group.tolist() == ["a", "b", "a"] and exams.member.tolist() == [0, 1, 2, 0]


def test_a_finding_is_present_in_an_exam_where_an_image_has_it():
    labels = Labels(("edema", "mass", "node"), np.array([[0, 1, NAN], [1, NAN, NAN], [0, 0, 0], [NAN, 0, 1]]), False)
    exams = Exams.of(list("xxyy"), list("ppqq"))
    rule = ev.ExamRule("maximum", ev.Calibration.identity(3), {})
    logits = np.array([[0.0, 1, 2], [3, -1, 0], [1, 1, 1], [0, 2, -4]])
    predictions, excluded = rule.predictions(labels, logits, exams)
    np.testing.assert_array_equal(predictions.y_true, [[1, 1, NAN], [0, 0, 1]])
    np.testing.assert_allclose(predictions.probabilities, expit([[3, 1, 2], [1, 2, 1]]))
    assert predictions.image_id.tolist() == ["x", "y"] and predictions.group.tolist() == ["p", "q"] and excluded == 0


def test_an_exam_of_two_classes_is_excluded_and_counted():
    labels = Labels(("a", "b"), np.eye(2)[[0, 0, 1, 0, 1]], True)
    exams = Exams.of(list("xxyyz"), list("ppqqr"))
    logits = np.log([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5], [0.5, 0.5], [0.3, 0.7]])
    predictions, excluded = ev.ExamRule("mean", 1.0, {}).predictions(labels, logits, exams)
    assert excluded == 1 and predictions.image_id.tolist() == ["x", "z"] and predictions.y_true.tolist() == [0, 1]
    expected = np.sqrt([0.9 * 0.2, 0.1 * 0.8])
    np.testing.assert_allclose(predictions.probabilities[0], expected / expected.sum())


def exams_of(rule: str, seed: int = 0, n: int = 1200, kind: str = "findings"):
    """Exams of three images. For "maximum" one image shows the finding, for "mean" all do, with noise."""
    random = np.random.default_rng(seed)
    exam = np.repeat(np.arange(n // 3), 3)
    y = random.integers(0, 2, n // 3)[exam]
    shows = (random.integers(0, 3, n // 3)[exam] == np.arange(n) % 3) if rule == "maximum" else np.ones(n, bool)
    noise = 0.5 if rule == "maximum" else 3
    z = np.where((y == 1) & shows, 2.0, -2.0) + random.normal(0, noise, n)
    exams = Exams.of(exam.astype(str), (exam // 2).astype(str))
    if kind == "classes":
        return Labels(("no", "yes"), np.eye(2)[y], True), np.column_stack([-z / 2, z / 2]), exams
    return Labels(("mass",), y[:, None].astype(float), False), z[:, None], exams


@pytest.mark.parametrize("kind", ["findings", "classes"])
def test_the_rule_that_fits_the_exams_is_chosen(kind):
    assert fit_exam_rule(*exams_of("mean", kind=kind)).rule == "mean"
    if kind == "findings":
        fitted = fit_exam_rule(*exams_of("maximum"))
        assert fitted.rule == "maximum" and fitted.losses["maximum"] < fitted.losses["mean"]
        predictions, _ = fitted.predictions(*exams_of("maximum", seed=1))
        labels, logits, _ = exams_of("maximum", seed=1)
        by_image = ev.METRICS["auroc"].compute(labels.values, logits, None)[0]
        assert ev.METRICS["auroc"].point(predictions) > by_image + 0.1
        assert abs(predictions.probabilities.mean() - predictions.y_true.mean()) < 0.05, "calibrated for exams"


def test_exams_of_one_image_are_the_images():
    labels, z, _ = exams_of("mean", n=300)
    alone = Exams.of(np.arange(300).astype(str), np.arange(300).astype(str))
    fitted = fit_exam_rule(labels, z, alone)
    assert fitted.rule == "mean" and fitted.losses["mean"] == fitted.losses["maximum"]
    predictions, excluded = fitted.predictions(labels, z, alone)
    calibration = ev.fit_calibration(z, labels.values, alone.group)
    assert excluded == 0 and np.array_equal(predictions.probabilities, calibration.probabilities(z))


@pytest.mark.filterwarnings("error")
def test_exams_without_any_label_take_the_mean():
    labels = Labels(("edema",), np.full((4, 1), NAN), False)
    rule = fit_exam_rule(labels, np.arange(4.0)[:, None], Exams.of(list("xxyy"), list("ppqq")))
    assert rule.rule == "mean" and np.isnan(rule.losses["mean"]) and rule.calibration.method == ("none",)
