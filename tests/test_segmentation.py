"""Segmentation: known overlaps give known scores, planted discs are found, and nothing is hidden by mistake."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from scanbook import pixels, segmentation, splits, study
from scanbook.manifest import Manifest
from scanbook.segmentation import METHODS, dice, iou
from scanbook.segmentation.masks import clean

SIDE = 96


def disc(x: float = 0.1, y: float = -0.1, radius: float = 0.35, side: int = SIDE) -> np.ndarray:
    rows, columns = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.hypot(columns - x, rows - y) < radius


def lesion(mask: np.ndarray, noise: float = 6.0, vignette: bool = False) -> np.ndarray:
    """A brown patch on skin, with noise, and dark corners where asked."""
    skin, brown = np.array([224, 178, 158.0]), np.array([120, 72, 52.0])
    image = np.where(mask[..., None], brown, skin) + np.random.default_rng(0).normal(0, noise, (*mask.shape, 3))
    if vignette:
        rows, columns = np.mgrid[-1 : 1 : mask.shape[0] * 1j, -1 : 1 : mask.shape[1] * 1j]
        image[np.hypot(rows, columns) > 1.15] = 8
    return image.clip(0, 255).astype(np.uint8)


def make_manifest(masks: list[str], parts: list[str]) -> Manifest:
    names = [f"i{number}" for number in range(len(parts))]
    frame = pd.DataFrame({"image_id": names, "path": "", "label": "a", "group": names, "mask_path": masks})
    return Manifest("mini", frame.assign(part=parts), ("a", "b"), {"data": "segmentation"})


def test_scores_of_known_overlaps() -> None:
    truth = np.zeros((5, 10, 10), bool)
    found = truth.copy()
    truth[0, :4, :5] = found[0, :4, :5] = True  # the same
    truth[1, :2], found[1, 5:7] = True, True  # apart
    truth[2, :2], found[2, 1:3] = True, True  # half of each: overlap 10, union 30
    truth[3, :4], found[3, :2] = True, True  # found is half of the truth: overlap 20, union 40
    assert dice(truth, found).tolist() == pytest.approx([1, 0, 1 / 2, 2 / 3, 1])
    assert iou(truth, found).tolist() == pytest.approx([1, 0, 1 / 3, 1 / 2, 1])


@given(arrays.arrays(bool, (3, 6, 7)), arrays.arrays(bool, (3, 6, 7)))
@settings(max_examples=50, deadline=None)
def test_scores_agree_with_each_other_and_with_counting(first: np.ndarray, second: np.ndarray) -> None:
    d, j = dice(first, second), iou(first, second)
    assert np.array_equal(d, dice(second, first)) and np.array_equal(j, iou(second, first))
    np.testing.assert_allclose(d, 2 * j / (1 + j))
    for index in range(3):
        a, b = (set(np.flatnonzero(mask[index])) for mask in (first, second))
        assert j[index] == pytest.approx(len(a & b) / len(a | b) if a | b else 1)


def test_scores_are_of_the_images_of_a_part_that_have_a_mask() -> None:
    manifest = make_manifest(["m", "", "m", "m", "m"], ["test", "test", "train", "test", ""])
    truth = np.stack([disc(radius=radius) for radius in (0.2, 0.3, 0.4, 0.5, 0.6)])
    table = segmentation.scores(manifest, truth, {"same": truth, "none": np.zeros_like(truth)}, "test")
    assert table["row"].tolist() == [0, 3, 0, 3] and table["image_id"].tolist() == ["i0", "i3"] * 2
    assert table["method"].tolist() == ["same", "same", "none", "none"]
    assert table["dice"].tolist() == table["iou"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("vignette", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_planted_dark_disc_is_found(method: str, vignette: bool) -> None:
    truth = disc()
    image = cv2.medianBlur(lesion(truth, vignette=vignette), 5)
    found = METHODS[method](image)
    assert np.array_equal(found, METHODS[method](image)), "the same image, the same mask"
    assert dice(truth[None], clean(found)[None])[0] > 0.95


@pytest.mark.parametrize("background", [200, 255])
@pytest.mark.parametrize("radius", [0.25, 0.5])
@pytest.mark.parametrize("method", METHODS)
def test_a_disc_on_an_even_background_is_found(method: str, radius: float, background: int) -> None:
    truth = disc(0, 0, radius)
    image = np.where(truth[..., None], np.array([90, 60, 50]), background).astype(np.uint8)
    assert np.array_equal(METHODS[method](image), truth)


def test_kmeans_takes_the_darker_cluster_whichever_is_larger() -> None:
    large = disc(0, 0, 0.9)
    found = METHODS["k-means RGB"](lesion(large, noise=2))
    assert large.mean() > 0.5 and np.array_equal(found, large)


@pytest.mark.parametrize("level", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("method", METHODS)
def test_a_blank_image_hides_nothing(method: str, level: int) -> None:
    assert clean(METHODS[method](np.full((SIDE, SIDE, 3), level, np.uint8))).all()


def test_cleaning_drops_corners_and_specks_and_fills_holes() -> None:
    truth = disc(0, 0, 0.45)
    dirty = truth.copy()
    dirty[40:46, 40:46] = False  # a hole
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    dirty |= np.hypot(rows, columns) > 1.1  # dark corners
    dirty[10:12, 46:48] = True  # a speck
    dirty[:, 80] = True  # a hair
    found = clean(dirty)
    assert dice(truth[None], found[None])[0] > 0.97
    assert found[40:46, 40:46].all() and not found[0, 0] and not found[-1, -1] and not found[10:12, 46:48].any()


def test_cleaning_prefers_the_central_of_two_and_keeps_one_piece() -> None:
    central, aside = disc(0, 0, 0.25), disc(0.62, 0.0, 0.2)
    found = clean(central | aside)
    assert dice(central[None], found[None])[0] > 0.97 and not (found & aside).any()


@given(arrays.arrays(bool, (32, 40), elements=st.booleans()))
@settings(max_examples=30, deadline=None)
def test_cleaning_never_leaves_an_empty_mask_and_is_one_filled_piece(mask: np.ndarray) -> None:
    found = clean(mask)
    assert found.dtype == bool and found.any()
    pieces, _ = cv2.connectedComponents(found.astype(np.uint8))
    assert pieces == 2


def test_nothing_found_hides_nothing() -> None:
    assert clean(np.zeros((32, 40), bool)).all()


@pytest.fixture(scope="module")
def drawn() -> tuple[Manifest, np.ndarray]:
    manifest = splits.prepare(study.load("drawn", "smoke"))
    return manifest, pixels.load(manifest, (64, 64))


def test_drawn_lesions_are_found_far_better_than_by_chance(drawn: tuple[Manifest, np.ndarray]) -> None:
    manifest, images = drawn
    truth = pixels.masks(manifest, (64, 64))
    found = {method: segmentation.segment(manifest, images, method) for method in METHODS}
    found["the whole image"] = np.ones(images.shape[:3], bool)
    table = pd.concat([segmentation.scores(manifest, truth, found, part) for part in ("train", "validation", "test")])
    mean = table.groupby("method")["dice"].mean()
    assert mean[list(METHODS)].min() > 0.7 > mean["the whole image"] + 0.1, mean


def test_segments_and_cut_outs_cover_the_images_in_a_part(drawn: tuple[Manifest, np.ndarray]) -> None:
    manifest, images = drawn
    parts = manifest.frame["part"].copy()
    parts.iloc[:3] = ""
    fewer = manifest.with_frame(manifest.frame.assign(part=parts))
    used = (parts != "").to_numpy()
    masks = segmentation.segment(fewer, images, "Otsu")
    assert masks.dtype == bool and masks.shape == images.shape[:3] and not masks[~used].any()
    assert masks[used].any((1, 2)).all()
    with pytest.raises(ValueError, match="read-only"):
        masks[0, 0, 0] = True
    cut = segmentation.cut_outs(fewer, images, masks)
    assert np.array_equal(cut[used][masks[used]], images[used][masks[used]])
    assert (cut[used][~masks[used]] == 255).all() and not cut[~used].any()
    row = int(np.flatnonzero(used)[0])
    assert np.array_equal(masks[row], clean(METHODS["Otsu"](cv2.medianBlur(np.asarray(images[row]), 5))))


def test_segmenting_twice_reads_the_store(drawn: tuple[Manifest, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, images = drawn
    first = segmentation.segment(manifest, images, "k-means Lab")

    def never(_: np.ndarray) -> np.ndarray:
        raise AssertionError("computed again")

    monkeypatch.setitem(METHODS, "k-means Lab", never)
    again = segmentation.segment(manifest, images, "k-means Lab")
    assert np.array_equal(first, again) and Path(first.filename) == Path(again.filename)
