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
