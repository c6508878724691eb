"""Where the time of a prediction goes: OpenVINO's counters, layer by layer."""

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
    """Time of every layer of a network in OpenVINO, one image, all threads, latency mode.

    OpenVINO fuses what it can: a convolution's time includes the batch-norm and the activation after it.

    Returns:
        One row a layer that ran, in order: `layer`, its number, what it is and the size of what it makes of an image
        (channels × height × width behind the first transposition); `type`, OpenVINO's name of its kind; and its time
        in milliseconds as `fp32` and `int8`, NaN where a layer runs in the other alone.
    """
    image = np.load(models.images, mmap_mode="r")[:1]
    found = layer_times([models.paths[OPENVINO, each] for each in PRECISIONS], image)
    table = pd.concat([times.add_suffix(f" {each}") for each, times in zip(PRECISIONS, found, strict=True)], axis=1)
    both = {name: table[f"{name} fp32"].fillna(table[f"{name} int8"]) for name in ("layer", "type", "place")}
    times = {each: table[f"milliseconds {each}"] for each in PRECISIONS}
    merged = pd.DataFrame(both | times).sort_values("place", kind="stable")
    merged["layer"] = [f"{place} {name}" for place, name in enumerate(merged["layer"], 1)]
    return merged.drop(columns="place").reset_index(drop=True)


def layer_times(paths: Sequence[Path], image: np.ndarray) -> list[pd.DataFrame]:
    """Time of every layer of OpenVINO models, which take turns.

    The counters keep the mean of all runs since a model was compiled, the slow first ones too, in whole microseconds.
    So each model is compiled afresh five times, and runs 5 times and then 20: the mean of the 20 follows from the two
    readings.

    Args:
        paths: `.xml` files.
        image: What they run on, uint8 `(1, h, w, 3)`.

    Returns:
        A table a model. Index `node`, OpenVINO's name; `type`, `layer`, `place` in the order of execution, and
        `milliseconds`: median over the five of the mean of 20 runs.
    """
    readings: list[list[pd.DataFrame]] = [[] for _ in paths]
    for _ in range(_REPEATS):
        for path, found in zip(paths, readings, strict=True):
            found.append(_once(path, image))
    tables = []
    for found in readings:
        table = found[-1].copy()
        table["milliseconds"] = pd.concat([each["milliseconds"] for each in found], axis=1).median(axis=1)
        tables.append(table.assign(place=range(len(table))).rename_axis("node"))
    return tables


def by_type(table: pd.DataFrame) -> pd.DataFrame:
    """Time by type of layer, the most expensive first.

    Args:
        table: From `profile`.

    Returns:
        Index `type`; for each precision, `layers`, `milliseconds` and `share` of all layers' time, such as
        "fp32 share".
    """
    found = {}
    for each in PRECISIONS:
        groups = table.groupby("type")[each]
        found |= {
            f"{each} layers": groups.count(),
            f"{each} milliseconds": groups.sum(),
            f"{each} share": groups.sum() / table[each].sum(),
        }
    return pd.DataFrame(found).sort_values("fp32 milliseconds", ascending=False)


def dearest(table: pd.DataFrame, count: int = 10) -> pd.DataFrame:
    """The most expensive layers by their time in float32, where they have one, the dearest first.

    Args:
        table: From `profile`.
        count: How many.

    Returns:
        Index `layer`; `type`, and for each precision its `milliseconds` and `share` of all layers' time.
    """
    cost = table["fp32"].fillna(table["int8"])
    rows = table.loc[cost.sort_values(ascending=False, kind="stable").index[:count]].set_index("layer")
    found = {"type": rows["type"]}
    for each in PRECISIONS:
        found |= {f"{each} milliseconds": rows[each], f"{each} share": rows[each] / table[each].sum()}
    return pd.DataFrame(found)


def _once(path: Path, image: np.ndarray) -> pd.DataFrame:
    """Type, layer and mean milliseconds of every layer that runs, of a model compiled afresh."""
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
    """Type and mean milliseconds, since the model was compiled, of every layer that ran, after further runs."""
    for _ in range(runs):
        request.infer({0: image})
    rows = {
        # "FullyConnectedQuantizedLegacy" is a fully connected layer in int8
        each.node_name: (re.sub("(Quantized|Legacy|Compressed)+$", "", each.node_type), each.real_time.total_seconds())
        for each in request.get_profiling_info()
        if each.status == type(each).Status.EXECUTED
    }
    found = pd.DataFrame.from_dict(rows, orient="index", columns=["type", "mean"])
    return found.assign(mean=1000 * found["mean"])


def _sizes(graph: Any) -> pd.Series:
    """What every layer of a compiled model makes; the names of a converted one say nothing ("Transpose_2865")."""
    named = {node.get_friendly_name(): f"{_kernel(node)}{_made(node)}" for node in graph.get_ordered_ops()}
    return pd.Series(named, name="size", dtype=object)


def _kernel(node: Any) -> str:
    """Height and width of a convolution's kernel: its weights, the second input, end in them."""
    if not _kind(node).endswith("Convolution") or _kind(node.input_value(1).get_node()) != "Const":
        return ""
    height, width = list(node.input_value(1).get_partial_shape().to_shape())[-2:]
    return f" {height}×{width}"


def _made(node: Any) -> str:
    """Size of a layer's output for one image."""
    if not node.get_output_size() or node.output(0).get_partial_shape().rank.is_dynamic:
        return ""
    sides = [str(each) for each in list(node.output(0).get_partial_shape())[1:]]
    return f" → {'×'.join(sides)}" if sides else ""


def _kind(node: Any) -> str:
    return node.get_rt_info()["layerType"].astype(str)
