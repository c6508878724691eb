"""Figures of robustness: what corruptions do to an image, and to the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scanbook.reporting.plots.style import COLOURS, INK, WIDTH, caption, count_of, headline, readable, styled

_TITLES = {"jpeg": "JPEG"}


@styled
def corruption_preview(examples: Mapping[str, Sequence[NDArray[np.uint8]]]) -> Figure:
    """One image as each corruption leaves it: a row a corruption, from as it is to most severe.

    Args:
        examples: by kind, the image at each severity from 0, (h, w, 3) uint8 RGB.
    """
    across = max(map(len, examples.values()))
    size = (1.2 * across + 0.3, 1.22 * len(examples) + 0.5)
    figure, grid = plt.subplots(len(examples), across, figsize=size, squeeze=False)
    for row, (kind, images) in enumerate(examples.items()):
        for column, (axis, image) in enumerate(zip(grid[row], images, strict=True)):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[])
            axis.grid(visible=False)
            axis.spines[:].set_visible(False)
            if row == 0:
                caption(axis, f"severity {column}" if column else "as it is")
        grid[row, 0].set_ylabel(_title(kind))
    headline(figure, f"{count_of(len(examples), 'corruption')} at {across - 1} severities")
    return figure


@styled
def robustness_curves(frame: pd.DataFrame) -> Figure:
    """Accuracy against the severity of each corruption, with its 95 % interval; dashed, accuracy on images as they are.

    Args:
        frame: a row per kind and severity: kind, severity (from 0), accuracy, low, high, images.
    """
    kinds = list(dict.fromkeys(frame["kind"]))
    figure, axes = plt.subplots(1, len(kinds), figsize=(WIDTH + 1.5, 2.9), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        part = frame[frame["kind"] == kind].sort_values("severity")
        axis.fill_between(part["severity"], part["low"], part["high"], color=COLOURS[0], alpha=0.22, linewidth=0)
        axis.plot(part["severity"], part["accuracy"], color=COLOURS[0], marker="o")
        axis.axhline(part["accuracy"].iloc[0], color=INK, linestyle="--", linewidth=1)
        axis.set_title(_title(kind))
        axis.set(xlabel="severity", xticks=part["severity"].tolist())
    axes[0, 0].set_ylabel("accuracy, share of images")
    count = count_of(int(frame["images"].iloc[0]), "image")
    headline(figure, f"Accuracy by severity of corruption ({count}; band: 95 % interval; dashed: as they are)")
    return figure


def _title(kind: str) -> str:
    return _TITLES.get(kind, readable(kind).capitalize())
