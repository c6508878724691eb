"""The operations of RandAugment (Cubuk et al., 2020) and TrivialAugment (Müller and Hutter, ICCV 2021).

Geometric ones become one matrix. Neighbours among those that change each level by itself become one look-up table, so
that an image is read once for both; colour is one matrix of channels, sharpness one small filter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from scanbook.registry import LARGEST_MAGNITUDE, Policy

# Last number of the seeds of operations: those of mixing end with 2, of crops with 4, and others are shorter.
_SEED = 3
_STEPS = 30
"""TrivialAugment samples one of the strengths 0 to 30, evenly spaced."""
_GREY = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the luma of ITU-R BT.601, which Pillow uses."""
# what Pillow calls SMOOTH, the image of sharpness 0
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        unit: What its strength is; empty for an operation without one.
        neutral: Strength that changes nothing.
        randaugment: Difference from neutral at RandAugment's largest magnitude, 10.
        trivialaugment: Largest difference from neutral in TrivialAugment, "wide" ranges.
        signed: Whether the difference is to either side.
        whole: Whether strengths are whole numbers.
    """

    unit: str = ""
    neutral: float = 0.0
    randaugment: float = 0.0
    trivialaugment: float = 0.0
    signed: bool = False
    whole: bool = False


_FACTOR = Operation("factor", 1, 0.9, 0.99, signed=True)
# TrivialAugment moves by up to 32 pixels, and trains at 224
OPERATIONS: dict[str, Operation] = {
    "identity": Operation(),
    "autocontrast": Operation(),
    "equalise": Operation(),
    "rotate": Operation("degrees", 0, 30, 135, signed=True),
    "solarise": Operation("threshold level", 255, -255, -255),
    "colour": _FACTOR,
    "posterise": Operation("bits kept", 8, -4, -6, whole=True),
    "contrast": _FACTOR,
    "brightness": _FACTOR,
    "sharpness": _FACTOR,
    "shear x": Operation("pixels per pixel", 0, 0.3, 0.99, signed=True),
    "shear y": Operation("pixels per pixel", 0, 0.3, 0.99, signed=True),
    "translate x": Operation("share of the width", 0, 150 / 331, 32 / 224, signed=True),
    "translate y": Operation("share of the height", 0, 150 / 331, 32 / 224, signed=True),
}
"""The fourteen operations of both papers; ranges of RandAugment as AutoAugment's, of TrivialAugment as its table 1."""
_GEOMETRIC = ("identity", "rotate", "shear x", "shear y", "translate x", "translate y")


def sample(policy: Policy, count: int, seed: int, epoch: int) -> pd.DataFrame:
    """Sample the operations of each of `count` images in an epoch, each with the same probability.

    Returns:
        One row per image: `operation_1`, the first operation's name; `strength_1` in its unit, 0 if it has none; and so
        on; without columns where the policy has no operations.
    """
    number = 1 if policy.trivialaugment else policy.randaugment
    unit = np.random.default_rng([seed, epoch, 0, _SEED]).uniform(size=(count, number, 3))
    names, entries = np.array(list(OPERATIONS), dtype=object), list(OPERATIONS.values())
    chosen = (unit[..., 0] * len(names)).astype(int)
    share = np.floor(unit[..., 1] * (_STEPS + 1)) / _STEPS
    reach = np.array([entry.trivialaugment for entry in entries])
    if not policy.trivialaugment:
        share[:] = policy.magnitude / LARGEST_MAGNITUDE
        reach = np.array([entry.randaugment for entry in entries])
    signed, whole = (np.array([getattr(entry, key) for entry in entries])[chosen] for key in ("signed", "whole"))
    difference = share * reach[chosen] * np.where(signed & (unit[..., 2] < 0.5), -1, 1)
    strength = np.array([entry.neutral for entry in entries])[chosen] + np.where(whole, np.rint(difference), difference)
    columns: dict[str, np.ndarray] = {}
    for place in range(number):
        columns |= {f"operation_{place + 1}": names[chosen[:, place]], f"strength_{place + 1}": strength[:, place]}
    return pd.DataFrame(columns, index=range(count))


