"""Figures of findings can be read with few and with many, and show the numbers of the tables."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from helpers import figures
from helpers.models import findings
from scanbook import evaluation
from scanbook.reporting import plots

COUNTS = (3, 14, 41)
DRAWN = ("finding_bars", "reliability", "answers", "co_errors", "coverage", "subgroups", "robustness", "roc", "arms")


@cache
def sample(k: int, labels: int = 0):
    names = tuple(f"finding {c}" if c else "a finding_with a rather long name, and $signs$" for c in range(k))
    return findings(n=300, k=k, labels=labels, names=names, prevalence=0.15, per_group=2)


@cache
def points(k: int):
    return evaluation.finding_points(sample(k, 1), sample(k), rounds=10)


def curves(k: int) -> pd.DataFrame:
    rows = [
        {"kind": kind, "severity": severity, "images": 30, "auroc": 0.8 - 0.02 * severity, "low": 0.6, "high": 0.9}
        | {f"auroc: {name}": 0.7 for name in sample(k).findings}
        for kind in ("noise", "jpeg")
        for severity in range(6)
    ]
    return pd.DataFrame(rows)


@cache
def drawn(name: str, k: int):
    test, title = sample(k), "Fine-tuned, 300 test images"
    values = np.where(np.arange(300) % 2, "film", "digital")
    return {
        "finding_bars": lambda: plots.finding_bars(evaluation.finding_report(test, 10), title),
        "reliability": lambda: plots.finding_reliability_diagrams(test, test),
        "answers": lambda: plots.finding_answers(evaluation.finding_errors(test, points(k)), title),
        "co_errors": lambda: plots.co_errors(evaluation.co_errors(test, points(k)), 300),
        "coverage": lambda: plots.finding_coverage(
            evaluation.finding_coverage_curve(test, points(k), 10),
            title,
            evaluation.finding_abstention(test, points(k), 10).loc[evaluation.MACRO],
        ),
        "subgroups": lambda: plots.finding_subgroup_bars(evaluation.finding_subgroups(test, values, 10), title),
        "robustness": lambda: plots.finding_robustness(curves(k)),
        "roc": lambda: plots.roc_curves(test, 10),
        "arms": lambda: plots.roc_arms({"frozen": test, "fine-tuned": test}, 10),
    }[name]()


@pytest.mark.parametrize("k", COUNTS)
@pytest.mark.parametrize("name", DRAWN)
def test_figure_can_be_read(name, k):
    figures.check(drawn(name, k))


def test_few_findings_all_have_a_row_or_panel_and_of_many_the_title_says_which():
    labels = [text.get_text() for text in drawn("finding_bars", 14).axes[0].get_yticklabels()]
    assert len(labels) == 15 and labels[-1] == "macro average"
    assert "of 41 findings" in figures.title(drawn("finding_bars", 41))
    for name in ("reliability", "subgroups"):
        assert sum(axis.get_visible() for axis in drawn(name, 3).axes) == 3
        assert sum(axis.get_visible() for axis in drawn(name, 41).axes) == 12
        assert "the 12 most frequent of 41 findings" in figures.title(drawn(name, 41))
    assert "first 40 of 41" in figures.title(drawn("co_errors", 41))
    assert "41 findings" in figures.title(drawn("roc", 41))


def test_figures_show_the_numbers_of_their_tables():
    test, report = sample(3), evaluation.finding_report(sample(3), 10)
    areas = [f"{value:.3f}" for value in report["auroc"]]
    assert [text for text in figures.texts(drawn("finding_bars", 3)) if text in areas] == areas
    errors = evaluation.finding_errors(test, points(3))
    assert f"{errors['true_negatives'].iloc[0]:,}" in figures.texts(drawn("answers", 3))
    row = report.loc["macro average"]
    mean = f"mean of 3 findings: {row['auroc']:.3f} ({row['auroc_low']:.3f}–{row['auroc_high']:.3f})"
    assert mean in figures.legend(drawn("roc", 3).axes[0])
    entry = f"finding 1 (n = {report.at['finding 1', 'positives']}): {report.at['finding 1', 'auroc']:.3f}"
    assert any(text.startswith(entry) for text in figures.legend(drawn("roc", 3).axes[0]))
    assert figures.legend(drawn("robustness", 3)) == ["one finding", "macro AUROC"]
    share = evaluation.co_errors(test, points(3)).iloc[0, 1]
    assert f"{share:.0%}" in figures.texts(drawn("co_errors", 3))


def test_a_finding_may_have_the_name_of_the_mean():
    test = findings(n=100, names=("macro average", "NA", "p_x"))
    rows = drawn_rows(plots.finding_bars(evaluation.finding_report(test, 5), "100 images"))
    assert [row.split(" (")[0] for row in rows] == ["macro average", "NA", "p x", "macro average"]


def drawn_rows(figure):
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_findings_that_are_never_present_are_not_drawn_as_zero():
    y = sample(3).y_true.copy()
    y[:, 0], y[:, 1] = np.nan, np.where(np.isnan(y[:, 1]), np.nan, 0)
    test = evaluation.FindingPredictions(
        sample(3).image_id, sample(3).group, y, sample(3).probabilities, sample(3).findings
    )
    chosen = evaluation.finding_points(sample(3, 1), test, rounds=5)
    assert figures.texts(plots.finding_bars(evaluation.finding_report(test, 5), "3 images")).count("not defined") == 4
    answers = figures.texts(plots.finding_answers(evaluation.finding_errors(test, chosen), "3 images"))
    assert sum("no image" in text for text in answers) == 3
    assert len(figures.legend(plots.roc_curves(test, 5).axes[0])) == 2, "one curve, and chance"
    figures.check(plots.finding_reliability_diagrams(test, test))
    nothing = evaluation.FindingPredictions(
        test.image_id, test.group, np.full(y.shape, np.nan), test.probabilities, test.findings
    )
    assert "no finding is labelled" in figures.texts(plots.finding_reliability_diagrams(nothing, nothing))[0]


def test_a_value_without_an_interval_is_written_alone():
    test = findings(n=60, k=2)
    alone = evaluation.FindingPredictions(
        test.image_id, ["one patient"] * 60, test.y_true, test.probabilities, test.findings
    )
    labels = [text.get_text() for text in plots.roc_curves(alone, rounds=5).axes[0].get_legend().get_texts()]
    gap = evaluation.Difference("auroc", 0.1, np.nan, np.nan, np.nan)
    figure = plots.difference_plot({"rare": gap}, "AUROC")
    labels += [text.get_text() for text in figure.axes[0].texts]
    assert "+0.100" in labels and not [label for label in labels if "nan" in label]


def test_predictive_values_without_an_interval_are_written():
    columns = {"ppv": 1.0, "ppv_low": np.nan, "ppv_high": np.nan, "npv": 0.5, "npv_low": 0.25, "npv_high": 0.75}
    table = pd.DataFrame(columns, index=pd.Index([0.1, 0.5], name="prevalence"))
    labels = figures.legend(plots.prevalence_curve(table, "8 test images", 0.2))
    assert labels[0].endswith("at 20%: 100.0%") and labels[1].endswith("at 20%: 50.0% (25.0% to 75.0%)")


def test_a_subgroup_of_few_images_says_so():
    table = evaluation.finding_subgroups(sample(3), np.where(np.arange(300) < 9, "few", "many"), 5)
    shown = figures.texts(plots.finding_subgroup_bars(table, "By size, 300 test images"))
    assert shown.count("too few images") == 3 and "not defined" not in shown
    nothing = plots.finding_subgroup_bars(table.xs(slice("few", "few"), level="subgroup", drop_level=False), "By size")
    assert {axis.get_xlim() for axis in nothing.axes if axis.get_visible()} == {(0, 1)}, "no AUROC is below 0"


def test_a_metric_that_is_compared_alone_has_its_title():
    figure = plots.difference_plot({"auroc": evaluation.Difference("auroc", 0.1, 0.0, 0.2, 0.5)}, "10 test images")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["macro AUROC"]


def test_numbers_of_small_differences_do_not_touch():
    figure = plots.difference_plot(
        {"a finding of a long name": evaluation.Difference("auroc", 0.0, 0.0, 0.0, 1.0)}, "8 images"
    )
    FigureCanvasAgg(figure).draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels() if label.get_visible()]
    inside = [box for box in boxes if box.width]
    assert len(inside) > 2 and all(left.x1 < right.x0 for left, right in pairwise(inside))


def test_lines_of_a_caption_stay_lines():
    image = np.zeros((4, 4, 3), np.uint8)
    captions = ["true edema\npredicted edema 0.69", "true a finding of a long name\npredicted none present"]
    shown = [axis.get_title() for axis in plots.montage([image] * 2, captions).axes]
    assert shown == [captions[0], "true a finding of a\nlong name\npredicted none present"]


def test_a_heat_map_without_evidence_says_so():
    images, maps = [np.zeros((8, 8, 3), np.uint8)] * 2, np.stack([np.zeros((8, 8)), np.eye(8)])
    assert figures.texts(plots.heat_maps(images, maps, ["edema present", "mass present"])) == ["no evidence for it"]
