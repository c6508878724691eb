"""The images on which mistakes are measured: features of a frozen backbone, and a head that makes none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from scanbook.config import Study
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.evaluation import AnyPredictions
from scanbook.inspection.pitfalls import heads
from scanbook.inspection.pitfalls.heads import Arm, Head
from scanbook.models import backbones, features
from scanbook.models.backbones import NO_NETWORK, Weights
from scanbook.registry import EMBEDDINGS, short_name
from scanbook.training import validation_loss

PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Penalties of heads, of which validation selects one for all comparisons."""
_MOST = {TRAIN: 8000, VALIDATION: 4000, TEST: 4000}
"""Most images of a split on which mistakes are measured."""
_THUMBNAIL = 16
"""Side of the images that are the features where no backbone has pretrained weights, in pixels."""
WITHOUT_NETWORK = NO_NETWORK
"""Why mistakes that change images are not measured on vectors."""
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Function of images, uint8 `(m, h, w, 3)`, and of their rows that returns other images."""


class ChangedImages:
    """Images that are changed when they are read, so that no copy of them is kept."""

    def __init__(self, images: np.ndarray, change: Change) -> None:
        self.shape, self.dtype = images.shape, images.dtype
        self._images, self._change = images, change

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._change(np.asarray(self._images[rows]), rows)


@dataclass(frozen=True)
class Subject:
    """A study's images as the comparisons take them.

    Attributes:
        study: Its seed and number of resamples.
        manifest: The dataset, split.
        images: What the models take, of all its rows: images, uint8 `(n, h, w, 3)`, or vectors.
        backbone: The frozen backbone, "" for thumbnails.
        weights: Its weights, None for thumbnails.
        x: Features of all rows, float32 `(n, channels)`.
        train: Rows of training images.
        test: Rows of test images.
        penalty: Penalty of every head.
        head: The head that makes no mistake.
    """

    study: Study
    manifest: Manifest
    images: np.ndarray
    backbone: str
    weights: Weights | None
    x: np.ndarray
    train: np.ndarray
    test: np.ndarray
    penalty: float
    head: Head

    @property
    def description(self) -> str:
        """What all heads learn from, in a sentence."""
        backbone = short_name(self.backbone)
        source = f"features of {backbone}, frozen" if backbone else f"thumbnails of {_THUMBNAIL} pixels"
        source = "the study's vectors (embeddings)" if self.of_vectors else source
        count = len(self.manifest.rows(TRAIN))
        of = f" of {count:,}" if len(self.train) < count else ""
        return (
            f"Every comparison trains linear heads on {source}, from {len(self.train):,}{of} training images, with the "
            f"penalty that validation chose ({self.penalty:g})."
        )

    @property
    def of_vectors(self) -> bool:
        """Whether the study has vectors in place of images, and no network that gives those of changed images."""
        return self.backbone == EMBEDDINGS

    @property
    def labels(self) -> np.ndarray:
        """Labels of all rows, float32 `(n, k)`."""
        return self.manifest.labels.values

    @property
    def group(self) -> np.ndarray:
        """Patient or lesion of all rows."""
        return self.manifest.frame["group"].to_numpy()

    def arm(self, x: np.ndarray, rows: np.ndarray, penalty: float | None = None) -> Arm:
        """Return an arm: features, `(m, channels)`, of images that are labelled as m rows are."""
        chosen = self.penalty if penalty is None else penalty
        return Arm(np.asarray(x, np.float32), self.labels[rows], bool(self.manifest.classes), chosen)

    def predict(self, head: Head, rows: np.ndarray, x: np.ndarray | None = None) -> AnyPredictions:
        """Return a head's predictions for rows, from their own features or from others, `(m, channels)`."""
        return predictions(self.manifest, rows, head.logits(self.x[rows] if x is None else x))

    def changed(self, change: Change, rows: np.ndarray) -> np.ndarray:
        """Return the features of changed images of some rows, `(m, channels)`."""
        return _extract(self.manifest, ChangedImages(self.images, change), self.backbone, self.weights, rows)[rows]


