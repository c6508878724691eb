"""Rules that catch single images, each by a number of the scan."""

from __future__ import annotations

import numpy as np
import pandas as pd

BLANK_CONTRAST = 3.0
"""Standard deviation of grey levels below which an image shows nothing."""
DARK_BRIGHTNESS = 25.0
"""Mean grey level (0 to 255) below which an image is too dark to read."""
BLUR_DEVIATIONS = 3.0
"""Robust standard deviations below the dataset's median sharpness from which on an image counts as blurred."""


def flags(quality: pd.DataFrame, reference: np.ndarray | None = None) -> pd.DataFrame:
    """Images that a rule catches.

    Args:
        quality: What `scan` found.
        reference: Which rows tell how sharp an image should be, bool `(n,)`; all where it is None. Where these are
            all equally sharp, no image counts as blurred.

    Returns:
        Columns `image_id`, `rule` and `why`, a row for each image and rule.
    """
    caught = [(row.image_id, "unreadable", row.error) for row in quality[quality["error"] != ""].itertuples()]
    readable = quality[quality["error"] == ""]
    blank = readable["contrast"] < BLANK_CONTRAST
    dark = (readable["brightness"] < DARK_BRIGHTNESS) & ~blank
    sharpness = readable.loc[~(blank | dark), "sharpness"]
    usual = sharpness if reference is None else sharpness[pd.Series(reference, quality.index)[sharpness.index]]
    spread = 1.4826 * (usual - usual.median()).abs().median()
    lowest = usual.median() - BLUR_DEVIATIONS * spread if spread > 0 else -np.inf
    caught += [
        (row.image_id, "blank", f"contrast {row.contrast:.1f} < {BLANK_CONTRAST:.0f}")
        for row in readable[blank].itertuples()
    ]
    caught += [
        (row.image_id, "dark", f"brightness {row.brightness:.1f} < {DARK_BRIGHTNESS:.0f}")
        for row in readable[dark].itertuples()
    ]
    blurred = readable.loc[sharpness.index[sharpness < lowest]]
    caught += [
        (row.image_id, "blurred", f"sharpness {row.sharpness:.2f} < {lowest:.2f}") for row in blurred.itertuples()
    ]
    return pd.DataFrame(caught, columns=["image_id", "rule", "why"])
