"""Two models of findings: DeLong per finding, Holm's correction over findings, and differences over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.models import findings, simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError
from scanbook.evaluation.paired import delong


def test_delong_of_a_finding_is_that_of_its_labelled_images():
    a, b = findings(seed=0, skill=2, per_group=2), findings(seed=1, skill=1, per_group=2)
    table = ev.comparison(a, b, rounds=50)
    for name in a.findings:
        expected = delong(a.binary(name), b.binary(name), "present")
        row = table.loc[f"AUROC of {name} (DeLong)"]
        assert row["p_value"] == expected.p_value and row["low"] == expected.low and row["difference"] == expected.value
        areas = [ev.METRICS["auroc"].point(model.binary(name)) for model in (a, b)]
        assert row["difference"] == pytest.approx(areas[0] - areas[1])
    assert table.loc["auroc":"hamming", "p_holm"].isna().all()
    tests = table.iloc[-3:]
    np.testing.assert_allclose(tests["p_holm"], ev.holm(tests["p_value"]))
    assert (tests["p_holm"] >= tests["p_value"]).all()
    macro = table.loc["auroc", "difference"]
    assert macro == pytest.approx(tests["difference"].mean())
    assert ev.paired_difference(a, b, rounds=50).metric == "auroc"
    assert ev.paired_difference(a, b, rounds=50).value == pytest.approx(macro)


def test_holm_equals_statsmodels():
    # statsmodels.stats.multitest.multipletests([0.01, 0.04, 0.03, 0.005, 0.5], method="holm")
    np.testing.assert_allclose(ev.holm([0.01, 0.04, 0.03, 0.005, 0.5]), [0.04, 0.09, 0.09, 0.025, 0.5])
    np.testing.assert_allclose(ev.holm([0.6, np.nan, 0.7]), [1, np.nan, 1])
    assert ev.holm([]).shape == (0,) and np.isnan(ev.holm([np.nan])).all()


def test_a_finding_without_positives_has_no_test_and_does_not_count_in_the_correction():
    a, b = findings(seed=0), findings(seed=1, skill=0.5)
    y = a.y_true.copy()
    y[:, 0] = np.where(np.isnan(y[:, 0]), np.nan, 0)
    a, b = (ev.FindingPredictions(m.image_id, m.group, y, m.probabilities, m.findings) for m in (a, b))
    table = ev.comparison(a, b, rounds=20)
    assert table.loc["AUROC of finding 0 (DeLong)"].isna().all()
    two = table.iloc[-2:]
    np.testing.assert_allclose(two["p_holm"], ev.holm(two["p_value"]))
    assert np.isfinite(table.loc["auroc", "difference"])


def test_models_of_other_labels_are_not_compared():
    a = findings()
    with pytest.raises(DataError, match="findings differ"):
        ev.paired_difference(a, findings(names=("a", "b", "c")))
    with pytest.raises(DataError, match="y_true of row"):
        ev.paired_difference(a, findings(labels=1))
    with pytest.raises(DataError, match="classes, the other findings"):
        ev.paired_difference(a, simulated())


def test_findings_over_seeds():
    models = {seed: findings(seed=seed) for seed in range(3)}
    table = ev.over_seeds(models)
    values = [ev.summary(model, ("auroc",), rounds=5).at["auroc", "value"] for model in models.values()]
    assert table.at["auroc", "mean"] == pytest.approx(np.mean(values))
    assert table.at["auroc", "sd"] == pytest.approx(np.std(values, ddof=1))
    others = [findings(seed=seed, skill=0.3) for seed in (5, 6)]
    difference = ev.difference_over_seeds(list(models.values()), others, rounds=100)
    assert difference.clear and difference.value > 0
