"""Stand-ins with findings: the adapter reads in the natural layout of a dataset what was planted."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from scanbook import config
from scanbook.config import StandIn, Study
from scanbook.data import adapters
from scanbook.data.adapters import stand_in
from scanbook.data.manifest import TEST, Manifest
from scanbook.errors import DataError, StudyError

STUDIES = ("chestxray14", "chexpert")


def study_of(name: str, **keys: float) -> Study:
    """The study on its stand-in, of small images, and not sampled further."""
    small = config.load(name, "smoke")
    block = small.stand_in.model_copy(update={"size": 32, **keys})
    return small.model_copy(update={"stand_in": block, "limit": None, "data": "", "on_stand_in": True})


@cache
def written(name: str) -> tuple[Manifest, dict, Path]:
    """The manifest of a stand-in, its truth, and its folder."""
    manifest = adapters.load(study_of(name))
    folder = next(path for path in Path(manifest.frame["path"].iloc[0]).parents if path.name == "dataset").parent
    return manifest, json.loads((folder / "truth.json").read_text()), folder / "dataset"


# Files, and what the adapter reads


@pytest.mark.parametrize("name", STUDIES)
def test_the_adapter_reads_what_was_planted(name: str) -> None:
    manifest, truth, root = written(name)
    frame = manifest.frame
    paths = [Path(path).relative_to(root).as_posix() for path in frame["path"]]
    assert list(truth["bayes_auroc_population"]) == list(manifest.findings) == list(manifest.facts["bayes_auroc"])
    present = np.array([list(truth["present"][path].values()) for path in paths])
    stated, test = manifest.stated, (frame["split"] == TEST).to_numpy()
    told = ~np.isnan(stated) & (stated != -1)
    assert np.array_equal(stated[told], present[told])
    assert told[test].all() and 0.15 < test.mean() < 0.3
    assert not frame.loc[test, "group"].isin(frame.loc[~test, "group"]).any()
    shares = truth["shares"]
    assert np.isnan(stated[~test]).mean() == pytest.approx(shares["missing"], abs=0.04)
    assert (stated[~test] == -1).mean() == pytest.approx((1 - shares["missing"]) * shares["uncertain"], abs=0.03)
    assert not manifest.absent(TEST)
    seen = test & ~frame["image_id"].isin(manifest.facts["faults"]["unreadable"]).to_numpy()
    for place, finding in enumerate(manifest.findings):
        posterior = np.array([truth["posterior"][path][finding] for path in paths])
        best = roc_auc_score(present[seen, place], posterior[seen])
        assert manifest.facts["bayes_auroc"][finding] == pytest.approx(best, abs=1e-4)
        assert abs(manifest.facts["bayes_auroc_population"][finding] - best) < 0.15  # chance, of some 45 images


def test_rows_that_are_not_read_have_no_planted_faults() -> None:
    small = study_of("chexpert")
    source = small.dataset.model_copy(update={"include": {"AP/PA": ["PA"]}})
    manifest = adapters.load(small.model_copy(update={"dataset": source}))
    listed = set(manifest.frame["image_id"])
    planted = [image_id for kind in ("unreadable", "dark", "blurred") for image_id in manifest.facts["faults"][kind]]
    assert len(listed) < 180 and set(planted) <= listed


@pytest.mark.parametrize("name", STUDIES)
def test_planted_faults_are_there(name: str) -> None:
    manifest, _, _ = written(name)
    frame, planted = manifest.frame.set_index("image_id"), manifest.facts["faults"]
    stated = pd.DataFrame(manifest.stated, index=frame.index)
    pixels = {image_id: cv2.imread(path, cv2.IMREAD_UNCHANGED) for image_id, path in frame["path"].items()}
    assert {image_id for image_id, image in pixels.items() if image is None} == set(planted["unreadable"])
    assert all(planted.values())
    assert max(pixels[image_id].mean() for image_id in planted["dark"]) < 12
    for kind in ("exact_duplicates", "conflicting_labels"):
        for copy, source in planted[kind]:
            assert Path(frame.loc[copy, "path"]).read_bytes() == Path(frame.loc[source, "path"]).read_bytes()
            assert frame.loc[copy, "group"] != frame.loc[source, "group"]
            conflicts = (stated.loc[[copy, source]] == 1).any() & (stated.loc[[copy, source]] == 0).any()
            assert conflicts.sum() == (kind == "conflicting_labels")
    for copy, source in planted["near_duplicates"]:
        assert frame.loc[copy, "group"] == frame.loc[source, "group"]
    assert set(manifest.facts["near_duplicate_kinds"]) == {copy for copy, _ in planted["near_duplicates"]}


def test_chestxray14_has_its_natural_layout() -> None:
    manifest, _, root = written("chestxray14")
    header = (root / "Data_Entry_2017.csv").read_text().splitlines()[0]
    assert header == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    assert {path.parent.parent.name for path in root.rglob("*.png")} == {f"images_00{i}" for i in (1, 2, 3)}
    names = [path.name for path in sorted(root.rglob("*.png"))]
    assert len(names) == len(set(names)) == len(manifest.frame)
    lists = [(root / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")]
    assert sorted(lists[0] + lists[1]) == sorted(names)
    cells = pd.read_csv(root / "Data_Entry_2017.csv")["Finding Labels"]
    assert cells.str.contains("|", regex=False).any() and (cells == "No Finding").any()


def test_chexpert_has_its_natural_layout_and_views_from_the_side() -> None:
    manifest, _, root = written("chexpert")
    train, valid = (pd.read_csv(root / name) for name in ("train.csv", "valid.csv"))
    assert list(train)[:6] == ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding"]
    assert len(list(train)) == 19
    for table, folder in ((train, "train"), (valid, "valid")):
        pattern = rf"CheXpert-v1\.0-small/{folder}/patient\d{{5}}/study\d+/view\d_(?:frontal|lateral)\.jpg"
        assert table["Path"].str.fullmatch(pattern).all()
        assert (table["Path"].str.contains("lateral") == (table["Frontal/Lateral"] == "Lateral")).all()
        assert table.loc[table["Frontal/Lateral"] == "Lateral", "AP/PA"].isna().all()
    assert valid.iloc[:, 5:].isin([0.0, 1.0]).all().all()
    assert set(train["Edema"].dropna()) == {-1.0, 0.0, 1.0} and train["Edema"].isna().any()
    assert manifest.has_exams and not manifest.frame["path"].str.contains("lateral").any()
    assert len(manifest.frame) == (pd.concat([train, valid])["Frontal/Lateral"] == "Frontal").sum()


def test_same_bytes_whatever_the_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = study_of("chexpert", images=70)
    contents = []
    for threads in (1, 3):
        root = tmp_path / str(threads)
        monkeypatch.setattr(stand_in.runtime, "cores", lambda threads=threads: threads)
        stand_in.write(root, small)
        contents.append({str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()})
    assert contents[0] == contents[1] and len(contents[0]) == 73


# What cannot be a stand-in


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"findings": {"Edema": "xray_plague"}}, "stand_in.findings.Edema is 'xray_plague'"),
        ({"findings": {"Plague": "xray_edema"}}, "names 'Plague', which dataset.findings does not"),
        ({"findings": {}, "classes": {"a": "xray_normal"}}, "its dataset has findings, and its stand-in classes"),
        ({"missing": 0.2}, "cells of several names"),
    ],
)
def test_a_stand_in_that_does_not_fit_is_one_line(keys: dict, message: str) -> None:
    small = study_of("chestxray14")
    with pytest.raises(StudyError, match=message) as caught:
        adapters.load(small.model_copy(update={"stand_in": small.stand_in.model_copy(update=keys)}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"images": 9},
        {"classes": {"a": "xray_normal"}, "findings": {"b": "xray_edema"}},
        {"classes": {"a": "xray_normal"}, "missing": 0.1},
        {"findings": {"a": "xray_mass", "b": "xray_mass"}},
    ],
)
def test_a_stand_in_has_classes_or_findings(keys: dict) -> None:
    with pytest.raises(ValidationError, match="findings"):
        StandIn(**keys)


def test_a_stand_in_of_too_few_images_for_its_findings_is_one_line() -> None:
    with pytest.raises(DataError, match=r"finding 'pneumothorax' is present in 0.*; raise stand_in\.images in the stu"):
        adapters.load(study_of("chestxray14", images=5))
