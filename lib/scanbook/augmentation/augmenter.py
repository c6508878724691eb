"""Applies a policy to images: one affine warp per image, then colour; then images of a batch are mixed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd

from scanbook import registry, runtime
from scanbook.augmentation import operations
from scanbook.augmentation.sampling import mixing, parameters
from scanbook.registry import Policy

_BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "nearest": cv2.BORDER_REPLICATE}


def matrices(sampled: pd.DataFrame, size: tuple[int, int]) -> np.ndarray:
    """Compose the crop, then rotation, shear, zoom, mirror and shift about the centre, then geometric operations.

    What a rotation or a shift shows beside the crop is the image, where there is one.

    Args:
        sampled: Values of `parameters`.
        size: Height and width of the images.

    Returns:
        float64 `(n, 2, 3)`, from output to input pixel coordinates, as `cv2.warpAffine` takes with `WARP_INVERSE_MAP`.
    """
    height, width = size
    angle, shear = np.deg2rad(sampled["rotation"].to_numpy()), np.deg2rad(sampled["shear"].to_numpy())
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    ones, zeros = np.ones_like(shear), np.zeros_like(shear)
    linear = linear @ np.stack([np.stack([ones, -np.sin(shear)], -1), np.stack([zeros, np.cos(shear)], -1)], -2)
    mirror = 1 - 2 * sampled[["flip_x", "flip_y"]].to_numpy()
    linear = linear * (mirror / sampled[["zoom"]].to_numpy())[:, None, :]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = sampled[["shift_x", "shift_y"]].to_numpy() * [width, height]
    offset = centre + shift - np.einsum("nij,j->ni", linear, centre)
    composed = np.concatenate([linear, offset[..., None]], -1)
    if "operation_1" in sampled:
        composed = composed @ operations.affine(sampled, size)
    if "crop_width" in sampled:
        share = sampled[["crop_width", "crop_height"]].to_numpy()
        composed = share[..., None] * composed
        # the first pixel's centre is half a pixel inside the crop
        composed[..., 2] += sampled[["crop_left", "crop_top"]].to_numpy() * [width, height] + (share - 1) / 2
    return composed


def mix(images: np.ndarray, y: np.ndarray, sampled: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Mix the images of a batch, and their labels by the same shares.

    Args:
        images: uint8 `(m, h, w, 3)`.
        y: Labels, float `(m, k)`: 1 or 0 for each class or finding, or shares; NaN where a finding is not labelled.
        sampled: Values of `mixing`, or n of its rows, with places among `images`.

    Returns:
        Images, uint8 `(n, h, w, 3)`, and labels, float32 `(n, k)`: rows of classes have the same sums as before, and a
        finding is labelled where it is in both images.
    """
    mixed = np.empty((len(sampled), *images.shape[1:]), images.dtype)
    for place, row in enumerate(sampled.itertuples()):
        image, other = images[row.place], images[row.partner]
        if row.method == "mixup":
            mixed[place] = cv2.addWeighted(image, row.share, other, 1 - row.share, 0)
        else:
            mixed[place] = image
            box = np.s_[row.top : row.bottom, row.left : row.right]
            mixed[place][box] = other[box]
    share = sampled["share"].to_numpy()[:, None]
    return mixed, (share * y[sampled["place"]] + (1 - share) * y[sampled["partner"]]).astype(np.float32)


class Augmenter:
    """Applies a policy to images.

    Args:
        policy: The policy, or its name, or several names joined by "+".
        count: Number of training images: the values of each depend on its place among them.
        seed: Seed of the sampled values.

    Attributes:
        mixes: Whether the policy mixes the images of a batch, and so their labels.
    """

    def __init__(self, policy: str | Policy, count: int, seed: int) -> None:
        self.policy = registry.policy(policy) if isinstance(policy, str) else policy
        self.mixes = bool(self.policy.mixup or self.policy.cutmix)
        self.count, self.seed = count, seed
        self._changes_images = replace(self.policy, mixup=0.0, cutmix=0.0) != Policy()
        self._sample = lru_cache(maxsize=1)(self._sample)  # of the latest epoch, 68 bytes per image, 16 per operation

    def __call__(self, images: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
        """Augment images, each by itself.

        Args:
            images: uint8 `(m, h, w, 3)`.
            positions: Place of each among the training images, int `(m,)`, below `count`.
            epoch: Epoch, from 1 in training.

        Returns:
            uint8 `(m, h, w, 3)`.
        """
        if not self._changes_images:
            return np.asarray(images)
        warps, colours, names, strengths = self._sample(epoch, images.shape[1:3])
        # tables of these images alone: those of all training images would take more memory than all else
        tables = None if colours is None else _look_up_tables(colours[positions])
        output = np.empty_like(images)
        border = _BORDERS[self.policy.fill]

        def augment(indices: np.ndarray) -> None:
            for index in indices:
                image, place = images[index], positions[index]
                size, flags = image.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                cv2.warpAffine(image, warps[place], size, dst=output[index], flags=flags, borderMode=border)
                if tables is not None or names.size:
                    table = None if tables is None else tables[index]
                    operations.recolour(output[index], names[place], strengths[place], table)

        # one task per thread: one task per image would cost a third of its time
        with ThreadPoolExecutor(runtime.cores()) as pool:
            list(pool.map(augment, np.array_split(np.arange(len(images)), runtime.cores())))
        return output

    def mix(self, images: np.ndarray, y: np.ndarray, epoch: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Mix the images of a batch with each other; return them unchanged if the policy does not mix.

        Args:
            images: uint8 `(m, h, w, 3)`.
            y: Labels, float32 `(m, k)`, NaN where a finding is not labelled.
            epoch: Epoch, from 1 in training.
            batch: Number of the batch in its epoch, from 0.

        Returns:
            Images, uint8 `(m, h, w, 3)`, and labels, float32 `(m, k)`, as `mix` gives them.
        """
        if not self.mixes:
            return images, y
        return mix(images, y, self.mixing(len(images), images.shape[1:3], epoch, batch))

    def mixing(self, count: int, size: tuple[int, int], epoch: int, batch: int) -> pd.DataFrame:
        """Return the values of `mixing` for a batch of `count` images of a height and width."""
        return mixing(self.policy, size, count, seed=self.seed, epoch=epoch, batch=batch)

    def _sample(
        self, epoch: int, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
        """Return matrices, colours, if any, and names and strengths of operations, of all training images."""
        sampled = parameters(self.policy, self.count, self.seed, epoch)
        names, strengths = (sampled[columns].to_numpy() for columns in operations.columns_of(sampled))
        return matrices(sampled, size), _colours(sampled), names, strengths


def _colours(sampled: pd.DataFrame) -> np.ndarray | None:
    """Return brightness, contrast and the factors of red, green and blue, float32 `(n, 5)`; None if all are neutral."""
    colours = sampled[["brightness", "contrast", "red", "green", "blue"]].to_numpy(np.float64)
    return None if (colours == [0, 1, 1, 1, 1]).all() else colours.astype(np.float32)


def _look_up_tables(colours: np.ndarray) -> np.ndarray:
    """Return the values of `_colours` as tables, uint8 `(n, 256, 3)`; contrast turns about mid-grey."""
    levels = np.arange(256, dtype=np.float32)
    curve = (levels - 127.5) * colours[:, 1:2] + 127.5 + 255 * colours[:, :1]
    return np.clip(np.rint(curve[:, :, None] * colours[:, None, 2:]), 0, 255).astype(np.uint8)
