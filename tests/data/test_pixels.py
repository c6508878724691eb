"""The pixel cache: row by row what the one decoder gives, read-only, and only what is in a split."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scanbook import store
from scanbook.data import images, pixels
from scanbook.data.manifest import Manifest
from scanbook.errors import ImageError

SPLITS = ["train", "validation", "", "test", "train", ""]


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Six images of different sizes, one of them broken and in no split, three with masks."""
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    rng = np.random.default_rng(0)
    rows, digest = [], hashlib.sha256()
    for number, split in enumerate(SPLITS):
        pixel = rng.integers(0, 256, (20 + 7 * number, 40 - 3 * number, 3), np.uint8)
        data = b"broken" if number == 2 else images.encode_png(pixel)
        (tmp_path / f"{number}.png").write_bytes(data)
        digest.update(data)
        mask = ""
        if number in (0, 3, 5):
            mask = str(tmp_path / f"{number}_mask.png")
            Path(mask).write_bytes(images.encode_png(np.where(pixel[..., 0] > 128, 255, 0).astype(np.uint8)))
        rows.append((f"i{number}", str(tmp_path / f"{number}.png"), "a", f"g{number}", mask, split))
    columns = ["image_id", "path", "label", "group", "mask_path", "split"]
    return Manifest("mini", pd.DataFrame(rows, columns=columns), ("a", "b"), {"data": digest.hexdigest()})


def test_every_row_is_what_the_decoder_gives(manifest: Manifest) -> None:
    cached = pixels.load(manifest, (24, 32))
    assert cached.shape == (6, 24, 32, 3) and cached.dtype == np.uint8
    for row, (path, split) in enumerate(zip(manifest.frame["path"], manifest.frame["split"], strict=True)):
        expected = images.load(Path(path), (24, 32)) if split else np.zeros((24, 32, 3))
        assert np.array_equal(cached[row], expected)
    assert cached[0].any() and not cached[2].any() and not cached[5].any()


def test_masks_are_true_where_bright_and_absent_where_there_is_none(manifest: Manifest) -> None:
    cached, filled = pixels.masks(manifest, (24, 32))
    assert cached.shape == (6, 24, 32) and cached.dtype == bool
    for row in (0, 3):
        assert np.array_equal(cached[row], images.load_mask(Path(manifest.frame["mask_path"][row]), (24, 32)))
        assert 0.2 < cached[row].mean() < 0.8
    assert not cached[[1, 2, 4, 5]].any(), "no mask, or in no split"
    assert np.array_equal(filled, cached.any((1, 2)))


def test_a_mask_that_cannot_be_decoded_is_none(manifest: Manifest, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    rows = manifest.frame["mask_path"] != ""
    frame = manifest.frame.assign(mask_path=manifest.frame["mask_path"].mask(rows, str(broken)))
    cached, filled = pixels.masks(manifest.with_frame(frame), (24, 32))
    assert not cached.any() and not filled.any()


def test_the_arrays_are_memory_mapped_and_read_only(manifest: Manifest) -> None:
    for cached in (pixels.load(manifest, (24, 32)), pixels.masks(manifest, (24, 32))[0]):
        assert isinstance(cached, np.memmap) and not cached.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            cached[0, 0, 0] = 1


def test_decoded_once_for_a_size_and_content(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pixels.load(manifest, (24, 32))
    decoded: list[Path] = []
    load = images.load
    monkeypatch.setattr(images, "load", lambda path, size: decoded.append(path) or load(path, size))
    assert np.array_equal(pixels.load(manifest, (24, 32)), first) and not decoded
    pixels.load(manifest, (16, 16))
    assert len(decoded) == 4
    changed = Manifest(manifest.name, manifest.frame, manifest.classes, {"data": "other images"})
    pixels.load(changed, (24, 32))
    assert len(decoded) == 8


def test_a_file_that_broke_since_is_one_line_and_leaves_nothing(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "3.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"3\.png cannot be decoded"):
        pixels.load(manifest, (24, 32))
    assert not [path for path in (tmp_path / "store").rglob("*") if path.suffix == ".npy"]


def test_a_dataset_without_masks_has_none(manifest: Manifest) -> None:
    cached, filled = pixels.masks(manifest.with_frame(manifest.frame.assign(mask_path="")), (24, 32))
    assert not cached.any() and not filled.any()


def test_the_stage_names_its_inputs(manifest: Manifest) -> None:
    folder = Path(pixels.load(manifest, (24, 32)).filename).parent
    assert folder.parent.name == "pixels" and store.seconds(folder) >= 0
    assert manifest.fingerprint(splits=False) in (folder / store.INPUTS).read_text()
