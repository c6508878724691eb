"""Class folders, in miniature and as published, become manifests."""

from __future__ import annotations

import os
import shutil
import tempfile
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.layouts import layout, make_study, refusal, splits_of, write_image
from scanbook.data import adapters, images
from scanbook.data.adapters import files, folder
from scanbook.data.manifest import COLUMNS


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


def test_class_folders(tmp_path: Path) -> None:
    root = layout(tmp_path, "ill/b.png", "ill/a.JPG", "normal/c.jpeg", "normal/deep/er/d.TIFF", "normal/e.webp")
    for stray in ("notes.txt", "ill/Thumbs.db", "ill/._a.jpg", "normal/scan", "DICOMDIR"):
        (root / stray).write_bytes(b"x")
    write_image(root / "ill" / ".ipynb_checkpoints" / "a-checkpoint.jpg")
    write_image(root / "__MACOSX" / "x.jpg")
    write_image(root / ".cache" / "x.jpg")
    (root / "normal" / "folder.png").mkdir()
    manifest = adapters.load(make_study(root))
    assert manifest.classes == ("ill", "normal") and manifest.name == "mini"
    expected = ["ill/a.JPG", "ill/b.png", "normal/c.jpeg", "normal/deep/er/d.TIFF", "normal/e.webp"]
    assert manifest.frame["image_id"].tolist() == expected
    assert manifest.frame["label"].tolist() == ["ill", "ill", "normal", "normal", "normal"]
    assert [Path(path) for path in manifest.frame["path"]] == [root / name for name in expected]
    assert manifest.frame["group"].tolist() == expected and set(manifest.frame["mask_path"]) == {""}
    assert set(manifest.frame["split"]) == {""} and sorted(manifest.frame) == sorted(COLUMNS)
    assert manifest.y.tolist() == [0, 0, 1, 1, 1] and not manifest.facts["grouped"]


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), ("train", "validation", "test")),
        (("Train", "Validation", "TEST"), ("train", "validation", "test")),
        (("training", "valid", "test"), ("train", "validation", "test")),
        (("train", "val"), ("train", "test")),
        (("train", "test"), ("train", "test")),
    ],
)
def test_split_folders(folders: tuple[str, ...], splits: tuple[str, ...], tmp_path: Path) -> None:
    layout(tmp_path, *(f"{split}/{label}/1.png" for split in folders for label in ("ill", "normal")))
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.classes == ("ill", "normal")
    assert splits_of(manifest) == {
        f"{name}/{label}/1.png": split
        for name, split in zip(folders, splits, strict=True)
        for label in ("ill", "normal")
    }


def test_an_unknown_layout_is_one_line_that_names_the_place(tmp_path: Path) -> None:
    names = ("train/a/1.png", "train/b/1.png", "normal/1.png")
    message = refusal(make_study(layout(tmp_path / "mixed", *names)))
    assert str(tmp_path / "mixed") in message and "'normal'" in message and "train, val and test" in message
    message = refusal(make_study(layout(tmp_path / "lone", "train/a/1.png", "train/b/1.png")))
    assert "train" in message and "at least one of val and test" in message
    message = refusal(make_study(layout(tmp_path / "flat", "1.png", "2.png")))
    assert str(tmp_path / "flat") in message and "one folder of images for each class" in message
    message = refusal(make_study(layout(tmp_path / "single", "only/1.png")))
    assert "only the class only" in message and "at least two classes" in message
    layout(tmp_path / "empty", "a/1.png", "b/2.png")
    (tmp_path / "empty" / "c").mkdir()
    (tmp_path / "empty" / "c" / "scan.xlsx").write_bytes(b"x")
    message = refusal(make_study(tmp_path / "empty"))
    assert str(tmp_path / "empty" / "c") in message and "holds no image" in message and ".png" in message
    message = refusal(make_study(tmp_path / "missing"))
    assert str(tmp_path / "missing") in message and "does not exist" in message and "DATA=path" in message
    message = refusal(make_study(tmp_path / "flat" / "1.png"))
    assert "is a file, not a folder" in message


