"""Tables as people save them, the images that they name, and the spellings of one value."""

from __future__ import annotations

import gzip
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.layouts import layout, make_study, refusal, write_image
from scanbook.data import adapters, splits
from scanbook.data.adapters import spelling, tables
from scanbook.data.adapters.listing import Tree
from scanbook.data.manifest import COLUMNS, Manifest
from scanbook.errors import DataError


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


def table(**keys: Any) -> dict[str, Any]:
    return {"adapter": "table", "csv": "labels.csv", "image_column": "image", "label_column": "label", **keys}


def load(root: Path, rows: str, header: str = "image,label", **keys: Any) -> Manifest:
    (root / "labels.csv").write_text(f"{header}\n{rows}")
    return adapters.load(make_study(root, table(**keys)))


def refused(root: Path, rows: str, header: str = "image,label", **keys: Any) -> str:
    (root / "labels.csv").write_text(f"{header}\n{rows}")
    return refusal(make_study(root, table(**keys)))


def read_paths(root: Path, manifest: Manifest) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in manifest.frame["path"]]


# --- an image is the file that the table names


NAMED = {
    "folder": (["."], {"siteB/0.png": "siteB/0.png", "siteA/0.png": "siteA/0.png"}),
    "folder below an image folder": (["scans"], {"B/0.png": "scans/B/0.png", "A/0.png": "scans/A/0.png"}),
    "folder without extension": (["."], {"B/0": "B/0.png", "A/0": "A/0.png"}),
    "extension": (["im"], {"0.jpg": "im/0.jpg", "1.bmp": "im/1.bmp", "0.bmp": "im/0.bmp", "1.jpg": "im/1.jpg"}),
    "nested": (["."], {"p1/s2/view1.jpg": "p1/s2/view1.jpg", "p1/s1/view1.jpg": "p1/s1/view1.jpg"}),
    "bare stem": (["im", "other"], {"a": "im/a.png", "b": "other/b.png"}),
    "case": (["im"], {"a.png": "im/A.PNG", "B": "im/b.png"}),
    "case that decides": (["im"], {"a.png": "im/a.png", "A.png": "im/A.png"}),
    "a table in its own folder": (["im"], {"../im/a.png": "im/a.png", "../im/b.png": "im/b.png"}),
    "Windows": (["."], {"siteB\\0.png": "siteB/0.png", ".\\siteA\\0.png": "siteA/0.png"}),
    "dots": (["im"], {"1.2.840.2": "im/1.2.840.2.png", "1.2.840.1": "im/1.2.840.1.png"}),
    "the folder above": (["."], {"0.png": "0.png", "sub/0.png": "sub/0.png"}),
    "spaces": (["im"], {" a b.png ": "im/a b.png", "c.png": "im/c.png"}),
    "any depth": (["im"], {"a.png": "im/p1/s1/a.png", "b.png": "im/p2/b.png"}),
}


@pytest.mark.parametrize("kind", NAMED)
def test_folder_and_extension_decide(kind: str, tmp_path: Path) -> None:
    folders, named = NAMED[kind]
    layout(tmp_path, *sorted(named.values()))
    if kind == "case that decides" and (tmp_path / "IM").exists():
        pytest.skip("names that differ in case alone are one file here")
    rows = "".join(f"{name},{'xy'[number % 2]}\n" for number, name in enumerate(named))
    manifest = load(tmp_path, rows, image_folders=folders)
    assert read_paths(tmp_path, manifest) == list(named.values()) and manifest.frame["image_id"].is_unique


def test_the_forms_of_an_accent_are_one(tmp_path: Path) -> None:
    """As macOS writes the names of files, and Excel the table."""
    files = [unicodedata.normalize("NFD", name) for name in ("Müller/é.png", "Müller/è.png")]
    layout(tmp_path, *files)
    manifest = load(tmp_path, unicodedata.normalize("NFC", f"{files[0]},x\nè.png,y\n"))
    assert read_paths(tmp_path, manifest) == files


