"""Figures of the benchmark: ratios against their goals, growth with the number of images, and curves of losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from scanbook.reporting.plots.style import INK, WIDTH, bar, headline, line, row_labels, styled, subplots, whiskers


@styled
def ratios(rows: Sequence[dict[str, Any]]) -> Figure:
    """Draw every ratio as a share of its goal, on a logarithmic axis; more is better for all.

    Args:
        rows: `name`, `ratio` with `low` and `high`, `goal`, `direction` ("≥" or "≤") and `reached`; rows without a
            ratio or a goal are not drawn.
    """
    measured = [row for row in rows if row["ratio"] is not None and row["goal"]]
    figure, axis = subplots(figsize=(WIDTH, 0.42 * len(measured) + 1.3))

    def share(row: dict[str, Any], key: str) -> float:
        return row[key] / row["goal"] if row["direction"] == "≥" else row["goal"] / row[key]

    shares = np.array([share(row, "ratio") for row in measured])
    ends = np.sort([[share(row, key) for key in ("low", "high")] for row in measured], axis=1)
    for kind, (word, reached) in enumerate((("goal reached", True), ("goal missed", False))):
        places = [place for place, row in enumerate(measured) if bool(row["reached"]) is reached]
        if places:
            style = bar(0 if kind == 0 else 3)
            axis.barh(places, shares[places] - 1, 0.6, left=1, label=word, **style)
    whiskers(axis, range(len(measured)), ends[:, 0], ends[:, 1], vertical=False)
    axis.axvline(1, color=INK, linewidth=1.2)
    axis.set_xscale("log", base=2)
    low, high = min(ends.min(), 0.8), max(ends.max(), 1.25)
    for place, row in enumerate(measured):
        goal = f"goal {row['direction']} {row['goal']:.3g}"
        axis.annotate(
            f"{row['ratio']:.3g}× ({goal})",
            (max(ends[place, 1], 1.0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_xlim(low / 1.25, high * (high / low) ** 0.35 * 1.4)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:.3g}"))
    row_labels(axis, [row["name"] for row in measured])
    axis.set(xlabel="ratio as a share of its goal (right of 1: better than the goal)")
    axis.set_title("scanbook compared with the baseline (whiskers: least and greatest pair)")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


@styled
def growth(result: dict[str, Any]) -> Figure:
    """Draw seconds by step, and memory, against the number of images; the axis of images is logarithmic.

    Args:
        result: `steps`; `points`, by number of images: `n`, seconds of each step and in total (`seconds`), and GiB of
            `own memory` and `memory`; `exponents` of the seconds; and `within`, the limit of own memory in GB, if any.
    """
    figure, (time, memory) = subplots(1, 2, figsize=(WIDTH + 1, 3.6 + 0.2 * len(result["steps"])))
    counts = np.array([point["n"] for point in result["points"]], float)
    names = {"seconds": "in total", **{step: step for step in result["steps"]}}
    for place, (key, name) in enumerate(names.items()):
        values = [point[key] for point in result["points"]]
        time.plot(counts, values, label=f"{name}, exponent {result['exponents'][key]:.2f}", **line(place))
    first = result["points"][0]["seconds"]
    time.plot(counts, first * counts / counts[0], color=INK, linewidth=1, linestyle=":", label="linear")
    for place, (key, name) in enumerate({"memory": "peak", "own memory": "that no file backs"}.items()):
        memory.plot(counts, [point[key] for point in result["points"]], label=name, **line(place))
    if "within" in result:
        goal = result["within"] * 1e9 / 2**30
        memory.axhline(goal, color=INK, linewidth=1, linestyle=":", label=f"{result['within']:g} GB")
    time.set_yscale("log")
    time.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    memory.set_ylim(0, 1.1 * max(result.get("within", 0.0), *(point["memory"] for point in result["points"])))
    for axis in (time, memory):
        axis.set_xscale("log")
        axis.set_xticks(counts, [f"{count:,.0f}" for count in counts])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel("images")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    time.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.10g}"))
    time.yaxis.set_minor_formatter(NullFormatter())
    time.set(ylabel="time, s")
    memory.set(ylabel="memory, GiB")
    time.set_title("Time")
    memory.set_title("Memory")
    headline(figure, "Growth with the number of images")
    return figure


@styled
def curves(networks: Sequence[dict[str, Any]]) -> Figure:
    """Draw losses by epoch, of one process and of two on top of each other, one panel per network.

    Args:
        networks: `backbone`, and `curves`: by number of processes, "1" and "2", `loss` and `validation_loss`, one value
            per epoch.
    """
    figure, axes = subplots(1, len(networks), figsize=(max(3.4 * len(networks), 4.5), 4.2), squeeze=False)
    styles = {"loss": ("training", "-", "o"), "validation_loss": ("validation", "--", "s")}
    for axis, network in zip(axes.flat, networks, strict=True):
        for key, (name, dash, marker) in styles.items():
            one, two = (network["curves"][count][key] for count in ("1", "2"))
            epochs = np.arange(1, len(one) + 1)
            # the wide line shows on both sides of the thin one, with or without colour
            axis.plot(epochs, one, dash, color="#BBBBBB", linewidth=6, label=f"{name}, one process")
            style = {"color": "black", "linewidth": 1.1, "marker": marker, "markersize": 5, "markerfacecolor": "white"}
            axis.plot(epochs, two, dash, label=f"{name}, two processes", **style)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epoch", ylabel="loss (cross-entropy, nats)")
        axis.set_ylim(0, 1.08 * max(max(side[key]) for side in network["curves"].values() for key in styles))
        axis.set_title(network["backbone"])
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2)
    headline(figure, "Loss of one process and of two")
    return figure
