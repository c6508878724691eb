"""Figures of inference: every configuration is told apart, refused engines are marked, numbers are the table's."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

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
    dearest = pd.concat([types, types * 0.5, types.iloc[:2] * 0.2])
    dearest.index = [f"{place} Convolution 3×3 → {place}×64×64" for place in range(1, 11)]
    return types, dearest


FIGURES = {
    "throughput_by_batch": lambda: hardware.throughput_by_batch(measured(), "MobileNetV2 at 160 px, 8 cores"),
    "throughput_by_batch_without_intervals": lambda: hardware.throughput_by_batch(
        measured(refused=(), sizes=(1, 8), interval=False), "MobileNetV2 at 160 px"
    ),
    "latency_percentiles": lambda: hardware.latency_percentiles(measured(), "MobileNetV2 at 160 px, 8 cores"),
    "layer_times": lambda: hardware.layer_times(*layers(), "MobileNetV2, 5 × 20 runs of one image"),
}


def test_every_configuration_is_a_line_of_its_own():
    axis = FIGURES["throughput_by_batch"]().axes[0]
    lines = [one for one in axis.lines if one.get_linestyle() != "None"]
    looks = {(one.get_color(), one.get_marker(), str(one._dash_pattern)) for one in lines}
    assert len(lines) == len(looks) == len(CONFIGURATIONS)
    without_colour = {look[1:] for look in looks}
    assert len(without_colour) == len(CONFIGURATIONS), "in black and white marker and dash must do"
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert sorted(one.get_ydata()[0] for one in lines) == sorted(
        measured().query("batch == 1")["images_per_second"].tolist()
    )


def test_refused_engines_are_hollow_and_say_so():
    axis = FIGURES["throughput_by_batch"]().axes[0]
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert [word for word in words if "refused" in word] == ["OpenVINO int8 (refused)"]
    hollow = [one for one in axis.lines if one.get_linestyle() != "None" and one.get_markerfacecolor() == "white"]
    assert len(hollow) == 3
    rows = [label.get_text() for label in FIGURES["latency_percentiles"]().axes[0].get_yticklabels()]
    assert sum(row.endswith("(refused)") for row in rows) == 3


def test_an_interval_that_does_not_exist_has_no_whiskers():
    drawn = FIGURES["throughput_by_batch_without_intervals"]().axes[0]
    ends = [segment for bars in drawn.collections for segment in bars.get_segments() if len(segment)]
    assert drawn.collections and not np.isfinite(ends).any()


def test_percentiles_are_in_their_order_and_missing_ones_left_out():
    axis = FIGURES["latency_percentiles"]().axes[0]
    rows = measured().query("batch == 1").sort_values("p50")
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[-1] == "Keras predict fp32, latency, 8 threads" and len(labels) == len(rows)
    points = [(one.get_marker(), one.get_xdata()[0]) for one in axis.lines if len(one.get_xdata()) == 1]
    for name, marker in (("p50", "o"), ("p95", "|"), ("p99", "d")):
        shown = [x for kind, x in points if kind == marker]
        np.testing.assert_allclose(shown, rows[name])
    assert any("40 calls" in text.get_text() for text in axis.texts)


@pytest.mark.parametrize("place", [0, 1])
def test_layers_show_time_and_share_in_both_precisions(place):
    types, dearest = layers()
    table = (types, dearest)[place]
    axis = FIGURES["layer_times"]().axes[place]
    widths = [[bar.get_width() for bar in bars] for bars in axis.containers]
    np.testing.assert_allclose(widths[0], table["fp32 milliseconds"])
    np.testing.assert_allclose(widths[1], table["int8 milliseconds"])
    words = [text.get_text() for text in axis.texts]
    assert words[0] == f"{table['fp32 share'].iloc[0]:.1%}" and "none" in words
