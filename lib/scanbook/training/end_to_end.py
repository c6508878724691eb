"""End-to-end training: all layers learn, from scratch or from a pretrained backbone; each network is a cached stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from scanbook import registry, runtime, store
from scanbook.augmentation import Augmenter
from scanbook.config import FineTuning, Study, Training
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.models import backbones, engines, features, heads
from scanbook.models.backbones import Weights
from scanbook.runtime import distribution
from scanbook.store import checkpoint, stage
from scanbook.training import objectives, trained_model
from scanbook.training.batches import Batches
from scanbook.training.fitting import depth_shares, fit, optimizer, weighted_layers
from scanbook.training.trained_model import TrainedModel

keras = runtime.keras()

TrainableLayers = Literal["head", "top", "all"]


@dataclass(frozen=True)
class EndToEndTraining:
    """The training of all layers of one network.

    Training that was killed continues after its last finished epoch, with one process or several and on any backend:
    the cached stage and its checkpoints have the same names in every case.

    Fine-tuning has three training stages: the head alone, the head and the top layers, all layers. It starts from the
    head that was trained on the frozen backbone. Pretrained batch normalisation stays frozen: if it is trained, its
    moving averages lag behind the weights and test accuracy collapses. The weights of the epoch with the lowest
    validation loss in all training stages are kept.

    Attributes:
        kind: "scratch" or "fine_tuning", the name of the cached stage.
        study: Study with the hyper-parameters, in `scratch` or `fine_tuning`, and the seed.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Initial weights of the backbone.
        policy: Augmentation policy of the training images.
        frozen: The frozen backbone and its head, from which fine-tuning starts; None when training from scratch.
    """

    kind: Literal["scratch", "fine_tuning"]
    study: Study
    manifest: Manifest
    images: np.ndarray
    backbone: str
    weights: Weights
    policy: str
    frozen: TrainedModel | None = None

    @property
    def name(self) -> str:
        """Backbone and kind of training, for reports."""
        return f"{self.backbone}, {'fine-tuned' if self.frozen else 'from scratch'}"

    def run(self) -> TrainedModel:
        """Return the trained network: found in the store, or trained now."""
        folder = stage(self.kind, self._inputs(), self._build, __name__)
        return trained_model.read_training(self.name, self.manifest, folder, self.policy, self.study.seed)

    def run_distributed(self, locks: ExitStack) -> None:
        """Train together with other processes or devices and write the checkpoints, from which `run` continues.

        Args:
            locks: Keeps other processes from building the stage, and from removing its checkpoints, until it closes.

        Raises:
            RunError: The processes do not start from the same checkpoints or heads.
        """
        address = store.address(self.kind, self._inputs(), __name__)
        if distribution.first_process():
            locks.enter_context(store.building(address))
        if distribution.value_of_first_process(address.is_dir()):
            return
        paths = sorted(checkpoint(address).glob("*.npz"))
        paths += [self.frozen.folder / trained_model.MODEL] if self.frozen else []
        digests = [(path.name, store.file_digest(path)) for path in paths]
        distribution.check_same(store.fingerprint(address.name, digests), f"checkpoints or heads of {self.name}")
        runtime.configure(self.study.seed)
        self._fit(checkpoint(address))

    def _inputs(self) -> dict[str, Any]:
        training = self.study.fine_tuning if self.frozen else self.study.scratch
        inputs = features.inputs(self.manifest, self.images, self.backbone, self.weights)
        inputs |= {"training": training, "policy": registry.policy(self.policy), "seed": self.study.seed}
        if self.frozen:
            return inputs | {"start": self.frozen.folder.name}
        return inputs | {"head": [self.study.head.units, self.study.head.output]}

    def _build(self, folder: Path) -> None:
        runtime.configure(self.study.seed)
        started = time.perf_counter()
        model, history, logits = self._fit(checkpoint(folder))
        model = to_single_precision(model, self._network)
        trained_model.save_training(folder, model, history, self.manifest, self.images, stage_logits=logits)
        trained_model.save_seconds(folder, started, history)

    def _network(self) -> Any:
        size = self.images.shape[1:3]
        return backbones.build(self.backbone, size, len(self.manifest.names), self.weights, self.study.head)

    def _fit(self, checkpoints: Path) -> tuple[Any, pd.DataFrame, dict[str, np.ndarray]]:
        """Return the network of the epoch with the lowest validation loss, its history, and the logits by stage."""
        check_labels(self.study, self.manifest)
        model = build_in_training_precision(self._network)
        if self.frozen:
            backbones.set_weights(model, self.frozen.load_model().get_weights())
            return (model, *self._fine_tune(model, checkpoints))
        plan = Plan(self.name, self.study.scratch, self.policy, self.study.seed)
        if plan.values.balance == "none":
            heads.start_from(model, objectives.of(self.manifest.labels).prior(self.manifest.label_values(TRAIN)))
        return model, train_network(plan, model, self.images, self.manifest, checkpoints / "scratch.npz"), {}

    def _fine_tune(self, model: Any, checkpoints: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
        """Fine-tune a network in stages.

        Returns:
            One row per epoch, with its `stage`; and the validation logits at the end of each stage, with the best
            weights so far. With several processes there are no logits yet: `run` computes them, in one process.
        """
        values: FineTuning = self.study.fine_tuning
        epochs: dict[TrainableLayers, int] = {
            "head": values.head_epochs,
            "top": values.top_epochs,
            "all": values.epochs,
        }
        histories: list[pd.DataFrame] = []
        logits: dict[str, np.ndarray] = {}
        best_loss, best_weights = math.inf, model.get_weights()
        for layers, count in epochs.items():
            if not count:
                continue
            set_trainable(model, layers, values.top)
            name = self.name if layers == "all" else f"{self.name}, {layers} alone"
            plan = Plan(name, values.model_copy(update={"epochs": count}), self.policy, self.study.seed)
            history = train_network(plan, model, self.images, self.manifest, checkpoints / f"{layers}.npz")
            if histories:
                for column in ("epoch", "seconds"):
                    history[column] += histories[-1][column].iloc[-1]
            histories.append(history.assign(stage=layers))
            if history["validation_loss"].min() < best_loss:
                best_loss, best_weights = history["validation_loss"].min(), model.get_weights()
            else:
                model.set_weights(best_weights)
            if distribution.share() is None:
                rows = self.manifest.rows(VALIDATION)
                logits[layers] = engines.predict_rows(engines.KerasEngine(model), self.images, rows)[0]
        return pd.concat(histories, ignore_index=True), logits


def check_labels(study: Study, manifest: Manifest) -> None:
    """Raise a `ModelError` if the training images do not show what is to be learnt, or the head does not fit it."""
    labels = manifest.labels
    objectives.of(labels).check(study.head, labels.rows(manifest.rows(TRAIN)))


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        name: Backbone and kind of training, for progress lines.
        values: Epochs, learning rate, batch size, label smoothing and the rest.
        policy: Augmentation of the training images.
        seed: Seed of shuffling and augmentation.
    """

    name: str
    values: Training
    policy: str
    seed: int


