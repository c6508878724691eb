"""Tables and archives of findings, in the layouts of public datasets and of wards, become a manifest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers.layouts import layout, make_study, refusal, write_image
from scanbook.config import Study
from scanbook.data import adapters, dicom, images, splits
from scanbook.data.adapters import medmnist
from scanbook.data.manifest import Manifest, finding_column
from scanbook.errors import DataError


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


NAN = float("nan")


def table(root: Path, text: str, *places: str, name: str = "labels.csv", **keys: Any) -> Study:
    """A study of a table whose first column names images; in `places`, {n} stands for the name of each."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, "utf-8")
    header, *rows = [line for line in text.splitlines() if line]
    separator = ";" if ";" in header else ","
    for number, row in enumerate(rows):
        for place in places or ("{n}.png",):
            write_image(root / place.format(n=row.split(separator)[0]), number)
    first = header.split(separator)[0]
    return make_study(root, {"adapter": "table", "csv": name, "image_column": first, **keys})


def stated(manifest: Manifest, finding: str) -> list[float]:
    return manifest.frame[finding_column(finding)].tolist()


def same(values: list[float], expected: list[float]) -> bool:
    return np.array_equal(values, expected, equal_nan=True)


def note(manifest: Manifest, words: str) -> str:
    (found,) = [text for text in manifest.facts["notes"] if words in text]
    return found


# --- names in a cell

CHEST_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
"""The header of ChestX-ray14, with its commas in brackets and at its end."""
CHEST = {
    **{"csv": "Data_Entry_2017.csv", "label_column": "Finding Labels", "label_separator": "|"},
    **{"no_finding": "No Finding", "group_column": "Patient ID", "metadata": ["Patient Age", "Patient Gender"]},
    "split_lists": {"train": "train_val_list.txt", "test": "test_list.txt"},
}


def chest_xray14(root: Path, unpacked: int = 2, **keys: Any) -> Study:
    """Kaggle's layout in miniature: twelve images of four patients in two folders, of which some are unpacked."""
    labels = ["No Finding", "Mass", "Mass|Nodule", "Effusion|Infiltration", "No Finding", "Hernia"] * 2
    lines, names = [CHEST_HEADER], []
    for number, label in enumerate(labels):
        names.append(f"{number // 3 + 1:08d}_{number % 3:03d}.png")
        lines.append(f"{names[-1]},{label},{number % 3},{number // 3 + 1},{50 + number},M,PA,2682,2749,0.143,0.143,")
        if number // 6 < unpacked:
            write_image(root / f"images_00{number // 6 + 1}" / "images" / names[-1], number)
    root.mkdir(exist_ok=True)
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(names[:6]))
    (root / "test_list.txt").write_text("\r\n".join(names[6:]) + "\r\n")
    dataset = {"adapter": "table", "image_column": "Image Index", **CHEST, **keys}
    return make_study(root, dataset)


