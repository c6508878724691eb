"""Batches: shuffled anew every epoch, augmented, mixed and balanced, from (seed, epoch) alone."""

from __future__ import annotations

import numpy as np

from scanbook import augmentation, runtime
from scanbook.augmentation import Augmenter
from scanbook.runtime import distribution

keras = runtime.keras()


class Batches(keras.utils.PyDataset):
    """Batches of images and what is to be learnt of them.

    Where processes or devices train together (`parallel.join`), a batch is this process's part of the one that all
    of them share. Those are all of one size, so that every device has as much to do: the last one of an epoch begins
    anew where its images end, and a weight of 0 for those that it has twice comes as a third array. Which images are in
    a batch, how each is augmented and with which it is mixed does not depend on who trains it.

    Args:
        images: uint8 `(n, h, w, 3)`.
        rows: Which of them, int `(m,)`.
        y: What is to be learnt of each, `(m, ...)`: one-hot classes, or masks.
        batch_size: Images in a batch, of all processes together.
        augment: The policy.
        sampling: Whether every class is drawn as often as any other, m images an epoch all the same.
        shuffle: Whether the order is drawn anew for every epoch.
    """

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        augment: Augmenter,
        *,
        sampling: bool = False,
        shuffle: bool = True,
    ) -> None:
        # with one worker Keras takes tf.data's generator, which stands still for two seconds at an epoch's start
        super().__init__(workers=2)
        self.images, self.rows, self.y = images, rows, y
        self.batch_size, self.augment, self.sampling, self.shuffle = batch_size, augment, sampling, shuffle
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draws the order of an epoch. Keras ends one before the first, so that training's are counted from 1."""
        self.epoch = epoch
        draw = np.random.default_rng([self.augment.seed, 1, epoch])
        if self.sampling:
            self.order = _evenly(self.y.argmax(1), draw)
        else:
            self.order = draw.permutation(len(self.rows)) if self.shuffle else np.arange(len(self.rows))

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        slots = np.arange(index * self.batch_size, min((index + 1) * self.batch_size, len(self.rows)))
        own, weights = self._own(len(slots))
        if self.augment.mixes:
            drawn = self.augment.mixing(len(slots), self.images.shape[1:3], self.epoch, index).iloc[own]
            own, places = np.unique(drawn[["place", "partner"]], return_inverse=True)  # those that others train, too
            drawn[["place", "partner"]] = places.reshape(-1, 2)
        places = self.order[slots[own]]
        # an image that balanced sampling draws twice is augmented differently each time
        drawn_for = slots[own] if self.sampling else places
        images, y = self.augment(self.images[self.rows[places]], drawn_for, self.epoch), self.y[places]
        if self.augment.mixes:
            images, y = augmentation.mix(images, y, drawn)
        return (images, y) if weights is None else (images, y, weights)

    def _own(self, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Places in a batch of `count` images that are for this process, int; and their weights, None for 1 each."""
        share = distribution.share()
        if share is None:
            return np.arange(count), None
        size = -(-self.batch_size // share.devices) * share.devices // share.processes
        places = np.arange(share.process * size, (share.process + 1) * size)
        return places % count, (places < count).astype(np.float32)

    def on_epoch_end(self) -> None:
        """Moves on to the next epoch's draw."""
        self.begin(self.epoch + 1)


def class_weights(y: np.ndarray) -> np.ndarray:
    """Inverse frequency of each class, 1 on average over the images; 0 for a class without any.

    Args:
        y: One-hot classes, float `(n, k)`.
    """
    counts = y.sum(0)
    present = counts > 0
    return np.where(present, len(y) / (present.sum() * np.maximum(counts, 1)), 0.0)


def _evenly(labels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """As many places as there are labels, every class as often as any other: each cycles through its own, shuffled."""
    classes = np.unique(labels)
    each = -(-len(labels) // len(classes))
    places = [np.flatnonzero(labels == label) for label in classes]
    drawn = [np.concatenate([draw.permutation(own) for _ in range(-(-each // len(own)))])[:each] for own in places]
    return draw.permutation(np.concatenate(drawn))[: len(labels)]
