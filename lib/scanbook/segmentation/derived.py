"""Datasets derived from another by its masks: images cut out, or cropped to the box of the mask, with a manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from scanbook import runtime
from scanbook.config import Study
from scanbook.data import images as decoding
from scanbook.data.manifest import Manifest
from scanbook.errors import ImageError
from scanbook.segmentation.masks import cut_out
from scanbook.segmentation.scores import resize_masks
from scanbook.store import fingerprint, stage

FORMS = ("whole", "cut out, white", "cut out, black", "cut out, mean", "cropped")
"""The forms of an image that `preview` returns, in its order."""
LONGEST = 1024
"""Longest side of a written image, in pixels: no study's network sees more."""


def derive(study: Study, manifest: Manifest, masks: np.ndarray, method: str) -> Manifest:
    """Return the dataset of the study's `input`, written from masks as PNG files in one stage.

    Args:
        study: `input` is "cutout" or "crop"; `segmentation` states background and margin.
        manifest: The dataset, split.
        masks: bool `(n, h, w)`, at any size.
        method: The name of the method of the masks.
    """
    options, frame = study.segmentation, manifest.frame
    rows = np.flatnonzero((frame["split"] != "").to_numpy())
    inputs = {
        "manifest": manifest.fingerprint(),
        "masks": fingerprint(np.packbits(masks)),
        "method": method,
        "input": study.input,
        "option": options.background if study.input == "cutout" else options.margin,
    }

    def build(folder: Path) -> None:
        (folder / "images").mkdir()
        (folder / "masks").mkdir()

        def write_row(row: int) -> None:
            image = _shrink(decoding.read(Path(frame["path"].iloc[row])))
            mask = resize_masks(masks[row][None], image.shape[:2])[0]
            box = np.s_[:, :]
            if study.input == "crop":
                box = bounding_box(mask, options.margin)
            else:
                image = cut_out(image, mask, options.background)
            (folder / "images" / f"{row}.png").write_bytes(decoding.encode_png(np.ascontiguousarray(image[box])))
            expert = _expert_mask(frame["mask_path"].iloc[row], image.shape[:2])
            if expert is not None:
                scaled = np.ascontiguousarray(expert[box]).astype(np.uint8) * 255
                (folder / "masks" / f"{row}.png").write_bytes(decoding.encode_png(scaled))

        for _ in runtime.progress(runtime.in_threads(write_row, rows), f"writing {study.input} images", len(rows)):
            pass

    folder = stage("derived", inputs, build, __name__)
    derived = frame.copy()
    derived["path"] = derived["path"].astype(object)
    written = {int(path.stem) for path in (folder / "masks").iterdir()}
    mask_paths = [str(folder / "masks" / f"{row}.png") if row in written else "" for row in range(len(frame))]
    derived.loc[derived.index[rows], "path"] = [str(folder / "images" / f"{row}.png") for row in rows]
    facts = manifest.facts | {"input": study.input, "method": method, "data": folder.name}
    return replace(manifest, frame=derived.assign(mask_path=mask_paths), facts=facts)


def bounding_box(mask: np.ndarray, margin: float) -> tuple[slice, slice]:
    """Return the rows and columns of a mask's box, widened on every side by a share of its side, within the image.

    Args:
        mask: bool `(h, w)`.
        margin: The share.

    Returns:
        The slices; of the whole image where the mask is empty.
    """
    if not mask.any():
        return np.s_[:, :]
    slices = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        inside = np.flatnonzero(mask.any(axis))
        first, last = int(inside[0]), int(inside[-1]) + 1
        extra = round(margin * (last - first))
        slices.append(slice(max(0, first - extra), min(length, last + extra)))
    return slices[0], slices[1]


def _shrink(image: np.ndarray) -> np.ndarray:
    scale = LONGEST / max(image.shape[:2])
    if scale >= 1:
        return image
    return decoding.resize(image, (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))))


def _expert_mask(path: str, size: tuple[int, int]) -> np.ndarray | None:
    """Return the source's mask at a size; None where it is missing or unreadable."""
    try:
        return decoding.load_mask(Path(path), size) if path else None
    except ImageError:
        return None


def preview(images: np.ndarray, masks: np.ndarray, margin: float) -> list[list[np.ndarray]]:
    """Return images in every form that a study's `input` can name.

    Args:
        images: uint8 `(m, h, w, 3)`.
        masks: bool `(m, h, w)`.
        margin: Of the crop, a share of the mask's box.

    Returns:
        The forms of `FORMS` of each image, uint8 `(h, w, 3)` each.
    """
    rows = []
    for image, mask in zip(images, masks, strict=True):
        cropped = decoding.resize(np.ascontiguousarray(image[bounding_box(mask, margin)]), image.shape[:2])
        rows.append([image, *(cut_out(image, mask, background) for background in ("white", "black", "mean")), cropped])
    return rows
