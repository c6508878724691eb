"""A trained network as its stage keeps it: the model, its history, and its logits of validation and test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.data.manifest import TEST, VALIDATION, Manifest
from scanbook.models import backbones, engines
from scanbook.registry import EMBEDDINGS, short_name
from scanbook.store import atomic_write
from scanbook.training import objectives

keras = runtime.keras()

MODEL, HISTORY, LOGITS, SECONDS = "model.keras", "history.csv", "logits.npz", "seconds.txt"
"""Names of the files of a stage."""
Kind = Literal["frozen", "fine-tuned", "from scratch"]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network.

    Attributes:
        name: Backbone and kind of training, for reports; of an average, also what was averaged.
        backbone: Its backbone, as the study names it; of an average, that of the first network.
        kind: How it was trained; a head on vectors counts as one on a frozen network, wherever that is.
        folder: Folder of the stage that holds it.
        history: One row per epoch: `epoch`, `loss`, `accuracy`, `validation_loss`, `validation_accuracy`,
            `seconds` since the start of training, and the `device` that trained.
        names: Classes or findings, in the order of the logits.
        policy: Augmentation policy of its training images.
        seed: Seed of its training.
        others: Of an average, the other backbones among its networks.
    """

    name: str
    backbone: str
    kind: Kind
    folder: Path
    history: pd.DataFrame
    names: tuple[str, ...]
    policy: str
    seed: int
    others: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name, policy and seed, which differ between all networks of a study."""
        return f"{self.name}, augmentation {self.policy}, seed {self.seed}"

    @property
    def seconds(self) -> float:
        """Duration of training in seconds, including the extraction of features and the final predictions."""
        return float((self.folder / SECONDS).read_text())

    @property
    def stages(self) -> list[str]:
        """Stages of fine-tuning whose validation logits were saved, in their order."""
        with np.load(self.folder / LOGITS) as arrays:
            return [key for key in arrays.files if key not in (VALIDATION, TEST)]

    def logits(self, split: str) -> np.ndarray:
        """Return the logits of a split's images in the manifest's order, float32 `(m, k)`.

        Args:
            split: "validation" or "test"; or one of `stages`, for the validation images at the end of that stage.
        """
        with np.load(self.folder / LOGITS) as arrays:
            return arrays[split]

    def load_model(self) -> Any:
        """Load the `keras.Model`, from uint8 images to logits."""
        return backbones.load(self.folder / MODEL)


def save_training(
    folder: Path,
    model: Any,
    history: pd.DataFrame,
    manifest: Manifest,
    images: np.ndarray,
    *,
    stage_logits: dict[str, np.ndarray] | None = None,
) -> None:
    """Save a trained network, its history, and its logits of validation and, for the first time, of test.

    Args:
        folder: Folder of the stage.
        model: A `keras.Model` from images to logits.
        history: One row per epoch.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        stage_logits: Logits of the validation images, `(m, k)`, at the end of each stage of fine-tuning.
    """
    keras.Model(model.input, model.output, name=model.name).save(folder / MODEL)  # without the optimizer
    atomic_write(folder / HISTORY, history.to_csv(index=False))
    engine = engines.KerasEngine(model)
    logits = {split: engines.predict_rows(engine, images, manifest.rows(split))[0] for split in (VALIDATION, TEST)}
    np.savez(folder / LOGITS, **logits, **(stage_logits or {}))


def save_seconds(folder: Path, started: float, history: pd.DataFrame | None = None) -> None:
    """Save the duration of training; of a run that was resumed, at least the duration of its epochs.

    Args:
        folder: Folder of the stage.
        started: Start of training, by `time.perf_counter`.
        history: One row per epoch, with `seconds`.
    """
    epochs = 0.0 if history is None else float(history["seconds"].iloc[-1])
    atomic_write(folder / SECONDS, f"{max(time.perf_counter() - started, epochs):.3f}\n")


def read_training(
    backbone: str, kind: Kind, manifest: Manifest, folder: Path, *, policy: str, seed: int, name: str = ""
) -> TrainedModel:
    """Return the network that a stage holds; its name follows from backbone and kind, unless it is given."""
    name, history = name or name_network(backbone, kind), pd.read_csv(folder / HISTORY)
    return TrainedModel(name, backbone, kind, folder, history, manifest.names, policy, seed)


def name_network(backbone: str, kind: Kind) -> str:
    """Return the name of a network in reports."""
    return f"{short_name(backbone)}, {'head' if backbone == EMBEDDINGS else kind}"


def validation_loss(manifest: Manifest, logits: np.ndarray) -> float:
    """Return the cross-entropy of validation logits, float `(m, k)`, by which networks and penalties are chosen."""
    return objectives.of(manifest.labels).validation_loss(manifest.label_values(VALIDATION), logits)
