"""One model trained from several seeds: how far its figures scatter, and what the models say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from scanbook.errors import DataError
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
