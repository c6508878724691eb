"""Figures of segmentation: outlines, scores, a U-Net's training, what a classifier is shown, and two arms compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from scanbook.evaluation import Predictions, per_class, summary
from scanbook.reporting.plots.style import (
    COLOURS,
    INK,
    QUIET,
    WIDTH,
    caption,
    count_of,
    headline,
    image_grid,
    line,
    note,
    readable,
    row_labels,
    styled,
    whiskers,
)
from scanbook.segmentation import SCORES

_MOST_CURVES = 4
"""Classes beyond which the ROC figure of two arms shows the mean curve alone."""


@styled
def mask_overlays(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.generic]],
    predicted: Sequence[NDArray[np.generic]],
    titles: Sequence[str],
) -> Figure:
    """True and predicted outlines on the images.

    Args:
        images: (h, w, 3) uint8 RGB each.
        masks: (h, w) each, above 0 inside the true outline; none, or all 0, where it is not known.
        predicted: (h, w) each, above 0 inside the predicted outline.
        titles: a caption per image, such as its Dice.
    """
    if len(images) == 0:
        return note("Outlines: no image")
    figure, axes = image_grid(len(images), 5, side=1.7)
    kinds = {
        "true": {"colors": "white", "linestyles": "solid"},
        "predicted": {"colors": COLOURS[1], "linestyles": "dashed"},
    }
    outlines = {"true": masks, "predicted": predicted} if len(masks) else {"predicted": predicted}
    for place, (axis, image, text) in enumerate(zip(axes, images, titles, strict=True)):
        axis.imshow(image)
        for kind, those in outlines.items():
            _outline(axis, np.asarray(those[place]) > 0, kinds[kind])
        caption(axis, text, 30)
    handles = [
        Line2D(
            *([], []),
            color=kinds[kind]["colors"],
            linestyle=kinds[kind]["linestyles"],
            path_effects=_HALO,
            label=f"{kind} outline",
        )
        for kind in outlines
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    headline(figure, f"{' and '.join(outlines).capitalize()} outlines ({count_of(len(images), 'image')})")
    return figure


_HALO = [patheffects.withStroke(linewidth=3, foreground="black")]


def _outline(axis: Axes, mask: NDArray[np.bool_], look: dict[str, str]) -> None:
    # A border of zeros closes outlines at the image's edge; an empty mask has no outline.
    if mask.any():
        padded = np.pad(mask.astype(float), 1)
        places = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
        axis.contour(*places, padded, levels=[0.5], linewidths=1.5, **look).set_path_effects(_HALO)
        axis.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


@styled
def score_panels(tables: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Mean scores of several methods with their 95 % intervals, a panel a score.

    Args:
        tables: by the score, a key of `segmentation.SCORES`: a row a method, the same in each, with columns value, low,
            high.
        title: what is shown, and on how many images.
    """
    rows = len(next(iter(tables.values())))
    down = -(-len(tables) // 2)
    size = (WIDTH + 1, down * (0.9 + 0.32 * rows) + 0.4)
    figure, grid = plt.subplots(down, min(2, len(tables)), figsize=size, squeeze=False, sharey=True)
    for axis, (name, table) in zip(grid.flat, tables.items(), strict=False):
        whiskers(axis, range(rows), table["low"], table["high"], vertical=False)
        axis.plot(table["value"], range(rows), "o", color=COLOURS[0], markersize=6)
        for row, value in enumerate(table["value"]):
            axis.annotate(f"{value:#.3g}", (value, row), (0, 5), textcoords="offset points", ha="center", fontsize=8)
        row_labels(axis, list(table.index))
        axis.margins(x=0.12)
        axis.set(xlabel=SCORES[name])
    for axis in grid.flat[len(tables) :]:
        axis.set_visible(False)
    for axis in grid[:, 0]:
        axis.set_ylabel("method")
    headline(figure, f"{title}; whiskers: 95 % interval")
    return figure


@styled
def unet_curves(history: pd.DataFrame, images: int) -> Figure:
    """Loss and Dice of a U-Net's training by epoch, and the epoch that was kept.

    Args:
        history: a row per epoch: epoch (from 1), loss, dice, validation_loss, validation_dice.
        images: how many images it learned from.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.1))
    best = history.loc[history["validation_dice"].idxmax()]
    for axis, measure, unit in zip(axes, ("loss", "dice"), ("cross-entropy + 1 − Dice", "mean of images"), strict=True):
        for place, (kind, column) in enumerate({"training": measure, "validation": f"validation_{measure}"}.items()):
            axis.plot(history["epoch"], history[column], **line(place), label=kind)
        axis.axvline(best["epoch"], color=QUIET, linewidth=1, linestyle=":", label="best on validation")
        axis.set(xlabel="epoch", ylabel=f"{readable(measure)} ({unit})")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(measure.capitalize())
    axes[1].legend(loc="lower right")
    headline(figure, f"Training of the U-Net ({count_of(images, 'image')}, {count_of(len(history), 'epoch')})")
    return figure


@styled
def input_forms(forms: Sequence[Sequence[NDArray[np.uint8]]], names: Sequence[str]) -> Figure:
    """Images in several forms: each row an image, each column a form.

    Args:
        forms: a sequence of (h, w, 3) uint8 RGB for each image, in the order of `names`.
        names: of the forms.
    """
    if len(forms) == 0:
        return note("Forms of input: no image")
    figure, axes = image_grid(len(forms) * len(names), len(names), side=1.4, extra=0.05)
    for place, axis in enumerate(axes):
        row, column = divmod(place, len(names))
        axis.imshow(forms[row][column])
        if row == 0:
            caption(axis, names[column])
    headline(figure, f"What a classifier can be shown ({count_of(len(forms), 'image')})")
    return figure


@styled
def roc_arms(arms: Mapping[str, Predictions], rounds: int = 1000, seed: int = 0) -> Figure:
    """ROC curves of several arms side by side, with AUROC and its 95 % interval over patients.

    Of two classes the second is drawn; of a few, each against the rest and their mean; of many the mean alone, which is
    over sensitivities at equal false-positive rates.

    Args:
        arms: what each predicted for the same images, by its name.
        rounds: resamples for the intervals.
        seed: of the resamples.
    """
    figure, axes = plt.subplots(1, len(arms), figsize=(4.4 * len(arms), 4.8), sharey=True, squeeze=False)
    for axis, (name, predictions) in zip(axes.flat, arms.items(), strict=True):
        _roc(axis, predictions, rounds, seed)
        axis.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1, label="chance: 0.500")
        axis.set(xlabel="1 − specificity", xlim=(-0.02, 1), ylim=(0, 1.02), aspect="equal", title=name)
        axis.legend(title="AUROC (95 % interval)", loc="lower right", fontsize=8, title_fontsize=8.5)
    axes.flat[0].set_ylabel("sensitivity")
    count = len(next(iter(arms.values())))
    headline(figure, f"ROC curves of {count_of(len(arms), 'arm')}, the same {count_of(count, 'test image')}")
    return figure


def _roc(axis: Axes, predictions: Predictions, rounds: int, seed: int) -> None:
    steps = np.linspace(0, 1, 201)
    table = per_class(predictions, rounds, seed)
    drawn = [name for name in predictions.classes if np.isfinite(table.loc[name, "auroc"])]
    drawn = drawn[1:] if len(predictions.classes) == 2 else drawn
    curves = []
    for name in drawn:
        place = predictions.classes.index(name)
        false, true, _ = roc_curve(predictions.y_true == place, predictions.probabilities[:, place])
        curves.append(np.r_[0, np.interp(steps[1:], false, true)])
        if len(drawn) <= _MOST_CURVES:
            row = table.loc[name]
            words = f"{readable(name)}: {row['auroc']:.3f} ({row['auroc_low']:.3f} to {row['auroc_high']:.3f})"
            axis.plot(false, true, **line(place), markevery=0.1, linewidth=1.3, label=words)
    if len(curves) > 1:
        row = summary(predictions, ("auroc",), rounds, seed).loc["auroc"]
        words = f"mean of {len(curves)} classes: {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        axis.plot(steps, np.mean(curves, axis=0), color=INK, linewidth=3, label=words)
