"""Subgroups: the same metrics for each value of an attribute, such as sex, age band or camera, with counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scanbook.errors import DataError
from scanbook.evaluation.findings import AnyPredictions, FindingPredictions
from scanbook.evaluation.metrics import class_auroc
from scanbook.evaluation.registry import find_metrics, has_findings
from scanbook.evaluation.summary import finding_statistics, summary

AGE_EDGES = (30, 50, 70)
LEAST_IMAGES = 10
"""Fewest images of a subgroup whose metrics are computed."""
_MISSING = "not recorded"


def bands(values: ArrayLike) -> pd.Series:
    """Return a numeric attribute as named bands, for `subgroups`.

    Args:
        values: (n,) numbers, or text that holds them; anything else counts as missing. A Series whose name holds the
            word "age" ("age_years") is divided at `AGE_EDGES`, others at their quartiles.

    Returns:
        (n,) ordered categories with the index and name of `values`, missing where the value is. A value on an edge
        belongs to the band above it. Ages and whole numbers: "under 30", "30–49", "50–69", "70 and over"; others
        "12.5 to under 20".

    Raises:
        DataError: no value is a number.
    """
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values))
    numbers = pd.to_numeric(series, errors="coerce").replace([np.inf, -np.inf], np.nan)
    if numbers.isna().all():
        raise DataError(f"none of the {len(series)} values is a number: bands need some; pass names as they are")
    is_age = re.search(r"(^|[^a-z])age([^a-z]|$)", str(series.name).lower()) is not None
    quartiles = np.unique(numbers.quantile([0.25, 0.5, 0.75]))
    # A band below all values would be empty.
    edges = list(AGE_EDGES) if is_age else quartiles[quartiles > numbers.min()].tolist()
    if not edges:
        names = ["all"]
    else:
        whole = is_age or bool((np.r_[numbers.dropna(), edges] % 1 == 0).all())
        names = [f"under {edges[0]:.6g}", *(_between(*ends, whole) for ends in pairwise(edges))]
        names.append(f"{edges[-1]:.6g} and over")
    codes = np.where(numbers.isna(), -1, np.searchsorted(np.asarray(edges, np.float64), numbers, side="right"))
    return pd.Series(pd.Categorical.from_codes(codes, names, ordered=True), index=series.index, name=series.name)


def attribute(frame: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of metadata for `subgroups`: numbers in bands, names unchanged.

    Args:
        frame: One row per image, such as a manifest's.
        column: Name of the column.

    Raises:
        DataError: the column does not exist.
    """
    if column not in frame:
        raise DataError(f"no metadata {column!r} for subgroups; expected one of {', '.join(map(str, frame.columns))}")
    values = frame[column]
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return values.astype(object).replace("", None)
    return bands(values) if values.notna().any() else values


def subgroups(
    predictions: AnyPredictions,
    values: ArrayLike,
    metrics: Sequence[str] = (),
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the same metrics for each value of an attribute.

    Args:
        predictions: n images.
        values: (n,) the attribute of each image, as `attribute` returns it; missing values are a subgroup of their own,
            "not recorded".
        metrics: Names in `METRICS`; none for accuracy and AUROC, of findings for AUROC and AUPRC. They are of the
            classes that the subgroup has, which may be fewer: see `classes`.
        rounds: Number of resamples, within each subgroup.
        seed: Seed of the resamples.

    Returns:
        Index `subgroup` (categories in their order, else by name, "not recorded" last), `metric`; columns images,
        groups (patients), classes (that have images) or findings (that have positives and negatives), value, low, high.
        A subgroup of fewer than 10 images has counts only, the rest is NaN: a metric would depend more on these few
        images than on the model.

    Raises:
        DataError: there is not one value per image, or a metric is unknown.
    """
    metrics = metrics or (("auroc", "auprc") if has_findings(predictions) else ("accuracy", "auroc"))
    names = pd.Index([metric.name for metric in find_metrics(predictions, metrics)], name="metric")
    kind = "findings" if has_findings(predictions) else "classes"
    tables = {}
    for subgroup, subset in _subsets(predictions, values).items():
        if len(subset) < LEAST_IMAGES:
            table = pd.DataFrame(np.nan, index=names, columns=["value", "low", "high"])
        else:
            table = summary(subset, metrics, rounds, seed, every_class=False)
        table.insert(0, "images", len(subset))
        table.insert(1, "groups", len(np.unique(subset.group)))
        table.insert(2, kind, len(subset.names) - len(subset.absent))
        tables[subgroup] = table
    return pd.concat(tables, names=["subgroup"])


def finding_subgroups(
    predictions: FindingPredictions, values: ArrayLike, rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return the AUROC of each finding for each value of an attribute.

    Args:
        predictions: n images.
        values: (n,) as for `subgroups`.
        rounds: Number of resamples, within each subgroup.
        seed: Seed of the resamples.

    Returns:
        Index `finding`, `subgroup`; columns positives and negatives (images), auroc, auroc_low and auroc_high, which
        are NaN where there are fewer than 10 labelled images, no positive or no negative.

    Raises:
        DataError: There is not one value per image.
    """
    tables = {}
    for subgroup, subset in _subsets(predictions, values).items():
        areas = pd.DataFrame(finding_statistics(subset, {"auroc": class_auroc}, rounds, seed))
        table = areas.iloc[:-1].set_axis(list(subset.findings))
        positives, negatives = (subset.y_true == 1).sum(axis=0), (subset.y_true == 0).sum(axis=0)
        table[positives + negatives < LEAST_IMAGES] = np.nan
        table.insert(0, "positives", positives)
        table.insert(1, "negatives", negatives)
        tables[subgroup] = table
    table = pd.concat(tables, names=["subgroup", "finding"])
    return pd.concat({name: table.xs(name, level="finding") for name in predictions.findings}, names=["finding"])


def _subsets(predictions: AnyPredictions, values: ArrayLike) -> dict[str, AnyPredictions]:
    """Return the predictions of each subgroup that has images, in the order of `subgroups`."""
    series = pd.Series(values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values, dtype=object))
    if len(series) != len(predictions):
        raise DataError(f"{len(series)} values for {len(predictions)} images: expected one per image, in their order")
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        order = [str(name) for name in values.cat.categories]
    else:
        order = sorted(series.dropna().astype(str).unique())
    # A value that is already called "not recorded" joins the missing ones.
    names = series.astype(str).where(series.notna(), _MISSING).to_numpy()
    order = [*(name for name in order if name != _MISSING), _MISSING]
    return {name: predictions.subset(names == name) for name in order if (names == name).any()}


def _between(lower: float, upper: float, whole: bool) -> str:
    if not whole:
        return f"{lower:.6g} to under {upper:.6g}"
    return f"{lower:.6g}" if upper - lower == 1 else f"{lower:.6g}–{upper - 1:.6g}"
