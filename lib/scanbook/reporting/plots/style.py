"""One look for every figure: told apart by shape as well as colour, so that it also works in black and white."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ParamSpec

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# Okabe and Ito's palette (2008), told apart with every common colour blindness; yellow, weak on white, comes last.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
INK = "#333333"
QUIET = "#8C8C8C"
WIDTH = 8.0
# Behind numbers that stand on a hatch.
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.2, "alpha": 0.9}
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "///", "...", "xxx", "\\\\\\", "+++", "ooo")

_SETTINGS: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelsize": 10,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.titlesize": 11,
    "font.size": 9.5,
    "grid.alpha": 0.5,
    "grid.color": "#CCCCCC",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.handlelength": 3,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "savefig.dpi": 110,
}

Arguments = ParamSpec("Arguments")


def apply() -> AbstractContextManager[None]:
    """A context in which matplotlib draws in this style; settings, backend included, are as before afterwards."""
    return mpl.rc_context(_SETTINGS)


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Draw in this style and close the figure in pyplot, so that a notebook shows it once: as the cell's value."""

    @functools.wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with apply():
            figure = draw(*args, **kwargs)
            plt.close(figure)
        return figure

    return drawn


def line(place: int) -> dict[str, Any]:
    """Colour, dash and marker of the series at that place; the three cycles differ in length, so 280 series differ."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "linestyle": _LINES[place % len(_LINES)],
        "marker": _MARKERS[place % len(_MARKERS)],
    }


def bar(place: int) -> dict[str, Any]:
    """Fill, hatch and edge of the bars at that place."""
    return {
        "facecolor": COLOURS[place % len(COLOURS)],
        "hatch": _HATCHES[place % len(_HATCHES)],
        "edgecolor": "white" if place % len(_HATCHES) else COLOURS[place % len(COLOURS)],
        "linewidth": 0.5,
    }


def readable(name: object) -> str:
    """A column or metric name as words: "blood_pressure" → "blood pressure", a tuple of them joined."""
    if isinstance(name, tuple):
        return ", ".join(readable(part) for part in name)
    return str(name).replace("_", " ")


def count_of(count: int, thing: str) -> str:
    """A number and its noun: `count_of(2000, "image")` is "2,000 images"."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def whiskers(
    axis: Axes, places: ArrayLike, low: ArrayLike, high: ArrayLike, *, vertical: bool = True, colour: str = INK
) -> None:
    """Intervals from low to high at their places, wherever the value itself lies (ECE's may lie outside).

    Args:
        axis: where to draw.
        places: (n,) position of each along the other axis.
        low: (n,) lower ends.
        high: (n,) upper ends; NaN draws nothing.
        vertical: upright, or lying.
        colour: of the lines.
    """
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    centre, half = (low + high) / 2, (high - low) / 2
    look = {"fmt": "none", "ecolor": colour, "elinewidth": 1.1, "capsize": 3}
    if vertical:
        axis.errorbar(places, centre, yerr=half, **look)
    else:
        axis.errorbar(centre, places, xerr=half, **look)


def headline(figure: Figure, text: str) -> None:
    """The title of a figure of several panels, where the title of a single one would be."""
    figure.suptitle(text, x=0.01, ha="left")


def image_grid(count: int, columns: int, side: float = 1.5, extra: float = 0.3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` bare axes for images, `columns` a row.

    Args:
        count: number of images, above 0.
        columns: most images a row.
        side: height and width of an image, inches.
        extra: height of a caption, inches.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (max(columns * side, 4.5), rows * (side + extra) + 0.4)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in grid.flat:
        axis.axis("off")
    return figure, list(grid.flat[:count])


def note(text: str) -> Figure:
    """A figure that says there is nothing to show."""
    figure, axis = plt.subplots(figsize=(WIDTH / 2, 0.8))
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", color=INK)
    return figure


def caption(axis: Axes, text: str, width: int = 24) -> None:
    """A small caption above an image, wrapped."""
    axis.set_title(textwrap.fill(text, width), fontsize=8, loc="center")


def row_labels(axis: Axes, names: Sequence[object]) -> None:
    """Name the rows of a horizontal chart, first one on top."""
    axis.set_yticks(range(len(names)), [readable(name) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
