"""What each step of the way to the final model gave, on validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scanbook.evaluation import METRICS, Predictions
from scanbook.manifest import VALIDATION, Manifest
from scanbook.study import Study
from scanbook.training.trained import Trained, validation_loss

_STAGES = {"head": "head on augmented images", "top": "and its top layers", "all": "and all layers"}


def by_step(
    study: Study, manifest: Manifest, start: Trained, networks: Sequence[Trained], final: Trained
) -> pd.DataFrame:
    """Validation figures of every step: none of them is of test images.

    Args:
        study: Says whether the classes are grades.
        manifest: The dataset, split.
        start: The network that fine-tuning started from.
        networks: The study's model with each of its seeds.
        final: The model that is reported: one of them, or their average.

    Returns:
        Index `step`; columns accuracy, auroc, kappa where the classes are grades, and log loss: means over the seeds;
        and gain, the change in AUROC since the step before.
    """
    logits = {start.name: [start.logits(VALIDATION)]}
    for step in networks[0].steps:
        logits[_STAGES[step]] = [each.logits(step) for each in networks]
    if final not in networks:
        logits[final.name] = [final.logits(VALIDATION)]
    names = ("accuracy", "auroc", *(("kappa",) if study.ordered else ()))
    rows = {
        step: np.mean([_figures(manifest, each, names) for each in found], axis=0) for step, found in logits.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*names, "log loss"]).rename_axis("step")
    return table.assign(gain=table["auroc"].diff())


def _figures(manifest: Manifest, logits: np.ndarray, names: Sequence[str]) -> list[float]:
    found = Predictions.from_logits(manifest, VALIDATION, logits)
    scores = [METRICS[name].point(found.y_true, found.probabilities) for name in names]
    return [*scores, validation_loss(manifest, logits)]
