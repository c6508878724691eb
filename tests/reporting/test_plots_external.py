"""The figures of external validation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers import figures
from scanbook.evaluation import FindingPredictions, Predictions
from scanbook.evaluation.decision_curve import decision_curve
from scanbook.reporting import plots

COUNTS = {"internal": "103 images, 90 patients", "external": "1,600 images"}


def table(*sources: str) -> pd.DataFrame:
    values = {"accuracy": (0.8, 0.7, 0.9), "auroc": (np.nan,) * 3}
    columns = {f"{source}{end}": [row[place] for row in values.values()] for source in sources
               for place, end in enumerate(("", "_low", "_high"))}  # fmt: skip
    return pd.DataFrame(columns, index=pd.Index(list(values), name="metric"))


def predictions(n: int = 80, seed: int = 0) -> Predictions:
    draw = np.random.default_rng(seed)
    names = np.arange(n).astype(str)
    return Predictions(names, names, draw.integers(0, 3, n), draw.dirichlet(np.ones(3), n), ("a", "b", "c"))


def finding_predictions(n: int = 80, seed: int = 0) -> FindingPredictions:
    draw = np.random.default_rng(seed)
    names, p = np.arange(n).astype(str), draw.random((n, 2))
    y = (draw.random((n, 2)) < p).astype(float)
    return FindingPredictions(names, names, y, p, ("mass", "edema"))


def test_two_sources_are_drawn_with_their_values_or_that_there_is_none() -> None:
    figure = plots.two_sources(table("internal", "external"), "Metrics", "value", COUNTS)
    figures.check(figure)
    assert figures.texts(figure).count("0.800 (0.700–0.900)") == 2
    assert figures.texts(figure).count("not defined") == 2
    assert "(103 images and 1,600 images)" in figures.title(figure)
    assert figures.legend(figure) == ["internal (103 images, 90 patients)", "external (1,600 images)"]
    alone = plots.two_sources(table("external"), "Metrics", "value", COUNTS)
    assert figures.legend(alone) == ["external (1,600 images)"]
    none = plots.two_sources(table("external").loc[["auroc"]], "Metrics", "value", COUNTS)
    assert figures.texts(none) == ["Metrics: not defined"]


def test_shifts_are_drawn_against_chance() -> None:
    shifts = pd.DataFrame({"auc": [0.9, 0.52], "low": [0.8, 0.45], "high": [0.95, 0.6], "images": [300, 400]})
    figure = plots.shift_bars(shifts.set_axis(["colour and light", "prevalence"]), "Shifts")
    figures.check(figure)
    assert figures.legend(figure) == ["alike: 0.5"] and "at most 400 images" in figures.title(figure)
    assert "too few patients" in figures.texts(plots.shift_bars(shifts.iloc[:0], "Shifts"))[0]


@pytest.mark.parametrize("make", [predictions, finding_predictions])
def test_reliability_of_both_sources(make) -> None:
    figure = plots.reliability_of_sources({"internal": make(), "external": make(120, 1)}, ("mass", "edema"))
    figures.check(figure)
    entries = figures.legend(figure.axes[0])
    assert entries[0] == "perfectly calibrated" and entries[1].startswith("internal (ECE 0.")
    assert entries[2].endswith("120 images)")


def test_decision_curves_show_both_alternatives() -> None:
    draw = np.random.default_rng(0)
    positive, group = draw.random(200) < 0.3, np.arange(200)
    curve = decision_curve(positive, np.clip(0.3 * positive + draw.random(200) * 0.6, 0, 1), group, rounds=20)
    figure = plots.decision_curves({"melanoma": {"internal": curve, "external": curve}})
    figures.check(figure)
    assert {"model, internal", "treat all, external", "treat none"} <= set(figures.legend(figure))
    assert "no target" in figures.texts(plots.decision_curves({}))[0]


def test_local_labels_begin_with_none() -> None:
    rows = [
        (k, quantity, target, 0.5 - k / 400, 0.4 - k / 400, 0.6 - k / 400)
        for k in (0, 25, 100)
        for quantity, target in (("ece", ""), ("sensitivity", "mel"), ("specificity", "mel"))
    ]
    made = pd.DataFrame(rows, columns=["patients", "quantity", "target", "value", "low", "high"])
    figure = plots.local_labels(made, "mel", 0.9, 0.1)
    figures.check(figure)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["none:\nas it is", "25", "100"]
    assert "internal test images" in figures.legend(left) and "requested: 0.9" in figures.legend(right)
    assert len(plots.local_labels(made, "", 0.9, None).axes) == 1
    assert "too few" in figures.texts(plots.local_labels(made.iloc[:0], "", 0.9, None))[0]
