"""Quality: what was planted is found, what is sound is not, on synthetic images and on real ones."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from scanbook import config
from scanbook.data import adapters, images, quality, splits
from scanbook.data.adapters.synthetic import dataset, faults
from scanbook.data.manifest import Manifest
from scanbook.data.quality import copies, scanning
from scanbook.data.quality.copies import NEAR_CORRELATION
from scanbook.data.quality.planted import planted
from scanbook.data.quality.thumbnails import thumbnails

SIDE = 96


def scene(seed: int, side: int = SIDE) -> np.ndarray:
    """A textured picture, like no other seed's, some finer than others."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(60, 200, (6, 6, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    return (coarse + rng.normal(0, rng.uniform(4, 16), coarse.shape)).clip(0, 255).astype(np.uint8)


def make_manifest(folder: Path, files: dict[str, bytes], labels: dict[str, str] | None = None) -> Manifest:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    names = list(files)
    frame = pd.DataFrame({"image_id": names, "path": [str(folder / name) for name in names], "group": names})
    frame = frame.assign(label=[(labels or {}).get(name, "a") for name in names], mask_path="", split="")
    digest = hashlib.sha256(b"".join(files.values())).hexdigest()
    return Manifest("mini", frame, ("a", "b"), {"data": digest})


@pytest.fixture(autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path_factory.mktemp("store")))


def test_every_image_is_described_in_order(tmp_path: Path) -> None:
    colours = np.full((40, 80, 3), (200, 100, 50), np.uint8)
    checks = np.tile(np.array([[0, 255], [255, 0]], np.uint8).repeat(8, 0).repeat(8, 1), (6, 6))
    files = {
        "colours": images.encode_png(colours),
        "broken": b"text",
        "empty": b"",
        "checks": images.encode_png(checks),
    }
    manifest = make_manifest(tmp_path, files)
    manifest = manifest.with_frame(
        pd.concat([manifest.frame, manifest.frame.iloc[:1].assign(image_id="gone", path=str(tmp_path / "gone"))])
    )
    table = quality.scan(manifest)
    assert table["image_id"].tolist() == ["colours", "broken", "empty", "checks", "gone"]
    errors = dict(zip(table["image_id"], table["error"], strict=True))
    assert errors["colours"] == errors["checks"] == ""
    assert "cannot be decoded" in errors["broken"] and "empty (0 bytes)" in errors["empty"]
    assert "No such file" in errors["gone"] and str(tmp_path) not in errors["broken"]
    first, broken, checked = table.iloc[0], table.iloc[1], table.iloc[3]
    assert first["sha256"] == hashlib.sha256(files["colours"]).hexdigest() and first["bytes"] == len(files["colours"])
    assert (first["width"], first["height"]) == (80, 40)
    assert (first["red"], first["green"], first["blue"]) == (200, 100, 50)
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert first["brightness"] == pytest.approx(grey, abs=0.5) and first["contrast"] == 0
    assert first["sharpness"] == pytest.approx(-3), "the Laplacian of an even image is zero; 1e-3 keeps the logarithm"
    assert (first["format"], first["mode"]) == ("PNG", "RGB") and first["saturation"] == 150
    assert broken["bytes"] == 4 and np.isnan(broken["width"]) and broken["format"] == broken["mode"] == ""
    assert checked["saturation"] == 0
    small = scanning.pictures(manifest)
    assert small.shape == (5, scanning.SIDE, scanning.SIDE) and small.dtype == np.uint8
    assert np.ptp(small[0]) == 0 and small[0].mean() == pytest.approx(grey, abs=1) and not small[[1, 2, 4]].any()
    assert checked["brightness"] == pytest.approx(127.5, abs=3) and checked["contrast"] > 100
    assert checked["sharpness"] > 2


def test_a_scan_is_kept_and_reads_back_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path, {"a": images.encode_png(scene(0)), "b": b"", "c": images.encode_png(scene(1))})
    first = quality.scan(manifest)

    def never(_: str) -> dict[str, float]:
        raise AssertionError("read again")

    monkeypatch.setattr("scanbook.data.quality.scanning.describe", never)
    pd.testing.assert_frame_equal(first, quality.scan(manifest))


