"""Small pictures for reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from scanbook.data import counts, images
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.errors import ImageError


def thumbnails(manifest: Manifest, ids: Sequence[str], side: int = 128) -> list[np.ndarray]:
    """Return small pictures of images by id, uint8 `(side, side, 3)`; a grey cross where a file cannot be decoded."""
    paths = manifest.frame.set_index("image_id")["path"]
    pictures = []
    for image_id in ids:
        try:
            pictures.append(images.load(Path(paths[image_id]), (side, side)))
        except ImageError:
            cross = np.full((side, side, 3), 200, np.uint8)
            for start, end in (((0, 0), (side, side)), ((side, 0), (0, side))):
                cv2.line(cross, start, end, (90, 90, 90), 1, cv2.LINE_AA)
            pictures.append(cross)
    return pictures


_MOST_EXAMPLES = 72
"""Training images that stand for the classes, over all of them."""


def class_examples(manifest: Manifest, count: int = 6) -> tuple[list[np.ndarray], list[str]]:
    """Return the first training images of every class or finding, in order, as `thumbnails`, and the label of each.

    Of many classes there are fewer images than `count` of each; of more than 72, one image of each of the largest and
    of the smallest classes. An image of few findings comes before one of many.
    """
    frame, names = counts.by_label(manifest, manifest.frame.iloc[manifest.rows(TRAIN)])
    sizes = frame["label"].value_counts().reindex(names, fill_value=0)
    by_size = sizes.sort_values(ascending=False, kind="stable").index
    if len(names) > _MOST_EXAMPLES:
        names = [*by_size[: _MOST_EXAMPLES // 2], *by_size[-(_MOST_EXAMPLES // 2) :]]
    count = min(count, max(1, _MOST_EXAMPLES // len(names)))
    if manifest.findings:  # the rows of one image share its index
        frame = frame.iloc[np.argsort(frame.groupby(level=0)["label"].transform("size").to_numpy(), kind="stable")]
    rows = pd.concat([frame[frame["label"] == name].head(count) for name in names])
    captions = rows["label"]
    if manifest.findings:
        whole = manifest.frame["label"].loc[rows.index].str.split(", ").str.len() - 1
        captions = captions.where(whole == 0, captions + " (and " + whole.astype(str) + " more)")
    return thumbnails(manifest, rows["image_id"]), captions.tolist()


def examples_title(manifest: Manifest) -> str:
    """Return which classes or findings `class_examples` shows."""
    count, each = len(counts.by_label(manifest, manifest.frame.head(0))[1]), _MOST_EXAMPLES // 2
    which = f" of the {each} largest and the {each} smallest of {count:,} classes" if count > _MOST_EXAMPLES else ""
    return f"Training images{which}"


def flagged_examples(manifest: Manifest, flagged: pd.DataFrame, count: int = 6) -> tuple[list[np.ndarray], list[str]]:
    """Return the first images that every rule flags, as `thumbnails`, and the rule and reason of each."""
    rows = flagged.groupby("rule", sort=False).head(count)
    return thumbnails(manifest, rows["image_id"]), (rows["rule"] + ": " + rows["reason"]).tolist()


def pair_examples(manifest: Manifest, pairs: pd.DataFrame, count: int = 10) -> tuple[list[np.ndarray], list[str]]:
    """Return images of the first pairs of `near_copies`, side by side, as `thumbnails`, and a caption for each.

    Pairs differ in orientation where possible: the first pair of each orientation comes before the second.
    """
    occurrence = pairs.groupby("orientation").cumcount()
    rows = pairs.iloc[np.argsort(occurrence.to_numpy(), kind="stable")].head(count)
    captions = []
    for row in rows.itertuples():
        captions += [row.image_id, f"{row.other}: {row.orientation}, r = {row.correlation:.2f}"]
    return thumbnails(manifest, rows[["image_id", "other"]].to_numpy().ravel()), captions


def label_examples(manifest: Manifest, table: pd.DataFrame) -> tuple[list[np.ndarray], list[str]]:
    """Return images whose label looks wrong, as `thumbnails`: the given label, the suggested one, and the patient.

    Args:
        manifest: The dataset.
        table: Rows of `label_check.LabelCheck.table`.
    """
    given = table["finding"] + " " + table["given"] if manifest.findings else table["given"]
    suggested = table["suggested"] + "? " + table["confidence"].clip(upper=0.99).map("{:.2f}".format)
    captions = (given + "\n" + suggested + "\n" + table["group"].astype(str)).tolist()
    return thumbnails(manifest, table["image_id"]), captions
