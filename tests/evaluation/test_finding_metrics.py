"""Metrics of findings equal scikit-learn's on the labelled images; their intervals are over patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from helpers.models import findings, simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError


def known(sample, column):
    rows = ~np.isnan(sample.y_true[:, column])
    return sample.y_true[rows, column], sample.probabilities[rows, column]


def binary_ece(y, p):
    total = 0.0
    for b in range(15):
        inside = (p > b / 15) & (p <= (b + 1) / 15)
        total += abs(y[inside].sum() - p[inside].sum()) / len(y)
    return total


REFERENCE = {
    "auroc": reference.roc_auc_score,
    "auprc": reference.average_precision_score,
    "brier": reference.brier_score_loss,
    "ece": binary_ece,
}


def test_macro_metrics_are_the_means_of_scikit_learns_values_of_each_finding():
    sample = findings(k=4)
    table, report = ev.summary(sample, rounds=50), ev.finding_report(sample, rounds=50)
    assert tuple(table.index) == ev.metrics_for(sample) == (*REFERENCE, "exact_match", "hamming")
    assert tuple(report.index) == (*sample.findings, "macro average")
    for name, metric in REFERENCE.items():
        values = [metric(*known(sample, column)) for column in range(4)]
        np.testing.assert_allclose(report[name][:-1], values)
        assert table.at[name, "value"] == pytest.approx(np.mean(values)) == report.at["macro average", name]
        row = report.loc["macro average", [name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        np.testing.assert_allclose(row, table.loc[name])
    labelled = ~np.isnan(sample.y_true)
    wrong = labelled & ((sample.probabilities >= 0.5) != (sample.y_true == 1))
    some = labelled.any(axis=1)
    assert table.at["hamming", "value"] == pytest.approx(wrong.sum() / labelled.sum())
    assert table.at["exact_match", "value"] == pytest.approx(1 - wrong[some].any(axis=1).mean())
    assert report.at["macro average", "positives"] == (sample.y_true == 1).sum()
    assert report.loc[sample.findings[0], ["positives", "negatives", "not_labelled"]].sum() == len(sample)


def test_exact_match_and_hamming_equal_scikit_learn_where_all_is_labelled():
    sample = findings(missing=0)
    called = sample.probabilities >= 0.5
    table = ev.summary(sample, ("exact_match", "hamming"), rounds=20)["value"]
    assert table["exact_match"] == pytest.approx(reference.accuracy_score(sample.y_true, called))
    assert table["hamming"] == pytest.approx(reference.hamming_loss(sample.y_true, called))


def test_an_image_without_a_label_has_no_weight_in_any_metric():
    sample = findings(n=200)
    blind = ev.FindingPredictions(
        [*sample.image_id, "blind"],
        [*sample.group, "another"],
        np.vstack([sample.y_true, np.full(3, np.nan)]),
        np.vstack([sample.probabilities, np.full(3, 0.9)]),
        sample.findings,
    )
    first, second = (ev.summary(each, rounds=5)["value"] for each in (sample, blind))
    np.testing.assert_allclose(first, second)


def test_a_finding_without_positives_leaves_the_means_and_says_so():
    sample = findings(k=3)
    y = sample.y_true.copy()
    y[:, 1] = np.where(np.isnan(y[:, 1]), np.nan, 0)
    y[:, 2] = np.nan
    rare = ev.FindingPredictions(sample.image_id, sample.group, y, sample.probabilities, sample.findings)
    report, table = ev.finding_report(rare, rounds=20), ev.summary(rare, rounds=20)
    assert rare.absent == sample.findings[1:]
    assert table.at["auroc", "value"] == pytest.approx(report.at[sample.findings[0], "auroc"])
    assert report.loc[sample.findings[1], ["auroc", "auroc_low", "auprc", "auprc_high"]].isna().all()
    assert np.isfinite(report.at[sample.findings[1], "brier"])
    assert report.loc[sample.findings[2]].drop(["positives", "negatives", "not_labelled", "patients"]).isna().all()
    points = ev.finding_points(rare, rare, rounds=20)
    assert points.loc[list(sample.findings[1:]), ["threshold", "margin", "sensitivity", "ppv"]].isna().all(axis=None)
    assert ev.finding_abstention(rare, points, rounds=20).loc[sample.findings[2]].isna().all()
    assert np.isfinite(ev.finding_abstention(rare, points, rounds=20).loc["macro average"]).all()


def test_intervals_by_patient_are_wider_than_by_image_where_visits_are_alike():
    patients = findings(n=150, missing=0.1)
    rows = np.repeat(np.arange(150), 4)  # every visit is like the first
    names = [f"i{i}" for i in range(600)]
    sample = ev.FindingPredictions(
        names, patients.group[rows], patients.y_true[rows], patients.probabilities[rows], patients.findings
    )
    alone = ev.FindingPredictions(
        sample.image_id, sample.image_id, sample.y_true, sample.probabilities, sample.findings
    )
    by_patient, by_image = (ev.summary(each, ("auroc", "brier"), rounds=300) for each in (sample, alone))
    np.testing.assert_allclose(by_patient["value"], by_image["value"])
    wide, narrow = (table["high"] - table["low"] for table in (by_patient, by_image))
    assert ((wide > 1.7 * narrow) & (wide < 2.4 * narrow)).all(), "twice as wide: a quarter of the images"
    report = ev.finding_report(sample, rounds=20)
    holders = {group for group, y in zip(sample.group, sample.y_true[:, 0], strict=True) if y == 1}
    assert report.at[sample.findings[0], "patients"] == len(holders)


def test_metrics_of_the_other_kind_are_refused_in_one_line():
    with pytest.raises(DataError, match="'accuracy' is not defined for findings: expected one of auroc, auprc"):
        ev.summary(findings(), ("accuracy",))
    with pytest.raises(DataError, match="'hamming' is not defined for classes"):
        ev.summary(simulated(), ("hamming",))
    assert ev.main_metric(findings()) == "auroc" and ev.main_metric(simulated()) == "accuracy"


def test_subgroups_show_each_finding():
    sample = findings(n=300)
    values = np.where(np.arange(300) < 295, np.where(np.arange(300) % 2, "film", "digital"), "other")
    table = ev.subgroups(sample, values, rounds=20)
    assert list(table.index.unique("metric")) == ["auroc", "auprc"] and (table.loc["film", "findings"] == 3).all()
    assert table.loc["other", "value"].isna().all()
    each = ev.finding_subgroups(sample, values, rounds=20)
    assert tuple(each.index.unique("finding")) == sample.findings
    rows = values == "film"
    for column, name in enumerate(sample.findings):
        y, p = known(sample.subset(rows), column)
        assert each.loc[(name, "film"), "auroc"] == pytest.approx(reference.roc_auc_score(y, p))
        assert each.loc[(name, "film"), "positives"] == y.sum()
    assert table.loc[("film", "auroc"), "value"] == pytest.approx(each.xs("film", level="subgroup")["auroc"].mean())
    assert each.xs("other", level="subgroup")["auroc"].isna().all()


def test_no_interval_is_claimed_where_all_images_with_a_finding_are_of_one_patient():
    y = np.zeros((60, 2))
    y[4:6, 0], y[::3, 1] = 1, 1
    group = [f"patient {row // 2}" for row in range(60)]
    p = np.random.default_rng(0).uniform(0.01, 0.4, y.shape) + 0.5 * y
    test = ev.FindingPredictions([f"{row}" for row in range(60)], group, y, p, ("rare", "frequent"))
    report, points = ev.finding_report(test, rounds=50), ev.finding_points(test, test, rounds=50)
    assert report.at["rare", "patients"] == 1 and report.at["rare", "auroc"] > 0.9
    assert report.loc["rare", ["auroc_low", "auroc_high", "auprc_low", "auprc_high"]].isna().all()
    assert (
        report.loc[["frequent", "macro average"]].notna().all(axis=None) and report.loc["rare", "brier":].notna().all()
    )
    abstention = ev.finding_abstention(test, points, rounds=50)
    for rates in (points, abstention):
        assert rates.loc["rare", ["sensitivity", "specificity"]].notna().all()
        assert rates.loc["rare", ["sensitivity_low", "sensitivity_high"]].isna().all()
        assert rates.loc["rare", ["specificity_low", "specificity_high"]].notna().all()
        assert rates.loc["frequent"].notna().all()
    assert points.loc["rare", ["ppv_low", "ppv_high", "npv_low", "npv_high"]].isna().all()
    subgroups = ev.finding_subgroups(test, ["all"] * 60, rounds=50)
    assert np.isnan(subgroups.at[("rare", "all"), "auroc_low"])
