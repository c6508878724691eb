"""Tables as a page shows them: a value and its interval in one cell, and names in words with their units."""

from __future__ import annotations

import pandas as pd
from pandas.api.types import is_numeric_dtype

from scanbook.evaluation import METRICS, with_interval
from scanbook.reporting.records import UNDEFINED

NAMES = {
    **{name: metric.title for name, metric in METRICS.items()},
    **{"auc": "AUC", "class_auc": "AUC of the class", "f1": "F1", "ppv": "PPV", "npv": "NPV"},
    **{"p_value": "p", "p_holm": "p (Holm)"},
    **{"width_px": "width (pixels)", "height_px": "height (pixels)", "hd95": "95 % Hausdorff distance (pixels)"},
    **{"seconds": "time (s)", "milliseconds": "time (ms)", "p50": "p50 (ms)", "p95": "p95 (ms)", "p99": "p99 (ms)"},
    **{"load": "loading (s)", "first": "first call (s)", "cold_start": "cold start (s)", "speedup": "speed-up"},
    **{"memory": "peak memory (MiB)", "size": "size (MiB)", "mib": "size (MiB)", "memory_gb": "memory (GB)"},
    **{"vcpus": "vCPUs", "gpu": "GPU", "gpus": "GPUs", "isa": "instruction set", "usd_per_hour": "USD per hour"},
    **{"usd_per_million": "USD per million predictions", "images_per_second": "images per second"},
    **{"sha256": "SHA-256", "image_id": "image", "iou": "intersection over union", "dice": "Dice"},
}
"""Names that are not their own words with spaces in place of underscores."""
_OF_ONE = {"class": {"auroc": "AUROC", "auprc": "AUPRC"}}
_OF_ONE["finding"] = _OF_ONE["class"]
"""Names of columns in tables with a row per class or finding, whose values are not means over them."""
_NAMED = ("metric", "comparison", "property", "column")
"""Indexes and columns whose values are names of columns elsewhere."""
_METRICS = {*METRICS, "value", "sensitivity", "specificity", "precision", "f1", "ppv", "npv", "threshold"}
_METRICS |= {"internal", "external", "flagged"}
_CHANGES = ("difference", "gain", "change", "gap")
"""First words of columns whose values have a sign."""


def readable(frame: pd.DataFrame) -> tuple[pd.DataFrame, bool]:
    """Return a table as a page shows it, and whether it has intervals.

    A column that is followed by its ends, `low` and `high` or `<name>_low` and `<name>_high`, or `<name>.value` by
    `<name>.low` and `<name>.high`, becomes one of texts such as "0.673 (0.559–0.770)".

    Args:
        frame: A table; one with several levels of columns is returned as it is.
    """
    if frame.columns.nlevels > 1:
        return frame, False
    names, columns, intervals = [], [], False
    position = 0
    while position < frame.shape[1]:
        name = str(frame.columns[position])
        column = frame.iloc[:, position]
        if _has_ends(frame, position):
            rows = frame.iloc[:, position : position + 3].to_numpy(float)
            texts = [with_interval(*row, signed=name.startswith(_CHANGES)) for row in rows]
            column, intervals = pd.Series(texts, frame.index, dtype=object), True
            name, position = name.removesuffix(".value"), position + 2
            column = column.replace("–", UNDEFINED) if name in _METRICS else column
        elif name in _METRICS and column.isna().any():
            column = column.astype(object).where(column.notna(), UNDEFINED)
        elif name in _NAMED and not is_numeric_dtype(column):
            column = column.map(words)
        names.append(_OF_ONE.get(frame.index.name, {}).get(name) or words(name))
        columns.append(column)
        position += 1
    table = pd.concat(columns, axis=1).set_axis(names, axis=1) if columns else frame
    return table.rename(index=words) if frame.index.name in _NAMED else table, intervals


def words(name: str) -> str:
    """Return a column's name in words: "balanced_accuracy" is "balanced accuracy"."""
    return NAMES.get(name, name.replace("_", " "))


def _has_ends(frame: pd.DataFrame, position: int) -> bool:
    """Return whether a column of numbers is followed by the ends of its intervals."""
    name, following = frame.columns[position], list(frame.columns[position + 1 : position + 3])
    stem = str(name).removesuffix(".value")
    named = following in (["low", "high"], [f"{name}_low", f"{name}_high"], [f"{stem}.low", f"{stem}.high"])
    return named and all(is_numeric_dtype(dtype) for dtype in frame.dtypes.iloc[position : position + 3])
