"""Every adapter: a sample of it, and the manifest that it makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from helpers.layouts import layout, make_study
from scanbook.config import Study
from scanbook.data import adapters
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


# a sample for the smoke profile


def test_a_limit_samples_classes_evenly_and_whole_groups(tmp_path: Path) -> None:
    rows = [(f"i{n:03d}", "ab"[n % 4 == 0], f"g{n // 3}") for n in range(120)]
    frame = pd.DataFrame(rows, columns=["image_id", "label", "group"]).assign(path="", mask_path="", split="")
    whole = Manifest("mini", frame, ("a", "b"))

    def sampled(**keys: object) -> Manifest:
        return adapters._sample(whole, make_study(tmp_path).model_copy(update=keys))

    manifest = sampled(limit=40)
    again, other = sampled(limit=40), sampled(limit=40, seed=1)
    assert manifest.frame.equals(again.frame) and not manifest.frame.equals(other.frame)
    assert 30 <= len(manifest.frame) <= 60 and set(manifest.frame["label"]) == {"a", "b"}
    assert sampled(limit=4).frame["label"].value_counts().min() >= 9, "enough to split"
    chosen = frame[frame["group"].isin(manifest.frame["group"])]
    assert chosen["image_id"].tolist() == manifest.frame["image_id"].tolist(), "groups are whole and order is kept"


def test_a_limit_in_the_sources_shares_keeps_the_prevalence(tmp_path: Path) -> None:
    rows = [(f"i{n:04d}", "ill" if n % 50 == 0 else "well", f"g{n // 4}") for n in range(4000)]
    frame = pd.DataFrame(rows, columns=["image_id", "label", "group"]).assign(path="", mask_path="", split="")
    wanted = make_study(tmp_path).model_copy(update={"limit": 1500, "limit_class_balance": "source"})
    manifest = adapters._sample(Manifest("rare", frame, ("ill", "well")), wanted).frame
    assert 1450 <= len(manifest) <= 1550
    assert 0.015 < (manifest["label"] == "ill").mean() < 0.025


def test_a_limit_takes_from_every_split_of_the_source(tmp_path: Path) -> None:
    names = [f"{split}/{label}/{n}.png" for split, count in (("train", 80), ("val", 4), ("test", 4)) for label in "ab"
             for n in range(count)]  # fmt: skip
    manifest = adapters.load(make_study(layout(tmp_path, *names), limit=20))
    counts = manifest.frame.groupby(["split", "label"]).size()
    (note,) = manifest.facts["notes"]
    assert manifest.facts["sampled"]
    assert note.startswith(f"{len(manifest.frame)} of 176 images were taken (limit 20), evenly over the classes")
    assert adapters.load(make_study(tmp_path)).facts["notes"] == []
    assert len(counts) == 6 and counts.min() >= 2 and 18 <= len(manifest.frame) <= 30


# where the images come from


def test_a_study_on_its_stand_in_reads_synthetic_images_with_its_own_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load_stand_in(study: Study, read: Callable[[Study], Manifest]) -> Manifest:
        seen.append(read)
        return read(study.model_copy(update={"data": str(layout(tmp_path, "a/1.png", "b/1.png"))}))

    monkeypatch.setattr(adapters.stand_in, "load", load_stand_in)
    manifest = adapters.load(make_study("/nowhere", on_stand_in=True))
    assert manifest.classes == ("a", "b") and seen == [adapters.folder.load]


def test_data_from_kaggle_are_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path))
    fetched = []

    def fetch(study: Study) -> None:
        fetched.append(study.dataset.kaggle)
        layout(study.location, "a/1.png", "b/1.png")

    monkeypatch.setattr(adapters.kaggle, "fetch", fetch)
    study = make_study("kaggle", {"adapter": "folder", "kaggle": "owner/name"})
    assert adapters.load(study).classes == adapters.load(study).classes == ("a", "b")
    assert fetched == ["owner/name"] and study.location == tmp_path / "mini"


# the manifest


def test_a_manifest_refuses_what_would_mislead() -> None:
    frame = pd.DataFrame({"image_id": ["1", "2"], "path": "", "label": ["a", "b"], "group": ["1", "2"]})
    frame = frame.assign(mask_path="", split="")
    assert Manifest("mini", frame, ("b", "a")).y.tolist() == [1, 0]
    with pytest.raises(DataError, match="no column group"):
        Manifest("mini", frame.drop(columns="group"), ("a", "b"))
    with pytest.raises(DataError, match="'1' occurs twice"):
        Manifest("mini", frame.assign(image_id="1"), ("a", "b"))
    with pytest.raises(DataError, match="'b' is not one of the classes a"):
        Manifest("mini", frame, ("a",))


def test_a_manifests_fingerprint_changes_with_all_but_the_place() -> None:
    frame = pd.DataFrame({"image_id": ["1", "2"], "path": "x", "label": ["a", "b"], "group": ["1", "2"]})
    frame = frame.assign(mask_path="", split=["train", "test"])
    whole = Manifest("mini", frame, ("a", "b"), {"data": "1"})
    here, there = (
        frame.assign(path=f"{root}/data/a/1.png", mask_path=f"{root}/data/m/1.png") for root in ("/x", "/y/z")
    )
    assert whole.with_frame(here).fingerprint() == whole.with_frame(there).fingerprint()
    others = [
        whole.with_frame(frame.assign(mask_path="other masks/1.png")),
        whole.with_frame(frame.iloc[::-1]),
        whole.with_frame(frame.assign(label=["a", "a"])),
        whole.with_frame(frame.assign(split=["test", "train"])),
        Manifest("mini", frame, ("b", "a"), {"data": "1"}),
        Manifest("mini", frame, ("a", "b"), {"data": "2"}),
    ]
    assert len({manifest.fingerprint() for manifest in (whole, *others)}) == 7


def test_names_that_are_not_utf8_are_shown_and_their_paths_still_open() -> None:
    name = "caf\udce9"
    row = {"image_id": f"{name}/1.png", "path": f"/data/{name}/1.png", "label": name, "group": name, "site": name}
    other = {"image_id": "b", "path": "/data/b", "label": "b", "group": "b", "site": None}
    frame = pd.DataFrame([row, other], dtype=object).assign(mask_path="", split="", age=[1.5, None])
    manifest = Manifest("odd", frame, (name, "b")).legible()
    assert manifest.classes == (r"caf\xe9", "b")
    columns = ["image_id", "label", "group", "site"]
    assert manifest.frame.loc[0, columns].tolist() == [r"caf\xe9/1.png", *[r"caf\xe9"] * 3]
    assert manifest.frame["path"].tolist() == frame["path"].tolist()
    assert manifest.frame["site"].isna().tolist() == [False, True] and manifest.frame["age"].dtype == float
    assert manifest.fingerprint() != manifest.with_frame(manifest.frame.assign(path="/data/b")).fingerprint()
