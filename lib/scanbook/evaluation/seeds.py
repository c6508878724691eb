"""One model trained from several seeds: the scatter of its metrics, and differences that include that scatter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from scanbook.errors import DataError
from scanbook.evaluation.findings import AnyPredictions
from scanbook.evaluation.paired import Difference
from scanbook.evaluation.predictions import check_same
from scanbook.evaluation.registry import find_metrics
from scanbook.evaluation.resampling import UNBOUNDED, resample
from scanbook.evaluation.summary import default_metrics


def over_seeds(models: Mapping[int, AnyPredictions], metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Return the metrics of each seed and their scatter, which comes from training, not from the choice of patients.

    Args:
        models: Predictions by seed.
        metrics: Names in `METRICS`; none for those of `summary`.

    Returns:
        Index `metric`; columns `seed <seed>` each, then mean, sd (with n − 1; NaN of one seed), min and max.

    Raises:
        DataError: there is no model, or a metric is unknown.
    """
    if not models:
        raise DataError("there is no model to compare over seeds: expected the predictions of at least one")
    return _scatter({f"seed {seed}": model for seed, model in models.items()}, metrics)


def over_folds(predictions: AnyPredictions, metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Return the metrics of each fold and their scatter, which comes from training and from the choice of patients.

    Args:
        predictions: Pooled predictions of several folds.
        metrics: Names in `METRICS`; none for those of `summary`.

    Returns:
        Index `metric`; a column for each fold, then mean, sd (with n − 1), min and max over the folds in which the
        metric is defined.
    """
    folds = pd.unique(predictions.fold)
    return _scatter({name: replace(predictions.subset(predictions.fold == name), fold=None) for name in folds}, metrics)


def _scatter(models: Mapping[str, AnyPredictions], metrics: Sequence[str]) -> pd.DataFrame:
    first = next(iter(models.values()))
    chosen = find_metrics(first, metrics or default_metrics(first))
    points = {name: {metric.name: metric.point(model) for metric in chosen} for name, model in models.items()}
    table = pd.DataFrame(points).rename_axis("metric")
    return table.assign(mean=table.mean(axis=1), sd=table.std(axis=1), min=table.min(axis=1), max=table.max(axis=1))


def difference_over_seeds(
    a: Sequence[AnyPredictions], b: Sequence[AnyPredictions], metric: str = "auroc", rounds: int = 1000, seed: int = 0
) -> Difference:
    """Return the difference of two models' means over their seeds; both patients and seeds are samples.

    The variance is that of the means over resamples of whole groups, plus s²/n of each model's seeds (Welch, 1947).
    The interval is Student's, with Satterthwaite's degrees of freedom (1946); those of the resamples are infinite. The
    interval is a little too wide, because the effect of seeds on single images is in both terms. A model of one seed is
    taken to scatter as the other model does; with one seed each the scatter is unknown and not included.

    Args:
        a: Model a with each of its seeds.
        b: Model b, on the same images in the same order; the seeds may be others, and more or fewer.
        metric: Name in `METRICS`.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        The difference; NaN where the metric is one of all classes and the images lack a class.

    Raises:
        DataError: there is no model; images, labels, groups or classes differ; or the metric is unknown.
    """
    if not (len(a) and len(b)):
        raise DataError(
            "there is no model to compare over seeds: expected the predictions of at least one on each side"
        )
    for other in (*a, *b):
        check_same(a[0], other)
    [chosen] = find_metrics(a[0], [metric])
    if not chosen.defined(a[0]):
        return Difference(metric, *[math.nan] * 4)

    def by_seed(models: Sequence[AnyPredictions], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return np.stack([chosen.of(model)(weights) for model in models])

    def difference(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return by_seed(a, weights).mean(axis=0) - by_seed(b, weights).mean(axis=0)

    value = float(difference(None)[0])
    of_groups = float(np.nanvar(resample(difference, a[0].group, rounds, seed, a[0].fold, bounds=UNBOUNDED), ddof=1))
    scatter = [(float(by_seed(models, None).var(ddof=1)), len(models)) for models in (a, b) if len(models) > 1]
    if len(scatter) == 1:
        of_seeds = [(scatter[0][0] * (1 / len(a) + 1 / len(b)), scatter[0][1] - 1)]
    else:
        of_seeds = [(square / count, count - 1) for square, count in scatter]
    variance = of_groups + sum(term for term, _ in of_seeds)
    weighted = sum(term**2 / degrees for term, degrees in of_seeds)
    freedom = variance**2 / weighted if weighted else np.inf
    half = float(t.ppf(0.975, freedom) * np.sqrt(variance))
    p_value = float(2 * t.sf(abs(value) / np.sqrt(variance), freedom)) if variance else float(value == 0)
    return Difference(metric, value, value - half, value + half, p_value)
