"""Figures of inference: by engine and batch, by call and by layer."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from scanbook.reporting.plots.style import INK, WIDTH, bar, count_of, headline, line, row_labels, styled, whiskers

# Marker and size of each percentile of a latency.
_PERCENTILES = {"p50": ("o", 6), "p95": ("|", 11), "p99": ("d", 5)}


@styled
def throughput_by_batch(table: pd.DataFrame, title: str) -> Figure:
    """Images per second of each inference engine over batch sizes; both axes are logarithmic.

    Colour and marker tell the engine, the dash its mode and threads; hollow markers are of engines that are refused.

    Args:
        table: columns engine, precision, mode, threads, batch, images_per_second (median of windows), low, high (its
            95 % interval, NaN where there is none) and refused ("" where the engine is admitted).
        title: which model, on which machine.
    """
    figure, axis = plt.subplots(figsize=(WIDTH + 1, 4.4))
    looks = _looks(table)
    for (engine, how), rows in _series(table.sort_values("batch", kind="stable")):
        whiskers(axis, rows["batch"], rows["low"], rows["high"], colour=looks[engine]["color"])
        fill = {"markerfacecolor": "white"} if rows["refused"].any() else {}
        axis.plot(rows["batch"], rows["images_per_second"], **looks[engine] | looks[how] | fill)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(sorted(table["batch"].unique()))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_formatter(NullFormatter())
    _plain_ticks(axis.yaxis)
    axis.set(xlabel="batch, images", ylabel="images per second")
    axis.set_title(f"{title} (whiskers: 95 % intervals of medians)")
    _legend(axis, table, looks)
    return figure


@styled
def latency_percentiles(table: pd.DataFrame, title: str) -> Figure:
    """How long a call takes by engine at the smallest batch: half of them, and the slowest; the quickest on top.

    Args:
        table: columns engine, precision, mode, threads, batch, calls, p50, p95, p99 (milliseconds of a call, NaN where
            there were too few) and refused ("" where the engine is admitted).
        title: which model, on which machine.
    """
    smallest = table["batch"].min()
    rows = table[table["batch"] == smallest].sort_values("p50", kind="stable").reset_index(drop=True)
    figure, axis = plt.subplots(figsize=(WIDTH + 1, 1.4 + 0.32 * len(rows)))
    looks = _looks(table)
    for place, row in rows.iterrows():
        look = looks[_engine(row)]
        low, high = row[["p50", "p95", "p99"]].min(), row[["p50", "p95", "p99"]].max()
        axis.plot([low, high], [place, place], color=look["color"], linewidth=2)
        for name, (marker, size) in _PERCENTILES.items():
            fill = "white" if row["refused"] else look["color"]
            axis.plot(
                *(row[name], place),
                color=look["color"],
                marker=marker,
                markersize=size,
                markerfacecolor=fill,
                ls="none",
            )
        words = f"{row['p50']:.3g} ms, {count_of(int(row['calls']), 'call')}"
        axis.annotate(words, (high, place), (8, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    axis.set_xscale("log")
    axis.margins(x=0.05)
    left, right = axis.get_xlim()
    axis.set_xlim(left, right * (right / left) ** 0.35)  # room for the words
    _plain_ticks(axis.xaxis)
    refused = rows["refused"].map(lambda reason: " (refused)" if reason else "")
    row_labels(axis, [f"{_engine(row)}, {_how(row)}{refused[place]}" for place, row in rows.iterrows()])
    axis.set(xlabel=f"milliseconds for a call of {count_of(int(smallest), 'image')}", ylabel="engine")
    axis.set_title(f"{title} (words: the median)")
    handles = [
        Line2D([], [], color=INK, linestyle="none", marker=marker, markersize=size, label=f"{name[1:]} % of the calls")
        for name, (marker, size) in _PERCENTILES.items()
    ]
    figure.legend(handles=handles, title="as quick or quicker", loc="outside lower center", ncols=3)
    return figure


@styled
def layer_times(types: pd.DataFrame, layers: pd.DataFrame, title: str) -> Figure:
    """Where the time of a prediction goes: by type of layer, and the most expensive layers, in both precisions.

    Args:
        types: index type, columns "fp32 milliseconds", "fp32 share", "int8 milliseconds", "int8 share"; all layers.
        layers: index layer, the same columns; NaN where a layer runs in one precision alone.
        title: which model, on which machine, how often.
    """
    heights = [len(types) + 0.8, len(layers) + 0.8]
    figure, axes = plt.subplots(2, 1, figsize=(WIDTH, 1.6 + 0.36 * sum(heights)), height_ratios=heights, sharex=False)
    for axis, table, name in zip(axes, (types, layers), ("Type of layer", "Layer"), strict=True):
        places = np.arange(len(table))
        for index, precision in enumerate(("fp32", "int8")):
            times, shares = table[f"{precision} milliseconds"], table[f"{precision} share"]
            offset = places + (index - 0.5) * 0.4
            label = f"{precision}, {types[f'{precision} milliseconds'].sum():.3g} ms in all layers"
            axis.barh(offset, times, 0.38, label=label, **bar(index))
            for place, time, share in zip(offset, times, shares, strict=True):
                words = f"{share:.1%}" if time > 0 else "none"
                axis.annotate(
                    *(words, (np.nan_to_num(time), place), (3, 0)),
                    **{"textcoords": "offset points", "va": "center", "fontsize": 7.5, "color": INK},
                )
        row_labels(axis, list(table.index))
        axis.margins(x=0.1)
        axis.set(xlabel="milliseconds", ylabel=name.lower())
    axes[0].set_title("By type of layer")
    axes[1].set_title(f"The {len(layers)} most expensive layers")
    axes[0].legend(loc="lower right")
    headline(figure, f"{title} (words: share of all layers' time)")
    return figure


def _engine(row: pd.Series) -> str:
    return f"{row['engine']} {row['precision']}"


def _how(row: pd.Series) -> str:
    return f"{row['mode']}, {count_of(int(row['threads']), 'thread')}"


def _series(table: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """Rows of each engine, with mode and threads in words."""
    names = [table.apply(name, axis=1) for name in (_engine, _how)]
    return list(table.groupby(names, sort=False))


def _looks(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Colour and marker by engine, dash by mode and threads; the most frequent way to run is a whole line."""
    engines = list(dict.fromkeys(table.apply(_engine, axis=1)))
    ways = table.apply(_how, axis=1).value_counts(sort=True).index
    colours = {name: {key: line(place)[key] for key in ("color", "marker")} for place, name in enumerate(engines)}
    return colours | {name: {"linestyle": line(place)["linestyle"]} for place, name in enumerate(ways)}


def _legend(axis: Axes, table: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    refused = {_engine(row) for _, row in table.iterrows() if row["refused"]}
    handles = []
    for name, look in looks.items():
        if "marker" in look:
            fill = {"markerfacecolor": "white"} if name in refused else {}
            label = f"{name} (refused)" if name in refused else name
            handles.append(Line2D([], [], label=label, linestyle="none", **look | fill))
        else:
            handles.append(Line2D([], [], label=name, color=INK, **look))
    axis.legend(handles=handles, title="engine; mode, threads", loc="center left", bbox_to_anchor=(1, 0.5))


def _plain_ticks(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))
    axis.set_minor_formatter(NullFormatter())
