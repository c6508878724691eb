"""Training: a head on frozen features, a network from scratch, fine-tuning. Each is a cached stage.

A trained network is chosen on validation; its test logits are computed once, when training is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import log_loss

from scanbook import backbones, engines, features, runtime
from scanbook.augmentation import Augmenter
from scanbook.backbones import RANDOM, Weights
from scanbook.errors import ModelError
from scanbook.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.store import atomic_write, stage
from scanbook.study import Schedule, Study, Training

keras = runtime.keras()

SECONDS = "seconds.txt"


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        name: What was trained and how, for reports.
        folder: The stage that holds it.
        history: A row an epoch: `epoch`, `loss`, `accuracy`, `validation_loss`, `validation_accuracy`, and `seconds`
            since the start of training.
        classes: Class names, in the order of the logits.
    """

    name: str
    folder: Path
    history: pd.DataFrame
    classes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Time that training took, in seconds, with the extraction of features and, at the end, all predictions."""
        return float((self.folder / SECONDS).read_text())

    def logits(self, part: str) -> np.ndarray:
        """Logits of a part's images in the manifest's order, float32 `(m, k)`; part is "validation" or "test"."""
        with np.load(self.folder / "logits.npz") as arrays:
            return arrays[part]

    def model(self) -> Any:
        """The trained `keras.Model`, from uint8 images to logits."""
        return keras.models.load_model(self.folder / "model.keras", compile=False)


@dataclass(frozen=True)
class Plan:
    """How a whole network is trained.

    Attributes:
        name: What is trained, for progress lines.
        values: Epochs, learning rate, batch size, label smoothing.
        policy: Augmentation of the training images.
        seed: Seed of shuffling and augmentation.
    """

    name: str
    values: Training
    policy: str
    seed: int


class Clock(keras.callbacks.Callback):
    """Keeps the time of every epoch, stops when the loss is lost, and says a line an epoch where nobody watches."""

    def __init__(self, name: str, lines: bool) -> None:
        super().__init__()
        self.name, self.lines = name, lines and not runtime.interactive()
        self.times: list[float] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Notes the time, and stops training whose loss is no number any more."""
        logs = logs or {}
        self.times.append(time.perf_counter() - self.started)
        lost = [key.replace("val_", "validation ") for key in ("loss", "val_loss") if not np.isfinite(logs[key])]
        if lost:
            raise ModelError(
                f"{self.name}: the {lost[0]} in epoch {epoch + 1} is not a number; "
                "lower learning_rate, or look for broken images"
            )
        if self.lines:
            shown = ", ".join(f"{key.replace('val_', 'validation ')} {value:.3f}" for key, value in logs.items())
            print(
                f"{self.name}: epoch {epoch + 1}/{self.params['epochs']}, {self.times[-1]:.0f} s, {shown}", flush=True
            )


class Batches(keras.utils.PyDataset):
    """Augmented training batches, shuffled anew every epoch from (seed, epoch)."""

    def __init__(
        self, images: np.ndarray, rows: np.ndarray, y: np.ndarray, batch_size: int, augment: Augmenter
    ) -> None:
        super().__init__()
        self.images, self.rows, self.y = images, rows, y
        self.batch_size, self.augment, self.epoch = batch_size, augment, 0
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = np.random.default_rng([self.augment.seed, 1, self.epoch]).permutation(len(self.rows))

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        places = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.augment(self.images[self.rows[places]], places, self.epoch), self.y[places]

    def on_epoch_end(self) -> None:
        """Moves on to the next epoch's draw."""
        self.epoch += 1
        self._shuffle()


def transfer(
    study: Study,
    manifest: Manifest,
    images: np.ndarray,
    backbone: str,
    weights: Weights,
    *,
    policy: str = "none",
) -> Trained:
    """Trains a linear head on the features of a frozen backbone.

    Args:
        study: Hyper-parameters, in `head`.
        manifest: The dataset, split.
        images: Its pixels, or what was made of them, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its pretrained weights.
        policy: Augmentation of the training images; unless "none", the head learns from `head.views` augmented copies
            of each beside the image itself.

    Returns:
        The whole network, backbone and head.
    """
    if weights == RANDOM:
        raise ModelError(
            f"backbone {backbone} has random weights; a frozen backbone must be pretrained, so set weights to auto"
        )
    name = f"{backbone}, frozen"
    inputs = features.inputs(manifest, images, backbone, weights) | {
        "head": study.head,
        "policy": policy,
        "seed": study.seed,
    }

    def build(folder: Path) -> None:
        runtime.configure(study.seed)
        found, extracting = features.extract(manifest, images, backbone, weights)
        started = time.perf_counter() - extracting
        rows, y = manifest.rows(TRAIN), manifest.y
        x_train, y_train = found[rows], y[rows]
        if policy != "none":
            views = features.extract_views(
                manifest, images, backbone, weights, policy=policy, views=study.head.views, seed=study.seed
            )
            x_train, y_train = np.concatenate([x_train, *views]), np.tile(y_train, 1 + len(views))
        validation = found[manifest.rows(VALIDATION)]
        head, history = _fit_head(study, manifest, (x_train, y_train), validation)
        model = backbones.build(backbone, images.shape[1:3], len(manifest.classes), weights)
        model.get_layer(backbones.LOGITS).set_weights(head)
        _save(folder, model, history, manifest, images)
        _note_seconds(folder, started)

    return _trained(name, manifest, stage("transfer", inputs, build, __name__))


