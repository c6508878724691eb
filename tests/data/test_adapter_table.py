"""A CSV beside folders of images becomes a manifest."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.layouts import layout, make_study, refusal, write_image
from scanbook.data import adapters, images
from scanbook.data.adapters import table


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


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
    manifest = adapters.load(make_study(tmp_path, HAM))
    frame = manifest.frame
    assert manifest.classes == ("akiec", "bcc", "bkl", "mel", "nv")
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
    assert set(frame["split"]) == {""} and manifest.facts["grouped"]
    assert manifest.metadata == ["dx_type", "age", "sex", "localization"]


def test_masks_are_optional(tmp_path: Path) -> None:
    write_ham(tmp_path)
    shutil.rmtree(tmp_path / "HAM10000_segmentations_lesion_tschandl")
    assert set(adapters.load(make_study(tmp_path, HAM)).frame["mask_path"]) == {""}


def test_an_image_that_cannot_be_decoded_stays_listed(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    broken = next((tmp_path / "HAM10000_images_part_1").iterdir())
    broken.write_bytes(b"broken")
    assert len(adapters.load(make_study(tmp_path, HAM)).frame) == len(rows)


def test_an_image_without_a_row_is_not_listed(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    write_table(tmp_path, rows[1:])
    assert rows[0]["image_id"] not in set(adapters.load(make_study(tmp_path, HAM)).frame["image_id"])


def test_an_image_without_a_group_is_a_group_of_its_own(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    write_table(tmp_path, [row | ({"lesion_id": ""} if number < 2 else {}) for number, row in enumerate(rows)])
    manifest = adapters.load(make_study(tmp_path, HAM))
    groups = manifest.frame["group"].tolist()
    assert groups[:2] == [rows[0]["image_id"], rows[1]["image_id"]] and groups[2] == rows[2]["lesion_id"]
    expected = f"2 of {len(rows)} images name no patient (group): each counts as a group of its own."
    assert not manifest.facts["grouped"] and manifest.facts["notes"] == [expected]


def test_spaces_around_a_group_do_not_split_it_and_it_may_have_the_name_of_its_image(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{name}.png" for name in "abcd"))
    (tmp_path / "labels.csv").write_text("file,kind,who\na,x,p1\nb,y,p1 \nc,x, p2\nd,y,d\n")
    columns = {"image_column": "file", "label_column": "kind", "group_column": "who"}
    manifest = adapters.load(make_study(tmp_path, {"adapter": "table", "csv": "labels.csv", **columns}))
    assert manifest.frame["group"].tolist() == ["p1", "p1", "p2", "d"]
    assert manifest.facts["grouped"] and manifest.facts["notes"] == []


def test_folders_outside_the_dataset_count_in_its_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    layout(tmp_path, "scans/a.png", "scans/b.png", "masks/a.png")
    (tmp_path / "data" / "labels.csv").write_text("file,kind\na,x\nb,y\n")
    named = {"adapter": "table", "csv": "labels.csv", "image_column": "file", "label_column": "kind"}
    named |= {"image_folders": ["../scans"], "mask_folder": str(tmp_path / "masks")}
    seen = [adapters.load(make_study(tmp_path / "data", named)).facts["data"]]
    for path in ("scans/a.png", "masks/a.png"):
        write_image(tmp_path / path, seed=99)
        seen.append(adapters.load(make_study(tmp_path / "data", named)).facts["data"])
    assert len(set(seen)) == 3


def test_a_link_to_a_missing_image_is_not_an_image(tmp_path: Path) -> None:
    rows = write_ham(tmp_path)
    path = tmp_path / "HAM10000_images_part_1" / "ISIC_0024306.jpg"
    path.unlink()
    path.symlink_to(tmp_path / "gone.jpg")
    message = refusal(make_study(tmp_path, HAM))
    line = 2 + [row["image_id"] for row in rows].index(path.stem)
    assert "names 1 images" in message and f"row {line};" in message


def test_file_names_with_extension_or_folder_and_splits_of_the_source(tmp_path: Path) -> None:
    layout(tmp_path, "img/a.png", "img/b.x.png", "img/c.PNG", "img/d.png")
    (tmp_path / "labels.csv").write_text(
        "\ufefffile,kind,split,score\na.png,x,Train,1\nimg/b.x.png,y,train,\nc,x, val ,3\nd.png,y,TEST,4\n", "utf-8"
    )
    layout_of_it = {"adapter": "table", "csv": "labels.csv", "image_column": "file", "label_column": "kind"}
    layout_of_it |= {"split_column": "split", "image_folders": ["img"], "metadata": ["score"]}
    frame = adapters.load(make_study(tmp_path, layout_of_it)).frame
    assert frame["image_id"].tolist() == frame["group"].tolist() == ["a", "b.x", "c", "d"]
    assert frame["split"].tolist() == ["train", "train", "validation", "test"]
    assert frame["score"].tolist()[::2] == [1, 3] and np.isnan(frame["score"][1])
    (tmp_path / "labels.csv").write_text("file,kind,split,score\na,x,train,\nb.x,y,first half,\n")
    message = refusal(make_study(tmp_path, layout_of_it))
    assert "labels.csv row 3" in message and "'first half'" in message and "validation" in message


def test_a_name_that_two_folders_have_is_refused_unless_the_files_are_the_same(tmp_path: Path) -> None:
    write_ham(tmp_path)
    first, second = (tmp_path / f"HAM10000_images_part_{number}" / "ISIC_0024306.jpg" for number in (1, 2))
    write_image(second, 5)
    message = refusal(make_study(tmp_path, HAM))
    assert "row 9: 2 different images" in message and "folder and the extension" in message
    shutil.copy(first, second)
    path = adapters.load(make_study(tmp_path, HAM)).frame.set_index("image_id")["path"]["ISIC_0024306"]
    assert Path(path) == first


def test_of_two_folders_with_all_images_the_one_named_first_counts(tmp_path: Path) -> None:
    """As Kaggle's ISIC 2020: the images once as DICOM in train, once as JPEG in jpeg/train."""
    write_isic(tmp_path, "train")
    write_isic(tmp_path, "jpeg/train")
    for path in (tmp_path / "train").iterdir():
        write_image(path, 99)
    for order in (["train", "jpeg/train"], ["jpeg/train", "train"]):
        paths = adapters.load(make_study(tmp_path, ISIC | {"image_folders": order})).frame["path"]
        assert {Path(path).parent for path in paths} == {tmp_path / order[0]}


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
            for number in (1, 2):
                shutil.rmtree(root / f"HAM10000_images_part_{number}")
        case "half the folders":
            shutil.rmtree(root / "HAM10000_images_part_2")
        case "no label":
            write_table(root, [*rows[:2], rows[2] | {"dx": ""}, *rows[3:]])
        case "twice":
            write_table(root, [*rows, rows[0] | {"dx": "df"}])


