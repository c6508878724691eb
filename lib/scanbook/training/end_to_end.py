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
from scanbook.errors import ModelError
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
    validation loss in all training stages are kept; those of the start, if no epoch has a lower one.

    Attributes:
        study: Study with the hyper-parameters, in `scratch` or `fine_tuning`, and the seed.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Initial weights of the backbone.
        policy: Augmentation policy of the training images.
        frozen: The frozen backbone and its head, from which fine-tuning starts; None when training from scratch.
    """

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
        return trained_model.name_network(self.backbone, self.kind)

    @property
    def kind(self) -> trained_model.Kind:
        """How the network is trained."""
        return "fine-tuned" if self.frozen else "from scratch"

    @property
    def _stage(self) -> str:
        return "fine_tuning" if self.frozen else "scratch"

    def run(self) -> TrainedModel:
        """Return the trained network: found in the store, or trained now."""
        folder = stage(self._stage, self._inputs(), self._build, __name__)
        return trained_model.read_training(
            self.backbone, self.kind, self.manifest, folder, policy=self.policy, seed=self.study.seed
        )

    def run_distributed(self, locks: ExitStack) -> None:
        """Train together with other processes or devices and write the checkpoints, from which `run` continues.

        Args:
            locks: Keeps other processes from building the stage, and from removing its checkpoints, until it closes.

        Raises:
            RunError: The processes do not start from the same checkpoints or heads.
        """
        address = store.address(self._stage, self._inputs(), __name__)
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
        training: Training = self.study.scratch
        if self.frozen:  # how many backbones are fine-tuned changes none of them
            training = self.study.fine_tuning.model_copy(update={"backbones": 1})
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

    def _network(self, size: tuple[int, int] | None = None) -> Any:
        size = size or self.images.shape[1:3]
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
        """Fine-tune a network in stages; leave it as it was if no epoch had a lower validation loss.

        Returns:
            One row per epoch, with its `stage`; and the validation logits at the end of each stage, with the best
            weights so far. With several processes there are no logits yet: `run` computes them, in one process.
        """
        values: FineTuning = self.study.fine_tuning
        shift = _shift(values, self.manifest)
        if shift is not None:
            heads.add_to_logits(model, -shift)
        histories: list[pd.DataFrame] = []
        logits: dict[str, np.ndarray] = {}
        best_loss, best_weights = self._loss(self.frozen.logits(VALIDATION)), model.get_weights()
        for step in steps_of(values):
            plan = Plan(f"{self.name}{step.suffix}", step.values, self.policy, self.study.seed, step.span)
            trained = model if step.share == 1 else self._resized(model, step.share)
            set_trainable(trained, step.layers, values.top)
            history = train_network(plan, trained, self.images, self.manifest, checkpoints / f"{step.name}.npz")
            if histories:
                for column in ("epoch", "seconds"):
                    history[column] += histories[-1][column].iloc[-1]
            histories.append(history.assign(stage=step.name))
            if trained is not model:  # its losses are those of other images; the next step goes on from it
                model.set_weights(trained.get_weights())
            elif history["validation_loss"].min() < best_loss:
                best_loss, best_weights = history["validation_loss"].min(), model.get_weights()
            else:
                model.set_weights(best_weights)
            if distribution.share() is None:
                rows = self.manifest.rows(VALIDATION)
                logits[step.name] = engines.predict_rows(engines.KerasEngine(model), self.images, rows)[0]
        return pd.concat(histories, ignore_index=True), logits

    def _loss(self, logits: np.ndarray) -> float:
        return trained_model.validation_loss(self.manifest, logits)

    def _resized(self, model: Any, share: float) -> Any:
        """Return a network with the same weights for smaller images.

        Raises:
            ModelError: Its weights depend on the size of the images.
        """
        spec = backbones.spec_of(self.backbone, self.weights)
        height, width = (
            max(spec.smallest, round(side * share / spec.patch) * spec.patch) for side in self.images.shape[1:3]
        )
        resized = build_in_training_precision(lambda: self._network((height, width)))
        try:
            resized.set_weights(model.get_weights())
        except ValueError as error:
            raise ModelError(
                f"{self.backbone} has weights for each place of an image, so it cannot be trained at another size; "
                "set fine_tuning.image_sizes to [1.0]"
            ) from error
        return resized


@dataclass(frozen=True)
class Step:
    """A part of fine-tuning with one learning-rate schedule, or a part of one.

    Attributes:
        name: "head", "top" or "all"; "all, 70 %" where images have that share of their size.
        layers: Layers that learn.
        values: Hyper-parameters, with the number of epochs.
        share: Size of the images, as a share of the study's.
        span: Epochs of the schedule before this step, and all of its epochs.
    """

    name: str
    layers: TrainableLayers
    values: FineTuning
    share: float = 1.0
    span: tuple[int, int] | None = None

    @property
    def suffix(self) -> str:
        """What follows the network's name in progress lines."""
        parts = [] if self.layers == "all" else [f", {self.layers} alone"]
        return "".join([*parts, *([f", images of {self.share:.0%} of the size"] if self.share < 1 else [])])


def steps_of(values: FineTuning) -> list[Step]:
    """Return the steps of fine-tuning, in their order."""
    steps = [
        Step(layers, layers, values.model_copy(update={"epochs": count}))
        for layers, count in (("head", values.head_epochs), ("top", values.top_epochs))
        if count
    ]
    ends = [values.epochs * (index + 1) // len(values.image_sizes) for index in range(len(values.image_sizes))]
    for share, start, end in zip(values.image_sizes, [0, *ends], ends, strict=False):
        if end > start:
            name = "all" if share == 1 else f"all, {share:.0%}"
            part = values.model_copy(update={"epochs": end - start})
            steps.append(Step(name, "all", part, share, (start, values.epochs)))
    return steps


def _shift(values: Training, manifest: Manifest) -> np.ndarray | None:
    """Return what is added to the logits in training, float32 `(k,)`; None for nothing."""
    if not values.logit_adjustment:
        return None
    return values.logit_adjustment * objectives.of(manifest.labels).shift(manifest.label_values(TRAIN))


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
        span: Epochs of the learning rate's schedule before this training, and of all; None where it has all of them.
    """

    name: str
    values: Training
    policy: str
    seed: int
    span: tuple[int, int] | None = None


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
    size = model.input_shape[1:3]
    batches = Batches(images, rows, y, values.batch_size, augment, strata=strata, size=size)
    validation_rows = manifest.rows(VALIDATION)
    no_augmentation = Augmenter("none", len(validation_rows), plan.seed)
    y_validation = manifest.label_values(VALIDATION)
    validation = Batches(images, validation_rows, y_validation, 64, no_augmentation, shuffle=False, size=size)
    first = getattr(values, "first_layer_rate", 1.0)
    shares = depth_shares(model, first) if first < 1 else None
    weights, shift = objective.weights(y) if values.balance == "class_weights" else None, _shift(values, manifest)
    loss = objective.loss(values.label_smoothing, weights, shift)
    steps = optimizer(values, batches.num_batches, shares, plan.span)
    model.compile(steps, loss, weighted_metrics=objective.metrics(shift))
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
        layer.trainable = index >= len(layers) - count
    for layer in model._flatten_layers():  # also those inside other layers
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


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
