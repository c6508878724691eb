"""A study, a dataset and weights of the benchmark, for inputs and for scanbook's side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook.config import Study
from scanbook.data.adapters.synthetic import dermoscopy
from scanbook.data.manifest import Manifest
from scanbook.models import backbones
from scanbook.models.backbones import Weights
from scanbook.store import file_digest

PENALTY = 0.05


def make_manifest(labels: np.ndarray, splits: Mapping[str, int], classes: int = len(dermoscopy.CLASSES)) -> Manifest:
    """Return a dataset of images in memory.

    Args:
        labels: Class of each image, int64 `(n,)`.
        splits: Number of images of each split, in the order of the images; the rest is in no split.
        classes: Number of classes.
    """
    names = tuple(f"class {index}" for index in range(classes))
    ids = np.arange(len(labels)).astype(str)
    frame = pd.DataFrame({"image_id": ids, "path": "", "label": np.array(names)[labels], "group": ids, "mask_path": ""})
    assigned = [split for split, count in splits.items() for _ in range(count)]
    frame["split"] = assigned + [""] * (len(labels) - len(assigned))
    return Manifest("bench", frame, names)


def make_study(backbone: str, size: int, head: dict[str, Any]) -> Study:
    """Return a study of one backbone at `size` pixels; `head` changes keys of its block."""
    values = {
        "study": "bench",
        "title": "Benchmark",
        "question": "How fast?",
        "dataset": {"adapter": "folder", "source": "synthetic", "licence": "Apache-2.0"},
        "image_size": size,
        "backbones": [backbone],
        "head": {"l2": [PENALTY], **head},
    }
    return Study.model_validate(values)


def find_weights(backbone: str, path: str) -> Weights:
    """Return the weights in a file, or those that come with scanbook where `path` is empty."""
    return (
        Weights("scanbook", Path(path), file_digest(Path(path))) if path else backbones.pretrained(backbone, "scanbook")
    )
