"""Splits of findings: whole patients, equal shares of every finding, and what is said of rare ones."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers import planted
from helpers.tables import of_findings
from scanbook.config import Splits
from scanbook.data import presence, splits, stratification
from scanbook.data.manifest import SPLITS, Manifest
from scanbook.errors import DataError, StudyError

# images of ChestX-ray14 with each finding, of 112,120, and with pairs of the more frequent ones (Wang et al., 2017)
CHEST = {
    **{"Atelectasis": 11559, "Cardiomegaly": 2776, "Effusion": 13317, "Infiltration": 19894, "Mass": 5782},
    **{"Nodule": 6331, "Pneumonia": 1431, "Pneumothorax": 5302, "Consolidation": 4667, "Edema": 2303},
    **{"Emphysema": 2516, "Fibrosis": 1686, "Pleural_Thickening": 3385, "Hernia": 227},
}
TOGETHER = {
    ("Atelectasis", "Effusion"): 0.37,
    ("Atelectasis", "Consolidation"): 0.31,
    ("Cardiomegaly", "Effusion"): 0.39,
    ("Effusion", "Infiltration"): 0.25,
    ("Infiltration", "Edema"): 0.31,
    ("Pneumonia", "Edema"): 0.56,
    ("Pneumothorax", "Emphysema"): 0.51,
    ("Mass", "Nodule"): 0.3,
    ("Fibrosis", "Pleural_Thickening"): 0.26,
}
"""Tetrachoric correlations of the pairs that occur together most, from the published counts."""


def chest(patients: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, 14) of patients as ChestX-ray14 has them, 3.6 images each and up to 184, and the patient of each."""
    draw, names = np.random.default_rng(seed), list(CHEST)
    correlation = np.eye(len(names))
    for (first, second), value in TOGETHER.items():
        i, j = names.index(first), names.index(second)
        correlation[i, j] = correlation[j, i] = value
    values, vectors = np.linalg.eigh(correlation)
    root = (vectors * np.sqrt(np.maximum(values, 1e-3))) @ vectors.T  # LAPACK is free to choose the signs of vectors
    sizes = np.minimum(1 + np.exp(draw.normal(0.02, 1.47, patients)).astype(int), 184)
    patient = np.repeat(np.arange(patients), sizes)
    own, each = draw.normal(size=(patients, 14))[patient], draw.normal(size=(len(patient), 14))
    latent = (np.sqrt(0.6) * own + np.sqrt(0.4) * each) @ root.T
    latent /= np.sqrt((root**2).sum(axis=1))
    limits = stats.norm.ppf(1 - np.array(list(CHEST.values())) / 112_120)
    return (latent > limits).astype(np.float32), np.char.add("p", patient.astype(str))


@pytest.mark.parametrize("seed", range(3))
def test_a_finding_is_as_frequent_in_every_split(seed: int) -> None:
    """A share deviates between splits by 10 % of itself at most, or by one patient: ChestX-ray14's findings.

    A patient's images stay together, so a finding that few patients have deviates by less than its largest patient.
    """
    values, group = chest(2000, seed)
    manifest = splits.assign(*of_findings(values, group, names=tuple(CHEST)), Splits(seed=seed)).manifest
    frame = manifest.frame
    assert frame.groupby("group")["split"].nunique().max() == 1 and (frame["split"] != "").all()
    for column, name in enumerate(CHEST):
        own = values[:, column] == 1
        shares = [own[manifest.rows(split)].mean() for split in SPLITS]
        if max(shares) - min(shares) > 0.1 * own.mean():
            patients = frame[own].groupby("group")["split"].first().value_counts()
            expected = np.array([0.64, 0.16, 0.2]) * patients.sum()
            assert np.abs(patients.reindex(SPLITS).to_numpy() - expected).max() <= 1.5, (name, shares)
        sizes = [len(manifest.rows(split)) for split in SPLITS]
        deviation = (np.array(shares) - own.mean()) * sizes
        assert np.abs(deviation).max() < max(0.1 * own.mean() * max(sizes), frame[own].groupby("group").size().max())


