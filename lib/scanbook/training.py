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
from scanbook.store import atomic_write, seconds, stage
from scanbook.study import Study, Training

keras = runtime.keras()


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        name: What was trained and how, for reports.
        folder: The stage that holds it.
        history: A row an epoch: `epoch`, `loss`, `accuracy`, `validation_loss`, `validation_accuracy`, `seconds` since the
            start of training.
        classes: Class names, in the order of the logits.
    """

    name: str
    folder: Path
    history: pd.DataFrame
    classes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Time that the whole stage took, features included, in seconds."""
        return seconds(self.folder)

    def logits(self, part: str) -> np.ndarray:
        """Logits of a part's images in the manifest's order, float32 `(m, k)`; part is "validation" or "test"."""
        with np.load(self.folder / "logits.npz") as arrays:
            return arrays[part]

    def model(self) -> Any:
        """The trained `keras.Model`, from uint8 images to logits."""
        return keras.models.load_model(self.folder / "model.keras", compile=False)


class _EpochLine(keras.callbacks.Callback):
    """Writes one line an epoch where nobody watches, and keeps the time."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.times: list[float] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stops training whose loss is no number any more."""
        logs = logs or {}
        self.times.append(time.perf_counter() - self.started)
        if not np.isfinite(logs["loss"]):
            raise ModelError(
                f"{self.name}: the loss is {logs['loss']} in epoch {epoch + 1}; lower learning_rate, or look for broken images"
            )
        if not runtime.interactive() and self.params["epochs"] <= 40:
            shown = ", ".join(
                f"{key.replace('val_', 'validation ')} {value:.3f}"
                for key, value in logs.items()
                if key != "learning_rate"
            )
            print(
                f"{self.name}: epoch {epoch + 1}/{self.params['epochs']}, {self.times[-1]:.0f} s, {shown}", flush=True
            )


class _Batches(keras.utils.PyDataset):
    """Augmented training batches, shuffled anew every epoch from (seed, epoch)."""

    def __init__(
        self, images: np.ndarray, rows: np.ndarray, y: np.ndarray, batch_size: int, policy: str, seed: int
    ) -> None:
        super().__init__(workers=1, max_queue_size=8)
        self.images, self.rows, self.y = images, rows, y
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.augment = Augmenter(policy, len(rows), seed)
        self._shuffle()

    def _shuffle(self) -> None:
        self.order = np.random.default_rng([self.seed, 1, self.epoch]).permutation(len(self.rows))

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
    policy: str = "none",
    kind: str = "original",
) -> Trained:
    """Trains a linear head on the features of a frozen backbone.

    Args:
        study: Hyper-parameters, in `head`.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        backbone: Name of the backbone.
        weights: Its pretrained weights.
        policy: Augmentation of the training images; unless "none", the head learns from `head.views` augmented copies of each
            beside the image itself.
        kind: What the pixels show, "original" or a name of how they were cut out.

    Returns:
        The whole network, backbone and head.
    """
    if weights == RANDOM:
        raise ModelError(
            f"backbone {backbone} has random weights; a frozen backbone must be pretrained, so set weights to auto"
        )
    name = f"{backbone}, frozen"
    inputs = _inputs(study, manifest, images, backbone, weights) | {"head": study.head, "policy": policy, "kind": kind}

    def build(folder: Path) -> None:
        runtime.configure(study.seed)
        found = features.extract(manifest, images, backbone, weights, kind)
        rows, y = manifest.rows(TRAIN), manifest.y
        x_train, y_train = found[rows], y[rows]
        if policy != "none":
            views = features.extract_views(
                manifest, images, backbone, weights, policy=policy, views=study.head.views, seed=study.seed
            )
            x_train, y_train = np.concatenate([x_train, *views]), np.tile(y_train, 1 + len(views))
        validation = manifest.rows(VALIDATION)
        head, history = _fit_head(
            study, name, (x_train, y_train), (found[validation], y[validation]), len(manifest.classes)
        )
        model = backbones.build(backbone, images.shape[1:3], len(manifest.classes), weights)
        model.get_layer(backbones.LOGITS).set_weights(head)
        _save(
            folder,
            model,
            history,
            {part: found[manifest.rows(part)] @ head[0] + head[1] for part in (VALIDATION, TEST)},
        )

    return _trained(name, manifest, stage("transfer", inputs, build, __name__))


