"""Splits: stratified, and never sharing a patient, a lesion or a copy of an image."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from helpers.tables import of_classes, plain, tables
from scanbook import config
from scanbook.config import Splits
from scanbook.data import splits
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError

SPLITS = Splits(test_folds=4, validation_folds=3, seed=0)


def split_of(dataset: splits.SplitDataset) -> dict[str, str]:
    return dict(dataset.manifest.frame[["image_id", "split"]].itertuples(index=False))


@given(tables(), st.integers(0, 5))
@settings(max_examples=10, deadline=None)
def test_no_group_or_copy_is_in_two_splits(table: tuple[Manifest, pd.DataFrame], seed: int) -> None:
    manifest, scanned = table
    options = Splits(test_folds=4, validation_folds=3, seed=seed)
    try:
        assignment = splits.assign(manifest, scanned, options)
    except DataError as error:
        assert "\n" not in str(error)
        assume(False)
    frame = assignment.manifest.frame.assign(sha256=scanned["sha256"], broken=scanned["error"] != "")
    used = frame[frame["split"] != ""]
    assert used.groupby("group")["split"].nunique().max() == 1
    assert used.groupby("sha256")["split"].nunique().max() == 1
    assert set(used["split"]) == {"train", "validation", "test"}
    assert not used["broken"].any()
    assert set(used.loc[used["split"] == "train", "label"]) == set(manifest.classes)
    train = used[used["split"] == "train"]
    readable_labels = frame[~frame["broken"]].groupby("sha256")["label"].nunique()
    assert (readable_labels[train["sha256"]] == 1).all(), "a conflicting copy stayed in training"
    assert set(assignment.excluded["image_id"]) == set(frame.loc[frame["split"] == "", "image_id"])
    assert assignment.excluded["image_id"].is_unique and (assignment.excluded["reason"] != "").all()
    assert frame["image_id"].equals(manifest.frame["image_id"]), "the order of rows is kept"
    again = splits.assign(manifest, scanned, options)
    assert split_of(again) == split_of(assignment) and again.excluded.equals(assignment.excluded)


@given(tables())
@settings(max_examples=6, deadline=None)
def test_copies_never_change_the_fold_that_is_test(table: tuple[Manifest, pd.DataFrame]) -> None:
    manifest, scanned = table
    try:
        with mock.patch("scanbook.data.spreading.spread", return_value=None):  # folds alone
            assignment = splits.assign(manifest, scanned, SPLITS)
            without = splits.assign(manifest, scanned.assign(sha256=scanned["image_id"]), SPLITS)
    except DataError:
        assume(False)
    assert set(assignment.manifest.rows("test")) == set(without.manifest.rows("test"))


@st.composite
def grouped_classes(draw: st.DrawFn) -> tuple[Manifest, pd.DataFrame, Splits]:
    """Random classes of three groups and more, of one class each, some with copies of a label or of two labels."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = [
        (f"c{label}", f"c{label}g{group}")
        for label in range(draw(st.integers(2, 6)))
        for group in range(draw(st.integers(3, 9)))
        for _ in range(rng.integers(2, 1 + draw(st.integers(2, 12))))
    ]
    manifest, scanned = of_classes(rows)
    # Copies of an image have another label, or are of groups from the fourth on: three groups stay that share none.
    spare = np.flatnonzero(manifest.frame["group"].duplicated())
    labels, late = manifest.frame["label"], manifest.frame["group"].str[-1].astype(int) >= 3
    shuffled = rng.permutation(spare)
    sources, receivers = np.array_split(shuffled, 2)
    for row in receivers[: draw(st.integers(0, len(receivers)))]:
        other = rng.choice(sources)
        if labels[row] != labels[other] or (late[row] and late[other]):
            scanned.loc[row, "sha256"] = scanned["sha256"][other]
    options = Splits(test_folds=2, validation_folds=draw(st.integers(2, 5)), seed=draw(st.integers(0, 9)))
    return manifest, scanned, options


