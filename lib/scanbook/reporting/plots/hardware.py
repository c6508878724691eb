"""Figures of the machine: training by threads, inference by engine and batch, and time by layer and by stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, PercentFormatter

from scanbook.reporting.plots import style

_PERCENTILES = {"p50": ("o", 6), "p95": ("|", 11), "p99": ("d", 5)}
"""Marker and size of each percentile of a latency."""


@style.styled
def training_bars(strong: pd.DataFrame, title: str) -> Figure:
    """Draw the seconds of a training epoch by arm, and the speed-up of each over the first.

    Args:
        strong: One row per arm: `arm`, `threads`, `seconds` (median), `low`, `high` (fastest and slowest epoch) and
            `speedup` over the first.
        title: What was trained, on which machine, how often.
    """
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.5 + 0.45 * len(strong)))
    positions = np.arange(len(strong))
    for index, (arm, rows) in enumerate(strong.assign(position=positions).groupby("arm", sort=False)):
        axis.barh(rows["position"], rows["seconds"], 0.6, **style.bar(index), label=arm)
    style.whiskers(axis, positions, strong["low"], strong["high"], vertical=False)
    names = []
    for position, row in enumerate(strong.itertuples()):
        speedup = f", {row.speedup:.3g} ×" if position else ""
        style.label_bar(axis, f"{row.seconds:.3g} s{speedup}", max(row.high, row.seconds), position)
        names.append(row.arm if row.arm == "GPU" else f"{row.arm}, {style.count_of(row.threads, 'thread')}")
    style.row_labels(axis, names)
    axis.set(xlabel="seconds per training epoch", xlim=(0, 1.25 * strong[["seconds", "high"]].to_numpy().max()))
    style.headline(figure, f"{title} (whiskers: fastest and slowest epoch)")
    return figure


@style.styled
def scaling_curves(strong: pd.DataFrame, weak: pd.DataFrame, law: pd.DataFrame | None, title: str) -> Figure:
    """Draw strong scaling (speed-up of the same work over threads) and weak scaling (efficiency of growing work).

    Args:
        strong: One row per number of threads: `threads`, `seconds`, `low`, `high` (fastest and slowest epoch),
            `speedup` and `efficiency`. Rows without an efficiency, a GPU's, are not shown.
        weak: The same, of work that grows with the threads.
        law: Amdahl's law fitted to the strong arms: `threads`, `speedup`, and `low` and `high` of its 95 % interval;
            None for none.
        title: What was trained, on which machine, how often.
    """
    strong = strong[strong["efficiency"].notna()]
    most = int(strong["threads"].max())
    if most == 1:
        return style.note("one thread: nothing to scale")
    figure, (left, right) = style.subplots(1, 2, figsize=(style.WIDTH + 1, 3.8))
    ideal = {"color": style.INK, "linestyle": "--", "linewidth": 1.2, "label": "ideal"}
    left.plot([1, most], [1, most], **ideal)
    look = style.line(0)
    if law is not None:
        left.plot(law["threads"], law["speedup"], color=style.COLOURS[1], linestyle="-.", label="Amdahl's law, fitted")
        style.band(left, law["threads"], law["low"], law["high"], style.COLOURS[1])
        left.fill_between([], [], color=style.COLOURS[1], alpha=0.3, label="its 95 % interval")
        look |= {"linestyle": ""}  # the fit is the line
    slowest, fastest = (strong["seconds"].iloc[0] / strong[name] for name in ("high", "low"))
    left.plot(strong["threads"], strong["speedup"], label="measured", **look)
    style.whiskers(left, strong["threads"], slowest, fastest)
    for row in strong[1:].itertuples():
        beside = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": 8, "bbox": style.WHITE}
        left.annotate(f"{row.speedup:.2f}", (row.threads, row.speedup), (-18, -10), **beside)
    left.set_yscale("log", base=2)
    style.plain_ticks(left.yaxis, LogLocator(base=2))
    limits = 0.75 * min(1.0, slowest.min()), 1.12 * max(most, fastest.max())
    left.set(ylabel="speed-up over one thread", ylim=limits)
    left.set_title("Strong scaling: the same work")
    right.axhline(1, **ideal)
    for index, (name, table) in enumerate({"the same work (strong)": strong, "work grows (weak)": weak}.items()):
        right.plot(table["threads"], table["efficiency"], label=name, **style.line(index))
        ratio = table["efficiency"] * table["seconds"]
        style.whiskers(right, table["threads"], ratio / table["high"], ratio / table["low"])
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.set(ylabel="efficiency (speed-up / threads)", ylim=(0, None))
    right.set_title("Efficiency: strong and weak scaling")
    for axis, place in ((left, "upper left"), (right, "lower left")):
        axis.set_xscale("log", base=2)
        style.plain_ticks(axis.xaxis, FixedLocator(sorted(strong["threads"].unique())))
        axis.set_xlabel("threads")
        axis.legend(loc=place)
    style.headline(figure, f"{title} (whiskers: fastest and slowest epoch)")
    return figure


@style.styled
def throughput_by_batch(table: pd.DataFrame, title: str) -> Figure:
    """Draw images per second of each inference engine over batch sizes; both axes are logarithmic.

    Colour and marker show the engine, the dash its mode and threads; refused engines have hollow markers.

    Args:
        table: Columns engine, precision, mode, threads, batch, images_per_second (median of windows), low, high (its
            95 % interval, NaN where there is none) and refused ("" where the engine is admitted).
        title: Which model, on which machine.
    """
    figure, axis = style.subplots(figsize=(style.WIDTH + 1, 4.4))
    looks = _looks(table)
    names = [table.apply(name, axis=1) for name in (_engine, _mode)]
    for (engine, mode), rows in table.sort_values("batch", kind="stable").groupby(names, sort=False):
        style.whiskers(axis, rows["batch"], rows["low"], rows["high"], colour=looks[engine]["color"])
        axis.plot(rows["batch"], rows["images_per_second"], **looks[engine] | looks[mode])
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    style.plain_ticks(axis.xaxis, FixedLocator(sorted(table["batch"].unique())))
    style.plain_ticks(axis.yaxis, LogLocator(subs=(1, 2, 5)))
    axis.set(xlabel="batch, images", ylabel="images per second")
    axis.set_title(f"{title} (whiskers: 95 % intervals of medians)")
    handles = [
        Line2D([], [], **{"color": style.INK, "linestyle": "none", "label": name} | look)
        for name, look in looks.items()
    ]
    axis.legend(handles=handles, title="engine; mode, threads", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


@style.styled
def latency_percentiles(table: pd.DataFrame, title: str) -> Figure:
    """Draw the time of a call by engine at the smallest batch: its median and upper percentiles, the fastest on top.

    Args:
        table: Columns engine, precision, mode, threads, batch, calls, p50, p95, p99 (milliseconds of a call, NaN where
            there were too few) and refused ("" where the engine is admitted).
        title: Which model, on which machine.
    """
    smallest = table["batch"].min()
    rows = table[table["batch"] == smallest].sort_values("p50", kind="stable").reset_index(drop=True)
    figure, axis = style.subplots(figsize=(style.WIDTH + 1, 1.4 + 0.32 * len(rows)))
    looks = _looks(table)
    for index, row in rows.iterrows():
        look = looks[_engine(row)]
        ends = [row[list(_PERCENTILES)].min(), row[list(_PERCENTILES)].max()]
        axis.plot(ends, [index, index], color=look["color"], linewidth=2)
        for name, (marker, size) in _PERCENTILES.items():
            axis.plot(
                row[name], index, **look | {"marker": marker, "markersize": size, "linestyle": "none", "label": ""}
            )
        style.label_bar(axis, f"{row['p50']:.3g} ms, {style.count_of(int(row['calls']), 'call')}", ends[1], index)
    axis.set_xscale("log")
    axis.margins(x=0.05)
    left, right = axis.get_xlim()
    axis.set_xlim(left, right * (right / left) ** 0.35)  # space for the labels
    style.plain_ticks(axis.xaxis, LogLocator(subs=(1, 2, 5)))
    refused = rows["refused"].map(lambda reason: " (refused)" if reason else "")
    style.row_labels(axis, [f"{_engine(row)}, {_mode(row)}{refused[index]}" for index, row in rows.iterrows()])
    axis.set(xlabel=f"milliseconds for a call of {style.count_of(int(smallest), 'image')}", ylabel="engine")
    axis.set_title(f"{title} (labels: the median)")
    look = {"color": style.INK, "linestyle": "none"}
    handles = [
        Line2D([], [], **look, marker=marker, markersize=size, label=f"{name[1:]} % of the calls")
        for name, (marker, size) in _PERCENTILES.items()
    ]
    figure.legend(handles=handles, title="took at most this time", loc="outside lower center", ncols=3)
    return figure


@style.styled
def layer_times(types: pd.DataFrame, layers: pd.DataFrame, title: str) -> Figure:
    """Draw the time of a prediction by type of layer, and of the most expensive layers, in both precisions.

    Args:
        types: Index type, columns "fp32 milliseconds", "fp32 share", "int8 milliseconds", "int8 share"; all layers.
        layers: Index layer, the same columns; NaN where a layer runs in one precision alone.
        title: Which model, on which machine, how often.
    """
    heights = [len(types) + 0.8, len(layers) + 0.8]
    figure, axes = style.subplots(2, 1, figsize=(style.WIDTH, 1.6 + 0.36 * sum(heights)), height_ratios=heights)
    for axis, table, name in zip(axes, (types, layers), ("type of layer", "layer"), strict=True):
        for index, precision in enumerate(("fp32", "int8")):
            times, shares = table[f"{precision} milliseconds"], table[f"{precision} share"]
            positions = np.arange(len(table)) + (index - 0.5) * 0.4
            label = f"{precision}, {types[f'{precision} milliseconds'].sum():.3g} ms in all layers"
            axis.barh(positions, times, 0.38, label=label, **style.bar(index))
            for position, time, share in zip(positions, times, shares, strict=True):
                style.label_bar(axis, f"{share:.1%}" if time > 0 else "none", np.nan_to_num(time), position)
        style.row_labels(axis, list(table.index))
        axis.margins(x=0.1)
        axis.set(xlabel="milliseconds", ylabel=name)
    axes[0].set_title("By type of layer")
    axes[1].set_title(f"The {len(layers)} most expensive layers")
    axes[0].legend(loc="lower right")
    style.headline(figure, f"{title} (labels: share of the time of all layers)")
    return figure


@style.styled
def stage_bars(
    table: pd.DataFrame, title: str, column: str = "seconds", unit: str = "seconds, without the stages inside"
) -> Figure:
    """Draw the time of each stage, or step, with its share of the whole.

    Args:
        table: Index: names; `column`, and `share`, NaN for what comes once and is not counted in the whole. Where it
            has `stages`, names show how many there are.
        title: What was measured.
        column: Which gives the length of a bar.
        unit: Of that column.
    """
    if table.empty:
        return style.note("no stage was used")
    figure, axis = style.subplots(figsize=(style.WIDTH, 1.3 + 0.36 * len(table)))
    rows, values = np.arange(len(table)), table[column].to_numpy(float)
    once = table["share"].isna().to_numpy()
    for index, chosen in enumerate((~once, once)):
        if chosen.any():
            axis.barh(rows[chosen], values[chosen], 0.6, **style.bar(index))
    for row, (value, share) in enumerate(zip(values, table["share"], strict=True)):
        style.label_bar(
            axis, f"{value:.3g}, " + ("once, not every epoch" if np.isnan(share) else f"{share:.0%}"), value, row
        )
    counts = table["stages"] if "stages" in table else pd.Series(1, table.index)
    style.row_labels(
        axis, [f"{style.readable(name)} ({count})" if count > 1 else name for name, count in counts.items()]
    )
    axis.set(xlabel=unit, xlim=(0, 1.3 * max(values.max(), 1e-9)))
    axis.set_title(title)
    return figure


def _engine(row: pd.Series) -> str:
    return f"{row['engine']} {row['precision']}"


def _mode(row: pd.Series) -> str:
    return f"{row['mode']}, {style.count_of(int(row['threads']), 'thread')}"


def _looks(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return colour, marker and label by engine, dash by mode and threads; the most frequent one is a solid line."""
    looks = {}
    refused = set(table[table["refused"] != ""].apply(_engine, axis=1)) if (table["refused"] != "").any() else set()
    for index, name in enumerate(table.apply(_engine, axis=1).unique()):
        looks[name] = {key: style.line(index)[key] for key in ("color", "marker")}
        if name in refused:
            looks[name] |= {"markerfacecolor": "white", "label": f"{name} (refused)"}
    modes = table.apply(_mode, axis=1).value_counts(sort=True).index
    return looks | {name: {"linestyle": style.line(index)["linestyle"]} for index, name in enumerate(modes)}
