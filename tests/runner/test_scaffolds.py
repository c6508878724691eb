"""New notebooks and new studies keep the contract, are valid and run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from scanbook import cli, config
from scanbook.data import adapters
from scanbook.reporting import suite
from scanbook.runner.authoring import contract
from scanbook.runner.freshness import Batch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the studies and no notebook."""
    shutil.copytree(ROOT / "notebooks" / "studies", tmp_path / "project" / "notebooks" / "studies")
    monkeypatch.setenv("SCANBOOK_HOME", str(tmp_path / "project"))
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")
    return tmp_path / "project"


def draw(path: Path, seed: int) -> None:
    """An image of noise round a level of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    pixels = generator.normal(generator.uniform(60, 200, 3), 20, (48, 48, 3))
    assert cv2.imwrite(str(path), pixels.clip(0, 255).astype(np.uint8))


def class_folders(folder: Path, count: int, *classes: str) -> Path:
    for number, label in enumerate(classes):
        for index in range(count):
            draw(folder / label / f"{index}.png", 1000 * number + index)
    return folder


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and error.startswith("scanbook: ")
    return error


# --- notebooks


def test_a_new_notebook_keeps_the_contract_and_the_style(project: Path) -> None:
    assert cli.main(["new-notebook", "10_my_question"]) == 0
    path = project / "notebooks" / "10_my_question.ipynb"
    assert contract.lint([path]) == []
    assert contract.read(path).cells[0].source.startswith("# My question\n")
    for command in (["ruff", "check"], ["ruff", "format", "--check"]):
        done = subprocess.run(
            [ROOT / ".venv" / "bin" / command[0], *command[1:], "--config", ROOT / "pyproject.toml", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    assert cli.main(["lint"]) == 0


def test_make_names_the_new_notebook(project: Path) -> None:
    command = ["make", "-n", "-C", str(ROOT), "new-notebook", "NAME=10_my_question"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.splitlines()[-2 if "Leaving" in shown else -1].endswith('new-notebook "10_my_question"')


@pytest.mark.parametrize("name", ["", "my_question", "8_mine", "10_Mine", "10 mine", "../10_mine", "10_mine.ipynb"])
def test_a_notebook_has_a_number_and_words(project: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert cli.main(["new-notebook", name]) == 1
    assert f"cannot be named {name!r}" in one_line(capsys)
    assert list(project.rglob("*.ipynb")) == []


def test_nothing_is_overwritten(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = project / "notebooks" / "10_mine.ipynb"
    path.write_text("mine")
    assert cli.main(["new-notebook", "10_mine"]) == 1
    assert "exists; choose another name" in one_line(capsys)
    assert path.read_text() == "mine"
    images = class_folders(tmp_path / "images", 2, "a", "b")
    assert cli.main(["new-study", "synthetic", "--data", str(images)]) == 1
    assert "synthetic.yaml exists; choose another name" in one_line(capsys)


# --- studies


def test_a_study_of_class_folders(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = class_folders(tmp_path / "my images", 3, "10. ill", "2. well [x]")
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    out = capsys.readouterr().out
    assert "mine.yaml: 6 images (2. well [x]: 3, 10. ill: 3)\n  It reads class folders.\n" in out
    assert "\nrun it with make reports STUDY=mine DATA='" in out
    assert str(tmp_path) not in (project / "notebooks" / "studies" / "mine.yaml").read_text(), "no path of this machine"
    resolved = config.load("mine", "smoke", str(images))
    assert list(resolved.dataset.classes.values()) == ["2. well [x]", "10. ill"]
    assert adapters.load(resolved).frame["label"].value_counts().to_dict() == {"10. ill": 3, "2. well [x]": 3}


def test_a_study_of_a_folder_in_data_needs_no_path(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCANBOOK_DATA", str(project / "data"))
    for split in ("train", "test"):
        class_folders(project / "data" / "mine" / split, 2, "a", "b")
    for name, content in (("notes.csv", b"what,why\nx,y\n"), ("broken.csv", b"\xff\xfe\x00,"), ("empty.csv", b"")):
        (project / "data" / "mine" / name).write_bytes(content)
    assert cli.main(["new-study", "mine"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("make reports STUDY=mine")
    assert set(adapters.load(config.load("mine")).frame["split"]) == {"train", "test"}


def table_folder(folder: Path, label: str = "Diagnosis", **columns: list[str]) -> Path:
    """Twelve images in two folders, masks called as their image and a word more, and a table of them."""
    names = [f"img_{number}" for number in range(1, 13)]
    for number, name in enumerate(names):
        draw(folder / ("first" if number < 6 else "second") / f"{name}.png", number)
        draw(folder / "masks" / f"{name}_mask.png", number)
    more = {label: ["a", "b"] * 6, **columns}
    pd.DataFrame({"id": range(12), "file": [f"{name}.png" for name in names], **more}).to_csv(
        folder / "images.csv", index=False
    )
    return folder


def test_a_study_of_a_table(project: Path, tmp_path: Path) -> None:
    more = {"patient_id": [f"p{number // 2}" for number in range(12)], "split": ["train"] * 8 + ["test"] * 4}
    images = table_folder(tmp_path / "images", **more, sex=["f", "m"] * 6, note=["x"] * 12)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    written = yaml.safe_load((project / "notebooks" / "studies" / "mine.yaml").read_text())
    assert written["dataset"] == {
        **{"adapter": "table", "csv": "images.csv", "image_column": "file", "label_column": "Diagnosis"},
        **{"group_column": "patient_id", "split_column": "split", "metadata": ["sex"]},
        **{"image_folders": ["first", "second"], "mask_folder": "masks", "mask_suffix": "_mask"},
        **{"source": "own images", "licence": "unknown", "classes": {"a": "a", "b": "b"}},
    }
    assert written["evaluation"] == {"subgroups": ["sex"]}
    manifest = adapters.load(config.load("mine", data=str(images)))
    assert len(manifest.frame) == 12 and manifest.frame["group"].nunique() == 6
    assert (manifest.frame["mask_path"] != "").all() and set(manifest.frame["split"]) == {"train", "test"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: folder / "gone", r"no folder of images at .*gone; put them there or name their place"),
        (lambda folder: table_folder(folder, "what"), r"no column is known to hold their class or findings; "),
        (lambda folder: class_folders(folder, 2, "only"), r"only the class only in .*; expected at least two classes"),
        (lambda folder: folder, r"holds no class folders, but nothing; expected one folder of images for each class"),
    ],
    ids=["no folder", "no label", "one class", "empty"],
)  # fmt: skip
def test_what_is_no_dataset_is_said_and_nothing_is_written(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make, says: str
) -> None:
    (tmp_path / "images").mkdir()
    assert cli.main(["new-study", "mine", "--data", str(make(tmp_path / "images"))]) == 1
    assert re.search(says, one_line(capsys))
    assert not (project / "notebooks" / "studies" / "mine.yaml").exists()


def test_of_several_tables_the_one_with_most_images_and_a_class_is_read(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As APTOS is laid out: answers to fill in, test images without a class, and the training images."""
    images = class_folders(tmp_path / "images", 10, "segmented")
    names = [str(number) for number in range(10)]
    frame = pd.DataFrame({"id_code": names, "diagnosis": ["0", "1"] * 5})
    frame.iloc[:6].to_csv(images / "a_first_table.csv", index=False)
    frame[["id_code"]].to_csv(images / "test.csv", index=False)
    frame.assign(diagnosis="0").to_csv(images / "sample_submission.csv", index=False)
    frame.iloc[:8].to_csv(images / "train.csv", index=False)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    out = capsys.readouterr().out
    assert "8 images (0: 4, 1: 4)\n  It reads train.csv (image: id_code; class: diagnosis).\n" in out
    for name in ("a_first_table", "sample_submission", "test"):
        assert f"  {name}.csv is not read: " in out
    dataset = yaml.safe_load((project / "notebooks" / "studies" / "mine.yaml").read_text())["dataset"]
    assert (dataset["csv"], dataset["image_folders"]) == ("train.csv", ["segmented"])
    assert "mask_folder" not in dataset, "the images were segmented, and have no masks"
    (images / "train.csv").unlink()
    (images / "a_first_table.csv").unlink()
    assert cli.main(["new-study", "other", "--data", str(images)]) == 1
    assert "diagnosis has 1 values; expected 2 to 100 classes" in one_line(capsys)


