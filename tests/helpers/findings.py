"""A small ward: PNG files of patients with several findings each, that a network can learn to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook.data import images
from scanbook.data.manifest import Manifest, finding_column

FINDINGS = ("Nodule", "Effusion", "Device")
"""A bright disc in the upper half, a bright lower edge, and a dark bar: rare, frequent, and between."""
_FREQUENCY = (0.15, 0.45, 0.3)


def ward(folder: Path, n: int = 60, seed: int = 0, missing: float = 0.05, **facts: Any) -> Manifest:
    """Return n PNG files of 64 × 80 pixels in `folder`, of patients with one to three images, without splits.

    Effusion and Device occur together more often than by chance. A share `missing` of the labels is not labelled, and
    as many are uncertain; the pixels show the truth all the same. Sex and age are metadata.

    Args:
        folder: Where the files are written.
        n: Number of images.
        seed: Of everything.
        missing: Share of the labels that is not labelled.
        facts: Further facts of the manifest.
    """
    draw = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), draw.integers(1, 4, n))[:n]
    together = draw.normal(size=(n, 1))
    latent = draw.normal(size=(n, 3)) * 0.8 + together * np.array([0.0, 0.6, 0.6])
    truth = np.argsort(np.argsort(-latent, axis=0), axis=0) < np.array(_FREQUENCY) * n
    told = truth.astype(float)
    chance = draw.random(truth.shape)
    told[chance < missing], told[chance > 1 - missing] = np.nan, -1
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.png" for number in range(n)]
    for path, shown in zip(paths, truth, strict=True):
        path.write_bytes(images.encode_png(_picture(shown, draw)))
    frame = pd.DataFrame(
        {
            "image_id": [path.stem for path in paths],
            "path": [str(path) for path in paths],
            "group": [f"patient {number}" for number in patient],
            "mask_path": "",
            "split": "",
            **{finding_column(name): told[:, column] for column, name in enumerate(FINDINGS)},
            "sex": np.where(patient % 2, "F", "M"),
            "age": 40 + patient % 45,
        }
    )
    known = {"data": f"ward-{n}-{seed}-{missing}", "grouped": True, "names_groups": True}
    return Manifest.of_findings("ward", frame, FINDINGS, {"Device": "positive"}, known | facts)


def _picture(shown: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return an image of 64 × 80 pixels with the findings that are present, uint8 `(64, 80, 3)`."""
    grey = 90 + draw.normal(0, 8, (64, 80)) + draw.normal(0, 6)
    y, x = np.mgrid[:64, :80]
    nodule, effusion, device = shown
    if nodule:
        grey[(y - draw.integers(14, 24)) ** 2 + (x - draw.integers(20, 60)) ** 2 < 60] += 90
    if effusion:
        grey[y > 64 - draw.integers(12, 20)] += 70
    if device:
        left = draw.integers(5, 60)
        grey[28:34, left : left + 18] -= 70
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
