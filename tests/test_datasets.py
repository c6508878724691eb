"""Adapters: layouts of folders, tables and archives, in miniature and as published, become manifests."""

from __future__ import annotations

import csv
import io
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanbook import datasets, images, manifest
from scanbook.datasets import folder, medmnist
from scanbook.errors import DataError
from scanbook.manifest import COLUMNS, Manifest
from scanbook.study import Study

HAM = {
    "adapter": "table",
    "csv": "HAM10000_metadata.csv",
    "image_column": "image_id",
    "label_column": "dx",
    "group_column": "lesion_id",
    "image_folders": ["HAM10000_images_part_1", "HAM10000_images_part_2"],
    "mask_folder": "HAM10000_segmentations_lesion_tschandl",
    "mask_suffix": "_segmentation",
    "metadata": ["dx_type", "age", "sex", "localization"],
}


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


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
        datasets.load(study)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parts_of(found: Manifest) -> dict[str, str]:
    return dict(found.frame[["image_id", "part"]].itertuples(index=False))


# class folders


def test_class_folders(tmp_path: Path) -> None:
    root = layout(tmp_path, "ill/b.png", "ill/a.JPG", "normal/c.jpeg", "normal/deep/er/d.TIFF", "normal/e.webp")
    for stray in ("notes.txt", "ill/Thumbs.db", "ill/._a.jpg", "normal/scan.dcm"):
        (root / stray).write_bytes(b"x")
    write_image(root / "ill" / ".ipynb_checkpoints" / "a-checkpoint.jpg")
    write_image(root / "__MACOSX" / "x.jpg")
    write_image(root / ".cache" / "x.jpg")
    (root / "normal" / "folder.png").mkdir()
    found = datasets.load(make_study(root))
    assert found.classes == ("ill", "normal") and found.name == "mini"
    expected = ["ill/a.JPG", "ill/b.png", "normal/c.jpeg", "normal/deep/er/d.TIFF", "normal/e.webp"]
    assert found.frame["image_id"].tolist() == expected
    assert found.frame["label"].tolist() == ["ill", "ill", "normal", "normal", "normal"]
    assert [Path(path) for path in found.frame["path"]] == [root / name for name in expected]
    assert found.frame["group"].tolist() == expected and set(found.frame["mask_path"]) == {""}
    assert set(found.frame["part"]) == {""} and sorted(found.frame) == sorted(COLUMNS)
    assert found.y.tolist() == [0, 0, 1, 1, 1] and not found.facts["grouped"]


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("train", "val", "test"), ("train", "validation", "test")),
        (("Train", "Validation", "TEST"), ("train", "validation", "test")),
        (("training", "valid", "test"), ("train", "validation", "test")),
        (("train", "val"), ("train", "test")),
        (("train", "test"), ("train", "test")),
    ],
)
def test_part_folders(folders: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path) -> None:
    layout(tmp_path, *(f"{part}/{label}/1.png" for part in folders for label in ("ill", "normal")))
    found = datasets.load(make_study(tmp_path))
    assert found.classes == ("ill", "normal")
    assert parts_of(found) == {
        f"{name}/{label}/1.png": part for name, part in zip(folders, parts, strict=True) for label in ("ill", "normal")
    }


def test_what_is_no_layout_is_one_line_that_names_the_place(tmp_path: Path) -> None:
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
    (tmp_path / "empty" / "c" / "scan.dcm").write_bytes(b"x")
    message = refusal(make_study(tmp_path / "empty"))
    assert str(tmp_path / "empty" / "c") in message and "holds no image" in message and ".png" in message
    message = refusal(make_study(tmp_path / "missing"))
    assert str(tmp_path / "missing") in message and "does not exist" in message and "DATA=path" in message
    message = refusal(make_study(tmp_path / "flat" / "1.png"))
    assert "is a file, not a folder" in message