IMAGES = [f"{number:02d}" for number in range(10)]


def new_study(
    folder: Path, capsys: pytest.CaptureFixture[str], header: str, row: str, *places: str
) -> tuple[str, dict[str, object]]:
    """What the command says of a table and of files at some places, and the dataset that it writes.

    In `row` and `places`, {n} stands for the name of each image.
    """
    for number, name in enumerate(IMAGES):
        for index, place in enumerate(places):
            draw(folder / place.format(n=name), 10 * index + number)
    rows = "".join(row.format(n=name, label="xy"[number % 2]) + "\n" for number, name in enumerate(IMAGES))
    (folder / "labels.csv").write_text(f"{header}\n{rows}")
    if cli.main(["new-study", "mine", "--data", str(folder)]) == 1:
        return one_line(capsys), {}
    return capsys.readouterr().out, yaml.safe_load((config.studies_dir() / "mine.yaml").read_text())["dataset"]


@pytest.mark.parametrize("masks", ["GT", "Ground Truth", "lung masks", "Annotations"])
def test_a_folder_of_masks_before_that_of_the_images(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], masks: str
) -> None:
    places = ("scans/{n}.png", masks + "/{n}.png")
    _, dataset = new_study(tmp_path / "images", capsys, "image,label", "{n}.png,{label}", *places)
    assert (dataset["image_folders"], dataset["mask_folder"]) == (["scans"], masks)


