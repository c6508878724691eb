"""Whom a model serves less well: the same metrics for each value of an attribute, with counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scanbook.errors import DataError
from scanbook.evaluation.predictions import Predictions
from scanbook.evaluation.summary import find_metric, summary

AGE_EDGES = (30, 50, 70)
LEAST_IMAGES = 10
_MISSING = "not recorded"


def bands(values: ArrayLike, edges: Sequence[float] | None = None) -> pd.Series:
    """A numeric attribute as named bands, for `subgroups`.

    Args:
        values: (n,) numbers, or text that holds them; what is not a number counts as missing.
        edges: where the bands meet, rising; a value on an edge belongs to the band above it. None takes `AGE_EDGES` for
            a Series whose name holds the word "age" ("age_years"), and quartiles of the values otherwise.

    Returns:
        (n,) ordered categories with the index and name of `values`, missing where the value is. Ages and whole
        numbers: "under 30", "30–49", "50–69", "70 and over"; else "12.5 to under 20".

    Raises:
        DataError: no value is a number, or the edges do not rise.
    """
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values))
    numbers = pd.to_numeric(series, errors="coerce").replace([np.inf, -np.inf], np.nan)
    if numbers.isna().all():
        raise DataError(f"none of the {len(series)} values is a number: bands need some; pass names as they are")
    by_age = edges is None and re.search(r"(^|[^a-z])age([^a-z]|$)", str(series.name).lower()) is not None
    if edges is None:
        edges = AGE_EDGES if by_age else np.unique(numbers.quantile([0.25, 0.5, 0.75])).tolist()
        # A band below all values would hold nothing.
        edges = edges if by_age else [edge for edge in edges if edge > numbers.min()]
    if not all(below < above for below, above in pairwise(edges)):
        raise DataError(f"edges are {list(edges)}: expected rising numbers")
    if len(edges) == 0:
        names = ["all"]
    else:
        whole = by_age or bool((np.r_[numbers.dropna(), edges] % 1 == 0).all())
        names = [f"under {_short(edges[0])}", *(_between(*ends, whole) for ends in pairwise(edges))]
        names.append(f"{_short(edges[-1])} and over")
    places = np.where(numbers.isna(), -1, np.searchsorted(np.asarray(edges, np.float64), numbers, side="right"))
    return pd.Series(pd.Categorical.from_codes(places, names, ordered=True), index=series.index, name=series.name)


def attribute(frame: pd.DataFrame, column: str) -> pd.Series:
    """A column of metadata as subgroups: numbers in bands, names as they are.

    Args:
        frame: One row an image, such as a manifest's.
        column: Its column.

    Raises:
        DataError: there is no such column.
    """
    if column not in frame:
        raise DataError(f"no metadata {column!r} for subgroups; expected one of {', '.join(map(str, frame.columns))}")
    values = frame[column]
    if pd.api.types.is_bool_dtype(values) or not pd.api.types.is_numeric_dtype(values):
        return values.astype(object).replace("", None)
    return bands(values) if values.notna().any() else values


def subgroups(
    predictions: Predictions,
    values: ArrayLike,
    metrics: Sequence[str] = ("accuracy", "auroc"),
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The same metrics for each value of an attribute (sex, age band, camera), to show whom a model serves less well.

    Args:
        predictions: n images.
        values: (n,) the attribute of each image; a missing value is a subgroup, "not recorded". `bands` makes one of
            ages.
        metrics: names in `METRICS`. A macro mean is over the classes that the subgroup has, which may be fewer.
        rounds: resamples, within each subgroup.
        seed: of the resamples.

    Returns:
        Index `subgroup` (categories in their order, else by name, "not recorded" last), `metric`; columns images,
        groups (patients), value, low, high. Of fewer than 10 images only the counts are told, the rest is NaN: a figure
        would say more about the few images than about the model.

    Raises:
        DataError: there is not one value per image, or a metric is unknown.
    """
    titles = [find_metric(name).name for name in metrics]
    tables = {}
    for name, part in _parts(predictions, values).items():
        if len(part) < LEAST_IMAGES:
            table = pd.DataFrame(np.nan, index=pd.Index(titles, name="metric"), columns=["value", "low", "high"])
        else:
            table = summary(part, metrics, rounds, seed)
        table.insert(0, "images", len(part))
        table.insert(1, "groups", len(np.unique(part.group)))
        tables[name] = table
    return pd.concat(tables, names=["subgroup"])


def subgroup_counts(predictions: Predictions, values: ArrayLike) -> pd.DataFrame:
    """How many images of each class every subgroup holds.

    Args:
        predictions: n images.
        values: (n,) as for `subgroups`.

    Returns:
        Index `subgroup`, as in `subgroups`; columns images, groups (patients), then one a class, in class order; int64.

    Raises:
        DataError: there is not one value per image.
    """
    rows = {
        name: [len(part), len(np.unique(part.group)), *np.bincount(part.y_true, minlength=len(part.classes))]
        for name, part in _parts(predictions, values).items()
    }
    columns = ["images", "groups", *predictions.classes]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("subgroup").astype(np.int64)


def _parts(predictions: Predictions, values: ArrayLike) -> dict[str, Predictions]:
    given = pd.Series(values.to_numpy() if isinstance(values, pd.Series) else np.asarray(values, dtype=object))
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.CategoricalDtype):
        order = [str(name) for name in values.cat.categories]
    else:
        order = sorted(given.dropna().astype(str).unique())
    if len(given) != len(predictions):
        raise DataError(f"{len(given)} values for {len(predictions)} images: expected one per image, in their order")
    missing = given.isna().to_numpy()
    names = given.astype(str).to_numpy()
    parts = {name: np.flatnonzero(~missing & (names == name)) for name in order}
    # A value that is called so already joins those that are missing.
    parts[_MISSING] = np.union1d(parts.pop(_MISSING, np.array([], np.int64)), np.flatnonzero(missing)).astype(np.int64)
    return {name: predictions.subset(rows) for name, rows in parts.items() if len(rows)}


def _between(below: float, above: float, whole: bool) -> str:
    if not whole:
        return f"{_short(below)} to under {_short(above)}"
    return _short(below) if above - below == 1 else f"{_short(below)}–{_short(above - 1)}"


def _short(number: float) -> str:
    return f"{number:.6g}"
