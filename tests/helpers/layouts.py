"""Small datasets for the tests of the adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanbook.config import Study
from scanbook.data import adapters, images
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError


def make_study(data: Path | str, dataset: dict[str, Any] | None = None, **keys: Any) -> Study:
    required = {"study": "mini", "title": "Mini", "question": "Any?", "modality": "images"}
    blocks = {"dataset": dataset or {"adapter": "folder"}, "backbones": ["baseline_cnn"]}
    return Study(**required, **blocks, data=str(data), **keys)


def write_image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_png(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)))
    return path


def layout(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        write_image(root / name, number)
    return root


def refusal(study: Study) -> str:
    with pytest.raises(DataError) as caught:
        adapters.load(study)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def splits_of(manifest: Manifest) -> dict[str, str]:
    return dict(manifest.frame[["image_id", "split"]].itertuples(index=False))
