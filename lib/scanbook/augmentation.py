"""Augmentation policies, applied after the split, to training images alone.

Geometry is composed into one affine warp per image; colour is one look-up table; then images of a batch are mixed. The
sampled values depend only on seed, epoch and the image's place, or the batch's number, not on the number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd

from scanbook import registry, runtime
from scanbook.registry import Policy

_BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "nearest": cv2.BORDER_REPLICATE}
# Last number of the seeds of mixing, which never equal the shorter seeds of single images or of shuffling.
_MIXING = 2
_UNITS = {
    "rotation": "rotation, degrees",
    "shift_x": "horizontal shift, share of the width",
    "shift_y": "vertical shift, share of the height",
    "shear": "shear, degrees",
    "zoom": "zoom, factor",
    "flip_x": "mirrored left to right",
    "flip_y": "mirrored top to bottom",
    "brightness": "brightness, share of 255",
    "contrast": "contrast, factor",
    "red": "red, factor",
    "green": "green, factor",
    "blue": "blue, factor",
    "method": "mixed by",
    "share": "share of its own label",
}


def parameters(policy: Policy, count: int, seed: int, epoch: int) -> pd.DataFrame:
    """Sample the augmentation of each of `count` images in an epoch.

    Returns:
        One row per image: `rotation` and `shear` in degrees; `shift_x`, `shift_y` as shares of the side; `zoom`, a
        factor; `flip_x`, `flip_y`, 0 or 1; `brightness` as a share of 255; `contrast`, `red`, `green`, `blue`, factors.
    """
    unit = np.random.default_rng([seed, epoch]).uniform(-1, 1, (count, 12))
    values = {
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
    return pd.DataFrame(values)


def matrices(sampled: pd.DataFrame, size: tuple[int, int]) -> np.ndarray:
    """Compose rotation, shear, zoom, mirror and shift about the centre.

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
    return np.concatenate([linear, offset[..., None]], -1)


def mixing(policy: Policy, size: tuple[int, int], count: int, *, seed: int, epoch: int, batch: int) -> pd.DataFrame:
    """Sample how the images of a batch are mixed.

    Every image has its own share and partner: mixup is defined for a pair (Zhang et al., ICLR 2018, equation 1),
    and one share for a whole batch, as in its authors' code, makes batches more alike. Of a policy that has both, every
    batch takes mixup or cutmix, with probability one half each. The box of cutmix has the image's aspect ratio and a
    uniform centre, and is clipped at the edges (Yun et al., ICCV 2019, equation 2).

    Args:
        policy: The policy.
        size: Height and width of the images.
        count: Number of images in the batch.
        seed: Seed of the sampled values.
        epoch: Epoch, from 1 in training.
        batch: Number of the batch in its epoch, from 0.

    Returns:
        One row per image: `method`, "mixup", "cutmix" or "none"; `place` in the batch, from 0, and `partner`, the
        place of the image mixed in; `share`, the weight of an image's own label, from 0 to 1; and the box with its
        partner, in pixels, from `left` and `top` to before `right` and `bottom`, empty if there is none.
    """
    random = np.random.default_rng([seed, epoch, batch, _MIXING])
    methods = [name for name in ("mixup", "cutmix") if getattr(policy, name)]
    method = methods[random.integers(len(methods))] if methods else "none"
    sampled = pd.DataFrame({"method": [method] * count, "place": range(count), "partner": range(count), "share": 1.0})
    box = np.zeros((count, 4), int)
    if method != "none":
        strength = getattr(policy, method)
        sampled["partner"] = random.permutation(count)
        sampled["share"] = random.beta(strength, strength, count)
    if method == "cutmix":
        sides = np.array(size)
        half = np.sqrt(1 - sampled["share"].to_numpy())[:, None] * sides / 2
        centre = random.uniform(0, sides, (count, 2))
        box[:, :2] = np.clip(np.rint(centre - half), 0, sides)
        box[:, 2:] = np.clip(np.rint(centre + half), 0, sides)
        sampled["share"] = 1 - (box[:, 2:] - box[:, :2]).prod(1) / sides.prod()
    return sampled.join(pd.DataFrame(box, columns=["top", "left", "bottom", "right"]))


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


def first_epoch(name: str, size: tuple[int, int], count: int, batch_size: int, seed: int) -> pd.DataFrame:
    """Return the sampled values of every training image in the first epoch.

    Args:
        name: Name of a policy, or several joined by "+".
        size: Height and width of the images.
        count: Number of training images.
        batch_size: Images per batch, which are mixed with each other.
        seed: Seed of the sampled values.

    Returns:
        One row per image; one column per parameter that differs between images, named with its unit.
    """
    policy = registry.policy(name)
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    batches = [mixing(policy, size, images, seed=seed, epoch=1, batch=batch) for batch, images in enumerate(sizes)]
    sampled = parameters(policy, count, seed, 1).join(pd.concat(batches, ignore_index=True))
    for flip in ("flip_x", "flip_y"):
        sampled[flip] = np.where(sampled[flip] == 1, "yes", "no")
    varied = [column for column in _UNITS if sampled[column].nunique() > 1]
    return sampled[varied].rename(columns=_UNITS)


class Augmenter:
    """Applies a policy to images.

    Args:
        name: Name of a policy, or several joined by "+".
        count: Number of training images: the values of each depend on its place among them.
        seed: Seed of the sampled values.

    Attributes:
        mixes: Whether the policy mixes the images of a batch, and so their labels.
    """

    def __init__(self, name: str, count: int, seed: int) -> None:
        self.policy = registry.policy(name)
        self.mixes = bool(self.policy.mixup or self.policy.cutmix)
        self.count, self.seed = count, seed
        self._changes_images = replace(self.policy, mixup=0.0, cutmix=0.0) != Policy()
        self._sample = lru_cache(maxsize=1)(self._sample)  # of the latest epoch, 68 bytes per image

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
        warps, colours = self._sample(epoch, images.shape[1:3])
        # tables of these images alone: those of all training images would take more memory than all else
        tables = None if colours is None else _look_up_tables(colours[positions])
        output = np.empty_like(images)
        border = _BORDERS[self.policy.fill]

        def augment(indices: np.ndarray) -> None:
            for index in indices:
                image, place = images[index], positions[index]
                size, flags = image.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                cv2.warpAffine(image, warps[place], size, dst=output[index], flags=flags, borderMode=border)
                if tables is not None:
                    cv2.LUT(output[index], tables[index][None], dst=output[index])

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

    def _sample(self, epoch: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the matrices and the colours, if any, of all training images in an epoch."""
        sampled = parameters(self.policy, self.count, self.seed, epoch)
        return matrices(sampled, size), _colours(sampled)


def _colours(sampled: pd.DataFrame) -> np.ndarray | None:
    """Return brightness, contrast and the factors of red, green and blue, float32 `(n, 5)`; None if all are neutral."""
    colours = sampled[["brightness", "contrast", "red", "green", "blue"]].to_numpy(np.float64)
    return None if (colours == [0, 1, 1, 1, 1]).all() else colours.astype(np.float32)


def _look_up_tables(colours: np.ndarray) -> np.ndarray:
    """Return the values of `_colours` as tables, uint8 `(n, 256, 3)`; contrast turns about mid-grey."""
    levels = np.arange(256, dtype=np.float32)
    curve = (levels - 127.5) * colours[:, 1:2] + 127.5 + 255 * colours[:, :1]
    return np.clip(np.rint(curve[:, :, None] * colours[:, None, 2:]), 0, 255).astype(np.uint8)
