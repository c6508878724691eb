"""Figures of the machine: configurations are distinct, refused engines are marked, and the numbers are measured."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pandas as pd
import pytest

from helpers import figures
from scanbook.reporting.plots import hardware

WAYS = [("latency", 1), ("latency", 8), ("throughput", 8)]
CONFIGURATIONS = [
    ("Keras predict", "fp32", "latency", 8),
    ("Keras traced", "fp32", "latency", 1),
    ("Keras traced", "fp32", "latency", 8),
    *(("OpenVINO", "fp32", *way) for way in WAYS),
    *(("OpenVINO", "int8", *way) for way in WAYS),
    *(("ONNX Runtime", "fp32", *way) for way in WAYS),
]


def measured(refused=("OpenVINO", "int8"), sizes=(1, 8, 32), interval=True):
    """Speeds that rise with threads and batch, most of all in throughput mode."""
    base = {"Keras predict": 15.0, "Keras traced": 120.0, "OpenVINO": 600.0, "ONNX Runtime": 420.0}
    rows = []
    for place, ((engine, precision, mode, threads), batch) in enumerate(itertools.product(CONFIGURATIONS, sizes)):
        rate = base[engine] * (1.8 if precision == "int8" else 1) * threads**0.5 * batch**0.4
        rate *= 1.5 if mode == "throughput" else 1
        p50 = 1000 * batch / rate
        rows.append(
            {"engine": engine, "precision": precision, "mode": mode, "threads": threads, "batch": batch}
            | {"calls": 40 if place < 3 else 900, "images_per_second": rate}
            | {"low": 0.9 * rate if interval else np.nan, "high": 1.2 * rate if interval else np.nan}
            | {"p50": p50, "p95": 1.3 * p50, "p99": np.nan if place < 3 else 2.2 * p50}
            | {"refused": "int8: right on 1 of 9 images" if (engine, precision) == refused else ""}
        )
    return pd.DataFrame(rows)


def layers():
    """Times of three types of layer, one of which int8 does without."""
    fp32, int8 = np.array([6.0, 2.0, 0.4, 0.1]), np.array([2.0, 1.1, np.nan, 0.3])
    columns = {"fp32 milliseconds": fp32, "fp32 share": fp32 / 8.5, "int8 milliseconds": int8, "int8 share": int8 / 3.4}
    types = pd.DataFrame(columns, index=["Convolution", "GroupConvolution", "Reorder", "FullyConnected"])
    most_expensive = pd.concat([types, types * 0.5, types.iloc[:2] * 0.2])
    most_expensive.index = [f"{place} Convolution 3×3 → {place}×64×64" for place in range(1, 11)]
    return types, most_expensive


def scaled(threads: list[int], serial: float, grown: bool = False) -> pd.DataFrame:
    used = np.array(threads)
    seconds = 20 * (serial + (1 - serial) / used) * (used if grown else 1)
    speedup = seconds[0] / seconds * (used if grown else 1)
    arms = ["sequential CPU", *["parallel CPU"] * (len(threads) - 1)]
    frame = pd.DataFrame({"arm": arms, "threads": used, "seconds": seconds, "speedup": speedup})
    return frame.assign(low=seconds * 0.9, high=seconds * 1.2, efficiency=speedup / used)


def law(most: int, serial: float) -> pd.DataFrame:
    threads = np.geomspace(1, most, 9)
    curve = 1 / (serial + (1 - serial) / threads)
    return pd.DataFrame({"threads": threads, "speedup": curve, "low": curve * 0.9, "high": curve * 1.1})


GPU = {"arm": "GPU", "threads": 4, "seconds": 0.5, "low": 0.4, "high": 0.6, "speedup": 40.0, "efficiency": np.nan}
FOUR = pd.concat([scaled([1, 2, 4], 0.1), pd.DataFrame([GPU])], ignore_index=True)
WEAK = scaled([1, 2, 4], 0.05, grown=True)
STAGES = pd.DataFrame(
    {"stages": [1, 3], "built": [0, 3], "seconds": [2.5, 7.5], "share": [0.25, 0.75], "mib": [4.0, 1.0]},
    index=["pixels", "fine_tuning"],
)
STEPS = pd.DataFrame(
    {"milliseconds": [1.0, 0.5, 4.5], "share": [np.nan, 0.1, 0.9]}, index=["decode and resize", "augment", "train"]
)

FIGURES = {
    "bars": lambda: hardware.training_bars(FOUR, "Training, 3 epochs"),
    "two bars": lambda: hardware.training_bars(scaled([1, 2], 0.3), "Training, 3 epochs"),
    "curves": lambda: hardware.scaling_curves(FOUR, WEAK, law(4, 0.1), "Training, 3 epochs"),
    "two curves": lambda: hardware.scaling_curves(
        scaled([1, 2], 1.2), scaled([1, 2], 0.1, True), None, "Training, 3 epochs"
    ),
    "stages": lambda: hardware.stage_bars(STAGES, "Stages of 1 run"),
    "steps": lambda: hardware.stage_bars(STEPS, "Steps of 1 epoch", "milliseconds", "milliseconds per image"),
    "throughput_by_batch": lambda: hardware.throughput_by_batch(measured(), "MobileNetV2 at 160 px, 8 cores"),
    "throughput_by_batch_without_intervals": lambda: hardware.throughput_by_batch(
        measured(refused=(), sizes=(1, 8), interval=False), "MobileNetV2 at 160 px"
    ),
    "latency_percentiles": lambda: hardware.latency_percentiles(measured(), "MobileNetV2 at 160 px, 8 cores"),
    "layer_times": lambda: hardware.layer_times(*layers(), "MobileNetV2, 5 × 20 runs of one image"),
}


@cache
def drawn(name):
    return FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_figure_can_be_read(name):
    figures.check(drawn(name), labels=False)
    assert all(axis.get_xlabel() for axis in drawn(name).axes)


def test_every_configuration_is_a_line_of_its_own():
    axis = drawn("throughput_by_batch").axes[0]
    lines = [line for line in axis.lines if line.get_linestyle() != "None"]
    looks = {(line.get_color(), line.get_marker(), str(line._dash_pattern)) for line in lines}
    assert len(lines) == len(looks) == len(CONFIGURATIONS)
    without_colour = {look[1:] for look in looks}
    assert len(without_colour) == len(CONFIGURATIONS), "in black and white marker and dash must do"
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert sorted(line.get_ydata()[0] for line in lines) == sorted(
        measured().query("batch == 1")["images_per_second"].tolist()
    )


def test_refused_engines_are_hollow_and_say_so():
    axis = drawn("throughput_by_batch").axes[0]
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert [word for word in words if "refused" in word] == ["OpenVINO int8 (refused)"]
    hollow = [line for line in axis.lines if line.get_linestyle() != "None" and line.get_markerfacecolor() == "white"]
    assert len(hollow) == 3
    rows = [label.get_text() for label in drawn("latency_percentiles").axes[0].get_yticklabels()]
    assert sum(row.endswith("(refused)") for row in rows) == 3


def test_an_interval_that_does_not_exist_has_no_whiskers():
    axis = drawn("throughput_by_batch_without_intervals").axes[0]
    ends = [segment for bars in axis.collections for segment in bars.get_segments() if len(segment)]
    assert axis.collections and not np.isfinite(ends).any()


def test_percentiles_are_in_their_order_and_missing_ones_excluded():
    axis = drawn("latency_percentiles").axes[0]
    rows = measured().query("batch == 1").sort_values("p50")
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[-1] == "Keras predict fp32, latency, 8 threads" and len(labels) == len(rows)
    points = [(line.get_marker(), line.get_xdata()[0]) for line in axis.lines if len(line.get_xdata()) == 1]
    for name, marker in (("p50", "o"), ("p95", "|"), ("p99", "d")):
        shown = [x for kind, x in points if kind == marker]
        np.testing.assert_allclose(shown, rows[name])
    assert any("40 calls" in text.get_text() for text in axis.texts)


@pytest.mark.parametrize("place", [0, 1])
def test_layers_show_time_and_share_in_both_precisions(place):
    types, most_expensive = layers()
    table = (types, most_expensive)[place]
    axis = drawn("layer_times").axes[place]
    widths = [[bar.get_width() for bar in bars] for bars in axis.containers]
    np.testing.assert_allclose(widths[0], table["fp32 milliseconds"])
    np.testing.assert_allclose(widths[1], table["int8 milliseconds"])
    words = [text.get_text() for text in axis.texts]
    assert words[0] == f"{table['fp32 share'].iloc[0]:.1%}" and "none" in words


def test_bars_say_seconds_and_how_many_times_as_fast() -> None:
    figure = drawn("bars")
    assert figures.texts(figure) == ["20 s", "11 s, 1.82 ×", "6.5 s, 3.08 ×", "0.5 s, 40 ×"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["sequential CPU, 1 thread", "parallel CPU, 2 threads", "parallel CPU, 4 threads", "GPU"]
    hatches = {patch.get_hatch() for patch in figure.axes[0].patches}
    assert len(hatches) == 3, "told apart in black and white"


def test_curves_leave_a_gpu_out_and_draw_the_fit_where_there_is_one() -> None:
    left, right = drawn("curves").axes
    legend = [text.get_text() for text in left.get_legend().get_texts()]
    assert legend == ["ideal", "Amdahl's law, fitted", "its 95 % interval", "measured"]
    (points,) = [line for line in left.lines if line.get_label() == "measured"]
    assert points.get_xdata().tolist() == [1, 2, 4] and points.get_linestyle() == "None"
    efficiencies = {line.get_label(): line.get_ydata() for line in right.lines}
    np.testing.assert_allclose(efficiencies["work grows (weak)"], WEAK["efficiency"])
    np.testing.assert_allclose(efficiencies["the same work (strong)"], FOUR["efficiency"].dropna())


def test_two_threads_are_a_line_and_no_fit() -> None:
    left, _ = drawn("two curves").axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["ideal", "measured"]
    assert left.get_ylim()[0] < 1 / 1.2 / 1.2, "slower than one thread is still on the axis"


def test_one_thread_is_said() -> None:
    one = scaled([1], 0.1)
    assert figures.texts(hardware.scaling_curves(one, one, None, "Training, 3 epochs")) == [
        "one thread: nothing to scale"
    ]
    assert figures.texts(hardware.stage_bars(STAGES.iloc[:0], "Stages of 1 run")) == ["no stage was used"]


def test_stages_say_their_share_and_how_many_there_are() -> None:
    figure = drawn("stages")
    assert figures.texts(figure) == ["2.5, 25%", "7.5, 75%"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["pixels", "fine tuning (3)"]
    assert figures.texts(drawn("steps")) == ["1, once, not every epoch", "0.5, 10%", "4.5, 90%"]
