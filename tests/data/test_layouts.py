"""Folders as people unpack them: which are splits, which are classes, and what is refused because it may be either."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.layouts import layout, make_study, refusal, splits_of, write_image
from scanbook.data import adapters
from scanbook.data.adapters import layouts, listing


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


def class_folders(root: Path, *parents: str, classes: str = "ab", count: int = 2) -> Path:
    return layout(root, *(f"{parent}/{label}/{n}.png" for parent in parents for label in classes for n in range(count)))


# --- names of splits


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Training TRAIN seg_train train_data Train-Set trainset train_images TrainingSet train2 data_train",
        ),
        ("validation", "val valid Validate validation valid_set val_data seg_val dev VAL"),
        ("test", "test Testing TEST seg_test test_set Test_Data testset test1 test-images ISIC_Test_Input"),
        ("", "normal trained attest contest valve traintest test_train benign_test devices '' 1 ISIC_Test_Malignant"),
    ],
)
def test_a_name_is_that_of_a_split(split: str, names: str) -> None:
    expected = {name: "" if name.startswith("ISIC") else split for name in names.split()}
    assert {name: layouts.split_of(name) for name in names.split()} == expected


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("seg_train", "", "seg_test"),
        ("Training", "", "Testing"),
        ("train_set", "valid_set", "test_set"),
        ("TRAIN", "Validate", "TEST"),
        ("TrainData", "ValData", "TestData"),
        ("train/images", "val/images", "test/images"),
        ("data/train", "data/val", "data/test"),
        ("seg_train/seg_train", "", "seg_test/seg_test"),
    ],
)
def test_splits_have_many_names(train: str, validation: str, test: str, tmp_path: Path) -> None:
    places = {"train": train, "validation": validation, "test": test}
    for split, place in places.items():
        if place:
            layout(tmp_path, *(f"{place}/{label}/{split}{label}.png" for label in "ab"))
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.classes == ("a", "b")
    stems = {Path(name).stem: split for name, split in splits_of(manifest).items()}
    assert stems == {f"{split}{label}": split for split, place in places.items() if place for label in "ab"}


# --- what is no class, or may be several layouts


REFUSED = {
    "a split without classes": (["train/a/1.png", "train/b/1.png", "test/1.png"], "test holds 1 images without class"),
    "a split and a class": (["train/a/1.png", "train/b/1.png", "b/1.png"], "mixes split folders with 'b'"),
    "classes with the split in their names": (["a_train/1.png", "b_train/1.png", "a_test/1.png"], "look like splits"),
    "parts of one set": (["images_001/1.png", "images_002/2.png"], "images_001, images_002 look like parts of one set"),
    "folds": (["fold 1/1.png", "fold 2/2.png"], "look like parts of one set"),
    "masks beside images": (["images/1.png", "masks/1.png"], "masks looks like one of masks"),
    "masks beside classes": (["a/1.png", "b/1.png", "Segmentation_Masks/1.png"], "looks like one of masks"),
    "masks in a split": (["train/images/1.png", "train/masks/1.png", "test/images/1.png"], "looks like one of masks"),
    "splits in the classes": (
        [f"{label}/{split}/1.png" for label in "ab" for split in ("train", "test")],
        "each of the folders a, b holds test, train; expected the splits outside",
    ),
    "classes one level lower": (
        [f"{site}/{label}/1.png" for site in ("north", "south") for label in ("ill", "well")],
        "north, south holds folders of the same names (ill, well)",
    ),
    "one folder of classes": (["brain/yes/1.png", "brain/no/1.png"], "brain holds 2 folders: if these are"),
    "another dataset inside": (
        ["yes/1.png", "no/1.png", "more/yes/2.png", "more/no/3.png"],
        "more holds folders of the same names with other files",
    ),
    "parts by how they were made": (
        ["Original Images/x/1.png", "Augmented Images/y/1.png", "Fold1/z/1.png"],
        "Augmented Images, Fold1, Original Images look like parts of one set",
    ),
    "patients": (["patient0001/s1/1.png", "patient0002/s1/1.png"], "look like parts of one set of images, or patients"),
    "hospitals": (["Site_A/1.png", "Site_B/1.png"], "Site_A, Site_B look like parts"),
    "labels beside images": (
        [f"{split}/{kind}/1.png" for split in ("train", "valid") for kind in ("images", "labels")],
        "images, labels look like parts",
    ),
    "masks made by hand": (["CXR_png/1.png", "ManualMask/1.png"], "ManualMask looks like one of masks"),
    "two datasets": (
        [f"{k} Data/{k} Data/{split}/{c}/1.png" for k in ("eye", "lung") for split in ("Train", "Test") for c in "ab"],
        "eye Data holds the splits Test, Train; expected the splits outside",
    ),
    "only formats that are not read": (["a/1.png", "b/1.gif"], "b holds no image that scanbook reads: it holds 1 .gif"),
    "an empty class": (["a/1.png", "b/1.png", "c/notes.txt"], "holds 1 .txt"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_may_be_another_layout_is_refused_with_its_cause(kind: str, tmp_path: Path) -> None:
    names, cause = REFUSED[kind]
    layout(tmp_path, *names)
    message = refusal(make_study(tmp_path))
    assert cause in message and "add images" not in message, message


def test_a_study_that_names_its_classes_may_have_any_folders(tmp_path: Path) -> None:
    layout(tmp_path, "fold 1/1.png", "fold 2/2.png", "part 3/3.png")
    named = {"adapter": "folder", "classes": {"fold 1": "one", "fold 2": "two"}}
    manifest = adapters.load(make_study(tmp_path, named))
    assert manifest.classes == ("one", "two")
    assert manifest.facts["unused"] == {"they lie outside the folders that are read": {".png": 1}}


@pytest.mark.parametrize("parents", [(".",), ("train", "test", "val")], ids=["classes", "splits"])
def test_a_copy_of_the_dataset_inside_itself_is_ignored(parents: tuple[str, ...], tmp_path: Path) -> None:
    """As the two largest sets of their kind on Kaggle are unpacked: chest X-rays and brain tumours."""
    class_folders(tmp_path, *parents)
    before = adapters.load(make_study(tmp_path)).frame
    shutil.copytree(tmp_path, tmp_path / "again")
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.frame.equals(before)
    assert manifest.facts["notes"][0].startswith("The folder again is ignored: it is a copy of ")
    assert manifest.facts["unused"] == {"they lie outside the folders that are read": {".png": len(before)}}


def test_folders_without_images_beside_splits_are_ignored(tmp_path: Path) -> None:
    class_folders(tmp_path, "train", "test")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("<a/>")
    (tmp_path / "val" / "a").mkdir(parents=True)
    manifest = adapters.load(make_study(tmp_path))
    assert set(splits_of(manifest).values()) == {"train", "test"}
    assert manifest.facts["notes"] == ["Folders without images are ignored: val, annotations."]


def test_empty_folders_of_splits_beside_classes_are_ignored(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (class_folders(tmp_path, ".") / name).mkdir()
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.classes == ("a", "b") and set(splits_of(manifest).values()) == {""}
    assert manifest.facts["notes"] == ["Folders without images are ignored: test, train."]


def test_names_that_differ_in_case_alone_are_one_class(tmp_path: Path) -> None:
    layout(tmp_path, *(f"train/{name}/{n}.png" for name in ("COVID", "Normal") for n in range(3)))
    layout(tmp_path, *(f"test/{name}/{n}.png" for name in ("covid", "NORMAL") for n in range(2)))
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.classes == ("COVID", "Normal") and len(manifest.frame) == 10
    assert "COVID and covid differ in case alone: they are one class, COVID." in manifest.facts["notes"]


def test_folders_in_a_class_folder_that_may_be_classes_are_counted(tmp_path: Path) -> None:
    """As LC25000 is unpacked."""
    layout(tmp_path, "colon/aca/1.png", "colon/n/1.png", "lung/aca/1.png", "lung/n/1.png", "lung/scc/1.png")
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.facts["notes"] == ["The images of colon lie in 2 folders in it, which count as one class."]


def test_splits_lie_at_any_depth_of_single_folders(tmp_path: Path) -> None:
    """As COVID-QU-Ex is unpacked."""
    class_folders(tmp_path, "Lung Data/Lung Data/Train", "Lung Data/Lung Data/Test")
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.classes == ("a", "b") and set(manifest.frame["split"]) == {"train", "test"}


# --- masks


def test_names_of_folders_of_masks() -> None:
    masks = (
        "masks, mask, GT, Ground Truth, ground_truth, lung masks, ManualMask, leftMask, Segmentation_Masks, GT images"
    )
    others = "images, with_mask, without mask, no_mask, mask_correct, gtx, damask, Lung Segmentation Data, segmented, 1"
    assert [name for name in f"{masks}, {others}".split(", ") if layouts.is_mask_folder(name)] == masks.split(", ")


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("{c}/{c} ({n}).png", ["{c}/{c} ({n})_mask.png"]),
        ("{c}/{n}.jpg", ["{c}/{n}_segmentation.png"]),
        ("{c}/{n}.png", ["{c}/mask/{n}.png"]),
        ("{c}/image/{n}.png", ["{c}/GT/{n}.png"]),
        ("{c}/images/{n}.png", ["{c}/lung masks/{n}_mask.png"]),
        ("{c}/{n}.png", ["{c}/{n}_mask.png", "{c}/{n}_mask_1.png"]),
    ],
)  # fmt: skip
def test_a_mask_is_no_image(image: str, masks: list[str], tmp_path: Path) -> None:
    """As breast ultrasound images (BUSI) lie beside their masks, some of them beside two."""
    places = [(c, n) for c in ("benign", "normal") for n in range(3)]
    layout(tmp_path, *(name.format(c=c, n=n) for c, n in places for name in (image, *masks)))
    manifest = adapters.load(make_study(tmp_path))
    expected = [str(tmp_path / image.format(c=c, n=n)) for c, n in places]
    assert manifest.frame["path"].tolist() == expected
    read = [str(tmp_path / masks[0].format(c=c, n=n)) if len(masks) == 1 else "" for c, n in places]
    assert manifest.frame["mask_path"].tolist() == read
    unused = {"masks of no image, or several of one": {".png": 12}} if len(masks) > 1 else {}
    assert manifest.facts["unused"] == unused


def test_a_word_alone_makes_no_mask(tmp_path: Path) -> None:
    layout(tmp_path, "a/1_mask.png", "a/2_seg.png", "a/3.png", "b/3_mask.png")
    assert len(adapters.load(make_study(tmp_path)).frame) == 4


def test_a_class_may_have_any_name_that_a_folder_can_have(tmp_path: Path) -> None:
    names = ["$x_1$", "1e3", "<b>", "a,b;c", "C# 100%", "NA", "None", "*", "日本", "x^2 _y_", "-", "~a", "#1", "@home"]
    (root := tmp_path / "images").mkdir()
    for system in ("$RECYCLE.BIN", "@eaDir", "lost+found", ".git", "__MACOSX"):
        write_image(root / system / "a.png")
    layout(root, *(f"{name}/1.png" for name in names))
    assert set(adapters.load(make_study(root)).classes) == set(names)


# --- every file is accounted for


def test_files_that_are_not_read_are_counted_by_extension(tmp_path: Path) -> None:
    layout(tmp_path, "a/1.png", "b/2.png", "a/3.jfif", "b/4.jpe", "loose.png", "b/deep/5.JPEG")
    for name in ("a/6.gif", "b/7.HEIC", "b/8.heic", "c.zip", "a/notes.txt", ".hidden.gif", "__MACOSX/x.gif", "a/scan"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    manifest = adapters.load(make_study(tmp_path))
    assert sorted(Path(path).name for path in manifest.frame["path"]) == ["1.png", "2.png", "3.jfif", "4.jpe", "5.JPEG"]
    assert manifest.facts["unused"] == {
        "format that is not read": {".gif": 1, ".heic": 2, ".zip": 1, "no extension": 1},
        "no image": {".txt": 1},
        "they lie outside the folders that are read": {".png": 1},
    }
    assert manifest.facts["notes"] == [
        "Not used: 2 .heic, 1 .gif, 1 .zip, 1 no extension (formats that are not read; convert images among them, for "
        "example to PNG); 1 .png (they lie outside the folders that are read)."
    ]


PLACES = ("a", "b", "a/masks", "b/images", "b/deep/er", "docs", "", "train", "loose")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PLACES), st.sampled_from("xyzéß"), st.sampled_from([".png", ".JPG", ".gif", ".txt", ""])
        ),
        unique=True,
        max_size=25,
    )
)
def test_every_file_is_used_or_counted(files: list[tuple[str, str, str]]) -> None:
    classes = {"adapter": "folder", "classes": {"a": "a", "b": "b"}}
    with tempfile.TemporaryDirectory() as place:
        root = layout(Path(place), "a/first.png", "b/images/first.png")
        for folder, name, extension in files:
            if folder not in ("train", "loose"):
                write_image(root / folder / f"{name}{extension}")
        manifest = adapters.load(make_study(root, classes))
        listed = Counter(
            os.path.realpath(path) for path in (*manifest.frame["path"], *manifest.frame["mask_path"]) if path
        )
        everything = [
            os.path.join(parent, name) for parent, _, names in os.walk(os.path.realpath(root)) for name in names
        ]
    assert max(listed.values()) == 1
    unused = Counter(listing.kind_of(path) for path in everything if path not in listed)
    counted: Counter[str] = Counter()
    for kinds in manifest.facts["unused"].values():
        counted.update(kinds)
    assert counted == unused


# --- links, permissions, names


def test_links_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    root = layout(tmp_path / "data", "a/1.png", "b/2.png")
    expected = adapters.load(make_study(root)).frame
    (root / "a" / "again").symlink_to(".")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "b").symlink_to("../b")
    (root / "b" / "a").symlink_to("../a")
    (root / "b" / "self").symlink_to("self")
    (root / "b" / "outside").symlink_to("../..")
    manifest = adapters.load(make_study(root))
    assert manifest.frame.equals(expected) and "5 links to folders are not followed" in manifest.facts["notes"][0]
    layout(tmp_path / "store", "3.png", "more/4.png")
    (root / "c").symlink_to(tmp_path / "store")
    (root / "a" / "more").symlink_to(tmp_path / "store" / "more")
    manifest = adapters.load(make_study(root))
    ids = manifest.frame["image_id"].tolist()
    assert manifest.classes == ("a", "b", "c") and ids == ["a/1.png", "b/2.png", "c/3.png", "c/more/4.png"]


def test_a_folder_without_permission_is_named() -> None:
    """As another user than root, whom no permission stops."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from scanbook import store\n"
        "from scanbook.errors import DataError\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: store.tree_fingerprint(Path(sys.argv[1]))\n"
        "except DataError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        locked = class_folders(Path(place), ".") / "b" / "locked"
        locked.mkdir(mode=0)
        done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True, check=True)
        locked.chmod(0o700)
    assert f"cannot read the folder {locked} (permission denied)" in done.stdout


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    class_folders(tmp_path, ".")
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(tmp_path / "a" / "0.png", tmp_path / "a" / name)
    except OSError:
        pytest.skip("this file system takes no other names than UTF-8")
    (tmp_path / os.fsdecode(b"c\xe9")).mkdir()
    write_image(tmp_path / os.fsdecode(b"c\xe9") / "0.png")
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.classes == ("a", "b", r"c\xe9")
    assert r"a/caf\xe9.png" in set(manifest.frame["image_id"])
    assert manifest.frame.drop(columns="path").to_csv().encode()
    assert manifest.fingerprint() != manifest.with_frame(manifest.frame[:-1]).fingerprint()
    assert any(path.endswith(name) for path in manifest.frame["path"]), "the path is the file's own"
