"""Fitting a network: its loss and optimizer, what watches over it, and a checkpoint after every epoch."""

from __future__ import annotations

import io
import json
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.config import Schedule
from scanbook.errors import ModelError
from scanbook.runtime import distribution
from scanbook.store import atomic_write
from scanbook.training.batches import Batches

keras = runtime.keras()


class Clock(keras.callbacks.Callback):
    """Keeps the time of every epoch, stops when the loss is lost, and says a line an epoch where nobody watches."""

    def __init__(self, name: str, lines: bool) -> None:
        super().__init__()
        self.name, self.lines = name, lines and not runtime.interactive() and distribution.first_process()
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
            shown = ", ".join(
                f"{key.replace('val_', 'validation ').replace('_', ' ')} {value:.4g}" for key, value in logs.items()
            )
            print(
                f"{self.name}: epoch {epoch + 1}/{self.params['epochs']}, {self.times[-1]:.0f} s, {shown}", flush=True
            )


class Checkpoint(keras.callbacks.Callback):
    """Writes all that training goes on from after every epoch, and takes a killed run up where it stopped.

    Beside weights, optimizer and random states these are the states of the other callbacks, which Keras's own
    BackupAndRestore forgets, and the history. It must be the last of the callbacks.

    Args:
        path: The file, an .npz, written anew every epoch; None keeps nothing.
        watched: Callbacks whose plain attributes are kept: numbers, lists and arrays.
    """

    def __init__(self, path: Path | None, clock: Clock, watched: list[Any]) -> None:
        super().__init__()
        self.path, self.clock, self.watched = path, clock, watched
        self.rows: list[dict[str, float]] = []
        self.stopped = False
        self._arrays: dict[str, np.ndarray] = {}
        self._states: list[dict[str, Any]] = []
        if path and path.is_file():
            self._read(path)

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.rows)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path) as arrays:
                found = {key: arrays[key] for key in arrays.files}
            kept = json.loads(bytes(found.pop("state")))
            rows, stopped, states = kept["history"], kept["stopped"], kept["callbacks"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            print(f"{self.clock.name}: its checkpoint cannot be read, so training starts anew", flush=True)
            return
        self._arrays, self._states, self.rows, self.stopped = found, states, rows, stopped
        if distribution.first_process():
            print(f"{self.clock.name}: continues after epoch {self.epoch}, from its checkpoint", flush=True)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Puts everything back as it was, once the other callbacks have started."""
        if not self.rows:
            return
        variables = self._variables()
        if f"variable{len(variables) - 1}" not in self._arrays or f"variable{len(variables)}" in self._arrays:
            variables = self.model.variables  # another precision was trained in, whose optimizer keeps other states
        for index, variable in enumerate(variables):
            variable.assign(self._arrays[f"variable{index}"])
        for number, (callback, state) in enumerate(zip(self.watched, self._states, strict=True)):
            vars(callback).update(state)
            prefix = f"best{number}_"
            best = [self._arrays[f"{prefix}{i}"] for i in range(sum(key.startswith(prefix) for key in self._arrays))]
            if best:
                callback.best_weights = best
        self.clock.started -= self.rows[-1]["seconds"]
        self.clock.times = [row["seconds"] for row in self.rows]
        self._arrays = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Keeps the epoch's row of the history and writes the file."""
        self.rows.append({key: float(value) for key, value in (logs or {}).items()} | {"seconds": self.clock.times[-1]})
        if self.path is None or not distribution.first_process():
            return
        arrays = {f"variable{i}": np.asarray(each) for i, each in enumerate(self._variables())}
        states = []
        for number, callback in enumerate(self.watched):
            plain = {k: v for k, v in vars(callback).items() if isinstance(v, int | float) and not k.startswith("_")}
            states.append({key: value for key, value in plain.items() if key in _PROGRESS})
            for i, array in enumerate(getattr(callback, "best_weights", None) or ()):
                arrays[f"best{number}_{i}"] = array
        state = {"history": self.rows, "callbacks": states, "stopped": bool(self.model.stop_training)}
        arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        atomic_write(self.path, buffer.getvalue())

    def _variables(self) -> list[Any]:
        """Weights, states of random generators, and the optimizer's moments."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return [*self.model.variables, *optimizer.variables]


_NO_MEMORY = ("MemoryError", "ResourceExhaustedError", "OutOfMemoryError")
"""What Python, TensorFlow and PyTorch call it; JAX says RESOURCE_EXHAUSTED."""
_WATCHED = "cross_entropy"
_PROGRESS = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")
"""What Keras's EarlyStopping and ReduceLROnPlateau count."""


class DepthAdam(keras.optimizers.Adam):
    """Adam whose learning rate depends on the layer: the discriminative rates of Howard and Ruder (ACL 2018).

    Args:
        shares: Each variable's share of the learning rate, by its path.
        options: Those of Adam.
    """

    def __init__(self, *args: Any, shares: Mapping[str, float] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.shares = dict(shares or {})

    def build(self, variables: list[Any]) -> None:
        """Notes the share of each variable; a step is given the backend's own, which has no path."""
        super().build(variables)
        self._by_index = [self.shares.get(variable.path, 1.0) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Takes a step of one variable."""
        share = self._by_index[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * share)


def weighted_layers(model: Any) -> list[Any]:
    """A network's layers that have weights, first to last; a transformer's encoder counts as its blocks."""
    found = []
    for layer in model.layers:
        parts = [part for part in layer._flatten_layers(include_self=False, recursive=False) if part.weights]
        inside = {id(weight) for part in parts for weight in part.weights}
        whole = not parts or any(id(weight) not in inside for weight in layer.weights)
        found += ([layer] if layer.weights else []) if whole else parts
    return found


def depth_shares(model: Any, first: float) -> dict[str, float]:
    """Shares of the learning rate, by path of the variable: `first` for the first layer, 1 for the head.

    Layers between follow on a geometric scale, by their place among the layers that have weights.
    """
    learning = weighted_layers(model)
    last = max(len(learning) - 1, 1)
    return {
        variable.path: float(first ** (1 - place / last))
        for place, layer in enumerate(learning)
        for variable in layer.weights
    }


def optimizer(values: Schedule, steps: int, shares: Mapping[str, float] | None = None) -> Any:
    """Adam for whole networks, with gradients clipped.

    Args:
        values: Learning rate, epochs and how the rate changes; by default it warms up over one epoch and falls on a
            cosine.
        steps: Batches in an epoch.
        shares: Each variable's share of the learning rate, by its path.
    """
    rate: Any = values.learning_rate
    if getattr(values, "rate_schedule", "cosine") == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            0.0,
            steps * max(values.epochs - 1, 1),
            warmup_target=values.learning_rate,
            warmup_steps=steps if values.epochs > 1 else 1,
        )
    decay = getattr(values, "weight_decay", 0.0) or None
    found = DepthAdam(rate, shares=shares, weight_decay=decay, global_clipnorm=1.0)
    if decay:
        found.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return found


class CrossEntropy(keras.losses.Loss):
    """Cross-entropy of one-hot, smoothed or mixed classes against logits.

    Args:
        smoothing: Share of a label that is spread over all classes.
        weights: What an image of each class counts, float `(k,)`; None for 1 each.
    """

    def __init__(self, smoothing: float = 0.0, weights: np.ndarray | None = None) -> None:
        # a mean over the images that count: those that fill a batch up have a weight of 0
        super().__init__(name="cross_entropy", reduction="mean_with_sample_weight")
        self.smoothing, self.weights = smoothing, weights

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each image, `(n,)`."""
        losses = keras.losses.categorical_crossentropy(y_true, y_pred, from_logits=True, label_smoothing=self.smoothing)
        if self.weights is None:
            return losses
        return losses * keras.ops.matmul(y_true, keras.ops.cast(self.weights, y_true.dtype))


def metrics() -> list[Any]:
    """What is watched: cross-entropy without penalty or smoothing, and accuracy (of a mixed label: its larger part)."""
    plain = keras.metrics.CategoricalCrossentropy(from_logits=True, name=_WATCHED)
    return [plain, keras.metrics.CategoricalAccuracy(name="accuracy")]


def fit(
    name: str,
    model: Any,
    train: Batches | tuple[np.ndarray, np.ndarray],
    validation: Batches | tuple[np.ndarray, np.ndarray],
    values: Schedule,
    *,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Fits a compiled model and keeps the weights of the epoch with the lowest validation cross-entropy.

    Args:
        name: What is trained, for progress lines.
        model: Compiled with `CrossEntropy` and `metrics`; trained in place.
        train: Batches, or arrays `x` and one-hot `y`.
        validation: The same.
        values: Epochs, batch size, patience.
        checkpoint: File to go on from when this process is killed; None keeps none.

    Returns:
        A row an epoch: `epoch`, `loss`, `accuracy`, `validation_loss`, `validation_accuracy`, and `seconds` since the
        start of training. Losses are cross-entropy, without penalty or smoothing, so that arms can be compared.

    Raises:
        ModelError: The loss is no number any more, or memory ran out.
    """
    batches = isinstance(train, Batches)
    patience = getattr(values, "patience", None) or values.epochs
    lowest = {"monitor": f"val_{_WATCHED}", "mode": "min"}
    watched = [keras.callbacks.EarlyStopping(**lowest, patience=patience, restore_best_weights=True)]
    if getattr(values, "rate_schedule", "") == "plateau":
        watched.append(keras.callbacks.ReduceLROnPlateau(**lowest, factor=0.5, patience=values.plateau_patience))
    clock = Clock(name, lines=batches)
    keeper = Checkpoint(checkpoint, clock, watched)
    x, y = (train, None) if batches else train
    if batches:
        train.begin(keeper.epoch)
    try:
        # one pass without an epoch puts a finished run's best weights back
        model.fit(
            x,
            y,
            validation_data=validation,
            validation_batch_size=None if isinstance(validation, Batches) else 64,
            epochs=keeper.epoch if keeper.stopped else values.epochs,
            initial_epoch=keeper.epoch,
            batch_size=None if batches else values.batch_size,
            shuffle=not batches,  # they are drawn in an order of their own
            verbose=int(batches and runtime.interactive() and distribution.first_process()),
            callbacks=[*watched, clock, keeper],
        )
    except Exception as error:
        if type(error).__name__ in _NO_MEMORY or "RESOURCE_EXHAUSTED" in str(error):
            raise ModelError(f"{name}: out of memory; lower batch_size or image_size") from error
        raise
    frame = pd.DataFrame(keeper.rows).drop(columns=["loss", "val_loss"])
    frame = frame.rename(columns=lambda key: key.replace(_WATCHED, "loss").replace("val_", "validation_"))
    frame.insert(0, "epoch", np.arange(1, len(frame) + 1))
    return frame[["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds"]]