def prepare(study: Study, manifest: Manifest, images: np.ndarray) -> Subject:
    """Return the subject of a study: its first backbone with pretrained weights, and the honest head.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
    """
    weights, _ = backbones.resolve(study)
    backbone = next(iter(weights), "")
    x = backbone_features(study, manifest, images, backbone)
    return with_features(study, manifest, x, images, (backbone, weights.get(backbone)))


def available_backbones(study: Study) -> list[str]:
    """Return the study's backbones whose pretrained weights are available, in its order."""
    return list(backbones.resolve(study)[0])


def backbone_features(study: Study, manifest: Manifest, images: np.ndarray, backbone: str) -> np.ndarray:
    """Return the features of all rows by one of the study's pretrained backbones, those that notebook 04 keeps."""
    rows = np.flatnonzero((manifest.frame["split"] != "").to_numpy())
    return _extract(manifest, images, backbone, backbones.resolve(study)[0].get(backbone), rows)


def with_features(
    study: Study, manifest: Manifest, x: np.ndarray, images: np.ndarray, source: tuple[str, Weights | None] = ("", None)
) -> Subject:
    """Return a subject whose images have known features.

    Args:
        study: The study.
        manifest: The dataset, split.
        x: Features of all rows, float32 `(n, channels)`.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
        source: The backbone of the features and its weights; none for thumbnails.
    """
    rows = {split: _limit(manifest, split, study.seed) for split in _MOST}
    penalty, head = choose_penalty(manifest, x, rows[TRAIN])
    return Subject(study, manifest, images, *source, x, rows[TRAIN], rows[TEST], penalty, head)


def choose_penalty(manifest: Manifest, x: np.ndarray, train: np.ndarray) -> tuple[float, Head]:
    """Return the penalty with the lowest validation loss, and its head.

    Args:
        manifest: The dataset, split.
        x: Features of all rows.
        train: Rows of training images.
    """
    arms = [
        Arm(np.asarray(x[train], np.float32), manifest.labels.values[train], bool(manifest.classes), penalty)
        for penalty in PENALTIES
    ]
    trained, own = heads.train(arms), x[manifest.rows(VALIDATION)]
    losses = [validation_loss(manifest, head.logits(own).astype(np.float32)) for head in trained]
    best = int(np.argmin(losses))
    return PENALTIES[best], trained[best]


def predictions(manifest: Manifest, rows: np.ndarray, logits: np.ndarray) -> AnyPredictions:
    """Return the predictions of logits, `(m, k)`, for m rows, whatever their split."""
    frame = manifest.frame.iloc[rows].assign(split=TEST)
    return manifest.with_frame(frame).predictions(TEST, logits)


def _extract(manifest: Manifest, images: Any, backbone: str, weights: Weights | None, rows: np.ndarray) -> np.ndarray:
    """Return the features of all rows, `(n, channels)`; only those of `rows` are computed, the others are zeros."""
    if not backbone or weights is None:
        x = np.zeros((len(manifest.frame), 3 * _THUMBNAIL**2), np.float32)
        for row in rows:
            image = images[np.array([row])][0]
            x[row] = cv2.resize(image, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA).ravel() / 255
        return x
    split = manifest.frame["split"].to_numpy()
    chosen = np.isin(np.arange(len(split)), rows)
    whole = bool(((split != "") == chosen).all())
    of = manifest if whole else manifest.with_frame(manifest.frame.assign(split=np.where(chosen, split, "")))
    return features.extract(of, images, backbone, weights)[0]


def _limit(manifest: Manifest, split: str, seed: int) -> np.ndarray:
    """Return the rows of a split, of a large one those of a random sample of its groups."""
    rows = manifest.rows(split)
    if len(rows) <= _MOST[split]:
        return rows
    groups = manifest.frame["group"].to_numpy()[rows]
    order = np.random.default_rng([seed, 5]).permutation(np.unique(groups))
    sizes = dict(zip(*np.unique(groups, return_counts=True), strict=True))
    count = int(np.searchsorted(np.cumsum([sizes[group] for group in order]), _MOST[split], side="right"))
    return rows[np.isin(groups, order[: max(count, 1)])]
