"""Figures of training: learning curves, and the effect of augmentation on the images."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator
from numpy.typing import NDArray

from scanbook.evaluation import METRICS, LearningCurve
from scanbook.reporting.plots import style
from scanbook.reporting.plots.names import name_of

_UPRIGHT_NAMES = 4
"""Most names that fit below a panel's bars; more are written beside bars that lie."""
_PANEL = 30
"""Most characters on a line below a panel."""
_LEGEND = 44
"""Most characters of a name of which two fit side by side below a figure."""


@style.styled
def learning_curves(histories: Mapping[str, pd.DataFrame], x: Literal["epoch", "seconds"] = "epoch") -> Figure:
    """Draw loss and accuracy of several training runs, training thin and validation thick.

    Args:
        histories: One frame per run with one row per epoch: epoch (from 1), loss, accuracy, validation_loss,
            validation_accuracy, seconds (since training began).
        x: The horizontal axis; "seconds" compares the time of the runs.
    """
    names = [f"{name} ({style.count_of(len(history), 'epoch')})" for name, history in histories.items()]
    columns = 2 if max(map(len, names), default=0) <= _LEGEND else 1
    rows = -(-(len(names) + 2) // columns)
    figure, axes = style.subplots(1, 2, figsize=(style.WIDTH + 1, 3.1 + 0.2 * rows))
    for axis, measure, unit in zip(axes, ("loss", "accuracy"), ("cross-entropy, nats", "share of labels"), strict=True):
        for index, history in enumerate(histories.values()):
            look = style.line(index)
            # a single epoch makes no line: only its marker, hollow for training, is visible
            thin = look | {"linewidth": 0.8, "markerfacecolor": "white", "marker": "" if len(history) > 1 else "o"}
            axis.plot(history[x], history[measure], **thin)
            every = max(1, len(history) // 10)
            axis.plot(history[x], history[f"validation_{measure}"], **look, linewidth=2.2, markevery=every)
        axis.set(xlabel="epoch" if x == "epoch" else "training time, s", ylabel=f"{measure} ({unit})")
        axis.set_title(measure.capitalize())
        if x == "epoch":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    handles = [Line2D([], [], **style.line(index), linewidth=2.2, label=name) for index, name in enumerate(names)]
    handles += [
        Line2D([], [], color=style.INK, linewidth=0.8, label="thin or hollow: training"),
        Line2D([], [], color=style.INK, linewidth=2.2, label="thick or filled: validation"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
    scale = "epoch" if x == "epoch" else "training time"
    style.headline(figure, f"Learning curves by {scale} ({style.count_of(len(histories), 'run')})")
    return figure


@style.styled
def patient_curves(curves: Mapping[str, Mapping[str, LearningCurve]], unit: str = "patients", seed: int = 0) -> Figure:
    """Draw metrics over the number of training patients: each draw, the fitted curve and its prediction for twice.

    Args:
        curves: `evaluation.fit_curve` by network and metric.
        unit: What is counted.
        seed: Seed of the prediction intervals.
    """
    metrics = list(dict.fromkeys(metric for of_metrics in curves.values() for metric in of_metrics))
    figure, _, axes = style.panels(len(metrics), 2, (style.WIDTH + 1) / 2, 3.6)
    handles = []
    for index, (name, of_metrics) in enumerate(curves.items()):
        look = style.line(2 * index)
        own, dashed = {"color": look["color"]}, {"linestyle": (0, (5, 2))}
        for metric, curve in of_metrics.items():
            axis, last = axes[metrics.index(metric)], int(curve.sizes[-1])
            line = curve.predict(np.unique(np.geomspace(curve.sizes[0], 2 * last, 40).astype(np.int64)), seed)
            style.band(axis, line.index, line["low"], line["high"], look["color"])
            within = line.index <= last
            axis.plot(line.index[within], line.loc[within, "value"], **own)
            axis.plot(line.index[~within], line.loc[~within, "value"], **own, **dashed)
            for scores in curve.scores:
                axis.plot(curve.sizes[:-1], scores[:-1], look["marker"], **own, markersize=4, markerfacecolor="white")
            axis.plot(last, curve.scores[0, -1], look["marker"], **own, markersize=8)
            twice = line.iloc[-1]
            style.whiskers(axis, [line.index[-1]], [twice["low"]], [twice["high"]])
            axis.plot(line.index[-1], twice["value"], "D", **own, markersize=7, markerfacecolor="white")
        handles.append(Line2D([], [], **own, marker=look["marker"], label=f"{name}: fitted curve"))
    for axis, metric in zip(axes, metrics, strict=True):
        axis.set_xscale("log")
        ends = [(curve[metric].sizes[0], 2 * curve[metric].sizes[-1]) for curve in curves.values() if metric in curve]
        low, high = min(first for first, _ in ends), max(last for _, last in ends)
        ticks = sorted({int(low), *(int(high / 2**step) for step in range(8) if high / 2**step > 1.3 * low)})
        style.plain_ticks(axis.xaxis, FixedLocator(ticks))
        axis.set(xlabel=f"training {unit} (logarithmic)", ylabel=METRICS[metric].title)
    plain = {"color": style.INK, "linestyle": "none", "marker": "o"}
    handles += [
        Line2D([], [], **plain, markersize=4, markerfacecolor="white", label="small and hollow: one random draw"),
        Line2D([], [], **plain, markersize=8, label=f"large and filled: all {unit}, this report's network"),
        Line2D([], [], **(plain | {"marker": "D"}), markersize=7, markerfacecolor="white", label="diamond: predicted"),
        Line2D([], [], color=style.QUIET, linewidth=6, alpha=0.4, label="band, whiskers: 95 % prediction interval"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    shapes = {curve.scores.shape for of_metrics in curves.values() for curve in of_metrics.values()}
    repeats, sizes = max(shapes)
    style.headline(
        figure, f"Same test images, more training {unit} ({sizes} sizes, {style.count_of(repeats, 'draw')} of each)"
    )
    return figure


@style.styled
def policy_preview(
    originals: Sequence[NDArray[np.uint8]],
    augmented: Sequence[Sequence[NDArray[np.uint8]]],
    title: str = "Augmentation",
) -> Figure:
    """Draw the effect of a policy on some training images: in each row an original and its augmented samples.

    Args:
        originals: n RGB images `(h, w, 3)`, uint8.
        augmented: n sequences of m images, the samples of each original.
        title: The policy's name.
    """
    if len(originals) == 0:
        return style.note(f"{title}: no image")
    count = len(augmented[0])
    rows = [[original, *samples] for original, samples in zip(originals, augmented, strict=True)]
    figure = style.image_table(rows, ["original", *(f"sample {number}" for number in range(1, count + 1))])
    style.headline(figure, f"{title}: {len(originals)} training images, {count} samples of each")
    return figure


@style.styled
def mixed_batch(
    images: NDArray[np.uint8], shares: NDArray[np.floating], names: Sequence[str], title: str = "Mixed images"
) -> Figure:
    """Draw images of a batch mixed by mixup or cutmix, each with the shares of its classes or findings.

    Args:
        images: RGB images `(m, h, w, 3)`, uint8.
        shares: `(m, k)`, share of each class or finding in each label; NaN (not labelled) is excluded.
        names: k names.
        title: Which policy.
    """
    figure, axes = style.image_grid(len(images), 6, extra=0.45)
    for axis, image, row in zip(axes, images, shares, strict=True):
        order = np.argsort(-row, kind="stable")
        axis.imshow(image)
        parts = [f"{row[k]:.2f} {name_of(names[k])}" for k in order if row[k] >= 0.005]
        style.caption(axis, " + ".join(parts) or "no finding known to be present", 20)
    style.headline(
        figure, f"{title} ({style.count_of(len(images), 'image')} of one batch, with the shares of their labels)"
    )
    return figure


@style.styled
def parameter_distributions(frame: pd.DataFrame, title: str = "Sampled augmentation parameters") -> Figure:
    """Draw how often augmentation sampled which value.

    Args:
        frame: One row per sample, one column per parameter (its name ends with its unit, "rotation_degrees"); numbers
            are shown as histograms, without samples that have none (NaN); yes-or-no and names as shares.
        title: Which policy.
    """
    figure, _, axes = style.panels(len(frame.columns), 3, 2.8, 2.1)
    for axis, column in zip(axes, frame.columns, strict=True):
        values, label = frame[column].dropna(), textwrap.fill(style.readable(column), _PANEL)
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            weights = np.full(len(values), 100 / len(values))
            axis.hist(values, bins=24, weights=weights, **(style.bar(0) | {"edgecolor": "white"}))
            axis.locator_params(axis="x", nbins=4)
        else:
            shares = values.astype(str).value_counts(normalize=True).sort_index() * 100
            if len(shares) > _UPRIGHT_NAMES:
                _lying_bars(axis, shares, label)
                continue
            axis.bar_label(axis.bar(shares.index, shares, **style.bar(0)), fmt="%.0f", fontsize=8)
            axis.margins(y=0.12)
        of = "samples" if len(values) == len(frame) else f"of {style.count_of(len(values), 'sample')}"
        axis.set(xlabel=label, ylabel=f"{of}, %")
    style.headline(figure, f"{title} (n = {len(frame):,} samples)")
    return figure


def _lying_bars(axis: Axes, shares: pd.Series, label: str) -> None:
    """Draw the share of each name, in percent, from top to bottom."""
    bars = axis.barh(shares.index[::-1], shares[::-1], **style.bar(0))
    axis.bar_label(bars, fmt="%.0f", fontsize=5.5, padding=1)
    axis.tick_params(axis="y", labelsize=5.5)
    axis.margins(x=0.12, y=0.01)
    axis.set(xlabel="samples, %", ylabel=label)
