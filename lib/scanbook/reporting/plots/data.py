"""Figures of the images themselves: how many, of what kind, with which flaws."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanbook.reporting.plots.style import (
    COLOURS,
    INK,
    WHITE,
    WIDTH,
    bar,
    caption,
    count_of,
    headline,
    image_grid,
    note,
    readable,
    row_labels,
    styled,
)

_PARTS = ("train", "validation", "test", "")
_LEVELS = ", levels of 0 to 255"
_UNITS = dict.fromkeys(("brightness", "contrast", "saturation", "red_minus_blue", "green_minus_magenta"), _LEVELS)
_UNITS["sharpness"] = ", log10 of the Laplacian's variance"


@styled
def class_counts(frame: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Images of each class in each part.

    Args:
        frame: one row per image, with columns label, part and group (a manifest's frame).
        classes: class names in their order.
    """
    counts = pd.crosstab(frame["label"], frame["split"]).reindex(index=list(classes), fill_value=0)
    splits = [split for split in _PARTS if split in counts.columns]
    height = 0.8 / max(len(splits), 1)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.8 + len(classes) * max(0.34, 0.22 * len(splits))))
    for place, split in enumerate(splits):
        rows = np.arange(len(classes)) - 0.4 + height * (place + 0.5)
        label = f"{split or 'in no part'} ({counts[split].sum():,})"
        bars = axis.barh(rows, counts[split], height, label=label, **bar(place))
        axis.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)
    row_labels(axis, classes)
    axis.margins(x=0.1)
    axis.set(xlabel="images", ylabel="class")
    groups = count_of(frame["group"].nunique(), "group")
    axis.set_title(f"Images per class and part ({count_of(len(frame), 'image')} in {groups})")
    if splits != [""]:
        axis.legend(title="split", loc="best")
    return figure


@styled
def montage(
    images: Sequence[NDArray[np.uint8]], titles: Sequence[str], columns: int = 6, title: str = "Examples"
) -> Figure:
    """Images side by side, each with its caption.

    Args:
        images: (h, w, 3) uint8 RGB each.
        titles: a caption per image.
        columns: images a row.
        title: what the images have in common.
    """
    if len(images) == 0:
        return note(f"{title}: no image")
    figure, axes = image_grid(len(images), columns, extra=0.16 + 0.1 * max(len(text) // 24 + 1 for text in titles))
    for axis, image, text in zip(axes, images, titles, strict=True):
        axis.imshow(image)
        caption(axis, text)
    headline(figure, f"{title} ({count_of(len(images), 'image')})")
    return figure


@styled
def flagged(images: Sequence[NDArray[np.uint8]], captions: Sequence[str]) -> Figure:
    """Images that the quality checks flagged, each with the reason.

    Args:
        images: (h, w, 3) uint8 RGB each.
        captions: name and reason of each.
    """
    return montage(images, captions, title="Flagged by the quality checks")


@styled
def image_statistics(frame: pd.DataFrame, columns: Sequence[str], classes: Sequence[str]) -> Figure:
    """Distributions of measured properties of the images by class, one panel a property.

    Args:
        frame: one row per image, with column label and the numeric `columns`; a name ends with its unit, "width_px".
        columns: properties to show.
        classes: class names in their order.
    """
    across = min(len(columns), 2)
    down = -(-len(columns) // across)
    size = (WIDTH * across / 2 + 1, down * (0.9 + 0.32 * len(classes)) + 0.3)
    figure, grid = plt.subplots(down, across, figsize=size, squeeze=False, sharey=True)
    for axis, column in zip(grid.flat, columns, strict=False):
        _violins(axis, frame, column, classes)
        axis.set_xlabel(readable(column) + _UNITS.get(column, ""))
    for axis in grid.flat[len(columns) :]:
        axis.set_visible(False)
    for axis in grid[:, 1:].flat:
        axis.set_ylabel("")
    headline(figure, f"Image statistics by class ({count_of(len(frame), 'image')}; dashes: quartiles)")
    return figure


@styled
def numeric_by_class(frame: pd.DataFrame, column: str, classes: Sequence[str]) -> Figure:
    """Distribution of one number, such as age, in each class, with how many images have it.

    Args:
        frame: one row per image, with columns label and `column` (numeric, NaN where missing).
        column: what to show; its name ends with its unit, "age_years".
        classes: class names in their order.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1 + 0.42 * len(classes)))
    known = frame[column].notna()
    _violins(axis, frame[known], column, classes)
    counts = frame.loc[known, "label"].value_counts()
    row_labels(axis, [f"{name} (n = {counts.get(name, 0):,})" for name in classes])
    axis.set_title(
        f"{readable(column).capitalize()} by class (known for {known.sum():,} of {count_of(len(frame), 'image')}; "
        "dashes: quartiles)"
    )
    return figure


@styled
def category_by_class(frame: pd.DataFrame, column: str, classes: Sequence[str]) -> Figure:
    """Shares of the values of one attribute, such as sex or camera, in each class.

    Args:
        frame: one row per image, with columns label and `column`; a missing value is shown as "not recorded".
        column: the attribute.
        classes: class names in their order.
    """
    values = frame[column].astype(object).where(frame[column].notna(), "not recorded").astype(str)
    counts = pd.crosstab(frame["label"], values).reindex(index=list(classes), fill_value=0)
    counts = counts[counts.sum().sort_values(ascending=False, kind="stable").index]
    totals = counts.sum(axis=1)
    shares = counts.div(totals.clip(lower=1), axis=0) * 100
    figure, axis = plt.subplots(figsize=(WIDTH, 1.1 + 0.42 * len(classes)))
    left = np.zeros(len(classes))
    for place, value in enumerate(counts.columns):
        bars = axis.barh(range(len(classes)), shares[value], left=left, height=0.7, label=value, **bar(place))
        words = [f"{share:.0f}" if share >= 6 else "" for share in shares[value]]
        for text in axis.bar_label(bars, words, label_type="center", fontsize=8):
            if text.get_text():
                text.set_bbox(WHITE)
        left += shares[value].to_numpy()
    row_labels(axis, [f"{name} (n = {totals[name]:,})" for name in classes])
    axis.set(xlabel="share of the class's images, %", ylabel="class", xlim=(0, 100))
    axis.set_title(f"{readable(column).capitalize()} by class ({count_of(len(frame), 'image')})")
    axis.legend(title=readable(column), loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _violins(axis: Axes, frame: pd.DataFrame, column: str, classes: Sequence[str]) -> None:
    import seaborn as sns  # slow to import, and only violins need it

    sns.violinplot(
        frame,
        x=column,
        y="label",
        order=list(classes),
        ax=axis,
        orient="h",
        cut=0,
        density_norm="width",
        inner="quart",
        color=COLOURS[5],
        linecolor=INK,
        linewidth=1,
    )
    row_labels(axis, classes)
    axis.set(xlabel=readable(column), ylabel="class")
