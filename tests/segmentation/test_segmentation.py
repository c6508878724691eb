"""Classical segmentation: planted structures are found, validation selects the clean-up, scores follow the formulas."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from scanbook import config, segmentation
from scanbook.config import Study
from scanbook.data import images as decoding
from scanbook.data import pixels, splits
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError
from scanbook.segmentation import classical, masks
from scanbook.segmentation.classical import METHODS, segment_image
from scanbook.segmentation.cleaning import Cleaning, candidates, clean
from scanbook.segmentation.scores import dice, iou, surface_distances
from scanbook.store import fingerprint

SIDE = 96
PLAIN = Cleaning()


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


def overlap(expert: np.ndarray, predicted: np.ndarray) -> float:
    return float(dice(expert[None], predicted[None])[0])


def planted(folder: Path, outlines: dict[str, list[np.ndarray]], cores: list[np.ndarray] | None = None) -> Manifest:
    """Files of lesions and of experts' masks: `outlines` by split, on images of the lesions `cores`, else of these."""
    rows = []
    masks_by_split = [(split, mask) for split, split_masks in outlines.items() for mask in split_masks]
    for index, (split, mask) in enumerate(masks_by_split):
        image = lesion(mask if cores is None else cores[index])
        for name, picture in (("image", image), ("mask", mask.astype(np.uint8) * 255)):
            (folder / f"{name}{index}.png").write_bytes(decoding.encode_png(picture))
        paths = str(folder / f"image{index}.png"), str(folder / f"mask{index}.png")
        rows.append((f"i{index}", paths[0], "ab"[index % 2], f"g{index}", paths[1], split))
    frame = pd.DataFrame(rows, columns=["image_id", "path", "label", "group", "mask_path", "split"])
    return Manifest(
        "planted", frame, ("a", "b"), {"data": fingerprint(*(mask.tobytes() for _, mask in masks_by_split))}
    )


def plan(**changes: object) -> Study:
    chosen = {"methods": ["k-means RGB", "Otsu"]} | changes
    values = {"study": "planted", "title": "t", "question": "q?", "dataset": {"adapter": "folder"}}
    return Study.model_validate(values | {"backbones": ["baseline_cnn"], "image_size": SIDE, "segmentation": chosen})


# --- scores


def test_scores_of_known_overlaps() -> None:
    truth = np.zeros((5, 10, 10), bool)
    predicted = truth.copy()
    truth[0, :4, :5] = predicted[0, :4, :5] = True  # the same
    truth[1, :2], predicted[1, 5:7] = True, True  # apart
    truth[2, :2], predicted[2, 1:3] = True, True  # half of each: overlap 10, union 30
    truth[3, :4], predicted[3, :2] = True, True  # found is half of the truth: overlap 20, union 40
    assert dice(truth, predicted).tolist() == pytest.approx([1, 0, 1 / 2, 2 / 3, 1])
    assert iou(truth, predicted).tolist() == pytest.approx([1, 0, 1 / 3, 1 / 2, 1])


@given(arrays.arrays(bool, (3, 6, 7)), arrays.arrays(bool, (3, 6, 7)))
@settings(max_examples=20, deadline=None)
def test_overlaps_agree_with_each_other_and_with_counting(first: np.ndarray, second: np.ndarray) -> None:
    d, j = dice(first, second), iou(first, second)
    assert np.array_equal(d, dice(second, first)) and np.array_equal(j, iou(second, first))
    np.testing.assert_allclose(d, 2 * j / (1 + j))
    for index in range(3):
        a, b = (set(np.flatnonzero(mask[index])) for mask in (first, second))
        assert j[index] == pytest.approx(len(a & b) / len(a | b) if a | b else 1)


def test_surface_distances_of_squares_are_known() -> None:
    truth = np.zeros((60, 80), bool)  # diagonal: 100
    truth[20:40, 20:40] = True
    assert surface_distances(truth, truth) == (0, 0)
    smaller = np.zeros_like(truth)
    smaller[22:38, 22:38] = True  # 2 pixels in; from the larger's corners it is 2 √2
    average, farthest = surface_distances(truth, smaller)
    assert 2 < average < 2 * np.sqrt(2) and farthest == pytest.approx(2 * np.sqrt(2), abs=0.7)
    moved = np.roll(truth, 30, axis=1)
    assert surface_distances(truth, moved)[1] > 25
    nothing = np.zeros_like(truth)
    assert surface_distances(nothing, nothing) == (0, 0)
    assert surface_distances(truth, nothing) == surface_distances(nothing, truth) == (100, 100)