@pytest.fixture
def faulty(tmp_path: Path) -> Manifest:
    """Forty sound images and, among them, one of every fault."""
    sound = {f"s{number:02d}": scene(number) for number in range(40)}
    other = scene(99)
    files = {name: images.encode_png(pixels) for name, pixels in sound.items()}
    files |= {
        "blank": images.encode_png(np.full((SIDE, SIDE, 3), 90, np.uint8)),
        "black": images.encode_png(np.zeros((SIDE, SIDE, 3), np.uint8)),
        "dark": images.encode_png((other * 0.25).clip(20, 60).astype(np.uint8) - 20),
        "blurred": images.encode_png(cv2.GaussianBlur(other, (0, 0), 4)),
        "broken": files["s00"][:400],
        "copy of s01": files["s01"],
        "copy of s02": files["s02"],
        "second copy of s02": files["s02"],
        "brighter s03": images.encode_png(cv2.convertScaleAbs(sound["s03"], alpha=1.05, beta=6)),
        "smaller s04": images.encode_png(cv2.resize(sound["s04"], (72, 72), interpolation=cv2.INTER_AREA)),
        "mirrored s05": images.encode_png(np.ascontiguousarray(sound["s05"][:, ::-1])),
        "s06 as JPEG": cv2.imencode(".jpg", sound["s06"][..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes(),
    }
    return make_manifest(tmp_path, files, {"copy of s01": "b"})


def test_every_planted_fault_is_caught_and_nothing_else(faulty: Manifest) -> None:
    caught = quality.flags(quality.scan(faulty))
    flagged = {rule: set(rows["image_id"]) for rule, rows in caught.groupby("rule")}
    assert flagged == {"unreadable": {"broken"}, "blank": {"blank", "black"}, "dark": {"dark"}, "blurred": {"blurred"}}
    assert caught["reason"].str.len().gt(5).all()
    why = caught.set_index("rule")["reason"]
    assert "< 25" in why["dark"] and "< 3" in why["blank"].iloc[0]


def test_copies_are_grouped_and_near_copies_paired(faulty: Manifest) -> None:
    scanned = quality.scan(faulty)
    exact = quality.exact_copies(scanned)
    groups = {frozenset(rows["image_id"]) for _, rows in exact.groupby("copy_group")}
    assert groups == {frozenset({"s01", "copy of s01"}), frozenset({"s02", "copy of s02", "second copy of s02"})}
    assert sorted(exact["copy_group"].unique()) == [0, 1]
    near = quality.near_copies(faulty).set_index(["image_id", "other"])
    kinds = {
        **{("s03", "brighter s03"): "as is", ("s04", "smaller s04"): "as is"},
        **{("s05", "mirrored s05"): "mirrored", ("s06", "s06 as JPEG"): "as is"},
    }
    assert near["orientation"].to_dict() == kinds
    assert near["correlation"].between(NEAR_CORRELATION, 1.0001).all() and near["overlap"].between(0.97, 1).all()


def test_a_near_copy_of_copied_files_is_one_of_each_of_them(tmp_path: Path) -> None:
    files = {f"s{number}": images.encode_png(scene(number)) for number in range(12)}
    files |= {"same": files["s3"], "turned": images.encode_png(np.rot90(scene(3)).copy())}
    near = quality.near_copies(make_manifest(tmp_path, files))
    assert near[["image_id", "other"]].to_numpy().tolist() == [["s3", "turned"], ["same", "turned"]]
    assert near["orientation"].tolist() == ["rotated 90°"] * 2


def test_a_whole_family_of_orientations_is_found(tmp_path: Path) -> None:
    files = {f"s{number:02d}": images.encode_png(scene(number)) for number in range(30)}
    for turns in range(4):
        for mirrored in (False, True):
            pixels = np.rot90(scene(7)[:, ::-1] if mirrored else scene(7), turns)
            if turns or mirrored:
                files[f"t{turns}{mirrored:d}"] = images.encode_png(np.ascontiguousarray(pixels))
    near = quality.near_copies(make_manifest(tmp_path, files))
    family = {"s07", *(name for name in files if name.startswith("t"))}
    assert len(near) == 8 * 7 / 2 and set(near["image_id"]) | set(near["other"]) == family


def test_pairs_do_not_depend_on_how_many_are_looked_at_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset.write(tmp_path / "synthetic", 50, seed=1, size=72)
    files = {path.name: path.read_bytes() for path in sorted((tmp_path / "synthetic" / "images").iterdir())}
    for place, how in enumerate([*faults.NEAR_DUPLICATES, *faults.NEAR_DUPLICATES]):
        name = list(files)[place // 3]  # families of four
        pixels = images.read(files[name]) if len(files[name]) > 500 else scene(place)
        files[f"copy {place}"], _ = faults.make_near_duplicate(how, pixels, None, np.random.default_rng(place))
    manifest = make_manifest(tmp_path, files)
    scanned, small = quality.scan(manifest), scanning.pictures(manifest)
    whole = copies._near_copies(scanned, small)
    assert len(whole) > 20
    for images_at_a_time, pairs in ((9, 7), (31, 3)):
        monkeypatch.setattr(copies, "_IMAGES", images_at_a_time)
        monkeypatch.setattr(copies, "_PAIRS", pairs)
        monkeypatch.setattr(copies, "_CHUNK", min(pairs, 5))
        pd.testing.assert_frame_equal(copies._near_copies(scanned, small), whole)


def test_pairs_across_splits_and_with_two_labels_come_first(tmp_path: Path) -> None:
    files = {f"s{number}": images.encode_png(scene(number)) for number in range(12)}
    for number in (1, 2, 3):
        files[f"m{number}"] = images.encode_png(np.ascontiguousarray(scene(number)[:, ::-1]))
    manifest = make_manifest(tmp_path, files, {"m2": "b", "m3": "b"})
    split = manifest.frame["image_id"].map({"m3": "test", "s1": ""}).fillna("train")
    group = manifest.frame["image_id"].replace({"m1": "s1"})
    table = quality.across_splits(
        quality.near_copies(manifest), manifest.with_frame(manifest.frame.assign(split=split, group=group))
    )
    assert table["image_id"].tolist() == ["s3", "s2", "s1"]
    assert table["across"].tolist() == [True, False, False] and table["conflict"].tolist() == [True, True, False]
    assert table["same_group"].tolist() == [False, False, True]
    assert table["labels"].tolist() == ["a / b", "a / b", "a"]
    assert table["splits"].tolist() == ["train / test", "train", "none / train"]
    left = pd.DataFrame({"reason": ["near_duplicates: nearly identical to s9 in test", "unreadable"]})
    assert "1 across splits, 2 with conflicting labels" in quality.near_sentence(table, [], left)
    assert "1 training images are excluded" in quality.near_sentence(table, ["near_duplicates"], left)
    assert "No two images" in quality.near_sentence(table.iloc[:0], [], left)


@pytest.mark.parametrize("size", [80, pytest.param(160, marks=pytest.mark.slow)])
def test_near_duplicates_of_every_kind_are_found(tmp_path: Path, size: int) -> None:
    """Other pictures of the same lesion and patient are in the same dataset, and are not near-duplicates."""
    folder, count = tmp_path / "synthetic", 5 * len(faults.NEAR_DUPLICATES)
    dataset.write(folder, 2 * count, seed=3, size=size)
    truth, table = json.loads((folder / "truth.json").read_text()), pd.read_csv(folder / "metadata.csv")
    spoilt = {name for fault in truth["faults"].values() for members in fault for name in np.atleast_1d(members)}
    sound = [name for name in table["image_id"] if name not in spoilt]
    assert table.set_index("image_id").loc[sound, "lesion_id"].duplicated().sum() > count // 3
    files = {name: (folder / "images" / f"{name}.jpg").read_bytes() for name in sound}
    kinds = {}
    for place, name in enumerate(sound[:count]):
        how = faults.NEAR_DUPLICATES[place % len(faults.NEAR_DUPLICATES)]
        pixels = images.read(files[name])
        files[f"copy {name}"], _ = faults.make_near_duplicate(how, pixels, None, np.random.default_rng([place, size]))
        kinds[name, f"copy {name}"] = how
    manifest = make_manifest(tmp_path, files)
    near = quality.near_copies(manifest)
    pairs = set(near[["image_id", "other"]].itertuples(index=False, name=None))
    recall = {how: np.mean([pair in pairs for pair in kinds if kinds[pair] == how]) for how in faults.NEAR_DUPLICATES}
    assert len(pairs & set(kinds)) >= 0.95 * len(kinds) and min(recall.values()) >= 0.8, recall
    assert len(pairs & set(kinds)) >= 0.95 * len(pairs), pairs - set(kinds)
    turned = near.set_index(["image_id", "other"])["orientation"].to_dict()
    named = dict.fromkeys(faults.NEAR_DUPLICATES[7:], "as is") | {"rotated 270": "rotated 90°"}
    for pair in pairs & set(kinds):
        expected = named.get(kinds[pair], kinds[pair])
        assert turned[pair].startswith(expected), (pair, kinds[pair], turned[pair])


def test_no_image_is_blurred_among_equally_sharp_ones(faulty: Manifest) -> None:
    scanned = quality.scan(faulty)
    assert "blurred" in set(quality.flags(scanned)["rule"])
    even = scanned.assign(sharpness=scanned["sharpness"].where(scanned["image_id"] == "blurred", 2.0))
    assert "blurred" not in set(quality.flags(even)["rule"])
    alone = (scanned["image_id"] == "blurred").to_numpy()
    assert "blurred" not in set(quality.flags(scanned, alone)["rule"])


def test_nothing_readable_is_no_error(tmp_path: Path) -> None:
    scanned = quality.scan(make_manifest(tmp_path, {"a": b"", "b": b"text"}))
    assert quality.flags(scanned)["rule"].tolist() == ["unreadable"] * 2
    assert quality.exact_copies(scanned).empty
    assert quality.near_copies(make_manifest(tmp_path, {"a": b"", "b": b"text"})).empty
    one = make_manifest(tmp_path, {"c": images.encode_png(scene(0))})
    assert quality.flags(quality.scan(one)).empty and quality.near_copies(one).empty


def test_thumbnails_show_images_and_a_cross_where_there_is_none(faulty: Manifest) -> None:
    shown = thumbnails(faulty, ["s00", "broken", "blank"], 32)
    assert [image.shape for image in shown] == [(32, 32, 3)] * 3
    assert np.array_equal(shown[0], images.load(Path(faulty.frame["path"][0]), (32, 32)))
    assert (shown[1][0, 16] == 200).all() and shown[1][16, 16].max() < 150
    assert (shown[2] == 90).all()


def test_faults_planted_in_the_synthetic_images_are_found() -> None:
    manifest = adapters.load(config.load("synthetic", "smoke"))
    scanned = quality.scan(manifest)
    flagged, exact, near = quality.flags(scanned), quality.exact_copies(scanned), quality.near_copies(manifest)
    table = quality.planted(manifest, flagged, exact, near)
    kinds = ["unreadable", "dark", "blurred", "exact duplicates", "near duplicates", "conflicting labels"]
    assert sorted(table.index) == sorted(kinds) and (table["planted"] >= 1).all()
    assert (table["found"] == table["planted"]).all() and (table["recall"] == 1).all(), table
    assert table["others"].sum() <= 2 and (table["precision"] <= 1).all(), table
    # the table itself is not fooled: with nothing caught, nothing is found
    nothing = quality.planted(manifest, flagged.iloc[:0], exact.iloc[:0], near.iloc[:0])
    assert nothing["found"].sum() == nothing["others"].sum() == 0
    assert nothing["planted"].equals(table["planted"])


def test_pairs_that_follow_from_what_was_planted_count_as_planted() -> None:
    frame = pd.DataFrame(
        {"image_id": list("abcdef"), "label": "x", "path": "", "group": "", "mask_path": "", "split": ""}
    )
    facts = {"faults": {"near_duplicates": [["b", "a"], ["c", "a"]], "exact_duplicates": [["d", "a"]], "tinted": ["f"]}}
    manifest = Manifest("mini", frame, ("x",), facts)
    none = pd.DataFrame(columns=["image_id", "rule", "reason"])
    exact = pd.DataFrame({"image_id": ["a", "d"], "copy_group": [0, 0]})
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("b", "d"), ("e", "f")]
    table = planted(manifest, none, exact, pd.DataFrame(pairs, columns=["image_id", "other"]))
    assert sorted(table.index) == ["exact duplicates", "near duplicates"]
    assert table.loc["near duplicates"].tolist() == [5, 4, 1, 0.8, 0.8], "planted: ab, ac, bc, bd, cd"


def test_planted_tints_are_counted_against_those_found() -> None:
    frame = pd.DataFrame({"image_id": list("abcdefgh"), "label": "x", "path": "", "group": "", "mask_path": ""})
    manifest = Manifest("mini", frame.assign(split=""), ("x",), {"faults": {}, "tinted": ["a", "b", "c", "gone"]})
    flagged, exact = pd.DataFrame(columns=["image_id", "rule"]), pd.DataFrame(columns=["image_id", "copy_group"])
    near = pd.DataFrame(columns=["image_id", "other"])
    scanned = frame.assign(saturation=[20.0, 12.0, 1.0, 30.0, 0.0, 0.0, 0.0, np.nan])
    table = planted(manifest, flagged, exact, near, scanned)
    assert table.loc["tinted"].tolist() == [3, 2, 1, 2 / 3, 2 / 3]
    assert planted(manifest, flagged, exact, near).empty, "without a scan nothing is said of tints"


def test_a_turned_copy_of_a_blurred_image_is_one_and_another_blurred_image_is_none(tmp_path: Path) -> None:
    files = {f"s{number:02d}": images.encode_png(scene(number)) for number in range(30)}
    blurred = [cv2.GaussianBlur(scene(number), (0, 0), 4) for number in (90, 91)]
    files |= {"one": images.encode_png(blurred[0]), "two": images.encode_png(blurred[1])}
    files["turned"] = images.encode_png(np.rot90(blurred[0]).copy())
    manifest = make_manifest(tmp_path, files)
    caught = quality.flags(quality.scan(manifest))
    assert set(caught.loc[caught["rule"] == "blurred", "image_id"]) == {"one", "two", "turned"}
    near = quality.near_copies(manifest)
    assert near[["image_id", "other"]].to_numpy().tolist() == [["one", "turned"]]


def test_format_and_mode_are_those_of_the_header(tmp_path: Path) -> None:
    deep = cv2.imencode(".png", (scene(1).astype(np.uint16) * 256))[1].tobytes()
    files = {
        "jpeg": cv2.imencode(".jpg", scene(0))[1].tobytes(),
        "grey": images.encode_png(scene(0)[..., 0]),
        "deep": deep,
        "deep grey": cv2.imencode(".png", scene(2)[..., 0].astype(np.uint16) * 256)[1].tobytes(),
        "alpha": cv2.imencode(".png", np.dstack([scene(3), scene(3)[..., 0]]))[1].tobytes(),
    }
    table = quality.scan(make_manifest(tmp_path, files))
    kinds = list(zip(table["format"], table["mode"], strict=True))
    colours = [("PNG", "grey"), ("PNG", "16-bit RGB"), ("PNG", "16-bit grey"), ("PNG", "RGBA")]
    assert kinds == [("JPEG", "RGB"), *colours]


def test_a_damaged_image_is_unreadable_and_a_12_bit_one_is_not_blank(tmp_path: Path) -> None:
    whole = cv2.imencode(".jpg", scene(0))[1].tobytes()
    grey = scene(1)[..., 0].astype(np.uint16)
    files = {
        "whole": whole,
        "half": whole[: len(whole) // 2] + b"\xff\xd9",
        "12 bits": cv2.imencode(".png", grey * 16)[1].tobytes(),
        "8 bits": images.encode_png(grey.astype(np.uint8)),
    }
    table = quality.scan(make_manifest(tmp_path, files)).set_index("image_id")
    flagged = quality.flags(table.reset_index())
    assert flagged.loc[flagged["rule"] == "unreadable", "image_id"].tolist() == ["half"]
    assert table.loc["half", "error"] == "is a truncated JPEG (its data end before its pixels do)"
    assert not (flagged["rule"] == "blank").any()
    assert table.loc["12 bits", "mode"] == "12-bit grey in 16-bit"
    assert table.loc["12 bits", ["brightness", "contrast"]].equals(table.loc["8 bits", ["brightness", "contrast"]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chest_xray", "retinopathy"])
def test_faults_planted_in_stand_ins_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "none"))
    manifest = adapters.load(config.load(name, "quick", overrides="stand_in.images=450"))
    scanned = quality.scan(manifest)
    flagged, exact, near = quality.flags(scanned), quality.exact_copies(scanned), quality.near_copies(manifest)
    counts = quality.planted(manifest, flagged, exact, near, scanned)
    assert (counts.loc["near duplicates", ["recall", "precision"]] >= 0.95).all(), counts
    assert ("tinted" in counts.index) == (name == "chest_xray")
    if name == "chest_xray":
        assert counts.loc["tinted", "planted"] > 10 and (counts.loc["tinted", ["recall", "precision"]] >= 0.95).all()
        split = manifest.frame["split"].replace("", "train")
        table = quality.properties(scanned, manifest.with_frame(manifest.frame.assign(split=split)))
        sentences = quality.tint_sentences(quality.tints(table, manifest.classes))
        assert "COVID-19 training images are tinted, 0 of " in sentences and sentences.count("tinted") == 1, sentences


@pytest.mark.slow
def test_the_copies_among_the_real_chest_x_rays_leave_training(real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_data / "covid19_small.zip") as file:
        file.extractall(tmp_path)
    required = {"study": "covid", "title": "X-rays", "question": "Any?", "modality": "X-ray"}
    blocks = {"dataset": {"adapter": "folder"}, "backbones": ["baseline_cnn"]}
    covid = config.Study(**required, **blocks, data=str(tmp_path))
    manifest = adapters.load(covid)
    split = splits.split_study(covid)
    exact = quality.exact_copies(split.quality)
    assert len(split.quality) == 317 and (split.quality["error"] == "").all()
    digest = pd.Series([hashlib.sha256(Path(path).read_bytes()).digest() for path in manifest.frame["path"]])
    assert exact["copy_group"].nunique() == (digest.value_counts() > 1).sum() == 10
    given = manifest.frame.set_index("image_id")["split"]
    of_source = exact.assign(split=exact["image_id"].map(given)).groupby("copy_group")["split"].agg(set)
    crossing = of_source[of_source.map(len) == 2].index
    assert len(crossing) == 6 and set(given) == {"train", "test"}
    used = split.manifest.frame.set_index("image_id")["split"]
    assert (used[given == "test"] == "test").all(), "test is as the source has it"
    left = split.excluded.set_index("image_id")["reason"]
    leaving = exact[exact["copy_group"].isin(crossing) & (exact["image_id"].map(given) == "train")]["image_id"]
    assert set(left.index[left == "its exact copy is in test"]) == set(leaving) and len(leaving) == 6
    # of the four groups within one split of the source, the validation split carved from train may divide three
    others = left[left != "its exact copy is in test"]
    assert set(others) <= {"its exact copy is in validation", "its exact copy has a different label"}
    assigned = (
        exact.assign(split=exact["image_id"].map(used)).query("split != ''").groupby("copy_group")["split"].nunique()
    )
    assert (assigned == 1).all()
    near = quality.across_splits(quality.near_copies(manifest), split.manifest)
    assert not {frozenset(pair) for pair in near[["image_id", "other"]].itertuples(index=False)} & {
        frozenset(rows["image_id"]) for _, rows in exact.groupby("copy_group")
    }
