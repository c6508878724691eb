"""What is wrong with single images: unreadable, blank, dark, blurred, copied.

Every image is decoded once, in threads, and described by a few numbers; the rules work on those numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from scanbook import images, runtime
from scanbook.errors import ImageError
from scanbook.manifest import Manifest
from scanbook.store import atomic_write, stage

BLANK_CONTRAST = 3.0
"""Standard deviation of grey levels below which an image shows nothing."""
DARK_BRIGHTNESS = 25.0
"""Mean grey level (0 to 255) below which an image is too dark to read."""
BLUR_DEVIATIONS = 3.0
"""Robust standard deviations below the dataset's median sharpness from which on an image counts as blurred."""
NEAR_BITS = 6
"""Bits of 64 in which the perceptual hashes of near-duplicates may differ."""
NEAR_CORRELATION = 0.97
"""Correlation of the 16 × 16 grey thumbnails from which on a pair with near hashes counts as near-duplicate."""

_NUMBERS = ("bytes", "width", "height", "brightness", "contrast", "sharpness", "red", "green", "blue")
_SIDE = 192


def scan(manifest: Manifest) -> pd.DataFrame:
    """Describes every image of a manifest.

    Args:
        manifest: The dataset.

    Returns:
        One row an image, in the manifest's order: `image_id`; `error`, a sentence where the file cannot be decoded,
        else ""; `sha256` of the file; `bytes`, `width`, `height`; `brightness` and `contrast` (mean and standard
        deviation of grey levels, 0 to 255); `sharpness` (decimal logarithm of the variance of the Laplacian at 192
        pixels); `red`, `green`, `blue` (means, 0 to 255); `thumbnail`, 16 × 16 grey levels as hexadecimal digits.
    """

    def build(folder: Path) -> None:
        paths = manifest.frame["path"]
        with ThreadPoolExecutor(runtime.cores()) as pool:
            rows = list(runtime.progress(pool.map(_describe, paths), "reading images", len(paths)))
        frame = pd.DataFrame(rows)
        frame.insert(0, "image_id", manifest.frame["image_id"].to_numpy())
        atomic_write(folder / "quality.csv", frame.to_csv(index=False))

    folder = stage("quality", {"manifest": manifest.fingerprint()}, build, __name__)
    text = dict.fromkeys(("image_id", "error", "sha256", "thumbnail"), str)
    frame = pd.read_csv(
        folder / "quality.csv", dtype=text, keep_default_na=False, na_values={name: [""] for name in _NUMBERS}
    )
    return frame


def _describe(path: str) -> dict[str, str | float]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        return {"error": f"cannot be read: {error.strerror}", "sha256": "", "thumbnail": ""} | dict.fromkeys(
            _NUMBERS, np.nan
        )
    row: dict[str, str | float] = {"error": "", "sha256": hashlib.sha256(data).hexdigest(), "thumbnail": ""}
    try:
        pixels = images.read(data)
    except ImageError as error:
        return (
            row
            | {"error": str(error).split(";")[0].removeprefix("the image ")}
            | dict.fromkeys(_NUMBERS, np.nan)
            | {"bytes": len(data)}
        )
    height, width = pixels.shape[:2]
    scale = _SIDE / max(height, width)
    small = images.resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    red, green, blue = small.reshape(-1, 3).mean(0)
    thumbnail = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
    return row | {
        "bytes": len(data),
        "width": width,
        "height": height,
        "brightness": round(float(grey.mean()), 3),
        "contrast": round(float(grey.std()), 3),
        "sharpness": round(float(np.log10(cv2.Laplacian(grey, cv2.CV_32F).var() + 1e-3)), 4),
        "red": round(float(red), 3),
        "green": round(float(green), 3),
        "blue": round(float(blue), 3),
        "thumbnail": thumbnail.tobytes().hex(),
    }


def flags(quality: pd.DataFrame) -> pd.DataFrame:
    """Images that a rule catches: columns `image_id`, `rule` and `why`, a row for each image and rule."""
    caught = [(row.image_id, "unreadable", row.error) for row in quality[quality["error"] != ""].itertuples()]
    readable = quality[quality["error"] == ""]
    blank = readable["contrast"] < BLANK_CONTRAST
    dark = (readable["brightness"] < DARK_BRIGHTNESS) & ~blank
    sharpness = readable.loc[~(blank | dark), "sharpness"]
    spread = 1.4826 * (sharpness - sharpness.median()).abs().median()
    lowest = sharpness.median() - BLUR_DEVIATIONS * spread
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