REFUSED = {
    "two folders of one name": (
        ("image,label", "{n}.png,{label}", "large/{n}.png", "cropped/{n}.png"),
        "names 10 images of which several files have the name, and differ, as in cropped, large; expected one",
    ),
    "two views": (
        ("pa,lateral,label", "{n}_PA.png,{n}_L.png,{label}", "{n}_PA.png", "{n}_L.png"),
        "the columns pa and lateral of .* both name images; expected one; write a row for each image",
    ),
    "no header": (
        ("MURA/train/p1/00.png,1", "MURA/train/p1/{n}.png,1", "train/p1/{n}.png"),
        "names an image, so the table has no header",
    ),
    "other names": (
        ("image,label", "scan {n},{label}", "images/{n}.png"),
        "only the class images .*; labels.csv is not read: it names no image of the folder",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_table_that_may_name_other_images_is_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    given, says = REFUSED[kind]
    assert re.search(says, new_study(tmp_path / "images", capsys, *given)[0])


@pytest.mark.parametrize(
    ("header", "row", "column"),
    [
        ("mask_path,image_path,label", "masks/{n}.png,images/{n}.png,{label}", "image_path"),
        ("filepath,label,filename", "../input/odir/{n}.png,{label},{n}.png", "filename"),
        ("Left-Fundus,Right-Fundus,label,filename", "00.png,01.png,{label},{n}.png", "filename"),
    ],
)
def test_the_column_whose_names_are_those_of_images(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], header: str, row: str, column: str
) -> None:
    places = ("images/{n}.png", "masks/{n}.png")
    _, dataset = new_study(tmp_path / "images", capsys, header, row, *places)
    assert dataset["image_column"] == column


def test_numbers_of_images_may_repeat(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where several readers see each image, and the patients have numbers, too."""
    row = "9,0{n},R1,{label}\n9,0{n},R2,{label}\n9,0{n},R3,{label}"
    out, dataset = new_study(tmp_path / "images", capsys, "patient,number,reader,label", row, "scans/0{n}.png")
    assert dataset["image_column"] == "number" and "10 images" in out


def test_the_start_of_paths_differs_and_the_images_lie_deeper(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row, header = "old/train/{n}/1.png,{label}", "path,label"
    _, dataset = new_study(tmp_path / "images", capsys, header, row, "files/train/{n}/1.png", "files/test/{n}/1.png")
    assert (dataset["path_prefix"], dataset["image_folders"]) == ("old/", ["."])
    manifest = adapters.load(config.load("mine", data=str(tmp_path / "images")))
    assert all("/files/train/" in path for path in manifest.frame["path"])
    (config.studies_dir() / "mine.yaml").unlink()
    said, _ = new_study(tmp_path / "other", capsys, header, "old/train/{n}.png,{label}", "test/{n}.png")
    assert "in no image folder" in said, "a bare name in another folder may be another image"


def test_a_column_that_holds_more_than_splits_is_named(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = "{n},{label},train\n{n}b,{label},test\n{n}c,{label},unlabelled"
    places = ("{n}.png", "{n}b.png", "{n}c.png")
    out, dataset = new_study(tmp_path / "images", capsys, "image,label,split", row, *places)
    assert "  The column split is not read as splits: 'unlabelled' is none.\n" in out and "split_column" not in dataset


def test_a_class_that_is_told_of_all_goes_before_one_that_is_not(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ISIC 2020, whose diagnosis is unknown for most images."""
    row = "{n},unknown,x\n{n}b,nevus,y"
    places = ("{n}.png", "{n}b.png")
    _, dataset = new_study(tmp_path / "images", capsys, "image,diagnosis,benign_malignant", row, *places)
    assert dataset["label_column"] == "benign_malignant"


def test_a_study_that_cannot_be_loaded_leaves_no_file(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = class_folders(tmp_path / "images", 2, "a", "b")
    template = project / "notebooks" / "studies" / "folder.yaml"
    template.write_text(template.read_text().replace("profiles:", "profiles:\n  tiny: {}", 1))
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 1
    assert "unknown profile 'tiny'" in one_line(capsys)
    assert not template.with_name("mine.yaml").exists()


def written(name: str = "mine") -> dict[str, object]:
    return yaml.safe_load((config.studies_dir() / f"{name}.yaml").read_text())["dataset"]


@pytest.mark.parametrize("cell", ["Mass|Nodule", "Mass | Nodule", "['Mass', 'Nodule']"])
def test_several_findings_in_one_cell(
    cell: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = table_folder(tmp_path / "images", "Finding Labels")
    table = pd.read_csv(images / "images.csv")
    table["Finding Labels"] = (
        ["No Finding", cell, "Mass", "Nodule"] * 3 if cell[0] != "[" else [cell, "['Mass']", "[]"] * 4
    )
    table.to_csv(images / "images.csv", index=False)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    dataset, out = written(), capsys.readouterr().out
    assert (dataset["label_column"], dataset["label_separator"]) == ("Finding Labels", "," if cell[0] == "[" else "|")
    assert dataset["findings"] == {"Mass": "Mass", "Nodule": "Nodule"} and "classes" not in dataset
    assert dataset.get("no_finding", "") == ("" if cell[0] == "[" else "No Finding")
    assert "12 images (Mass: " in out and "findings: Finding Labels" in out
    assert adapters.load(config.load("mine", data=str(images))).findings == ("Mass", "Nodule")


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["a, b", "a", "b", "c, a", "c", "b"], ","),
        (["a; b", "a", "b", "a;c", "c", "b"], ";"),
        (["carcinoma, basal cell", "nevus", "carcinoma, squamous cell", "nevus", "melanoma", "nevus"], ""),
        (["eczema/dermatitis", "acne", "eczema/dermatitis", "acne", "acne", "rosacea"], ""),
        (["['N']", "['D']", "['N']", "['D']", "['G']", "['N']"], ""),
    ],
)
def test_a_class_may_hold_a_comma(
    cells: list[str], separator: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = table_folder(tmp_path / "images", Diagnosis=cells * 2)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    assert written().get("label_separator", "") == separator
    manifest = adapters.load(config.load("mine", data=str(images)))
    assert bool(manifest.findings) == bool(separator)
    if cells[0] == "['N']":
        assert manifest.classes == ("D", "G", "N"), "a list of one name is that name"


def test_cells_that_may_name_several_findings_are_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finding that never stands alone: the commas may be part of a name."""
    cells = ["effusion, hernia", "Effusion", "edema", "Normal"] * 3
    images = table_folder(tmp_path / "images", "diagnosis", diagnosis=cells)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    out = capsys.readouterr().out
    assert "'effusion, hernia' in diagnosis counts as one class: if it names several findings, set label_sep" in out
    study = config.studies_dir() / "mine.yaml"
    text = re.sub(r"  classes: \{[^}]*\}", "  label_separator: ','\n  no_finding: Normal", study.read_text())
    study.write_text(text)
    findings = adapters.load(config.load("mine", data=str(images))).findings
    assert [name.casefold() for name in findings] == ["edema", "effusion", "hernia"], "as the sentence advises"


CHEST_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def test_chest_x_ray_14_partly_unpacked(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, names, lines = tmp_path / "images", [], [CHEST_HEADER]
    for number, label in enumerate(["No Finding", "Mass", "Mass|Nodule", "Nodule", "Hernia", "Mass"] * 4):
        names.append(f"{number // 3 + 1:08d}_{number % 3:03d}.png")
        lines.append(f"{names[-1]},{label},{number % 3},{number // 3 + 1},58,M,PA,2682,2749,0.143,0.143,")
        if number < 12:
            draw(root / f"images_00{number // 6 + 1}" / "images" / names[-1], number)
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines) + "\n")
    (root / "train_val_list.txt").write_text("\n".join(names[:9]))
    (root / "test_list.txt").write_text("\n".join(names[9:]))
    assert cli.main(["new-study", "mine", "--data", str(root)]) == 0
    dataset, out = written(), capsys.readouterr().out
    assert dataset | {"metadata": []} == {
        **{"adapter": "table", "csv": "Data_Entry_2017.csv", "image_column": "Image Index"},
        **{"label_column": "Finding Labels", "label_separator": "|", "no_finding": "No Finding"},
        **{"group_column": "Patient ID", "metadata": [], "image_folders": ["."], "allow_missing": True},
        "split_lists": {"train": "train_val_list.txt", "test": "test_list.txt"},
        **{"source": "own images", "licence": "unknown"},
    }
    assert "12 images (Hernia: 2, Mass: 6, Nodule: 4)" in out and "12 of 24 rows name an image that is not there" in out
    assert "splits of the source: train 9, test 3" in out
    (root / "images_001" / "images" / names[0]).unlink()
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines[:13]) + "\n")
    assert cli.main(["new-study", "other", "--data", str(root)]) == 1
    assert "names 1 images that are in no image folder, the first in row 2" in one_line(capsys)


def test_chexpert(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema,Fracture,Support Devices"
    values = ["1.0,,,,1.0", ",1.0,-1.0,,", ",0.0,1.0,,0.0", ",-1.0,0.0,,"]
    root = tmp_path / "images"
    for split, first in (("train", 0), ("valid", 8)):
        lines = [header]
        for number in range(first, first + 8):
            view = "view1_frontal" if number % 2 else "view2_lateral"
            path = f"{split}/patient{number // 4:05d}/study{number // 2 % 2 + 1}/{view}.jpg"
            draw(root / path, number)
            lines.append(f"CheXpert-v1.0-small/{path},Male,40,Frontal,AP,{values[number // 2 % 4]}")
        (root / f"{split}.csv").write_text("\n".join(lines) + "\n")
    assert cli.main(["new-study", "mine", "--data", str(root)]) == 0
    dataset, out = written(), capsys.readouterr().out
    findings = ["Cardiomegaly", "Edema", "Support Devices"]
    assert dataset == {
        **{"adapter": "table", "csv": {"train": "train.csv", "test": "valid.csv"}, "image_column": "Path"},
        **{"path_prefix": "CheXpert-v1.0-small/", "findings": {name: name for name in findings}},
        **{"no_finding": "No Finding", "uncertain": "ignore", "group_pattern": r"patient[_-]?\d+"},
        **{"exam_pattern": r"patient[_-]?\d+/(?:study|exam|visit)[_-]?\w+", "metadata": ["Sex", "Age"]},
        **{"image_folders": ["."], "source": "own images", "licence": "unknown"},
    }
    assert "never 1 or never 0 in the table: Fracture." in out and "A blank cell of a finding is not" in out
    assert "or blank: absent with no_finding where it does so in the rows with No Finding alone." in out
    manifest = adapters.load(config.load("mine", data=str(root)))
    assert manifest.frame["exam"].nunique() == 8 and manifest.frame["group"].nunique() == 4
    assert manifest.frame["split"].value_counts().to_dict() == {"train": 8, "test": 8}


def test_one_column_per_class(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {name: [str(float(number % 3 == index)) for number in range(12)] for index, name in enumerate("ABC")}
    images = table_folder(tmp_path / "images", "note", **{name: columns[name] for name in "ABC"}, UNK=["0.0"] * 12)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    assert written()["classes"] == {"A": "A", "B": "B", "C": "C"} and "label_column" not in written()
    assert "classes: A, B, C" in capsys.readouterr().out
    assert adapters.load(config.load("mine", data=str(images))).classes == ("A", "B", "C")


@pytest.mark.parametrize("classes", [True, False])
def test_spaces_around_the_names_of_columns_are_not_in_reports(classes: bool, project: Path, tmp_path: Path) -> None:
    """As RFMiD's ARMD: who asks for the heat map of a finding does not see them."""
    first = [int(number % 2) for number in range(12)]
    columns = {" A ": first, "B ": [1 - value if classes else int(n % 3 == 0) for n, value in enumerate(first)]}
    images = table_folder(tmp_path / "images", "note", **columns)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    assert written()["classes" if classes else "findings"] == {" A ": "A", "B ": "B"}
    assert adapters.load(config.load("mine", data=str(images))).names == ("A", "B")


def test_rows_that_may_be_of_classes_are_told(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {name: [int(number % 3 == index) for number in range(12)] for index, name in enumerate("ABC")}
    columns["B"][0] = 1
    images = table_folder(tmp_path / "images", "note", **columns)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    assert list(written()["findings"]) == list("ABC")
    assert (
        "92% of the rows have exactly one 1: if these are classes, correct the other rows." in capsys.readouterr().out
    )


def test_none_in_a_column_of_findings_is_no_finding(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = table_folder(tmp_path / "images", "Findings", Findings=["Edema;Mass", "Mass", "Edema", "None"] * 3)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    assert "No cell of" not in capsys.readouterr().out
    assert written()["no_finding"] == "None" and written()["label_separator"] == ";"
    labels = adapters.load(config.load("mine", data=str(images))).labels.values
    assert labels.tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]] * 3


def test_columns_of_findings_and_those_that_are_none(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As RFMiD, whose first column is 1 where any other is, beside columns of a ward."""
    rng = np.random.default_rng(1)
    signs = {name: rng.integers(0, 2, 12) for name in ("DR", "MH", "ODC", "TV")}
    signs["DR"][:2] = signs["MH"][:2] = signs["ODC"][:2] = signs["TV"][:2] = 0
    risk = np.max(list(signs.values()), axis=0)
    more = {"smoker": ["yes", "no"] * 6, "Disease_Risk": risk, **signs, "remark": ["x"] * 12, "urgent": [0, 1] * 6}
    images = table_folder(tmp_path / "images", "note", sex=[0, 1] * 6, **more)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    dataset, out = written(), capsys.readouterr().out
    assert list(dataset["findings"]) == list(signs) and dataset["metadata"] == ["sex"]
    assert "The column Disease_Risk is not read: it is 1 exactly where another is." in out
    assert "The columns smoker, urgent hold values of findings, and are not read as such." in out
    assert "Read as findings: DR, MH, ODC, TV. Remove from findings, in the study, those that are none." in out


def test_a_single_column_of_0_and_1_is_no_finding_unless_its_name_says_so(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = table_folder(tmp_path / "images", "note", urgent=[0, 1] * 6)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 1
    message = one_line(capsys)
    assert "no column is known to hold their class or findings" in message
    assert "findings as 1 and 0 or yes and no" in message


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"patient_id": "aabbcc", "study_id": "xxyyzw"}, {"group_column": "patient_id", "exam_column": "study_id"}),
        (
            {"patient_id": "aabbcc", "visit": "112212"},
            {"group_column": "patient_id", "exam_column": ["patient_id", "visit"]},
        ),
        ({"patient_id": "aabbcc", "study_id": "uvwxyz"}, {"group_column": "patient_id"}),
        ({"study_id": "xxyyzw"}, {"exam_column": "study_id"}),
        ({"visit": "112212"}, {}),
    ],
)
def test_exams_of_several_images(
    columns: dict[str, str], expected: dict[str, object], project: Path, tmp_path: Path
) -> None:
    more = {
        name: [f"{value}{number // 6}" if name != "visit" else value for number, value in enumerate(values * 2)]
        for name, values in columns.items()
    }
    images = table_folder(tmp_path / "images", "label", **more)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    assert {key: value for key, value in written().items() if "group" in key or "exam" in key} == expected
    adapters.load(config.load("mine", data=str(images)))


@pytest.mark.parametrize(("name", "named"), [("ID", True), ("Case No", True), ("device", False), ("patient", False)])
def test_a_column_that_may_hold_patients_is_told(
    name: str, named: bool, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As ODIR's ID, which both eyes of a patient have: without it one is in train and one in test."""
    images = table_folder(tmp_path / "images", "label")
    table = pd.read_csv(images / "images.csv").drop(columns="id").assign(**{name: [n // 2 for n in range(12)]})
    table.to_csv(images / "images.csv", index=False)
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    says = f"No column is known to hold the patient, who may then be in two splits: if {name} does, set group_column."
    assert (says in capsys.readouterr().out) == named and ("group_column" in written()) == (name == "patient")


@pytest.mark.parametrize("name", ["", "My", "a b", "../x", "1st", "all", "bench"])
def test_a_study_is_named_plainly(project: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert cli.main(["new-study", name]) == 1
    assert f"cannot be named {name!r}" in one_line(capsys)


@pytest.mark.slow
def test_a_new_notebook_runs_on_a_new_study(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scanbook.runner import execute

    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, project / "notebooks")
    images = class_folders(tmp_path / "images", 20, "a", "b")
    assert cli.main(["new-study", "mine", "--data", str(images)]) == 0
    assert cli.main(["new-notebook", "10_my_question"]) == 0
    report = execute.run(Batch(config.load("mine", "smoke", str(images))), "10_my_question")
    assert json.loads(report.with_name("results.json").read_text()) == {"headline": "40 images, 2 classes"}
    assert (report.parent / "tables" / "images.csv").is_file()


def test_make_reports_runs_a_new_notebook_after_all_others(project: Path) -> None:
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, project / "notebooks")
    for name in ("Untitled", "01_eda-Copy1", "01_eda (1)"):
        (project / "notebooks" / f"{name}.ipynb").touch()
    batch = Batch(config.load("synthetic", "smoke"))
    assert batch.stale() == list(suite.NOTEBOOKS)
    assert cli.main(["new-notebook", "00_mine"]) == 0
    assert batch.stale() == [*suite.NOTEBOOKS, "00_mine"]
    assert suite.before("00_mine") >= {"01_eda", "07_export_flask"} and suite.after(suite.NOTEBOOKS[-1]) == ["00_mine"]
