"""Datasets of DICOM files: patients are groups, and nothing that a report shows says who they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.dicom_files import NAME, PATIENT, encoded, header, identifying
from helpers.layouts import make_study, refusal, write_image
from scanbook.data import adapters, dicom, quality
from scanbook.data.manifest import Manifest


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


def write(path: Path, seed: int, **elements: Any) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 4096, (16, 16), np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(header(pixels, bits=12, **elements)))
    return path


def hospital(root: Path) -> dict[str, str]:
    """Patient of each file of a folder dataset as it leaves a hospital: names in folders, files and headers."""
    owners = {}
    for number in range(12):
        who = number // 2
        name = ("Mustermann_Erika.dcm", "1.2.840.113619.{}", "IM{}", "PID-Q4711 {}.DICOM")[number % 4].format(number)
        path = (
            Path("ill" if number % 3 else "normal")
            / ("Mustermann^Erika" if number % 2 else "series 1")
            / f"{number}"
            / name
        )
        write(root / path, number, PatientID=f"{PATIENT}-{9 - who}", PatientName=f"{NAME}{who}")
        owners[str(root / path)] = f"{PATIENT}-{9 - who}"
    (root / "ill" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (root / "ill" / "LICENCE").write_text("text")
    return owners


def shown(manifest: Manifest) -> str:
    """All that a report could show of a dataset, paths apart."""
    frame = manifest.frame.drop(columns="path")
    return frame.to_csv() + str(manifest.facts) + str(manifest.classes) + quality.scan(manifest).to_csv()


def test_a_folder_of_dicom_groups_by_patient_and_names_no_one(tmp_path: Path) -> None:
    owners = hospital(tmp_path)
    broken = tmp_path / "ill" / "Mustermann^Erika" / "broken.dcm"
    broken.write_bytes(Path(next(iter(owners))).read_bytes()[:300])
    burned = write(tmp_path / "normal" / "Mustermann.dcm", 99, BurnedInAnnotation="YES", PatientID=f"{PATIENT}-9")
    manifest = adapters.load(make_study(tmp_path))
    assert len(manifest.frame) == 14 and manifest.classes == ("ill", "normal")
    truth = manifest.frame["path"].map({**owners, str(burned): f"{PATIENT}-9"})
    assert manifest.frame.groupby(truth)["group"].nunique().eq(1).all()
    assert manifest.frame.groupby("group").size().max() == 3
    pseudonyms = dict(zip(truth, manifest.frame["group"], strict=True))
    assert [pseudonyms[owner] for owner in sorted(set(owners.values()))] == [f"patient {n:04d}" for n in range(1, 7)]
    for label, rows in manifest.frame.groupby("label"):
        assert rows["image_id"].tolist() == [f"{label}/{n:06d}" for n in range(1, len(rows) + 1)]
    assert not identifying(shown(manifest))
    scanned = quality.scan(manifest).set_index("image_id")["error"]
    errors = scanned[manifest.frame.set_index("path")["image_id"][[str(broken), str(burned)]]]
    assert errors.iloc[0] and "burned in" in errors.iloc[1] and (scanned != "").sum() == 2
    assert not manifest.facts["grouped"], "the broken file's patient is not known"
    assert "14 of 14 images are DICOM" in " ".join(manifest.facts["notes"])
    broken.unlink()
    assert adapters.load(make_study(tmp_path)).facts["grouped"]


def test_splits_and_other_files_beside_dicom(tmp_path: Path) -> None:
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        write(tmp_path / place / "Mustermann.dcm", number, PatientID=f"P{number % 2}")
        write_image(tmp_path / place / "photo.png", number)
    manifest = adapters.load(make_study(tmp_path))
    ids = set(manifest.frame["image_id"])
    assert {"train/a/000001", "train/a/photo.png", "test/b/000001"} <= ids and not identifying(shown(manifest))
    assert manifest.frame["group"].value_counts()["patient 0001"] == 2 and not manifest.facts["grouped"]


def test_headers_without_a_patient_are_groups_of_their_own(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "ab"[number % 2] / f"{number}.dcm", number, PatientID="" if number else None)
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.frame["group"].tolist() == manifest.frame["image_id"].tolist() and not manifest.facts["grouped"]


TABLE = {"adapter": "table", "csv": "labels.csv", "image_column": "file", "label_column": "kind"}


@pytest.mark.parametrize("column", ["", "who"])
def test_a_table_of_dicom_names_no_one(column: str, tmp_path: Path) -> None:
    lines = ["file,kind,who,age"]
    for number in range(8):
        name = f"Mustermann {PATIENT} {number}"
        write(
            tmp_path / "scans" / f"{name}{'.dcm' if number % 2 else ''}", number, PatientID=f"{PATIENT}-{number // 2}"
        )
        lines.append(f"{name}{'.dcm' if number % 4 else ''},{'ab'[number % 2]},{PATIENT}/{number // 4},{50 + number}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    duplicates = f"a,b\nMustermann {PATIENT} 0,Mustermann {PATIENT} 7.dcm\n"
    (tmp_path / "twins.csv").write_text(duplicates)
    layout = TABLE | {"image_folders": ["scans"], "group_column": column, "metadata": ["age"]}
    manifest = adapters.load(make_study(tmp_path, layout))
    assert manifest.frame["image_id"].tolist() == [f"labels/{n:06d}" for n in range(1, 9)]
    expected = [f"group {n // 4 + 1:04d}" if column else f"patient {n // 2 + 1:04d}" for n in range(8)]
    assert (
        manifest.frame["group"].tolist() == expected and manifest.facts["grouped"] and not identifying(shown(manifest))
    )
    twins = adapters.load(make_study(tmp_path, layout | {"duplicates_csv": "twins.csv"}))
    assert twins.frame["group"].iloc[0] == twins.frame["group"].iloc[7] and twins.facts["listed_duplicates"] == 1
    assert twins.frame["group"].nunique() == manifest.frame["group"].nunique() - 1 and not identifying(shown(twins))


def test_a_dataset_of_dicom_without_pydicom_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        write(tmp_path / "ab"[number % 2] / f"{number}.dcm", number)
    monkeypatch.setattr(dicom, "_is_installed", lambda: False)
    message = refusal(make_study(tmp_path))
    assert "4 DICOM files" in message and 'pip install "scanbook[dicom]"' in message


def test_the_manifest_lists_dicom_like_any_image(tmp_path: Path) -> None:
    hospital(tmp_path)
    manifest = adapters.load(make_study(tmp_path))
    table = quality.scan(manifest)
    assert (table["width"] == 16).all() and table["sha256"].nunique() == len(table)
    assert pd.api.types.is_string_dtype(manifest.frame["image_id"])


def test_dicom_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    names = ("Mustermann.png", "Mustermann.IMA", "Mustermann.v2", "Erika.jpg")
    for number, name in enumerate(names):
        write(tmp_path / "ab"[number % 2] / name, number, PatientID=f"{PATIENT}-{number // 2}")
    for stray in ("Thumbs.db", "notes.txt", "DICOMDIR"):
        (tmp_path / "a" / stray).write_bytes(b"x" * 200)
    write(tmp_path / "Mustermann.Erika", 9)
    manifest = adapters.load(make_study(tmp_path))
    assert manifest.facts["notes"][-1] == "Not used: 1 no extension (they lie outside the folders that are read)."
    assert manifest.frame["image_id"].tolist() == ["a/000001", "a/000002", "b/000001", "b/000002"]
    assert manifest.frame["group"].value_counts().to_dict() == {"patient 0001": 2, "patient 0002": 2}
    assert manifest.facts["grouped"] and not identifying(shown(manifest))


def test_a_lost_row_of_a_table_of_dicom_is_named_by_its_row(tmp_path: Path) -> None:
    write(tmp_path / "scans" / "Mustermann.dcm", 1)
    (tmp_path / "labels.csv").write_text(f"file,kind\nMustermann.dcm,a\n{NAME},b\n")
    message = refusal(make_study(tmp_path, TABLE | {"image_folders": ["scans"]}))
    assert "names 1 images" in message and "row 3;" in message and not identifying(message)