def exact_copies(quality: pd.DataFrame) -> pd.DataFrame:
    """Byte-identical readable files: columns `image_id` and `copy_group`, the group's number from 0."""
    readable = quality[quality["error"] == ""]
    copied = readable[readable["sha256"].duplicated(keep=False)]
    return pd.DataFrame({"image_id": copied["image_id"].to_numpy(), "copy_group": pd.factorize(copied["sha256"])[0]})


def near_copies(quality: pd.DataFrame) -> pd.DataFrame:
    """Pairs of images, not byte-identical, that show nearly the same: columns `image_id`, `other` and `correlation`.

    Candidates have difference hashes (dHash) within `NEAR_BITS` bits, as they are or mirrored; the correlation of their
    16 × 16 thumbnails decides.
    """
    columns = ["image_id", "other", "correlation"]
    readable = quality[(quality["error"] == "") & (quality["contrast"] >= BLANK_CONTRAST)]
    if len(readable) < 2:
        return pd.DataFrame(columns=columns)
    thumbnails = np.frombuffer(bytes.fromhex("".join(readable["thumbnail"])), np.uint8).reshape(-1, 16, 16)
    straight, mirrored = _difference_hash(thumbnails), _difference_hash(thumbnails[:, :, ::-1])
    flat = thumbnails.astype(np.float32)
    flat = (flat - flat.mean((1, 2), keepdims=True)) / (flat.std((1, 2), keepdims=True) + 1e-6)
    ids, digests = readable["image_id"].to_numpy(), readable["sha256"].to_numpy()
    rows = []
    for index in range(len(ids) - 1):
        rest = slice(index + 1, None)
        for hashes, turned in ((straight, flat[index]), (mirrored, flat[index][:, ::-1])):
            near = index + 1 + np.flatnonzero(np.bitwise_count(hashes[rest] ^ straight[index]) <= NEAR_BITS)
            near = near[digests[near] != digests[index]]
            correlation = (flat[near] * turned).mean((1, 2))
            rows += [
                (ids[index], ids[j], round(float(r), 4))
                for j, r in zip(near, correlation, strict=True)
                if r >= NEAR_CORRELATION
            ]
    return pd.DataFrame(rows, columns=columns).drop_duplicates(["image_id", "other"], ignore_index=True)


def _difference_hash(thumbnails: np.ndarray) -> np.ndarray:
    """64 bits an image: whether grey rises from each cell to the right neighbour, on 8 rows of 9 cells."""
    small = np.stack([cv2.resize(thumbnail, (9, 8), interpolation=cv2.INTER_AREA) for thumbnail in thumbnails])
    bits = small[:, :, 1:] > small[:, :, :-1]
    return np.packbits(bits.reshape(len(bits), 64), axis=1).view(np.uint64)[:, 0]


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


def planted(manifest: Manifest, flagged: pd.DataFrame, exact: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """What was planted in a drawn dataset against what the rules found.

    Returns:
        One row a kind of fault: `planted`, `found` of those, and `others` that the rule caught as well.
    """
    caught: dict[str, set[Any]] = {
        rule: set(flagged.loc[flagged["rule"] == rule, "image_id"]) for rule in ("unreadable", "dark", "blurred")
    }
    caught["dark"] |= set(flagged.loc[flagged["rule"] == "blank", "image_id"])
    groups = exact.groupby("copy_group")["image_id"].agg(frozenset)
    labels = manifest.frame.set_index("image_id")["label"]
    conflicting = {group for group in groups if labels[list(group)].nunique() > 1}
    caught |= {"conflicting_labels": conflicting, "exact_duplicates": set(groups) - conflicting}
    caught["near_duplicates"] = {frozenset(pair) for pair in near[["image_id", "other"]].itertuples(index=False)}
    rows = {}
    for kind, members in manifest.facts["faults"].items():
        truth = {member if isinstance(member, str) else frozenset(member) for member in members}
        rows[kind.replace("_", " ")] = {
            "planted": len(truth),
            "found": len(truth & caught[kind]),
            "others": len(caught[kind] - truth),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("fault")