@given(arrays.arrays(bool, (9, 12)), arrays.arrays(bool, (9, 12)))
@settings(max_examples=25, deadline=None)
def test_surface_distances_agree_with_all_pairs_of_pixels(first: np.ndarray, second: np.ndarray) -> None:
    def outline(mask: np.ndarray) -> np.ndarray:
        inner = np.pad(mask, 1)
        inside = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        return np.argwhere(mask & ~inside)

    computed = surface_distances(first, second)
    assert computed == pytest.approx(surface_distances(second, first))
    if first.any() and second.any():
        distances = np.linalg.norm(outline(first)[:, None] - outline(second)[None], axis=-1)
        there, back = distances.min(1), distances.min(0)
        assert computed[0] == pytest.approx(100 / 15 * np.concatenate([there, back]).mean())
        assert computed[1] == pytest.approx(100 / 15 * max(np.percentile(there, 95), np.percentile(back, 95)))


def test_scores_are_of_the_images_of_a_split_that_have_a_mask() -> None:
    splits = ["test", "test", "train", "test", ""]
    frame = pd.DataFrame({"image_id": list("uvwxy"), "path": "", "label": "a", "group": list("uvwxy")})
    manifest = Manifest("mini", frame.assign(mask_path="", split=splits), ("a", "b"))
    truth = np.stack([disc(radius=radius) for radius in (0.2, 0.3, 0.4, 0.5, 0.6)])
    known, ours = np.array([True, False, True, True, True]), truth[[0, 1, 3]]
    table = segmentation.scores(manifest, "test", truth, known, {"same": ours, "none": np.zeros_like(ours)})
    assert table["row"].tolist() == [0, 3, 0, 3] and table["place"].tolist() == [0, 2, 0, 2]
    assert table["image_id"].tolist() == ["u", "x"] * 2 and table["method"].tolist() == ["same"] * 2 + ["none"] * 2
    assert table["dice"].tolist() == table["iou"].tolist() == [1, 1, 0, 0]
    assert table["surface_distance"].tolist() == [0, 0, 100, 100]
    tuned = pd.DataFrame({"dice": [0.2, 0.9]}, index=["none", "same"])
    gap = segmentation.gaps(table, tuned)
    assert gap["pair"].unique().tolist() == ["same − none"] and gap["gap"].tolist() == [1, 1]
    shown = segmentation.examples(manifest, table, "none")
    assert sorted(shown["place"]) == [0, 2] and set(shown["caption"]) == {"Dice 0.00"}
    nothing = segmentation.scores(manifest, "test", truth, np.zeros(5, bool), {"same": ours})
    assert len(nothing) == 0 and segmentation.examples(manifest, nothing, "same")["caption"].tolist() == list("uvx")


# --- methods