def test_numbers_in_class_names_are_in_numeric_order(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{name}/1.png" for name in ("10. naevus", "2. melanoma", "1. scar", "x²", "B")))
    assert datasets.load(make_study(tmp_path)).classes == ("1. scar", "2. melanoma", "10. naevus", "B", "x²")


@given(st.permutations(["a", "A", "a1", "a01", "a10", "a2", "²", "١", "", "B"]))
def test_the_class_order_does_not_depend_on_the_listing(names: list[str]) -> None:
    found = sorted(names, key=folder.natural)
    assert found == sorted(sorted(names), key=folder.natural)
    assert found.index("a2") < found.index("a10") and found.index("a10") < found.index("B")


def test_the_data_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    first = datasets.load(make_study(layout(tmp_path / "one", "a/1.png", "b/1.png")))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    second = datasets.load(make_study(tmp_path / "two"))
    assert first.fingerprint() == second.fingerprint()
    write_image(tmp_path / "two" / "a" / "1.png", seed=99)
    assert datasets.load(make_study(tmp_path / "two")).fingerprint() != first.fingerprint()


# a sample for the smoke profile


def test_a_limit_samples_classes_evenly_and_whole_groups(tmp_path: Path) -> None:
    rows = [(f"i{n:03d}", "ab"[n % 4 == 0], f"g{n // 3}") for n in range(120)]
    frame = pd.DataFrame(rows, columns=["image_id", "label", "group"]).assign(path="", mask_path="", part="")
    whole = Manifest("mini", frame, ("a", "b"))
    found = datasets._sample(whole, 40, 10, 0)
    again, other = datasets._sample(whole, 40, 10, 0), datasets._sample(whole, 40, 10, 1)
    assert found.frame.equals(again.frame) and not found.frame.equals(other.frame)
    assert 30 <= len(found.frame) <= 80 and set(found.frame["label"]) == {"a", "b"}
    assert datasets._sample(whole, 4, 10, 0).frame["label"].value_counts().min() >= 9, "enough to split"
    chosen = frame[frame["group"].isin(found.frame["group"])]
    assert chosen["image_id"].tolist() == found.frame["image_id"].tolist(), "groups are whole and order is kept"


def test_a_limit_takes_from_every_part_of_the_source(tmp_path: Path) -> None:
    names = [f"{part}/{label}/{n}.png" for part, count in (("train", 80), ("val", 4), ("test", 4)) for label in "ab"
             for n in range(count)]  # fmt: skip
    found = datasets.load(make_study(layout(tmp_path, *names), limit=20))
    counts = found.frame.groupby(["part", "label"]).size()
    assert len(counts) == 6 and counts.min() >= 2 and 18 <= len(found.frame) <= 30


# a CSV beside folders of images


def write_ham(root: Path) -> list[dict[str, str]]:
    """HAM10000's published layout: two image folders, masks with a suffix, lesions of several images, missing ages."""
    labels = ("nv", "mel", "bkl", "nv", "bcc", "nv", "mel", "akiec")
    rows = []
    for number, label in enumerate(labels):
        name = f"ISIC_{24306 + number:07d}"
        lesion, age = f"HAM_{number // 2:07d}", "" if number == 3 else f"{40 + 5 * number}.0"
        rows.append(
            {"lesion_id": lesion, "image_id": name, "dx": label, "dx_type": "histo", "age": age, "sex": "male"}
            | {"localization": "back"}
        )
        write_image(root / f"HAM10000_images_part_{1 + number % 2}" / f"{name}.jpg", number)
        if number != 5:
            mask = np.zeros((8, 8), np.uint8)
            mask[2:6, 2:6] = 255
            path = root / "HAM10000_segmentations_lesion_tschandl" / f"{name}_segmentation.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(images.encode_png(mask))
    rows.reverse()
    write_table(root, rows)
    return rows


def write_table(root: Path, rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    (root / "HAM10000_metadata.csv").write_text(text.getvalue())


def test_the_published_layout_of_ham10000(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    found = datasets.load(make_study(tmp_path, HAM))
    frame = found.frame
    assert found.classes == ("akiec", "bcc", "bkl", "mel", "nv")
    for column, key in (("image_id", "image_id"), ("label", "dx"), ("group", "lesion_id"), ("sex", "sex")):
        assert frame[column].tolist() == [row[key] for row in rows]
    assert [Path(path).name for path in frame["path"]] == [f"{row['image_id']}.jpg" for row in rows]
    assert all(Path(path).is_file() for path in frame["path"])
    masks = frame["mask_path"].tolist()
    assert [bool(mask) for mask in masks] == [row["image_id"] != "ISIC_0024311" for row in rows]
    assert all(
        Path(mask).stem == f"{name}_segmentation" for mask, name in zip(masks, frame["image_id"], strict=True) if mask
    )
    assert frame["age"].dtype == float and frame["age"].isna().sum() == 1 and frame["age"].max() == 75
    assert set(frame["part"]) == {""} and found.facts["grouped"]
    assert found.metadata == ["dx_type", "age", "sex", "localization"]


def test_masks_are_optional(tmp_path: Path) -> None:
    write_ham(tmp_path)
    shutil.rmtree(tmp_path / "HAM10000_segmentations_lesion_tschandl")
    assert set(datasets.load(make_study(tmp_path, HAM)).frame["mask_path"]) == {""}


def test_an_image_that_cannot_be_decoded_stays_listed(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    broken = next((tmp_path / "HAM10000_images_part_1").iterdir())
    broken.write_bytes(b"broken")
    assert len(datasets.load(make_study(tmp_path, HAM)).frame) == len(rows)


def test_an_image_without_a_row_is_not_listed(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    write_table(tmp_path, rows[1:])
    assert rows[0]["image_id"] not in set(datasets.load(make_study(tmp_path, HAM)).frame["image_id"])


def test_an_image_whose_group_is_not_told_is_a_group_of_its_own(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    write_table(tmp_path, [row | ({"lesion_id": ""} if number < 2 else {}) for number, row in enumerate(rows)])
    groups = datasets.load(make_study(tmp_path, HAM)).frame["group"].tolist()
    assert groups[:2] == [rows[0]["image_id"], rows[1]["image_id"]] and groups[2] == rows[2]["lesion_id"]


def test_file_names_with_extension_or_folder_and_parts_of_the_source(tmp_path: Path) -> None:
    layout(tmp_path, "img/a.png", "img/b.x.png", "img/c.PNG", "img/d.png")
    (tmp_path / "labels.csv").write_text(
        "\ufefffile,kind,split,score\na.png,x,Train,1\nimg/b.x.png,y,train,\nc,x, val ,3\nd.png,y,TEST,4\n", "utf-8"
    )
    table = {"adapter": "table", "csv": "labels.csv", "image_column": "file", "label_column": "kind"}
    table |= {"part_column": "split", "image_folders": ["img"], "metadata": ["score"]}
    frame = datasets.load(make_study(tmp_path, table)).frame
    assert frame["image_id"].tolist() == frame["group"].tolist() == ["a", "b.x", "c", "d"]
    assert frame["part"].tolist() == ["train", "train", "validation", "test"]
    assert frame["score"].tolist()[::2] == [1, 3] and np.isnan(frame["score"][1])
    (tmp_path / "labels.csv").write_text("file,kind,split,score\na,x,train,\nb.x,y,dev,\n")
    message = refusal(make_study(tmp_path, table))
    assert "labels.csv line 3" in message and "'dev'" in message and "validation" in message


def test_of_two_files_of_one_name_the_folder_named_first_wins(tmp_path: Path) -> None:
    write_ham(tmp_path)
    name = "ISIC_0024306"
    write_image(tmp_path / "HAM10000_images_part_2" / f"{name}.jpg", 5)
    found = datasets.load(make_study(tmp_path, HAM)).frame.set_index("image_id")["path"][name]
    assert Path(found).parent.name == "HAM10000_images_part_1"


def spoil(root: Path, rows: list[dict[str, str]], how: str) -> None:
    table = root / "HAM10000_metadata.csv"
    match how:
        case "no csv":
            table.unlink()
        case "no column":
            write_table(root, [{key: value for key, value in row.items() if key != "dx"} for row in rows])
        case "empty file":
            table.write_text("")
        case "no rows":
            table.write_text(table.read_text().splitlines()[0])
        case "not text":
            table.write_bytes(b"\xff\xfe\x80" * 50)
        case "ragged":
            table.write_text(table.read_text() + "a,b,c,d,e,f,g,h,i,j\n")
        case "lost image":
            (root / "HAM10000_images_part_1" / "ISIC_0024306.jpg").unlink()
        case "no image folder":
            shutil.rmtree(root / "HAM10000_images_part_2")
        case "no label":
            write_table(root, [*rows[:2], rows[2] | {"dx": ""}, *rows[3:]])
        case "twice":
            write_table(root, [*rows, rows[0]])


SPOILT = {
    "no csv": ("HAM10000_metadata.csv", "does not exist"),
    "no column": ("HAM10000_metadata.csv", "no column 'dx'", "lesion_id, image_id, dx_type"),
    "empty file": ("HAM10000_metadata.csv", "is not a CSV"),
    "no rows": ("HAM10000_metadata.csv", "has no rows"),
    "not text": ("HAM10000_metadata.csv", "is not a CSV"),
    "ragged": ("HAM10000_metadata.csv", "is not a CSV", "line 10"),
    "lost image": ("names 1 images", "'ISIC_0024306'", "HAM10000_images_part_1"),
    "no image folder": ("HAM10000_images_part_2", "does not exist", "image_folders"),
    "no label": ("HAM10000_metadata.csv line 4", "no dx"),
    "twice": ("'ISIC_0024313'", "occurs twice"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_table_that_does_not_fit_is_one_line(how: str, tmp_path: Path) -> None:
    spoil(tmp_path, write_ham(tmp_path), how)
    message = refusal(make_study(tmp_path, HAM))
    assert all(part in message for part in SPOILT[how]), message


# MedMNIST


def archive(colour: bool = True, classes: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    arrays = {}
    for key, count in (("train", 20), ("val", 6), ("test", 7)):
        arrays[f"{key}_images"] = rng.integers(0, 256, (count, 28, 28, 3) if colour else (count, 28, 28), np.uint8)
        arrays[f"{key}_labels"] = rng.permutation(np.arange(count) % classes).astype(np.uint8)[:, None]
    return arrays


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(("flag", "colour"), [("retinamnist", True), ("pneumoniamnist", False)])
def test_an_archive_keeps_every_pixel_label_and_part(flag: str, colour: bool, tmp_path: Path) -> None:
    names = medmnist.ARCHIVES[flag].classes
    arrays = archive(colour, len(names))
    study = make_study(save(tmp_path / "local.npz", arrays), {"adapter": "medmnist", "flag": flag})
    found = datasets.load(study)
    assert found.classes == names and set(Counter(found.frame["part"])) == set(manifest.PARTS)
    for key, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        rows = found.rows(part)
        assert np.array_equal(found.y[rows], arrays[f"{key}_labels"][:, 0])
        decoded = np.stack([images.read(Path(path)) for path in found.frame["path"].iloc[rows]])
        expected = arrays[f"{key}_images"]
        assert np.array_equal(decoded, expected if colour else np.stack([expected] * 3, -1))
    again = datasets.load(study)
    assert again.frame.equals(found.frame) and again.fingerprint() == found.fingerprint()


def without(arrays: dict[str, np.ndarray], key: str) -> dict[str, np.ndarray]:
    return {name: each for name, each in arrays.items() if name != key}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda each: without(each, "val_images"), "val_images"),
        (lambda each: each | {"val_labels": each["val_labels"][:3]}, "val_labels"),
        (lambda each: each | {"test_labels": each["test_labels"] + 3}, "test_labels reach from 3 to 7"),
        (lambda each: each | {"train_labels": np.tile(each["train_labels"], 2)}, "train_labels"),
        (lambda each: each | {"train_images": each["train_images"].astype(float)}, "float64"),
        (lambda each: each | {"train_images": np.zeros((20, 28, 28, 28), np.uint8)}, "(20, 28, 28, 28)"),
        (lambda each: each | {"train_labels": each["train_labels"].astype(object)}, "allow_pickle"),
    ],
)
def test_an_archive_of_another_layout_is_one_line(change: Any, named: str, tmp_path: Path) -> None:
    path = save(tmp_path / "local.npz", change(archive()))
    message = refusal(make_study(path, {"adapter": "medmnist", "flag": "retinamnist"}))
    assert str(path) in message and "is not a MedMNIST archive" in message and named in message
    store = Path(os.environ["SCANBOOK_STORE"])
    assert not [each for each in (store / "medmnist").iterdir() if each.is_dir()], "nothing half-unpacked stays"


@pytest.mark.parametrize("content", ["text", "nothing", "npy", "cut", "flipped"])
def test_what_is_no_archive_is_one_line(content: str, tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.npz", archive()).read_bytes()
    middle = len(whole) // 2
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path = tmp_path / "local.npz"
    path.write_bytes(
        {"text": b"<html>404</html>", "nothing": b"", "npy": buffer.getvalue(), "cut": whole[:middle]}.get(
            content, whole[:middle] + bytes(255 - each for each in whole[middle : middle + 64]) + whole[middle + 64 :]
        )
    )
    message = refusal(make_study(path, {"adapter": "medmnist", "flag": "retinamnist"}))
    assert str(path) in message and "is not a MedMNIST archive" in message


def test_an_unknown_archive_or_a_folder_is_one_line(tmp_path: Path) -> None:
    message = refusal(make_study(tmp_path, {"adapter": "medmnist", "flag": "retinamnist"}))
    assert str(tmp_path) in message and "is not a file" in message
    message = refusal(make_study(tmp_path, {"adapter": "medmnist", "flag": "chestmnist"}))
    assert "'chestmnist'" in message and "retinamnist" in message


@pytest.fixture
def closed_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An address where nothing listens, and a data folder of its own."""
    monkeypatch.setattr(medmnist, "ADDRESS", "http://127.0.0.1:9/{flag}.npz")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_without_a_network_one_line_says_how_to_go_on(closed_port: Path) -> None:
    message = refusal(make_study("", {"adapter": "medmnist", "flag": "retinamnist"}))
    assert "cannot download http://127.0.0.1:9/retinamnist.npz" in message
    assert "DATA=path/to/retinamnist.npz" in message
    assert not [each for each in closed_port.rglob("*") if each.is_file()]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A download that takes a file from a folder; the MD5 is checked as ever."""
    import pooch

    def copy(url: str, output: str, _: object) -> None:
        shutil.copy(tmp_path / "mirror" / url.rsplit("/", 1)[1], output)

    (tmp_path / "mirror").mkdir()
    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: copy)
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "data"))
    return tmp_path / "mirror"


def test_a_download_of_another_md5_is_one_line_and_leaves_nothing(mirror: Path, tmp_path: Path) -> None:
    save(mirror / "retinamnist.npz", archive())
    message = refusal(make_study("", {"adapter": "medmnist", "flag": "retinamnist"}))
    assert "another MD5" in message and medmnist.ARCHIVES["retinamnist"].md5 in message and "DATA=" in message
    assert not [each for each in (tmp_path / "data").rglob("*") if each.is_file()]


def test_a_download_is_checked_kept_and_not_fetched_again(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(mirror / "retinamnist.npz", archive())
    known = medmnist.Archive(md5(path.read_bytes()).hexdigest(), medmnist.ARCHIVES["retinamnist"].classes)
    monkeypatch.setitem(medmnist.ARCHIVES, "retinamnist", known)
    study = make_study("", {"adapter": "medmnist", "flag": "retinamnist"})
    first = datasets.load(study)
    assert (tmp_path / "data" / "medmnist" / "retinamnist.npz").read_bytes() == path.read_bytes()
    path.unlink()
    assert datasets.load(study).frame.equals(first.frame)


def test_the_official_retinamnist(real_data: Path) -> None:
    path = real_data / "retinamnist.npz"
    known = medmnist.ARCHIVES["retinamnist"]
    assert md5(path.read_bytes()).hexdigest() == known.md5
    found = datasets.load(make_study(path, {"adapter": "medmnist", "flag": "retinamnist"}))
    counts = found.frame["part"].value_counts()
    assert (counts["train"], counts["validation"], counts["test"]) == (1080, 120, 400)
    with np.load(path) as arrays:
        rows = found.rows("test")
        assert np.array_equal(found.y[rows], arrays["test_labels"][:, 0])
        assert np.array_equal(images.read(Path(found.frame["path"][rows[-1]])), arrays["test_images"][-1])


def test_the_official_md5_catches_a_rebuilt_archive(real_data: Path, mirror: Path) -> None:
    shutil.copy(real_data / "pneumoniamnist_rebuilt.npz", mirror / "pneumoniamnist.npz")
    message = refusal(make_study("", {"adapter": "medmnist", "flag": "pneumoniamnist"}))
    assert "another MD5" in message and medmnist.ARCHIVES["pneumoniamnist"].md5 in message


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
    found = datasets.load(make_study(tmp_path))
    table = pd.crosstab(found.frame["part"], found.frame["label"])[list(found.classes)]
    assert {part: row.tolist() for part, row in table.iterrows()} == counts
    assert found.classes == (("Covid", "Normal", "Viral Pneumonia") if "covid" in name else tuple("01234"))


# the manifest


def test_a_manifest_refuses_what_would_mislead() -> None:
    frame = pd.DataFrame({"image_id": ["1", "2"], "path": "", "label": ["a", "b"], "group": ["1", "2"]})
    frame = frame.assign(mask_path="", part="")
    assert Manifest("mini", frame, ("b", "a")).y.tolist() == [1, 0]
    with pytest.raises(DataError, match="no column group"):
        Manifest("mini", frame.drop(columns="group"), ("a", "b"))
    with pytest.raises(DataError, match="'1' occurs twice"):
        Manifest("mini", frame.assign(image_id="1"), ("a", "b"))
    with pytest.raises(DataError, match="'b' is not one of the classes a"):
        Manifest("mini", frame, ("a",))


def test_a_manifests_fingerprint_changes_with_all_but_the_place() -> None:
    frame = pd.DataFrame({"image_id": ["1", "2"], "path": "x", "label": ["a", "b"], "group": ["1", "2"]})
    frame = frame.assign(mask_path="", part=["train", "test"])
    whole = Manifest("mini", frame, ("a", "b"), {"data": "1"})
    here, there = (
        frame.assign(path=f"{root}/data/a/1.png", mask_path=f"{root}/data/m/1.png") for root in ("/x", "/y/z")
    )
    assert whole.with_frame(here).fingerprint() == whole.with_frame(there).fingerprint()
    others = [
        whole.with_frame(frame.assign(mask_path="other masks/1.png")),
        whole.with_frame(frame.iloc[::-1]),
        whole.with_frame(frame.assign(label=["a", "a"])),
        whole.with_frame(frame.assign(part=["test", "train"])),
        Manifest("mini", frame, ("b", "a"), {"data": "1"}),
        Manifest("mini", frame, ("a", "b"), {"data": "2"}),
    ]
    assert len({each.fingerprint() for each in (whole, *others)}) == 7