def test_the_layout_of_chest_x_ray_14(tmp_path: Path) -> None:
    manifest = adapters.load(chest_xray14(tmp_path))
    assert manifest.findings == ("Effusion", "Hernia", "Infiltration", "Mass", "Nodule") and not manifest.classes
    assert stated(manifest, "Mass") == [0, 1, 1, 0, 0, 0] * 2 and stated(manifest, "Hernia") == [0, 0, 0, 0, 0, 1] * 2
    assert manifest.frame["label"].tolist()[:4] == ["no finding", "Mass", "Mass, Nodule", "Effusion, Infiltration"]
    assert manifest.frame["split"].tolist() == ["train"] * 6 + ["test"] * 6
    assert manifest.frame["group"].tolist() == [str(number // 3 + 1) for number in range(12)]
    assert manifest.metadata == ["Patient Age", "Patient Gender"] and not manifest.has_exams
    assert manifest.frame["Patient Age"].tolist() == list(range(50, 62)) and manifest.facts["grouped"]
    assert not [text for text in manifest.facts["notes"] if "Not used" in text]


def test_findings_are_selected_renamed_and_joined(tmp_path: Path) -> None:
    manifest = adapters.load(
        chest_xray14(tmp_path, findings={"Nodule": "lump", "mass": "lump", "Effusion": "fluid"}, split_lists={})
    )
    assert manifest.findings == ("lump", "fluid")
    assert stated(manifest, "lump") == [0, 1, 1, 0, 0, 0] * 2 and stated(manifest, "fluid") == [0, 0, 0, 1, 0, 0] * 2
    assert "ignored: Infiltration (2), Hernia (2)" in note(manifest, "does not name")


def test_a_partly_unpacked_dataset_runs_on_what_is_there(tmp_path: Path) -> None:
    message = refusal(chest_xray14(tmp_path, unpacked=1))
    assert "names 6 images that are in no image folder, the first in row 8" in message and "allow_missing" in message
    table = tmp_path / "Data_Entry_2017.csv"
    study = chest_xray14(tmp_path, unpacked=1, allow_missing=True, split_lists={})
    table.write_text(table.read_text().replace("Hernia", "Mass", 1))  # the first is unpacked, the second is not
    manifest = adapters.load(study)
    assert len(manifest.frame) == 6 and note(manifest, "6 of 12 rows name an image that is not there")
    assert manifest.facts["partial"]
    assert "Hernia" not in manifest.findings and finding_column("Hernia") not in manifest.frame
    assert "'Hernia' is present in 0, absent in 6 of 6 images" in note(manifest, "runs without Hernia")
    # a prevalence of an excluded finding stops nothing, so that the few patients are refused; a wrong name does
    for name, problem in (("Hernia", "come in 2 groups"), ("Hernai", "Hernai")):
        given = study.model_copy(update={"evaluation": study.evaluation.model_copy(update={"prevalence": {name: 0.1}})})
        with pytest.raises(DataError, match=problem):
            splits.prepare(given)
    columns = {"metadata": ["Patient Age", "Smoker"], "split_lists": {}}
    manifest = adapters.load(chest_xray14(tmp_path, unpacked=1, allow_missing=True, **columns))
    assert set(manifest.frame["Smoker"]) == {""} and note(manifest, "Data_Entry_2017.csv has no column Smoker")
    assert "no column 'Smoker'" in refusal(chest_xray14(tmp_path, **columns))
    listed = chest_xray14(tmp_path, unpacked=1, allow_missing=True, no_finding="")
    for name in ("train_val_list.txt", "test_list.txt"):
        (tmp_path / name).unlink()
    manifest = adapters.load(listed)
    assert set(manifest.frame["split"]) == {""} and note(manifest, "so the splits are not those of the source")
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert "names 12 images that are in no image folder" in refusal(study)


def test_lists_of_splits(tmp_path: Path) -> None:
    study = chest_xray14(tmp_path)
    test, train = tmp_path / "test_list.txt", tmp_path / "train_val_list.txt"
    named = test.read_text().split()
    test.write_text("\n".join(["unknown.png", *(f"other/folder/{name}" for name in named[:-1])]))
    manifest = adapters.load(study)
    assert manifest.frame["split"].value_counts().to_dict() == {"train": 6, "test": 5}
    assert note(manifest, "1 of 12 lines of train_val_list.txt, test_list.txt name no image")
    assert note(manifest, "1 of 12 rows are in no list")
    assert "1 .png (their rows are not read)" in note(manifest, "Not used")
    train.write_text(train.read_text() + f"\n{named[2]}")
    assert "train_val_list.txt line 7 and test_list.txt line 4 name the same image" in refusal(study)
    train.write_text("a\nb")
    test.write_text("")
    assert "no line names an image of Data_Entry_2017.csv" in refusal(study)
    test.unlink()
    assert "test_list.txt (No such file" in refusal(study)


def test_a_patient_in_two_lists_is_kept_for_the_split_to_refuse(tmp_path: Path) -> None:
    study = chest_xray14(tmp_path)
    names = [*(tmp_path / "train_val_list.txt").read_text().split(), *(tmp_path / "test_list.txt").read_text().split()]
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:5]))
    (tmp_path / "test_list.txt").write_text("\n".join(names[5:]))
    frame = adapters.load(study).frame
    assert frame.groupby("group")["split"].nunique()["2"] == 2


def test_lists_of_strings_as_in_padchest(tmp_path: Path) -> None:
    cells = [
        *("\"['normal']\"", "\"['pleural effusion', 'pneumonia']\"", '"[""heart\'s apex"", \'pneumonia\']"', "[]"),
        *("\"[' cardiomegaly', 'pleural effusion']\"", "", "nan", "\"['Unchanged']\""),
    ]
    text = "ImageID,StudyID,Labels\n" + "".join(f"{n},{n // 2},{cell}\n" for n, cell in enumerate(cells))
    keys = {"label_column": "Labels", "label_separator": ",", "no_finding": "normal", "exam_column": "StudyID"}
    manifest = adapters.load(table(tmp_path, text, **keys))
    assert manifest.findings == ("cardiomegaly", "heart's apex", "pleural effusion", "pneumonia", "Unchanged")
    assert same(stated(manifest, "pneumonia"), [0, 1, 1, 0, 0, NAN, NAN, 0])
    assert manifest.frame["label"].tolist()[5] == "not labelled" and note(manifest, "2 of 8 rows have no label")
    assert manifest.frame["exam"].tolist() == list("00112233")
    again = table(tmp_path, text, **keys, blank="absent", findings=["pneumonia", "cardiomegaly"])
    assert stated(adapters.load(again), "pneumonia") == [0, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("cells", "separator", "expected"),
    [
        (["a; b", "b;", " ; a", "c;A"], ";", {"a": [1, 0, 1, 1], "b": [1, 1, 0, 0], "c": [0, 0, 0, 1]}),
        (["a b", "b", "a", "b  a"], " ", {"a": [1, 0, 1, 1], "b": [1, 1, 0, 1]}),
        (["a+b", "b", "a+a", "none"], "+", {"a": [1, 0, 1, NAN], "b": [1, 1, 0, NAN]}),
    ],
)
def test_separators(cells: list[str], separator: str, expected: dict[str, list[float]], tmp_path: Path) -> None:
    text = "image,found\n" + "".join(f'{n},"{cell}"\n' for n, cell in enumerate(cells))
    manifest = adapters.load(table(tmp_path, text, label_column="found", label_separator=separator))
    assert manifest.findings == tuple(expected)
    assert all(same(stated(manifest, name), values) for name, values in expected.items())


