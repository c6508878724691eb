"""Predictions for findings: what is not labelled is not absent, and has no weight in any metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from scanbook.errors import DataError
from scanbook.evaluation import Calibration, FindingPredictions, Labels, load_predictions
from scanbook.evaluation.metrics import class_auprc, class_auroc


def predictions(n: int = 60, seed: int = 0) -> FindingPredictions:
    random = np.random.default_rng(seed)
    y = random.choice([0.0, 1.0, np.nan], (n, 3), p=[0.5, 0.3, 0.2])
    p = np.clip(0.3 * np.nan_to_num(y) + random.uniform(0, 0.7, y.shape), 0, 1)
    names = [f"image {i}" for i in range(n)]
    return FindingPredictions(names, [f"patient {i // 2}" for i in range(n)], y, p, ("edema", "mass", "NA"))


def test_a_finding_is_measured_on_the_images_that_are_labelled_for_it():
    sample = predictions()
    for column, name in enumerate(sample.findings):
        known = ~np.isnan(sample.y_true[:, column])
        y, p = sample.y_true[known, column], sample.probabilities[known, column]
        assert class_auroc(sample.y_true, sample.probabilities)[0, column] == pytest.approx(roc_auc_score(y, p))
        area = class_auprc(sample.y_true, sample.probabilities)[0, column]
        assert area == pytest.approx(average_precision_score(y, p))
        one = sample.binary(name)
        assert len(one) == known.sum() and one.classes == ("absent", "present")
        assert class_auroc(one.y_true, one.probabilities)[0, 1] == pytest.approx(roc_auc_score(y, p))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_weights_of_images_that_are_not_labelled_change_nothing(seed):
    sample, random = predictions(seed=seed), np.random.default_rng(seed)
    weights = random.integers(0, 3, (4, len(sample))).astype(float)
    areas = class_auroc(sample.y_true, sample.probabilities, weights)
    for column in range(3):
        other = np.where(np.isnan(sample.y_true[:, column]), random.uniform(0, 9, len(sample)), weights)
        again = class_auroc(sample.y_true, sample.probabilities, other)
        assert np.allclose(areas[:, column], again[:, column], equal_nan=True)


def test_a_file_gives_the_same_bits_back(tmp_path):
    sample = predictions()
    sample.save(tmp_path / "p.csv")
    again = FindingPredictions.load(tmp_path / "p.csv")
    assert again.findings == sample.findings and (again.image_id == sample.image_id).all()
    assert np.array_equal(again.y_true, sample.y_true, equal_nan=True)
    assert np.array_equal(again.probabilities, sample.probabilities)
    assert isinstance(load_predictions(tmp_path / "p.csv"), FindingPredictions)


def test_a_label_in_a_file_that_is_no_number_is_named(tmp_path):
    predictions().to_frame().astype({"true_mass": object}).assign(true_mass="yes").to_csv(tmp_path / "p.csv")
    with pytest.raises(DataError, match=r"not 1, 0 or empty.*yes"):
        FindingPredictions.load(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": np.full((60, 3), 1.2)}, "sigmoid"),
        ({"y_true": np.full((60, 3), -1.0)}, "not labelled"),
        ({"findings": ("edema", "mass", "mass")}, "different names"),
        ({"y_true": np.zeros((60, 2))}, "expected"),
    ],
)
def test_what_is_no_prediction_is_refused(change, message):
    sample = predictions()
    values = {name: getattr(sample, name) for name in ("image_id", "group", "y_true", "probabilities", "findings")}
    with pytest.raises(DataError, match=message):
        FindingPredictions(**(values | change))


def test_labels_know_what_is_never_present_or_never_absent():
    values = np.array([[1, 0, np.nan, 1], [0, 0, np.nan, 1], [np.nan, 0, np.nan, np.nan]])
    labels = Labels(("a", "b", "c", "d"), values, exclusive=False)
    assert labels.absent == ("b", "c", "d")
    assert labels.rows([0]).absent == ("a", "b", "c", "d")
    assert labels.labelled.sum() == 7 and labels.present.sum() == 3
    with pytest.raises(DataError, match="exactly one"):
        Labels(("a", "b"), np.array([[1.0, 1.0]]), exclusive=True)


def test_a_calibration_that_changes_nothing_is_the_sigmoid():
    logits = np.array([[-2.0, 0.0], [3.0, 50.0]])
    assert np.allclose(Calibration.identity(2).probabilities(logits), 1 / (1 + np.exp(-logits)))