@given(grouped_classes())
@settings(max_examples=40, deadline=None)
def test_a_class_of_three_groups_is_in_every_split(table: tuple[Manifest, pd.DataFrame, Splits]) -> None:
    manifest, scanned, options = table
    assignment = splits.assign(manifest, scanned, options)
    frame = assignment.manifest.frame.assign(sha256=scanned["sha256"])
    used = frame[frame["split"] != ""]
    assert used.groupby("group")["split"].nunique().max() == used.groupby("sha256")["split"].nunique().max() == 1
    assert len(used) + len(assignment.excluded) == len(frame)
    present = used.groupby("label")["split"].agg(set)
    assert all(present[name] == {"train", "validation", "test"} for name in manifest.classes), present
    assert not any("No image in" in note for note in splits.notes(assignment.manifest))


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
@example(674, 2)  # the folds leave one group for training
@settings(max_examples=20, deadline=None)
def test_groups_of_several_classes_are_spread_too(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [
        (f"c{label}", f"g{group}")
        for label in range(classes)  # three groups for each class before it and three for itself, of a common pool
        for group in rng.choice(4 * classes, 3 * (label + 1), replace=False)
        for _ in range(rng.integers(1, 6))
    ]
    assignment = splits.assign(*of_classes(rows), Splits(test_folds=2, validation_folds=2, seed=seed % 5)).manifest
    assert all(not assignment.absent(split) for split in ("train", "validation", "test"))
    assert assignment.frame.groupby("group")["split"].nunique().max() == 1


def test_other_seeds_give_other_splits() -> None:
    manifest, scanned = of_classes(plain(90))
    rows = {tuple(splits.assign(manifest, scanned, Splits(seed=seed)).manifest.rows("test")) for seed in range(3)}
    assert len(rows) == 3


def test_without_groups_the_splits_are_stratified_exactly() -> None:
    manifest, scanned = of_classes(plain(100, "abbbb"))
    assignment = splits.assign(manifest, scanned, Splits())
    table = splits.image_counts(assignment.manifest)
    assert table.loc["a", "test"] * 4 == table.loc["b", "test"] and table.loc["all", "test"] == 20
    expected = next(StratifiedKFold(5, shuffle=True, random_state=0).split(manifest.y, manifest.y))[1]
    assert assignment.manifest.rows("test").tolist() == expected.tolist()


def test_with_groups_fold_0_is_test_and_fold_0_of_the_rest_validation() -> None:
    manifest, scanned = of_classes(plain(180, "abc", 3))
    assignment = splits.assign(manifest, scanned, SPLITS).manifest
    groups = manifest.frame["group"].to_numpy()
    fold = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    rest, test = next(fold.split(manifest.y, manifest.y, groups))
    assert assignment.rows("test").tolist() == test.tolist()
    inner = next(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(rest, manifest.y[rest], groups[rest]))
    assert assignment.rows("validation").tolist() == rest[inner[1]].tolist()
    assert assignment.rows("train").tolist() == rest[inner[0]].tolist()


def test_an_exact_copy_of_a_test_image_leaves_training_and_is_logged() -> None:
    manifest, scanned = of_classes(plain())
    before = splits.assign(manifest, scanned, SPLITS).manifest
    test, train, validation = (before.rows(split)[0] for split in ("test", "train", "validation"))
    ids = manifest.frame["image_id"]
    assert manifest.y[train] == manifest.y[test]
    scanned.loc[[train, validation], "sha256"] = scanned["sha256"][test]
    assignment = splits.assign(manifest, scanned, SPLITS)
    assigned = split_of(assignment)
    assert assigned[ids[test]] == "test" and assigned[ids[train]] == ""
    assert assignment.manifest.rows("test").tolist() == before.rows("test").tolist()
    log = {row.image_id: (row.split, row.reason) for row in assignment.excluded.itertuples()}
    assert log[ids[train]] == ("train", "its exact copy is in test")
    assert log.get(ids[validation], ("", ""))[1] == "its exact copy is in test" and assigned[ids[validation]] == ""


def test_an_exact_copy_of_a_validation_image_leaves_training() -> None:
    manifest, scanned = of_classes(plain())
    before = splits.assign(manifest, scanned, SPLITS).manifest
    train, validation = before.rows("train")[1], before.rows("validation")[1]
    scanned.loc[train, "sha256"] = scanned["sha256"][validation]
    assignment = splits.assign(manifest, scanned, SPLITS)
    ids = manifest.frame["image_id"]
    assert split_of(assignment)[ids[train]] == "" and split_of(assignment)[ids[validation]] == "validation"
    assert assignment.excluded.to_dict("records") == [
        {"image_id": ids[train], "split": "train", "reason": "its exact copy is in validation"}
    ]


def test_copies_with_conflicting_labels_leave_training() -> None:
    manifest, scanned = of_classes(plain())
    before = splits.assign(manifest, scanned, SPLITS).manifest
    train = before.rows("train")
    first = train[0]
    second = next(row for row in train if manifest.y[row] != manifest.y[first])
    agreeing = [row for row in train if manifest.y[row] == manifest.y[first]][1:3]
    scanned.loc[second, "sha256"] = scanned["sha256"][first]
    scanned.loc[agreeing[1], "sha256"] = scanned["sha256"][agreeing[0]]
    assignment = splits.assign(manifest, scanned, SPLITS)
    ids = manifest.frame["image_id"]
    assert set(assignment.excluded["image_id"]) == {ids[first], ids[second]}
    assert set(assignment.excluded["reason"]) == {"its exact copy has a different label"}
    assert split_of(assignment)[ids[agreeing[0]]] == split_of(assignment)[ids[agreeing[1]]] == "train", (
        "agreeing copies stay"
    )


def test_undecodable_images_leave_before_the_split() -> None:
    manifest, scanned = of_classes(plain(), None)
    broken = [3, 17, 40]
    scanned.loc[broken, "error"] = "is empty"
    scanned.loc[broken, "sha256"] = "the same"  # three empty files are not copies that matter
    assignment = splits.assign(manifest, scanned, SPLITS)
    remaining = np.setdiff1d(np.arange(60), broken)
    smaller = splits.assign(
        manifest.with_frame(manifest.frame.iloc[remaining]), scanned.iloc[remaining].reset_index(), SPLITS
    )
    assert split_of(smaller) == {name: split for name, split in split_of(assignment).items() if split}
    assert assignment.excluded["reason"].tolist() == ["unreadable"] * 3


SOURCE = ["train"] * 36 + ["validation"] * 12 + ["test"] * 12


def test_splits_of_the_source_are_kept() -> None:
    manifest, scanned = of_classes(plain(), SOURCE)
    assignment = splits.assign(manifest, scanned, SPLITS)
    assert assignment.manifest.frame["split"].tolist() == SOURCE and assignment.excluded.empty
    scanned.loc[0, "sha256"] = scanned["sha256"][59]
    scanned.loc[40, "sha256"] = scanned["sha256"][58]
    scanned.loc[5, "error"] = "is empty"
    assignment = splits.assign(manifest, scanned, SPLITS)
    expected = ["" if row in (0, 5, 40) else split for row, split in enumerate(SOURCE)]
    assert assignment.manifest.frame["split"].tolist() == expected
    assert assignment.excluded.set_index("image_id")["split"].to_dict() == {
        "i000": "train",
        "i005": "train",
        "i040": "validation",
    }


def test_a_missing_validation_split_is_taken_from_training_by_group() -> None:
    source = ["train"] * 48 + ["test"] * 12
    manifest, scanned = of_classes(plain(60, "ab", 2), source)
    assignment = splits.assign(manifest, scanned, SPLITS).manifest
    assert assignment.rows("test").tolist() == list(range(48, 60))
    validation = assignment.rows("validation")
    assert set(validation) < set(range(48)) and 12 <= len(validation) <= 20
    assert set(assignment.frame["group"].iloc[validation]).isdisjoint(
        assignment.frame["group"].iloc[assignment.rows("train")]
    )


def test_images_without_a_split_in_the_source_stay_without_one() -> None:
    manifest, scanned = of_classes(plain(), ["", *SOURCE[1:]])
    assert splits.assign(manifest, scanned, SPLITS).manifest.frame["split"][0] == ""


def refusal(manifest: Manifest, scanned: pd.DataFrame, options: Splits = SPLITS) -> str:
    with pytest.raises(DataError) as caught:
        splits.assign(manifest, scanned, options)
    assert "\n" not in str(caught.value) and "mini" in str(caught.value)
    return str(caught.value)


def test_a_group_in_two_splits_of_the_source_raises() -> None:
    rows = plain()
    rows[0] = (rows[0][0], rows[59][1])
    message = refusal(*of_classes(rows, SOURCE))
    assert "test, train share a group" in message and "i000" in message and "i059" in message


def test_what_cannot_be_split_is_one_line() -> None:
    message = refusal(*of_classes([*plain(40), ("c", "g900"), ("c", "g901")]))
    assert "'c' has 2 images" in message and "at least 4" in message
    message = refusal(*of_classes(plain(), ["train"] * 60))
    assert "test split is empty" in message
    rows = [("b" if split == "test" else "a", f"g{n}") for n, split in enumerate(SOURCE)]
    assert "no training image of class 'b'" in refusal(*of_classes(rows, SOURCE))
    manifest, scanned = of_classes(plain())
    assert "0 images" in refusal(manifest, scanned.assign(error="is empty"))


def test_the_table_counts_images_and_groups() -> None:
    manifest, _ = of_classes(plain(60, "ab", 2), [*SOURCE[:-1], ""])
    table = splits.image_counts(manifest)
    assert table.index.tolist() == ["a", "b", "all", "groups"]
    assert table.columns.tolist() == ["train", "validation", "test", "all"]
    assert table.loc["all"].tolist() == [36, 12, 11, 59] and table.loc["groups"].tolist() == [18, 6, 6, 30]
    assert (table.loc["a"] + table.loc["b"]).equals(table.loc["all"])


def test_the_synthetic_study_is_split_by_patient() -> None:
    manifest = splits.prepare(config.load("synthetic", "smoke"))
    used = manifest.frame[manifest.frame["split"] != ""]
    assert used.groupby("group")["split"].nunique().max() == 1 and used["group"].nunique() < len(used)
    assert set(manifest.facts["faults"]["unreadable"]).isdisjoint(used["image_id"])
    shared = [set(pair) for pair in manifest.facts["faults"]["exact_duplicates"]]
    assigned = used.set_index("image_id")["split"]
    assert all(assigned.reindex(sorted(pair)).dropna().nunique() == 1 for pair in shared)


# --- cleaning and capping: training alone


def lit(scanned: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The scan with light and sharpness: some images blank, dark or blurred."""
    rng = np.random.default_rng(seed)
    count = len(scanned)
    contrast = np.where(rng.random(count) < 0.1, 1.0, 40.0)
    brightness = np.where(rng.random(count) < 0.1, 10.0, 120.0)
    sharpness = np.where(rng.random(count) < 0.1, 0.1, rng.normal(2, 0.1, count))
    return scanned.assign(contrast=contrast, brightness=brightness, sharpness=sharpness)


@given(tables(), st.sets(st.sampled_from(["blank", "dark", "blurred", "near_duplicates"])), st.integers(0, 9))
@settings(max_examples=6, deadline=None)
def test_cleaning_and_capping_change_training_alone(
    table: tuple[Manifest, pd.DataFrame], drop: set[str], seed: int
) -> None:
    manifest, scanned = table
    scanned = lit(scanned, seed)
    pairs = np.random.default_rng(seed).choice(manifest.frame["image_id"], (12, 2))
    near = pd.DataFrame(pairs[pairs[:, 0] != pairs[:, 1]], columns=["image_id", "other"])
    rules = sorted(drop)
    try:
        before = splits.assign(manifest, scanned, SPLITS)
        after = splits.assign(manifest, scanned, SPLITS, drop=rules, near=near, max_per_class=12, seed=seed)
    except DataError:
        assume(False)
    for split in ("validation", "test"):
        assert before.manifest.rows(split).tolist() == after.manifest.rows(split).tolist()
    train, left = set(before.manifest.rows("train")), set(after.manifest.rows("train"))
    assert left <= train
    logged = after.excluded[~after.excluded["image_id"].isin(before.excluded["image_id"])]
    ids = manifest.frame["image_id"]
    assert set(logged["image_id"]) == set(ids.iloc[sorted(train - left)]) and (logged["split"] == "train").all()
    assert logged["reason"].str.startswith((*(f"{rule}: " for rule in rules), "over max_per_class (12)")).all()
    assert manifest.frame["label"].iloc[sorted(left)].value_counts().max() <= 12
    caught = splits.quality.flags(scanned, (before.manifest.frame["split"] == "train").to_numpy())
    dropped = set(caught.loc[caught["rule"].isin(drop), "image_id"])
    assert not dropped & set(ids.iloc[sorted(left)])
    if "near_duplicates" in drop:
        split_by_id = dict(zip(ids, after.manifest.frame["split"], strict=True))
        assigned = [{split_by_id[one], split_by_id[other]} - {""} for one, other in near.itertuples(index=False)]
        assert not any("train" in pair_splits and len(pair_splits) > 1 for pair_splits in assigned)


@pytest.mark.parametrize("groups", [1, 3])
def test_fewer_groups_than_folds_is_one_line(groups: int) -> None:
    manifest, scanned = of_classes([("ab"[number % 2], f"patient {number % groups}") for number in range(60)])
    with pytest.raises(
        DataError, match=rf"dataset mini: .* {groups} groups \(patients.* at least 4, .*lower the folds"
    ) as e:
        splits.assign(manifest, scanned, SPLITS)
    assert "\n" not in str(e.value)


def test_what_is_blurred_does_not_depend_on_validation_and_test() -> None:
    manifest, scanned = of_classes(plain())
    draw = np.random.default_rng(0)
    scanned = scanned.assign(brightness=100.0, contrast=40.0, sharpness=draw.normal(2, 0.1, len(scanned)))
    train = splits.assign(manifest, scanned, SPLITS).manifest.rows("train")
    scanned.loc[train[0], "sharpness"] = 1.0
    others = ~scanned.index.isin(train)
    for shift in (-1.5, 0.0, 1.5):
        moved = scanned.assign(sharpness=scanned["sharpness"] + np.where(others, shift, 0))
        left = splits.assign(manifest, moved, SPLITS, drop=["blurred"]).excluded
        assert left["image_id"].tolist() == [f"i{train[0]:03d}"] and left["reason"].str.startswith("blurred").all()


def test_a_near_duplicate_across_splits_names_the_other_image() -> None:
    manifest, scanned = of_classes(plain(), SOURCE)
    near = pd.DataFrame([("i001", "i059"), ("i040", "i002"), ("i003", "i004")], columns=["image_id", "other"])
    assignment = splits.assign(manifest, scanned, SPLITS, drop=["near_duplicates"], near=near)
    assert dict(zip(assignment.excluded["image_id"], assignment.excluded["reason"], strict=True)) == {
        "i001": "near_duplicates: nearly identical to i059 in test",
        "i002": "near_duplicates: nearly identical to i040 in validation",
    }
    with pytest.raises(DataError, match="near"):
        splits.assign(manifest, scanned, SPLITS, drop=["near_duplicates"])


def test_no_class_has_more_training_images_than_its_cap() -> None:
    manifest, scanned = of_classes(plain(100, "abbbb"))
    plainly = splits.assign(manifest, scanned, SPLITS)
    capped = [splits.assign(manifest, scanned, SPLITS, max_per_class=15, seed=seed) for seed in (0, 0, 1)]
    counts = splits.image_counts(capped[0].manifest)["train"]
    assert counts["b"] == 15 and counts["a"] == splits.image_counts(plainly.manifest).loc["a", "train"] < 15
    assert split_of(capped[0]) == split_of(capped[1]) != split_of(capped[2])
    assert set(capped[0].excluded["reason"]) == {"over max_per_class (15)"}


def test_a_rule_that_takes_a_whole_class_raises() -> None:
    manifest, scanned = of_classes(plain())
    scanned = scanned.assign(contrast=40.0, brightness=120.0, sharpness=2.0)
    scanned.loc[manifest.frame["label"] == "b", "brightness"] = 1.0
    with pytest.raises(DataError, match="no training image of class 'b'"):
        splits.assign(manifest, scanned, SPLITS, drop=["dark"])


def test_a_study_that_drops_near_duplicates_is_cleaned(tmp_path: Path) -> None:
    cleaned = config.load("synthetic", "smoke", overrides="quality.drop=[dark,blurred,near_duplicates] max_per_class=6")
    before, after = splits.split_study(config.load("synthetic", "smoke")), splits.split_study(cleaned)
    for split in ("validation", "test"):
        assert before.manifest.rows(split).tolist() == after.manifest.rows(split).tolist()
    assert splits.image_counts(after.manifest).loc[list(after.manifest.classes), "train"].max() == 6
    assert len(after.excluded) > len(before.excluded) and splits.prepare(cleaned).frame.equals(after.manifest.frame)


def test_remarks_name_missing_patients_and_imbalance() -> None:
    manifest, scanned = of_classes(plain(100, "abbbb"))
    assignment = splits.assign(manifest, scanned, SPLITS).manifest
    assert "names no patients" in splits.remarks(assignment) and "4.0 times" in splits.remarks(assignment)
    manifest, scanned = of_classes(plain(60))
    assert "about even" in splits.balance(splits.assign(manifest, scanned, SPLITS).manifest)


# --- classes that a split lacks, and classes that are mostly copies of others


def noted(rows: list[tuple[str, str]], source: list[str] | None = None) -> tuple[Manifest, list[str]]:
    assignment = splits.assign(*of_classes(rows, source), SPLITS).manifest
    return assignment, list(splits.notes(assignment))


@pytest.mark.parametrize("seed", range(6))
def test_a_class_of_one_patient_is_in_training_and_the_reader_is_told(seed: int) -> None:
    manifest, scanned = of_classes([*plain(40), *[("c", "lone")] * 12])
    assignment = splits.assign(manifest, scanned, Splits(test_folds=4, validation_folds=3, seed=seed)).manifest
    assert assignment.absent("train") == () and assignment.absent("validation") == assignment.absent("test") == ("c",)
    [note] = splits.notes(assignment)
    assert "No image in validation and test of the class 'c' (12 images of 1 patient or lesion: 12 in train)" in note
    assert "accuracy and AUROC, is defined on test" in note and "no threshold" in note and "\n" not in note
    assert note in splits.remarks(assignment)


def test_a_class_of_two_patients_is_in_training_and_test() -> None:
    for seed in range(6):
        rows = [*plain(40), *[("c", "one")] * 6, *[("c", "two")] * 6]
        assignment = splits.assign(*of_classes(rows), Splits(test_folds=4, validation_folds=3, seed=seed)).manifest
        assert assignment.absent("validation") == ("c",) and not assignment.absent("train") + assignment.absent("test")


def test_half_of_the_images_of_one_patient_can_be_split() -> None:
    rows = [("ill", f"p{n // 2}") if n % 2 == 0 else ("well", "NA") for n in range(60)]
    assignment, [note] = noted(rows)
    assert set(assignment.frame.loc[assignment.frame["label"] == "well", "split"]) == {"train"}
    assert "'well' (30 images of 1 patient or lesion: 30 in train)" in note


def test_where_no_class_is_missing_nothing_is_noted() -> None:
    assert noted(plain())[1] == [] and noted(plain(), SOURCE)[1] == []


def test_a_class_that_the_sources_test_split_lacks_is_noted_with_its_counts() -> None:
    rows = [("ab"[n % 2] if split == "test" else "abc"[n % 3], f"g{n}") for n, split in enumerate(SOURCE)]
    assignment, [note] = noted(rows, SOURCE)
    assert assignment.frame["split"].tolist() == SOURCE, "the source's splits stay"
    assert "No image in test of the class 'c'" in note and "12 in train, 4 in validation" in note
    assert "the source's splits lack it" in note and "Add images of it to test" in note and "threshold" not in note


def test_many_missing_classes_are_one_line() -> None:
    rows = [("ab"[n % 2] if split != "train" else f"c{n % 9}", f"g{n}") for n, split in enumerate(SOURCE)]
    rows[:2] = [("a", "g0"), ("b", "g1")]
    [note] = noted(rows, SOURCE)[1]
    assert "classes 'c0' (" in note and "and 4 others" in note and "\n" not in note


def test_a_class_without_training_images_is_refused_with_its_patients_counted() -> None:
    rows = [("b", f"p{n % 3}") if split == "test" else ("a", f"g{n}") for n, split in enumerate(SOURCE)]
    message = refusal(*of_classes(rows, SOURCE))
    assert "no training image of class 'b'; of its 12 images of 3 patients or lesions, 12 in test;" in message
    manifest, scanned = of_classes(plain(60, "abc"))
    scanned.loc[manifest.frame["label"] == "c", "error"] = "is empty"
    assert "of its 20 images of 20 patients or lesions, 20 excluded (unreadable); replace" in refusal(manifest, scanned)


def test_a_class_whose_images_are_all_copies_of_others_is_refused_by_name() -> None:
    source = ["train"] * 60 + ["validation"] * 12 + ["test"] * 12
    manifest, scanned = of_classes(plain(84, "abc"), source)
    of = {name: np.flatnonzero((manifest.frame["label"] == name)[:60]) for name in "ab"}
    scanned.loc[of["b"], "sha256"] = scanned["sha256"].to_numpy()[of["a"]]
    message = refusal(manifest, scanned)
    assert "no training image of class 'a', nor of 1 other class; of its 28 images of 28 patients" in message
    assert "4 in validation, 4 in test, 20 excluded" in message
    assert "20 excluded (its exact copy has a different label); merge the classes" in message


def test_a_class_that_conflicting_copies_nearly_empty_is_told_first_with_the_classes_that_share_them() -> None:
    source = ["train"] * 90 + ["validation"] * 12 + ["test"] * 18
    manifest, scanned = of_classes([("abb"[n % 3] if n < 90 else "abc"[n % 3], f"g{n}") for n in range(120)], source)
    label = manifest.frame["label"].to_numpy()
    label[:10] = "c"
    manifest = manifest.with_frame(manifest.frame.assign(label=label))
    rows = np.flatnonzero((label == "b") & (manifest.frame["split"] == "train"))[:9]
    scanned.loc[range(9), "sha256"] = scanned["sha256"].to_numpy()[rows]
    assignment = splits.assign(manifest, scanned, SPLITS)
    [note] = splits.notes(assignment.manifest)
    assert note.startswith(
        "Images of class 'c' are byte-identical to images of other classes (9 of 10 in train; mostly"
    )
    assert "mostly 'b')" in note and "1 of its training images remain" in note and "Merge the classes" in note
    assert assignment.shared.loc["c", ["split", "images", "copied", "b", "c"]].tolist() == ["train", 10, 9, 9, 0]
    assert assignment.shared.loc["b", ["copied", "b", "c"]].tolist() == [9, 0, 9]


def test_few_conflicting_copies_are_counted_but_not_told_first() -> None:
    manifest, scanned = of_classes(plain())
    train = splits.assign(manifest, scanned, SPLITS).manifest.rows("train")
    other = next(row for row in train if manifest.y[row] != manifest.y[train[0]])
    scanned.loc[other, "sha256"] = scanned["sha256"][train[0]]
    assignment = splits.assign(manifest, scanned, SPLITS)
    assert not splits.notes(assignment.manifest) and assignment.shared["copied"].tolist() == [1, 1]


def test_copies_and_rules_that_empty_a_class_of_a_split_are_noted() -> None:
    manifest, scanned = of_classes(plain(60, "abc"), SOURCE)
    validation = np.flatnonzero((manifest.frame["label"] == "c") & (manifest.frame["split"] == "validation"))
    test = np.flatnonzero((manifest.frame["label"] == "c") & (manifest.frame["split"] == "test"))
    copied = scanned.copy()
    copied.loc[validation, "sha256"] = scanned["sha256"].to_numpy()[test[: len(validation)]]
    [note] = splits.notes(splits.assign(manifest, copied, SPLITS).manifest)
    assert (
        "No image in validation of the class 'c' (16 images of 16 patients or lesions: 12 in train, 4 in test)" in note
    )
    broken = scanned.copy()
    broken.loc[test, "error"] = "is empty"
    [note] = splits.notes(splits.assign(manifest, broken, SPLITS).manifest)
    assert "No image in test of the class 'c'" in note and "images there are unreadable, or copies" in note