def test_spellings_of_nothing_are_no_finding(tmp_path: Path) -> None:
    text = "image,found\n" + "".join(
        f"{n},{cell}\n" for n, cell in enumerate(["a;b", "A", "b", "a", "Normal", "normal"])
    )
    keys = {"label_column": "found", "label_separator": ";", "no_finding": "Normal"}
    manifest = adapters.load(table(tmp_path, text, **keys))
    assert manifest.findings == ("a", "b") and stated(manifest, "a") == [1, 1, 0, 1, 0, 0]
    assert note(manifest, "a and A differ in case alone: they are one finding, a.")
    assert not any("Normal" in text for text in manifest.facts["notes"])


def test_a_name_for_nothing_that_the_study_does_not_name_is_told(tmp_path: Path) -> None:
    manifest = adapters.load(chest_xray14(tmp_path, no_finding=""))
    assert "No Finding" in manifest.findings and note(manifest, "No Finding counts as a finding")
    text = "image,found\n0,a\n1,b\n2,a\n3,b\n"
    manifest = adapters.load(table(tmp_path / "one", text, label_column="found", label_separator="|"))
    assert note(manifest, "No cell of found names several findings")


# --- a column per finding

CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema,Support Devices"
CHEXPERT = {
    **{"csv": {"train": "train.csv", "test": "valid.csv"}, "image_column": "Path"},
    **{"path_prefix": "CheXpert-v1.0-small/", "findings": ["Cardiomegaly", "Edema", "Support Devices"]},
    **{"group_column": "Path", "group_pattern": r"patient\d+", "exam_pattern": r"(patient\d+/study\d+)/"},
    **{"no_finding": "No Finding", "metadata": ["Sex", "Age"]},
}
TRAIN = [
    "train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,1.0",
    "train/patient00002/study1/view1_frontal.jpg,Male,70,Frontal,PA,,-1.0,1.0,",
    "train/patient00002/study1/view2_lateral.jpg,Male,70,Lateral,,,-1.0,1.0,",
    "train/patient00002/study2/view1_frontal.jpg,Male,71,Frontal,PA,,1.0,-1.0,",
    "train/patient00003/study1/view1_frontal.jpg,Female,40,Frontal,AP,,0.0,0.0,0.0",
]
VALID = [
    "valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,0.0,0.0",
    "valid/patient64542/study1/view1_frontal.jpg,Male,70,Frontal,PA,1.0,0.0,0.0,0.0",
]


def chexpert(root: Path, **keys: Any) -> Study:
    for name, rows in (("train.csv", TRAIN), ("valid.csv", VALID)):
        lines = [CHEXPERT_HEADER, *(f"CheXpert-v1.0-small/{row}" for row in rows)]
        root.mkdir(exist_ok=True)
        (root / name).write_text("\n".join(lines) + "\n")
        layout(root, *(row.split(",")[0] for row in rows))
    return make_study(root, {"adapter": "table", **CHEXPERT, **keys})


def test_the_layout_of_chexpert(tmp_path: Path) -> None:
    manifest = adapters.load(chexpert(tmp_path))
    frame = manifest.frame
    assert manifest.findings == ("Cardiomegaly", "Edema", "Support Devices")
    assert same(stated(manifest, "Cardiomegaly"), [NAN, -1, -1, 1, 0, 1, 0])
    assert frame["split"].tolist() == ["train"] * 5 + ["test"] * 2
    assert frame["group"].tolist()[:4] == ["patient00001", *["patient00002"] * 3]
    assert frame["exam"].tolist()[1:4] == ["patient00002/study1"] * 2 + ["patient00002/study2"]
    assert note(manifest, "beside") == "Rows with No Finding beside a finding: 1 of 7 (Support Devices 1)."
    assert manifest.metadata == ["Sex", "Age"] and frame["Age"].tolist()[0] == 68
    assert same(manifest.labels.values[:, 0].tolist(), [NAN, NAN, NAN, 1, 0, 1, 0])


def test_a_folder_around_the_dataset_is_passed_over(tmp_path: Path) -> None:
    inside = adapters.load(chexpert(tmp_path / "CheXpert-v1.0-small")).frame
    study = chexpert(tmp_path / "CheXpert-v1.0-small")
    around = study.model_copy(update={"data": str(tmp_path)})
    assert adapters.load(around).frame["image_id"].tolist() == inside["image_id"].tolist()
    (tmp_path / "copy").mkdir()
    for name in ("train.csv", "valid.csv"):  # which of two?
        (tmp_path / "copy" / name).write_bytes((tmp_path / "CheXpert-v1.0-small" / name).read_bytes())
    assert "train.csv does not exist" in refusal(around)


