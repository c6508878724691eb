"""The synthetic dataset: `truth.json` is true of the files, and nothing but the lesions depends on the class."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

from scanbook.data.adapters.synthetic import dataset, dermoscopy, faults, lesion
from tools import pretraining_images as pretraining

IMAGES, SIZE = 64, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic")
    dataset.write(path, IMAGES, seed=7, size=SIZE, workers=2)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many")
    dataset.write(path, 301, seed=3, size=32)
    return path


@pytest.fixture(scope="module")
def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "metadata.csv").set_index("image_id", drop=False)


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict:
    return json.loads((folder / "truth.json").read_text())


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def _image(folder: Path, name: str) -> np.ndarray:
    return cv2.imread(str(folder / "images" / f"{name}.jpg"))


def _sharpness(image: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.CV_64F).var())


# Probabilities


def test_posterior_is_bayes_rule_on_the_densities_that_are_sampled() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 20_000)
    latent = dermoscopy.sample_latent(labels, rng)
    points = latent[::2000]
    joint = np.stack(
        [
            prior * multivariate_normal(latent[labels == k].mean(0), np.cov(latent[labels == k].T)).pdf(points)
            for k, prior in enumerate(dermoscopy.PRIORS)
        ],
        axis=1,
    )
    assert np.abs(dermoscopy.posterior(points) - joint / joint.sum(1, keepdims=True)).max() < 0.05


def test_bayes_accuracy_is_what_the_bayes_rule_gets() -> None:
    best = dermoscopy.bayes_accuracy()
    assert 0.88 < best.value < 0.92
    assert 0 < best.standard_error < 0.001
    rng = np.random.default_rng(123)
    labels = rng.choice(5, 100_000, p=dermoscopy.PRIORS)
    hits = dermoscopy.posterior(dermoscopy.sample_latent(labels, rng)).argmax(1) == labels
    assert abs(hits.mean() - best.value) < 4 * np.hypot(hits.std() / np.sqrt(hits.size), best.standard_error)


def test_no_class_is_hopeless_or_certain() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(5), 10_000)
    hits = dermoscopy.posterior(dermoscopy.sample_latent(labels, rng)).argmax(1) == labels
    recall = hits.reshape(5, -1).mean(1)
    assert ((recall > 0.8) & (recall < 0.97)).all()


# Images


def test_render_depends_on_its_arguments_alone() -> None:
    latent = np.zeros(9)
    first, mask = dermoscopy.render(latent, 1, 2, 96)
    again, same = dermoscopy.render(latent, 1, 2, 96)
    assert first.shape == (96, 96, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and np.array_equal(mask, same)
    for other in (dermoscopy.render(latent, 3, 2, 96), dermoscopy.render(latent, 1, 3, 96)):
        assert not np.array_equal(first, other[0]) and not np.array_equal(mask, other[1])


def test_lesions_are_in_single_precision() -> None:
    synthetic = lesion.build_lesion(dermoscopy.appearance_of(np.full(9, 1.0)), np.random.default_rng(0), 48)
    assert synthetic.pigment.dtype == synthetic.overlay.dtype == np.float32  # double would halve the speed


@pytest.mark.parametrize("component", range(9), ids=dermoscopy.LATENT)
def test_each_latent_component_shows(component: int) -> None:
    """Far more than the sensor's noise and JPEG do, in every lesion, when it goes from rare to common."""
    for seed in range(2):
        low, high = np.zeros(9), np.zeros(9)
        low[component], high[component] = -1.0, 2.0
        before, mask = dermoscopy.render(low, seed, seed, 128)
        after, other = dermoscopy.render(high, seed, seed, 128)
        inside = (mask > 0) & (other > 0)
        stored = cv2.imdecode(cv2.imencode(".jpg", before, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_COLOR)
        floor = np.square(stored[inside].astype(float) - before[inside]).mean()
        assert np.square(after[inside].astype(float) - before[inside]).mean() > 2.5 * floor
    if dermoscopy.LATENT[component] == "irregularity":
        assert (mask != other).mean() > 0.02


def test_nuisance_is_independent_of_the_lesion() -> None:
    """Outside the lesions nothing changes with the class: not the skin, pose, light, hairs or camera."""
    kernel = np.ones((9, 9), np.uint8)
    latent = dermoscopy.sample_latent(np.arange(5), np.random.default_rng(2))
    for view in range(3):
        rendered = [dermoscopy.render(z, 10 + k, view, 96) for k, z in enumerate(latent)]
        outside = cv2.dilate(np.max([mask for _, mask in rendered], axis=0), kernel) == 0
        assert outside.mean() > 0.1
        for image, _ in rendered[1:]:
            assert np.abs(image[outside].astype(int) - rendered[0][0][outside]).max() <= 1


def test_mask_is_where_the_lesion_is() -> None:
    """A dark, plain lesion found by Otsu's threshold is the mask; every mask is one lesion of a sensible area."""
    dark = np.array([-1.5, -2, 2.0, -2, -2, -3, -3, -3, -1])
    for seed in range(4):
        synthetic = lesion.build_lesion(dermoscopy.appearance_of(dark), np.random.default_rng(seed), 128)
        image, mask = lesion.photograph(synthetic, lesion.Skin(0.1, 0.1, 0.0), np.random.default_rng(seed), 128)
        x, y = np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 128))
        middle = x * x + y * y < 0.9
        level, _ = cv2.threshold(image[..., 1][middle].reshape(1, -1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        thresholded = (image[..., 1] <= level) & middle
        truth = mask > 0
        assert (thresholded & truth).sum() / (thresholded | truth).sum() > 0.75
    rng = np.random.default_rng(0)
    for seed, latent in enumerate(dermoscopy.sample_latent(rng.integers(0, 5, 30), rng)):
        _, mask = dermoscopy.render(latent, seed, seed, 64)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.08 < (mask > 0).mean() < 0.65
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
        assert stats[1:, cv2.CC_STAT_AREA].max() > 0.97 * (mask > 0).sum()


def test_views_of_one_lesion_share_its_outline() -> None:
    latent = np.array([1.5, 0, 0, 0, 0, 0, 0, 0, 0])

    def roundness(lesion_seed: int, view_seed: int) -> float:
        mask = dermoscopy.render(latent, lesion_seed, view_seed, 192)[1]
        contour = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=cv2.contourArea)
        return cv2.contourArea(contour) / cv2.contourArea(cv2.convexHull(contour))

    by_lesion = np.array([[roundness(shape, view) for view in range(3)] for shape in range(4)])
    assert by_lesion.std(axis=1).max() < 0.02 < by_lesion.mean(axis=1).std()


def test_a_lesion_looks_alike_at_every_size() -> None:
    latent = dermoscopy.sample_latent(np.arange(5), np.random.default_rng(1))
    for seed, z in enumerate(latent[::2]):
        small, small_mask = dermoscopy.render(z, seed, seed, 64)
        large, large_mask = dermoscopy.render(z, seed, seed, 256)
        shrunk = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.93
        assert abs((small_mask > 0).mean() - (large_mask > 0).mean()) < 0.02


# The dataset's files


def test_same_arguments_same_bytes_whatever_the_workers(folder: Path, tmp_path: Path) -> None:
    dataset.write(tmp_path / "again", IMAGES, seed=7, size=SIZE, workers=1)
    dataset.write(tmp_path / "other", IMAGES, seed=8, size=16)
    assert _files(tmp_path / "again") == _files(folder)
    assert _files(tmp_path / "other").keys() != _files(folder).keys()


def test_table_lists_exactly_the_files(folder: Path, table: pd.DataFrame, truth: dict) -> None:
    assert len(table) == IMAGES == table["image_id"].nunique()
    assert {path.stem for path in (folder / "images").iterdir()} == set(table.index)
    assert {path.stem for path in (folder / "masks").iterdir()} == set(table.index) == set(truth["posterior"])
    assert all(re.fullmatch(r"DRW_\d{6}", name) for name in table.index)
    assert set(table["diagnosis"]) == set(dermoscopy.CLASSES) == set(truth["classes"])
    assert 1 <= table["age"].isna().sum() < IMAGES / 4
    assert table["age"].dropna().between(5, 90).all()
    assert set(table["site"]) <= set(dataset.SITES) and set(table["sex"]) == {"female", "male"}


@pytest.mark.parametrize("images", [1, 39, 40])
def test_any_number_of_images(tmp_path: Path, images: int) -> None:
    dataset.write(tmp_path, images, seed=0, size=16)
    faults = json.loads((tmp_path / "truth.json").read_text())["faults"]
    assert len(pd.read_csv(tmp_path / "metadata.csv")) == images == len(list((tmp_path / "images").iterdir()))
    assert all(bool(members) == (images >= 40) for members in faults.values())


def test_patients_have_lesions_and_lesions_have_views(table: pd.DataFrame, truth: dict) -> None:
    copies = {
        copy
        for kind in ("exact_duplicates", "near_duplicates", "conflicting_labels")
        for copy, _ in truth["faults"][kind]
    }
    own = table[~table.index.isin(copies)]
    assert own.groupby("lesion_id")["patient_id"].nunique().eq(1).all()
    assert own.groupby("lesion_id")["diagnosis"].nunique().eq(1).all()
    assert own.groupby("patient_id")["age"].nunique().le(1).all()
    for counts in (own.groupby("lesion_id").size(), own.groupby("patient_id")["lesion_id"].nunique()):
        assert counts.max() in (2, 3) and counts.min() == 1


@pytest.mark.parametrize(("count", "digits"), [(90_000, 5), (130_000, 6)])
def test_there_are_enough_numbers_for_every_lesion(count: int, digits: int) -> None:
    numbers = dataset._distinct_numbers(np.random.default_rng(0), 100_000, count)
    assert len(set(numbers.tolist())) == count and len(str(numbers.max())) == digits


def test_rows_and_names_say_nothing_of_the_class(many: Path) -> None:
    table = pd.read_csv(many / "metadata.csv")
    codes = pd.Categorical(table["diagnosis"], categories=dermoscopy.CLASSES).codes
    spread = 4 / np.sqrt(len(table))
    for column in (table.index.to_numpy(), *(table[name].str[4:].astype(int) for name in ("image_id", "lesion_id"))):
        for k in range(5):
            assert abs(np.corrcoef(column, codes == k)[0, 1]) < spread
    shares = table["diagnosis"].value_counts(normalize=True)[list(dermoscopy.CLASSES)]
    assert np.abs(shares.to_numpy() - np.array(dermoscopy.PRIORS)).max() < 0.06
    assert (table["patient_id"].to_numpy()[1:] == table["patient_id"].to_numpy()[:-1]).mean() < 0.05


def test_demographics_do_not_affect_the_images(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infants = dict.fromkeys(dermoscopy.CLASSES, (5, 0, 1.0, (1.0, 0, 0, 0, 0, 0)))
    monkeypatch.setattr(dataset, "DEMOGRAPHICS", infants)
    dataset.write(tmp_path, IMAGES, seed=7, size=SIZE)
    redrawn = _files(tmp_path)
    changed = {name for name, data in _files(folder).items() if redrawn[name] != data}
    assert changed == {"metadata.csv"}


def test_posteriors_agree_with_the_labels(table: pd.DataFrame, truth: dict) -> None:
    names = list(table.index)
    posterior = np.array([truth["posterior"][name] for name in names])
    assert np.allclose(posterior.sum(1), 1, atol=3e-4)
    chosen = np.array(dermoscopy.CLASSES)[posterior.argmax(1)]
    assert (chosen == table["diagnosis"]).mean() > 0.75
    assert truth["bayes_accuracy"] == pytest.approx(dermoscopy.bayes_accuracy().value, abs=1e-5)


# Planted faults


def test_unreadable_images_do_not_decode_and_the_others_do(folder: Path, table: pd.DataFrame, truth: dict) -> None:
    undecodable = {name for name in table.index if _image(folder, name) is None}
    assert undecodable == set(truth["faults"]["unreadable"])
    sizes = [(folder / "images" / f"{name}.jpg").stat().st_size for name in undecodable]
    assert min(sizes) == 0 < max(sizes)


def test_dark_and_blurred_images_stand_out(folder: Path, table: pd.DataFrame, truth: dict) -> None:
    faults = truth["faults"]
    images = {name: _image(folder, name) for name in table.index if name not in faults["unreadable"]}
    normal = set(images) - set(faults["dark"]) - set(faults["blurred"])
    assert max(images[name].mean() for name in faults["dark"]) < 10 < min(images[name].mean() for name in normal) / 3
    assert (
        max(_sharpness(images[name]) for name in faults["blurred"])
        < min(_sharpness(images[name]) for name in normal) / 3
    )


def test_exact_duplicates_cross_patients(folder: Path, table: pd.DataFrame, truth: dict) -> None:
    assert truth["faults"]["exact_duplicates"]
    for copy, source in truth["faults"]["exact_duplicates"]:
        assert (folder / "images" / f"{copy}.jpg").read_bytes() == (folder / "images" / f"{source}.jpg").read_bytes()
        assert table.loc[copy, "patient_id"] != table.loc[source, "patient_id"]
        assert table.loc[copy, "diagnosis"] == table.loc[source, "diagnosis"]


def test_one_pair_has_conflicting_labels(folder: Path, table: pd.DataFrame, truth: dict) -> None:
    ((copy, source),) = truth["faults"]["conflicting_labels"]
    assert (folder / "images" / f"{copy}.jpg").read_bytes() == (folder / "images" / f"{source}.jpg").read_bytes()
    assert table.loc[copy, "diagnosis"] != table.loc[source, "diagnosis"]
    by_content = table.groupby([(folder / "images" / f"{name}.jpg").read_bytes() for name in table.index])["diagnosis"]
    assert (by_content.nunique() > 1).sum() == 1


def test_near_duplicates_show_the_same_picture_of_the_same_patient(many: Path) -> None:
    table = pd.read_csv(many / "metadata.csv").set_index("image_id")
    truth = json.loads((many / "truth.json").read_text())
    pairs, kinds = truth["faults"]["near_duplicates"], truth["near_duplicate_kinds"]
    assert list(kinds.values()) == list(faults.NEAR_DUPLICATES[:3])
    assert [copy for copy, _ in pairs] == list(kinds)
    for copy, source in pairs:
        undo = faults.ORIENTATIONS[INVERSE.get(kinds[copy], kinds[copy])]
        assert np.abs(undo(_image(many, copy)).astype(int) - _image(many, source)).mean() < 6
        masks = [cv2.imread(str(many / "masks" / f"{name}.png"), cv2.IMREAD_UNCHANGED) for name in (copy, source)]
        assert np.array_equal(undo(masks[0]), masks[1])
        assert (table.loc[copy] == table.loc[source]).drop("age").all()


INVERSE = {"rotated 90": "rotated 270", "rotated 270": "rotated 90"}


def _decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("how", faults.NEAR_DUPLICATES)
def test_near_duplicates_are_what_their_names_say(how: str, extension: str) -> None:
    rng = np.random.default_rng(3)
    picture = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
    mask = np.where(picture[..., 0] > 128, np.uint8(255), np.uint8(0))
    data, outline = faults.make_near_duplicate(how, picture, mask, np.random.default_rng(0), extension)
    copy, shown, expected = _decoded(data).astype(int), picture, mask
    if how in faults.ORIENTATIONS:
        undo = faults.ORIENTATIONS[INVERSE.get(how, how)]
        copy, outline = undo(copy), undo(outline)
    elif how == faults.HALF:
        shown = cv2.resize(picture, (40, 30), interpolation=cv2.INTER_AREA)
        expected = cv2.resize(mask, (40, 30), interpolation=cv2.INTER_NEAREST)
    elif how == faults.CROP:
        assert copy.shape == (57, 76, 3)
        places = [np.s_[top : top + 57, left : left + 76] for top in range(4) for left in range(5)]
        place = min(places, key=lambda window: np.abs(picture[window] - copy).mean())
        shown, expected = picture[place], mask[place]
    assert copy.shape == shown.shape
    assert np.abs(copy - shown).mean() < (0.01 if extension == ".png" and how != faults.JPEG_50 else 12)
    assert np.array_equal(outline, expected)
    assert data != faults.encode(picture, extension)
    assert faults.make_near_duplicate(how, picture, None, np.random.default_rng(0), extension) == (data, None)


def test_orientations_are_seven_and_crops_differ() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    turned = {name: turn(picture).tobytes() for name, turn in faults.ORIENTATIONS.items()}
    assert len({picture.tobytes(), *turned.values()}) == 8
    rng = np.random.default_rng(0)
    assert len({faults.make_near_duplicate(faults.CROP, picture, None, rng, ".png")[0] for _ in range(20)}) > 4
    with pytest.raises(ValueError, match="unknown near-duplicate 'sheared'"):
        faults.make_near_duplicate("sheared", picture, None, rng)


# Pretraining images


def test_pretraining_images_are_balanced_and_reproducible() -> None:
    count = 2 * len(pretraining.CLASSES)
    images, labels = pretraining.synthesise(count, 48, seed=4)
    assert images.shape == (count, 48, 48, 3) and images.dtype == np.uint8 and labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [2] * len(pretraining.CLASSES)
    fewer, _ = pretraining.synthesise(7, 48, seed=4)
    assert np.array_equal(fewer, images[:7])
    assert len({image.tobytes() for image in images}) == count
    assert images.std(axis=(1, 2, 3)).min() > 8
    assert not np.array_equal(pretraining.synthesise(7, 48, seed=5)[0], fewer)


def test_pretraining_classes_are_other_classes() -> None:
    assert len(set(pretraining.CLASSES)) == len(pretraining.CLASSES)
    assert not set(pretraining.CLASSES) & set(dermoscopy.CLASSES)
