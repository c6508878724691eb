"""Metrics over seeds: the scatter of training."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.models import simulated
from scanbook import evaluation as ev
from scanbook.errors import DataError


def test_over_seeds_is_the_scatter_of_training():
    models = {7: simulated(seed=1), 8: simulated(seed=2), 11: simulated(seed=3)}
    table = ev.over_seeds(models, ("accuracy", "brier"))
    assert list(table.columns) == ["seed 7", "seed 8", "seed 11", "mean", "sd", "min", "max"]
    values = [model.correct.mean() for model in models.values()]
    row = table.loc["accuracy"]
    assert row[:3].tolist() == pytest.approx(values)
    assert row[["mean", "sd", "min", "max"]].tolist() == pytest.approx(
        [np.mean(values), np.std(values, ddof=1), min(values), max(values)]
    )
    assert np.isnan(ev.over_seeds({7: models[7]}).loc["accuracy", "sd"])
    with pytest.raises(DataError, match="no model"):
        ev.over_seeds({})
