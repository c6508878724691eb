"""The models of a study as notebook 05 reports them: of its one split, or of every outer fold of cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.config import Study
from scanbook.data import folds, inputs
from scanbook.data.exams import predict_exams
from scanbook.data.manifest import TEST, VALIDATION, Manifest
from scanbook.evaluation import AnyPredictions, Calibration, ExamRule
from scanbook.registry import short_name
from scanbook.training.final_models import train_final_models
from scanbook.training.trained_model import TrainedModel


@dataclass(frozen=True, eq=False)
class SplitModels:
    """The models that were trained on one split; everything was chosen on its training and validation images.

    Attributes:
        fold: What its test split is called: such as "fold 1 of 5"; "" where the study has one split.
        study: The study; of an outer fold, that of the fold.
        manifest: The dataset, split.
        images: Pixels of all its rows, uint8 `(n, h, w, 3)`.
        backbone: The backbone that validation chose.
        starts: The frozen backbone with its head, from which fine-tuning started, with each of the study's seeds.
        networks: The study's model with each of its seeds: fine-tuned, or left frozen.
        final: What is reported: the first network, or an average.
        tuned: The networks with all steps of fine-tuning, whether they are the study's model or not.
        averages: The first network and the averages from which the final model was chosen, by name.
    """

    fold: str
    study: Study
    manifest: Manifest
    images: np.ndarray
    backbone: str
    starts: list[TrainedModel]
    networks: list[TrainedModel]
    final: TrainedModel
    tuned: list[TrainedModel] = field(default_factory=list)
    averages: Mapping[str, TrainedModel] = field(default_factory=dict)

    @property
    def runs(self) -> list[TrainedModel]:
        """The base model, and the networks that differ from it."""
        return [self.starts[0], *(network for network in self.networks if network.folder != self.starts[0].folder)]

    def label_of(self, network: TrainedModel) -> str:
        """Return the label of one of the networks, which tells it from those of other folds."""
        return ", ".join(filter(None, (network.label, self.fold)))

    def calibrate(self) -> float | Calibration:
        """Return the calibration of the final model, fitted on its validation images."""
        return calibrate(self.study, self.manifest, self.final)


class StudyExams(NamedTuple):
    """Predictions for the exams of every split.

    Attributes:
        rules: How the images of an exam are combined, by fold: each fold's validation exams choose it.
        validation: Predictions for the validation exams, pooled.
        test: Predictions for the test exams, pooled.
        excluded: Number of test exams that are excluded, since their images have different classes.
    """

    rules: dict[str, ExamRule]
    validation: AnyPredictions
    test: AnyPredictions
    excluded: int


@dataclass(frozen=True, eq=False)
class StudyModels:
    """The models of every split of a study.

    Attributes:
        splits: The models of each: one, or one for each outer fold.
    """

    splits: Sequence[SplitModels]

    @property
    def first(self) -> SplitModels:
        """The models of the only split, or of the first fold."""
        return self.splits[0]

    @property
    def cross_validated(self) -> bool:
        """Whether there are several folds."""
        return len(self.splits) > 1

    @property
    def manifest(self) -> Manifest:
        """The dataset; with several folds, every image that is test in one of them is test."""
        manifest = self.first.manifest
        if not self.cross_validated:
            return manifest
        tested = np.any([(split.manifest.frame["split"] == TEST).to_numpy() for split in self.splits], axis=0)
        frame = manifest.frame.assign(split=np.where(tested, TEST, ""))
        note = (
            f"Cross-validation with {self.folds_in_words}: each of {tested.sum():,} images is test in a fold whose "
            "networks were trained and chosen on images of the others."
        )
        of_folds: dict[str, list[str]] = {}
        for split in self.splits:
            for text in split.manifest.facts.get("split_notes", ())[1:]:  # the first says which fold it is
                of_folds.setdefault(text, []).append(split.fold)
        named = (
            text if len(names) == len(self.splits) else f"In {', '.join(names)}: {text}"
            for text, names in of_folds.items()
        )
        return replace(manifest.with_frame(frame), facts=manifest.facts | {"split_notes": (note, *named)})

    @property
    def folds_in_words(self) -> str:
        """How many folds there are: "5 folds", "5 folds, made 2 times"."""
        repeats = self.first.study.splits.repeats
        return f"{len(self.splits) // repeats} folds" + (f", made {repeats} times" if repeats > 1 else "")

    @property
    def name(self) -> str:
        """Name of the final model; of folds that chose different backbones, one for all."""
        return _name_all([split.final for split in self.splits])

    @property
    def base_name(self) -> str:
        """Name of the model from which fine-tuning started, likewise."""
        name = _name_all([split.starts[0] for split in self.splits])
        tuned = any(split.final.name != split.starts[0].name for split in self.splits)
        return f"{name}, before fine-tuning" if tuned and name == self.name else name

    @property
    def kinds(self) -> str:
        """How the networks of the splits were trained: "fine-tuned", "frozen" or "from scratch", or several."""
        return " or ".join(dict.fromkeys(split.networks[0].kind for split in self.splits))

    @property
    def backbone(self) -> str:
        """The backbone; "" where the folds chose different ones."""
        names = {split.backbone for split in self.splits}
        return names.pop() if len(names) == 1 else ""

    @property
    def histories(self) -> dict[str, pd.DataFrame]:
        """History of every network, by seed and fold."""
        return {
            ", ".join(filter(None, (f"seed {network.seed}", split.fold))): network.history
            for split in self.splits
            for network in split.networks
        }

    def pool(self, predictions: Mapping[str, AnyPredictions]) -> AnyPredictions:
        """Return predictions by fold as one table, which knows the fold of each image; of one split, as they are."""
        return evaluation.pool(predictions) if self.cross_validated else next(iter(predictions.values()))

    def by_fold(self, function: Callable[[SplitModels], AnyPredictions]) -> AnyPredictions:
        """Return the pooled predictions that a function gives for the models of each split."""
        return self.pool({split.fold: function(split) for split in self.splits})

    def predict_exams(self, network_of: Callable[[SplitModels], TrainedModel]) -> StudyExams | None:
        """Return the predictions for exams, of a network of each split; None where a split has none to evaluate.

        Args:
            network_of: Returns the network of a split.
        """
        by_fold = {}
        for split in self.splits:
            logits = {part: network_of(split).logits(part) for part in (VALIDATION, TEST)}
            if (predicted := predict_exams(split.manifest, logits, split.study.seed)) is None:
                return None
            by_fold[split.fold] = predicted
        return StudyExams(
            {fold: each.rule for fold, each in by_fold.items()},
            self.pool({fold: each.validation for fold, each in by_fold.items()}),
            self.pool({fold: each.test for fold, each in by_fold.items()}),
            sum(each.excluded for each in by_fold.values()),
        )


def calibrate(study: Study, manifest: Manifest, network: TrainedModel) -> float | Calibration:
    """Return the calibration of a network, fitted on its validation images."""
    rows = manifest.rows(VALIDATION)
    groups = manifest.frame["group"].to_numpy()[rows]
    return evaluation.calibrate(manifest.labels.rows(rows), network.logits(VALIDATION), groups, study.seed)


def _name_all(networks: Sequence[TrainedModel]) -> str:
    """Return one name for the networks of all folds, such as "mobilenet_v2, frozen"."""
    if len({network.name for network in networks}) == 1:
        return networks[0].name
    endings = {network.name.removeprefix(f"{short_name(network.backbone)}, ") for network in networks}
    return f"best backbone of each fold, {endings.pop()}" if len(endings) == 1 else "best network of each fold"


def train_every_split(study: Study, prepare: Callable[[Study], Manifest]) -> StudyModels:
    """Train the models of a study, those of every outer fold where it has folds; find in the store what is there.

    Args:
        study: The study.
        prepare: Returns the dataset of a study, split: `segmentation.prepare`.

    Raises:
        DataError: As `splits.split_study`.
    """
    studies = folds.fold_studies(study)
    return StudyModels([train_split(each, prepare(each), cross_validated=len(studies) > 1) for each in studies])


def train_split(study: Study, manifest: Manifest, *, cross_validated: bool = False) -> SplitModels:
    """Train the models of a study on one split.

    Args:
        study: The study.
        manifest: The dataset, split.
        cross_validated: Whether its test split is one of several folds.
    """
    images = inputs.load(study, manifest)
    models = train_final_models(study, manifest, images)
    best = models.selected
    fold = manifest.facts["fold"] if cross_validated else ""
    return SplitModels(
        fold,
        study,
        manifest,
        images,
        best.backbone,
        best.starts,
        best.networks,
        models.final,
        tuned=best.tuned,
        averages=models.averages,
    )
