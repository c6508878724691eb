"""Trained networks side by side: without and with augmentation, and step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scanbook.config import Study
from scanbook.data.manifest import VALIDATION, Manifest
from scanbook.evaluation import METRICS, Difference, Predictions, paired_difference
from scanbook.training import Trained, validation_loss

_STAGES = {"head": "head on augmented images", "top": "and its top layers", "all": "and all layers"}


@dataclass(frozen=True)
class Arm:
    """What training a network with one policy came to.

    Attributes:
        history: A row an epoch, with `accuracy` on the training images as the policy shows them, and `validation_loss`.
        validation: Predictions for the validation images.
        test: Predictions for the test images.
    """

    history: pd.DataFrame
    validation: Predictions
    test: Predictions


def accuracies(arms: Mapping[str, Arm]) -> pd.DataFrame:
    """Accuracy of arms on the three parts; on training images, that of the epoch which was kept.

    Args:
        arms: By backbone.

    Returns:
        Index: backbones; columns `train`, `validation` and, on test, `accuracy`.
    """
    rows = {}
    for name, arm in arms.items():
        kept = arm.history["validation_loss"].idxmin()
        measured = {"validation": arm.validation.correct.mean(), "accuracy": arm.test.correct.mean()}
        rows[name] = {"train": arm.history["accuracy"][kept]} | measured
    return pd.DataFrame.from_dict(rows, orient="index", columns=["train", "validation", "accuracy"])


def benefit(
    without: Mapping[str, Arm], augmented: Mapping[str, Arm], rounds: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, Difference]]:
    """Does augmentation help? The two arms of every backbone side by side.

    Args:
        without: Arms trained on images as they are, by backbone.
        augmented: Arms of the same backbones trained with a policy.
        rounds: Resamples of groups.
        seed: Seed of the resamples.

    Returns:
        Index: backbones; columns: accuracy on each part, without and with, the difference on test with the ends of its
        paired 95 % interval. And the differences by backbone.
    """
    before, after = accuracies(without), accuracies(augmented)
    table = pd.DataFrame(index=before.index)
    for column in before:
        split = "test" if column == "accuracy" else column
        table[f"{split}, without"], table[f"{split}, with"] = before[column], after[column]
    differences = {
        name: paired_difference(augmented[name].test, without[name].test, "accuracy", rounds, seed) for name in without
    }
    for column, field in (("difference on test", "value"), ("low", "low"), ("high", "high")):
        table[column] = [getattr(each, field) for each in differences.values()]
    return table.rename_axis("backbone"), differences


def by_step(
    study: Study, manifest: Manifest, starts: Sequence[Trained], networks: Sequence[Trained], final: Trained
) -> pd.DataFrame:
    """Validation figures of every step: none of them is of test images.

    Args:
        study: Says whether the classes are grades.
        manifest: The dataset, split.
        starts: The networks that fine-tuning started from, with each of the study's seeds.
        networks: The study's model with each of its seeds.
        final: The model that is reported: one of them, or their average.

    Returns:
        Index `step`; columns accuracy, auroc, kappa where the classes are grades, and log loss: means over the seeds;
        and gain, the change in AUROC since the step before.
    """
    logits = {starts[0].name: [each.logits(VALIDATION) for each in starts]}
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
    found = manifest.predictions(VALIDATION, logits)
    scores = [METRICS[name].point(found.y_true, found.probabilities) for name in names]
    return [*scores, validation_loss(manifest, logits)]
