"""Figures of segmentation: outlines, scores, the training of a U-Net, and the inputs of a classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from scanbook.reporting.plots import style
from scanbook.segmentation import SCORES

_OUTLINES = {"true": ("white", "solid"), "predicted": (style.COLOURS[1], "dashed")}
"""Colour and dash of each kind of outline."""
_HALO = [patheffects.withStroke(linewidth=3, foreground="black")]


@style.styled
def mask_overlays(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.generic]],
    predicted: Sequence[NDArray[np.generic]],
    titles: Sequence[str],
) -> Figure:
    """Draw true and predicted outlines on the images.

    Args:
        images: RGB images `(h, w, 3)`, uint8.
        masks: `(h, w)` each, above 0 inside the true outline; none, or all 0, where it is not known.
        predicted: `(h, w)` each, above 0 inside the predicted outline.
        titles: A caption per image, such as its Dice.
    """
    if len(images) == 0:
        return style.note("Outlines: no image")
    figure, axes = style.image_grid(len(images), 5, side=1.7)
    outlines = {"true": masks, "predicted": predicted} if len(masks) else {"predicted": predicted}
    for index, (axis, image, text) in enumerate(zip(axes, images, titles, strict=True)):
        axis.imshow(image)
        for kind, of_images in outlines.items():
            _outline(axis, np.asarray(of_images[index]) > 0, *_OUTLINES[kind])
        style.caption(axis, text, 30)
    handles = []
    for kind in outlines:
        colour, dash = _OUTLINES[kind]
        handles.append(Line2D([], [], color=colour, linestyle=dash, path_effects=_HALO, label=f"{kind} outline"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    style.headline(figure, f"{' and '.join(outlines).capitalize()} outlines ({style.count_of(len(images), 'image')})")
    return figure


def _outline(axis: Axes, mask: NDArray[np.bool_], colour: str, dash: str) -> None:
    # a border of zeros closes outlines at the image's edge; an empty mask has no outline
    if mask.any():
        columns, rows = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
        look = {"levels": [0.5], "linewidths": 1.5, "colors": colour, "linestyles": dash}
        axis.contour(columns, rows, np.pad(mask.astype(float), 1), **look).set_path_effects(_HALO)
        axis.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


@style.styled
def score_panels(tables: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Draw mean scores of several methods with their 95 % intervals, one panel per score.

    Args:
        tables: By the score, a key of `segmentation.SCORES`: one row per method, the same in each, with columns value,
            low, high.
        title: What is shown, and on how many images.
    """
    rows = len(next(iter(tables.values())))
    figure, grid, axes = style.panels(len(tables), 2, style.WIDTH / 2 + 0.5, 0.9 + 0.32 * rows, sharey=True)
    for axis, (name, table) in zip(axes, tables.items(), strict=True):
        style.whiskers(axis, range(rows), table["low"], table["high"], vertical=False)
        axis.plot(table["value"], range(rows), "o", color=style.COLOURS[0], markersize=6)
        for row, value in enumerate(table["value"]):
            axis.annotate(f"{value:#.3g}", (value, row), (0, 5), textcoords="offset points", ha="center", fontsize=8)
        style.row_labels(axis, list(table.index))
        axis.margins(x=0.12)
        axis.set(xlabel=SCORES[name])
    for axis in grid[:, 0]:
        axis.set_ylabel("method")
    style.headline(figure, f"{title}; whiskers: 95 % interval")
    return figure


@style.styled
def unet_curves(history: pd.DataFrame, images: int) -> Figure:
    """Draw loss and Dice of a U-Net's training by epoch, and the epoch that was kept.

    Args:
        history: One row per epoch: epoch (from 1), loss, dice, validation_loss, validation_dice.
        images: Number of training images.
    """
    figure, axes = style.subplots(1, 2, figsize=(style.WIDTH, 3.1))
    best = history.loc[history["validation_dice"].idxmax()]
    for axis, measure, unit in zip(axes, ("loss", "dice"), ("cross-entropy + 1 − Dice", "mean of images"), strict=True):
        for index, (split, column) in enumerate({"training": measure, "validation": f"validation_{measure}"}.items()):
            axis.plot(history["epoch"], history[column], **style.line(index), label=split)
        axis.axvline(best["epoch"], color=style.QUIET, linewidth=1, linestyle=":", label="best on validation")
        axis.set(xlabel="epoch", ylabel=f"{style.readable(measure)} ({unit})")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(measure.capitalize())
    axes[1].legend(loc="lower right")
    style.headline(
        figure, f"Training of the U-Net ({style.count_of(images, 'image')}, {style.count_of(len(history), 'epoch')})"
    )
    return figure


@style.styled
def input_forms(forms: Sequence[Sequence[NDArray[np.uint8]]], names: Sequence[str]) -> Figure:
    """Draw the inputs that a classifier can get: one row per image, one column per form.

    Args:
        forms: RGB images `(h, w, 3)`, uint8, of each image, in the order of `names`.
        names: Of the forms.
    """
    if len(forms) == 0:
        return style.note("Inputs of the classifier: no image")
    figure = style.image_table(forms, names, side=1.4)
    style.headline(figure, f"Inputs of the classifier ({style.count_of(len(forms), 'image')})")
    return figure
