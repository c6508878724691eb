"""Augmentation policies, applied after the split, to training images alone.

Geometry is composed into one affine warp an image; colour is one look-up table; images of a batch are then mixed. What
is drawn depends only on seed, epoch and the image's place, or the batch's number, whatever the number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd

from scanbook import registry, runtime
from scanbook.registry import Policy

_BORDERS = {"reflect": cv2.BORDER_REFLECT_101, "nearest": cv2.BORDER_REPLICATE}
# Ends the seeds of mixing, which so never equal those of single images or of shuffling: they are shorter.
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


def mixing(policy: Policy, size: tuple[int, int], count: int, *, seed: int, epoch: int, batch: int) -> pd.DataFrame:
    """Draws how the images of a batch are mixed.

    Every image has a share and a partner of its own: mixup is defined for a pair (Zhang et al., ICLR 2018, equation 1),
    and one share for a whole batch, as in its authors' code, makes batches more alike. Of a policy that has both, every
    batch takes mixup or cutmix, with probability one half each. The box of cutmix has the image's aspect ratio and a
    uniform centre, and is clipped at the edges (Yun et al., ICCV 2019, equation 2).

    Args:
        policy: What to draw from.
        size: Height and width of the images.
        count: Images in the batch.
        seed: Seed of the draws.
        epoch: Epoch, from 1 in training.
        batch: Number of the batch in its epoch, from 0.

    Returns:
        One row an image: `method`, "mixup", "cutmix" or "none"; `place` in the batch, from 0, and `partner`, the
        place of the image mixed in; `share`, how much of its label an image keeps, from 0 to 1; and the box that shows
        its partner, in pixels, from `left` and `top` to before `right` and `bottom`, empty where there is none.
    """
    random = np.random.default_rng([seed, epoch, batch, _MIXING])
    methods = [name for name in ("mixup", "cutmix") if getattr(policy, name)]
    method = methods[random.integers(len(methods))] if methods else "none"
    drawn = pd.DataFrame({"method": [method] * count, "place": range(count), "partner": range(count), "share": 1.0})
    box = np.zeros((count, 4), int)
    if method != "none":
        strength = getattr(policy, method)
        drawn["partner"] = random.permutation(count)
        drawn["share"] = random.beta(strength, strength, count)
    if method == "cutmix":
        sides = np.array(size)
        half = np.sqrt(1 - drawn["share"].to_numpy())[:, None] * sides / 2
        centre = random.uniform(0, sides, (count, 2))
        box[:, :2] = np.clip(np.rint(centre - half), 0, sides)
        box[:, 2:] = np.clip(np.rint(centre + half), 0, sides)
        drawn["share"] = 1 - (box[:, 2:] - box[:, :2]).prod(1) / sides.prod()
    return drawn.join(pd.DataFrame(box, columns=["top", "left", "bottom", "right"]))


def mix(images: np.ndarray, y: np.ndarray, drawn: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Mixes the images of a batch, and their labels by the same shares.

    Args:
        images: uint8 `(m, h, w, 3)`.
        y: Labels, one-hot or shares of classes, float `(m, k)`.
        drawn: What `mixing` drew; or n of its rows, with places among `images`.

    Returns:
        Images, uint8 `(n, h, w, 3)`, and labels, float32 `(n, k)`, whose rows sum to what they did.
    """
    mixed = np.empty((len(drawn), *images.shape[1:]), images.dtype)
    for place, row in enumerate(drawn.itertuples()):
        image, other = images[row.place], images[row.partner]
        if row.method == "mixup":
            mixed[place] = cv2.addWeighted(image, row.share, other, 1 - row.share, 0)
        else:
            mixed[place] = image
            box = np.s_[row.top : row.bottom, row.left : row.right]
            mixed[place][box] = other[box]
    share = drawn["share"].to_numpy()[:, None]
    return mixed, (share * y[drawn["place"]] + (1 - share) * y[drawn["partner"]]).astype(np.float32)


def first_epoch(name: str, size: tuple[int, int], count: int, batch_size: int, seed: int) -> pd.DataFrame:
    """What a policy draws for every training image in the first epoch.

    Args:
        name: Name of a policy, or several joined by "+".
        size: Height and width of the images.
        count: Number of training images.
        batch_size: Images in a batch, which are mixed with each other.
        seed: Seed of the draws.

    Returns:
        One row an image; a column for each parameter that is not the same for all, named with its unit.
    """
    policy = registry.policy(name)
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    mixed = [mixing(policy, size, each, seed=seed, epoch=1, batch=batch) for batch, each in enumerate(sizes)]
    drawn = parameters(policy, count, seed, 1).join(pd.concat(mixed, ignore_index=True))
    for flip in ("flip_x", "flip_y"):
        drawn[flip] = np.where(drawn[flip] == 1, "yes", "no")
    varied = [column for column in _UNITS if drawn[column].nunique() > 1]
    return drawn[varied].rename(columns=_UNITS)