def test_images_of_one_name_are_told_apart_by_the_folder_of_their_split(tmp_path: Path) -> None:
    tables = {}
    for split, folder in (("train", "a. Training Set"), ("test", "b. Testing Set")):
        for number in range(4):
            write_image(tmp_path / "1. Images" / folder / f"{number}.png", number + 4 * (split == "test"))
        tables[split] = f"2. Labels/{folder[0]}. {split}.csv"
        (tmp_path / "2. Labels").mkdir(exist_ok=True)
        (tmp_path / tables[split]).write_text("ID,DR,AMD\n0,0,0\n1,1,0\n2,0,1\n3,1,1\n")
    dataset = {"adapter": "table", "csv": tables, "image_column": "ID", "findings": ["DR", "AMD"]}
    frame = adapters.load(make_study(tmp_path, dataset)).frame
    assert [Path(path).parent.name for path in frame["path"]] == ["a. Training Set"] * 4 + ["b. Testing Set"] * 4
    assert frame["split"].tolist() == ["train"] * 4 + ["test"] * 4


@pytest.mark.parametrize(
    ("keys", "cardiomegaly", "edema"),
    [
        ({"uncertain": "positive"}, [NAN, 1, 1, 1, 0, 1, 0], [NAN, 1, 1, 1, 0, 0, 0]),
        ({"uncertain": {"Cardiomegaly": "negative"}}, [NAN, 0, 0, 1, 0, 1, 0], [NAN, 1, 1, NAN, 0, 0, 0]),
        ({"blank": "absent"}, [0, NAN, NAN, 1, 0, 1, 0], [0, 1, 1, NAN, 0, 0, 0]),
        ({"blank": "absent with no_finding"}, [0, NAN, NAN, 1, 0, 1, 0], [0, 1, 1, NAN, 0, 0, 0]),
    ],
)
def test_uncertain_and_blank_count_as_the_study_says(
    keys: dict[str, Any], cardiomegaly: list[float], edema: list[float], tmp_path: Path
) -> None:
    labels = adapters.load(chexpert(tmp_path, **keys)).labels.values
    assert same(labels[:, 0].tolist(), cardiomegaly) and same(labels[:, 1].tolist(), edema)