def test_labels_that_are_missing_count_in_no_share() -> None:
    values, group = chest(1500, 5)
    draw = np.random.default_rng(0)
    values[draw.random(values.shape) < np.linspace(0.8, 0, 14)] = np.nan
    inside = stratification.fold(values, group, 5, 0)
    labelled, present = ~np.isnan(values), values == 1
    for column in range(13):  # the last is too rare
        known = labelled[inside, column].sum()
        expected = known * present[~inside, column].sum() / labelled[~inside, column].sum()
        assert present[inside, column].sum() == pytest.approx(expected, rel=0.08, abs=3)  # 3 images of a patient
        assert labelled[inside, column].mean() == pytest.approx(labelled[~inside, column].mean(), rel=0.05)


@st.composite
def wards(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Random labels with missing ones, of patients with one to six images."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    patients, findings = draw(st.integers(12, 60)), draw(st.integers(1, 8))
    patient = np.repeat(np.arange(patients), rng.integers(1, 7, patients))
    values = (rng.random((len(patient), findings)) < rng.uniform(0.05, 0.6, findings)).astype(np.float32)
    values[rng.random(values.shape) < draw(st.sampled_from([0, 0.1, 0.5]))] = np.nan
    return values, np.char.add("p", patient.astype(str))


@given(wards(), st.integers(2, 6), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_a_fold_is_of_whole_patients_and_does_not_depend_on_their_order(
    ward: tuple[np.ndarray, np.ndarray], folds: int, seed: int
) -> None:
    values, group = ward
    inside = stratification.fold(values, group, folds, seed)
    assert pd.Series(inside).groupby(group).nunique().max() == 1
    largest = pd.Series(group).value_counts().max()
    assert inside.sum() > 0 and abs(inside.sum() - len(group) / folds) <= max(largest, 0.25 * len(group) / folds)
    order = np.random.default_rng(seed).permutation(len(group))
    assert (stratification.fold(values[order], group[order], folds, seed) == inside[order]).all()


@given(wards(), st.integers(0, 5), st.integers(0, 6))
@settings(max_examples=40, deadline=None)
def test_no_patient_or_copy_is_in_two_splits(ward: tuple[np.ndarray, np.ndarray], seed: int, copied: int) -> None:
    values, group = ward
    manifest, scanned = of_findings(values, group)
    rng = np.random.default_rng(seed)
    scanned.loc[rng.choice(len(scanned), copied), "sha256"] = rng.choice(scanned["sha256"], copied)
    scanned.loc[rng.choice(len(scanned), 2), "error"] = "is empty"
    options = Splits(test_folds=3, validation_folds=3, seed=seed)
    try:
        assignment = splits.assign(manifest, scanned, options)
    except DataError as error:
        assert re.search("no training image|no image is labelled", str(error)) and "\n" not in str(error)
        return
    frame = assignment.manifest.frame.assign(sha256=scanned["sha256"])
    used = frame[frame["split"] != ""]
    assert used.groupby("group")["split"].nunique().max() == 1
    assert used.groupby("sha256")["split"].nunique().max() == 1
    assert set(assignment.excluded["image_id"]) == set(frame.loc[frame["split"] == "", "image_id"])
    train = np.flatnonzero(frame["split"] == "train")
    labels = pd.DataFrame(values[train]).groupby(frame["sha256"].iloc[train].to_numpy())
    assert not (labels.max() > labels.min()).to_numpy().any(), "copies in training agree"
    again = splits.assign(manifest, scanned, options)
    assert again.manifest.frame.equals(assignment.manifest.frame)
    if copied == 0:  # three patients are enough for three splits, unless rarer findings share them
        first = int(np.argmin(presence.kinds(manifest).sum(axis=0)))
        readable = (scanned["error"] == "").to_numpy()
        own = presence.kinds(manifest)[:, first] & readable
        if len(set(group[own])) >= 3 and values.shape[1] == 1:
            assert not any(assignment.manifest.absent(split) for split in SPLITS)
    assert bool(presence.notes(assignment.manifest)) >= bool(assignment.manifest.absent("test"))


def test_a_rare_finding_is_placed_in_every_split_where_three_patients_have_it() -> None:
    values, group = chest(300, 2)
    values[:, 13] = 0
    values[[5, 200, 400], 13] = 1
    assert len(set(group[values[:, 13] == 1])) == 3
    manifest = splits.assign(*of_findings(values, group, names=tuple(CHEST)), Splits()).manifest
    assert "Hernia" not in {name for split in SPLITS for name in manifest.absent(split)}


def test_a_finding_of_one_patient_is_in_training_and_the_study_says_so() -> None:
    values, group = chest(200, 3)
    values[:, 13] = np.where(group == "p7", 1, 0)
    manifest = splits.assign(*of_findings(values, group, names=tuple(CHEST)), Splits()).manifest
    (note,) = (note for note in presence.notes(manifest) if "Hernia" in note)
    count = int((group == "p7").sum())
    images = "1 image" if count == 1 else f"{count} images"
    assert f"No image in validation and test labelled with the finding 'Hernia' ({images} of 1 patient" in note
    assert "each split needs a patient" in note and "AUROC is not defined on test" in note


def test_a_finding_that_is_never_absent_in_a_split_is_told() -> None:
    values = np.tile(np.array([[1, 0], [0, 1], [0, 0], [1, 1]], np.float32), (30, 1))
    source = np.repeat(["train", "validation", "test"], [60, 30, 30])
    values[source == "test", 1] = 1
    manifest = splits.assign(*of_findings(values, np.arange(120).astype(str), list(source)), Splits()).manifest
    (note,) = presence.notes(manifest)
    assert note.startswith("No image in test labelled without the finding 'f1'") and "the source's splits" in note
    values[source == "train", 1] = np.where(values[source == "train", 1] == 1, np.nan, 0)
    with pytest.raises(DataError, match=r"no training image with finding 'f1'; of its 45 images .*15 in validation"):
        splits.assign(*of_findings(values, np.arange(120).astype(str), list(source)), Splits())


@pytest.mark.parametrize(
    ("stated", "uncertain", "message"),
    [
        (1.0, {}, "no image is labelled without finding 'f0'; remove the finding"),
        (-1.0, {}, "no image is labelled with finding 'f0'; 80 uncertain labels are ignored: say in the study how"),
        (-1.0, {"f0": "negative"}, "no image is labelled with finding 'f0'; remove the finding"),
    ],
)
def test_a_finding_that_cannot_be_learned_is_refused(stated: float, uncertain: dict[str, str], message: str) -> None:
    values = np.tile(np.array([[1, 0], [1, 1]], np.float32), (40, 1))
    values[:, 0] = stated
    manifest, scanned = of_findings(values, np.arange(80).astype(str))
    manifest = Manifest.of_findings("ward", manifest.frame, manifest.findings, uncertain)
    with pytest.raises(DataError) as caught:
        splits.assign(manifest, scanned, Splits())
    assert message in str(caught.value)


def test_copies_that_disagree_leave_training_and_name_the_finding() -> None:
    values = np.tile(np.array([[1, 0], [0, 1], [0, 0], [1, 1]], np.float32), (30, 1))
    values[0], values[4], values[8] = [1, 0], [1, 1], [np.nan, 0]
    values[1], values[5] = [0, np.nan], [np.nan, 1]  # what is not labelled agrees with both
    source = ["train"] * 60 + ["validation"] * 30 + ["test"] * 30
    manifest, scanned = of_findings(values, np.arange(120).astype(str), source, ("Effusion", "Mass"))
    scanned.loc[[0, 4, 8], "sha256"] = "a"
    scanned.loc[[1, 5], "sha256"] = "b"
    assignment = splits.assign(manifest, scanned, Splits())
    excluded = assignment.excluded.set_index("image_id")["reason"].to_dict()
    assert excluded == dict.fromkeys(("i0000", "i0004", "i0008"), "its exact copy has a different label: Mass")
    table = assignment.shared
    assert table.loc["Mass", ["compared", "conflict", "images in conflict: train"]].tolist() == [1, 1, 3]
    assert table.loc["Effusion", ["compared", "agree: present", "conflict"]].tolist() == [1, 1, 0]


def test_max_per_class_counts_an_image_for_its_rarest_finding() -> None:
    values, group = chest(400, 4)
    names = tuple(CHEST)
    full = splits.assign(*of_findings(values, group, names=names), Splits()).manifest
    limited = splits.assign(*of_findings(values, group, names=names), Splits(), max_per_class=20, seed=1)
    kept = limited.manifest.labels.values[limited.manifest.rows("train")]
    assert len(kept) <= 20 * 15
    assert (kept.sum(axis=1) == 0).sum() == 20
    rare = full.labels.values[full.rows("train")][:, 13].sum()
    assert kept[:, 13].sum() == rare, "fewer than 20 images have it"
    assert set(limited.excluded["reason"]) == {"over max_per_class (20)"}
    assert len(limited.manifest.rows("test")) == len(full.rows("test"))


def test_a_missing_validation_split_is_taken_from_train() -> None:
    values, group = chest(300, 6)
    source = np.where(np.isin(group, [f"p{number}" for number in range(60)]), "test", "train")
    manifest = splits.assign(*of_findings(values, group, list(source), tuple(CHEST)), Splits()).manifest
    assert ((manifest.frame["split"] == "test") == (source == "test")).all()
    count = len(manifest.rows("validation"))
    assert count == pytest.approx((source == "train").sum() / 5, rel=0.05)
    share = [manifest.labels.values[manifest.rows(split)][:, 3].mean() for split in ("train", "validation")]
    assert share[0] == pytest.approx(share[1], rel=0.1)


def test_an_exam_in_two_splits_is_refused() -> None:
    values = np.tile(np.array([[1.0], [0.0]], np.float32), (30, 1))
    manifest, scanned = of_findings(
        values, np.arange(60).astype(str), ["train"] * 20 + ["validation"] * 20 + ["test"] * 20
    )
    manifest = manifest.with_frame(manifest.frame.assign(exam=[f"e{number // 3}" for number in range(60)]))
    with pytest.raises(DataError, match="test, validation share an exam"):
        splits.assign(manifest, scanned, Splits())


def test_counts_keep_absent_uncertain_and_missing_apart() -> None:
    values = np.array([[1, 0], [1, -1], [0, np.nan], [np.nan, 1]], np.float64)
    manifest, _ = of_findings(values, np.array(["a", "a", "b", "c"]), "train", ("Edema", "Mass"))
    table = splits.finding_counts(manifest)
    edema = table[table["split"] == "train"].loc["Edema"]
    assert edema[["present", "absent", "uncertain", "not labelled"]].tolist() == [2, 1, 0, 1]
    assert edema["present, in groups"] == 1
    mass = table[table["split"] == "train"].loc["Mass"]
    assert mass[["present", "absent", "uncertain", "not labelled"]].tolist() == [1, 1, 1, 1]
    counts = splits.image_counts(manifest)
    assert counts["train"].to_dict() == {"Edema": 2, "Mass": 1, "all": 4, "groups": 3}
    assert "12.5% are uncertain, and count as missing" in splits.balance(manifest)
    even, _ = of_findings(np.array([[1, 0], [0, 1]], float), np.array(["a", "b"]), "train", ("Edema", "Mass"))
    assert splits.balance(even) == "Every finding is present in 50.0% of its labelled training images."
    assert "50.00% (1 of 2): always answering absent would be right in 50.0% of them" in splits.balance(manifest)


def test_findings_are_no_grades(monkeypatch):
    monkeypatch.setattr(splits.adapters, "load", lambda study: planted.observed())
    with pytest.raises(StudyError, match=r"evaluation.ordered is true.*findings have no order: remove it"):
        splits.split_study(planted.study(evaluation={"ordered": True}))
