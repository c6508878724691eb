"""Batches: shuffled anew every epoch, augmented, mixed and balanced; they depend on seed and epoch alone."""

from __future__ import annotations

import cv2
import numpy as np

from scanbook import augmentation, runtime
from scanbook.augmentation import Augmenter
from scanbook.runtime import distribution

keras = runtime.keras()


class Batches(keras.utils.PyDataset):
    """Batches of images and their labels or masks.

    If processes or devices train together (`distribution.join`), a batch is this process's share of the common batch.
    All shares have one size, so that every device computes as much: the last batch of an epoch is filled up with its
    first images again, and a third array gives these a weight of 0. The images of a batch, their augmentation and
    mixing do not depend on the number of processes.

    Args:
        images: uint8 `(n, h, w, 3)`.
        rows: Rows of `images` that are used, int `(m,)`.
        y: Targets of these rows, `(m, ...)`: labels, NaN where one is missing, or masks.
        batch_size: Images per batch, of all processes together.
        augment: The policy.
        strata: Stratum of each of these rows, int `(m,)`, if all strata are sampled equally often, with m images per
            epoch in all.
        shuffle: Whether the order is sampled anew for every epoch.
        size: Height and width to which images are resized before they are augmented; None for their own.
    """

    def __init__(
        self,
        images: np.ndarray,
        rows: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        augment: Augmenter,
        *,
        strata: np.ndarray | None = None,
        shuffle: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        # with one worker Keras takes tf.data's generator, which pauses for two seconds at the start of an epoch
        super().__init__(workers=2)
        self.images, self.rows, self.y = images, rows, y
        self.batch_size, self.augment, self.strata, self.shuffle = batch_size, augment, strata, shuffle
        self.size = size or images.shape[1:3]
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Sample the order of an epoch. Keras ends one before the first, so training epochs count from 1."""
        self.epoch = epoch
        random = np.random.default_rng([self.augment.seed, 1, epoch])
        if self.strata is not None:
            self.order = _balanced(self.strata, random)
        else:
            self.order = random.permutation(len(self.rows)) if self.shuffle else np.arange(len(self.rows))

    @property
    def num_batches(self) -> int:
        """Number of batches per epoch."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        slots = np.arange(index * self.batch_size, min((index + 1) * self.batch_size, len(self.rows)))
        own, weights = self._share(len(slots))
        if self.augment.mixes:
            mixing = self.augment.mixing(len(slots), self.size, self.epoch, index).iloc[own]
            own, places = np.unique(
                mixing[["place", "partner"]], return_inverse=True
            )  # partners of other processes, too
            mixing[["place", "partner"]] = places.reshape(-1, 2)
        places = self.order[slots[own]]
        # an image that balanced sampling takes twice is augmented differently each time
        positions = places if self.strata is None else slots[own]
        images, y = self.augment(self._read(places), positions, self.epoch), self.y[places]
        if self.augment.mixes:
            images, y = augmentation.mix(images, y, mixing)
        return (images, y) if weights is None else (images, y, weights)

    def _read(self, places: np.ndarray) -> np.ndarray:
        """Return the images of some places, uint8 `(m, *size, 3)`."""
        images = self.images[self.rows[places]]
        if self.size == images.shape[1:3]:
            return images
        return np.stack([cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA) for image in images])

    def _share(self, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the places of this process in a batch of `count` images, int; and their weights, None for 1 each."""
        share = distribution.share()
        if share is None:
            return np.arange(count), None
        size = -(-self.batch_size // share.devices) * share.devices // share.processes
        places = np.arange(share.process * size, (share.process + 1) * size)
        return places % count, (places < count).astype(np.float32)

    def on_epoch_end(self) -> None:
        """Sample the order of the next epoch."""
        self.begin(self.epoch + 1)


def _balanced(strata: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return as many places as images, every stratum equally often: each cycles through its own places, shuffled."""
    kinds = np.unique(strata)
    count = -(-len(strata) // len(kinds))
    sampled = []
    for kind in kinds:
        places = np.flatnonzero(strata == kind)
        cycles = [random.permutation(places) for _ in range(-(-count // len(places)))]
        sampled.append(np.concatenate(cycles)[:count])
    return random.permutation(np.concatenate(sampled))[: len(strata)]
