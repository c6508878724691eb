"""Fits a network: optimizer, callbacks, and a checkpoint after every epoch."""

from __future__ import annotations

import io
import json
import math
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
from scanbook.runtime.steps import Step, reported
from scanbook.store import atomic_write
from scanbook.training.batches import Batches
from scanbook.training.objectives import MONITORED

keras = runtime.keras()


class Clock(keras.callbacks.Callback):
    """Records the time of every epoch, stops at a loss that is not finite, and prints a line per epoch if headless.

    Args:
        name: Name of the training.
        lines: Whether to print lines.
        epochs: Number of epochs.

    Attributes:
        step: The training as a step, whose epochs it counts.
    """

    def __init__(self, name: str, lines: bool, epochs: int | None = None) -> None:
        super().__init__()
        self.step = Step(name, epochs, "epoch")
        self.name, self.lines = name, lines and not runtime.interactive() and distribution.first_process()
        self.times: list[float] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Record the time; raise a `ModelError` if a loss is not finite."""
        logs = logs or {}
        self.step.advance(epoch + 1)
        self.times.append(time.perf_counter() - self.started)
        invalid = [key.replace("val_", "validation ") for key in ("loss", "val_loss") if not np.isfinite(logs[key])]
        if invalid:
            raise ModelError(
                f"{self.name}: the {invalid[0]} in epoch {epoch + 1} is not a number; "
                "lower learning_rate, or look for broken images"
            )
        if self.lines:
            values = ", ".join(
                f"{key.replace('val_', 'validation ').replace('_', ' ')} {value:.4g}" for key, value in logs.items()
            )
            print(
                f"{self.name}: epoch {epoch + 1}/{self.params['epochs']}, {self.times[-1]:.0f} s, {values}", flush=True
            )


class Checkpoint(keras.callbacks.Callback):
    """Saves the state of training after every epoch, and resumes a killed run from it.

    The state has weights, optimizer, random states, the history, and the states of the other callbacks, which Keras's
    own BackupAndRestore forgets. It must be the last of the callbacks.

    Args:
        path: The file, an .npz, written anew every epoch; None writes none.
        clock: Clock of the same training.
        callbacks: Callbacks whose progress is saved.
    """

    def __init__(self, path: Path | None, clock: Clock, callbacks: list[Any]) -> None:
        super().__init__()
        self.path, self.clock, self.callbacks = path, clock, callbacks
        self.rows: list[dict[str, Any]] = []
        self.stopped = False
        self._arrays: dict[str, np.ndarray] = {}
        self._states: list[dict[str, Any]] = []
        if path and path.is_file():
            self._read(path)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.rows)

    def _read(self, path: Path) -> None:
        try:
            with np.load(path) as arrays:
                values = {key: arrays[key] for key in arrays.files}
            state = json.loads(bytes(values.pop("state")))
            rows, stopped, states = state["history"], state["stopped"], state["callbacks"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            print(f"{self.clock.name}: its checkpoint cannot be read, so training starts anew", flush=True)
            return
        self._arrays, self._states, self.rows, self.stopped = values, states, rows, stopped
        if distribution.first_process():
            print(f"{self.clock.name}: continues after epoch {self.epoch}, from its checkpoint", flush=True)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Restore the state, once the other callbacks have started."""
        if not self.rows:
            return
        variables = self._variables()
        if f"variable{len(variables) - 1}" not in self._arrays or f"variable{len(variables)}" in self._arrays:
            variables = self.model.variables  # it was trained in another precision, whose optimizer has other states
        for index, variable in enumerate(variables):
            variable.assign(self._arrays[f"variable{index}"])
        for number, (callback, state) in enumerate(zip(self.callbacks, self._states, strict=True)):
            vars(callback).update(state)
            prefix = f"best{number}_"
            best = [self._arrays[f"{prefix}{i}"] for i in range(sum(key.startswith(prefix) for key in self._arrays))]
            if best:
                callback.best_weights = best
        self.clock.started -= self.rows[-1]["seconds"]
        self.clock.times = [row["seconds"] for row in self.rows]
        self._arrays = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Add the epoch's row to the history and write the file."""
        place = {"seconds": self.clock.times[-1], "device": runtime.device()}
        self.rows.append({key: float(value) for key, value in (logs or {}).items()} | place)
        if self.path is None or not distribution.first_process():
            return
        arrays = {f"variable{i}": np.asarray(variable) for i, variable in enumerate(self._variables())}
        states = []
        for number, callback in enumerate(self.callbacks):
            numbers = {key: value for key, value in vars(callback).items() if isinstance(value, int | float)}
            states.append({key: value for key, value in numbers.items() if key in _PROGRESS})
            for i, array in enumerate(getattr(callback, "best_weights", None) or ()):
                arrays[f"best{number}_{i}"] = array
        state = {"history": self.rows, "callbacks": states, "stopped": bool(self.model.stop_training)}
        arrays["state"] = np.frombuffer(json.dumps(state).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        atomic_write(self.path, buffer.getvalue())

    def _variables(self) -> list[Any]:
        """Return weights, states of random generators, and the optimizer's moments."""
        return [*self.model.variables, *self.model.optimizer.variables]


_NO_MEMORY = ("MemoryError", "ResourceExhaustedError", "OutOfMemoryError")
"""Errors of Python, TensorFlow and PyTorch; JAX says RESOURCE_EXHAUSTED."""
_PROGRESS = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter", "_ema_weights_in_model")
"""Attributes with the progress of Keras's EarlyStopping, ReduceLROnPlateau and SwapEMAWeights: all are numbers."""


class DepthAdam(keras.optimizers.Adam):
    """Adam whose learning rate depends on the layer: the discriminative rates of Howard and Ruder (ACL 2018).

    Args:
        shares: Share of the learning rate by path of the variable.
        options: Options of Adam.
    """

    def __init__(self, *args: Any, shares: Mapping[str, float] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.shares = dict(shares or {})

    def build(self, variables: list[Any]) -> None:
        """Record the share of each variable; a step gets the backend's own variable, which has no path."""
        super().build(variables)
        self._by_index = [self.shares.get(variable.path, 1.0) for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        share = self._by_index[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * share)


def weighted_layers(model: Any) -> list[Any]:
    """Return a network's layers with weights, first to last; a transformer's encoder counts as its blocks."""
    weighted = []
    for layer in model.layers:
        parts = [part for part in layer._flatten_layers(include_self=False, recursive=False) if part.weights]
        inside = {id(weight) for part in parts for weight in part.weights}
        whole = not parts or any(id(weight) not in inside for weight in layer.weights)
        weighted += ([layer] if layer.weights else []) if whole else parts
    return weighted


def depth_shares(model: Any, first: float) -> dict[str, float]:
    """Return shares of the learning rate by path of the variable: `first` for the first layer, 1 for the head.

    Layers between follow on a geometric scale, by their place among the layers with weights.
    """
    weighted = weighted_layers(model)
    last = max(len(weighted) - 1, 1)
    return {
        variable.path: float(first ** (1 - place / last))
        for place, layer in enumerate(weighted)
        for variable in layer.weights
    }


class _Cosine(keras.optimizers.schedules.CosineDecay):
    """The learning rate's warm-up and fall, from a step on.

    Args:
        start: Number of steps before the first.
        options: Options of CosineDecay.
    """

    def __init__(self, *args: Any, start: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.start = start

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step."""
        return super().__call__(step + self.start)


def optimizer(
    values: Schedule, steps: int, shares: Mapping[str, float] | None = None, span: tuple[int, int] | None = None
) -> Any:
    """Return Adam with clipped gradients, for end-to-end training.

    Its weight decay is apart from the gradient (AdamW; Loshchilov and Hutter, ICLR 2019). The moving average of the
    weights is that of Polyak and Juditsky (1992), with exponential weights, whose length counts in epochs: it then fits
    small and large datasets alike.

    Args:
        values: Learning rate, epochs and schedule; by default the rate warms up over one epoch and falls on a cosine.
        steps: Number of batches per epoch.
        shares: Share of the learning rate by path of the variable.
        span: Number of epochs of the schedule before this training, and of all; None where it has all of them.
    """
    rate: Any = values.learning_rate
    if getattr(values, "rate_schedule", "cosine") == "cosine":
        before, epochs = span or (0, values.epochs)
        rate = _Cosine(
            0.0,
            steps * max(epochs - 1, 1),
            warmup_target=values.learning_rate,
            warmup_steps=steps if epochs > 1 else 1,
            start=before * steps,
        )
    decay = getattr(values, "weight_decay", 0.0) or None
    average = getattr(values, "moving_average", None)
    averaging = {"use_ema": True, "ema_momentum": math.exp(-1 / (average * steps))} if average else {}
    adam = DepthAdam(rate, shares=shares, weight_decay=decay, global_clipnorm=1.0, **averaging)
    if decay:
        adam.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adam


def fit(
    name: str,
    model: Any,
    train: Batches | tuple[np.ndarray, np.ndarray],
    validation: Batches | tuple[np.ndarray, np.ndarray],
    values: Schedule,
    *,
    checkpoint: Path | None = None,
) -> pd.DataFrame:
    """Fit a compiled model and keep the weights of the epoch with the lowest validation cross-entropy.

    Args:
        name: Name of the training, for progress lines.
        model: Compiled with the loss and the metrics of an objective; trained in place.
        train: Batches, or arrays `x` and `y`.
        validation: Batches, or arrays, of the validation images.
        values: Epochs, batch size and patience.
        checkpoint: File from which a killed training is resumed; None writes none.

    Returns:
        One row per epoch: `epoch`, `loss`, `accuracy`, `validation_loss`, `validation_accuracy`, `seconds` since the
        start of training, and the `device` that trained. Losses are cross-entropy without penalty or smoothing, by
        which trainings can be compared.

    Raises:
        ModelError: The loss is not finite, or memory ran out.
    """
    batches = isinstance(train, Batches)
    patience = getattr(values, "patience", None) or values.epochs
    lowest = {"monitor": f"val_{MONITORED}", "mode": "min"}
    callbacks = [keras.callbacks.EarlyStopping(**lowest, patience=patience, restore_best_weights=True)]
    if getattr(values, "rate_schedule", "") == "plateau":
        callbacks.append(keras.callbacks.ReduceLROnPlateau(**lowest, factor=0.5, patience=values.plateau_patience))
    # TensorFlow traces a step that creates variables twice, and starts each of them behind a condition
    model.optimizer.build(model.trainable_variables)
    if getattr(values, "moving_average", None):
        # the first: at the end of an epoch the others then see the average
        callbacks.insert(0, keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    clock = Clock(name, batches, values.epochs)
    saved = Checkpoint(checkpoint, clock, callbacks)
    clock.step.done = clock.step.before = saved.epoch
    x, y = (train, None) if batches else train
    if batches:
        train.begin(saved.epoch)
    try:
        with reported(clock.step):
            # a pass without an epoch restores the best weights of a finished run
            model.fit(
                x,
                y,
                validation_data=validation,
                validation_batch_size=None if isinstance(validation, Batches) else 64,
                epochs=saved.epoch if saved.stopped else values.epochs,
                initial_epoch=saved.epoch,
                batch_size=None if batches else values.batch_size,
                shuffle=not batches,  # `Batches` sample their own order
                verbose=int(batches and runtime.interactive() and distribution.first_process()),
                callbacks=[*callbacks, clock, saved],
            )
    except Exception as error:
        if type(error).__name__ in _NO_MEMORY or "RESOURCE_EXHAUSTED" in str(error):
            raise ModelError(f"{name}: out of memory; lower batch_size or image_size") from error
        raise
    frame = pd.DataFrame(saved.rows).drop(columns=["loss", "val_loss"])
    frame = frame.rename(columns=lambda key: key.replace(MONITORED, "loss").replace("val_", "validation_"))
    frame.insert(0, "epoch", np.arange(1, len(frame) + 1))
    return frame[["epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds", "device"]]