class Augmenter:
    """Applies a policy to images.

    Args:
        name: Name of a policy, or several joined by "+".
        count: Number of training images, so that each keeps its own draw.
        seed: Seed of the draws.

    Attributes:
        mixes: Whether the policy mixes the images of a batch, and so their labels.
    """

    def __init__(self, name: str, count: int, seed: int) -> None:
        self.policy = registry.policy(name)
        self.mixes = bool(self.policy.mixup or self.policy.cutmix)
        self.count, self.seed = count, seed
        self._alone = replace(self.policy, mixup=0.0, cutmix=0.0) != Policy()
        self._drawn: tuple[tuple[int, ...], np.ndarray, np.ndarray | None] | None = None  # which, matrices, colours

    def __call__(self, images: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
        """Augments images, each by itself.

        Args:
            images: uint8 `(m, h, w, 3)`.
            positions: Place of each among the training images, int `(m,)`, below `count`.
            epoch: Epoch, from 1 in training.

        Returns:
            uint8 `(m, h, w, 3)`.
        """
        if not self._alone:
            return np.asarray(images)
        warps, colours = self._draw(epoch, images.shape[1:3])
        # tables of these images alone: those of a large training part would outweigh all else that training holds
        tables = None if colours is None else _look_up_tables(colours[positions])
        output = np.empty_like(images)
        border = _BORDERS[self.policy.fill]

        def some(share: np.ndarray) -> None:
            for index in share:
                image, place = images[index], positions[index]
                size, flags = image.shape[1::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
                cv2.warpAffine(image, warps[place], size, dst=output[index], flags=flags, borderMode=border)
                if tables is not None:
                    cv2.LUT(output[index], tables[index][None], dst=output[index])

        # a thread takes neighbours: a task for each image would cost a third of its time
        with ThreadPoolExecutor(runtime.cores()) as pool:
            list(pool.map(some, np.array_split(np.arange(len(images)), runtime.cores())))
        return output

    def mix(self, images: np.ndarray, y: np.ndarray, epoch: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Mixes the images of a batch with each other, and no others; as they are where the policy mixes none.

        Args:
            images: uint8 `(m, h, w, 3)`.
            y: Labels, one-hot, float32 `(m, k)`.
            epoch: Epoch, from 1 in training.
            batch: Number of the batch in its epoch, from 0.

        Returns:
            Images, uint8 `(m, h, w, 3)`, and labels, float32 `(m, k)`, whose rows sum to 1.
        """
        if not self.mixes:
            return images, y
        return mix(images, y, self.mixing(len(images), images.shape[1:3], epoch, batch))

    def mixing(self, count: int, size: tuple[int, int], epoch: int, batch: int) -> pd.DataFrame:
        """What `mixing` draws for a batch of so many images of a height and width."""
        return mixing(self.policy, size, count, seed=self.seed, epoch=epoch, batch=batch)

    def _draw(self, epoch: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Matrices and colours, if any, of all training images in an epoch, 68 bytes each; the latest epoch's stay."""
        kept = self._drawn
        if kept is None or kept[0] != (epoch, *size):
            drawn = parameters(self.policy, self.count, self.seed, epoch)
            kept = (epoch, *size), matrices(drawn, size), _colours(drawn)
            self._drawn = kept
        return kept[1], kept[2]


def _colours(drawn: pd.DataFrame) -> np.ndarray | None:
    """Brightness, contrast and gains of red, green and blue, float32 `(n, 5)`; None where they would change nothing."""
    if not drawn["brightness"].any() and (drawn[["contrast", "red", "green", "blue"]] == 1).all(axis=None):
        return None
    return drawn[["brightness", "contrast", "red", "green", "blue"]].to_numpy(np.float32)


def _look_up_tables(colours: np.ndarray) -> np.ndarray:
    """What `_colours` gives, as tables, uint8 `(n, 256, 3)`; contrast turns about mid-grey."""
    levels = np.arange(256, dtype=np.float32)
    curve = (levels - 127.5) * colours[:, 1:2] + 127.5 + 255 * colours[:, :1]
    return np.clip(np.rint(curve[:, :, None] * colours[:, None, 2:]), 0, 255).astype(np.uint8)
