"""Figures of what the images are like and what gives their class away."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from scanbook.reporting.plots.style import INK, WIDTH, bar, count_of, line, note, row_labels, styled, whiskers

_MOST_CLASSES = 12


@styled
def image_sizes(frame: pd.DataFrame, classes: Sequence[str]) -> Figure:
    """Widths and heights that occur, each class with its marker; markers grow with the number of images.

    Args:
        frame: one row per image, with columns label, width_px and height_px.
        classes: class names in their order; where there are more than 12, all images are one series.
    """
    if frame.empty:
        return note("Image sizes: no image")
    distinct = frame.groupby(["width_px", "height_px"]).ngroups
    if distinct == 1:
        return note(
            f"All {len(frame):,} images: {frame['width_px'].iloc[0]:.0f} × {frame['height_px'].iloc[0]:.0f} pixels"
        )
    figure, axis = plt.subplots(figsize=(WIDTH, 4))
    series = {name: frame[frame["label"] == name] for name in classes}
    if len(classes) > _MOST_CLASSES:
        series = {"all classes": frame}
    for place, (name, rows) in enumerate(series.items()):
        sizes = rows.groupby(["width_px", "height_px"]).size().reset_index(name="images")
        look = line(place)
        axis.scatter(
            sizes["width_px"],
            sizes["height_px"],
            s=24 + 260 * sizes["images"] / len(frame),
            marker=look["marker"],
            facecolors="none",
            edgecolors=look["color"],
            linewidths=1.4,
            label=f"{name} ({len(sizes):,})",
        )
    for data, margin in ((frame["width_px"], axis.set_xlim), (frame["height_px"], axis.set_ylim)):
        low, high = float(data.min()), float(data.max())
        room = max(0.08 * (high - low), 0.05 * high)
        margin(low - room, high + room)
    axis.set(xlabel="width, pixels", ylabel="height, pixels")
    axis.set_title(
        f"Image sizes ({count_of(distinct, 'size')} in {count_of(len(frame), 'image')}; larger: more images)"
    )
    axis.legend(title="class (sizes)", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@styled
def shortcut_bars(found: pd.DataFrame) -> Figure:
    """How well models tell the classes that see no picture, with intervals, against chance.

    Args:
        found: a row for what each model sees, with columns auc, low, high, images and `above chance`.
    """
    if found.empty:
        return note("Shortcuts: too few images")
    figure, axis = plt.subplots(figsize=(WIDTH, 1.2 + 0.5 * len(found)))
    rows = np.arange(len(found))
    above = found["above chance"].to_numpy(bool)
    for place, (chosen, label) in enumerate(((above, "above chance"), (~above, "not above chance"))):
        if chosen.any():
            axis.barh(rows[chosen], found["auc"][chosen], 0.6, label=label, **bar(place))
    whiskers(axis, rows, found["low"], found["high"], vertical=False)
    ends = np.fmax(found["high"], found["auc"])
    for row, end, value in zip(rows, ends, found["auc"], strict=True):
        axis.annotate(f"{value:.2f}", (end, row), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
    axis.axvline(0.5, color=INK, linestyle="--", linewidth=1.2)
    axis.annotate(
        "chance",
        (0.5, 1),
        (0, 2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        fontsize=8,
    )
    row_labels(axis, found.index)
    axis.set(xlabel="AUC, mean over classes (95 % interval)", ylabel="what the model sees", xlim=(0, 1.08))
    axis.set_title(
        f"Source shortcuts, cross-validated ({count_of(int(found['images'].max()), 'training image')})", pad=16
    )
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