def test_blank_with_no_finding_is_absent_in_its_rows_alone(tmp_path: Path) -> None:
    devices = stated(adapters.load(chexpert(tmp_path, blank="absent with no_finding")), "Support Devices")
    assert same(devices, [1, NAN, NAN, NAN, 0, 0, 0])
    assert stated(adapters.load(chexpert(tmp_path, blank="absent")), "Support Devices") == [1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("value", ["Frontal", "frontal "])
def test_rows_are_included_by_their_values(value: str, tmp_path: Path) -> None:
    manifest = adapters.load(chexpert(tmp_path, include={"Frontal/Lateral": [value]}))
    assert len(manifest.frame) == 6 and "6 of 7 rows are read" in note(manifest, "include")
    assert "1 .jpg (their rows are not read)" in note(manifest, "Not used")
    message = refusal(chexpert(tmp_path, include={"Frontal/Lateral": ["PA"]}))
    assert "no row has PA in Frontal/Lateral; its values are Frontal, Lateral" in message


@pytest.mark.parametrize(("values", "count"), [([1], 2), (["1.0"], 2), ([0, 1], 3), ([True], 0), ([""], 4)])
def test_values_to_include_may_be_numbers(values: list[Any], count: int, tmp_path: Path) -> None:
    study = chexpert(tmp_path, include={"No Finding": values}, findings=["Cardiomegaly"], blank="absent")
    if count == 0:
        assert "no row has" in refusal(study)
    elif count == 4:
        assert len(adapters.load(study).frame) == count
    else:
        message = refusal(study) if count == 2 else ""
        assert ("'Cardiomegaly' is present in 0" in message) == (count == 2)


def test_the_layout_of_rfmid_whose_tables_name_images_alike(tmp_path: Path) -> None:
    """Three tables, each beside a folder whose images have the same numbers."""
    places = {"train": "Training", "validation": "Validation", "test": "Test"}
    tables = {}
    for number, (split, place) in enumerate(places.items()):
        home = f"{place}_Set/{place}_Set"
        tables[split] = f"{home}/RFMiD_{place}_Labels.csv"
        rows = [f"{n},{int(n > 1)},{int(n == 2)},{int(n > 2)}" for n in (1, 2, 3)]
        (tmp_path / home).mkdir(parents=True)
        (tmp_path / tables[split]).write_text("\n".join(["ID,Disease_Risk,DR,ARMD ", *rows]) + "\n")
        for n in (1, 2, 3):
            write_image(tmp_path / home / place / f"{n}.png", 10 * number + n)
    keys = {"csv": tables, "image_column": "ID", "findings": {"DR": "diabetic retinopathy", "ARMD ": "AMD"}}
    manifest = adapters.load(make_study(tmp_path, {"adapter": "table", **keys}))
    assert stated(manifest, "AMD") == [0, 0, 1] * 3 and manifest.frame["split"].nunique() == 3
    for path, split in zip(manifest.frame["path"], manifest.frame["split"], strict=True):
        assert Path(path).parent.name == places[split]


def test_the_table_of_a_ward(tmp_path: Path) -> None:
    text = (
        "foto;infetado;necrose;Drainage;doente\n0;Yes;no ;1,0;p1\n1;NO; yes;0,0;p1\n2;;TRUE;-1;p2\n"
        "3;n/a;False;;p2\n4;y;n;absent;p3\n5; uncertain;f;present;\n"
    )
    keys = {"findings": ["infetado", "necrose", "Drainage"], "group_column": "doente"}
    manifest = adapters.load(table(tmp_path, text, **keys))
    assert same(stated(manifest, "infetado"), [1, 0, NAN, NAN, 1, -1])
    assert same(stated(manifest, "necrose"), [0, 1, 1, 0, 0, 0])
    assert same(stated(manifest, "Drainage"), [1, 0, -1, NAN, 0, 1])
    assert manifest.frame["label"].tolist()[0] == "infetado, Drainage"
    assert manifest.frame["group"].tolist()[-1] == "5" and not manifest.facts["grouped"]


@pytest.mark.parametrize("words", [("Positiv", "negativ"), ("POSITIVO", "negativo"), ("예", "아니요")])
def test_words_of_other_languages(words: tuple[str, str], tmp_path: Path) -> None:
    text = "image,found\n" + "".join(f"{n},{word}\n" for n, word in enumerate([*words, ""]))
    assert same(stated(adapters.load(table(tmp_path, text, findings=["found"])), "found"), [1, 0, NAN])


def test_several_columns_of_one_finding_are_joined(tmp_path: Path) -> None:
    text = "image,left,right,mass\n0,1,0,1\n1,0,0,0\n2,0,,1\n3,-1,0,0\n4,-1,1,1\n5,,,0\n"
    keys = {"findings": {"left": "effusion", "right": "effusion", "mass": "mass"}}
    manifest = adapters.load(table(tmp_path, text, **keys))
    assert manifest.findings == ("effusion", "mass")
    assert same(stated(manifest, "effusion"), [1, 0, NAN, -1, 1, NAN])


def test_one_finding_is_a_study(tmp_path: Path) -> None:
    manifest = adapters.load(table(tmp_path, "image,pneumonia\n0,1\n1,0\n2,\n", findings=["pneumonia"]))
    assert manifest.findings == ("pneumonia",) and same(stated(manifest, "pneumonia"), [1, 0, NAN])


# --- a column per class

ISIC = "image,MEL,NV,BCC,UNK\nISIC_0,1.0,0.0,0.0,0.0\nISIC_1,0.0,1.0,0.0,0.0\nISIC_2,0.0,0.0,1.0,0.0\n"


def test_a_table_with_one_1_in_each_row_is_of_classes(tmp_path: Path) -> None:
    classes = {"NV": "nevus", "MEL": "malignant", "BCC": "malignant", "UNK": "unknown"}
    manifest = adapters.load(table(tmp_path, ISIC, classes=classes))
    assert manifest.classes == ("nevus", "malignant") and not manifest.findings
    assert manifest.frame["label"].tolist() == ["malignant", "nevus", "malignant"]
    assert manifest.facts["notes"] == ["No image is of the class unknown."]
    same_rows = table(tmp_path, ISIC.replace("1.0", "TRUE").replace("0.0", ""), classes=classes)
    assert adapters.load(same_rows).frame["label"].tolist() == ["malignant", "nevus", "malignant"]


# --- exams


EXAMS = "image,visit,who,ill\na,v1,p1,1\nb,v1,p1,0\nc,v2,,1\nd,v2,,0\ne,,p3,1\nf,,,0\ng,v4,p4,1\nh,v4,,0\n"


def test_images_of_an_exam_are_of_one_patient(tmp_path: Path) -> None:
    keys = {"findings": ["ill"], "group_column": "who", "exam_column": "visit"}
    manifest = adapters.load(table(tmp_path, EXAMS, **keys))
    assert manifest.has_exams and "exam" not in manifest.metadata
    assert manifest.frame["exam"].tolist() == ["v1", "v1", "v2", "v2", "e", "f", "v4", "v4"]
    assert manifest.frame["group"].tolist() == ["p1", "p1", "v2", "v2", "p3", "f", "p4", "p4"]
    without = adapters.load(table(tmp_path, EXAMS, findings=["ill"], exam_column="visit"))
    assert without.frame["group"].tolist() == without.frame["exam"].tolist()


def test_exams_numbered_within_a_patient_are_named_by_two_columns(tmp_path: Path) -> None:
    message = refusal(chest_xray14(tmp_path, exam_column="Follow-up #"))
    assert "Data_Entry_2017.csv rows 2 and 5 are of one exam, and of two patients (3 such exams)" in message
    assert "name both columns in exam_column" in message
    manifest = adapters.load(chest_xray14(tmp_path, exam_column=["Patient ID", "Follow-up #"]))
    assert manifest.frame["exam"].tolist()[:4] == ["1 0", "1 1", "1 2", "2 0"]


def test_an_exam_in_two_splits_is_refused(tmp_path: Path) -> None:
    text = "image,visit,split,kind\na,v1,train,x\nb,v1,test,y\nc,v2,train,y\nd,v3,test,x\n"
    keys = {"label_column": "kind", "split_column": "split", "exam_column": "visit"}
    assert "labels.csv rows 2 and 3 are of one exam, and of two splits" in refusal(table(tmp_path, text, **keys))
    fixed = table(tmp_path, text.replace("b,v1,test", "b,v1,train"), **keys)
    manifest = adapters.load(fixed)
    assert manifest.classes == ("x", "y") and manifest.has_exams, "classes have exams too"


def test_a_row_per_finding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    study = table(tmp_path, "image,label\na,mass\na,nodule\nb,mass\n", label_column="label", findings=[])
    message = refusal(study)
    assert "rows 2 and 3 name the same image, and differ in label" in message and "name label_separator" in message


def test_exams_of_dicom_files_have_pseudonyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"findings": ["ill"], "group_column": "who", "exam_column": "visit"}
    study = table(tmp_path, EXAMS.replace("v1", "Doe^Jane^1").replace("v2", "Roe"), "{n}.dcm", **keys)
    monkeypatch.setattr(dicom, "patient", lambda path: "")
    manifest = adapters.load(study)
    assert manifest.frame["exam"].tolist()[:4] == ["exam 0001"] * 2 + ["exam 0002"] * 2
    told = manifest.frame.drop(columns=["path"]).to_csv() + "".join(manifest.facts["notes"])
    assert "Doe" not in told and "Roe" not in told and "p1" not in told


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    message = refusal(chexpert(tmp_path, group_pattern=r"subject(\d+)"))
    assert r"group_pattern 'subject(\\d+)' matches nothing in 'Path'" in message
    manifest = adapters.load(chexpert(tmp_path, exam_pattern=r"(patient\d+/study1)/"))
    assert "1 of 7 rows name no exam that exam_pattern finds" in note(manifest, "exam_pattern")


