"""The model that is exported: the study's network, one that learns from the images of all folds, or their average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scanbook.config import Study
from scanbook.data import adapters, folds, inputs
from scanbook.data.manifest import Manifest
from scanbook.errors import StudyError
from scanbook.evaluation import Calibration
from scanbook.models import backbones, engines
from scanbook.training import objectives
from scanbook.training.final_models import train_final_model
from scanbook.training.study_models import StudyModels, calibrate, train_every_split
from scanbook.training.trained_model import TrainedModel

_CROSS_VALIDATED = (
    "Cross-validated with {folds}: each image was predicted by networks that learned from images of the other "
    "folds alone. "
)
_EXPORTED = {
    "all_images": "The exported network learned from the images of all folds.",
    "fold_average": "The exported model is the average of the probabilities of the folds' networks.",
}


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """A model as it is exported, and the predictions that its card shows.

    Attributes:
        study: The study.
        manifest: The dataset, split as the model took it. Of an average, with the source's test split or, where that is
            in the folds, as the first fold took it: some of its networks learned from the images of other splits.
        images: Pixels of all its rows, uint8 `(n, h, w, 3)`.
        members: Its networks, each with its calibration; more than one of an average, whose probabilities are averaged.
        models: The models of every fold; None where the study is not cross-validated.
        keeps_test: Whether there are folds, and a test split of the source that is in none of them.
    """

    study: Study
    manifest: Manifest
    images: np.ndarray
    members: list[tuple[TrainedModel, float | Calibration]]
    models: StudyModels | None = None
    keeps_test: bool = False

    @property
    def network(self) -> TrainedModel:
        """The network; of an average the first."""
        return self.members[0][0]

    @property
    def name(self) -> str:
        """Name of the model, for the card."""
        return self.network.name if not self.averaged or self.models is None else f"{self.models.name}, folds averaged"

    @property
    def averaged(self) -> bool:
        """Whether it is the average of several networks."""
        return len(self.members) > 1

    @property
    def calibration(self) -> float | Calibration:
        """What turns its logits into probabilities; of an average nothing, since each network has a calibration."""
        if not self.averaged:
            return self.members[0][1]
        return Calibration.identity(len(self.manifest.findings)) if self.manifest.findings else 1.0

    @property
    def label(self) -> str:
        """Name that differs between all models of a study."""
        return f"{self.name}, augmentation {self.network.policy}, seed {self.network.seed}, exported"

    def logits(self, split: str) -> np.ndarray:
        """Return the logits of a split's images before calibration, float32 `(m, k)`, by each network for itself."""
        if not self.averaged:
            return self.network.logits(split)
        objective, rows, total = objectives.of(self.manifest.labels), self.manifest.rows(split), 0.0
        for network, calibration in self.members:
            logits = engines.predict_rows(engines.KerasEngine(network.load_model()), self.images, rows)[0]
            total = total + _probabilities(logits, calibration, objective)
        return objective.logits(total / len(self.members)).astype(np.float32)

    @property
    def evidence(self) -> str:
        """On what the figures of its card were measured, in words; "" for a test split, once."""
        if self.models is None:
            return ""
        text = _CROSS_VALIDATED.format(folds=self.models.folds_in_words)
        return text + _EXPORTED[self.study.splits.exported]


def _probabilities(logits: np.ndarray, calibration: float | Calibration, objective: Any) -> np.ndarray:
    if isinstance(calibration, Calibration):
        return calibration.probabilities(logits)
    return objective.probabilities(logits / calibration)


def train_exported_model(study: Study, prepare: Callable[[Study], Manifest]) -> ExportedModel:
    """Return the model that is exported, of the study's first seed; train what the store lacks.

    Args:
        study: The study.
        prepare: Returns the dataset of a study, split: `segmentation.prepare`.

    Raises:
        StudyError: The average of the folds' networks is to be exported, and the study names exams; or the models take
            vectors, and the network that computes them is not there.
    """
    if study.embeddings:
        raise StudyError(
            f"study {study.study}: the models take vectors, and {backbones.NO_NETWORK}; a bundle needs it: name it in "
            "backbones and leave dataset.embeddings out"
        )
    splits = study.splits
    if not splits.cross_validated or splits.fold is not None:
        return _train(study, prepare(study))
    if splits.exported == "fold_average" and adapters.load(study).has_exams:
        raise StudyError(
            f"study {study.study}: splits.exported is fold_average, and each fold has a rule of its own for exams, of "
            "which there is no average; set splits.exported to all_images"
        )
    models = train_every_split(study, prepare)
    kept = folds.keeps_test(study)
    if splits.exported == "all_images":
        # no report is on this network's own choice, so that one seed trains it
        of_all = folds.study_of_all_images(study).model_copy(update={"seeds": 1})
        return _train(of_all, prepare(of_all), models, keeps_test=kept)
    members = [
        (split.networks[0], calibrate(split.study, split.manifest, split.networks[0])) for split in models.splits
    ]
    manifest = prepare(study) if kept else models.first.manifest
    return ExportedModel(study, manifest, inputs.load(study, manifest), members, models, kept)


def _train(
    study: Study, manifest: Manifest, models: StudyModels | None = None, *, keeps_test: bool = False
) -> ExportedModel:
    images = inputs.load(study, manifest)
    network = train_final_model(study, manifest, images)
    return ExportedModel(study, manifest, images, [(network, calibrate(study, manifest, network))], models, keeps_test)
