"""Tables of one model: every metric, every class, and the confusions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as reference

from helpers.models import simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError


def test_summary_holds_every_metric_within_its_interval():
    predictions = simulated()
    table = ev.summary(predictions, ev.OF_CLASSES, rounds=200)
    assert list(table.index) == list(ev.OF_CLASSES)
    assert list(table.columns) == ["value", "low", "high"]
    assert (table["low"] < table["high"]).all()
    inside = table.drop(index="ece")  # resampling adds noise to the bins, so that ECE is biased upwards
    assert ((inside["low"] <= inside["value"]) & (inside["value"] <= inside["high"])).all()
    accuracy = (predictions.y_pred == predictions.y_true).mean()
    assert table.loc["accuracy", "value"] == pytest.approx(accuracy)
    pd.testing.assert_frame_equal(table, ev.summary(predictions, ev.OF_CLASSES, rounds=200))
    with pytest.raises(DataError, match="'dice' is unknown"):
        ev.summary(predictions, ("dice",))


def test_per_class_equals_scikit_learn():
    predictions = simulated(seed=5)
    table = ev.per_class(predictions, rounds=100)
    expected = reference.precision_recall_fscore_support(predictions.y_true, predictions.y_pred)
    for column, values in zip(("precision", "sensitivity", "f1", "support"), expected, strict=True):
        np.testing.assert_allclose(table[column], values)
    assert tuple(table.index) == predictions.classes
    negatives = [reference.recall_score(predictions.y_true != c, predictions.y_pred != c) for c in range(3)]
    np.testing.assert_allclose(table["specificity"], negatives)
    one_vs_rest = [
        reference.average_precision_score(predictions.y_true == c, predictions.probabilities[:, c]) for c in range(3)
    ]
    np.testing.assert_allclose(table["auprc"], one_vs_rest)
    for name in ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc"):
        assert ((table[f"{name}_low"] < table[name]) & (table[name] < table[f"{name}_high"])).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), k=st.integers(2, 6), skill=st.floats(0, 2))
def test_class_report_equals_scikit_learn(seed, k, skill):
    """Also where a class is never predicted: its own precision is not defined, in the means it counts as 0."""
    random = np.random.default_rng(seed)
    classes = tuple(str(c) for c in random.permutation(12)[:k])  # not in alphabetical order
    y = np.r_[np.arange(k), random.integers(0, k, 20)]
    logits = random.normal(size=(len(y), k)) + skill * np.eye(k)[y] + random.normal(0, 1, k)
    predictions = ev.Predictions(*2 * [[f"i{i}" for i in range(len(y))]], y, softmax(logits, axis=1), classes)
    table = ev.class_report(predictions, rounds=2)
    assert tuple(table.index) == (*classes, "macro average", "weighted average")
    expected = reference.classification_report(
        y, predictions.y_pred, labels=range(k), target_names=classes, output_dict=True, zero_division=0
    )
    columns = {"precision": "precision", "sensitivity": "recall", "f1": "f1-score", "support": "support"}
    for ours, theirs in columns.items():
        rows = [expected[name][theirs] for name in (*classes, "macro avg", "weighted avg")]
        np.testing.assert_allclose(table[ours].fillna(0), rows, rtol=1e-12)
    points = {name: ev.METRICS[name].point(predictions) for name in ev.OF_CLASSES}
    assert table.loc["macro average", "sensitivity"] == pytest.approx(points["balanced_accuracy"])
    assert table.loc["weighted average", "sensitivity"] == pytest.approx(points["accuracy"])
    for mean in ("macro average", "weighted average"):
        for column in ("precision", "f1"):
            assert table.loc[mean, column] == pytest.approx(points[f"{mean.split()[0]}_{column}"])
    for column in ("auroc", "auprc"):
        assert table.loc["macro average", column] == pytest.approx(points[column])
    weighted = reference.roc_auc_score(np.eye(k)[y], predictions.probabilities, average="weighted")
    assert table.loc["weighted average", "auroc"] == pytest.approx(weighted)


def test_class_report_and_summary_share_their_intervals():
    predictions = simulated(n=200, per_group=2)
    report = ev.class_report(predictions, 100, seed=3)
    table = ev.summary(predictions, ev.metrics_for(predictions, ordered=True), 100, seed=3)
    for metric, (row, column) in {
        "balanced_accuracy": ("macro average", "sensitivity"),
        "accuracy": ("weighted average", "sensitivity"),
        "weighted_precision": ("weighted average", "precision"),
        "macro_f1": ("macro average", "f1"),
        "auprc": ("macro average", "auprc"),
    }.items():
        values = report.loc[row, [column, f"{column}_low", f"{column}_high"]]
        np.testing.assert_allclose(values.astype(float), table.loc[metric])
    pd.testing.assert_frame_equal(ev.per_class(predictions, 100, seed=3), report.iloc[:3])


def test_per_class_of_an_absent_class_is_not_defined():
    seen = simulated(k=3)
    table = ev.per_class(seen.subset(seen.y_true != 1), rounds=50)
    assert table.loc["class 1", "support"] == 0
    assert table.loc["class 1", ["sensitivity", "sensitivity_low", "auroc", "auroc_high"]].isna().all()
    assert table.drop(index="class 1").notna().all(axis=None)


def test_confusion_keeps_class_order():
    classes = ("z", "a", "m")
    y = np.array([0, 0, 1, 2, 2])
    p = np.eye(3)[[0, 1, 1, 2, 0]]
    table = ev.confusion(ev.Predictions(list("12345"), list("12345"), y, p, classes))
    assert tuple(table.index) == tuple(table.columns) == classes
    assert table.to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert (table.index.name, table.columns.name) == ("true", "predicted")