# --- bad input

BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "another value": ("image,a\n0,1\n1,2\n2,0\n", {}, r"labels.csv row 3: a is '2' \(1 such cell\); expected 1 or"),
    "a probability": ("image,a\n0,1\n1,0.3\n2,0\n", {}, "row 3: a is '0.3'"),
    "a word": ("image,a\n0,maybe\n1,1\n2,0\n", {}, "row 2: a is 'maybe'"),
    "none may be absent": ("image,a\n0,none\n1,1\n2,0\n", {}, "row 2: a is 'none'.*name it in not_told"),
    "never": ("image,a,b\n0,0,1\n1,0,0\n2,,1\n", {"findings": ["a", "b"]}, "'a' is present in 0, absent in 2, not"),
    "always": ("image,a\n0,1\n1,1\n", {}, "is present in 2, absent in 0 of 2 images.*remove it"),
    "uncertain alone": ("image,a\n0,1\n1,-1\n", {}, "absent in 0, uncertain in 1 of 2 images"),
    "rows disagree": ("image,a\n0,1\n0,0\n1,0\n", {}, "labels.csv rows 2 and 3 name the same image, and differ in a"),
    "unknown column": ("image,a\n0,1\n", {"findings": ["b"]}, "has no column 'b'; its columns are image, a"),
    "unknown no_finding": ("image,a\n0,1\n", {"no_finding": "b"}, "has no column 'b'"),
    "policy": ("image,a\n0,1\n1,0\n", {"uncertain": {"b": "positive"}}, "uncertain names the finding 'b'; expected"),
    "several 1": (
        "image,a,b\n0,1,0\n1,1,1\n2,0,1\n",
        {"classes": {"a": "a", "b": "b"}, "findings": []},
        r"row 3: a and b are 1 \(1 such row\); expected exactly one.*name findings in place of classes",
    ),
    "no 1": (
        "image,a,b\n0,1,0\n1,0,1\n2,0,0\n",
        {"classes": {"a": "a", "b": "b"}, "findings": []},
        "row 4: none of a, b is 1.*name its class in classes",
    ),
    "uncertain class": (
        "image,a,b\n0,1,0\n1,-1,1\n",
        {"classes": {"a": "a", "b": "b"}, "findings": []},
        "row 3: a is '-1'",
    ),
    "one-hot rows disagree": (
        "image,a,b\n0,1,0\n0,0,1\n",
        {"classes": {"a": "a", "b": "b"}, "findings": []},
        "rows 2 and 3 name the same image, and differ in the column that is 1",
    ),
    "a finding beside nothing": (
        "image,a\n0,x|y\n1,none\n2,none|x\n",
        {"findings": [], "label_column": "a", "label_separator": "|", "no_finding": "None"},
        r"row 4: a is 'none\|x', which names None beside a finding",
    ),
    "a name that never occurs": (
        "image,a\n0,x|y\n1,x\n2,y\n",
        {"findings": ["x", "z"], "label_column": "a", "label_separator": "|"},
        "finding 'z' is present in 0, absent in 3 of 3 images",
    ),
    "text": (
        "image,a\n" + "".join(f"{n},word{n} and word{n + 1}\n" for n in range(400)),
        {"findings": [], "label_column": "a", "label_separator": " "},
        "the cells of a hold 402 names, such as 'and'; expected at most 300",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", BAD)
def test_bad_labels_are_one_line(how: str, tmp_path: Path) -> None:
    text, keys, says = BAD[how]
    places = ["x/{n}.png"] if how == "text" else []
    study = table(tmp_path, text, *places, **{"findings": ["a"], **keys})
    assert re.search(says, message := refusal(study)), message


def test_words_of_the_study_for_not_told_count_in_findings(tmp_path: Path) -> None:
    text = "image,a\n0,none\n1,1\n2,0\n3,9\n"
    manifest = adapters.load(table(tmp_path, text, findings=["a"], not_told=["None", "9"]))
    assert same(stated(manifest, "a"), [NAN, 1, 0, NAN])


def test_agreeing_rows_of_one_image_are_one(tmp_path: Path) -> None:
    """As in a table of boxes, where a blank agrees with any value."""
    text = "image,x,a,b\n0,1,1,\n0,2,,0\n1,,0,1\n"
    manifest = adapters.load(table(tmp_path, text, findings=["a", "b"]))
    assert same(stated(manifest, "a"), [1, 0]) and same(stated(manifest, "b"), [0, 1])
    assert note(manifest, "1 of 3 rows of labels.csv repeat")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"label_column": "a", "findings": ["x"]}, "need label_separator"),
        ({"label_separator": "|"}, "label_separator needs label_column"),
        ({"findings": ["x"], "classes": {"a": "a"}}, "classes are named beside findings"),
        ({}, "the labels are not named"),
        ({"label_column": "a", "no_finding": "x"}, "no_finding is a key of findings"),
        ({"label_column": "a", "uncertain": "positive"}, "uncertain is a key of findings"),
        ({"findings": ["x"], "uncertain": "maybe"}, "uncertain is 'maybe'; expected ignore, positive, negative"),
        ({"findings": ["x"], "uncertain": {"x": "maybe"}}, "uncertain is 'maybe'"),
        ({"findings": ["x"], "no_finding": "x"}, "remove it from one of them"),
        ({"findings": ["x"], "blank": "absent with no_finding"}, "needs a column for each finding"),
        ({"findings": ["x"], "csv": {"valid": "valid.csv"}}, "csv names the split 'valid'; expected train"),
        ({"findings": ["x"], "csv": {}}, "csv names no table"),
        ({"findings": ["x"], "split_lists": {"train_val": "list.txt"}}, "split_lists names the split 'train_val'"),
        ({"findings": ["x"], "split_lists": {"train": "t"}, "split_column": "s"}, "both state the splits"),
        ({"findings": ["x"], "group_pattern": "patient("}, "unterminated subpattern"),
    ],
)
def test_a_study_that_names_labels_in_two_forms_is_one_line(keys: dict[str, Any], says: str) -> None:
    from scanbook.config import loading

    with pytest.raises(ValueError) as caught:
        make_study("", {"adapter": "table", "csv": "labels.csv", "image_column": "i", **keys})
    line = loading.explain(caught.value, Study)
    assert says in line and "\n" not in line and line.startswith("dataset"), line


