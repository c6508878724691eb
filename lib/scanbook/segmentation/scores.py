"""How well masks agree with those drawn by experts."""

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
"""What `scores` gives of every mask, and its name in reports."""


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


def surface_distances(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """How far apart the outlines of two masks are.

    An outline is the mask's pixels with one of the four neighbours outside it; beyond the image is outside. From every
    pixel of either outline the distance to the nearest pixel of the other is taken (Taha and Hanbury, BMC Medical
    Imaging 15:29, 2015).

    Args:
        truth: bool `(h, w)`.
        found: bool `(h, w)`.

    Returns:
        The average symmetric surface distance, and the larger of the two directions' 95th percentiles, both in % of
        the image's diagonal; 0 where both masks are empty, 100 where one is.
    """
    if not (truth.any() and found.any()):
        return (0.0, 0.0) if truth.any() == found.any() else (100.0, 100.0)
    rows, columns = (np.flatnonzero((truth | found).any(axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # both outlines lie in it, so nothing is lost
    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (truth[box], found[box])]
    to_truth, to_found = (ndimage.distance_transform_edt(~outline) for outline in outlines)
    there, back = to_found[outlines[0]], to_truth[outlines[1]]
    average = (there.sum() + back.sum()) / (len(there) + len(back))
    farthest = max(np.percentile(there, 95), np.percentile(back, 95))
    share = 100 / float(np.hypot(*truth.shape))
    return float(average) * share, float(farthest) * share


def scores(
    manifest: Manifest, split: str, truth: np.ndarray, known: np.ndarray, found: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Scores of every image of a part that has a mask, by every method.

    Args:
        manifest: The dataset, split.
        split: "train", "validation" or "test".
        truth: Masks of the source, bool `(n, h, w)`.
        known: Which images have one, bool `(n,)`.
        found: Masks of the part's m images by method, each bool `(m, h, w)`.

    Returns:
        One row an image and method: `row` in the manifest, `place` in the part, `image_id`, `group`, `method`, and
        the columns of `SCORES`.
    """
    rows = manifest.rows(split)
    places = np.flatnonzero(known[rows])
    rows = rows[places]
    expert = truth[rows]
    about = manifest.frame.iloc[rows][["image_id", "group"]].assign(row=rows, place=places)
    tables = []
    for method, masks in found.items():
        ours = np.asarray(masks[places])
        with ThreadPoolExecutor(runtime.cores()) as pool:
            distances = np.array(list(pool.map(surface_distances, expert, ours))).reshape(-1, 2)
        tables.append(
            about.assign(
                method=method,
                dice=dice(expert, ours),
                iou=iou(expert, ours),
                surface_distance=distances[:, 0],
                hausdorff_95=distances[:, 1],
            )
        )
    return pd.concat(tables, ignore_index=True)


def resized(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks at another height and width, bool `(n, h, w)`: bilinear between pixels, true above one half."""
    scaled = [cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) for mask in masks]
    return np.stack(scaled) > 0.5


def gaps(scored: pd.DataFrame, tuned: pd.DataFrame, column: str = "dice") -> pd.DataFrame:
    """How much better the best method's masks are than the second best's, image by image.

    Args:
        scored: What `scores` gave.
        tuned: Index: methods; `dice`, their mean on validation, says which two are the best.
        column: One of `SCORES`.

    Returns:
        One row an image: `row`, `group`, `pair` ("best − second") and `gap`, the best's score minus the second's; none
        where there are not two methods.
    """
    if len(tuned) < 2 or len(scored) == 0:
        return pd.DataFrame(columns=["row", "group", "pair", "gap"])
    first, second = tuned["dice"].sort_values(ascending=False, kind="stable").index[:2]
    wide = scored.pivot(index=["row", "group"], columns="method", values=column).reset_index()
    return wide[["row", "group"]].assign(pair=f"{first} − {second}", gap=wide[first] - wide[second])


def examples(manifest: Manifest, scored: pd.DataFrame, method: str, count: int = 5) -> pd.DataFrame:
    """Test images to look at: those with the lowest Dice by a method, then those with the highest.

    Args:
        manifest: The dataset, split.
        scored: What `scores` gave for test.
        method: The method.
        count: Images of each kind; where nothing was scored, the first test images, twice as many.

    Returns:
        `row` in the manifest, `place` in the part, and `caption`.
    """
    if len(scored) == 0:
        rows = manifest.rows(TEST)[: 2 * count]
        names = manifest.frame["image_id"].iloc[rows]
        return pd.DataFrame({"row": rows, "place": np.arange(len(rows)), "caption": names.to_numpy()})
    ranked = scored[scored["method"] == method].sort_values("dice", kind="stable", ignore_index=True)
    worst = ranked.head(min(count, len(ranked) // 2))
    picked = pd.concat([worst, ranked.tail(min(count, len(ranked) - len(worst)))], ignore_index=True)
    return picked[["row", "place"]].assign(caption=[f"Dice {value:.2f}" for value in picked["dice"]])
