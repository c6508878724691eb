"""Images that lack a class: no metric of all classes is given, and none is 1.000 or empty."""

from __future__ import annotations

import numpy as np
import pytest

from scanbook import evaluation as ev
from scanbook.evaluation import METRICS, OF_CLASSES, Predictions

OF_IMAGES = {"brier", "ece"}
"""Metrics that are means over images, whatever their classes."""


def predicted(labels: list[int], classes: int, seed: int = 0) -> Predictions:
    """Predictions that are right for every image."""
    rng = np.random.default_rng(seed)
    y = np.repeat(labels, 12)
    probabilities = rng.dirichlet(np.ones(classes), len(y)) * 0.2
    probabilities[np.arange(len(y)), y] += 0.8
    names = [f"i{number}" for number in range(len(y))]
    return Predictions(names, names, y, probabilities, tuple("abcd"[:classes]))


@pytest.mark.parametrize(("labels", "classes"), [([0], 2), ([1], 2), ([0, 2], 3), ([1], 3), ([0, 1, 2], 4)])
def test_no_metric_of_all_classes_is_given_where_one_has_no_image(labels: list[int], classes: int) -> None:
    predictions = predicted(labels, classes)
    assert predictions.absent == tuple("abcd"[label] for label in range(classes) if label not in labels)
    table = ev.summary(predictions, OF_CLASSES, rounds=20)
    defined = set(table.index[table.notna().all(axis=1)])
    assert defined == OF_IMAGES and table.drop(index=list(OF_IMAGES)).isna().all(axis=None)
    for name in OF_CLASSES:
        assert np.isnan(METRICS[name].point(predictions)) == (name not in OF_IMAGES)
    report = ev.class_report(predictions, rounds=20)
    assert report.loc[["macro average", "weighted average"]].drop(columns="support").isna().all(axis=None)
    assert (report.loc[[predictions.classes[label] for label in labels], "sensitivity"] == 1).all()
    assert report.loc[list(predictions.absent), "sensitivity"].isna().all()
    alone = [predictions.classes[label] for label in labels] if len(labels) == 1 else []
    trivial = report.loc[[*predictions.absent, *alone], ["precision", "f1", "auroc", "auprc"]]
    assert trivial.isna().all(axis=None), "0 or 1 whatever the model predicts"
    seeds = ev.over_seeds({0: predictions, 1: predictions}, ("accuracy", "auroc", "brier"))
    assert seeds["mean"].isna().tolist() == [True, True, False]


def test_with_every_class_nothing_changes() -> None:
    predictions = predicted([0, 1, 2], 3)
    assert predictions.absent == () and ev.summary(predictions, OF_CLASSES, rounds=20).notna().all(axis=None)


def test_models_are_not_compared_by_metrics_of_classes_that_have_no_image() -> None:
    a, b = predicted([0, 2], 3), predicted([0, 2], 3, seed=1)
    difference = ev.paired_difference(a, b, "accuracy", rounds=20)
    assert np.isnan([difference.value, difference.low, difference.p_value]).all() and not difference.clear
    assert "cannot be compared: accuracy is not defined" in difference.sentence("a", "b")
    assert not np.isnan(ev.paired_difference(a, b, "accuracy", rounds=20, every_class=False).value)
    table = ev.comparison(a, b, ("accuracy", "auroc", "brier"), rounds=20)
    assert table.loc[["accuracy", "auroc", "accuracy (McNemar)", "AUROC of b (DeLong)"]].isna().all(axis=None)
    assert np.isfinite(table.loc["brier", "difference"])
    assert np.isnan(ev.difference_over_seeds([a], [b], "auroc", rounds=20).value)


def test_a_class_without_validation_or_test_images_has_no_operating_point() -> None:
    full, part = predicted([0, 1, 2], 3), predicted([0, 2], 3)
    row = ev.targets_table(part, full, rounds=20).loc["b"]
    assert row.drop(["positives", "prevalence"]).isna().all()
    row = ev.targets_table(full, part, rounds=20).loc["b"]
    assert np.isfinite(row["threshold"]) and row[["sensitivity", "ppv", "npv"]].isna().all()


def test_subgroups_say_how_many_classes_they_have() -> None:
    predictions = predicted([0, 1, 2], 3)
    table = ev.subgroups(predictions, np.where(predictions.y_true < 2, "x", "y"), rounds=20)
    assert table.loc["x", "classes"].tolist() == [2, 2] and table.loc["y", "classes"].tolist() == [1, 1]
    assert np.isnan(table.loc[("y", "auroc"), "value"])