# --- limits


def many(root: Path, prevalences: dict[str, float], images: int = 600, labelled: float = 1.0, **keys: Any) -> Study:
    """A table of findings that occur independently, of patients with three images each."""
    rng = np.random.default_rng(5)
    columns = {name: (rng.random(images) < share).astype(object) for name, share in prevalences.items()}
    for values in columns.values():
        values[rng.random(images) > labelled] = ""
    frame = pd.DataFrame({"image": [f"i{n:04d}" for n in range(images)], "who": [f"p{n // 3}" for n in range(images)]})
    frame = frame.assign(
        **{
            name: [str(value)[:1].replace("T", "1").replace("F", "0") for value in values]
            for name, values in columns.items()
        }
    )
    root.mkdir(exist_ok=True)
    frame.to_csv(root / "labels.csv", index=False)
    for name in frame["image"]:
        (root / f"{name}.png").touch()
    dataset = {"adapter": "table", "csv": "labels.csv", "image_column": "image", "group_column": "who"}
    return make_study(root, dataset | {"findings": list(prevalences)}, **keys)


PREVALENCES = {"common": 0.4, "usual": 0.1, "rare": 0.03}


@pytest.mark.parametrize("balance", ["source", "even"])
@pytest.mark.parametrize("labelled", [1.0, 0.2])
def test_a_limit_samples_whole_patients_and_enough_of_each_finding(
    balance: str, labelled: float, tmp_path: Path
) -> None:
    study = many(tmp_path, PREVALENCES, 900, labelled, limit=120, limit_class_balance=balance)
    manifest = adapters.load(study)
    values = manifest.labels.values
    assert manifest.frame.groupby("group").size().eq(3).all(), "whole groups"
    assert 60 <= len(values) <= 200 and manifest.facts["sampled"]
    full = adapters.load(many(tmp_path, PREVALENCES, 900, labelled)).labels.values
    for column in range(3):
        for state in (0, 1):
            have = (values[:, column] == state).sum()
            assert have >= min(8, (full[:, column] == state).sum()), (column, state, have)
    assert ("evenly over the findings" if balance == "even" else "in the finding shares") in note(manifest, "limit 120")


