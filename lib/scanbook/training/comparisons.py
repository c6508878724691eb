"""Comparisons of trained networks: without and with augmentation, and by stage of fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scanbook.config import Study
from scanbook.data.manifest import VALIDATION, Manifest
from scanbook.evaluation import METRICS, AnyPredictions, Difference, main_metric, paired_difference
from scanbook.training.final_models import metric_of, score
from scanbook.training.study_models import SplitModels, StudyModels
from scanbook.training.trained_model import TrainedModel, validation_loss

_STAGES = {"head": "head on augmented images", "top": "and its top layers", "all": "and all layers"}
"""Names of the steps of fine-tuning in tables; what follows them there, such as ", 70 %", is the images' size."""


@dataclass(frozen=True)
class TrainingResult:
    """History and predictions of a network that was trained with one policy.

    Attributes:
        history: One row per epoch, with `accuracy` on the augmented training images, and `validation_loss`.
        validation: Predictions for the validation images.
        test: Predictions for the test images.
    """

    history: pd.DataFrame
    validation: AnyPredictions
    test: AnyPredictions


def scores_by_split(results: Mapping[str, TrainingResult]) -> pd.DataFrame:
    """Return the accuracy on the three splits; on training images, that of the epoch with the lowest validation loss.

    Of findings it is macro AUROC, which is not measured on training images.

    Args:
        results: Results by backbone.

    Returns:
        Index: backbones; columns `train` (of classes), `validation` and, on test, `accuracy` or `auroc`.
    """
    rows, metric = {}, "accuracy"
    for name, result in results.items():
        metric = main_metric(result.test)
        of_split = {"validation": result.validation, metric: result.test}
        rows[name] = {split: METRICS[metric].point(images) for split, images in of_split.items()}
        if metric == "accuracy":
            best = result.history["validation_loss"].idxmin()
            rows[name]["train"] = result.history["accuracy"][best]
    columns = [*(["train"] if metric == "accuracy" else []), "validation", metric]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def compare_augmentation(
    without: Mapping[str, TrainingResult], augmented: Mapping[str, TrainingResult], rounds: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, Difference]]:
    """Compare every backbone without and with augmentation.

    Args:
        without: Results on images without augmentation, by backbone.
        augmented: Results of the same backbones with a policy.
        rounds: Number of resamples of groups.
        seed: Seed of the resamples.

    Returns:
        Index: backbones; columns: `scores_by_split`, without and with, the difference on test with the ends of its
        paired 95 % interval. And the differences by backbone.
    """
    before, after = scores_by_split(without), scores_by_split(augmented)
    table = pd.DataFrame(index=before.index)
    for column in before:
        split = "test" if column == before.columns[-1] else column
        table[f"{split}, without"], table[f"{split}, with"] = before[column], after[column]
    differences = {
        name: paired_difference(augmented[name].test, without[name].test, rounds=rounds, seed=seed) for name in without
    }
    for column, field in (("difference on test", "value"), ("low", "low"), ("high", "high")):
        table[column] = [getattr(difference, field) for difference in differences.values()]
    return table.rename_axis("backbone"), differences


def validation_by_stage(models: StudyModels) -> pd.DataFrame:
    """Return the validation metrics of every stage of training; no metric uses test images.

    Args:
        models: The study's models; its `ordered` says whether the classes are grades.

    Returns:
        Index `step`; columns accuracy, auroc, kappa if the classes are grades, of findings auroc and auprc, and log
        loss: means over the seeds, then over the folds; and gain, the change in AUROC from the previous stage.
    """
    reported = {_role(split, split.final) for split in models.splits}
    # the start and the last stage are rows already; an average, or different choices of the folds, is one more
    final = models.name if len(reported) > 1 or "average" in reported else ""
    tables = [_stages_of_split(split, models.base_name, final) for split in models.splits]
    table = pd.concat(tables).groupby(level=0, sort=False).mean()  # not every fold may have chosen pretrained weights
    return table.assign(gain=table["auroc"].diff())


def gains_on_validation(models: StudyModels) -> pd.DataFrame:
    """Return what each choice among trained networks gave on validation, by the study's own metric.

    Args:
        models: The study's models.

    Returns:
        Index `choice`: fine-tuning, and each average; columns `metric`, its value `without` and `with`, the `change`,
        all means over the folds, and `chosen`, the number of folds whose final model has it.
    """
    rows: dict[str, list[tuple[float, float, bool]]] = {}
    for split in models.splits:
        study, manifest = split.study, split.manifest

        def mean(networks: Sequence[TrainedModel], study: Study = study, manifest: Manifest = manifest) -> float:
            return float(np.mean([score(study, manifest, network.logits(VALIDATION)) for network in networks]))

        single, *averages = split.averages.values()
        if split.tuned and split.tuned[0].folder != split.starts[0].folder:
            kept = split.networks[0].folder == split.tuned[0].folder
            rows.setdefault("fine-tuning", []).append((mean(split.starts), mean(split.tuned), kept))
        for network in averages:
            what = network.name.removeprefix(single.name).strip(", ")
            rows.setdefault(what, []).append((mean([single]), mean([network]), network is split.final))
    first = models.first
    table = pd.DataFrame(
        {
            "metric": METRICS[metric_of(first.study, first.manifest)].title,
            "without": {name: np.mean([row[0] for row in values]) for name, values in rows.items()},
            "with": {name: np.mean([row[1] for row in values]) for name, values in rows.items()},
            "chosen": {name: sum(row[2] for row in values) for name, values in rows.items()},
        },
        index=list(rows),
    )
    table.insert(3, "change", table["with"] - table["without"])
    return table.rename_axis("choice")


def _role(models: SplitModels, network: TrainedModel) -> str:
    """Return what one of a split's networks is: a "start", "fine-tuned", or an "average"."""
    if network.folder in [start.folder for start in models.starts]:
        return "start"
    return "fine-tuned" if network.folder in [tuned.folder for tuned in models.tuned or models.networks] else "average"


def _stages_of_split(models: SplitModels, start: str, final: str) -> pd.DataFrame:
    """Return the rows of one split, with the start and the final model by these names; "": the latter has no row."""
    study, manifest = models.study, models.manifest
    tuned = models.tuned or models.networks
    logits = {start: [network.logits(VALIDATION) for network in models.starts]}
    for name in tuned[0].stages:
        layers, *size = name.split(", ")
        title = f"{_STAGES[layers]}, images of {size[0]} of the size" if size else _STAGES[layers]
        logits[title] = [network.logits(name) for network in tuned]
    for name, network in models.averages.items():
        if _role(models, network) == "average":
            logits[name] = [network.logits(VALIDATION)]
    if final:
        logits[final] = [models.final.logits(VALIDATION)]
    names = ("auroc", "auprc") if manifest.findings else ("accuracy", "auroc", *(("kappa",) if study.ordered else ()))
    rows = {
        stage: np.mean([_metrics(manifest, values, names) for values in of_seeds], axis=0)
        for stage, of_seeds in logits.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*names, "log loss"]).rename_axis("step")


def _metrics(manifest: Manifest, logits: np.ndarray, names: Sequence[str]) -> list[float]:
    predictions = manifest.predictions(VALIDATION, logits)
    scores = [METRICS[name].point(predictions) for name in names]
    return [*scores, validation_loss(manifest, logits)]
