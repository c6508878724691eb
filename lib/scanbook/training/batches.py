"""Training batches: shuffled anew every epoch, augmented, mixed and balanced, from (seed, epoch) alone."""

from __future__ import annotations

from typing import Literal

import numpy as np

from scanbook import runtime
from scanbook.augmentation import Augmenter

keras = runtime.keras()

Balance = Literal["none", "class_weights", "sampling"]


class Batches(keras.utils.PyDataset):
    """Augmented batches of training images.

    Args:
        images: uint8 `(n, h, w, 3)`.
        rows: Which of them are for training, int `(m,)`.
        y: What is to be learnt of each, `(m, ...)`: one-hot classes, or masks.
        batch_size: Images in a batch.
        augment: The policy.
        balance: "sampling" draws every class as often as any other, m images an epoch all the same; "class_weights"
            adds a weight to each image, the inverse of its class's frequency, 1 on average.
    """

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        augment: Augmenter,
        *,
        balance: Balance = "none",
    ) -> None:
        # with one worker Keras takes tf.data's generator, which stands still for two seconds at an epoch's start
        super().__init__(workers=2)
        self.images, self.rows, self.y = images, rows, y
        self.batch_size, self.augment, self.balance = batch_size, augment, balance
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draws the order of an epoch. Keras ends one before the first, so that training's are counted from 1."""
        self.epoch = epoch
        draw = np.random.default_rng([self.augment.seed, 1, epoch])
        if self.balance == "sampling":
            self.order = _evenly(self.y.argmax(1), draw)
        else:
            self.order = draw.permutation(len(self.rows))

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        slots = np.arange(index * self.batch_size, min((index + 1) * self.batch_size, len(self.rows)))
        places = self.order[slots]
        # an image that balanced sampling draws twice is augmented differently each time
        drawn_for = slots if self.balance == "sampling" else places
        images, y = self.augment(self.images[self.rows[places]], drawn_for, self.epoch), self.y[places]
        if self.augment.mixes:
            images, y = self.augment.mix(images, y, self.epoch, index)
        if self.balance == "class_weights":
            return images, y, (y @ class_weights(self.y)).astype(np.float32)
        return images, y

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