def test_findings_that_never_occur_together_have_their_shares(tmp_path: Path) -> None:
    sizes = {}
    for balance in ("source", "even"):
        study = many(tmp_path / balance, {"common": 0.5, "rare": 0.05}, 900, limit=90, limit_class_balance=balance)
        values = adapters.load(study).labels.values
        sizes[balance] = (values == 1).mean(axis=0)
    assert abs(sizes["source"][0] - 0.5) < 0.12 and sizes["even"][1] > 2 * sizes["source"][1]


# --- ChestMNIST


def archive(path: Path, labels: np.ndarray) -> Path:
    rng = np.random.default_rng(3)
    arrays = {}
    for key, rows in (("train", labels[:20]), ("val", labels[20:26]), ("test", labels[26:])):
        arrays[f"{key}_images"] = rng.integers(0, 256, (len(rows), 28, 28), np.uint8)
        arrays[f"{key}_labels"] = rows
    np.savez_compressed(path, **arrays)
    return path


def test_chestmnist_is_of_findings(tmp_path: Path) -> None:
    names = medmnist.ARCHIVES["chestmnist"].findings
    labels = np.random.default_rng(0).integers(0, 2, (33, 14)).astype(np.uint8)
    dataset = {"adapter": "medmnist", "flag": "chestmnist"}
    manifest = adapters.load(make_study(archive(tmp_path / "local.npz", labels), dataset))
    assert manifest.findings == names and len(names) == 14 and names[0] == "atelectasis" and names[-1] == "hernia"
    assert np.array_equal(manifest.labels.values, labels) and len(manifest.rows("train")) == 20
    assert manifest.label_values("test").shape == (7, 14)
    for wrong, says in (
        (labels[:, :1], "train_labels is uint8 (20, 1)"),
        (labels * 2, "reach from 0 to 2, not 0 to 1"),
    ):
        message = refusal(make_study(archive(tmp_path / "wrong.npz", wrong), dataset))
        assert says in message and "14 labels for each" in message
    none = labels.copy()
    none[:, 13] = 0
    message = refusal(make_study(archive(tmp_path / "none.npz", none), dataset))
    assert "finding 'hernia' is present in 0" in message and message.endswith("; use the source's complete dataset")


def test_the_error_names_at_most_five_findings(tmp_path: Path) -> None:
    text = "image," + ",".join("abcdefg") + "\n0" + ",0" * 7 + "\n1" + ",0" * 7 + "\n"
    with pytest.raises(DataError, match="2 more findings are never present or never absent; expected"):
        adapters.load(table(tmp_path, text, findings=list("abcdefg")))


def test_the_error_says_what_to_pass(tmp_path: Path) -> None:
    """One finding or several in one sentence; the words after SET= work as they stand."""
    text = "image,a,b c,d,e\n0,1,0,0,0\n1,0,1,0,0\n2,1,0,0,1\n"
    names = {"a": "a", "b c": "b c", "d": "d", "e": "e"}
    with pytest.raises(DataError, match=r"finding 'd' is present in 0, absent in 3 of 3 images; .*; remove it from"):
        adapters.load(table(tmp_path, text, findings=names))
    text = text.replace("2,1,0,0,1", "2,1,0,0,0")
    with pytest.raises(DataError, match="findings 'd' and 'e' are present in 0, absent in 3 of 3") as refused:
        adapters.load(table(tmp_path, text, findings=names))
    advised = re.search(r'pass SET="(.*?)"', str(refused.value))
    assert advised, refused.value
    (pair,) = shlex.split(advised[1])
    assert pair == "dataset.findings=[a,b c]"
    kept = yaml.safe_load(pair.partition("=")[2])
    assert adapters.load(table(tmp_path, text, findings=kept)).findings == ("a", "b c")


@pytest.mark.parametrize(
    "keys",
    [
        {"findings": {"a": "x", "b": "x", "d": "d"}},  # joined
        {"findings": {"a": "a", "b": "b", "d": "d"}, "uncertain": {"d": "positive"}},
        {"findings": ["a", "2", "d"]},
    ],
)
def test_no_override_is_advised_that_would_not_work(keys: dict[str, Any], tmp_path: Path) -> None:
    text = "image,a,b,d,2\n0,1,0,0,0\n1,0,0,0,1\n2,1,0,,0\n"
    message = refusal(table(tmp_path, text, **keys))
    assert "SET=" not in message and "remove" in message and "blank and uncertain in the study say how" in message


def test_a_large_table_loads_without_reading_a_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of empty files, which could not be read."""
    monkeypatch.setattr(images, "_decode", lambda *_: pytest.fail("an image was read"))
    manifest = adapters.load(many(tmp_path, PREVALENCES, 3000))
    assert len(manifest.frame) == 3000 and manifest.frame["group"].nunique() == 1000