def _fit_head(
    study: Study,
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    classes: int,
) -> tuple[list[np.ndarray], pd.DataFrame]:
    """Trains on standardised features and folds the standardisation into the head: kernel `(channels, k)` and bias `(k,)`."""
    mean, deviation = train[0].mean(0), train[0].std(0) + 1e-3
    standard = [((x - mean) / deviation, y) for x, y in (train, validation)]
    steps = study.head.epochs * -(-len(train[1]) // study.head.batch_size)
    fits = []
    for penalty in study.head.l2:
        dense = keras.layers.Dense(
            classes, kernel_initializer="zeros", kernel_regularizer=keras.regularizers.L2(penalty)
        )
        model = keras.Sequential([keras.Input((len(mean),)), dense])
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(study.head.learning_rate, steps))
        history = _fit(
            f"{name}, l2 {penalty}",
            model,
            optimizer,
            *standard,
            epochs=study.head.epochs,
            batch_size=study.head.batch_size,
        )
        logits = standard[1][0] @ model.get_weights()[0] + model.get_weights()[1]
        fits.append(
            (
                log_loss(validation[1], softmax(logits, axis=1), labels=range(classes)),
                penalty,
                model.get_weights(),
                history,
            )
        )
    _, penalty, (kernel, bias), history = min(fits, key=lambda fit: fit[0])
    return [kernel / deviation[:, None], bias - (mean / deviation) @ kernel], history.assign(l2=penalty)


def scratch(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, policy: str | None = None) -> Trained:
    """Trains a network from random weights, all layers, with the study's augmentation or another policy."""
    policy = study.augmentation if policy is None else policy
    name = f"{backbone}, from scratch"
    inputs = _inputs(study, manifest, images, backbone, RANDOM) | {"training": study.scratch, "policy": policy}

    def build(folder: Path) -> None:
        runtime.configure(study.seed)
        model = backbones.build(backbone, images.shape[1:3], len(manifest.classes))
        _train_and_save(folder, study, study.scratch, manifest, images, model, name, policy)

    return _trained(name, manifest, stage("scratch", inputs, build, __name__))


def fine_tune(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> Trained:
    """Trains all layers of a pretrained network, from the frozen backbone's head on.

    Pretrained batch normalisation stays frozen: with it trained, its moving averages lag behind the weights and test
    accuracy collapses.
    """
    start = transfer(study, manifest, images, backbone, weights)
    name = f"{backbone}, fine-tuned"
    inputs = _inputs(study, manifest, images, backbone, weights) | {
        "training": study.fine_tuning,
        "policy": study.augmentation,
        "start": start.folder.name,
    }

    def build(folder: Path) -> None:
        runtime.configure(study.seed)
        model = start.model()
        for layer in model.layers:
            layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        _train_and_save(folder, study, study.fine_tuning, manifest, images, model, name, study.augmentation)

    return _trained(name, manifest, stage("fine_tuning", inputs, build, __name__))


def best_frozen(study: Study, manifest: Manifest, images: np.ndarray) -> tuple[Trained, str, Weights]:
    """The frozen backbone with the lowest validation loss, its name and its weights.

    Raises:
        ModelError: The study has no backbone with pretrained weights.
    """
    found, missing = backbones.resolve(study)
    if not found:
        reasons = "; ".join(missing.values()) or "the study names none that has any"
        raise ModelError(
            f"study {study.study}: no pretrained weights to fine-tune ({reasons}); connect once, or add mobilenet_v2_0.35, whose weights scanbook ships"
        )
    y = manifest.y[manifest.rows(VALIDATION)]
    losses = {}
    for name, weights in found.items():
        trained = transfer(study, manifest, images, name, weights)
        losses[name] = (
            log_loss(
                y, softmax(trained.logits(VALIDATION).astype(np.float64), axis=1), labels=range(len(manifest.classes))
            ),
            trained,
        )
    name = min(losses, key=lambda each: losses[each][0])
    return losses[name][1], name, found[name]


def final(study: Study, manifest: Manifest, images: np.ndarray) -> Trained:
    """The study's model: the best frozen backbone, chosen on validation, fine-tuned."""
    _, name, weights = best_frozen(study, manifest, images)
    return fine_tune(study, manifest, images, name, weights)


def train_all(
    plan: Training, name: str, model: Any, images: np.ndarray, y: np.ndarray, part: np.ndarray, policy: str, seed: int
) -> pd.DataFrame:
    """Trains all trainable layers of a network and keeps the epoch with the lowest validation loss.

    Args:
        plan: Epochs, learning rate, batch size, label smoothing.
        name: What is trained, for progress lines.
        model: A network of `backbones.build`; trained in place.
        images: uint8 `(n, h, w, 3)`.
        y: Class of each, int `(n,)`.
        part: "train" or "validation" for each that is used, `(n,)`.
        policy: Augmentation of the training images.
        seed: Seed of shuffling and augmentation.

    Returns:
        A row an epoch, as `Trained.history`.
    """
    rows, validation = np.flatnonzero(part == TRAIN), np.flatnonzero(part == VALIDATION)
    batches = _Batches(images, rows, y[rows], plan.batch_size, policy, seed)
    steps = batches.num_batches
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps * max(plan.epochs - 1, 1),
        warmup_target=plan.learning_rate,
        warmup_steps=steps if plan.epochs > 1 else 1,
    )
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=1.0)
    held_out = (images[validation], y[validation])
    return _fit(name, model, optimizer, batches, held_out, epochs=plan.epochs, label_smoothing=plan.label_smoothing)


