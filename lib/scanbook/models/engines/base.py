"""What an engine is, and when one may stand in for the trained network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

Mode = Literal["latency", "throughput"]
Precision = Literal["fp32", "int8"]

PARITY = 1e-3
"""Largest difference of logits between engines, as a share of their spread, that still counts as the same model."""
INT8_LOSS = 0.01
"""Largest loss of accuracy for which int8 may be used: one point."""

CHUNK = 512
"""Images of a file that are in memory at a time."""


class Engine(Protocol):
    """Runs a model. Threads may share it.

    Attributes:
        name: What it is called in tables.
        precision: Of its arithmetic.
        requests: Batches that it can work on at a time.
    """

    name: str
    precision: Precision
    requests: int

    def predict(self, images: np.ndarray, batch_size: int = ...) -> tuple[np.ndarray, ...]:
        """Outputs of the model for uint8 RGB `(n, h, w, 3)`: one float32 array an output, n rows each.

        The default batch size is what suits the engine.
        """
        ...


def batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    """Images, uint8 `(n, h, w, 3)`, in consecutive batches of `size`, the last of which may be smaller."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def join(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Outputs of consecutive batches, each `(batch, …)`, as those of all images, `(n, …)`."""
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


def of_rows(engine: Engine, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Outputs for some rows of images that stay in their file: `CHUNK` of them at a time are in memory."""
    chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    return join([engine.predict(images[chunk]) for chunk in chunks])


def parity(reference: np.ndarray, other: np.ndarray) -> float:
    """Largest difference of two sets of logits, as a share of the reference's spread (standard deviation).

    Args:
        reference: Logits, `(n, k)`.
        other: Logits of the same images by another engine.
    """
    return float(np.abs(reference - other).max() / reference.std())


def centred_log(probabilities: np.ndarray) -> np.ndarray:
    """Logits recovered from probabilities, up to the temperature: log p less its mean over the classes.

    Args:
        probabilities: `(n, k)`; one of 0 counts as the smallest normal float32.

    Returns:
        float64 `(n, k)`, the centred log-ratio (Aitchison, 1982).
    """
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny))
    return logs - logs.mean(axis=1, keepdims=True)


def refusal(precision: Precision, reference: np.ndarray, other: np.ndarray, y_true: np.ndarray) -> str:
    """Why an engine may not stand in for the trained network; "" where it may.

    In float32 it has to give the same logits, within `PARITY`. In int8 it cannot; there it has to be as often right,
    within `INT8_LOSS`.

    Args:
        precision: Of the engine.
        reference: Logits of the trained network by Keras, `(n, k)`.
        other: Logits of the same images by the engine.
        y_true: True classes, int `(n,)`; images that the network did not learn from.

    Returns:
        One line with the figures that decided.
    """
    if not np.isfinite(other).all():
        return f"{precision}: {int((~np.isfinite(other)).any(1).sum())} of {len(other)} images get no finite logits"
    if precision == "fp32":
        difference = parity(reference, other)
        if difference <= PARITY:
            return ""
        return (
            f"fp32: logits differ from Keras's by {difference:.2g} of their spread on {len(other)} images, "
            f"at most {PARITY:g} is allowed"
        )
    right, expected = (int((logits.argmax(1) == y_true).sum()) for logits in (other, reference))
    if (expected - right) / len(other) <= INT8_LOSS:
        return ""
    return (
        f"int8: right on {right} of {len(other)} images ({right / len(other):.1%}), Keras in float32 on {expected} "
        f"({expected / len(other):.1%}); it may lose {100 * INT8_LOSS:g} % of the images"
    )


def size_on_disk(path: Path) -> int:
    """Bytes of a model: a file, an OpenVINO `.xml` with the `.bin` beside it, or a SavedModel's folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return sum(file.stat().st_size for file in files)
