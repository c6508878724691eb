"""Figures of several runs in one: ROC curves and reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanbook.evaluation import METRICS, AnyPredictions, FindingPredictions, Predictions, reliability, with_interval
from scanbook.reporting.plots import style
from scanbook.reporting.plots.evaluation import roc
from scanbook.reporting.plots.names import name_of, wrap

_STEPS = np.linspace(0, 1, 201)
_NAME = 68
"""Most characters of a run's name in a legend, whose lines have half as many."""


@style.styled
def roc_of_runs(runs: Mapping[str, AnyPredictions], areas: Mapping[str, Sequence[float]]) -> Figure:
    """Draw the ROC curve of each run: of two classes that of the second, else the mean over classes or findings.

    The mean is over sensitivities at equal false-positive rates. Images that lack a class have no curve; a finding that
    is never present or never absent is not in the mean.

    Args:
        runs: Predictions by the run's name; their images may differ.
        areas: AUROC of each run, with the ends of its 95 % interval.
    """
    figure, axis = style.subplots(figsize=(style.WIDTH + 1.5, 4.8))
    for index, (name, predictions) in enumerate(runs.items()):
        area = with_interval(*areas[name]) if np.isfinite(areas[name][0]) else "AUROC not defined"
        label = f"{_legend(name)}\n{area}"
        curve = _mean_curve(predictions)
        points = ([], []) if curve is None else (_STEPS, curve)
        axis.plot(*points, **style.line(index), markevery=(5 * index, 40), linewidth=1.8, label=label)
    axis.plot([0, 1], [0, 1], color=style.QUIET, linestyle=":", linewidth=1, label="chance: 0.500")
    axis.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal")
    kinds = {_kind(predictions) for predictions in runs.values()}
    what = kinds.pop() if len(kinds) == 1 else "means over classes or findings"
    axis.set_title(f"ROC curves of {style.count_of(len(runs), 'run')}: {what}")
    axis.legend(title="AUROC (95 % interval)", loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8.5)
    return figure


@style.styled
def reliability_of_runs(runs: Mapping[str, Predictions]) -> Figure:
    """Draw the share of correct answers over their confidence of each run, with 95 % intervals.

    Args:
        runs: Predictions by the run's name, of classes.
    """
    figure, axis = style.subplots(figsize=(style.WIDTH + 1.5, 4.4))
    axis.plot([0, 1], [0, 1], color=style.QUIET, linestyle=":", linewidth=1.2, label="perfectly calibrated")
    shift = 0.008  # intervals of several runs in one bin would cover each other
    for index, (name, predictions) in enumerate(runs.items()):
        table, look = reliability(predictions).dropna(), style.line(index)
        error = METRICS["ece"].point(predictions)
        place = table["confidence"] + shift * (index - (len(runs) - 1) / 2)
        style.whiskers(axis, place, table["low"], table["high"], colour=look["color"])
        label = f"{_legend(name)}\nECE {error:.3f}, {style.count_of(len(predictions), 'image')}"
        axis.plot(place, table["accuracy"], **look, label=label)
    axis.set(
        xlabel="confidence of the predicted class", ylabel="share of correct answers", xlim=(0, 1.02), ylim=(0, 1.02)
    )
    axis.set_title(f"Reliability of {style.count_of(len(runs), 'run')} (whiskers: 95 % interval)")
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8.5)
    return figure


def _legend(name: str) -> str:
    return wrap(name_of(name, _NAME), _NAME // 2)


def _kind(predictions: AnyPredictions) -> str:
    if isinstance(predictions, FindingPredictions):
        return f"mean of {style.count_of(len(predictions.findings), 'finding')}"
    if len(predictions.classes) == 2:
        return f"{name_of(predictions.classes[1])} against {name_of(predictions.classes[0])}"
    return f"mean of {len(predictions.classes)} classes, each against the rest"


def _mean_curve(predictions: AnyPredictions) -> NDArray[np.float64] | None:
    """Return sensitivities at `_STEPS` of false-positive rates; None where the AUROC is not defined."""
    columns = range(len(predictions.names))
    if isinstance(predictions, FindingPredictions):
        truths = [predictions.y_true[:, column] for column in columns]
    elif predictions.absent:
        return None
    else:
        truths = [(predictions.y_true == column).astype(float) for column in columns]
        columns = columns[1:] if len(columns) == 2 else columns
    curves = []
    for column in columns:
        curve = roc(truths[column], predictions.probabilities[:, column], predictions.fold, _STEPS)
        if curve is not None:
            curves.append(np.r_[0, np.interp(_STEPS[1:], *curve)])
    return np.mean(curves, axis=0) if curves else None
