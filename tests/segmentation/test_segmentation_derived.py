"""Derived datasets: a cut-out is the image inside a mask and the background outside; a crop is its box."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanbook import config, segmentation
from scanbook.config import Study
from scanbook.data import images as decoding
from scanbook.data import pixels, splits
from scanbook.data.manifest import Manifest
from scanbook.segmentation.derived import bounding_box, derive
from scanbook.segmentation.masks import cut_out

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Manifest, np.ndarray]:
    """Four images of 40 × 60 pixels with masks: a box, one with a broken expert mask, an empty one, one in no split."""
    draw, rows = np.random.default_rng(5), []
    masks = np.zeros((4, HEIGHT, WIDTH), bool)
    masks[:2, 10:30, 15:45] = masks[3, 10:30, 15:45] = True
    for index in range(4):
        paths = tmp_path / f"image{index}.png", tmp_path / f"mask{index}.png"
        paths[0].write_bytes(decoding.encode_png(draw.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)))
        paths[1].write_bytes(decoding.encode_png(masks[0].astype(np.uint8) * 255) if index != 1 else b"broken")
        split = ("train", "validation", "test", "")[index]
        rows.append((f"i{index}", str(paths[0]), "a", f"g{index}", str(paths[1]), split, 30 + index))
    frame = pd.DataFrame(rows, columns=["image_id", "path", "label", "group", "mask_path", "split", "age"])
    return Manifest("planted", frame, ("a", "b"), {"data": str(tmp_path), "grouped": True}), masks


def plan(**changes: object) -> Study:
    values = {"study": "planted", "title": "t", "question": "q?", "dataset": {"adapter": "folder"}}
    return Study.model_validate(values | {"backbones": ["baseline_cnn"]} | changes)


def picture(manifest: Manifest, row: int) -> np.ndarray:
    return decoding.read(Path(manifest.frame["path"].iloc[row]))


@pytest.mark.parametrize("background", ["white", "black", "mean"])
def test_a_cut_out_is_the_image_inside_and_the_background_outside(
    planted: tuple[Manifest, np.ndarray], background: str
) -> None:
    manifest, masks = planted
    chosen = plan(input="cutout", segmentation={"background": background})
    derived = derive(chosen, manifest, masks, "Otsu")
    before, after = picture(manifest, 0), picture(derived, 0)
    outside = {"white": 255, "black": 0, "mean": np.rint(before[~masks[0]].mean(0))}[background]
    assert np.array_equal(after[masks[0]], before[masks[0]]) and (after[~masks[0]] == outside).all()
    assert np.array_equal(picture(derived, 2), picture(manifest, 2)), "an empty mask hides nothing"
    truth, known = pixels.masks(derived, (HEIGHT, WIDTH))
    assert known.tolist() == [True, False, True, False] and np.array_equal(truth[0], masks[0])


def test_a_crop_is_the_masks_box_with_its_margin(planted: tuple[Manifest, np.ndarray]) -> None:
    manifest, masks = planted
    derived = derive(plan(input="crop", segmentation={"margin": 0.1}), manifest, masks, "Otsu")
    box = np.s_[8:32, 12:48]  # a tenth of 20 rows and of 30 columns on every side
    assert np.array_equal(picture(derived, 0), picture(manifest, 0)[box])
    expert = decoding.load_mask(Path(derived.frame["mask_path"].iloc[0]))
    assert np.array_equal(expert, masks[0][box])
    assert derived.frame["mask_path"].iloc[1] == "" and picture(derived, 2).shape == (HEIGHT, WIDTH, 3)


def test_a_derived_manifest_keeps_everything_but_the_files(planted: tuple[Manifest, np.ndarray]) -> None:
    manifest, masks = planted
    cut, crop = (derive(plan(input=name), manifest, masks, "Otsu") for name in ("cutout", "crop"))
    for derived in (cut, crop):
        columns = ["image_id", "label", "group", "split", "age"]
        pd.testing.assert_frame_equal(derived.frame[columns], manifest.frame[columns])
        assert derived.classes == manifest.classes and derived.facts["grouped"]
        assert derived.facts["method"] == "Otsu"
        assert derived.frame["path"].iloc[3] == manifest.frame["path"].iloc[3], "in no split, it stays as it was"
    assert (cut.facts["input"], crop.facts["input"]) == ("cutout", "crop")
    assert len({version.fingerprint() for version in (manifest, cut, crop)}) == 3
    assert derive(plan(input="crop"), manifest, masks, "Otsu").fingerprint() == crop.fingerprint()


@given(
    st.tuples(st.integers(0, 38), st.integers(1, 10)),
    st.tuples(st.integers(0, 58), st.integers(1, 10)),
    st.floats(0, 1),
)
@settings(max_examples=20, deadline=None)
def test_a_box_holds_its_mask_and_lies_in_the_image(
    rows: tuple[int, int], columns: tuple[int, int], margin: float
) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[rows[0] : rows[0] + rows[1], columns[0] : columns[0] + columns[1]] = True
    box = bounding_box(mask, margin)
    assert mask[box].sum() == mask.sum() and mask[box].size <= mask.size
    tight = bounding_box(mask, 0)
    assert mask[tight].all() and bounding_box(np.zeros_like(mask), margin) == np.s_[:, :]


def test_a_whole_or_empty_mask_hides_nothing() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for mask in (np.ones((4, 4), bool), np.zeros((4, 4), bool)):
        assert np.array_equal(cut_out(image, mask, "mean"), image)
    forms = segmentation.preview(image[None], np.eye(4, dtype=bool)[None], 0.0)[0]
    assert len(forms) == len(segmentation.FORMS) and np.array_equal(forms[0], forms[4])


def test_every_input_of_a_study_can_be_prepared() -> None:
    chosen = "segmentation.methods=[Otsu]"
    whole = segmentation.prepare(config.load("synthetic", "smoke", "", chosen))
    assert whole.fingerprint() == splits.prepare(config.load("synthetic", "smoke")).fingerprint()
    cut = config.load("synthetic", "smoke", "", f"{chosen} input=cutout segmentation.background=black")
    derived = segmentation.prepare(cut)
    images, original = pixels.load(derived, cut.size), pixels.load(whole, cut.size)
    assert derived.facts["method"] == "Otsu" and (derived.frame["split"] == whole.frame["split"]).all()
    rows = np.flatnonzero((whole.frame["split"] != "").to_numpy())
    black = (images[rows] == 0).all(-1).mean((1, 2))
    assert np.median(black) > 0.3 and (original[rows] == 0).all(-1).mean((1, 2)).max() < np.median(black)
