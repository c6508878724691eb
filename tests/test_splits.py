"""Parts: stratified, and never sharing a patient, a lesion or a copy of an image."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from scanbook import datasets, splits, study
from scanbook.errors import DataError
from scanbook.manifest import Manifest
from scanbook.study import Parts

PARTS = Parts(test_folds=4, validation_folds=3, seed=0)


def make(rows: list[tuple[str, str]], parts: list[str] | None = None) -> tuple[Manifest, pd.DataFrame]:
    """A dataset of (label, group) rows, all different and readable, and its scan."""
    frame = pd.DataFrame(rows, columns=["label", "group"])
    frame["image_id"] = [f"i{number:03d}" for number in range(len(rows))]
    frame = frame.assign(path="", mask_path="", part=parts or "")
    scanned = pd.DataFrame({"image_id": frame["image_id"], "error": "", "sha256": frame["image_id"]})
    return Manifest("mini", frame, tuple(sorted(set(frame["label"])))), scanned


def plain(count: int = 60, classes: str = "ab", group_size: int = 1) -> list[tuple[str, str]]:
    return [(classes[(n // group_size) % len(classes)], f"g{n // group_size:03d}") for n in range(count)]


def part_of(split: splits.Split) -> dict[str, str]:
    return dict(split.manifest.frame[["image_id", "part"]].itertuples(index=False))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Manifest, pd.DataFrame]:
    """Random tables: uneven groups and classes, copies within and across groups and labels, unreadable files."""
    count = draw(st.integers(30, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = rng.integers(0, draw(st.integers(12, 40)), count)
    labels = rng.choice(list("abc"), count, p=[0.5, 0.3, 0.2])
    if draw(st.booleans()):
        labels = np.array(list("abc"))[groups % 3]
    manifest, scanned = make([(str(label), f"g{group}") for label, group in zip(labels, groups, strict=True)])
    copied = draw(st.integers(0, 12))
    scanned.loc[rng.choice(count, copied), "sha256"] = rng.choice(scanned["sha256"], copied)
    scanned.loc[rng.choice(count, draw(st.integers(0, 4))), "error"] = "is empty"
    return manifest, scanned


@given(tables(), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_nothing_ever_crosses_the_parts(table: tuple[Manifest, pd.DataFrame], seed: int) -> None:
    manifest, scanned = table
    parts = Parts(test_folds=4, validation_folds=3, seed=seed)
    try:
        found = splits.split(manifest, scanned, parts)
    except DataError as error:
        assert "\n" not in str(error)
        assume(False)
    frame = found.manifest.frame.assign(sha256=scanned["sha256"], broken=scanned["error"] != "")
    used = frame[frame["part"] != ""]
    assert used.groupby("group")["part"].nunique().max() == 1
    assert used.groupby("sha256")["part"].nunique().max() == 1
    assert set(used["part"]) == {"train", "validation", "test"}
    assert not used["broken"].any()
    assert set(used.loc[used["part"] == "train", "label"]) == set(manifest.classes)
    train = used[used["part"] == "train"]
    readable_labels = frame[~frame["broken"]].groupby("sha256")["label"].nunique()
    assert (readable_labels[train["sha256"]] == 1).all(), "a conflicting copy stayed in training"
    assert set(found.left_out["image_id"]) == set(frame.loc[frame["part"] == "", "image_id"])
    assert found.left_out["image_id"].is_unique and (found.left_out["why"] != "").all()
    assert frame["image_id"].equals(manifest.frame["image_id"]), "the order of rows is kept"
    again = splits.split(manifest, scanned, parts)
    assert part_of(again) == part_of(found) and again.left_out.equals(found.left_out)


@given(tables())
@settings(max_examples=30, deadline=None)
def test_copies_never_change_test(table: tuple[Manifest, pd.DataFrame]) -> None:
    manifest, scanned = table
    try:
        found = splits.split(manifest, scanned, PARTS)
        without = splits.split(manifest, scanned.assign(sha256=scanned["image_id"]), PARTS)
    except DataError:
        assume(False)
    assert set(found.manifest.rows("test")) == set(without.manifest.rows("test"))


def test_other_seeds_are_other_parts() -> None:
    manifest, scanned = make(plain(90))
    rows = {tuple(splits.split(manifest, scanned, Parts(seed=seed)).manifest.rows("test")) for seed in range(6)}
    assert len(rows) == 6


def test_without_groups_the_parts_are_stratified_exactly() -> None:
    manifest, scanned = make(plain(100, "abbbb"))
    found = splits.split(manifest, scanned, Parts())
    table = splits.table(found.manifest)
    assert table.loc["a", "test"] * 4 == table.loc["b", "test"] and table.loc["all", "test"] == 20
    expected = next(StratifiedKFold(5, shuffle=True, random_state=0).split(manifest.y, manifest.y))[1]
    assert found.manifest.rows("test").tolist() == expected.tolist()


def test_with_groups_fold_0_is_test_and_fold_0_of_the_rest_validation() -> None:
    manifest, scanned = make(plain(180, "abc", 3))
    found = splits.split(manifest, scanned, PARTS).manifest
    groups = manifest.frame["group"].to_numpy()
    fold = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    rest, test = next(fold.split(manifest.y, manifest.y, groups))
    assert found.rows("test").tolist() == test.tolist()
    inner = next(StratifiedGroupKFold(3, shuffle=True, random_state=0).split(rest, manifest.y[rest], groups[rest]))
    assert found.rows("validation").tolist() == rest[inner[1]].tolist()
    assert found.rows("train").tolist() == rest[inner[0]].tolist()


def test_an_exact_copy_of_a_test_image_leaves_training_and_is_logged() -> None:
    manifest, scanned = make(plain())
    before = splits.split(manifest, scanned, PARTS).manifest
    test, train, validation = (before.rows(part)[0] for part in ("test", "train", "validation"))
    ids = manifest.frame["image_id"]
    assert manifest.y[train] == manifest.y[test]
    scanned.loc[[train, validation], "sha256"] = scanned["sha256"][test]
    found = splits.split(manifest, scanned, PARTS)
    parts = part_of(found)
    assert parts[ids[test]] == "test" and parts[ids[train]] == ""
    assert found.manifest.rows("test").tolist() == before.rows("test").tolist()
    log = {row.image_id: (row.part, row.why) for row in found.left_out.itertuples()}
    assert log[ids[train]] == ("train", "its exact copy is in test")
    assert log.get(ids[validation], ("", ""))[1] == "its exact copy is in test" and parts[ids[validation]] == ""


def test_an_exact_copy_of_a_validation_image_leaves_training() -> None:
    manifest, scanned = make(plain())
    before = splits.split(manifest, scanned, PARTS).manifest
    train, validation = before.rows("train")[1], before.rows("validation")[1]
    scanned.loc[train, "sha256"] = scanned["sha256"][validation]
    found = splits.split(manifest, scanned, PARTS)
    ids = manifest.frame["image_id"]
    assert part_of(found)[ids[train]] == "" and part_of(found)[ids[validation]] == "validation"
    assert found.left_out.to_dict("records") == [
        {"image_id": ids[train], "part": "train", "why": "its exact copy is in validation"}
    ]


def test_copies_with_conflicting_labels_leave_training() -> None:
    manifest, scanned = make(plain())
    before = splits.split(manifest, scanned, PARTS).manifest
    train = before.rows("train")
    first = train[0]
    second = next(row for row in train if manifest.y[row] != manifest.y[first])
    agreeing = [row for row in train if manifest.y[row] == manifest.y[first]][1:3]
    scanned.loc[second, "sha256"] = scanned["sha256"][first]
    scanned.loc[agreeing[1], "sha256"] = scanned["sha256"][agreeing[0]]
    found = splits.split(manifest, scanned, PARTS)
    ids = manifest.frame["image_id"]
    assert set(found.left_out["image_id"]) == {ids[first], ids[second]}
    assert set(found.left_out["why"]) == {"its exact copy is labelled otherwise"}
    assert part_of(found)[ids[agreeing[0]]] == part_of(found)[ids[agreeing[1]]] == "train", "agreeing copies stay"


def test_undecodable_images_leave_before_the_split() -> None:
    manifest, scanned = make(plain(), None)
    broken = [3, 17, 40]
    scanned.loc[broken, "error"] = "is empty"
    scanned.loc[broken, "sha256"] = "the same"  # three empty files are not copies that matter
    found = splits.split(manifest, scanned, PARTS)
    kept = np.setdiff1d(np.arange(60), broken)
    smaller = splits.split(manifest.with_frame(manifest.frame.iloc[kept]), scanned.iloc[kept].reset_index(), PARTS)
    assert part_of(smaller) == {name: part for name, part in part_of(found).items() if part}
    assert found.left_out["why"].tolist() == ["unreadable"] * 3


SOURCE = ["train"] * 36 + ["validation"] * 12 + ["test"] * 12


def test_parts_of_the_source_are_kept() -> None:
    manifest, scanned = make(plain(), SOURCE)
    found = splits.split(manifest, scanned, PARTS)
    assert found.manifest.frame["part"].tolist() == SOURCE and found.left_out.empty
    scanned.loc[0, "sha256"] = scanned["sha256"][59]
    scanned.loc[40, "sha256"] = scanned["sha256"][58]
    scanned.loc[5, "error"] = "is empty"
    found = splits.split(manifest, scanned, PARTS)
    expected = ["" if row in (0, 5, 40) else part for row, part in enumerate(SOURCE)]
    assert found.manifest.frame["part"].tolist() == expected
    assert found.left_out.set_index("image_id")["part"].to_dict() == {
        "i000": "train",
        "i005": "train",
        "i040": "validation",
    }


def test_a_missing_validation_part_is_carved_from_training_by_group() -> None:
    source = ["train"] * 48 + ["test"] * 12
    manifest, scanned = make(plain(60, "ab", 2), source)
    found = splits.split(manifest, scanned, PARTS).manifest
    assert found.rows("test").tolist() == list(range(48, 60))
    validation = found.rows("validation")
    assert set(validation) < set(range(48)) and 12 <= len(validation) <= 20
    assert set(found.frame["group"].iloc[validation]).isdisjoint(found.frame["group"].iloc[found.rows("train")])


def test_images_to_which_the_source_gives_no_part_stay_in_none() -> None:
    manifest, scanned = make(plain(), ["", *SOURCE[1:]])
    assert splits.split(manifest, scanned, PARTS).manifest.frame["part"][0] == ""


def refusal(manifest: Manifest, scanned: pd.DataFrame, parts: Parts = PARTS) -> str:
    with pytest.raises(DataError) as caught:
        splits.split(manifest, scanned, parts)
    assert "\n" not in str(caught.value) and "mini" in str(caught.value)
    return str(caught.value)


def test_a_group_that_the_sources_parts_share_raises() -> None:
    rows = plain()
    rows[0] = (rows[0][0], rows[59][1])
    message = refusal(*make(rows, SOURCE))
    assert "test, train share a group" in message and "i000" in message and "i059" in message


def test_what_cannot_be_split_is_one_line() -> None:
    message = refusal(*make([*plain(40), ("c", "g900"), ("c", "g901")]))
    assert "'c' has 2 images" in message and "at least 4" in message
    message = refusal(*make(plain(), ["train"] * 60))
    assert "test part is empty" in message
    rows = [("b" if part == "test" else "a", f"g{n}") for n, part in enumerate(SOURCE)]
    assert "no training image of class 'b'" in refusal(*make(rows, SOURCE))
    manifest, scanned = make(plain())
    assert "0 images" in refusal(manifest, scanned.assign(error="is empty"))


def test_the_table_counts_images_and_groups() -> None:
    manifest, _ = make(plain(60, "ab", 2), [*SOURCE[:-1], ""])
    table = splits.table(manifest)
    assert table.index.tolist() == ["a", "b", "all", "groups"]
    assert table.columns.tolist() == ["train", "validation", "test", "all"]
    assert table.loc["all"].tolist() == [36, 12, 11, 59] and table.loc["groups"].tolist() == [18, 6, 6, 30]
    assert (table.loc["a"] + table.loc["b"]).equals(table.loc["all"])


def test_the_drawn_study_is_split_by_patient() -> None:
    drawn = study.load("drawn", "smoke")
    found = splits.prepare(drawn)
    used = found.frame[found.frame["part"] != ""]
    assert used.groupby("group")["part"].nunique().max() == 1 and used["group"].nunique() < len(used)
    assert set(found.facts["faults"]["unreadable"]).isdisjoint(used["image_id"])
    shared = [set(pair) for pair in found.facts["faults"]["exact_duplicates"]]
    parts = used.set_index("image_id")["part"]
    assert all(parts.reindex(sorted(pair)).dropna().nunique() == 1 for pair in shared)


@pytest.mark.slow
def test_ham10000_is_split_as_published(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    with zipfile.ZipFile(real_data / "ham10000_200x150.zip") as file:
        file.extractall(tmp_path / "ham")
    ham = study.load("ham10000", "quick", str(tmp_path / "ham"))
    manifest = datasets.load(ham)
    assert len(manifest.frame) == 10015 and manifest.frame["group"].nunique() == 7470
    assert manifest.frame["label"].value_counts().to_dict() == ham.dataset.claimed
    assert (manifest.frame["mask_path"] != "").all()
    found = splits.prepare(ham)
    source = pd.read_csv(tmp_path / "ham" / "HAM10000_metadata.csv")
    fold = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    test = next(fold.split(source, source["dx"], source["lesion_id"]))[1]
    assert found.frame["image_id"].tolist() == source["image_id"].tolist()
    assert found.rows("test").tolist() == test.tolist() and len(test) == 2004
    used = found.frame[found.frame["part"] != ""]
    assert used.groupby("group")["part"].nunique().max() == 1
    validation = len(found.rows("validation"))
    assert 1500 < validation < 1700 and len(found.rows("train")) + validation + 2004 <= 10015


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
@settings(max_examples=30, deadline=None)
def test_cleaning_and_capping_change_training_alone(
    table: tuple[Manifest, pd.DataFrame], drop: set[str], seed: int
) -> None:
    manifest, scanned = table
    scanned = lit(scanned, seed)
    pairs = np.random.default_rng(seed).choice(manifest.frame["image_id"], (12, 2))
    near = pd.DataFrame(pairs[pairs[:, 0] != pairs[:, 1]], columns=["image_id", "other"])
    rules = sorted(drop)
    try:
        before = splits.split(manifest, scanned, PARTS)
        after = splits.split(manifest, scanned, PARTS, drop=rules, near=near, max_per_class=12, seed=seed)
    except DataError:
        assume(False)
    for part in ("validation", "test"):
        assert before.manifest.rows(part).tolist() == after.manifest.rows(part).tolist()
    train, left = set(before.manifest.rows("train")), set(after.manifest.rows("train"))
    assert left <= train
    logged = after.left_out[~after.left_out["image_id"].isin(before.left_out["image_id"])]
    ids = manifest.frame["image_id"]
    assert set(logged["image_id"]) == set(ids.iloc[sorted(train - left)]) and (logged["part"] == "train").all()
    assert logged["why"].str.startswith((*(f"{rule}: " for rule in rules), "over max_per_class (12)")).all()
    assert manifest.frame["label"].iloc[sorted(left)].value_counts().max() <= 12
    caught = splits.quality.flags(scanned, (before.manifest.frame["part"] == "train").to_numpy())
    dropped = set(caught.loc[caught["rule"].isin(drop), "image_id"])
    assert not dropped & set(ids.iloc[sorted(left)])
    if "near_duplicates" in drop:
        kept = dict(zip(ids, after.manifest.frame["part"], strict=True))
        parts = [{kept[one], kept[other]} - {""} for one, other in near.itertuples(index=False)]
        assert not any("train" in found and len(found) > 1 for found in parts)


@pytest.mark.parametrize("groups", [1, 3])
def test_fewer_groups_than_folds_is_one_line(groups: int) -> None:
    manifest, scanned = make([("ab"[number % 2], f"patient {number % groups}") for number in range(60)])
    with pytest.raises(
        DataError, match=rf"dataset mini: .* {groups} groups \(patients.* at least 4, .*lower the folds"
    ) as e:
        splits.split(manifest, scanned, PARTS)
    assert "\n" not in str(e.value)


def test_what_is_blurred_does_not_depend_on_validation_and_test() -> None:
    manifest, scanned = make(plain())
    draw = np.random.default_rng(0)
    scanned = scanned.assign(brightness=100.0, contrast=40.0, sharpness=draw.normal(2, 0.1, len(scanned)))
    train = splits.split(manifest, scanned, PARTS).manifest.rows("train")
    scanned.loc[train[0], "sharpness"] = 1.0
    others = ~scanned.index.isin(train)
    for shift in (-1.5, 0.0, 1.5):
        moved = scanned.assign(sharpness=scanned["sharpness"] + np.where(others, shift, 0))
        left = splits.split(manifest, moved, PARTS, drop=["blurred"]).left_out
        assert left["image_id"].tolist() == [f"i{train[0]:03d}"] and left["why"].str.startswith("blurred").all()


def test_a_near_duplicate_across_parts_says_of_which_image() -> None:
    manifest, scanned = make(plain(), SOURCE)
    near = pd.DataFrame([("i001", "i059"), ("i040", "i002"), ("i003", "i004")], columns=["image_id", "other"])
    found = splits.split(manifest, scanned, PARTS, drop=["near_duplicates"], near=near)
    assert dict(zip(found.left_out["image_id"], found.left_out["why"], strict=True)) == {
        "i001": "near_duplicates: shows nearly the same as i059 in test",
        "i002": "near_duplicates: shows nearly the same as i040 in validation",
    }
    with pytest.raises(DataError, match="near"):
        splits.split(manifest, scanned, PARTS, drop=["near_duplicates"])


def test_no_class_has_more_training_images_than_its_cap() -> None:
    manifest, scanned = make(plain(100, "abbbb"))
    plainly = splits.split(manifest, scanned, PARTS)
    capped = [splits.split(manifest, scanned, PARTS, max_per_class=15, seed=seed) for seed in (0, 0, 1)]
    counts = splits.table(capped[0].manifest)["train"]
    assert counts["b"] == 15 and counts["a"] == splits.table(plainly.manifest).loc["a", "train"] < 15
    assert part_of(capped[0]) == part_of(capped[1]) != part_of(capped[2])
    assert set(capped[0].left_out["why"]) == {"over max_per_class (15)"}


def test_a_rule_that_takes_a_whole_class_raises() -> None:
    manifest, scanned = make(plain())
    scanned = scanned.assign(contrast=40.0, brightness=120.0, sharpness=2.0)
    scanned.loc[manifest.frame["label"] == "b", "brightness"] = 1.0
    with pytest.raises(DataError, match="no training image of class 'b'"):
        splits.split(manifest, scanned, PARTS, drop=["dark"])


def test_a_study_that_drops_near_duplicates_is_cleaned(tmp_path: Path) -> None:
    drawn = study.load("drawn", "smoke", overrides="quality.drop=[dark,blurred,near_duplicates] max_per_class=6")
    before, after = splits.make(study.load("drawn", "smoke")), splits.make(drawn)
    for part in ("validation", "test"):
        assert before.manifest.rows(part).tolist() == after.manifest.rows(part).tolist()
    assert splits.table(after.manifest).loc[list(after.manifest.classes), "train"].max() == 6
    assert len(after.left_out) > len(before.left_out) and splits.prepare(drawn).frame.equals(after.manifest.frame)


def test_remarks_say_what_the_counts_do_not() -> None:
    manifest, scanned = make(plain(100, "abbbb"))
    found = splits.split(manifest, scanned, PARTS).manifest
    assert "names no patients" in splits.remarks(found) and "4.0 times" in splits.remarks(found)
    manifest, scanned = make(plain(60))
    assert "about even" in splits.balance(splits.split(manifest, scanned, PARTS).manifest)
