"""Quality: what was planted is found, what is sound is not, on drawn images and on real ones."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from scanbook import datasets, images, quality, study
from scanbook.manifest import Manifest

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
    frame = frame.assign(label=[(labels or {}).get(name, "a") for name in names], mask_path="", part="")
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
    found = quality.scan(manifest)
    assert found["image_id"].tolist() == ["colours", "broken", "empty", "checks", "gone"]
    errors = dict(zip(found["image_id"], found["error"], strict=True))
    assert errors["colours"] == errors["checks"] == ""
    assert "cannot be decoded" in errors["broken"] and "empty (0 bytes)" in errors["empty"]
    assert "No such file" in errors["gone"] and str(tmp_path) not in errors["broken"]
    first, broken, checked = found.iloc[0], found.iloc[1], found.iloc[3]
    assert first["sha256"] == hashlib.sha256(files["colours"]).hexdigest() and first["bytes"] == len(files["colours"])
    assert (first["width"], first["height"]) == (80, 40)
    assert (first["red"], first["green"], first["blue"]) == (200, 100, 50)
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert first["brightness"] == pytest.approx(grey, abs=0.5) and first["contrast"] == 0
    assert first["sharpness"] == pytest.approx(-3), "the Laplacian of an even image is zero; 1e-3 keeps the logarithm"
    assert broken["bytes"] == 4 and np.isnan(broken["width"]) and broken["thumbnail"] == ""
    assert checked["brightness"] == pytest.approx(127.5, abs=3) and checked["contrast"] > 100
    assert checked["sharpness"] > 2


def test_a_scan_is_kept_and_reads_back_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path, {"a": images.encode_png(scene(0)), "b": b"", "c": images.encode_png(scene(1))})
    first = quality.scan(manifest)

    def never(_: str) -> dict[str, float]:
        raise AssertionError("read again")

    monkeypatch.setattr(quality, "_describe", never)
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
    found = {rule: set(rows["image_id"]) for rule, rows in caught.groupby("rule")}
    assert found == {"unreadable": {"broken"}, "blank": {"blank", "black"}, "dark": {"dark"}, "blurred": {"blurred"}}
    assert caught["why"].str.len().gt(5).all()
    why = caught.set_index("rule")["why"]
    assert "< 25" in why["dark"] and "< 3" in why["blank"].iloc[0]


def test_copies_are_grouped_and_near_copies_paired(faulty: Manifest) -> None:
    scanned = quality.scan(faulty)
    exact = quality.exact_copies(scanned)
    groups = {frozenset(rows["image_id"]) for _, rows in exact.groupby("copy_group")}
    assert groups == {frozenset({"s01", "copy of s01"}), frozenset({"s02", "copy of s02", "second copy of s02"})}
    assert sorted(exact["copy_group"].unique()) == [0, 1]
    near = quality.near_copies(scanned)
    pairs = {frozenset(pair) for pair in near[["image_id", "other"]].itertuples(index=False)}
    expected = {("s03", "brighter s03"), ("s04", "smaller s04"), ("s05", "mirrored s05"), ("s06", "s06 as JPEG")}
    assert pairs == {frozenset(pair) for pair in expected} and len(near) == 4
    assert near["correlation"].between(quality.NEAR_CORRELATION, 1.0001).all()


def test_nothing_readable_is_no_error(tmp_path: Path) -> None:
    scanned = quality.scan(make_manifest(tmp_path, {"a": b"", "b": b"text"}))
    assert quality.flags(scanned)["rule"].tolist() == ["unreadable"] * 2
    assert quality.exact_copies(scanned).empty and quality.near_copies(scanned).empty
    one = quality.scan(make_manifest(tmp_path, {"c": images.encode_png(scene(0))}))
    assert quality.flags(one).empty and quality.near_copies(one).empty


def test_thumbnails_show_images_and_a_cross_where_there_is_none(faulty: Manifest) -> None:
    shown = quality.thumbnails(faulty, ["s00", "broken", "blank"], 32)
    assert [each.shape for each in shown] == [(32, 32, 3)] * 3
    assert np.array_equal(shown[0], images.load(Path(faulty.frame["path"][0]), (32, 32)))
    assert (shown[1][0, 16] == 200).all() and shown[1][16, 16].max() < 150
    assert (shown[2] == 90).all()


def test_what_was_planted_in_the_drawn_images_is_found() -> None:
    manifest = datasets.load(study.load("drawn", "smoke"))
    scanned = quality.scan(manifest)
    flagged, exact, near = quality.flags(scanned), quality.exact_copies(scanned), quality.near_copies(scanned)
    found = quality.planted(manifest, flagged, exact, near)
    kinds = ["unreadable", "dark", "blurred", "exact duplicates", "near duplicates", "conflicting labels"]
    assert sorted(found.index) == sorted(kinds) and (found["planted"] >= 1).all()
    assert (found["found"] == found["planted"]).all(), found
    assert found["others"].sum() <= 2, found
    # the table itself is not fooled: with nothing caught, nothing is found
    nothing = quality.planted(manifest, flagged.iloc[:0], exact.iloc[:0], near.iloc[:0])
    assert nothing["found"].sum() == nothing["others"].sum() == 0
    assert nothing["planted"].equals(found["planted"])


@pytest.mark.slow
def test_what_was_planted_in_the_default_profile_is_found() -> None:
    manifest = datasets.load(study.load("drawn", "quick"))
    scanned = quality.scan(manifest)
    flagged, exact, near = quality.flags(scanned), quality.exact_copies(scanned), quality.near_copies(scanned)
    found = quality.planted(manifest, flagged, exact, near)
    assert found["planted"].sum() >= 40 and (found["found"] >= 0.9 * found["planted"]).all(), found
    assert found["others"].sum() <= 24, found


@pytest.mark.slow
def test_the_real_chest_x_rays_hold_ten_groups_of_identical_files(real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_data / "covid19_small.zip") as file:
        file.extractall(tmp_path)
    required = {"study": "covid", "title": "X-rays", "question": "Any?", "modality": "X-ray"}
    blocks = {"dataset": {"adapter": "folder"}, "backbones": ["baseline_cnn"]}
    manifest = datasets.load(study.Study(**required, **blocks, data=str(tmp_path)))
    scanned = quality.scan(manifest)
    exact = quality.exact_copies(scanned)
    assert len(scanned) == 317 and (scanned["error"] == "").all()
    assert exact["copy_group"].nunique() == 10 and exact.groupby("copy_group").size().min() >= 2
    byte_groups = pd.Series([hashlib.sha256(Path(path).read_bytes()).digest() for path in manifest.frame["path"]])
    assert (byte_groups.value_counts() > 1).sum() == 10
