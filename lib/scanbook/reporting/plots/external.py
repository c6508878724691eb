"""Figures of external validation: two sources side by side, their shifts, decision curves, and local labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scanbook.evaluation import (
    METRICS,
    AnyPredictions,
    FindingPredictions,
    Predictions,
    finding_reliability,
    reliability,
    with_interval,
)
from scanbook.evaluation.sources import EXTERNAL, INTERNAL
from scanbook.reporting.plots import style
from scanbook.reporting.plots.names import name_of

SOURCES = (INTERNAL, EXTERNAL)
_MOST_PANELS = 4
_HEIGHT = 0.17
"""Distance of the two sources of a row from its middle."""


@style.styled
def two_sources(table: pd.DataFrame, title: str, unit: str, counts: Mapping[str, str]) -> Figure:
    """Draw values of the internal and the external images with their 95 % intervals, one row per metric or class.

    Args:
        table: Columns internal (or none) and external, each followed by its `_low` and `_high`.
        title: What is shown.
        unit: Name of the value's axis.
        counts: How many images each source has, in words.
    """
    sources = [source for source in SOURCES if source in table]
    rows, note = style.extremes(table[EXTERNAL], "rows", ("highest", "lowest"))
    shown = table.loc[rows]
    if shown[sources].isna().all(axis=None):
        return style.note(f"{title}: not defined")
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.7 + 0.5 * len(shown)))
    for index, source in enumerate(sources):
        places = np.arange(len(shown)) + (2 * index - 1) * _HEIGHT * (len(sources) - 1)
        look = style.line(index)
        style.whiskers(
            axis, places, shown[f"{source}_low"], shown[f"{source}_high"], vertical=False, colour=look["color"]
        )
        label = f"{source} ({counts[source]})"
        axis.plot(shown[source], places, look["marker"], color=look["color"], markersize=6.5, label=label)
        values = shown[[source, f"{source}_low", f"{source}_high"]].to_numpy(float)
        for place, row in zip(places, values, strict=True):
            style.label_row(axis, _in_words(*row), place)
    style.row_labels(axis, [METRICS[name].title if name in METRICS else name_of(name) for name in shown.index])
    style.split_extremes(axis, len(shown), note)
    axis.set(xlabel=f"{unit} (whiskers: 95 % interval)", ylabel=style.readable(table.index.name))
    images = " and ".join(counts[source].partition(", ")[0] for source in sources)
    axis.set_title(f"{title} ({images})\n{note}".strip())
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@style.styled
def shift_bars(table: pd.DataFrame, title: str) -> Figure:
    """Draw how well two sources can be told apart, by what; a line marks chance.

    Args:
        table: Columns auc, low, high, images; the index names what the sources are told apart by.
        title: What is shown.
    """
    if table.empty:
        return style.note(f"{title}: too few patients")
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.5 + 0.4 * len(table)))
    axis.axvline(0.5, color=style.INK, linestyle=":", linewidth=1.2, label="alike: 0.5")
    style.whiskers(axis, range(len(table)), table["low"], table["high"], vertical=False)
    axis.plot(table["auc"], range(len(table)), "o", color=style.COLOURS[0], markersize=6.5)
    for row, values in enumerate(table[["auc", "low", "high"]].to_numpy(float)):
        style.label_row(axis, _in_words(*values), row)
    style.row_labels(axis, list(table.index))
    axis.set(xlabel="AUROC of telling the source of an image (whiskers: 95 % interval)", ylabel="told by")
    axis.set_xlim(min(0.4, table["low"].min() - 0.02), 1.02)
    axis.set_title(f"{title} (at most {style.count_of(int(table['images'].max()), 'image')})")
    figure.legend(loc="outside lower center")
    return figure


@style.styled
def reliability_of_sources(predictions: Mapping[str, AnyPredictions], names: Sequence[str]) -> Figure:
    """Draw the share of correct answers over their confidence for both sources; of findings one panel for each.

    Args:
        predictions: By source, internal first.
        names: Findings to draw, at most four; not used for classes.
    """
    first = next(iter(predictions.values()))
    images = " and ".join(style.count_of(len(side), "image") for side in predictions.values())
    whose = "both sources" if len(predictions) > 1 else "external images"
    panels = list(names[:_MOST_PANELS]) if isinstance(first, FindingPredictions) else [""]
    figure, _, axes = style.panels(len(panels), 2, 5.2 if len(panels) == 1 else 4.2, 4.2 if len(panels) == 1 else 3.4)
    for axis, name in zip(axes, panels, strict=True):
        axis.plot([0, 1], [0, 1], color=style.QUIET, linestyle=":", linewidth=1.2, label="perfectly calibrated")
        for index, (source, side) in enumerate(predictions.items()):
            table = _reliability(side, name)
            if table is None:
                continue
            look = style.line(index)
            style.whiskers(axis, table["stated"], table["low"], table["high"], colour=look["color"])
            label = f"{source} (ECE {_error(side, name):.3f}, {style.count_of(int(table['count'].sum()), 'image')})"
            axis.plot(table["stated"], table["share"], label=label, **look)
        what = "probability to be present", "share with the finding"
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel=what[0] if name else "confidence of the predicted class")
        axis.set_ylabel(what[1] if name else "share of correct answers")
        axis.set_title(name_of(name) if name else f"Reliability of {whose} ({images})")
        axis.legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.85, edgecolor="none")
    if len(panels) > 1:
        style.headline(figure, f"Reliability of {whose}, by finding ({images}; whiskers: 95 % interval)")
    return figure


def _reliability(predictions: AnyPredictions, name: str) -> pd.DataFrame | None:
    if isinstance(predictions, Predictions):
        return reliability(predictions).dropna().rename(columns={"confidence": "stated", "accuracy": "share"})
    if np.isnan(predictions.y_true[:, predictions.findings.index(name)]).all():
        return None
    return finding_reliability(predictions, name).rename(columns={"probability": "stated"})


def _error(predictions: AnyPredictions, name: str) -> float:
    if isinstance(predictions, Predictions):
        return METRICS["ece"].point(predictions)
    column = [predictions.findings.index(name)]
    return float(METRICS["ece"].compute(predictions.y_true[:, column], predictions.probabilities[:, column], None)[0])


@style.styled
def decision_curves(curves: Mapping[str, Mapping[str, pd.DataFrame]]) -> Figure:
    """Draw the net benefit of acting on the model, on all images or on none, over the probability that asks for it.

    Args:
        curves: `evaluation.decision_curve` by target and source.
    """
    if not curves:
        return style.note("Decision curves: no target has positives and negatives")
    shown = dict(list(curves.items())[:_MOST_PANELS])
    figure, _, axes = style.panels(len(shown), 2, 6.4 if len(shown) == 1 else 4.6, 3.7)
    for axis, (target, sources) in zip(axes, shown.items(), strict=True):
        highest = 0.0
        for index, (source, table) in enumerate(sources.items()):
            cuts, look = table.index.to_numpy(float), style.line(index)
            style.band(axis, cuts, table["net_benefit_low"], table["net_benefit_high"], look["color"])
            axis.plot(
                cuts, table["net_benefit"], color=look["color"], linestyle=look["linestyle"], label=f"model, {source}"
            )
            treat = {"linestyle": (0, (1, 1.5)), "linewidth": 1.3, "color": look["color"], "marker": look["marker"]}
            axis.plot(cuts, table["treat_all"], **treat, markevery=10, label=f"treat all, {source}")
            highest = max(highest, float(table["net_benefit_high"].max()))
        axis.axhline(0, color=style.INK, linewidth=1.2, label="treat none")
        axis.set(xlim=(0, 1), ylim=(-0.25 * highest - 0.02, 1.08 * highest + 0.01), ylabel="net benefit, per image")
        axis.set_xlabel("probability from which one acts")
        axis.set_title(name_of(target))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8.5)
    more = f"; the first {len(shown)} of {len(curves)} targets" if len(curves) > len(shown) else ""
    style.headline(figure, f"Decision curves (bands: 95 % interval{more})")
    return figure


@style.styled
def local_labels(
    table: pd.DataFrame, target: str, specificity: float, internal_ece: float | None, unit: str = "patient"
) -> Figure:
    """Draw calibration error, and the rates of one target, over the number of patients with labels of their own source.

    Args:
        table: As `evaluation.local_labels.local_labels` gives.
        target: The target whose rates are drawn; "" for none.
        specificity: For which thresholds are chosen.
        internal_ece: Calibration error on the internal images; None where it is not known.
        unit: What is drawn: "patient", or "image" where the source names no patients.
    """
    if table.empty:
        return style.note("Local labels: too few patients to draw from")
    figure, axes = style.subplots(1, 2 if target else 1, figsize=(style.WIDTH + 1 if target else 5, 4), squeeze=False)
    counts = list(dict.fromkeys(table["patients"]))
    places = np.arange(len(counts))
    left = axes[0, 0]
    _series(left, table[table["quantity"] == "ece"], places, 0, "calibration error")
    if internal_ece is not None:
        left.axhline(internal_ece, color=style.INK, linestyle="--", linewidth=1.2, label="internal test images")
    left.set(ylabel="calibration error (ECE)", title=f"Calibration on up to {counts[-1]:,} {unit}s")
    left.set_ylim(bottom=0)
    if target:
        right, rows = axes[0, 1], table[table["target"] == target]
        for index, rate in enumerate(("sensitivity", "specificity")):
            _series(right, rows[rows["quantity"] == rate], places + 0.16 * (index - 0.5), index, rate)
        right.axhline(specificity, color=style.INK, linestyle=":", linewidth=1.2, label=f"requested: {specificity:g}")
        right.set(ylabel="share of images", title=f"Threshold chosen again: {name_of(target)}", ylim=(-0.02, 1.02))
    for axis in axes.flat:
        axis.set_xticks(places, ["none:\nas it is" if not count else f"{count:,}" for count in counts])
        axis.set_xlabel(f"local {unit}s with labels")
        axis.legend(loc="best", fontsize=8.5)
    return figure


def _series(axis: object, rows: pd.DataFrame, places: np.ndarray, index: int, label: str) -> None:
    look = style.line(index)
    style.whiskers(axis, places, rows["low"], rows["high"], colour=look["color"])
    axis.plot(places, rows["value"], label=f"{label} (whiskers: 95 % interval)" if not index else label, **look)


def _in_words(value: float, low: float, high: float) -> str:
    return "not defined" if np.isnan(value) else with_interval(value, low, high)
