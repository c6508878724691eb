"""What augmentation samples: for each image of an epoch, and for each batch whose images are mixed.

The sampled values depend only on seed, epoch and the image's place, or the batch's number, not on the number of
threads.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scanbook import registry
from scanbook.augmentation import operations
from scanbook.registry import Policy

# Last numbers of the seeds of mixing and of crops, which never equal the shorter seeds of single images or of
# shuffling, nor those of operations.
_MIXING = 2
_CROP = 4
_RATIOS = (3 / 4, 4 / 3)
"""Least and largest aspect ratio of a crop, as in Inception and torchvision."""
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
    "crop_area": "crop, share of the area",
    "crop_ratio": "crop, aspect ratio relative to the image's",
    "crop_left": "left edge of the crop, share of the width",
    "crop_top": "top edge of the crop, share of the height",
    "method": "mixed by",
    "share": "share of its own label",
}


def parameters(policy: Policy, count: int, seed: int, epoch: int) -> pd.DataFrame:
    """Sample the augmentation of each of `count` images in an epoch.

    Returns:
        One row per image: `rotation` and `shear` in degrees; `shift_x`, `shift_y` as shares of the side; `zoom`, a
        factor; `flip_x`, `flip_y`, 0 or 1; `brightness` as a share of 255; `contrast`, `red`, `green`, `blue`, factors.
        Of a policy that crops, `crop_left`, `crop_top`, `crop_width` and `crop_height` as shares of the side; of one
        with operations, the columns of `operations.sample`.
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
    if policy.crop < 1:
        values |= _crops(policy.crop, count, [seed, epoch, 0, _CROP])
    sampled = pd.DataFrame(values)
    if policy.trivialaugment or policy.randaugment:
        sampled = sampled.join(operations.sample(policy, count, seed, epoch))
    return sampled


def _crops(smallest: float, count: int, seed: list[int]) -> dict[str, np.ndarray]:
    """Sample crops as Szegedy et al. (CVPR 2015): the area uniformly, the logarithm of the aspect ratio uniformly.

    Where torchvision samples again until the crop fits in the image, the ratio is here among those that fit, so that
    the area stays uniform. The ratio is relative to the image's: it is by how much the crop is stretched.
    """
    unit = np.random.default_rng(seed).uniform(size=(count, 4))
    area = smallest + (1 - smallest) * unit[:, 0]
    low, high = np.maximum(np.log(_RATIOS[0]), np.log(area)), np.minimum(np.log(_RATIOS[1]), -np.log(area))
    ratio = np.exp(low + (high - low) * unit[:, 1])
    width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
    return {
        "crop_left": (1 - width) * unit[:, 2],
        "crop_top": (1 - height) * unit[:, 3],
        "crop_width": width,
        "crop_height": height,
    }


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


def first_epoch(name: str, size: tuple[int, int], count: int, batch_size: int, seed: int) -> pd.DataFrame:
    """Return the sampled values of every training image in the first epoch.

    Args:
        name: Name of a policy, or several joined by "+".
        size: Height and width of the images.
        count: Number of training images.
        batch_size: Images per batch, which are mixed with each other.
        seed: Seed of the sampled values.

    Returns:
        One row per image; one column per parameter that differs between images, named with its unit; of a policy with
        operations, their names, and one column per operation with its strength, NaN where an image does not have it. An
        operation that an image has twice counts once, by its first strength.
    """
    policy = registry.policy(name)
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    batches = [mixing(policy, size, images, seed=seed, epoch=1, batch=batch) for batch, images in enumerate(sizes)]
    sampled = parameters(policy, count, seed, 1).join(pd.concat(batches, ignore_index=True))
    for flip in ("flip_x", "flip_y"):
        sampled[flip] = np.where(sampled[flip] == 1, "yes", "no")
    if "crop_width" in sampled:
        sampled["crop_area"] = sampled["crop_width"] * sampled["crop_height"]
        sampled["crop_ratio"] = sampled["crop_width"] / sampled["crop_height"]
    varied = [column for column in _UNITS if column in sampled and sampled[column].nunique() > 1]
    return sampled[varied].rename(columns=_UNITS).join(operations.described(sampled))
