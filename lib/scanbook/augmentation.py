"""Augmentation policies, applied after the split, to training images alone.

Geometry is composed into one affine warp an image; colour is one look-up table. What is drawn depends only on seed,
epoch and the image's place, whatever the number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.catalogue import POLICIES, Policy

_BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "nearest": cv2.BORDER_REPLICATE}


def parameters(policy: Policy, count: int, seed: int, epoch: int) -> pd.DataFrame:
    """Draws what happens to each of `count` images in an epoch.

    Returns:
        One row an image: `rotation` and `shear` in degrees; `shift_x`, `shift_y` as shares of the side; `zoom`, a
        factor; `flip_x`, `flip_y`, 0 or 1; `brightness` as a share of 255; `contrast`, `red`, `green`, `blue`, factors.
    """
    unit = np.random.default_rng([seed, epoch]).uniform(-1, 1, (count, 12))
    drawn = {
        "rotation": policy.rotation * unit[:, 0],
        "shift_x": policy.shift * unit[:, 1],
        "shift_y": policy.shift * unit[:, 2],
        "shear": policy.shear * unit[:, 3],
        "zoom": 1 + policy.zoom * unit[:, 4],
        "flip_x": (policy.flip_horizontal & (unit[:, 5] > 0)).astype(int),
        "flip_y": (policy.flip_vertical & (unit[:, 6] > 0)).astype(int),
        "brightness": policy.brightness * unit[:, 7],
        "contrast": 1 + policy.contrast * unit[:, 8],
        "red": 1 + policy.colour * unit[:, 9],
        "green": 1 + policy.colour * unit[:, 10],
        "blue": 1 + policy.colour * unit[:, 11],
    }
    return pd.DataFrame(drawn)


def matrices(drawn: pd.DataFrame, size: tuple[int, int]) -> np.ndarray:
    """Composes rotation, shear, zoom, mirror and shift about the centre.

    Args:
        drawn: What `parameters` drew.
        size: Height and width of the images.

    Returns:
        float64 `(n, 2, 3)`, from output to input pixel coordinates, as `cv2.warpAffine` takes with `WARP_INVERSE_MAP`.
    """
    height, width = size
    angle, shear = np.deg2rad(drawn["rotation"].to_numpy()), np.deg2rad(drawn["shear"].to_numpy())
    cos, sin = np.cos(angle), np.sin(angle)
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    ones, zeros = np.ones_like(shear), np.zeros_like(shear)
    linear = linear @ np.stack([np.stack([ones, -np.sin(shear)], -1), np.stack([zeros, np.cos(shear)], -1)], -2)
    scale = (
        np.stack([1 - 2 * drawn["flip_x"].to_numpy(), 1 - 2 * drawn["flip_y"].to_numpy()], -1)
        / drawn["zoom"].to_numpy()[:, None]
    )
    linear = linear * scale[:, None, :]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = np.stack([drawn["shift_x"] * width, drawn["shift_y"] * height], -1)
    offset = centre + shift - np.einsum("nij,j->ni", linear, centre)
    return np.concatenate([linear, offset[..., None]], -1)


class Augmenter:
    """Applies a policy to images.

    Args:
        name: Name of a policy.
        count: Number of training images, so that each keeps its own draw.
        seed: Seed of the draws.
    """

    def __init__(self, name: str, count: int, seed: int) -> None:
        self.policy = POLICIES[name]
        self.count, self.seed = count, seed
        self._drawn: tuple[tuple[int, ...], np.ndarray, np.ndarray] | None = None

    def __call__(self, images: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
        """Augments images.

        Args:
            images: uint8 `(m, h, w, 3)`.
            positions: Place of each among the training images, int `(m,)`, below `count`.
            epoch: Epoch, from 0.

        Returns:
            uint8 `(m, h, w, 3)`.
        """
        if self.policy == Policy():
            return np.asarray(images)
        warps, tables = self._draw(epoch, images.shape[1:3])
        output = np.empty_like(images)
        border = _BORDERS[self.policy.fill]

        def one(index: int) -> None:
            image, place = images[index], positions[index]
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            warped = cv2.warpAffine(image, warps[place], image.shape[1::-1], flags=flags, borderMode=border)
            output[index] = cv2.LUT(warped, tables[place][None])

        with ThreadPoolExecutor(runtime.cores()) as pool:
            list(pool.map(one, range(len(images))))
        return output

    def _draw(self, epoch: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Matrices and look-up tables of all training images in an epoch; the latest epoch's are kept."""
        kept = self._drawn
        if kept is None or kept[0] != (epoch, *size):
            drawn = parameters(self.policy, self.count, self.seed, epoch)
            kept = (epoch, *size), matrices(drawn, size), _look_up_tables(drawn)
            self._drawn = kept
        return kept[1], kept[2]


def _look_up_tables(drawn: pd.DataFrame) -> np.ndarray:
    """Brightness, contrast and channel gains as tables, uint8 `(n, 256, 3)`; contrast turns about mid-grey."""
    levels = np.arange(256, dtype=np.float32)
    contrast = drawn["contrast"].to_numpy(np.float32)[:, None]
    curve = (levels - 127.5) * contrast + 127.5 + 255 * drawn["brightness"].to_numpy(np.float32)[:, None]
    gains = drawn[["red", "green", "blue"]].to_numpy(np.float32)
    return np.clip(np.rint(curve[:, :, None] * gains[:, None, :]), 0, 255).astype(np.uint8)
