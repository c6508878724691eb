"""Stand-ins: the adapter of a dataset lists exactly the synthetic images that were written in its layout."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from scanbook import config
from scanbook.config import Study
from scanbook.data import adapters
from scanbook.data.adapters import stand_in
from scanbook.data.adapters.synthetic import clinical, faults
from scanbook.data.adapters.synthetic.kinds import KINDS, modality
from scanbook.data.adapters.synthetic.lesion import Skin
from scanbook.data.adapters.synthetic.plan import class_of, class_sizes
from scanbook.data.images import read
from scanbook.data.manifest import TEST, TRAIN, Manifest
from scanbook.errors import StudyError

STUDIES = ("dermnet", "melanoma", "chest_xray", "retinopathy", "skin11")


def stand_in_study(name: str, **stand_in_keys: int) -> Study:
    """The study on its stand-in, as small as in the smoke profile, and not sampled further."""
    small = config.load(name, "smoke")
    block = small.stand_in.model_copy(update={"size": 32, **stand_in_keys})
    return small.model_copy(update={"stand_in": block, "limit": None, "data": "", "on_stand_in": True})


@cache
def listed(name: str) -> Manifest:
    return adapters.load(stand_in_study(name))


def pixels_of(manifest: Manifest, name: str) -> np.ndarray:
    paths = manifest.frame.set_index("image_id")["path"]
    return cv2.imread(paths[name], cv2.IMREAD_UNCHANGED)


# Kinds of image


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_depends_on_its_seed_alone(kind: str) -> None:
    first, again, other = (KINDS[kind](np.random.default_rng(seed), 48, None) for seed in (1, 1, 2))
    grey = modality(kind) == "xray"
    assert first.image.shape == ((48, 48) if grey else (48, 48, 3)) and first.image.dtype == np.uint8
    assert first.mask.shape == (48, 48) and set(np.unique(first.mask)) <= {0, 255}
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)
    assert first.image.std() > 5
    assert bool(first.mask.any()) == (kind != "clinical_normal_skin")


def test_the_images_of_a_patient_share_the_skin() -> None:
    dark, fair = Skin(0.6, 0.1, 0.0), Skin(0.05, 0.1, 0.0)
    for seed in range(3):
        images = [KINDS["dermoscopy_benign"](np.random.default_rng(seed), 48, skin).image for skin in (dark, fair)]
        assert images[0].mean() < images[1].mean() - 10


def test_the_strengths_of_a_disease_are_ranges_of_known_names() -> None:
    known = set(clinical.DISEASES["acne"]) | set(clinical._GENERAL)
    for name, strengths in clinical.DISEASES.items():
        assert set(strengths) <= known, name
        assert all(low <= high for low, high in strengths.values()), name


def test_lungs_are_darker_than_what_is_around_them_and_the_retina_brighter() -> None:
    for kind, sign in (("xray_normal", -1), ("fundus_grade_0", 1)):
        for seed in range(4):
            shown = KINDS[kind](np.random.default_rng(seed), 64, None)
            inside = shown.mask > 0
            assert 0.15 < inside.mean() < 0.75
            assert sign * (shown.image[inside].mean() - shown.image[~inside].mean()) > 15


def test_a_graver_retinopathy_shows_more_signs_and_neighbours_overlap() -> None:
    """The darkest and brightest spots inside the retina, counted, grow with the grade, but do not tell it."""

    def signs(grade: int, seed: int) -> float:
        shown = KINDS[f"fundus_grade_{grade}"](np.random.default_rng([grade, seed]), 80, None)
        green = shown.image[..., 1].astype(np.float32)
        rough = np.abs(green - cv2.GaussianBlur(green, (0, 0), 3.5)) / (green[shown.mask > 0].mean() + 1)
        return float(rough[cv2.erode(shown.mask, np.ones((9, 9))) > 0].mean())

    strengths = np.array([[signs(grade, seed) for seed in range(8)] for grade in range(5)])
    assert (np.diff(np.median(strengths, axis=1)) > 0).all()
    assert all(strengths[grade].max() > strengths[grade + 1].min() for grade in range(4))


# Layouts


def test_every_class_of_a_stand_in_has_an_existing_kind() -> None:
    for name in STUDIES:
        block = config.load(name).stand_in
        layout = config.load(name).dataset
        assert set(block.classes.values()) <= set(KINDS)
        classes = {class_of(key, layout) for key in block.classes} - {None}
        assert classes >= set(layout.claimed) | set(layout.classes.values()) | set(layout.extra_classes)
    assert len(config.load("dermnet").stand_in.classes) == 23


def test_same_bytes_whatever_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = stand_in_study("melanoma", images=70, min_per_class=12)
    contents = []
    for threads in (1, 3):
        root = tmp_path / str(threads)
        monkeypatch.setattr(stand_in.runtime, "cores", lambda threads=threads: threads)
        stand_in.write(root, small)
        contents.append({str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()})
    assert contents[0] == contents[1] and len(contents[0]) > 140


@pytest.mark.parametrize("name", STUDIES)
def test_the_adapter_lists_what_was_written(name: str) -> None:
    small, manifest = stand_in_study(name), listed(name)
    expected: dict[str, int] = {}
    for key, count in class_sizes(small).items():
        label = class_of(key, small.dataset)
        if label:
            expected[label] = expected.get(label, 0) + count
    assert manifest.frame["label"].value_counts().to_dict() == expected
    assert set(manifest.classes) == set(expected)
    unreadable = set(manifest.facts["faults"]["unreadable"])
    assert {image_id for image_id in manifest.frame["image_id"] if pixels_of(manifest, image_id) is None} == unreadable
    assert len(unreadable) == 2


@pytest.mark.parametrize("name", STUDIES)
def test_planted_faults_are_there(name: str) -> None:
    manifest = listed(name)
    frame, planted = manifest.frame.set_index("image_id"), manifest.facts["faults"]
    pairs = planted["exact_duplicates"] + planted["near_duplicates"] + planted["conflicting_labels"]
    single = [*planted["unreadable"], *planted["dark"], *planted["blurred"]]
    assert all(planted.values())
    assert len(set(single)) + len({one for pair in pairs for one in pair}) == len(single) + 2 * len(pairs)
    for copy, source in planted["exact_duplicates"] + planted["conflicting_labels"]:
        assert Path(frame.loc[copy, "path"]).read_bytes() == Path(frame.loc[source, "path"]).read_bytes()
        same = frame.loc[copy, "label"] == frame.loc[source, "label"]
        assert same == ([copy, source] in planted["exact_duplicates"])
    for copy, source in planted["near_duplicates"]:
        undo = faults.ORIENTATIONS[
            manifest.facts["near_duplicate_kinds"][copy].replace("90", "x").replace("270", "90").replace("x", "270")
        ]
        one, other = undo(pixels_of(manifest, copy)).astype(float), pixels_of(manifest, source)
        assert one.shape == other.shape and np.abs(one - other).mean() < 6
        assert frame.loc[copy, "label"] == frame.loc[source, "label"]
    assert max(pixels_of(manifest, image_id).mean() for image_id in planted["dark"]) < 12
    assert set(manifest.facts["near_duplicate_kinds"]) == {copy for copy, _ in planted["near_duplicates"]}


def test_dermnet_has_every_class_in_both_splits_and_a_copy_across_them() -> None:
    manifest = listed("dermnet")
    counts = pd.crosstab(manifest.frame["label"], manifest.frame["split"])
    assert len(counts) == 23 and counts[TRAIN].min() >= 8 and counts[TEST].min() >= 2
    splits = manifest.frame.set_index("image_id")["split"]
    assert any(splits[copy] != splits[source] for copy, source in manifest.facts["faults"]["exact_duplicates"])


def test_melanoma_has_patients_metadata_masks_and_listed_duplicates() -> None:
    manifest = listed("melanoma")
    frame = manifest.frame.set_index("image_id")
    assert frame["label"].value_counts()["malignant"] == 40
    sizes = frame.groupby("group").size()
    assert sizes.max() > 3 and 2 < len(frame) / len(sizes) < 8
    assert (frame["mask_path"] != "").all()
    assert set(manifest.metadata) == {"sex", "age_approx", "anatom_site_general_challenge", "diagnosis"}
    assert (frame.loc[frame["label"] == "malignant", "diagnosis"] == "melanoma").all()
    unknown = frame.loc[frame["label"] == "benign", "diagnosis"] == ""  # the table says unknown
    assert 0.6 < unknown.mean() < 0.95
    assert all(frame.loc[one, "group"] == frame.loc[two, "group"] for one, two in listed_pairs(manifest))
    for one, two in manifest.facts["faults"]["near_duplicates"]:
        assert frame.loc[one, "group"] == frame.loc[two, "group"]


def listed_pairs(manifest: Manifest) -> list[tuple[str, str]]:
    root = next(parent for parent in Path(manifest.frame["path"].iloc[0]).parents if (parent / "train.csv").is_file())
    pairs = pd.read_csv(root / "ISIC_2020_Training_Duplicates.csv")
    assert len(pairs) >= 2
    return list(pairs.itertuples(index=False, name=None))


def test_chest_x_rays_exclude_a_class_and_have_masks_of_another_size_and_tinted_films() -> None:
    manifest = adapters.load(stand_in_study("chest_xray", images=200, seed=1))
    frame = manifest.frame
    assert not frame["path"].str.contains("Lung_Opacity").any() and (frame["mask_path"] != "").all()
    shape = {cv2.imread(path, cv2.IMREAD_UNCHANGED).shape for path in frame["mask_path"].iloc[:20]}
    assert min(side for size in shape for side in size) < 32
    coloured = {image_id for image_id in frame["image_id"] if np.ndim(pixels_of(manifest, image_id)) == 3}
    assert coloured and coloured == set(manifest.facts["tinted"])
    assert set(frame.set_index("image_id").loc[sorted(coloured), "label"]) == {"COVID-19"}


def test_the_retinas_mask_covers_what_is_lit() -> None:
    manifest = listed("retinopathy")
    bad = {image_id for kind in ("unreadable", "dark") for image_id in manifest.facts["faults"][kind]}
    rows = manifest.frame[~manifest.frame["image_id"].isin(bad)].iloc[:12]
    for path, mask_path in zip(rows["path"], rows["mask_path"], strict=True):
        mask = cv2.imread(mask_path, cv2.IMREAD_UNCHANGED) > 0
        lit = read(Path(path).read_bytes()).max(axis=2) > 40
        assert mask.shape == lit.shape and (mask == lit).mean() > 0.85


def test_skin11_claims_counts_in_its_names_and_shapes_depend_on_the_source() -> None:
    manifest = listed("skin11")
    counted = manifest.frame["label"].value_counts()
    claims = manifest.facts["claimed_in_names"]
    lies = {label for label, claim in claims.items() if claim != counted[label]}
    assert lies == {"melanoma"} and claims["melanoma"] == 15_750 and len(claims) == 10
    assert counted["normal skin"] == 12
    sound = manifest.frame[~manifest.frame["image_id"].isin(manifest.facts["faults"]["unreadable"])]
    upright = sound["path"].map(lambda path: np.greater(*read(Path(path).read_bytes()).shape[:2]))
    dermoscopic = sound["label"].isin(["melanoma", "basal cell carcinoma", "melanocytic nevi"])
    assert upright[~dermoscopic].any()


# Shares


@pytest.mark.parametrize("images", [150, 600, 10_000])
@pytest.mark.parametrize("name", STUDIES)
def test_class_sizes_follow_the_claims_and_none_is_too_small(name: str, images: int) -> None:
    small = stand_in_study(name, images=images, min_per_class=5)
    counts = class_sizes(small)
    assert sum(counts.values()) == images and min(counts.values()) >= 5
    claimed = {key: small.dataset.claimed.get(class_of(key, small.dataset), 0) for key in counts}
    by_claim = sorted(counts, key=lambda key: claimed[key])
    assert all(counts[low] <= counts[high] + 1 for low, high in pairwise(by_claim) if claimed[low])
    if not any(claimed.values()):
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_missing_or_unknown_stand_in_is_one_line() -> None:
    small = stand_in_study("dermnet")
    for block, message in (
        (small.stand_in.model_copy(update={"classes": {"a": "clinical_plague"}}), "classes.a is 'clinical_plague'"),
        (small.stand_in.model_copy(update={"classes": {}}), "has no stand-in"),
        (None, "has no stand-in"),
    ):
        with pytest.raises(StudyError, match=message) as caught:
            adapters.load(small.model_copy(update={"stand_in": block}))
        assert "\n" not in str(caught.value)
