"""How well masks agree with those drawn by experts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scanbook.manifest import Manifest


def dice(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Dice coefficient of each pair of masks, bool `(n, h, w)`; 1 where both are empty.

    Twice the overlap over the sum of areas (Dice, Ecology 26(3), 1945).
    """
    overlap = (truth & found).sum((1, 2))
    total = truth.sum((1, 2)) + found.sum((1, 2))
    return np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0)


def iou(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair of masks, bool `(n, h, w)`; 1 where both are empty."""
    union = (truth | found).sum((1, 2))
    return np.where(union > 0, (truth & found).sum((1, 2)) / np.maximum(union, 1), 1.0)


def scores(manifest: Manifest, truth: np.ndarray, found: dict[str, np.ndarray], part: str) -> pd.DataFrame:
    """Dice and IoU of every image of a part that has a mask.

    Args:
        manifest: The dataset, split.
        truth: Masks of the source, bool `(n, h, w)`.
        found: Masks by method, each bool `(n, h, w)`.
        part: "train", "validation" or "test".

    Returns:
        One row an image and method: `row`, `image_id`, `group`, `method`, `dice`, `iou`.
    """
    rows = manifest.rows(part)
    rows = rows[(manifest.frame["mask_path"].to_numpy() != "")[rows]]
    about = manifest.frame.iloc[rows][["image_id", "group"]]
    tables = [
        about.assign(row=rows, method=method, dice=dice(truth[rows], masks[rows]), iou=iou(truth[rows], masks[rows]))
        for method, masks in found.items()
    ]
    return pd.concat(tables, ignore_index=True)