def _fit_head(
    study: Study, manifest: Manifest, train: tuple[np.ndarray, np.ndarray], validation: np.ndarray
) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Trains a head for every penalty and takes the one that validation likes best.

    It learns on standardised features turned to their principal axes, where Adam, which works axis by axis, comes to
    the optimum in a few epochs; the rotation changes no penalty. Both are folded into kernel `(channels, k)` and bias
    `(k,)`.
    """
    plan, (x, y) = study.head, train
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    _, axes = np.linalg.eigh(np.cov((x - mean) / deviation, rowvar=False))
    turn = (axes / deviation[:, None]).astype(np.float32)
    turned, held_out = (x - mean) @ turn, (validation - mean) @ turn
    known = (held_out, manifest.y[manifest.rows(VALIDATION)])
    fits = []
    for penalty in plan.l2:
        penalised = keras.regularizers.L2(penalty)
        dense = keras.layers.Dense(len(manifest.classes), kernel_initializer="zeros", kernel_regularizer=penalised)
        model = keras.Sequential([keras.Input((x.shape[1],)), dense])
        rate = keras.optimizers.schedules.CosineDecay(plan.learning_rate, plan.epochs * -(-len(y) // plan.batch_size))
        model.compile(keras.optimizers.Adam(rate), _cross_entropy(len(manifest.classes), 0), metrics=[_accuracy()])
        history = _fit("head", model, (turned, y), known, epochs=plan.epochs, batch_size=plan.batch_size)
        kernel, bias = model.get_weights()
        fits.append((_validation_loss(manifest, held_out @ kernel + bias), penalty, kernel, bias, history))
    _, penalty, kernel, bias, history = min(fits, key=lambda fit: fit[0])
    return [turn @ kernel, bias - mean @ turn @ kernel], history.assign(l2=penalty)


def scratch(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, policy: str | None = None) -> Trained:
    """Trains a network from random weights, all layers, with the study's augmentation or another policy."""
    policy = study.augmentation if policy is None else policy
    name = f"{backbone}, from scratch"
    inputs = features.inputs(manifest, images, backbone, RANDOM) | {
        "training": study.scratch,
        "policy": policy,
        "seed": study.seed,
    }

    def build(folder: Path) -> None:
        runtime.configure(study.seed)
        started = time.perf_counter()
        model = backbones.build(backbone, images.shape[1:3], len(manifest.classes))
        plan = Plan(name, study.scratch, policy, study.seed)
        _save(folder, model, train_all(plan, model, images, manifest), manifest, images)
        _note_seconds(folder, started)

    return _trained(name, manifest, stage("scratch", inputs, build, __name__))


