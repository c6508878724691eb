"""Outer folds: each image is test once in each repeat, and a fold shares no patient and no copy with its training."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.tables import of_classes, of_findings, plain, tables
from scanbook import config
from scanbook.config import Splits
from scanbook.data import folds, splits
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.errors import DataError, StudyError


def fold(manifest: Manifest, scanned: pd.DataFrame, number: int, **keys: object) -> splits.SplitDataset:
    return splits.assign(manifest, scanned, Splits(fold=number, **{"folds": 3} | keys))


def with_hospital(manifest: Manifest, values: list[str]) -> Manifest:
    return manifest.with_frame(manifest.frame.assign(hospital=values))


@given(tables(), st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_every_image_is_test_once_in_each_repeat(table, seed):
    manifest, scanned = table
    readable = (scanned["error"] == "").to_numpy()
    counts = np.zeros((2, len(readable)), int)
    for number in range(1, 7):
        try:
            dataset = fold(manifest, scanned, number, repeats=2, seed=seed)
        except DataError as error:
            assert "groups" in str(error) or "training" in str(error) or "validation" in str(error)
            return
        split = dataset.manifest.frame["split"]
        counts[(number - 1) // 3] += split == TEST
        group, digest = dataset.manifest.frame["group"], scanned["sha256"]
        for column in (group, digest):
            assert not set(column[split == TEST]) & set(column[split == TRAIN])
            assert not set(column[split == TEST]) & set(column[split == VALIDATION])
    assert (counts[:, readable] == 1).all() and not counts[:, ~readable].any()


def test_folds_of_classes_and_findings_are_stratified():
    manifest, _ = of_classes(plain(300, "aab", group_size=2))
    parts = folds.outer_folds(manifest, np.arange(300), Splits(folds=5))
    assert [name for name, _ in parts] == [f"fold {number} of 5" for number in range(1, 6)]
    assert all(abs((manifest.y[rows] == 1).sum() - 20) <= 2 for _, rows in parts)
    other = folds.outer_folds(manifest, np.arange(300), Splits(folds=5, repeats=2))
    assert all((rows == same).all() for (_, rows), (_, same) in zip(parts, other[:5], strict=True))
    assert {len(rows) for _, rows in other} == {60} and other[5][0] == "fold 1 of 5, repeat 2"
    assert set(other[5][1]) != set(parts[0][1])
    values = np.random.default_rng(0).random((400, 3)) < (0.5, 0.2, 0.05)
    findings, _ = of_findings(values, np.arange(400).astype(str))
    parts = folds.outer_folds(findings, np.arange(400), Splits(folds=4))
    shares = np.array([findings.labels.present[rows].sum(axis=0) for _, rows in parts])
    assert (np.ptp(shares, axis=0) <= 2).all() and sorted(np.concatenate([rows for _, rows in parts])) == list(
        range(400)
    )


def test_the_test_split_of_the_source_stays_out_of_the_folds_unless_it_is_pooled():
    source = ["train"] * 40 + ["validation"] * 20 + ["test"] * 30
    manifest, scanned = of_classes(plain(90), source)
    scanned.loc[0, "sha256"] = scanned.loc[88, "sha256"]  # a copy of a test image, with its label
    dataset = fold(manifest, scanned, 2)
    frame, excluded = dataset.manifest.frame, dataset.excluded.set_index("image_id")["reason"]
    assert (frame["split"].iloc[60:] == "").all() and set(frame["split"].iloc[1:60]) == {TRAIN, VALIDATION, TEST}
    assert excluded["i089"] == "in the source's test split, which is evaluated at the end"
    assert excluded["i000"] == "its exact copy is in test"
    assert dataset.manifest.facts["split_notes"][0] == (
        "Cross-validation: test is fold 2 of 3 here. Notebook 05 evaluates every fold."
    )
    near = pd.DataFrame([("i001", "i070"), ("i061", "i002")], columns=["image_id", "other"])
    dropped = [
        splits.assign(manifest, scanned, Splits(folds=3, fold=number), drop=["near_duplicates"], near=near).excluded
        for number in (1, 2, 3)
    ]
    reasons = pd.concat(dropped).query("image_id in ['i001', 'i002'] and split == 'train'")["reason"]
    assert set(reasons) == {f"near_duplicates: nearly identical to {image} in test" for image in ("i070", "i061")}
    pooled = [fold(manifest, scanned, number, pool=True).manifest.frame["split"] for number in (1, 2, 3)]
    assert (pd.concat(pooled, axis=1) == TEST).sum(axis=1).eq(1).all()
    # pages that are not of all folds show the source's split, or else the first fold
    ordinary = folds.one_split(Splits(folds=3, repeats=2), manifest)
    assert ordinary == Splits() and folds.one_split(Splits(folds=3, pool=True), manifest).fold == 1
    assert folds.one_split(Splits(folds=3), of_classes(plain())[0]).fold == 1


def test_a_column_states_the_folds_and_a_patient_of_two_hospitals_is_in_one_side():
    manifest, scanned = of_classes(plain(90, group_size=3))
    hospital = ["B"] * 30 + ["A"] * 31 + ["C"] * 27 + ["", ""]
    manifest = with_hospital(manifest, hospital)  # the patient of rows 60 to 62 was in A and C
    parts = folds.outer_folds(manifest, np.arange(90), Splits(folds_by="hospital"))
    assert [(name, len(rows)) for name, rows in parts] == [("hospital A", 31), ("hospital B", 30), ("hospital C", 27)]
    dataset = splits.assign(manifest, scanned, Splits(folds_by="hospital", fold=1))
    frame, excluded = dataset.manifest.frame, dataset.excluded.set_index("image_id")["reason"]
    assert set(frame.index[frame["split"] == TEST]) == set(range(30, 61))
    assert excluded["i061"] == excluded["i062"] == "its patient or lesion has images of hospital A, which is test"
    assert excluded["i089"] == "no hospital is recorded"
    given = manifest.with_frame(manifest.frame.assign(split=["train"] * 30 + ["test"] * 31 + ["train"] * 29))
    assert [name for name, _ in folds.outer_folds(given, np.r_[:30, 61:90], Splits(folds_by="hospital"))] == [
        "hospital B",
        "hospital C",
    ], "hospital A is the test split of the source"
    for place, splits_, message in (
        (
            manifest,
            Splits(folds_by="site", fold=1),
            "folds_by is 'site', which is no metadata of mini; expected one of hospital",
        ),
        (
            with_hospital(manifest, ["A"] * 90),
            Splits(folds_by="hospital", fold=1),
            "of which mini has 1 values; expected two or more",
        ),
        (manifest, Splits(folds_by="hospital", fold=4), "splits.fold is 4, and hospital has 3 values; expected 1 to 3"),
    ):
        with pytest.raises(DataError, match=message):
            splits.assign(place, scanned, splits_)


def test_fewer_patients_than_folds_in_a_class_are_refused_in_one_line():
    manifest, scanned = of_classes([*plain(60, "ab"), *[("c", f"rare{n % 2}") for n in range(9)]])
    with pytest.raises(DataError) as error:
        fold(manifest, scanned, 1)
    assert str(error.value) == (
        "dataset mini: class 'c' has images of 2 groups (patients or lesions), and there are 3 folds; expected at "
        "least one group for each fold; set splits.folds to 2"
    )


def test_no_fold_of_findings_is_empty_where_there_are_as_many_patients_as_folds():
    group = np.repeat(["a", "b", "c", "d", "e"], [100, 1, 1, 1, 1])
    values = np.r_[np.repeat([1.0, 0.0], 50), np.ones(4)][:, None]
    findings, _ = of_findings(values, group)
    parts = folds.outer_folds(findings, np.arange(104), Splits(folds=5))
    assert sorted(len(rows) for _, rows in parts) == [1, 1, 1, 1, 100]


def test_a_study_has_one_study_for_each_fold():
    study = config.load("synthetic", "smoke", overrides="splits.folds=3 splits.repeats=2")
    studies = folds.fold_studies(study)
    assert [each.splits.fold for each in studies] == [1, 2, 3, 4, 5, 6]
    assert folds.fold_studies(studies[3]) == [studies[3]]
    by_sex = config.load("synthetic", "smoke", overrides="splits.folds_by=sex")
    assert len(folds.fold_studies(by_sex)) == 2
    assert folds.fold_studies(config.load("synthetic", "smoke")) == [config.load("synthetic", "smoke")]
    for keys, message in {
        "splits.fold=2": "fold is 2, which needs folds, such as folds: 5",
        "splits.pool=true": "pool is True, which needs folds",
        "splits.folds=5 splits.folds_by=sex": "folds is 5 and folds_by is 'sex'; expected one of them",
        "splits.folds_by=sex splits.repeats=2": "repeats is 2, and the folds of folds_by are always the same",
        "splits.folds=5 splits.fold=6": "fold is 6; expected 1 to 5",
    }.items():
        with pytest.raises(StudyError, match=message):
            config.load("synthetic", "smoke", overrides=keys)


def test_folds_are_proposed_for_few_images_as_the_smallest_class_allows():
    assert folds.propose_folds(of_classes(plain(90))[0]) == "splits: {folds: 5}"
    assert (
        folds.propose_folds(of_classes(plain(90), ["train"] * 60 + ["test"] * 30)[0])
        == "splits: {folds: 5, pool: true}"
    )
    few, _ = of_classes([*plain(60), *[("c", f"rare {n % 3}") for n in range(9)]])
    assert folds.propose_folds(few) == "splits: {folds: 3}"
    assert folds.propose_folds(of_classes([*plain(60), ("c", "alone")])[0]) == ""
    assert folds.propose_folds(of_classes(plain(1000))[0]) == ""
    values = np.random.default_rng(0).random((60, 3)) < 0.5
    assert folds.propose_folds(of_findings(values, np.arange(60).astype(str))[0]) == "splits: {folds: 5}"
