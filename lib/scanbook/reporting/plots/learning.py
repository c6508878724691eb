"""Figures of training: learning curves and what augmentation does to the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scanbook.reporting.plots.style import (
    INK,
    WIDTH,
    bar,
    caption,
    count_of,
    headline,
    image_grid,
    line,
    note,
    readable,
    styled,
)

_LEGEND = 44
"""Most characters of a name, of which two stand side by side below a figure."""


@styled
def learning_curves(histories: Mapping[str, pd.DataFrame], x: Literal["epoch", "seconds"] = "epoch") -> Figure:
    """Loss and accuracy of several training runs, training thin and validation thick.

    Args:
        histories: one frame per run, a row per epoch: epoch (from 1), loss, accuracy, validation_loss,
            validation_accuracy, seconds (since training began).
        x: what to lay the curves over; "seconds" compares what a run cost.
    """
    names = [f"{name} ({count_of(len(history), 'epoch')})" for name, history in histories.items()]
    across = 2 if max(map(len, names), default=0) <= _LEGEND else 1
    rows = -(-(len(names) + 2) // across)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH + 1, 3.1 + 0.2 * rows))
    for axis, measure, unit in zip(axes, ("loss", "accuracy"), ("cross-entropy, nats", "share of images"), strict=True):
        for place, history in enumerate(histories.values()):
            look = line(place)
            # A single epoch makes no line: only its marker, hollow for training, shows.
            thin = look | {"linewidth": 0.8, "markerfacecolor": "white", "marker": "" if len(history) > 1 else "o"}
            axis.plot(history[x], history[measure], **thin)
            few = max(1, len(history) // 10)
            axis.plot(history[x], history[f"validation_{measure}"], **look, linewidth=2.2, markevery=few)
        axis.set(xlabel="epoch" if x == "epoch" else "training time, s", ylabel=f"{measure} ({unit})")
        axis.set_title(measure.capitalize())
    if x == "epoch":
        for axis in axes:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles = [Line2D([], [], **line(place), linewidth=2.2, label=name) for place, name in enumerate(names)]
    handles += [
        Line2D([], [], color=INK, linewidth=0.8, label="thin or hollow: training"),
        Line2D([], [], color=INK, linewidth=2.2, label="thick or filled: validation"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=across)
    headline(
        figure, f"Learning curves by {'epoch' if x == 'epoch' else 'training time'} ({count_of(len(histories), 'run')})"
    )
    return figure


@styled
def policy_preview(
    originals: Sequence[NDArray[np.uint8]],
    augmented: Sequence[Sequence[NDArray[np.uint8]]],
    title: str = "Augmentation",
) -> Figure:
    """What a policy makes of some training images: each row an original and its draws.

    Args:
        originals: n images, (h, w, 3) uint8 RGB.
        augmented: n sequences of m images, the draws from each original.
        title: the policy's name.
    """
    if len(originals) == 0:
        return note(f"{title}: no image")
    draws = len(augmented[0])
    figure, axes = image_grid(len(originals) * (draws + 1), draws + 1, side=1.3, extra=0.05)
    for row, (original, drawn) in enumerate(zip(originals, augmented, strict=True)):
        for column, image in enumerate([original, *drawn]):
            axis = axes[row * (draws + 1) + column]
            axis.imshow(image)
            if row == 0:
                caption(axis, "original" if column == 0 else f"draw {column}")
    headline(figure, f"{title}: {len(originals)} training images, {draws} draws of each")
    return figure


@styled
def mixed_batch(
    images: NDArray[np.uint8], shares: NDArray[np.floating], classes: Sequence[str], title: str = "Mixed images"
) -> Figure:
    """Images of a batch that mixup or cutmix made, each with what remains of its classes.

    Args:
        images: (m, h, w, 3) uint8 RGB.
        shares: (m, k) share of each class in each label.
        classes: k names.
        title: which policy.
    """
    captions = []
    for row in shares:
        order = np.argsort(-row, kind="stable")
        captions.append(" + ".join(f"{row[k]:.2f} {readable(classes[k])}" for k in order if row[k] >= 0.005))
    figure, axes = image_grid(len(images), 6, extra=0.45)
    for axis, image, text in zip(axes, images, captions, strict=True):
        axis.imshow(image)
        caption(axis, text, 20)
    headline(figure, f"{title} ({count_of(len(images), 'image')} of one batch, with the shares of their labels)")
    return figure


@styled
def parameter_distributions(frame: pd.DataFrame, title: str = "Drawn augmentation parameters") -> Figure:
    """How often augmentation drew what.

    Args:
        frame: one row per draw, one column per parameter (its name ends with its unit, "rotation_degrees"); numbers are
            shown as histograms, yes-or-no and names as shares.
        title: which policy.
    """
    across = min(len(frame.columns), 3)
    down = -(-len(frame.columns) // across)
    figure, grid = plt.subplots(down, across, figsize=(across * 2.8, down * 2.1 + 0.3), squeeze=False)
    for axis, column in zip(grid.flat, frame.columns, strict=False):
        values = frame[column]
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            weights = np.full(len(values), 100 / len(values))
            axis.hist(values, bins=24, weights=weights, **(bar(0) | {"edgecolor": "white"}))
            axis.locator_params(axis="x", nbins=5)
        else:
            shares = values.astype(str).value_counts(normalize=True).sort_index() * 100
            axis.bar_label(axis.bar(shares.index, shares, **bar(0)), fmt="%.0f", fontsize=8)
            axis.margins(y=0.12)
        axis.set(xlabel=readable(column), ylabel="draws, %")
    for axis in grid.flat[len(frame.columns) :]:
        axis.set_visible(False)
    headline(figure, f"{title} (n = {len(frame):,} draws)")
    return figure
