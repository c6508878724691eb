"""Small pictures for reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from scanbook.data import images
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.errors import ImageError


def thumbnails(manifest: Manifest, ids: Sequence[str], side: int = 128) -> list[np.ndarray]:
    """Small pictures of images by id, uint8 `(side, side, 3)`; grey with a cross where the file cannot be decoded."""
    paths = manifest.frame.set_index("image_id")["path"]
    shown = []
    for name in ids:
        try:
            shown.append(images.load(Path(paths[name]), (side, side)))
        except ImageError:
            blank = np.full((side, side, 3), 200, np.uint8)
            for start, end in (((0, 0), (side, side)), ((side, 0), (0, side))):
                cv2.line(blank, start, end, (90, 90, 90), 1, cv2.LINE_AA)
            shown.append(blank)
    return shown


def examples(manifest: Manifest, each: int = 6) -> tuple[list[np.ndarray], list[str]]:
    """The first `each` training images of every class, in class order, as `thumbnails`, and the class of each."""
    frame = manifest.frame[manifest.frame["split"] == TRAIN]
    shown = pd.concat([frame[frame["label"] == name].head(each) for name in manifest.classes])
    return thumbnails(manifest, shown["image_id"]), shown["label"].tolist()


def caught(manifest: Manifest, flagged: pd.DataFrame, each: int = 6) -> tuple[list[np.ndarray], list[str]]:
    """The first `each` images that every rule caught, as `thumbnails`, and the rule and its reason for each."""
    shown = flagged.groupby("rule", sort=False).head(each)
    return thumbnails(manifest, shown["image_id"]), (shown["rule"] + ": " + shown["why"]).tolist()


def side_by_side(manifest: Manifest, pairs: pd.DataFrame, most: int = 10) -> tuple[list[np.ndarray], list[str]]:
    """Images of the first pairs of `near_copies`, one beside the other, as `thumbnails`, with a caption each.

    Pairs differ in kind where they can: the first of each orientation come before the second.
    """
    turn = pairs.groupby("orientation").cumcount()
    chosen = pairs.iloc[np.argsort(turn.to_numpy(), kind="stable")].head(most)
    captions = []
    for row in chosen.itertuples():
        captions += [row.image_id, f"{row.other}: {row.orientation}, r = {row.correlation:.2f}"]
    return thumbnails(manifest, chosen[["image_id", "other"]].to_numpy().ravel()), captions
