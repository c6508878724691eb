"""Predictions of several folds: ranks and thresholds are those of each fold, other metrics are of all images."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from helpers.models import findings, simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.paired import delong
from scanbook.evaluation.targets import choose_threshold

OF_CLASSES, OF_FINDINGS = partial(simulated, n=400, per_group=2), partial(findings, n=400, per_group=2)


def in_folds(predictions: ev.AnyPredictions, count: int = 4) -> ev.AnyPredictions:
    """The same predictions, the groups of which are divided into folds."""
    number = np.unique(predictions.group, return_inverse=True)[1] % count
    return ev.pool({f"fold {place}": predictions.subset(number == place) for place in range(count)})


def shifted(predictions: ev.FindingPredictions) -> ev.FindingPredictions:
    """The same ranks in each fold, on scales that differ between the folds."""
    shift = 3.0 * np.unique(predictions.fold, return_inverse=True)[1]
    return replace(predictions, probabilities=expit(logit(predictions.probabilities) + shift[:, None]))


@pytest.mark.parametrize("make", [OF_CLASSES, OF_FINDINGS])
def test_ranks_are_means_over_the_folds_and_other_metrics_are_of_all_images(make):
    pooled = in_folds(make())
    names = [str(name) for name in np.unique(pooled.fold)]
    parts = [replace(pooled.subset(pooled.fold == name), fold=None) for name in names]
    table, whole = ev.summary(pooled, rounds=20), ev.summary(replace(pooled, fold=None), rounds=20)
    for metric in table.index:
        of_parts = np.mean([ev.summary(part, [metric], rounds=2)["value"].iloc[0] for part in parts])
        if metric in ("auroc", "auprc"):
            assert table.loc[metric, "value"] == pytest.approx(of_parts, abs=1e-12)
        else:
            wider = table.loc[metric], whole.loc[metric]
            assert wider[0]["value"] == wider[1]["value"]
            ratio = np.divide(*(row["high"] - row["low"] for row in wider))
            assert ratio == pytest.approx((1 + 4 / 3) ** 0.5), metric
    report = ev.class_report(pooled, 20) if isinstance(pooled, ev.Predictions) else ev.finding_report(pooled, 20)
    assert report.loc["macro average", "auroc"] == pytest.approx(table.loc["auroc", "value"])
    assert report.loc["macro average", "auroc_low"] == pytest.approx(table.loc["auroc", "low"])


def test_intervals_over_folds_hold_the_truth_where_there_is_nothing_to_learn():
    held = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        y, x = np.repeat([0, 1], 60), random.standard_normal((120, 20))
        fold = random.permutation(60)[np.tile(np.arange(60), 2)] % 5  # equal classes in each fold
        score = np.empty(120)
        for number in range(5):
            train = fold != number
            score[~train] = x[~train] @ ((2 * y[train] - 1) @ x[train])  # the direction between the classes' means
        p = expit(score / 20)
        name = np.arange(120).astype(str)
        predictions = ev.Predictions(name, name, y, np.column_stack([1 - p, p]), ("a", "b"), fold.astype(str))
        row = ev.summary(predictions, ["auroc"], rounds=200, seed=seed).loc["auroc"]
        held += row["low"] <= 0.5 <= row["high"]
    assert held >= 89


def test_no_end_of_a_wider_interval_is_a_value_that_the_metric_cannot_have():
    for make in (OF_CLASSES, OF_FINDINGS):
        table = ev.summary(in_folds(make(skill=30.0, n=40)), rounds=50)
        assert (table["low"] >= 0).all() and (table["high"] <= 1).all() and (table["low"] <= table["high"]).all()


def test_images_of_one_fold_have_the_interval_of_one_model_and_repeats_count_as_one():
    group = np.arange(20)
    assert ev.widening(group, None) == ev.widening(group, ["1"] * 20) == 1
    assert ev.widening(group, group % 5) == pytest.approx(1.5)
    assert ev.widening(np.tile(group, 2), np.r_[group % 5, 5 + group // 4]) == pytest.approx(1.5)
    assert ev.widening(group, group % 2) == pytest.approx(3**0.5)


def test_scales_that_differ_between_folds_change_no_rank_but_would_if_pooled():
    pooled = in_folds(OF_FINDINGS(skill=2.0))
    other = shifted(pooled)
    assert ev.METRICS["auroc"].point(other) == pytest.approx(ev.METRICS["auroc"].point(pooled), abs=1e-12)
    mixed = [ev.METRICS["auroc"].point(replace(model, fold=None)) for model in (pooled, other)]
    assert mixed[1] < mixed[0] - 0.1


def test_each_fold_has_the_threshold_of_its_own_validation_images():
    validation, test = shifted(in_folds(OF_FINDINGS(labels=1))), shifted(in_folds(OF_FINDINGS(seed=2)))
    points = ev.finding_points(validation, test, specificity=0.8, rounds=20)
    called = np.zeros(test.probabilities.shape, bool)
    for name in np.unique(test.fold):
        own = replace(validation.subset(validation.fold == name), fold=None)
        alone = ev.finding_points(own, replace(test.subset(test.fold == name), fold=None), specificity=0.8, rounds=2)
        assert (points[f"threshold, {name}"] == alone["threshold"]).all()
        assert (points[f"margin, {name}"] == alone["margin"]).all()
        called[test.fold == name] = test.probabilities[test.fold == name] >= alone["threshold"].to_numpy()
    lacking = validation.y_true.copy()
    lacking[validation.fold == "fold 1", 0] = 0  # in this fold finding 0 has no threshold, so no answer
    without = ev.finding_points(replace(validation, y_true=lacking), test, specificity=0.8, rounds=2)
    answered, present = (test.fold != "fold 1"), test.y_true[:, 0] == 1
    errors = ev.finding_errors(test, without).loc["finding 0"]
    assert errors["true_positives"] + errors["false_negatives"] == (answered & present).sum()
    shares = ev.co_errors(test, without)
    assert shares.loc["finding 0", "finding 0"] == pytest.approx(without.loc["finding 0", "sensitivity"])
    positive = test.y_true == 1
    np.testing.assert_allclose(points["sensitivity"], (called & positive).sum(axis=0) / positive.sum(axis=0))
    errors = ev.finding_errors(test, points)
    assert (errors["true_positives"] == (called & positive).sum(axis=0)).all()
    assert 0 < ev.finding_abstention(test, points, rounds=20).loc[ev.MACRO, "coverage"] < 1
    wrong = ev.confident(test, "finding 0", points, correct=False, count=400)
    assert set(wrong) == set(np.flatnonzero((called != positive)[:, 0] & ~np.isnan(test.y_true[:, 0])))


def test_thresholds_of_classes_are_those_of_the_folds():
    validation, test = in_folds(OF_CLASSES(labels=1)), in_folds(OF_CLASSES(seed=2))
    table = ev.targets_table(validation, test, {"either": ["class 0", "class 1"]}, rounds=20)
    called = np.zeros(len(test), bool)
    for name in np.unique(test.fold):
        own = validation.fold == name
        score, truth = validation.probabilities[own][:, :2].sum(axis=1), validation.y_true[own] < 2
        assert table.loc["either", f"threshold, {name}"] == choose_threshold(truth, score)
        inside = test.fold == name
        called[inside] = test.probabilities[inside][:, :2].sum(axis=1) >= choose_threshold(truth, score)
    assert table.loc["either", "sensitivity"] == pytest.approx(called[test.y_true < 2].mean())
    threshold = ev.chosen_for(test, table.loc[["either"]], "threshold")[:, 0]
    curve = ev.prevalence_curve(test, ["class 0", "class 1"], threshold, rounds=20)
    assert len(curve) and curve["ppv"].between(0, 1).all()
    below = ev.of_images(ev.choose_by_fold(validation, test, lambda images: ev.abstain_below(images, 0.8)), test)
    answered = ev.abstention(test, below, rounds=20)
    assert answered.loc["coverage", "images"] == 400 and answered.loc["coverage", "value"] == pytest.approx(
        0.8, abs=0.1
    )
    with pytest.raises(DataError, match="no validation images: expected the predictions of the same folds"):
        ev.targets_table(validation.subset(validation.fold != "fold 2"), test)


@given(st.integers(0, 2**16), st.integers(2, 5))
@settings(max_examples=10, deadline=None)
def test_one_fold_is_no_fold(seed, count):
    a, b = OF_CLASSES(n=120, seed=seed), OF_CLASSES(n=120, seed=seed + 1)
    one_a, one_b = ev.pool({"all": a}), ev.pool({"all": b})
    assert ev.comparison(a, b, rounds=20).equals(ev.comparison(one_a, one_b, rounds=20))
    assert ev.class_report(a, 20).equals(ev.class_report(one_a, 20))
    pooled = in_folds(a, count)
    order = np.random.default_rng(seed).permutation(len(a))
    again = ev.comparison(pooled.subset(order), in_folds(b, count).subset(order), rounds=5)
    np.testing.assert_allclose(
        again["difference"], ev.comparison(pooled, in_folds(b, count), rounds=5)["difference"], atol=1e-12
    )


def test_delong_over_folds_agrees_with_the_bootstrap_and_counts_repeats_once():
    a, b = in_folds(OF_FINDINGS(n=1200, skill=1.2, seed=4)), in_folds(OF_FINDINGS(n=1200, skill=1.0, seed=5))
    test = delong(a, b, "finding 1")
    resampled = ev.paired_difference(a, b, "auroc", rounds=10)  # of all findings: another figure, the same folds
    assert resampled.metric == "auroc"
    column = [
        ev.FindingPredictions(m.image_id, m.group, m.y_true[:, 1:2], m.probabilities[:, 1:2], ("f",), m.fold)
        for m in (a, b)
    ]
    bootstrap = ev.paired_difference(*column, "auroc", rounds=2000)
    assert test.value == pytest.approx(bootstrap.value, abs=1e-12)
    assert test.high - test.low == pytest.approx(bootstrap.high - bootstrap.low, rel=0.1)
    twice = [
        ev.pool(
            {
                f"{name}, repeat {r}": replace(m.subset(m.fold == name), fold=None)
                for r in (1, 2)
                for name in np.unique(m.fold)
            }
        )
        for m in (a, b)
    ]
    repeated = delong(*twice, "finding 1")
    assert repeated.value == pytest.approx(test.value)
    assert repeated.high - repeated.low == pytest.approx(test.high - test.low, rel=1e-9), "repeats add no patients"
    reports = [ev.finding_report(model, rounds=50) for model in (a, twice[0])]
    for name in ("auroc", "auroc_low", "brier", "ece"):
        np.testing.assert_allclose(*(report[name] for report in reports), err_msg=name)


def test_folds_are_kept_in_files_and_compared_only_with_the_same(tmp_path):
    for make in (OF_CLASSES, OF_FINDINGS):
        pooled = in_folds(make(n=40))
        pooled.save(tmp_path / "p.csv")
        again = ev.load_predictions(tmp_path / "p.csv")
        assert (again.fold == pooled.fold).all() and (again.probabilities == pooled.probabilities).all()
        with pytest.raises(DataError, match="one model is cross-validated, the other is not"):
            ev.paired_difference(pooled, replace(pooled, fold=None))
    with pytest.raises(DataError, match="occurs twice"):
        replace(in_folds(OF_CLASSES(n=40)), image_id=["i0"] * 40)
    with pytest.raises(DataError, match="there are no folds to pool"):
        ev.pool({})
    with pytest.raises(DataError, match="classes differ"):
        ev.pool({"1": OF_CLASSES(n=40), "2": OF_CLASSES(n=40, classes=("x", "y", "z"))})