@pytest.mark.parametrize("vignette", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_planted_dark_disc_is_found(method: str, vignette: bool) -> None:
    truth = disc()
    image = lesion(truth, vignette=vignette)
    predicted = segment_image(image, method, "lesion")
    assert np.array_equal(predicted, segment_image(image, method, "lesion")), "the same image, the same mask"
    assert overlap(truth, clean(predicted, "lesion", PLAIN)) > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_kmeans_and_others_take_the_dark_side_whichever_is_larger(method: str) -> None:
    large = disc(0, 0, 0.8)
    assert large.mean() > 0.4 and overlap(large, segment_image(lesion(large, noise=2), method, "lesion")) > 0.97


@pytest.mark.parametrize("structure", classical.STRUCTURES)
@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_found_in_a_blank_image(method: str, level: int, structure: str) -> None:
    predicted = segment_image(np.full((SIDE, SIDE, 3), level, np.uint8), method, structure)
    assert predicted.dtype == bool and not clean(predicted, structure, PLAIN).any()


@pytest.mark.parametrize("method", METHODS)
def test_the_bright_disc_of_a_fundus_is_found(method: str) -> None:
    truth = disc(0.05, 0, 0.8)
    image = np.where(truth[..., None], np.array([170, 90, 40]), 4) + np.random.default_rng(1).normal(0, 4, (96, 96, 3))
    image[disc(-0.2, 0, 0.12)] = 230  # the optic disc is brighter still
    predicted = segment_image(image.clip(0, 255).astype(np.uint8), method, "retina")
    assert overlap(truth, clean(predicted, "retina", PLAIN)) > 0.97


@pytest.mark.parametrize("open_arm", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_lungs_are_told_from_the_air_around_the_body(method: str, open_arm: bool) -> None:
    left, right = disc(-0.42, 0, 0.28), disc(0.42, 0, 0.28)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    image = np.full((SIDE, SIDE), 190.0)
    image[np.abs(columns) > 0.88] = 45  # air, as dark as the lungs
    image[left | right] = 60
    if open_arm:
        image[(np.abs(rows) < 0.04) & (columns > 0.6)] = 110  # a dim way from the lung to the air
    noisy = image + np.random.default_rng(2).normal(0, 5, image.shape)
    grey = np.repeat(noisy.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    predicted = clean(segment_image(grey, method, "lungs"), "lungs", PLAIN)
    assert overlap(left | right, predicted) > 0.93
    assert not predicted[:, :4].any() and not predicted[:, -4:].any()
    pieces, _ = cv2.connectedComponents(predicted.astype(np.uint8))
    assert pieces == 3


def test_hairs_are_painted_over_and_skin_is_left() -> None:
    truth = disc(0, 0, 0.4)
    bare = lesion(truth, noise=1)
    hairy = bare.copy()
    for x in (20, 45, 70):
        cv2.line(hairy, (x, 0), (x + 15, SIDE - 1), (30, 20, 15), 1)
    before, after = (np.abs(image.astype(int) - bare).mean() for image in (hairy, classical.remove_hairs(hairy)))
    assert after < before / 3
    assert np.abs(classical.remove_hairs(bare).astype(int) - bare).mean() < 1


# --- clean-up


def test_cleaning_drops_corners_and_specks_and_fills_holes() -> None:
    truth = disc(0, 0, 0.45)
    dirty = truth.copy()
    dirty[40:46, 40:46] = False  # a hole
    dirty[10:12, 46:48] = True  # a speck
    dirty[:, 80] = True  # a hair
    dirty[:14, :14] = True  # a dark corner
    predicted = clean(dirty, "lesion", PLAIN)
    assert overlap(truth, predicted) > 0.97
    assert predicted[40:46, 40:46].all() and not predicted[0, 0] and not predicted[10:12, 46:48].any()


def test_each_structure_keeps_its_own_components() -> None:
    central, aside, speck = disc(0, 0, 0.25), disc(0.68, 0.0, 0.28), disc(-0.7, -0.7, 0.06)
    both = central | aside | speck
    assert overlap(central, clean(both, "lesion", PLAIN)) > 0.97
    assert overlap(aside, clean(both, "retina", PLAIN)) > 0.95
    assert overlap(central | aside, clean(both, "lungs", PLAIN)) > 0.95
    assert overlap(aside, clean(aside | speck, "lungs", PLAIN)) > 0.95, "a speck is no second lung"


@given(arrays.arrays(bool, (32, 40), elements=st.booleans()), st.sampled_from(list(classical.STRUCTURES)))
@settings(max_examples=15, deadline=None)
def test_a_cleaned_mask_is_empty_or_has_as_many_pieces_as_the_structure(mask: np.ndarray, structure: str) -> None:
    for cleaning in candidates(structure, trained=False)[:2]:
        predicted = clean(mask, structure, cleaning)
        pieces, _ = cv2.connectedComponents(predicted.astype(np.uint8))
        assert predicted.dtype == bool and pieces - 1 <= (2 if structure == "lungs" else 1)


def test_clean_up_is_chosen_on_validation_and_not_on_test(tmp_path: Path) -> None:
    """Experts outline widely in training and validation, and narrowly in test: what is chosen is wide."""
    cores = [disc(0.05 * i, 0.03 * i, 0.3) for i in range(6)]
    wide = [disc(0.05 * i, 0.03 * i, 0.39) for i in range(6)]
    outlines = {"train": wide[:1] + cores[1:2], "validation": wide[2:4], "test": cores[4:]}
    manifest = planted(tmp_path, outlines, cores=cores)
    images = pixels.load(manifest, (SIDE, SIDE))
    tuned = segmentation.tune_all(plan(), manifest, images)
    assert tuned["growth"].tolist() == [0.045, 0.045] and tuned["images"].tolist() == [2, 2]
    assert tuned["dice"].min() > 0.95
    (tmp_path / "narrow").mkdir()
    narrow = planted(tmp_path / "narrow", outlines | {"validation": cores[2:4]}, cores=cores)
    assert segmentation.tune_all(plan(), narrow, images)["growth"].max() == 0


def test_without_masks_there_are_defaults_and_no_unet(tmp_path: Path) -> None:
    manifest = planted(tmp_path, {"train": [disc()], "validation": [disc()], "test": [disc()]})
    bare = manifest.with_frame(manifest.frame.assign(mask_path=""))
    images = pixels.load(bare, (SIDE, SIDE))
    chosen = plan(methods=["U-Net", "Otsu", "k-means Lab"])
    names, missing = segmentation.runnable_methods(chosen, bare)
    assert names == ["Otsu", "k-means Lab"] and "no masks to learn from" in missing["U-Net"]
    assert "Not run: U-Net, no masks to learn from" in segmentation.describe_methods(names, missing)
    tuned = masks.tune(chosen, bare, images, "Otsu")
    assert tuned.cleaning == candidates("lesion", trained=False)[0] and np.isnan(tuned.dice) and tuned.images == 0
    assert segmentation.choose_method(chosen, bare, images) == "Otsu"
    for changes in ({"methods": ["U-Net"]}, {"methods": ["Otsu", "U-Net"], "use": "U-Net"}):
        with pytest.raises(DataError, match="no masks to learn from; name mask_folder"):
            segmentation.runnable_methods(plan(**changes), bare)


def test_the_method_used_is_the_one_named_else_the_best_on_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = planted(tmp_path, {"train": [disc()], "validation": [disc()], "test": [disc()]})
    images = pixels.load(manifest, (SIDE, SIDE))
    monkeypatch.setitem(METHODS, "k-means RGB", lambda image, _: disc(-0.4, 0.4, 0.2))
    assert segmentation.choose_method(plan(), manifest, images) == "Otsu"
    assert segmentation.choose_method(plan(use="k-means RGB"), manifest, images) == "k-means RGB"


def test_a_broken_mask_counts_as_none(tmp_path: Path) -> None:
    manifest = planted(tmp_path, {"train": [disc()] * 2, "validation": [disc()] * 2, "test": [disc()] * 2})
    (tmp_path / "mask2.png").write_bytes(b"no image")
    images = pixels.load(manifest, (SIDE, SIDE))
    assert masks.tune(plan(), manifest, images, "Otsu").images == 1


# --- masks of a whole dataset


@pytest.fixture(scope="module")
def synthetic() -> tuple[Study, Manifest, np.ndarray]:
    chosen = config.load("synthetic", "smoke")
    manifest = splits.prepare(chosen)
    return chosen, manifest, pixels.load(manifest, (64, 64))


def test_synthetic_lesions_are_found_far_better_than_by_chance(synthetic: tuple[Study, Manifest, np.ndarray]) -> None:
    chosen, manifest, images = synthetic
    truth, known = segmentation.expert_masks(manifest, (64, 64))
    predicted = {method: segmentation.segment(chosen, manifest, images, method, "test") for method in METHODS}
    predicted["the whole image"] = np.ones((len(manifest.rows("test")), 64, 64), bool)
    mean = segmentation.scores(manifest, "test", truth, known, predicted).groupby("method")["dice"].mean()
    assert mean[list(METHODS)].min() > 0.75 > mean["the whole image"] + 0.1, mean


def test_masks_and_cut_outs_cover_the_images_of_every_split(synthetic: tuple[Study, Manifest, np.ndarray]) -> None:
    chosen, manifest, images = synthetic
    splits = manifest.frame["split"].copy()
    splits.iloc[:3] = ""
    fewer = manifest.with_frame(manifest.frame.assign(split=splits))
    used = (splits != "").to_numpy()
    predicted = segmentation.segment(chosen, fewer, images, "Otsu")
    assert predicted.dtype == bool and predicted.shape == images.shape[:3] and not predicted[~used].any()
    for split in ("train", "validation", "test"):
        one = segmentation.segment(chosen, fewer, images, "Otsu", split)
        assert np.array_equal(one, predicted[fewer.rows(split)])
    with pytest.raises(ValueError, match="read-only"):
        predicted[0, 0, 0] = True
    tuned = masks.tune(chosen, fewer, images, "Otsu").cleaning
    row = int(np.flatnonzero(used)[0])
    raw = segment_image(images[row], "Otsu", "lesion", tuned.hair_removal)
    assert np.array_equal(predicted[row], clean(raw, "lesion", tuned))
    some = used & predicted.any((1, 2))
    for background, colour in (("white", 255), ("black", 0)):
        cut = segmentation.cut_outs(fewer, images, predicted, background)
        assert np.array_equal(cut[some][predicted[some]], images[some][predicted[some]])
        assert (cut[some][~predicted[some]] == colour).all() and not cut[~used].any()


def test_segmenting_twice_reads_the_store(
    synthetic: tuple[Study, Manifest, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, manifest, images = synthetic
    first = segmentation.segment(chosen, manifest, images, "k-means Lab", "test")

    def never(*_: object) -> np.ndarray:
        raise AssertionError("computed again")

    monkeypatch.setattr(masks, "segment_image", never)
    again = segmentation.segment(chosen, manifest, images, "k-means Lab", "test")
    assert np.array_equal(first, again) and Path(first.filename) == Path(again.filename)
