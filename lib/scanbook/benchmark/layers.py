"""Time of a prediction by layer, from OpenVINO's counters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook.benchmark.inference import OPENVINO, Models

_WARM_UP, _RUNS, _REPEATS = 5, 20, 5

PRECISIONS = ("fp32", "int8")


def profile(models: Models) -> pd.DataFrame:
    """Measure the time of every layer of a network in OpenVINO: one image, all threads, latency mode.

    OpenVINO fuses layers: a convolution's time includes the batch-norm and the activation after it.

    Returns:
        One row per executed layer, in order: `layer`, its number, kind and output size for one image (channels × height
        × width after the first transposition); `type`, OpenVINO's name of its kind; and its time in milliseconds as
        `fp32` and `int8`, NaN where a layer runs only in the other precision.
    """
    image = np.load(models.images, mmap_mode="r")[:1]
    tables = layer_times([models.paths[OPENVINO, precision] for precision in PRECISIONS], image)
    table = pd.concat(
        [times.add_suffix(f" {precision}") for precision, times in zip(PRECISIONS, tables, strict=True)], axis=1
    )
    columns = {name: table[f"{name} fp32"].fillna(table[f"{name} int8"]) for name in ("layer", "type", "place")}
    times = {precision: table[f"milliseconds {precision}"] for precision in PRECISIONS}
    merged = pd.DataFrame(columns | times).sort_values("place", kind="stable")
    merged["layer"] = [f"{place} {name}" for place, name in enumerate(merged["layer"], 1)]
    return merged.drop(columns="place").reset_index(drop=True)


def layer_times(paths: Sequence[Path], image: np.ndarray) -> list[pd.DataFrame]:
    """Measure the time of every layer of OpenVINO models in turn.

    The counters hold the mean of all runs since a model was compiled, in whole microseconds, and the first runs are
    slow. So each model is compiled five times and runs 5 times and then 20: the mean of the 20 follows from the two
    readings.

    Args:
        paths: `.xml` files.
        image: Their input, uint8 `(1, h, w, 3)`.

    Returns:
        One table per model. Index `node`, OpenVINO's name; `type`, `layer`, `place` in the order of execution, and
        `milliseconds`: median over the five of the mean of 20 runs.
    """
    readings: list[list[pd.DataFrame]] = [[] for _ in paths]
    for _ in range(_REPEATS):
        for path, tables in zip(paths, readings, strict=True):
            tables.append(_measure_once(path, image))
    medians = []
    for tables in readings:
        times = pd.concat([table["milliseconds"] for table in tables], axis=1).median(axis=1)
        last = tables[-1].assign(milliseconds=times, place=range(len(tables[-1])))
        medians.append(last.rename_axis("node"))
    return medians


def by_type(table: pd.DataFrame) -> pd.DataFrame:
    """Return the time by type of layer, the most expensive first.

    Args:
        table: From `profile`.

    Returns:
        Index `type`; for each precision, `layers`, `milliseconds` and `share` of all layers' time, such as
        "fp32 share".
    """
    columns = {}
    for precision in PRECISIONS:
        groups = table.groupby("type")[precision]
        columns |= {
            f"{precision} layers": groups.count(),
            f"{precision} milliseconds": groups.sum(),
            f"{precision} share": groups.sum() / table[precision].sum(),
        }
    return pd.DataFrame(columns).sort_values("fp32 milliseconds", ascending=False)


def most_expensive(table: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """Return the most expensive layers by their time in float32, or in int8 where they have none, in descending order.

    Args:
        table: From `profile`.
        count: Number of layers.

    Returns:
        Index `layer`; `type`, and for each precision its `milliseconds` and `share` of all layers' time.
    """
    cost = table["fp32"].fillna(table["int8"])
    rows = table.loc[cost.sort_values(ascending=False, kind="stable").index[:count]].set_index("layer")
    columns = {"type": rows["type"]}
    for precision in PRECISIONS:
        times = rows[precision]
        columns |= {f"{precision} milliseconds": times, f"{precision} share": times / table[precision].sum()}
    return pd.DataFrame(columns)


def _measure_once(path: Path, image: np.ndarray) -> pd.DataFrame:
    """Return type, layer and mean milliseconds of every executed layer of a newly compiled model."""
    import openvino as ov

    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": True}
    compiled = ov.Core().compile_model(str(path), "CPU", options)
    request = compiled.create_infer_request()
    before, after = (_read(request, image, runs) for runs in (_WARM_UP, _RUNS))
    total = after["mean"] * (_WARM_UP + _RUNS) - before["mean"] * _WARM_UP
    sizes = _sizes(compiled.get_runtime_model()).reindex(after.index).fillna("")
    return pd.DataFrame(
        {"type": after["type"], "layer": after["type"] + sizes, "milliseconds": total.clip(lower=0) / _RUNS}
    )


def _read(request: Any, image: np.ndarray, runs: int) -> pd.DataFrame:
    """Return type and mean milliseconds, since the model was compiled, of every executed layer after more runs."""
    for _ in range(runs):
        request.infer({0: image})
    rows = {
        # "FullyConnectedQuantizedLegacy" is a fully connected layer in int8
        node.node_name: (re.sub("(Quantized|Legacy|Compressed)+$", "", node.node_type), node.real_time.total_seconds())
        for node in request.get_profiling_info()
        if node.status == type(node).Status.EXECUTED
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["type", "mean"])
    return table.assign(mean=1000 * table["mean"])


def _sizes(graph: Any) -> pd.Series:
    """Return kernel and output size of every layer of a compiled model, whose names carry no meaning."""
    named = {node.get_friendly_name(): f"{_kernel(node)}{_output_size(node)}" for node in graph.get_ordered_ops()}
    return pd.Series(named, name="size", dtype=object)


def _kernel(node: Any) -> str:
    """Return height and width of a convolution's kernel, the last sizes of its second input."""
    if not _kind(node).endswith("Convolution") or _kind(node.input_value(1).get_node()) != "Const":
        return ""
    height, width = list(node.input_value(1).get_partial_shape().to_shape())[-2:]
    return f" {height}×{width}"


def _output_size(node: Any) -> str:
    """Return the size of a layer's output for one image."""
    if not node.get_output_size() or node.output(0).get_partial_shape().rank.is_dynamic:
        return ""
    sizes = [str(size) for size in list(node.output(0).get_partial_shape())[1:]]
    return f" → {'×'.join(sizes)}" if sizes else ""


def _kind(node: Any) -> str:
    return node.get_rt_info()["layerType"].astype(str)
