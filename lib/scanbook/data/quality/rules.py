"""Rules that flag single images, each by a number of the scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scanbook.data.manifest import TRAIN, Manifest

FEWEST_GROUPS = 10
"""Groups in training that a class needs before a property of its images can be called a shortcut."""
BLANK_CONTRAST = 3.0
"""Standard deviation of grey levels below which an image shows nothing."""
DARK_BRIGHTNESS = 25.0
"""Mean grey level (0 to 255) below which an image is too dark to read."""
BLUR_DEVIATIONS = 3.0
"""Robust standard deviations below the dataset's median sharpness beyond which an image counts as blurred."""
_NAMED = 10
"""Most classes that a sentence names."""


def enough_groups(train: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Return the classes with `FEWEST_GROUPS` groups or more in training, in the order of `classes`.

    Args:
        train: Training images, with columns `label` and `group`.
        classes: Class names in their order.
    """
    groups = train.groupby("label")["group"].nunique()
    return [name for name in classes if groups.get(name, 0) >= FEWEST_GROUPS]


def count_groups(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the number of groups with and without each finding, int `(k, 2)`.

    Args:
        values: Labels, float `(n, k)`: 1 present, 0 absent, NaN not labelled.
        group: The group of each image, `(n,)`.
    """
    return np.array([[len(np.unique(group[column == state])) for state in (1, 0)] for column in values.T])


def small_classes(manifest: Manifest) -> str:
    """Return which classes or findings are too small to look for shortcuts, in a sentence; "" for none."""
    train = manifest.frame.iloc[manifest.rows(TRAIN)]
    if manifest.findings:
        counts = count_groups(manifest.label_values(TRAIN), pd.factorize(train["group"])[0])
        groups = pd.Series(counts.min(axis=1), manifest.findings)
        enough = groups.index[groups >= FEWEST_GROUPS]
    else:
        enough, groups = enough_groups(train, manifest.classes), train.groupby("label")["group"].nunique()
    small = [f"{name} ({groups.get(name, 0)})" for name in manifest.names if name not in enough]
    if not small:
        return ""
    names = ", ".join(small[:_NAMED]) + (f" and {len(small) - _NAMED} others" if len(small) > _NAMED else "")
    return (
        f"Not looked at for shortcuts, because fewer than {FEWEST_GROUPS} groups (patients or lesions) are in "
        f"training: {names}. What so few have in common can be chance."
    )


def flags(quality: pd.DataFrame, reference: np.ndarray | None = None) -> pd.DataFrame:
    """Return the images that a rule flags.

    Args:
        quality: The result of `scan`.
        reference: Rows from which the expected sharpness is estimated, bool `(n,)`; None uses all. Where these are
            all equally sharp, no image counts as blurred.

    Returns:
        Columns `image_id`, `rule` and `reason`, one row per image and rule.
    """
    readable = quality[quality["error"] == ""]
    blank = readable["contrast"] < BLANK_CONTRAST
    dark = (readable["brightness"] < DARK_BRIGHTNESS) & ~blank
    sharpness = readable.loc[~(blank | dark), "sharpness"]
    expected = sharpness if reference is None else sharpness[pd.Series(reference, quality.index)[sharpness.index]]
    spread = 1.4826 * (expected - expected.median()).abs().median()
    lowest = expected.median() - BLUR_DEVIATIONS * spread if spread > 0 else -np.inf
    blurred = readable.loc[sharpness.index[sharpness < lowest]]
    rows = [(row.image_id, "unreadable", row.error) for row in quality[quality["error"] != ""].itertuples()]
    for rule, images, column, limit, digits in (
        ("blank", readable[blank], "contrast", f"{BLANK_CONTRAST:.0f}", 1),
        ("dark", readable[dark], "brightness", f"{DARK_BRIGHTNESS:.0f}", 1),
        ("blurred", blurred, "sharpness", f"{lowest:.2f}", 2),
    ):
        for image_id, value in zip(images["image_id"], images[column], strict=True):
            rows.append((image_id, rule, f"{column} {value:.{digits}f} < {limit}"))
    return pd.DataFrame(rows, columns=["image_id", "rule", "reason"])
