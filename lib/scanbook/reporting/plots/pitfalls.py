"""Figures of what mistakes are worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from scanbook.inspection.pitfalls import Row
from scanbook.reporting.plots import style

_LINEAR = 0.1
"""Difference up to which the axis is linear: most are small, and some are of another order."""
_TICKS = (-1, -0.3, -0.1, -0.05, 0, 0.05, 0.1, 0.3, 1)


@style.styled
def worth_of_mistakes(rows: Sequence[Row], title: str) -> Figure:
    """Draw by how much each mistake changes its figure, with 95 % intervals; hollow where within noise.

    Args:
        rows: One for each mistake; those that are not measured have no place.
        title: On how many images.
    """
    measured = [row for row in rows if row.measured]
    if not measured:
        return style.note(f"{title}: no mistake can be measured")
    figure, axis = style.subplots(figsize=(style.WIDTH + 2, 1.5 + 0.36 * len(measured)))
    axis.axvline(0, color=style.INK, linewidth=1.2)
    low, high = (np.array([getattr(row, end) for row in measured]) for end in ("low", "high"))
    style.whiskers(axis, range(len(measured)), low, high, vertical=False)
    for place, row in enumerate(measured):
        marker, fill = ("o", style.COLOURS[0]) if row.clear else ("s", "white")
        axis.plot(row.difference, place, marker, color=style.COLOURS[0], markerfacecolor=fill, markersize=6.5)
        text = f"{row.published:.3f} − {row.honest:.3f} = {row.difference:+.3f}".replace("-", "−")
        style.label_row(axis, text, place)
    reach = max(1.1 * np.nanmax(np.abs([low, high, [row.difference for row in measured]])), 1.5 * _LINEAR)
    axis.set_xscale("symlog", linthresh=_LINEAR, linscale=0.9)
    axis.set_xlim(-reach, reach)
    axis.xaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if abs(tick) < reach]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))
    style.row_labels(axis, [row.mistake for row in measured])
    axis.set(xlabel=f"published − honest figure (linear to ±{_LINEAR:g}, then logarithmic)", ylabel="mistake")
    style.headline(
        figure, f"{title}\nright of 0: the published figure is too high; whiskers: 95 % interval; hollow: within noise"
    )
    return figure


@style.styled
def painted_out(images: NDArray[np.uint8], painted: NDArray[np.uint8]) -> Figure:
    """Draw images, and below each the same without the object.

    Args:
        images: uint8 RGB `(n, h, w, 3)`.
        painted: Of the same shape.
    """
    if not len(images):
        return style.note("Negative control: no image")
    rows = [list(images), list(painted)]
    captions = [f"test image {number}" for number in range(1, len(images) + 1)]
    return style.image_table(rows, captions, names=("whole", "painted out"))
