"""The interface of engines, and the conditions under which one may replace the trained network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

Mode = Literal["latency", "throughput"]
Precision = Literal["fp32", "int8"]

PARITY = 1e-3
"""Largest difference of logits between engines, as a share of their spread, that still counts as the same model."""
INT8_LOSS = 0.01
"""Largest loss of accuracy, and of findings also of macro AUROC, for which int8 may be used: one point."""

CHUNK = 512
"""Images of a file that are in memory at the same time."""


class Engine(Protocol):
    """Runs a model. Threads may share it.

    Attributes:
        name: Name in tables.
        precision: Precision of its arithmetic.
        requests: Batches that it can compute at the same time.
    """

    name: str
    precision: Precision
    requests: int

    def predict(self, images: np.ndarray, batch_size: int = ...) -> tuple[np.ndarray, ...]:
        """Return the outputs for uint8 RGB `(n, h, w, 3)`: one float32 array of n rows per output.

        The default batch size is the fastest of the engine.
        """
        ...


def batches(images: np.ndarray, size: int) -> list[np.ndarray]:
    """Return images, uint8 `(n, h, w, 3)`, in consecutive batches of `size`, the last of which may be smaller."""
    return [images[start : start + size] for start in range(0, len(images), size)]


def join(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Join the outputs of consecutive batches, each `(batch, …)`, to those of all images, `(n, …)`."""
    return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


def predict_batches(
    run: Callable[[np.ndarray], tuple[np.ndarray, ...]], images: np.ndarray, size: int, requests: int = 1
) -> tuple[np.ndarray, ...]:
    """Return the outputs of a function for consecutive batches of images, joined.

    Args:
        run: Returns the outputs for one batch, uint8 `(batch, h, w, 3)`.
        images: uint8 `(n, h, w, 3)`.
        size: Images per batch.
        requests: Batches that are computed at the same time.
    """
    parts = batches(images, size)
    if requests > 1 and len(parts) > 1:
        with ThreadPoolExecutor(requests) as pool:
            return join(list(pool.map(run, parts)))
    return join([run(batch) for batch in parts])


def chunks(rows: np.ndarray) -> list[np.ndarray]:
    """Return rows, int `(n,)`, in consecutive chunks of `CHUNK`, the last of which may be smaller."""
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def predict_rows(engine: Engine, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the outputs for some rows of images that stay in their file, read chunk by chunk."""
    if not len(rows):  # an engine may take no empty batch
        return tuple(output[:0] for output in engine.predict(images[:1]))
    return join([engine.predict(images[chunk]) for chunk in chunks(rows)])


def parity(reference: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference of two sets of logits, as a share of the reference's spread (standard deviation).

    Args:
        reference: Logits, `(n, k)`.
        other: Logits of the same images by another engine.
    """
    return float(np.abs(reference - other).max() / reference.std())


def centred_log(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits of probabilities, up to the temperature: log p less its mean over the classes.

    Args:
        probabilities: `(n, k)`; one of 0 counts as the smallest normal float32.

    Returns:
        float64 `(n, k)`, the centred log-ratio (Aitchison, 1982).
    """
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny))
    return logs - logs.mean(axis=1, keepdims=True)


def rejection_reason(precision: Precision, reference: np.ndarray, other: np.ndarray, y_true: np.ndarray) -> str:
    """Return why an engine may not replace the trained network; "" if it may.

    In float32 its logits must be the same, within `PARITY`. In int8 they cannot be; its accuracy must be the same,
    within `INT8_LOSS`. Of findings, which are mostly absent, the ranking must be the same, too: macro AUROC.

    Args:
        precision: Precision of the engine.
        reference: Logits of the trained network by Keras, `(n, k)`.
        other: Logits of the same images by the engine.
        y_true: True classes, int `(n,)`, of images that are not training images; or their findings, float `(n, k)`: 1
            present, 0 absent, NaN not labelled.

    Returns:
        One line with the deciding figures.
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
    return _loss_of_int8(reference, other, y_true)


def _loss_of_int8(reference: np.ndarray, other: np.ndarray, y_true: np.ndarray) -> str:
    """Return the line of an int8 model that loses more than `INT8_LOSS`; "" if none does; see `rejection_reason`."""
    labelled = ~np.isnan(y_true)
    count, answers = int(labelled.sum()), "images" if y_true.ndim == 1 else "labels"
    correct, expected = (int((_answers(logits, y_true) == y_true).sum()) for logits in (other, reference))
    if expected - correct > INT8_LOSS * count + 1e-9:
        return (
            f"int8: right on {correct} of {count} {answers} ({correct / count:.1%}), Keras in float32 on {expected} "
            f"({expected / count:.1%}); it may lose {100 * INT8_LOSS:g} % of the {answers}"
        )
    if y_true.ndim == 1:
        return ""
    area, full = (_macro_auroc(y_true, logits) for logits in (other, reference))
    if full - area > INT8_LOSS:
        return (
            f"int8: macro AUROC {area:.3f} on {len(other)} images, Keras in float32 {full:.3f}; it may lose "
            f"{INT8_LOSS:g}"
        )
    return ""


def _macro_auroc(y_true: np.ndarray, logits: np.ndarray) -> float:
    """Return the mean AUROC of the findings that are both present and absent; NaN where none is."""
    from sklearn.metrics import roc_auc_score  # here: a bundle has this module, and needs no scikit-learn

    areas = []
    for y, scores in zip(y_true.T, logits.T, strict=True):
        known = ~np.isnan(y)
        if 0 < y[known].sum() < known.sum():
            areas.append(roc_auc_score(y[known], scores[known]))
    return float(np.mean(areas)) if areas else float("nan")


def _answers(logits: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """Return the most probable class of each image, `(n,)`; of findings, 1 where one is probable, `(n, k)`."""
    return logits.argmax(1) if y_true.ndim == 1 else (logits > 0).astype(y_true.dtype)


def size_on_disk(path: Path) -> int:
    """Return the bytes of a model: a file, an OpenVINO `.xml` with the `.bin` beside it, or a SavedModel's folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    files = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
    return sum(file.stat().st_size for file in files)
