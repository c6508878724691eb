"""What training leaves: a network, its history, and its answers for validation and test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from scanbook import runtime
from scanbook.data.manifest import TEST, VALIDATION, Manifest
from scanbook.models import backbones, engines
from scanbook.store import atomic_write

keras = runtime.keras()

MODEL, HISTORY, LOGITS, SECONDS = "model.keras", "history.csv", "logits.npz", "seconds.txt"


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        name: What was trained and how, for reports.
        folder: The stage that holds it.
        history: A row an epoch: `epoch`, `loss`, `accuracy`, `validation_loss`, `validation_accuracy`, and `seconds`
            since the start of training.
        classes: Class names, in the order of the logits.
        policy: Augmentation of its training images.
        seed: Seed of its training.
    """

    name: str
    folder: Path
    history: pd.DataFrame
    classes: tuple[str, ...]
    policy: str
    seed: int

    @property
    def arm(self) -> str:
        """What tells it from every other network of a study."""
        return f"{self.name}, augmentation {self.policy}, seed {self.seed}"

    @property
    def seconds(self) -> float:
        """Time that training took, in seconds, with the extraction of features and, at the end, all predictions."""
        return float((self.folder / SECONDS).read_text())

    @property
    def steps(self) -> list[str]:
        """The stages of fine-tuning whose validation logits were kept, in their order."""
        with np.load(self.folder / LOGITS) as arrays:
            return [key for key in arrays.files if key not in (VALIDATION, TEST)]

    def logits(self, split: str) -> np.ndarray:
        """Logits of a part's images in the manifest's order, float32 `(m, k)`.

        Args:
            split: "validation" or "test"; or one of `steps`, for the validation images at the end of that stage.
        """
        with np.load(self.folder / LOGITS) as arrays:
            return arrays[split]

    def model(self) -> Any:
        """The trained `keras.Model`, from uint8 images to logits."""
        return backbones.load(self.folder / MODEL)


def save(
    folder: Path,
    model: Any,
    history: pd.DataFrame,
    manifest: Manifest,
    images: np.ndarray,
    *,
    steps: dict[str, np.ndarray] | None = None,
) -> None:
    """Keeps a trained network, its history, and its logits of validation and, for the first time, of test.

    Args:
        folder: Of the stage.
        model: A `keras.Model` from images to logits.
        history: A row an epoch.
        manifest: The dataset, split.
        images: Of all its rows, uint8 `(n, h, w, 3)`.
        steps: Logits of the validation images, `(m, k)`, at the end of each earlier stage of the training.
    """
    keras.Model(model.input, model.output, name=model.name).save(folder / MODEL)  # without the optimizer
    atomic_write(folder / HISTORY, history.to_csv(index=False))
    engine = engines.KerasEngine(model)
    logits = {split: engines.of_rows(engine, images, manifest.rows(split))[0] for split in (VALIDATION, TEST)}
    np.savez(folder / LOGITS, **logits, **(steps or {}))


def note_seconds(folder: Path, started: float, history: pd.DataFrame | None = None) -> None:
    """Keeps how long training took; of a run that was continued, at least what its epochs took.

    Args:
        folder: Of the stage.
        started: When it did, as `time.perf_counter` says.
        history: A row an epoch, with `seconds`.
    """
    epochs = 0.0 if history is None else float(history["seconds"].iloc[-1])
    atomic_write(folder / SECONDS, f"{max(time.perf_counter() - started, epochs):.3f}\n")


def trained(name: str, manifest: Manifest, folder: Path, policy: str, seed: int) -> Trained:
    """The network that a stage keeps."""
    return Trained(name, folder, pd.read_csv(folder / HISTORY), manifest.classes, policy, seed)


def validation_loss(manifest: Manifest, logits: np.ndarray) -> float:
    """Log loss of validation logits, float `(m, k)`: what every choice between networks and penalties goes by."""
    y = manifest.y[manifest.rows(VALIDATION)]
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    return float(log_loss(y, probabilities, labels=range(len(manifest.classes))))
