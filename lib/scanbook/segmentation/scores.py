"""Agreement of masks with those of experts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from scanbook import runtime
from scanbook.data.manifest import TEST, Manifest

SCORES = {
    "dice": "Dice",
    "iou": "intersection over union",
    "surface_distance": "mean surface distance, % of the diagonal",
    "hausdorff_95": "95th percentile distance, % of the diagonal",
}
"""Columns of `scores`, with their names in reports."""


def dice(expert: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the Dice coefficient of each pair of masks, bool `(n, h, w)`; 1 where both are empty.

    Twice the overlap over the sum of areas (Dice, Ecology 26(3), 1945).
    """
    overlap = (expert & predicted).sum((1, 2))
    total = expert.sum((1, 2)) + predicted.sum((1, 2))
    return np.where(total > 0, 2 * overlap / np.maximum(total, 1), 1.0)


def iou(expert: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each pair of masks, bool `(n, h, w)`; 1 where both are empty."""
    union = (expert | predicted).sum((1, 2))
    return np.where(union > 0, (expert & predicted).sum((1, 2)) / np.maximum(union, 1), 1.0)


def surface_distances(expert: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Return the distances between the outlines of two masks.

    An outline is the pixels of a mask with one of their four neighbours outside it; beyond the image is outside. Each
    pixel of either outline contributes its distance to the nearest pixel of the other (Taha and Hanbury, BMC Medical
    Imaging 15:29, 2015).

    Args:
        expert: bool `(h, w)`.
        predicted: bool `(h, w)`.

    Returns:
        The average symmetric surface distance, and the larger of the two directions' 95th percentiles, both in % of
        the image's diagonal; 0 where both masks are empty, 100 where one is.
    """
    if not (expert.any() and predicted.any()):
        return (0.0, 0.0) if expert.any() == predicted.any() else (100.0, 100.0)
    rows, columns = (np.flatnonzero((expert | predicted).any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # contains both outlines
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (expert[box], predicted[box])]
    to_expert, to_predicted = (ndimage.distance_transform_edt(~outline) for outline in outlines)
    forward, backward = to_predicted[outlines[0]], to_expert[outlines[1]]
    average = (forward.sum() + backward.sum()) / (len(forward) + len(backward))
    farthest = max(np.percentile(forward, 95), np.percentile(backward, 95))
    share = 100 / float(np.hypot(*expert.shape))
    return float(average) * share, float(farthest) * share


def scores(
    manifest: Manifest, split: str, experts: np.ndarray, has_mask: np.ndarray, predicted: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Return the scores of every image of a split that has a mask, by every method.

    Args:
        manifest: The dataset, split.
        split: "train", "validation" or "test".
        experts: Masks of the source, bool `(n, h, w)`.
        has_mask: Which images have one, bool `(n,)`.
        predicted: Masks of the m images of the split by method, each bool `(m, h, w)`.

    Returns:
        One row per image and method: `row` in the manifest, `place` in the split, `image_id`, `group`, `method`, and
        the columns of `SCORES`.
    """
    rows = manifest.rows(split)
    places = np.flatnonzero(has_mask[rows])
    rows = rows[places]
    expert = experts[rows]
    images = manifest.frame.iloc[rows][["image_id", "group"]].assign(row=rows, place=places)
    tables = []
    for method, masks in predicted.items():
        mask = np.asarray(masks[places])
        with ThreadPoolExecutor(runtime.cores()) as pool:
            distances = np.array(list(pool.map(surface_distances, expert, mask))).reshape(-1, 2)
        overlaps = {"dice": dice(expert, mask), "iou": iou(expert, mask)}
        boundaries = {"surface_distance": distances[:, 0], "hausdorff_95": distances[:, 1]}
        tables.append(images.assign(method=method, **overlaps, **boundaries))
    return pd.concat(tables, ignore_index=True)


def resize_masks(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return masks at another height and width, bool `(n, h, w)`: bilinear interpolation, true above one half."""
    scaled = [cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for mask in masks]
    return np.stack(scaled) > 0.5


def gaps(scored: pd.DataFrame, tuned: pd.DataFrame, column: str = "dice") -> pd.DataFrame:
    """Return the difference in score between the best and the second best method, per image.

    Args:
        scored: The table of `scores`.
        tuned: Index: methods; the mean `dice` on validation determines the best two.
        column: One of `SCORES`.

    Returns:
        One row per image: `row`, `group`, `pair` ("best − second") and `gap`, the best's score minus the second's; no
        rows where there are fewer than two methods.
    """
    if len(tuned) < 2 or len(scored) == 0:
        return pd.DataFrame(columns=["row", "group", "pair", "gap"])
    first, second = tuned["dice"].sort_values(ascending=False, kind="stable").index[:2]
    wide = scored.pivot(index=["row", "group"], columns="method", values=column).reset_index()
    return wide[["row", "group"]].assign(pair=f"{first} − {second}", gap=wide[first] - wide[second])


def examples(manifest: Manifest, scored: pd.DataFrame, method: str, count: int = 5) -> pd.DataFrame:
    """Return example test images: those with the lowest Dice by a method, then those with the highest.

    Args:
        manifest: The dataset, split.
        scored: The table of `scores` for test.
        method: The method.
        count: Images with the lowest and with the highest Dice; without scores, twice as many of the first test images.

    Returns:
        `row` in the manifest, `place` in the split, and `caption`.
    """
    if len(scored) == 0:
        rows = manifest.rows(TEST)[: 2 * count]
        names = manifest.frame["image_id"].iloc[rows]
        return pd.DataFrame({"row": rows, "place": np.arange(len(rows)), "caption": names.to_numpy()})
    ranked = scored[scored["method"] == method].sort_values("dice", kind="stable", ignore_index=True)
    worst = ranked.head(min(count, len(ranked) // 2))
    selected = pd.concat([worst, ranked.tail(min(count, len(ranked) - len(worst)))], ignore_index=True)
    return selected[["row", "place"]].assign(caption=[f"Dice {value:.2f}" for value in selected["dice"]])
