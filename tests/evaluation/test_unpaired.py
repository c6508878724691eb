"""Differences between models on different images, and predictions without names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from helpers.models import findings
from scanbook import evaluation
from scanbook.evaluation import FindingPredictions, Predictions
from scanbook.evaluation.predictions import check_same


def wilson(hits: int, count: int) -> tuple[float, float, float]:
    ends = binomtest(hits, count).proportion_ci(method="wilson")
    return hits / count, ends.low, ends.high


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_it_is_newcombes_interval_of_two_shares(
    a: tuple[int, int], b: tuple[int, int], low: float, high: float
) -> None:
    """Table II of Newcombe (1998), method 10."""
    difference = evaluation.unpaired_difference("accuracy", wilson(*a), wilson(*b))
    assert difference.value == pytest.approx(a[0] / a[1] - b[0] / b[1])
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=6e-5)
    assert math.isnan(difference.p_value)


def test_there_is_no_interval_where_a_value_lies_outside_its_own() -> None:
    biased, usual, undefined = (0.02, 0.03, 0.06), (0.05, 0.03, 0.07), (math.nan,) * 3
    for pair in ((biased, usual), (usual, biased), (undefined, usual), ((0.5, math.nan, math.nan), usual)):
        difference = evaluation.unpaired_difference("ece", *pair)
        assert math.isnan(difference.low) and math.isnan(difference.high)
    assert evaluation.unpaired_difference("ece", biased, usual).value == pytest.approx(-0.03)


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)  # as of files
NAMES = st.lists(TEXTS.filter(str.strip), min_size=3, max_size=12, unique=True)


@given(NAMES, st.randoms(use_true_random=False))
def test_pseudonyms_do_not_depend_on_the_order_and_name_nobody(names: list[str], random: object) -> None:
    draw = np.random.default_rng(len(names))
    y, p = draw.integers(0, 2, len(names)), draw.uniform(size=len(names))
    group = [f"Dr {number // 2} Silva" for number in range(len(names))]
    whole = Predictions(names, group, y, np.stack([1 - p, p], 1), ("a", "b"))
    order = list(range(len(names)))
    random.shuffle(order)
    one, other = evaluation.pseudonymous(whole), evaluation.pseudonymous(whole.subset(order))
    check_same(one, other)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    again = evaluation.pseudonymous(one)
    check_same(one, again)
    text = one.to_frame().to_csv()
    assert "Silva" not in text and all(name.startswith("image-") and len(name) == 22 for name in one.image_id)
    for metric in ("accuracy", "brier"):
        points = [evaluation.METRICS[metric].point(each) for each in (whole, one)]
        assert points[0] == pytest.approx(points[1], nan_ok=True)
    assert len(np.unique(one.group)) == len(set(group)), "who belongs together stays"


def test_findings_keep_labels_that_are_missing(tmp_path) -> None:
    whole = findings(n=40, per_group=2)
    evaluation.pseudonymous(whole).save(tmp_path / "predictions.csv")
    kept = FindingPredictions.load(tmp_path / "predictions.csv")
    assert np.isnan(kept.y_true).sum() == np.isnan(whole.y_true).sum() > 0
    assert len(np.unique(kept.group)) == 20
    assert evaluation.summary(kept, ("auroc",), 50).loc["auroc", "value"] == pytest.approx(
        evaluation.summary(whole, ("auroc",), 50).loc["auroc", "value"]
    )
