"""The final model of a study, chosen on validation: which backbone, fine-tuned or as it was, and what is averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanbook import evaluation
from scanbook.config import Study
from scanbook.data.manifest import VALIDATION, Manifest
from scanbook.errors import StudyError
from scanbook.registry import EMBEDDINGS
from scanbook.training import model_selection
from scanbook.training.trained_model import TrainedModel, validation_loss

_DIGITS = 6
"""Digits by which networks are compared: what was saved and loaded again differs in the next ones."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One backbone of a study, trained with each of its seeds.

    Attributes:
        backbone: Its name.
        starts: The frozen backbone with its head, from which fine-tuning started.
        tuned: The fine-tuned networks; where nothing is pretrained, the starts.
        networks: Of these two, the better ones on validation.
    """

    backbone: str
    starts: list[TrainedModel]
    tuned: list[TrainedModel]
    networks: list[TrainedModel]


@dataclass(frozen=True, eq=False)
class FinalModels:
    """The networks of a study and the choice among them.

    Attributes:
        selected: The backbone with the best networks.
        averages: Single network and averages from which the final model was chosen, by name.
        final: What is reported: the first network, or an average.
    """

    selected: Candidate
    averages: dict[str, TrainedModel]
    final: TrainedModel


def train_final_model(study: Study, manifest: Manifest, images: np.ndarray) -> TrainedModel:
    """Return the study's network of its first seed, which is exported; the networks of all seeds were compared."""
    return train_candidates(study, manifest, images)[0].networks[0]


def train_final_models(study: Study, manifest: Manifest, images: np.ndarray) -> FinalModels:
    """Return the study's networks with each of its seeds, and the final model.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
    """
    candidates = train_candidates(study, manifest, images)
    averages = average_models(study, manifest, images, candidates)
    if study.evaluation.averages == "always":
        final = list(averages.values())[-1]
    else:
        # of equals the first, which has the fewest networks and views
        final = max(averages.values(), key=lambda network: score(study, manifest, network.logits(VALIDATION)))
    return FinalModels(candidates[0], averages, final)


def train_candidates(study: Study, manifest: Manifest, images: np.ndarray) -> list[Candidate]:
    """Return the backbones that are fine-tuned, each trained with every seed; the best one comes first.

    The study's own metric on validation images decides, the mean over the seeds; where it is equal, their loss.

    Raises:
        StudyError: The study's metric is not one of its labels.
    """
    metric_of(study, manifest)  # before anything is trained
    studies, candidates = model_selection.seeded_studies(study), []
    for _, name, weights in model_selection.rank_base_models(study, manifest, images)[: study.fine_tuning.backbones]:
        if name == EMBEDDINGS:  # the model is the head on the vectors
            starts = tuned = [model_selection.train_head(seeded, manifest, images, name, weights) for seeded in studies]
        else:
            trainings = [
                model_selection.end_to_end_training(seeded, manifest, images, name, weights) for seeded in studies
            ]
            tuned = [training.run() for training in trainings]
            starts = [training.frozen or network for training, network in zip(trainings, tuned, strict=True)]
        candidates.append(Candidate(name, starts, tuned, _best(study, manifest, starts, tuned)))
    return sorted(candidates, key=lambda candidate: _rank(study, manifest, candidate.networks), reverse=True)


def _best(
    study: Study, manifest: Manifest, starts: list[TrainedModel], tuned: list[TrainedModel]
) -> list[TrainedModel]:
    """Return the fine-tuned networks if they are better than the frozen ones, else these."""
    return max(starts, tuned, key=lambda networks: _rank(study, manifest, networks))


def _rank(study: Study, manifest: Manifest, networks: Sequence[TrainedModel]) -> tuple[float, float]:
    """Return the mean of the study's own metric and of the negative loss on validation images."""
    logits = [network.logits(VALIDATION) for network in networks]
    scores = [score(study, manifest, values) for values in logits]
    losses = [validation_loss(manifest, values) for values in logits]
    return round(float(np.mean(scores)), _DIGITS), -round(float(np.mean(losses)), _DIGITS)


def score(study: Study, manifest: Manifest, logits: np.ndarray) -> float:
    """Return the study's own metric of validation logits, float `(m, k)`; 0 where it is not defined."""
    metric = evaluation.METRICS[metric_of(study, manifest)]
    return float(np.nan_to_num(metric.point(manifest.predictions(VALIDATION, logits))))


def metric_of(study: Study, manifest: Manifest) -> str:
    """Return the name of the metric by which validation chooses the final model.

    Raises:
        StudyError: The study names one that its labels do not have.
    """
    if metric := study.evaluation.metric:
        if metric not in evaluation.metrics_for(manifest, ordered=True):
            raise StudyError(
                f"study {study.study}: evaluation.metric is {metric}, which findings do not have; "
                "expected auroc or auprc"
            )
        return metric
    return "kappa" if study.ordered and not manifest.findings else evaluation.main_metric(manifest)


def average_models(
    study: Study, manifest: Manifest, images: np.ndarray, candidates: Sequence[Candidate]
) -> dict[str, TrainedModel]:
    """Return the first network and the averages that the study allows, by name, from few to many networks and views.

    Args:
        study: Study whose `evaluation.ensemble` and `evaluation.test_time_views` say what is averaged.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        candidates: The backbones that were fine-tuned, the best first.
    """
    networks = candidates[0].networks
    groups = [networks[:1]]
    if study.evaluation.ensemble:
        groups += [networks] if len(networks) > 1 else []
        if len(candidates) > 1:
            groups.append([network for candidate in candidates for network in candidate.networks])
    averages = [
        model_selection.average(study, manifest, images, members, views)
        for members in groups
        for views in dict.fromkeys((0, study.evaluation.test_time_views))
    ]
    return {network.name: network for network in averages}
