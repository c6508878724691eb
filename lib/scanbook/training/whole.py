"""Networks that are trained as a whole, from scratch or fine-tuned from a pretrained backbone: each a cached stage."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from scanbook import runtime, store
from scanbook.config import FineTuning, Study
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.errors import ModelError
from scanbook.models import backbones, engines, features, heads
from scanbook.models.backbones import RANDOM, Weights
from scanbook.runtime import distribution
from scanbook.store import checkpoint, stage
from scanbook.training import trained as kept
from scanbook.training.networks import Learning, Plan, in_single_precision, in_training_precision, let_learn, train_all
from scanbook.training.trained import Trained


@dataclass(frozen=True)
class Whole:
    """A network that is trained as a whole, or was.

    A process that was killed is continued from the last epoch that it finished, whether one process trains or several
    do, on whatever backend: the stage has one name for all of them, and so have its checkpoints.

    Attributes:
        kind: "scratch" or "fine_tuning": the stage that keeps it.
        study: Says how it is trained, and with which seed.
        manifest: The dataset, split.
        images: Of all its rows, uint8 `(n, h, w, 3)`.
        backbone: A backbone.
        weights: What the backbone starts with.
        policy: Augmentation of the training images.
        frozen: The frozen backbone and its head, which fine-tuning goes on from; None from scratch.
    """

    kind: Literal["scratch", "fine_tuning"]
    study: Study
    manifest: Manifest
    images: np.ndarray
    backbone: str
    weights: Weights
    policy: str
    frozen: Trained | None = None

    @property
    def name(self) -> str:
        """What is trained and how, for reports."""
        return f"{self.backbone}, {'fine-tuned' if self.frozen else 'from scratch'}"

    def trained(self) -> Trained:
        """The trained network: found in the store, or trained now."""
        found = stage(self.kind, self._inputs(), self._build, __name__)
        return kept.trained(self.name, self.manifest, found, self.policy, self.study.seed)

    def train_together(self, held: ExitStack) -> None:
        """Trains it with the other processes or devices up to its checkpoints, which `trained` goes on from.

        Args:
            held: Keeps other processes from building the stage, and from removing its checkpoints, until it closes.

        Raises:
            RunError: The processes do not start from the same.
        """
        address = store.address(self.kind, self._inputs(), __name__)
        if distribution.first_process():
            held.enter_context(store.building(address))
        if distribution.value_of_first_process(address.is_dir()):
            return
        begun = sorted(checkpoint(address).glob("*.npz"))
        begun += [self.frozen.folder / kept.MODEL] if self.frozen else []
        digests = [(path.name, store.file_digest(path)) for path in begun]
        distribution.check_same(store.fingerprint(address.name, digests), f"checkpoints or heads of {self.name}")
        runtime.configure(self.study.seed)
        self._fit(checkpoint(address))

    def _inputs(self) -> dict[str, Any]:
        training = self.study.fine_tuning if self.frozen else self.study.scratch
        inputs = features.inputs(self.manifest, self.images, self.backbone, self.weights)
        inputs |= {"training": training, "policy": self.policy, "seed": self.study.seed}
        if self.frozen:
            return inputs | {"start": self.frozen.folder.name}
        return inputs | {"head": [self.study.head.units, self.study.head.output]}

    def _build(self, folder: Path) -> None:
        runtime.configure(self.study.seed)
        started = time.perf_counter()
        model, history, steps = self._fit(checkpoint(folder))
        kept.save(folder, in_single_precision(model, self._network), history, self.manifest, self.images, steps=steps)
        kept.note_seconds(folder, started, history)

    def _network(self) -> Any:
        size = self.images.shape[1:3]
        return backbones.build(self.backbone, size, len(self.manifest.classes), head=self.study.head)

    def _fit(self, checkpoints: Path) -> tuple[Any, pd.DataFrame, dict[str, np.ndarray]]:
        """The network of the epoch with the lowest validation loss, its history, and the logits after each stage."""
        check_classes(self.study, self.manifest)
        model = in_training_precision(self._network)
        if self.frozen:
            backbones.set_weights(model, self.frozen.model().get_weights())
            return (model, *self._in_stages(model, checkpoints))
        plan = Plan(self.name, self.study.scratch, self.policy, self.study.seed)
        return model, train_all(plan, model, self.images, self.manifest, checkpoints / "scratch.npz"), {}

    def _in_stages(self, model: Any, checkpoints: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Fine-tunes in stages.

        Returns:
            A row an epoch, with its `stage`; and the validation logits at the end of each stage, of the best weights so
            far, which a process that trains with others leaves to the one that goes on alone.
        """
        values: FineTuning = self.study.fine_tuning
        epochs: dict[Learning, int] = {"head": values.head_epochs, "top": values.top_epochs, "all": values.epochs}
        parts: list[pd.DataFrame] = []
        steps: dict[str, np.ndarray] = {}
        best_loss, best_weights = math.inf, model.get_weights()
        for which, count in epochs.items():
            if not count:
                continue
            let_learn(model, which, values.top)
            said = self.name if which == "all" else f"{self.name}, {which} alone"
            plan = Plan(said, values.model_copy(update={"epochs": count}), self.policy, self.study.seed)
            part = train_all(plan, model, self.images, self.manifest, checkpoints / f"{which}.npz")
            done = parts[-1] if parts else None
            part["epoch"] += 0 if done is None else done["epoch"].iloc[-1]
            part["seconds"] += 0 if done is None else done["seconds"].iloc[-1]
            parts.append(part.assign(stage=which))
            if part["validation_loss"].min() < best_loss:
                best_loss, best_weights = part["validation_loss"].min(), model.get_weights()
            else:
                model.set_weights(best_weights)
            if distribution.share() is None:
                rows = self.manifest.rows(VALIDATION)
                steps[which] = engines.of_rows(engines.KerasEngine(model), self.images, rows)[0]
        return pd.concat(parts, ignore_index=True), steps


def from_scratch(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, policy: str | None = None
) -> Whole:
    """A network that starts from random weights, all layers, as the study's `scratch` says.

    Args:
        study: Its `scratch` is the plan.
        manifest: The dataset, split.
        images: Of all its rows, uint8 `(n, h, w, 3)`.
        backbone: A backbone.
        policy: Of augmentation; None for the study's.
    """
    policy = study.augmentation if policy is None else policy
    return Whole("scratch", study, manifest, images, backbone, RANDOM, policy)


def fine_tuned(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights, *, frozen: Trained
) -> Whole:
    """A pretrained network trained in stages, from the frozen backbone's head on: head, top layers, all.

    Pretrained batch normalisation stays frozen: with it trained, its moving averages lag behind the weights and test
    accuracy collapses. Of all stages the epoch with the lowest validation loss is kept.

    Args:
        study: Its `fine_tuning` is the plan.
        manifest: The dataset, split.
        images: Of all its rows, uint8 `(n, h, w, 3)`.
        backbone: A backbone.
        weights: Its pretrained weights.
        frozen: The same with a head alone trained.
    """
    return Whole("fine_tuning", study, manifest, images, backbone, weights, study.augmentation, frozen)


def check_classes(study: Study, manifest: Manifest) -> None:
    """Makes sure that there are classes to be told apart.

    Raises:
        ModelError: The training images are of one class, or the head does not fit the classes.
    """
    heads.check(len(manifest.classes), study.head)
    present = np.unique(manifest.y[manifest.rows(TRAIN)])
    if len(present) < 2:
        said = f"all of class {manifest.classes[present[0]]!r}" if len(present) else "none"
        raise ModelError(f"training images are {said}; expected at least two classes; raise limit or change parts")
