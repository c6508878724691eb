"""Decision curves: the net benefit of acting on a model's probabilities, beside treating all patients or none.

Who acts at a probability of p states by it what a false alarm costs: p / (1 - p) of a detected case.
The net benefit is the share of images that are detected, less that of false alarms at this price (Vickers and Elkin,
Medical Decision Making 26, 2006).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scanbook.errors import DataError
from scanbook.evaluation.metrics import ratio
from scanbook.evaluation.resampling import interval, interval_columns, resample

Floats = NDArray[np.float64]
THRESHOLDS = tuple(np.round(np.arange(0.01, 1.0, 0.01), 2).tolist())
"""Probabilities at which a decision curve is computed."""


def decision_curve(
    positive: ArrayLike,
    probability: ArrayLike,
    group: ArrayLike,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    rounds: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a model's net benefit over the probability from which it is acted on, with 95 % intervals over groups.

    Args:
        positive: (n,) bool, which images have the finding.
        probability: (n,) float, its calibrated probability.
        group: (n,) patient of each image.
        thresholds: m probabilities, above 0 and below 1.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `threshold`; columns net_benefit, the model's, and treat_all, that of treating everybody, each followed by
        its `_low` and `_high`. Treating nobody has a net benefit of 0. All are per image.

    Raises:
        DataError: A threshold is not above 0 and below 1, or the shapes differ.
    """
    truth, scores, cuts = np.asarray(positive, bool), np.asarray(probability, np.float64), np.asarray(thresholds, float)
    if truth.shape != scores.shape or truth.ndim != 1:
        raise DataError(
            f"labels have shape {truth.shape}, probabilities {scores.shape}: expected one of each per image"
        )
    outside = cuts[~((cuts > 0) & (cuts < 1))]
    if len(outside):
        raise DataError(f"a threshold is {outside[0]:g}: expected probabilities above 0 and below 1")
    called = scores[:, None] >= cuts
    hits, alarms = (np.asarray(called & side[:, None], np.float64) for side in (truth, ~truth))
    price = cuts / (1 - cuts)

    def benefits(weights: NDArray[np.floating]) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        share = ratio(weights @ truth[:, None].astype(np.float64), total)
        model = ratio(weights @ hits, total) - ratio(weights @ alarms, total) * price
        return np.stack([model, share - (1 - share) * price], axis=1)

    value = benefits(np.ones((1, len(truth))))[0]
    low, high = interval(resample(benefits, group, rounds, seed))
    columns: dict[str, Floats] = {}
    for place, name in enumerate(("net_benefit", "treat_all")):
        columns |= interval_columns(name, value[place], low[place], high[place])
    return pd.DataFrame(columns, index=pd.Index(cuts, name="threshold"))


def useful_range(curve: pd.DataFrame) -> tuple[float, float] | None:
    """Return between which thresholds the model is better than treating all and than treating none; None nowhere.

    Args:
        curve: As `decision_curve` gives. The range is of the point estimates, from first to last.
    """
    best = np.maximum(curve["treat_all"].to_numpy(), 0.0)
    places = np.flatnonzero(curve["net_benefit"].to_numpy() > best + 1e-12)
    return (float(curve.index[places[0]]), float(curve.index[places[-1]])) if len(places) else None
