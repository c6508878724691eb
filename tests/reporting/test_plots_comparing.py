"""Figures of several runs can be read, and their curves are those of the predictions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import trapezoid
from sklearn.metrics import roc_auc_score

from helpers import figures
from helpers.models import findings
from scanbook.evaluation import METRICS, Predictions, pool
from scanbook.reporting import plots
from scanbook.reporting.plots import comparing

NAME = "a study with a long name/full/05_fine_tuning of another machine, augmentation dihedral, seed 17"


def predicted(k: int, skill: float, count: int = 200) -> Predictions:
    draw = np.random.default_rng([k, round(10 * skill)])
    y = np.arange(count) % k
    scores = np.exp(draw.normal(size=(count, k)) + skill * np.eye(k)[y])
    names = np.arange(count).astype(str)
    return Predictions(
        names, names, y, scores / scores.sum(axis=1, keepdims=True), tuple(f"class {c}" for c in range(k))
    )


def areas(runs: dict) -> dict[str, tuple[float, float, float]]:
    return {name: (METRICS["auroc"].point(one), 0.1, np.nan) for name, one in runs.items()}


@pytest.mark.parametrize("kind", ["two", "five", "findings", "mixed"])
def test_curves_of_six_runs_can_be_read(kind: str) -> None:
    skills = (0.2, 0.6, 1.0, 1.4, 1.8, 2.2)
    k = {"two": 2, "five": 5}.get(kind, 3)
    runs = {f"{NAME}{skill}": predicted(k, skill) for skill in skills}
    if kind == "findings":
        runs = {f"{NAME}{skill}": findings(skill=skill) for skill in skills}
    if kind == "mixed":
        runs["the last"] = findings(k=2)
    figure = plots.roc_of_runs(runs, areas(runs))
    figures.check(figure)
    entries = figures.legend(figure.axes[0])
    assert len(entries) == len(runs) + 1 and all(f"{areas(runs)[name][0]:.3f}" in " ".join(entries) for name in runs)
    of_classes = {name: one for name, one in runs.items() if isinstance(one, Predictions)}
    if of_classes:
        figures.check(plots.reliability_of_runs(of_classes))


def test_the_curve_is_that_whose_area_is_shown() -> None:
    two = predicted(2, 1.0)
    curve = comparing._mean_curve(two)
    assert trapezoid(curve, comparing._STEPS) == pytest.approx(
        roc_auc_score(two.y_true, two.probabilities[:, 1]), abs=0.01
    )
    for many in (predicted(4, 1.0), findings(n=2000)):
        area = METRICS["auroc"].point(many)
        assert trapezoid(comparing._mean_curve(many), comparing._STEPS) == pytest.approx(area, abs=0.01)
    scales = {"fold 1": findings(n=2000), "fold 2": findings(n=2000, seed=1)}  # the scores of one are far higher
    scales["fold 2"] = replace(scales["fold 2"], probabilities=0.5 + scales["fold 2"].probabilities / 2)
    scales["fold 2"] = replace(scales["fold 2"], image_id=[f"other {name}" for name in scales["fold 2"].image_id])
    folded = pool(scales)
    area = METRICS["auroc"].point(folded)
    assert trapezoid(comparing._mean_curve(folded), comparing._STEPS) == pytest.approx(area, abs=0.01)
    assert METRICS["auroc"].point(replace(folded, fold=None)) < area - 0.02, "in one ranking it is lower"


def test_a_run_whose_auroc_is_not_defined_says_so() -> None:
    two = predicted(2, 1.0)
    by_label = pool({name: two.subset(two.y_true == label) for label, name in enumerate(("sick", "well"))})
    assert comparing._mean_curve(by_label) is None, "no fold has images of both classes"
    runs = {"whole": two, "one class": two.subset(two.y_true == 0)}
    figure = plots.roc_of_runs(runs, {"whole": (0.8, 0.7, 0.9), "one class": (np.nan,) * 3})
    entries = ["whole\n0.800 (0.700–0.900)", "one class\nAUROC not defined", "chance: 0.500"]
    assert figures.legend(figure.axes[0]) == entries