def columns_of(sampled: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the columns of names and of strengths among sampled values, in order."""
    names = [column for column in sampled if column.startswith("operation_")]
    return names, [f"strength_{name.removeprefix('operation_')}" for name in names]


def described(sampled: pd.DataFrame) -> pd.DataFrame:
    """Return the operations of each image for a reader.

    Args:
        sampled: Values of `sample`.

    Returns:
        One row per image: a column of names for each place, and for each operation that several images have a column of
        its strengths, named with its unit, NaN where an image does not have it.
    """
    names, strengths = columns_of(sampled)
    titles = ["operation"] if len(names) == 1 else [f"operation {place + 1}" for place in range(len(names))]
    columns = {title: sampled[name] for title, name in zip(titles, names, strict=True) if sampled[name].nunique() > 1}
    for name, entry in OPERATIONS.items():
        chosen = sampled[names].to_numpy() == name
        own = chosen.any(1)
        if entry.unit and own.sum() > 1:
            first = sampled[strengths].to_numpy()[np.arange(len(sampled)), chosen.argmax(1)]
            columns[f"operation {name}, {entry.unit}"] = pd.Series(np.where(own, first, np.nan), sampled.index)
    return pd.DataFrame(columns, index=sampled.index)


def affine(sampled: pd.DataFrame, size: tuple[int, int]) -> np.ndarray:
    """Compose the geometric operations about the centre, the first one applied first.

    Args:
        sampled: Values of `sample`.
        size: Height and width of the images.

    Returns:
        float64 `(n, 3, 3)`, from output to input pixel coordinates.
    """
    height, width = size
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    composed = np.tile(np.eye(3), (len(sampled), 1, 1))
    for names, strengths in zip(*columns_of(sampled), strict=True):
        name, strength = sampled[names].to_numpy(), sampled[strengths].to_numpy()
        angle, shear_x, shear_y, shift_x, shift_y = (np.where(name == key, strength, 0) for key in _GEOMETRIC[1:])
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        step = np.tile(np.eye(3), (len(sampled), 1, 1))
        # an image has one operation in each place, so that the others are neutral here
        step[:, :2, :2] = np.stack([np.stack([cos, shear_x - sin], -1), np.stack([shear_y + sin, cos], -1)], -2)
        shift = np.stack([shift_x * width, shift_y * height], -1)
        step[:, :2, 2] = centre + shift - np.einsum("nij,j->ni", step[:, :2, :2], centre)
        composed = composed @ step
    return composed


def recolour(image: np.ndarray, names: Sequence[str], strengths: Sequence[float], table: np.ndarray | None) -> None:
    """Apply a look-up table and then the operations on colour, in order and in place.

    Autocontrast, equalise and contrast depend on the image's levels, which are counted on the warped image.

    Args:
        image: uint8 `(h, w, 3)`, RGB.
        names: Operations of the image; geometric ones are passed over.
        strengths: Of each, in its unit.
        table: uint8 `(256, 3)`, applied first, or None.
    """
    counts = None
    for name, strength in zip(names, strengths, strict=True):
        if name in _GEOMETRIC:
            continue
        if name in ("colour", "sharpness"):
            _look_up(image, table)
            table = counts = None
            if name == "colour":
                cv2.transform(image, strength * np.eye(3) + (1 - strength) * _GREY, dst=image)
            else:
                kernel = (1 - strength) * _SMOOTH
                kernel[1, 1] += strength
                cv2.filter2D(image, -1, kernel, dst=image)
            continue
        if counts is None and name in ("autocontrast", "equalise", "contrast"):
            counts = np.stack([cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel() for channel in range(3)])
        table = _with_operation(table, counts, name, strength)
    _look_up(image, table)


def _look_up(image: np.ndarray, table: np.ndarray | None) -> None:
    if table is not None:
        cv2.LUT(image, table[None], dst=image)


def _with_operation(table: np.ndarray | None, counts: np.ndarray | None, name: str, strength: float) -> np.ndarray:
    """Return a table with one more operation after it, uint8 `(256, 3)`.

    Args:
        table: uint8 `(256, 3)`, or None for the identity.
        counts: Pixels of each level before the table, float `(3, 256)`; None where the operation needs none.
        name: The operation.
        strength: In its unit.
    """
    levels = np.arange(256)
    table = np.repeat(levels.astype(np.uint8)[:, None], 3, 1) if table is None else table
    if name in ("autocontrast", "equalise"):
        after = [np.bincount(table[:, channel], counts[channel], 256) for channel in range(3)]
        curves = np.stack([(_autocontrast if name == "autocontrast" else _equalise)(count) for count in after], -1)
        return np.take_along_axis(curves, table.astype(np.intp), 0)
    if name == "posterise":
        return table & np.uint8(256 - 2 ** (8 - int(strength)))
    if name == "solarise":
        return np.where(table < strength, table, 255 - table)
    # brightness and contrast: towards black, or away from the image's mean grey, as Pillow's ImageEnhance
    still = 0
    if name == "contrast":
        mean = (counts * table.T).sum(1) / counts.sum(1)
        still = int(_GREY @ mean + 0.5)
    return _rounded(still + strength * (levels - still))[table]


def _autocontrast(counts: np.ndarray) -> np.ndarray:
    """Return the curve that stretches a channel to all levels, as Pillow's ImageOps."""
    levels, present = np.arange(256), np.flatnonzero(counts)
    low, high = present[0], present[-1]
    return _rounded((levels - low) * (255 / (high - low)) if high > low else levels)


def _equalise(counts: np.ndarray) -> np.ndarray:
    """Return the curve that makes a channel's levels equally frequent, as Pillow's ImageOps."""
    present = counts[counts > 0].astype(int)
    step = (present.sum() - present[-1]) // 255
    if len(present) < 2 or step == 0:
        return np.arange(256, dtype=np.uint8)
    below = np.concatenate([[0], np.cumsum(counts.astype(int))[:-1]])
    return _rounded((step // 2 + below) // step)


def _rounded(curve: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(curve), 0, 255).astype(np.uint8)