SPOILT = {
    "no csv": ("HAM10000_metadata.csv", "does not exist"),
    "no column": ("HAM10000_metadata.csv", "no column 'dx'", "lesion_id, image_id, dx_type"),
    "empty file": ("HAM10000_metadata.csv", "is not a CSV"),
    "no rows": ("HAM10000_metadata.csv", "has no rows"),
    "not text": ("HAM10000_metadata.csv", "is not a CSV"),
    "ragged": ("HAM10000_metadata.csv", "is not a CSV", "row 10 has 10 cells"),
    "lost image": ("names 1 images", "the first in row 9;", "HAM10000_images_part_1"),
    "no image folder": ("HAM10000_images_part_1, HAM10000_images_part_2", "has none", "image_folders"),
    "half the folders": ("names 4 images", "in no image folder", "HAM10000_images_part_2"),
    "no label": ("HAM10000_metadata.csv row 4", "no dx"),
    "twice": ("HAM10000_metadata.csv rows 2 and 10", "the same image", "differ in dx"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_table_that_does_not_fit_is_one_line(how: str, tmp_path: Path) -> None:
    spoil(tmp_path, write_ham(tmp_path), how)
    message = refusal(make_study(tmp_path, HAM))
    assert all(split in message for split in SPOILT[how]), message


# other tables: APTOS 2019 and ISIC 2020, in miniature

APTOS = {"adapter": "table", "csv": "train.csv", "image_column": "id_code", "label_column": "diagnosis"}
APTOS |= {"image_folders": ["train_images"], "mask_folder": "masks"}
ISIC = {"adapter": "table", "csv": "train.csv", "image_column": "image_name", "label_column": "benign_malignant"}
ISIC |= {"group_column": "patient_id", "image_folders": ["train", "jpeg/train"], "mask_folder": "masks"}
ISIC |= {"metadata": ["sex", "age_approx"], "duplicates_csv": "ISIC_2020_Training_Duplicates.csv"}


def test_the_aptos_layout(tmp_path: Path) -> None:
    rows = [(f"{n:012x}", n % 5) for n in range(10)]
    (tmp_path / "train.csv").write_text("id_code,diagnosis\n" + "".join(f"{name},{grade}\n" for name, grade in rows))
    (tmp_path / "test.csv").write_text("id_code\nxyz\n")
    layout(tmp_path, *(f"train_images/{name}.png" for name, _ in rows), "test_images/xyz.png")
    manifest = adapters.load(make_study(tmp_path, APTOS))
    assert manifest.classes == tuple("01234") and manifest.frame["image_id"].tolist() == [name for name, _ in rows]
    assert (
        set(manifest.frame["mask_path"]) == {""}
        and not manifest.facts["grouped"]
        and manifest.facts["notes"] == ["Not used: 1 .png (train.csv does not name them)."]
    )


def test_labels_are_renamed_and_others_excluded(tmp_path: Path) -> None:
    layout(tmp_path, *(f"train_images/{n}.png" for n in (*range(6), "lost", "unnamed")))
    (tmp_path / "train.csv").write_text(
        "id_code,diagnosis\n" + "".join(f"{n},{n}\n" for n in range(5)) + "lost,9\n5, 4 \n"
    )
    manifest = adapters.load(
        make_study(tmp_path, APTOS | {"classes": {"[34]": "referable", "0": "none", "7": "never"}})
    )
    assert manifest.classes == ("referable", "none") and manifest.frame["image_id"].tolist() == ["0", "3", "4", "5"]
    assert manifest.frame["label"].tolist() == ["none", "referable", "referable", "referable"]
    assert manifest.frame.index.tolist() == [0, 1, 2, 3] and manifest.facts["notes"] == [
        "No image is of the class never.",
        "Not used: 3 .png (of no class of the study); 1 .png (train.csv does not name them).",
    ]
    message = refusal(make_study(tmp_path, APTOS | {"classes": {"grade*": "some"}}))
    assert "none of the labels 0, 1, 2" in message and "grade*" in message


def write_isic(root: Path, place: str = "train") -> None:
    lines = ["image_name,patient_id,sex,age_approx,diagnosis,benign_malignant,target"]
    for number in range(12):
        kind = "malignant" if number % 4 == 0 else "benign"
        lines.append(f"ISIC_{number:07d},IP_{number // 2},{'male' if number % 3 else ''},{40 + number},nevus,{kind},0")
        write_image(root / place / f"ISIC_{number:07d}.jpg", number)
    (root / "train.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("place", ["train", "jpeg/train"])
def test_the_isic_layout_and_its_listed_duplicates(place: str, tmp_path: Path) -> None:
    write_isic(tmp_path, place)
    without = adapters.load(make_study(tmp_path, ISIC))
    assert without.classes == ("benign", "malignant") and "listed_duplicates" not in without.facts
    assert without.frame["group"].nunique() == 6 and without.facts["grouped"]
    pairs = "image_name_1,image_name_2\nISIC_0000000,ISIC_0000005\nISIC_0000004,ISIC_0000011.jpg\nISIC_0000003,ISIC_9\n"
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").write_text(pairs)
    manifest = adapters.load(make_study(tmp_path, ISIC))
    assert manifest.facts["listed_duplicates"] == 3 and "1 of 3" in manifest.facts["notes"][0]
    # patients 0, 2 and 5 are linked by 0-5 and 4-11
    expected = ["IP_0", "IP_0", "IP_1", "IP_1", "IP_0", "IP_0", "IP_3", "IP_3", "IP_4", "IP_4", "IP_0", "IP_0"]
    assert manifest.frame["group"].tolist() == expected
    assert manifest.fingerprint() != without.fingerprint()
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").write_text("image_name_1\nISIC_0000000\n")
    assert "1 columns" in refusal(make_study(tmp_path, ISIC))


def linked(groups: list[int], pairs: list[tuple[int, int]]) -> list[frozenset[int]]:
    """Images that belong together, by joining sets until nothing changes: slow and plainly right."""
    sets = [{i for i, other in enumerate(groups) if other == group} for group in set(groups)]
    for one, other in pairs:
        joined = [members for members in sets if one in members or other in members]
        sets = [members for members in sets if members not in joined] + [set().union(*joined)]
    return sorted(map(frozenset, sets), key=min)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=8),
)
@settings(max_examples=30, deadline=None)
def test_listed_duplicates_join_groups_and_nothing_else(groups: list[int], pairs: list[tuple[int, int]]) -> None:
    names = pd.Series([f"i{n}" for n in range(len(groups))])
    labels = pd.Series([f"g{group}" for group in groups])
    merged, known = table._merge_groups(labels, names, [(f"i{one}", f"i{other}") for one, other in pairs])
    inside = [pair for pair in pairs if max(pair) < len(groups)]
    assert known == len(inside) and set(merged) <= set(labels)
    members = [frozenset(merged.index[merged == label]) for label in set(merged)]
    assert sorted(members, key=min) == linked(groups, inside)


def test_an_extra_class_of_a_table(tmp_path: Path) -> None:
    write_isic(tmp_path)
    layout(tmp_path, "healthy/a.png", "healthy/b.png")
    manifest = adapters.load(make_study(tmp_path, ISIC | {"extra_classes": {"healthy": "healthy", "ghost": "ghosts"}}))
    assert manifest.classes == ("benign", "malignant", "healthy")
    last = manifest.frame.iloc[-2:]
    assert last["image_id"].tolist() == last["group"].tolist() == ["healthy/healthy/a.png", "healthy/healthy/b.png"]
    assert last["sex"].tolist() == ["", ""] and last["age_approx"].isna().all()
    assert manifest.frame["age_approx"].iloc[0] == 40 and "ghosts" in manifest.facts["notes"][0]
    assert not manifest.facts["grouped"] and manifest.facts["notes"][1].startswith("2 of 14 images name no patient")