def fine_tune(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> Trained:
    """Trains all layers of a pretrained network, from the frozen backbone's head on.

    Pretrained batch normalisation stays frozen: with it trained, its moving averages lag behind the weights and test
    accuracy collapses.
    """
    frozen = transfer(study, manifest, images, backbone, weights)
    name = f"{backbone}, fine-tuned"
    inputs = features.inputs(manifest, images, backbone, weights) | {
        "training": study.fine_tuning,
        "policy": study.augmentation,
        "start": frozen.folder.name,
        "seed": study.seed,
    }

    def build(folder: Path) -> None:
        runtime.configure(study.seed)
        started = time.perf_counter()
        model = frozen.model()
        freeze_batch_normalisation(model)
        plan = Plan(name, study.fine_tuning, study.augmentation, study.seed)
        _save(folder, model, train_all(plan, model, images, manifest), manifest, images)
        _note_seconds(folder, started)

    return _trained(name, manifest, stage("fine_tuning", inputs, build, __name__))


def freeze_batch_normalisation(model: Any) -> None:
    """Leaves every layer of a network trainable but its batch normalisation."""
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


def start(study: Study, manifest: Manifest, images: np.ndarray) -> tuple[Trained, str, Weights]:
    """The network that fine-tuning starts from, chosen by validation loss; its backbone and its weights.

    It is a frozen pretrained backbone with its head; where the study has no pretrained weights at all, a network from
    scratch, which fine-tuning then leaves as it is.
    """
    weights, _ = backbones.resolve(study)
    trained = {name: transfer(study, manifest, images, name, each) for name, each in weights.items()}
    trained = trained or {name: scratch(study, manifest, images, name) for name in study.backbones}
    best = min(trained, key=lambda name: _validation_loss(manifest, trained[name].logits(VALIDATION)))
    return trained[best], best, weights.get(best, RANDOM)


def final(study: Study, manifest: Manifest, images: np.ndarray) -> Trained:
    """The study's model: the best start, fine-tuned where it is a pretrained one."""
    trained, name, weights = start(study, manifest, images)
    return trained if weights == RANDOM else fine_tune(study, manifest, images, name, weights)


def train_all(plan: Plan, model: Any, images: np.ndarray, manifest: Manifest) -> pd.DataFrame:
    """Trains all trainable layers of a network and keeps the epoch with the lowest validation loss.

    Args:
        plan: How to train.
        model: A network of `backbones.build`; trained in place.
        images: uint8 `(n, h, w, 3)`.
        manifest: Class and part of each image.

    Returns:
        A row an epoch, as `Trained.history`.
    """
    rows, validation, y = manifest.rows(TRAIN), manifest.rows(VALIDATION), manifest.y
    augment = Augmenter(plan.policy, len(rows), plan.seed)
    batches = Batches(images, rows, y[rows], plan.values.batch_size, augment)
    loss = _cross_entropy(len(manifest.classes), plan.values.label_smoothing)
    model.compile(optimizer(plan.values, batches.num_batches), loss, metrics=[_accuracy()])
    return _fit(plan.name, model, batches, (images[validation], y[validation]), epochs=plan.values.epochs)


def optimizer(values: Schedule, steps: int) -> Any:
    """Adam for whole networks, with gradients clipped and a rate that warms up over one epoch and falls on a cosine.

    Args:
        values: Learning rate and epochs.
        steps: Batches in an epoch.
    """
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps * max(values.epochs - 1, 1),
        warmup_target=values.learning_rate,
        warmup_steps=steps if values.epochs > 1 else 1,
    )
    return keras.optimizers.Adam(rate, global_clipnorm=1.0)


def _fit(name: str, model: Any, train: Any, validation: tuple[np.ndarray, np.ndarray], **options: Any) -> pd.DataFrame:
    """Fits a compiled model and keeps the weights of the epoch with the lowest validation loss."""
    clock = Clock(name, lines=not isinstance(train, tuple))
    best = keras.callbacks.EarlyStopping("val_loss", patience=options["epochs"], restore_best_weights=True)
    x, y = train if isinstance(train, tuple) else (train, None)
    try:
        result = model.fit(
            x,
            y,
            validation_data=validation,
            validation_batch_size=64,
            verbose=int(y is None and runtime.interactive()),
            callbacks=[clock, best],
            **options,
        )
    except Exception as error:
        # TensorFlow, JAX and Python each have an exception of their own for it
        if type(error).__name__ in ("MemoryError", "ResourceExhaustedError") or "RESOURCE_EXHAUSTED" in str(error):
            raise ModelError(f"{name}: out of memory; lower batch_size or image_size") from error
        raise
    frame = pd.DataFrame(result.history).rename(columns=lambda key: key.replace("val_", "validation_"))
    frame.insert(0, "epoch", np.arange(1, len(frame) + 1))
    columns = ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]
    return frame.assign(seconds=clock.times)[columns]


def _accuracy() -> Any:
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def _cross_entropy(classes: int, smoothing: float) -> Callable[[Any, Any], Any]:
    """Cross-entropy of integer labels against logits, with label smoothing, which Keras has for one-hot labels only."""
    if not smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(y_true: Any, logits: Any) -> Any:
        one_hot = keras.ops.one_hot(keras.ops.reshape(y_true, (-1,)), classes)
        return keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True, label_smoothing=smoothing)

    return loss


def _validation_loss(manifest: Manifest, logits: np.ndarray) -> float:
    """Log loss of validation logits, float `(m, k)`: what every choice between networks and penalties goes by."""
    y = manifest.y[manifest.rows(VALIDATION)]
    return float(log_loss(y, softmax(logits.astype(np.float64), axis=1), labels=range(len(manifest.classes))))


def _save(folder: Path, model: Any, history: pd.DataFrame, manifest: Manifest, images: np.ndarray) -> None:
    """Keeps a trained network, its history, and its logits of validation and, for the first time, of test."""
    model.save(folder / "model.keras")
    atomic_write(folder / "history.csv", history.to_csv(index=False))
    engine = engines.KerasEngine(model)
    logits = {part: engine.predict(images[manifest.rows(part)])[0] for part in (VALIDATION, TEST)}
    np.savez(folder / "logits.npz", **logits)


def _note_seconds(folder: Path, started: float) -> None:
    atomic_write(folder / SECONDS, f"{time.perf_counter() - started:.3f}\n")


def _trained(name: str, manifest: Manifest, folder: Path) -> Trained:
    return Trained(name, folder, pd.read_csv(folder / "history.csv"), manifest.classes)
