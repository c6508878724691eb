"""The style of every figure: series differ in shape and colour, so that a figure is readable in black and white."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, NullLocator
from numpy.typing import ArrayLike, NDArray

from scanbook.reporting.plots.names import FONT, readable, shorten, wrap

# Okabe and Ito's palette (2008) is distinct with every common colour blindness; yellow, weak on white, comes last.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
INK = "#333333"
QUIET = "#8C8C8C"
WIDTH = 8.0
MOST_ROWS = 30
"""Rows of a chart beyond which it shows the extremes alone."""
_EXTREMES = 10
"""Number of rows that it then shows of each end."""
_LONGEST_WORD, _LONGEST_LINE = 64, 120
"""Most characters of a word and of a line of a caption."""
# Background of a text on a hatched bar.
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
    "font.family": [FONT],
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
    # a name from the data is no formula: "$\\frac$" would end the figure, and "5$ to 10$" lose its signs
    "text.parse_math": False,
    "text.usetex": False,
}

Arguments = ParamSpec("Arguments")


@contextmanager
def own_settings() -> Iterator[None]:
    """Draw in the block with this style on Matplotlib's own defaults, whatever the user's `matplotlibrc` says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Return `draw` with this style; Matplotlib's settings are as before afterwards."""

    @functools.wraps(draw)
    def styled_draw(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with own_settings():
            return draw(*args, **kwargs)

    return styled_draw


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float] | None = None, **options: Any
) -> tuple[Figure, Any]:
    """Return a figure and its axes, as `pyplot.subplots` does, without a window or the user's backend.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        figsize: Width and height, inches.
        options: Of `Figure.subplots`.
    """
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(rows, columns, **options)