def test_ids_have_folders_where_names_repeat(tmp_path: Path) -> None:
    layout(tmp_path, "a/0.png", "b/0.png", "b/0.bmp")
    assert load(tmp_path, "a/0.png,x\nb/0.png,y\n").frame["image_id"].tolist() == ["a/0", "b/0"]
    ids = load(tmp_path, "a/0.png,x\nb/0.png,y\nb/0.bmp,x\n").frame["image_id"].tolist()
    assert ids == ["a/0.png", "b/0.png", "b/0.bmp"]


UNNAMED = {
    "another folder": (["siteA/0.png"], "siteB/0.png,x\nsiteB/1.png,y\n", "names 2 images that are in no image folder"),
    "another extension": (["0.bmp", "1.jpg"], "1.jpg,x\n0.jpg,y\n", "a file of that name is there as .bmp"),
    "two extensions": (["0.jpg", "0.bmp", "1.jpg"], "1,x\n0,y\n", "row 3: 2 different images have the name"),
    "two folders": (["a/0.png", "b/0.png"], "0.png,x\n", "row 2: 2 different images have the name"),
    "the same file elsewhere": (["im/0.png"], "/home/me/train/0.png,x\n", "in another folder: correct the folder in"),
    "numbers that Excel wrote": (["1.png", "2.png"], "1.0,x\n2.0,y\n", "a file of that number is there: write 1 into"),
    "zeros that Excel removed": (["000.png", "001.png"], "0,x\n1,y\n", "with other leading zeros: write them"),
    "no name": (["0.png", "1.png"], "0.png,x\n,y\n", "row 3 has no image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNNAMED)
def test_a_row_that_names_no_image_or_several_is_refused(kind: str, tmp_path: Path) -> None:
    files, rows, cause = UNNAMED[kind]
    layout(tmp_path, *files)
    assert cause in refused(tmp_path, rows)


def test_a_start_of_the_names_that_is_not_here(tmp_path: Path) -> None:
    layout(tmp_path, "train/p1/0.png", "train/p2/0.png")
    rows = "CheXpert-v1.0-small/train/p1/0.png,x\nCheXpert-v1.0-small/train/p2/0.png,y\n"
    assert "names 2 images" in refused(tmp_path, rows)
    manifest = load(tmp_path, rows, path_prefix="CheXpert-v1.0-small/")
    assert read_paths(tmp_path, manifest) == ["train/p1/0.png", "train/p2/0.png"]
    rows = rows.replace("CheXpert-v1.0-small", "/kaggle/input/chest")
    for prefix in ("/kaggle/input/chest/", "kaggle/input/chest", "\\kaggle\\input\\chest"):
        assert read_paths(tmp_path, load(tmp_path, rows, path_prefix=prefix)) == read_paths(tmp_path, manifest)


def test_masks_lie_in_the_folder_of_their_image(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{kind}/{site}/0.png" for kind in ("images", "masks") for site in "ab"), "masks/a/1.png")
    manifest = load(tmp_path, "a/0.png,x\nb/0.png,y\n", image_folders=["images"], mask_folder="masks")
    assert manifest.frame["mask_path"].tolist() == [str(tmp_path / f"masks/{site}/0.png") for site in "ab"]
    assert manifest.facts["unused"] == {"masks of no image": {".png": 1}, "no image": {".csv": 1}}


SITES, STEMS = ("", "north", "south", "north/deep"), ("0", "1", "a b", "é", "1.2")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_manifest_holds_the_files_that_the_table_names(data: st.DataObject) -> None:
    """Any files, any of them named in any order by their path, some in several rows."""
    place = st.tuples(st.sampled_from(SITES), st.sampled_from(STEMS), st.sampled_from([".png", ".jpg", ".bmp"]))
    every = data.draw(st.lists(place, unique=True, min_size=2, max_size=14))
    files = [f"{site}/{name}{extension}".lstrip("/") for site, name, extension in every]
    rows = data.draw(st.lists(st.sampled_from(files), min_size=2, max_size=20))
    labels = {name: "xy"[number % 2] for number, name in enumerate(dict.fromkeys(rows))}
    if len(labels) < 2:
        return
    with tempfile.TemporaryDirectory() as folder:
        root = layout(Path(folder), *files)
        manifest = load(root, "".join(f'"{name}",{labels[name]}\n' for name in rows))
        paths = read_paths(root, manifest)
        assert paths == list(labels) and manifest.frame["label"].tolist() == list(labels.values())
        unused = sum(sum(kinds.values()) for kinds in manifest.facts["unused"].values())
        assert unused == len(files) - len(labels) + 1, "all but the images, and the table"
        merged = f"{len(rows) - len(labels)} of {len(rows)} rows of labels.csv repeat the image of another row"
        assert any(note.startswith(merged) for note in manifest.facts["notes"]) == (len(rows) > len(labels))


@settings(max_examples=15, deadline=None)
@given(st.integers(12, 40), st.integers(1, 6), st.sets(st.integers(0, 9), max_size=3), st.integers(0, 5))
def test_the_splits_partition_what_is_listed(images: int, per_patient: int, broken: set[int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(images):
            path = write_image(root / f"{number}.png", 100 * seed + number)
            if number in broken:
                path.write_bytes(b"\x89PNG")
        rows = "".join(
            f"{n}.png,{'xy'[n % 2]},{'NA' if n % 7 == 0 else f'p{n // per_patient}'}\n" for n in range(images)
        )
        (root / "labels.csv").write_text("image,label,who\n" + rows)
        study = make_study(root, table(group_column="who"), splits={"test_folds": 3, "validation_folds": 3})
        try:
            dataset = splits.split_study(study)
        except DataError:
            return  # too few patients
    frame = dataset.manifest.frame
    used = {split: set(frame.loc[frame["split"] == split, "image_id"]) for split in ("train", "validation", "test")}
    parts = [*used.values(), set(dataset.excluded["image_id"])]
    assert Counter(name for part in parts for name in part) == Counter(str(number) for number in range(images))
    assert {str(number) for number in broken} <= set(dataset.excluded["image_id"])
    assert frame[frame["split"] != ""].groupby("group")["split"].nunique().max() == 1


# --- rows of one image


def test_rows_of_one_image_that_agree_are_one(tmp_path: Path) -> None:
    """As RSNA's table, with a row for each bounding box."""
    layout(tmp_path, "a.png", "b.png", "c.png")
    rows = "a,0,5,p1,40\nb,1,1,p2,\nb,1,2,p2,50\nB.png,1,3,NA,50\nc,0,,p3,60\n"
    manifest = load(tmp_path, rows, "image,label,x,who,age", group_column="who", metadata=["age"])
    assert manifest.frame["image_id"].tolist() == ["a", "b", "c"] and manifest.frame["group"].tolist() == [
        "p1",
        "p2",
        "p3",
    ]
    assert manifest.frame["age"].tolist() == [40, 50, 60]
    assert "2 of 5 rows of labels.csv repeat" in manifest.facts["notes"][0]


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ("a,0,p1,train\nb,1,p2,test\na,1,p1,train\n", "rows 2 and 4 name the same image, and differ in label"),
        ("a,0,p1,train\nb,1,p2,test\nA.png,1,p1,train\n", "rows 2 and 4 name the same image, and differ in label"),
        ("a,0,p1,train\nb,1,p2,test\nb,1,p3,test\n", "rows 3 and 4 name the same image, and differ in who"),
        ("a,0,p1,train\n\nb,1,p2,test\nb,1,p2,train\n", "rows 4 and 5 name the same image, and differ in part"),
        ("a,0,p1,train\nb,1,p2,test\na,9,p1,train\n", "rows 2 and 4 name the same image, and differ in label"),
    ],
)  # fmt: skip
def test_rows_of_one_image_that_disagree_are_named(rows: str, cause: str, tmp_path: Path) -> None:
    layout(tmp_path, "a.png", "b.png")
    keys = {"group_column": "who", "split_column": "part", "classes": {"0": "no", "1": "yes"}}
    assert cause in refused(tmp_path, rows, "image,label,who,part", **keys)


# --- how a table is saved


WORDS = ["gesund", "größer"], ["normal", "lesão"], ["正常", "黑色素瘤"], ["здоров", "меланома"], ["정상", "흑색종"]
SAVED = {
    "comma": (",", "utf-8", WORDS[0]),
    "semicolon": (";", "utf-8-sig", WORDS[0]),
    "tab": ("\t", "utf-16", WORDS[2]),
    "pipe": ("|", "utf-8", WORDS[3]),
    "German Excel": (";", "cp1252", WORDS[0]),
    "Portuguese": (",", "latin-1", WORDS[1]),
    "Chinese": (",", "gb18030", WORDS[2]),
    "Russian": (";", "cp1251", WORDS[3]),
    "Korean": (",", "euc_kr", WORDS[4]),
}


@pytest.mark.parametrize("kind", SAVED)
def test_separator_and_encoding_are_found(kind: str, tmp_path: Path) -> None:
    separator, encoding, words = SAVED[kind]
    lines = [["image", "label", "note, free"], *([f"p{n}.png", words[n % 2], "a, b; c"] for n in range(20))]
    quoted = "\r\n".join(
        separator.join(f'"{cell}"' if set(cell) & set(",;") else cell for cell in line) for line in lines
    )
    (tmp_path / "labels.csv").write_bytes((quoted + "\r\n").encode(encoding))
    read = tables.read(tmp_path / "labels.csv")
    assert read.rows.to_numpy().tolist() == lines[1:] and list(read.rows) == lines[0]
    assert read.rows.index.tolist() == list(range(2, 22)) and bool(read.notes) == (not encoding.startswith("utf"))


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    layout(tmp_path, "p10/a.png", "p11/b.png")
    for rows, row in (("a,mild, left,1\nb,y,2", 2), ("b,y,2\n\na,mild, left,1", 4)):
        assert f"row {row} has 4 cells, and the first row 3: put quotes" in refused(tmp_path, rows, "image,label,age")
        assert f"row {row} has 4 cells" in refusal(make_study(tmp_path)), "p10 and p11 are no classes"
    assert load(tmp_path, "a,x,1\nb,y,2,,\n", "image,label,age").classes == ("x", "y"), "empty cells at the end"


def test_a_table_of_patients_is_not_passed_over(tmp_path: Path) -> None:
    layout(tmp_path, *(f"clinic{'AB'[n % 2]}/P{n}/{view}.png" for n in range(6) for view in ("L", "R")))
    rows = "".join(f"P{n},{'xy'[n % 2]}\n" for n in range(6))
    (tmp_path / "patients.csv").write_text(f"patient,label\n{rows}")
    assert "patients.csv names folders of images in its column patient, and no images" in refusal(make_study(tmp_path))
    (tmp_path / "patients.csv").write_text("class,text\nclinicA,one\nclinicB,two\nother,three\n")
    assert adapters.load(make_study(tmp_path)).classes == ("clinicA", "clinicB"), "a table of the classes"


def test_tables_that_are_not_read_are_named_once_and_without_their_folders(tmp_path: Path) -> None:
    layout(tmp_path, "ill/Doe^J/1.png", "ill/Roe^J/1.png", "well/1.png")
    for patient in ("Doe^J", "Roe^J"):
        (tmp_path / "ill" / patient / "report.csv").write_text("finding,size\nnodule,large\n")
    found, notes = tables.image_tables(Tree(tmp_path))
    assert found == [] and notes == ["report.csv is not read: it names no image of the folder."]


def test_a_table_with_the_ends_of_lines_of_excel_for_macintosh(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"image,label\ra,x\rb,y\r")
    assert tables.read(tmp_path / "t.csv").rows.to_numpy().tolist() == [["a", "x"], ["b", "y"]]


def test_a_table_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "labels.csv").write_text("image,label\n")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "labels.csv (Permission denied); give read access" in refusal(make_study(tmp_path))


def test_a_table_that_gzip_compressed(tmp_path: Path) -> None:
    """As PhysioNet gives its tables."""
    layout(tmp_path, "p10/a.png", "p11/b.png")
    (tmp_path / "labels.csv.gz").write_bytes(packed := gzip.compress(b"image,label\na,x\nb,y\n"))
    assert "labels.csv.gz names images of" in refusal(make_study(tmp_path)), "p10 and p11 are no classes"
    manifest = adapters.load(make_study(tmp_path, {**table(), "csv": "labels.csv.gz"}))
    assert manifest.classes == ("x", "y") and manifest.facts["unused"] == {"no image": {".gz": 1}}
    (tmp_path / "labels.csv.gz").write_bytes(packed[:20])
    with pytest.raises(DataError, match="is damaged"):
        tables.read(tmp_path / "labels.csv.gz")


def test_excels_line_with_the_separator_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('sep=;\nimage;age\na;"45,5"\n;\n\nb;50\n')
    read = tables.read(tmp_path / "t.csv")
    assert read.separator == ";" and read.rows["image"].to_dict() == {2: "a", 5: "b"}
    assert spelling.metadata(read.rows["age"], decimal_comma=True).tolist() == [45.5, 50.0]


# --- spellings


def test_a_column_of_metadata_that_is_named_twice(tmp_path: Path) -> None:
    layout(tmp_path, "0.png", "1.png")
    frame = load(tmp_path, "0,x,g\n1,y,h\n", "image,label,group", metadata=["group", "group"]).frame
    assert list(frame) == [*COLUMNS, "group (source)"]


def test_one_list_of_spellings_of_not_told(tmp_path: Path) -> None:
    spellings = ["NA", "n/a", "nan", "NULL", "None", "Unknown", "unk", "-", "?", "", " N/A ", "withheld"]
    layout(tmp_path, *(f"{n}.png" for n in range(24)))
    rows = "".join(
        f"{n},{'xy'[n % 2]},{[*spellings, *'pqrstuvwxyzo'][n]},{[*spellings, *range(30, 42)][n]}\n" for n in range(24)
    )
    keys = {"group_column": "who", "metadata": ["age"], "not_told": ["Withheld"]}
    manifest = load(tmp_path, rows, "image,label,who,age", **keys)
    assert manifest.frame["group"].nunique() == 24 and "p" in set(manifest.frame["group"])
    assert manifest.frame["age"].dtype == float and manifest.frame["age"].isna().sum() == 12
    assert "12 of 24 images name no patient (group): each counts as a group of its own." in manifest.facts["notes"]
    assert "names no patients" not in splits.remarks(manifest.with_frame(manifest.frame.assign(split="train")))


@pytest.mark.parametrize(("who", "groups"), [("ANONYMOUS", 6), ("anon", 6), ("P1", 6), ("P{}", 3)])
def test_one_identifier_for_all_images_is_not_a_patient(who: str, groups: int, tmp_path: Path) -> None:
    layout(tmp_path, *(f"{n}.png" for n in range(6)))
    rows = "".join(f"{n},{'xy'[n % 2]},{who.format(n // 2)}\n" for n in range(6))
    manifest = load(tmp_path, rows, "image,label,who", group_column="who")
    assert manifest.frame["group"].nunique() == groups and manifest.facts["names_groups"] == (groups == 3)
    assert any("identifies none" in note for note in manifest.facts["notes"]) == (who == "P1")


def test_spellings_of_one_patient() -> None:
    """As two tables of a spreadsheet that were joined, one with empty cells, and as DICOM's names of nobody."""
    names = pd.Series(["12.0", "12", " 13", "13.0", "nan", "(blank)", "#REF!"])
    assert spelling.patients(names)[0].tolist() == ["12", "12", "13", "13", "", "", ""]
    assert spelling.patients(pd.Series(["12.0", "a", "b"]))[0].tolist() == ["12.0", "a", "b"]
    names = pd.Series(["Anonymous^^", "ANONYMOUS^PATIENT", "ANON", "Doe^J", "Doe^J", "k.A."])
    assert spelling.patients(names)[0].tolist() == ["", "", "", "Doe^J", "Doe^J", ""], "the one that is told stays"
    assert spelling.patients(pd.Series(["A"] * 5 + ["NA"]))[0].tolist() == [""] * 6


def test_an_identifier_of_very_many_images_is_noted() -> None:
    names = pd.Series(["-1"] * 40 + [f"p{number // 2}" for number in range(60)])
    told, note = spelling.patients(names)
    assert told.equals(names) and note.startswith("One patient has 40 of 100 images: if the identifier means that")
    assert spelling.patients(names, ["-1"])[1] == "" == spelling.patients(names[30:])[1]


def test_an_image_without_a_patient_is_not_in_the_group_that_has_its_name(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{n}.png" for n in range(4)))
    groups = load(tmp_path, "0,x,1\n1,y,\n2,x,3\n3,y,3\n", "image,label,who", group_column="who").frame["group"]
    assert groups.nunique() == 3 and groups[0] != groups[1] and groups[2] == groups[3]


def test_ages_and_other_metadata() -> None:
    ages = spelling.metadata(pd.Series(["058Y", "006M", "?", "000D"]))
    assert ages[[0, 1, 3]].tolist() == [58, 0.5, 0] and np.isnan(ages[2])
    for values in (["45 years", "60 yrs", ">89", "NA"], ["045Y", "60", "89+", "?"], ["45", "60.0", "≥ 89", ""]):
        assert spelling.metadata(pd.Series(values)).tolist()[:3] == [45, 60, 89]
    for values in (["1+", "2+"], ["3D", "2D"], ["10-20", ">20"], ["T1", "2"]):
        assert spelling.metadata(pd.Series(values)).tolist() == values, "no ages"
    assert spelling.metadata(pd.Series(["1,5", "2"])).tolist() == ["1,5", "2"], "a comma may separate thousands"
    sexes = pd.Series(["male", "Male", "M", "F", "unknown", "f"])
    assert spelling.metadata(sexes).tolist() == ["male"] * 3 + ["female", "", "female"]
    sides = pd.Series(["left", "Left", "left", "right", "?"])
    assert spelling.metadata(sides).tolist() == ["left"] * 3 + ["right", ""]


@pytest.mark.parametrize(("separator", "values"), [(";", [1.234, 2.0]), ("\t", ["1,234", "2"]), ("|", ["1,234", "2"])])
def test_a_comma_in_a_number_is_its_decimal_sign_where_semicolons_separate(
    separator: str, values: list[float | str], tmp_path: Path
) -> None:
    layout(tmp_path, "a.png", "b.png")
    rows = "a,x,1,234\nb,y,2\n".replace(",", separator).replace(f"1{separator}234", "1,234")
    manifest = load(tmp_path, rows, separator.join(("image", "label", "dose")), metadata=["dose"])
    assert manifest.frame["dose"].tolist() == values


def test_labels_of_one_number_are_one_class(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{n}.png" for n in range(4)))
    rows = "0,1\n1,1.0\n2, 0\n3,0.00\n"
    assert load(tmp_path, rows).frame["label"].tolist() == ["1", "1", "0", "0"]
    named = load(tmp_path, rows, classes={"1": "ill", "0*": "well"})
    assert named.frame["label"].tolist() == ["ill", "ill", "well", "well"]
    mixed = load(tmp_path, "0,1.0\n1,b\n2,B\n3,1.0\n")
    assert mixed.frame["label"].tolist() == ["1.0", "B", "B", "1.0"], (
        "not all labels are numbers; case alone never counts"
    )


def test_a_label_that_may_mean_not_told_is_noted(tmp_path: Path) -> None:
    layout(tmp_path, *(f"{n}.png" for n in range(4)))
    manifest = load(tmp_path, "0,1.0\n1,0\n2,NA\n3,1\n")
    assert manifest.classes == ("0", "1", "NA") and manifest.facts["notes"][0].startswith("NA counts as a class: if")
    named = load(tmp_path, "0,1.0\n1,0\n2,NA\n3,1\n", classes={"0": "no", "1": "yes"})
    assert named.classes == ("no", "yes") and not any("counts as a class" in note for note in named.facts["notes"])


def test_metadata_cannot_overwrite_the_manifests_columns(tmp_path: Path) -> None:
    own = [*COLUMNS, "folder"]
    layout(tmp_path, "0.png", "1.png")
    rows = "".join(f"{n},{'xy'[n]},{','.join(f'{column} {n}' for column in own)}\n" for n in range(2))
    plain = load(tmp_path, rows, f"image,kind,{','.join(own)}", label_column="kind")
    manifest = load(tmp_path, rows, f"image,kind,{','.join(own)}", label_column="kind", metadata=own)
    assert manifest.frame[list(COLUMNS)].equals(plain.frame)
    assert manifest.metadata == [f"{column} (source)" for column in own]
    assert manifest.frame["split (source)"].tolist() == ["split 0", "split 1"]