def train_network(
    plan: Plan, model: Any, images: np.ndarray, manifest: Manifest, resume: Path | None = None
) -> pd.DataFrame:
    """Train the trainable layers of a network and keep the weights of the epoch with the lowest validation loss.

    Args:
        plan: How to train.
        model: A network of `backbones.build`; trained in place.
        images: uint8 `(n, h, w, 3)`.
        manifest: Labels and split of each image.
        resume: Checkpoint to continue from and to write; None writes none.

    Returns:
        One row per epoch, as `TrainedModel.history`.
    """
    values, rows, y = plan.values, manifest.rows(TRAIN), manifest.label_values(TRAIN)
    objective, augment = objectives.of(manifest.labels), Augmenter(plan.policy, len(rows), plan.seed)
    strata = objective.strata(y) if values.balance == "sampling" else None
    batches = Batches(images, rows, y, values.batch_size, augment, strata=strata)
    validation_rows = manifest.rows(VALIDATION)
    no_augmentation = Augmenter("none", len(validation_rows), plan.seed)
    validation = Batches(images, validation_rows, manifest.label_values(VALIDATION), 64, no_augmentation, shuffle=False)
    first = getattr(values, "first_layer_rate", 1.0)
    shares = depth_shares(model, first) if first < 1 else None
    loss = objective.loss(values.label_smoothing, objective.weights(y) if values.balance == "class_weights" else None)
    model.compile(optimizer(values, batches.num_batches, shares), loss, weighted_metrics=objective.metrics())
    return fit(plan.name, model, batches, validation, values, checkpoint=resume)


def set_trainable(model: Any, trainable: TrainableLayers = "all", top: float = 1.0) -> None:
    """Set which layers of a pretrained network are trainable; its batch normalisation never is.

    Args:
        model: A network of `backbones.build`.
        trainable: "head"; "top", the head and the last layers; or "all".
        top: Share of the layers with weights that counts as the last layers.
    """
    head = heads.head_layers(model)
    layers = [layer for layer in weighted_layers(model) if layer not in head]
    count = {"head": 0, "top": math.ceil(top * len(layers)), "all": len(layers)}[trainable]
    for index, layer in enumerate(layers):
        batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = index >= len(layers) - count and not batch_norm


def build_in_training_precision(build: Callable[[], Any]) -> Any:
    """Build a network in the precision in which this machine trains."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(runtime.training_precision())
    try:
        return build()
    finally:
        keras.config.set_dtype_policy(policy)


def to_single_precision(model: Any, build: Callable[[], Any]) -> Any:
    """Return the same network in float32: no network of mixed precision is exported or compared."""
    if model.dtype_policy.name == "float32":
        return model
    single = build()
    backbones.set_weights(single, model.get_weights())
    return single
