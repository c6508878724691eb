"""Augmentation policies, applied after the split, to training images alone.

Geometry is composed into one affine warp per image; then come colour and, in batches, mixing. The sampled values depend
only on seed, epoch and the image's place, or the batch's number, not on the number of threads.
"""

from scanbook.augmentation.augmenter import Augmenter, matrices, mix
from scanbook.augmentation.sampling import first_epoch, mixing, parameters

__all__ = ["Augmenter", "first_epoch", "matrices", "mix", "mixing", "parameters"]