def _train_and_save(
    folder: Path,
    study: Study,
    plan: Training,
    manifest: Manifest,
    images: np.ndarray,
    model: Any,
    name: str,
    policy: str,
) -> None:
    history = train_all(plan, name, model, images, manifest.y, manifest.frame["part"].to_numpy(), policy, study.seed)
    engine = engines.KerasEngine(model)
    _save(folder, model, history, {part: engine.predict(images[manifest.rows(part)])[0] for part in (VALIDATION, TEST)})


def _fit(
    name: str,
    model: Any,
    optimizer: Any,
    train: Any,
    validation: tuple[np.ndarray, np.ndarray],
    *,
    epochs: int,
    batch_size: int | None = None,
    label_smoothing: float = 0.0,
) -> pd.DataFrame:
    """Fits and keeps the weights of the epoch with the lowest validation loss."""
    classes = model.output_shape[-1]
    loss = _smoothed_loss(classes, label_smoothing)
    model.compile(optimizer, loss, metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])
    clock = _EpochLine(name)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    x, y = train if isinstance(train, tuple) else (train, None)
    try:
        result = model.fit(
            x,
            y,
            batch_size=batch_size,
            epochs=epochs,
            validation_data=validation,
            validation_batch_size=64,
            verbose=0,
            callbacks=[clock, stopping],
        )
    except MemoryError as error:
        raise ModelError(f"{name}: out of memory; lower batch_size or image_size") from error
    frame = pd.DataFrame(result.history).rename(columns=lambda key: key.replace("val_", "validation_"))
    frame.insert(0, "epoch", np.arange(1, len(frame) + 1))
    return frame.assign(seconds=clock.times)[
        ["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]
    ]


def _smoothed_loss(classes: int, smoothing: float) -> Callable[[Any, Any], Any]:
    """Cross-entropy of integer labels against logits, with label smoothing, which Keras has for one-hot labels only."""
    if not smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(y_true: Any, logits: Any) -> Any:
        one_hot = keras.ops.one_hot(keras.ops.reshape(y_true, (-1,)), classes)
        return keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True, label_smoothing=smoothing)

    return loss


def _inputs(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> dict[str, Any]:
    return {
        "manifest": manifest.fingerprint(),
        "size": images.shape[1:3],
        "backbone": backbone,
        "weights": weights.digest,
        "seed": study.seed,
    }


def _save(folder: Path, model: Any, history: pd.DataFrame, logits: dict[str, np.ndarray]) -> None:
    model.save(folder / "model.keras")
    atomic_write(folder / "history.csv", history.to_csv(index=False))
    np.savez(folder / "logits.npz", **{part: values.astype(np.float32) for part, values in logits.items()})


def _trained(name: str, manifest: Manifest, folder: Path) -> Trained:
    return Trained(name, folder, pd.read_csv(folder / "history.csv"), manifest.classes)