def line(index: int) -> dict[str, Any]:
    """Return colour, dash and marker of a series; the three cycles differ in length, so 280 series are distinct."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": _LINES[index % len(_LINES)],
        "marker": _MARKERS[index % len(_MARKERS)],
    }


def bar(index: int) -> dict[str, Any]:
    """Return fill, hatch and edge of the bars of a series."""
    return {
        "facecolor": COLOURS[index % len(COLOURS)],
        "hatch": _HATCHES[index % len(_HATCHES)],
        "edgecolor": "white" if index % len(_HATCHES) else COLOURS[index % len(COLOURS)],
        "linewidth": 0.5,
    }


def count_of(count: int, noun: str) -> str:
    """Return a number and its noun: `count_of(2000, "image")` is "2,000 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def extremes(
    values: pd.Series, kind: str, ends: tuple[str, str], most: int = MOST_ROWS, each: int = _EXTREMES
) -> tuple[list[Any], str]:
    """Return which rows a chart shows, and a line of its title that says so; "" where it shows all of them.

    Args:
        values: A number per row, by the row's name, in the order of a chart that has room for all.
        kind: What the rows are, in the plural.
        ends: What the rows with the highest and with the lowest numbers are, such as ("largest", "smallest").
        most: Rows of which the chart has room for all.
        each: Rows that it shows of each end, where there are more.

    Returns:
        The names of the rows, in the order of `values`; of more than `most` those with the highest numbers, then those
        with the lowest, in descending order. A row without a number counts as none of them; where no two have one, the
        first rows.
    """
    if len(values) <= most:
        return list(values.index), ""
    order = values.dropna().sort_values(ascending=False, kind="stable")
    count = min(each, len(order) // 2)
    if count == 0:
        return list(values.index[: 2 * each]), f"the first {2 * each} of {len(values):,} {kind}; all are in the table"
    text = f"the {count} {ends[0]} and the {count} {ends[1]} of {len(values):,} {kind}; all are in the table"
    return [*order.index[:count], *order.index[len(order) - count :]], text


def split_extremes(axis: Axes, rows: int, text: str) -> None:
    """Draw a line between the two halves of a chart of `extremes`, where `text` says that it is one."""
    if text:
        axis.axhline(rows / 2 - 0.5, color=QUIET, linestyle=(0, (6, 4)), linewidth=1)


def whiskers(
    axis: Axes, positions: ArrayLike, low: ArrayLike, high: ArrayLike, *, vertical: bool = True, colour: str = INK
) -> None:
    """Draw intervals from low to high, wherever the value itself lies (ECE's may lie outside).

    Args:
        axis: Where to draw.
        positions: `(n,)`, position of each interval along the other axis.
        low: `(n,)`, lower ends.
        high: `(n,)`, upper ends; NaN draws nothing.
        vertical: Whether the intervals are vertical.
        colour: Of the lines.
    """
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    centre, half = (low + high) / 2, (high - low) / 2
    look = {"fmt": "none", "ecolor": colour, "elinewidth": 1.1, "capsize": 3}
    if vertical:
        axis.errorbar(positions, centre, yerr=half, **look)
    else:
        axis.errorbar(centre, positions, xerr=half, **look)


def band(axis: Axes, positions: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str) -> None:
    """Draw an interval along a curve, with edges that show in black and white."""
    axis.fill_between(positions, low, high, color=colour, alpha=0.2, linewidth=0)
    for edge in (low, high):
        axis.plot(positions, edge, color=colour, linewidth=0.6, alpha=0.7)


def label_bar(axis: Axes, text: str, value: float, row: float) -> None:
    """Write a text to the right of a bar or a point."""
    look = {"textcoords": "offset points", "va": "center", "fontsize": 8, "color": INK}
    axis.annotate(text, (value, row), (5, 0), **look)


def label_row(axis: Axes, text: str, row: float) -> None:
    """Write a text to the right of the axes, beside a row."""
    axis.annotate(text, (1.01, row), xycoords=axis.get_yaxis_transform(), va="center", fontsize=8, color=INK)


def headline(figure: Figure, text: str) -> None:
    """Set the title of a figure of several panels, where the title of a single panel would be."""
    figure.suptitle(text, x=0.01, ha="left")


def panels(
    count: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, NDArray[Any], list[Axes]]:
    """Return a figure of several panels, its grid of axes `(rows, columns)`, and the axes that are visible.

    Args:
        count: Number of panels, above 0.
        columns: Most panels per row.
        width: Of a panel, inches.
        height: Of a panel, inches.
        options: Of `Figure.subplots`.
    """
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (max(columns * width, 4.5), rows * height + 0.4)
    figure, grid = subplots(rows, columns, figsize=size, squeeze=False, **options)
    for axis in grid.flat[count:]:
        axis.set_visible(False)
    return figure, grid, list(grid.flat[:count])


def image_grid(count: int, columns: int, side: float = 1.5, extra: float = 0.3) -> tuple[Figure, list[Axes]]:
    """Return a figure of axes without frames, for images.

    Args:
        count: Number of images, above 0.
        columns: Most images per row.
        side: Height and width of an image, inches.
        extra: Height of a caption, inches.
    """
    figure, _, axes = panels(count, columns, side, side + extra)
    for axis in axes:
        axis.axis("off")
    return figure, axes


def image_table(
    rows: Sequence[Sequence[NDArray[np.uint8]]], columns: Sequence[str], side: float = 1.3, names: Sequence[str] = ()
) -> Figure:
    """Return a figure of images in rows and columns.

    Args:
        rows: RGB images `(h, w, 3)`, uint8, as many in each row as there are columns.
        columns: Captions of the columns.
        side: Height and width of an image, inches.
        names: Names of the rows; empty for none.
    """
    figure, grid, axes = panels(len(rows) * len(columns), len(columns), side, side + 0.05)
    for axis, image in zip(axes, itertools.chain.from_iterable(rows), strict=True):
        axis.imshow(image)
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
    for axis, text in zip(grid[0], columns, strict=True):
        caption(axis, text)
    for axis, name in zip(grid[:, 0], names, strict=False):
        axis.set_ylabel(name)
    return figure


def note(text: str) -> Figure:
    """Return a figure that states why there is nothing to show."""
    figure, axis = subplots(figsize=(WIDTH / 2, 0.8))
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", color=INK)
    return figure


def caption(axis: Axes, text: str, width: int = 22) -> None:
    """Write a small caption above an image, whose lines are wrapped."""
    axis.set_title(in_brief(text, width), fontsize=8, loc="center")


def in_brief(text: str, width: int = 22) -> str:
    """Return a caption in lines of at most `width` characters; a word or a line that is very long loses its middle."""
    lines = [[shorten(word, _LONGEST_WORD) for word in line.split()] for line in text.splitlines()]
    return "\n".join(wrap(shorten(" ".join(words), _LONGEST_LINE), width) for words in lines)


def row_labels(axis: Axes, names: Sequence[object]) -> None:
    """Name the rows of a horizontal chart, the first on top."""
    axis.set_yticks(range(len(names)), [readable(row) for row in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def plain_ticks(axis: Axis, locator: Locator) -> None:
    """Write the ticks of a logarithmic axis as plain numbers."""
    axis.set_major_locator(locator)
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_locator(NullLocator())