def test_numbers_in_class_names_are_in_numeric_order(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{name}/1.png" for name in ("10. naevus", "2. melanoma", "1. scar", "x²", "B")))
    assert adapters.load(make_study(tmp_path)).classes == ("1. scar", "2. melanoma", "10. naevus", "B", "x²")


@settings(max_examples=25)
@given(st.permutations(["a", "A", "a1", "a01", "a10", "a2", "²", "١", "", "B"]))
def test_the_class_order_does_not_depend_on_the_listing(names: list[str]) -> None:
    ordered = sorted(names, key=files.natural_key)
    assert ordered == sorted(sorted(names), key=files.natural_key)
    assert ordered.index("a2") < ordered.index("a10") and ordered.index("a10") < ordered.index("B")


def test_the_data_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    first = adapters.load(make_study(layout(tmp_path / "one", "a/1.png", "b/1.png")))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    second = adapters.load(make_study(tmp_path / "two"))
    assert first.fingerprint() == second.fingerprint()
    write_image(tmp_path / "two" / "a" / "1.png", seed=99)
    assert adapters.load(make_study(tmp_path / "two")).fingerprint() != first.fingerprint()


# the natural layouts of the five studies, in miniature


def folders(**keys: Any) -> dict[str, Any]:
    return {"adapter": "folder", **keys}


def write_mask(path: Path, side: int = 16) -> Path:
    mask = np.zeros((side, side), np.uint8)
    mask[: side // 2] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_png(mask))
    return path


COVID = folders(
    root="COVID-19_Radiography_Dataset",
    classes={"normal*": "normal", "viral*": "viral pneumonia", "covid*": "COVID-19"},
)


def write_covid(root: Path) -> Path:
    """Images and masks in folders of their own, masks of another size, a class of no interest, tables beside them."""
    for folder_name, prefix in (("COVID", "COVID"), ("Normal", "Normal"), ("Viral Pneumonia", "Viral Pneumonia")):
        for number in range(1, 4):
            write_image(root / folder_name / "images" / f"{prefix}-{number}.png", number)
            write_mask(root / folder_name / "masks" / f"{prefix}-{number}.png")
        (root / f"{folder_name}.metadata.xlsx").write_bytes(b"PK")
    write_image(root / "Lung_Opacity" / "images" / "Lung_Opacity-1.png")
    (root / "README.md.txt").write_text("licence")
    (root / "Normal" / "masks" / "Normal-3.png").unlink()
    write_image(root / "Normal" / "preview.png")
    write_mask(root / "COVID" / "masks" / "other.png")
    return root


def test_the_radiography_layout_and_data_may_point_at_either_folder(tmp_path: Path) -> None:
    inner = write_covid(tmp_path / "COVID-19_Radiography_Dataset")
    manifest = adapters.load(make_study(tmp_path, COVID))
    assert manifest.classes == ("normal", "viral pneumonia", "COVID-19")
    assert manifest.frame["label"].value_counts().to_dict() == {"normal": 3, "viral pneumonia": 3, "COVID-19": 3}
    assert "Viral Pneumonia/images/Viral Pneumonia-2.png" in set(manifest.frame["image_id"])
    for row in manifest.frame.itertuples():
        assert Path(row.path).parent.name == "images"
        if row.image_id == "Normal/images/Normal-3.png":
            assert row.mask_path == ""
        else:
            assert Path(row.mask_path).parent.name == "masks" and Path(row.mask_path).name == Path(row.path).name
            assert images.load_mask(Path(row.mask_path)).shape == (16, 16)
            assert images.read(Path(row.path)).shape == (8, 8, 3)
    direct = adapters.load(make_study(inner, COVID))
    assert direct.frame.equals(manifest.frame) and direct.fingerprint() == manifest.fingerprint()
    unused = (
        "Not used: 1 .png (masks of no image, or several of one); 2 .png (they lie outside the folders that are read)."
    )
    assert manifest.facts["notes"] == [unused]


def test_masks_beside_the_images_of_a_class(tmp_path: Path) -> None:
    layout(tmp_path, "ill/a.jpg", "ill/deep/b.png", "well/c.png")
    for name in ("a", "deep/b", "other"):
        write_mask(tmp_path / "ill" / "Masks" / f"{name}.png")
    masks = adapters.load(make_study(tmp_path)).frame.set_index("image_id")["mask_path"]
    assert masks.index.tolist() == ["ill/a.jpg", "ill/deep/b.png", "well/c.png"], "no mask is listed as an image"
    assert [Path(path).name if path else "" for path in masks] == ["a.png", "b.png", ""]


SKIN11 = folders(
    root="IMG_CLASSES",
    claimed_in_names=True,
    classes={
        "1. *": "eczema",
        "2. *": "melanoma",
        "7. *": "psoriasis",
        "10. *": "warts",
    },
    extra_classes={"normal skin": "normal_skin"},
)
NAMES = {
    "1. Eczema 1677": 3,
    "2. Melanoma 15.75k": 2,
    "7. Psoriasis pictures Lichen Planus and related diseases - 2k": 2,
    "10. Warts Molluscum and other Viral Infections - 2103": 2,
    "11. Excluded 5": 1,
}


def write_skin11(root: Path) -> None:
    for name, count in NAMES.items():
        for number in range(count):
            write_image(root / "IMG_CLASSES" / name / f"{number} (1).JPG", number)
    layout(root / "normal_skin", "hand.png", "arm/é ü.jpeg")


def test_folders_that_claim_counts_and_a_second_source(tmp_path: Path) -> None:
    write_skin11(tmp_path)
    manifest = adapters.load(make_study(tmp_path, SKIN11))
    assert manifest.classes == ("eczema", "melanoma", "psoriasis", "warts", "normal skin")
    assert manifest.facts["claimed_in_names"] == {"eczema": 1677, "melanoma": 15750, "psoriasis": 2000, "warts": 2103}
    counts = manifest.frame["label"].value_counts()
    assert [counts[name] for name in manifest.classes] == [3, 2, 2, 2, 2]
    extra = manifest.frame[manifest.frame["label"] == "normal skin"]
    assert extra["image_id"].tolist() == ["normal skin/normal_skin/arm/é ü.jpeg", "normal skin/normal_skin/hand.png"]
    assert set(manifest.frame["split"]) == {""}
    assert manifest.facts["notes"] == ["Not used: 1 .jpg (they lie outside the folders that are read)."]
    before = manifest.fingerprint()
    write_image(tmp_path / "normal_skin" / "hand.png", seed=9)
    assert adapters.load(make_study(tmp_path, SKIN11)).fingerprint() != before, "the second source counts"
    shutil.rmtree(tmp_path / "normal_skin")
    without = adapters.load(make_study(tmp_path, SKIN11))
    assert without.classes == manifest.classes[:4]
    note, _ = without.facts["notes"]
    assert "normal_skin is missing" in note and "normal skin is excluded" in note


def test_an_extra_class_may_lie_anywhere_and_inside_the_dataset(tmp_path: Path) -> None:
    layout(tmp_path / "data", "ill/a.png", "more/b.png")
    layout(tmp_path / "elsewhere", "c.png")
    study = make_study(tmp_path / "data", folders(extra_classes={"well": "more", "far": str(tmp_path / "elsewhere")}))
    manifest = adapters.load(study)
    assert manifest.classes == ("ill", "well", "far"), "the folder of an extra class is no class of its own"
    assert manifest.frame["image_id"].tolist() == ["ill/a.png", "well/more/b.png", "far/elsewhere/c.png"]


def test_images_of_an_extra_class_are_listed_once_and_folders_of_one_name_do_not_collide(tmp_path: Path) -> None:
    data = layout(tmp_path / "data", "ill/a.png", "ill/new/b.png", "second/photos/c.png", "third/photos/c.png")
    (tmp_path / "link").symlink_to(data / "third" / "photos")
    extra = {"new": "ill/new", "well": "../data/second/photos", "far": str(tmp_path / "link")}
    manifest = adapters.load(make_study(data, folders(extra_classes=extra)))
    assert manifest.classes == ("ill", "new", "well", "far") and manifest.frame["path"].map(os.path.realpath).is_unique
    extra_ids = ["new/new/b.png", "well/photos/c.png", "far/link/c.png"]
    assert manifest.frame["image_id"].tolist() == ["ill/a.png", *extra_ids]
    twice = folders(extra_classes={"well": "second/photos", "far": "third/photos"})
    ids = adapters.load(make_study(data, twice)).frame["image_id"]
    assert ids.tolist()[-2:] == ["well/photos/c.png", "far/photos/c.png"] and ids.is_unique


def test_a_link_to_nothing_is_not_listed(tmp_path: Path) -> None:
    layout(tmp_path, "ill/a.png", "well/b.png")
    before = adapters.load(make_study(tmp_path))
    (tmp_path / "ill" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "ill" / "gone").symlink_to(tmp_path / "nowhere")
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.frame.equals(before.frame) and manifest.fingerprint() == before.fingerprint()


def test_an_extra_class_with_splits_may_lie_beside_the_splits(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{split}/{label}/{split}.png" for split in ("train", "test") for label in "ab"))
    layout(tmp_path, "more/train/c.png", "more/test/d.png")
    manifest = adapters.load(make_study(tmp_path, folders(extra_classes={"well": "more"})))
    assert manifest.classes == ("a", "b", "well") and len(manifest.frame) == 6


def test_folders_outside_the_dataset_count_in_its_fingerprint(tmp_path: Path) -> None:
    layout(tmp_path, "images/a/1.png", "images/b/1.png")
    (tmp_path / "data").mkdir()
    study = make_study(tmp_path / "data", folders(root="../images"))
    before = adapters.load(study).fingerprint()
    write_image(tmp_path / "images" / "a" / "1.png", seed=99)
    assert adapters.load(study).fingerprint() != before


def test_an_extra_class_beside_splits_needs_splits(tmp_path: Path) -> None:
    layout(tmp_path, *(f"data/{split}/{label}/{split}.png" for split in ("train", "test") for label in "ab"))
    layout(tmp_path, "normal/c.png")
    study = make_study(tmp_path, folders(root="data", extra_classes={"well": "normal"}))
    message = refusal(study)
    assert "'well'" in message and "train and test folders" in message
    shutil.rmtree(tmp_path / "normal")
    layout(tmp_path, "normal/train/c.png", "normal/test/d.png")
    manifest = adapters.load(study)
    assert (
        splits_of(manifest)["well/normal/train/c.png"] == "train"
        and splits_of(manifest)["well/normal/test/d.png"] == "test"
    )


def test_the_dermnet_layout(tmp_path: Path) -> None:
    classes = ("Acne and Rosacea Photos", "Atopic Dermatitis Photos", "Vasculitis Photos", "Warts & Co. 2.0")
    layout(tmp_path, *(f"{split}/{label}/{label[:3].lower()}-{n}.JPG" for split in ("test", "train")
                       for label in classes
                       for n in range(2)))  # fmt: skip
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.classes == classes and "claimed_in_names" not in manifest.facts
    assert manifest.frame["split"].value_counts().to_dict() == {"train": 8, "test": 8}


def test_a_folder_wrapped_in_its_own_name(tmp_path: Path) -> None:
    layout(tmp_path, *(f"data/data/{split}/{split}/{label}/1.png" for split in ("train", "test") for label in "ab"))
    manifest = adapters.load(make_study(tmp_path / "data"))
    assert manifest.classes == ("a", "b") and manifest.frame["split"].value_counts().to_dict() == {
        "train": 2,
        "test": 2,
    }
    layout(tmp_path, "ill/ill/1.png", "well/well/1.png")
    both = adapters.load(make_study(tmp_path, folders(classes={"ill": "ill", "well": "well"})))
    assert both.frame["image_id"].tolist() == ["ill/ill/1.png", "well/well/1.png"], "a class may hold folders"


def test_names_match_whatever_their_case_and_accents(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "Mélanome [M]")
    layout(tmp_path, f"train/{decomposed}/1.png", "train/NAEVUS/1.png", "test/mélanome [M]/1.png", "test/Naevus/1.png")
    named = folders(classes={"naevus": "naevus", "MÉLANOME*": "melanoma", "*": "never"})
    manifest = adapters.load(make_study(tmp_path, named))
    assert manifest.classes == ("naevus", "melanoma")
    assert manifest.facts["notes"] == ["No image is of the class never."]


def test_folders_of_which_none_is_a_class_of_the_study(tmp_path: Path) -> None:
    layout(tmp_path, "a/1.png", "b/1.png")
    message = refusal(make_study(tmp_path, COVID))
    assert "a, b" in message and "covid*" in message and "DATA" in message


@settings(max_examples=30)
@given(st.integers(0, 99999), st.sampled_from(["", " - ", "- ", " ("]), st.text("abcXYZ é&-", min_size=1, max_size=12))
def test_a_claim_is_read_from_any_name(count: int, separator: str, name: str) -> None:
    closing = ")" if "(" in separator else ""
    assert folder.claimed_in_name(f"3. {name}{separator or ' '}{count}{closing}") == count
    assert folder.claimed_in_name(f"3. {name}{separator or ' '}{count / 100}K{closing}") == round(count * 10)
    assert folder.claimed_in_name(f"3. {name}x") is None


def test_a_number_in_a_name_is_not_always_a_claim() -> None:
    assert folder.claimed_in_name("COVID-19") is None and folder.claimed_in_name("grade2") is None
    assert folder.claimed_in_name("5. Nevi 7,970") == 7970


@given(
    st.dictionaries(st.sampled_from(["a", "b", "c 1", "d.e"]), st.integers(1, 3), min_size=2),
    st.permutations(["a", "b", "c 1", "d.e"]),
)
@settings(max_examples=8, deadline=None)
def test_the_class_order_is_the_studys(counts: dict[str, int], order: list[str]) -> None:
    classes = {name: f"class of {name}" for name in order}
    with tempfile.TemporaryDirectory() as place:
        layout(Path(place), *(f"{name}/{n}.png" for name, count in counts.items() for n in range(count)))
        manifest = adapters.load(make_study(place, folders(classes=classes)))
    assert manifest.classes == tuple(classes[name] for name in order if name in counts)
    assert manifest.frame["label"].value_counts().to_dict() == {classes[name]: count for name, count in counts.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("covid19_small", {"train": [111, 70, 70], "test": [26, 20, 20]}),
        ("idrid_512", {"train": [134, 20, 136, 74, 49], "test": [34, 5, 32, 19, 13]}),
    ],
)
def test_real_class_folders(name: str, counts: dict[str, list[int]], real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_data / f"{name}.zip") as file:
        file.extractall(tmp_path)
    manifest = adapters.load(make_study(tmp_path))
    table = pd.crosstab(manifest.frame["split"], manifest.frame["label"])[list(manifest.classes)]
    assert {split: row.tolist() for split, row in table.iterrows()} == counts
    assert manifest.classes == (("Covid", "Normal", "Viral Pneumonia") if "covid" in name else tuple("01234"))
