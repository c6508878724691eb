"""One model trained from several seeds: how far its figures scatter, and what the models say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from scanbook.errors import DataError
from scanbook.evaluation.bootstrap import resample
from scanbook.evaluation.paired import Difference
from scanbook.evaluation.predictions import Predictions, check_same
from scanbook.evaluation.summary import DEFAULT_METRICS, find_metric


def over_seeds(
    models: Mapping[int, Predictions] | Sequence[Predictions], metrics: Sequence[str] = DEFAULT_METRICS
) -> pd.DataFrame:
    """Metrics of each seed and their scatter, which is of training, not of the choice of patients.

    Args:
        models: predictions by seed; of a sequence the seeds are 0, 1, ….
        metrics: names in `METRICS`.

    Returns:
        Index `metric`; columns "seed <seed>" each, then mean, sd (with n − 1; NaN of one seed), min and max.

    Raises:
        DataError: there is no model, or a metric is unknown.
    """
    named = dict(models) if isinstance(models, Mapping) else dict(enumerate(models))
    if not named:
        raise DataError("there is no model to compare over seeds: expected the predictions of at least one")
    chosen = [find_metric(name) for name in metrics]
    table = pd.DataFrame(
        {
            f"seed {seed}": [metric.point(each.y_true, each.probabilities) for metric in chosen]
            for seed, each in named.items()
        },
        index=pd.Index([metric.name for metric in chosen], name="metric"),
    )
    values = table.copy()
    return table.assign(mean=values.mean(axis=1), sd=values.std(axis=1), min=values.min(axis=1), max=values.max(axis=1))


def difference_over_seeds(
    a: Sequence[Predictions], b: Sequence[Predictions], metric: str = "auroc", rounds: int = 1000, seed: int = 0
) -> Difference:
    """Difference of two models' means over their seeds, of which both the patients and the seeds are a sample.

    The variance is that of the means over resamples of whole groups, the same for all, plus s²/n of each model's seeds
    (Welch, 1947); the interval is Student's, with Satterthwaite's degrees of freedom (1946), the resamples' without
    end. It is a little too wide: what seeds make of single images is in both parts. A model of one seed is taken to
    scatter as the other does; of one seed each nothing is known of that, and the interval leaves it out.

    Args:
        a: model a with each of its seeds.
        b: model b, on the same images in the same order; the seeds may be others, and more or fewer.
        metric: name in `METRICS`.
        rounds: resamples.
        seed: of the resamples.

    Raises:
        DataError: there is no model; images, labels, groups or classes differ; or the metric is unknown.
    """
    if not (len(a) and len(b)):
        raise DataError(
            "there is no model to compare over seeds: expected the predictions of at least one on each side"
        )
    for other in (*a, *b):
        check_same(a[0], other)
    measure = find_metric(metric).compute

    def each(models: Sequence[Predictions], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return np.stack([measure(a[0].y_true, model.probabilities, weights) for model in models])

    def difference(weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
        return each(a, weights).mean(axis=0) - each(b, weights).mean(axis=0)

    value = float(difference(None)[0])
    of_groups = float(np.nanvar(resample(difference, a[0].group, rounds, seed), ddof=1))
    scatter = [(float(each(models, None).var(ddof=1)), len(models)) for models in (a, b) if len(models) > 1]
    if len(scatter) == 1:
        of_seeds = [(scatter[0][0] * (1 / len(a) + 1 / len(b)), scatter[0][1] - 1)]
    else:
        of_seeds = [(square / count, count - 1) for square, count in scatter]
    variance = of_groups + sum(part for part, _ in of_seeds)
    parts = sum(part**2 / degrees for part, degrees in of_seeds)
    freedom = variance**2 / parts if parts else np.inf
    half = float(t.ppf(0.975, freedom) * np.sqrt(variance))
    p_value = float(2 * t.sf(abs(value) / np.sqrt(variance), freedom)) if variance else float(value == 0)
    return Difference(metric, value, value - half, value + half, p_value)


def average(models: Sequence[Predictions]) -> Predictions:
    """An ensemble: the mean of the models' probabilities (Lakshminarayanan, Pritzel and Blundell, 2017).

    Args:
        models: predictions of the same images in the same order, by models of one class order.

    Raises:
        DataError: there is no model, or images, labels, groups or classes differ.
    """
    if len(models) == 0:
        raise DataError("there is no model to average: expected the predictions of at least one")
    for other in models[1:]:
        check_same(models[0], other)
    return replace(models[0], probabilities=np.mean([each.probabilities for each in models], axis=0))
