"""Shortcuts: planted ones are found and named, and nothing is found where nothing was planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kruskal
from sklearn.metrics import roc_auc_score

from scanbook.data import quality
from scanbook.data.manifest import Manifest
from scanbook.data.quality.differences import tinted
from scanbook.data.quality.shortcuts import VIEWS, image_features, sample_images

CLASSES = ("covid", "normal", "virus")


def dataset(count: int = 240, seed: int = 0) -> tuple[pd.DataFrame, Manifest]:
    """A scan in which nothing but chance predicts the class, two images a group."""
    draw = np.random.default_rng(seed)

    label = np.array(CLASSES)[draw.integers(0, 3, count // 2).repeat(2)]
    ids = [f"i{number:04d}" for number in range(count)]
    names = [f"/images/{word:012x}.png" for word in draw.integers(0, 2**47, count)]
    frame = pd.DataFrame({"image_id": ids, "path": names, "label": label, "mask_path": "", "split": "train"})
    frame["group"] = [f"g{number // 2}" for number in range(count)]
    scanned = pd.DataFrame({"image_id": ids, "error": "", "sha256": ids, "format": "PNG", "mode": "RGB"})
    scanned["width"] = scanned["height"] = 224
    scanned["bytes"] = draw.integers(20_000, 60_000, count)
    for name, (mean, spread) in {
        **{"brightness": (120, 15), "contrast": (40, 6), "sharpness": (2, 0.3), "saturation": (30, 5)},
        **{"red": (120, 9), "green": (120, 9), "blue": (120, 9)},
    }.items():
        scanned[name] = draw.normal(mean, spread, count)
    return scanned, Manifest("mini", frame, CLASSES)


def test_where_nothing_was_planted_the_intervals_cover_one_half(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned, manifest = dataset()
    table = quality.shortcuts(scanned, manifest)
    assert table.index.tolist() == list(VIEWS) and (table["images"] == 240).all()
    assert (table["low"] <= 0.5).all() and not table["above chance"].any(), table
    assert table["auc"].between(0.36, 0.62).all()
    assert table.loc["format and mode", "auc"] == 0.5, "one format and one mode tell nothing"
    assert "better than chance" in quality.shortcut_sentences(table)
    for name in table.index[:-1]:
        monkeypatch.delitem(VIEWS, name)
    pd.testing.assert_frame_equal(table.iloc[-1:], quality.shortcuts(scanned, manifest))


def test_planted_shortcuts_are_found_and_their_classes_named() -> None:
    scanned, manifest = dataset()
    label = manifest.frame["label"].to_numpy()
    scanned.loc[label == "covid", "bytes"] += 45_000
    scanned.loc[label == "normal", "format"] = "JPEG"
    scanned.loc[label == "virus", "blue"] += 60
    path = manifest.frame["path"]
    named = path.where(label != "covid", path.str.replace("/images/", "/images/nejm_"))
    table = quality.shortcuts(scanned, manifest.with_frame(manifest.frame.assign(path=named)))
    planted = {
        **{"size, aspect and bytes": "covid", "format and mode": "normal"},
        **{"file name": "covid", "mean colour": "virus"},
    }
    sentences = quality.shortcut_sentences(table)
    for seen, name in planted.items():
        assert table.loc[seen, "class"] == name and table.loc[seen, "class_auc"] > 0.95, table
        assert table.loc[seen, "auc"] > 0.65 and table.loc[seen, "above chance"]
        assert f"sees {seen} alone" in sentences and f"{name} best" in sentences
    untouched = table.loc["brightness, contrast, sharpness"]
    assert untouched["auc"] < 0.62 and not untouched["above chance"] and "brightness" not in sentences


def test_the_models_see_training_images_alone_and_no_folder() -> None:
    scanned, manifest = dataset()
    split = np.where(np.arange(240) < 160, "train", "test")
    manifest = manifest.with_frame(manifest.frame.assign(split=split))
    features = image_features(scanned, manifest)
    assert len(features) == 160
    scanned.loc[160:, ["bytes", "red"]] = 0
    paths = [f"/{row.label}/{row.path.rsplit('/', 1)[1]}" for row in manifest.frame.itertuples()]
    moved = image_features(scanned, manifest.with_frame(manifest.frame.assign(path=paths)))
    columns = [column for view in VIEWS.values() for column in view]
    pd.testing.assert_frame_equal(moved[columns], features[columns])


def test_too_few_groups_give_no_row_and_a_sentence() -> None:
    scanned, manifest = dataset(12)
    table = quality.shortcuts(scanned, manifest.with_frame(manifest.frame.assign(group=manifest.frame["label"])))
    assert table.empty and "too few" in quality.shortcut_sentences(table)


def test_large_datasets_are_sampled_and_rare_classes_kept() -> None:
    scanned, manifest = dataset(9000)
    rare = manifest.frame["label"].to_numpy().copy()
    rare[(rare == "virus") & (np.arange(9000) % 40 > 0)] = "normal"
    table = sample_images(image_features(scanned, manifest.with_frame(manifest.frame.assign(label=rare))), 0)
    assert 2900 < len(table) < 3100 and (table["label"] == "virus").sum() >= 50


def test_a_tinted_class_is_named_with_its_area() -> None:
    scanned, manifest = dataset()
    covid = (manifest.frame["label"] == "covid").to_numpy()
    plain = quality.differences(quality.properties(scanned, manifest), CLASSES)
    assert "No class can be told" in quality.difference_sentences(plain) and (plain["p"] > 0.01).all()
    scanned.loc[covid, "blue"] += 25
    table = quality.properties(scanned, manifest)
    differences = quality.differences(table, CLASSES)
    row = differences.loc["red_minus_blue"]
    assert row["class"] == "covid" and not row["higher"] and row["auc"] > 0.9 and row["p"] < 1e-6
    assert row["low"] < row["auc"] < row["high"]
    sentences = quality.difference_sentences(differences)
    assert "covid" in sentences and f"AUC {row['auc']:.2f}" in sentences and "shortcut" in sentences
    assert "brightness" not in sentences
    # by hand: one value a group, the rank test over the three classes
    means = table.assign(value=table["red"] if "red" in table else table["red_minus_blue"]).groupby("group")
    value, label = means["red_minus_blue"].mean(), means["label"].first()
    assert row["H"] == pytest.approx(kruskal(*(value[label == name] for name in CLASSES)).statistic)
    assert row["auc"] == pytest.approx(1 - roc_auc_score(label == "covid", value))


def test_constant_properties_are_no_error_and_not_shown() -> None:
    scanned, manifest = dataset()
    table = quality.properties(scanned, manifest)
    differences = quality.differences(table, CLASSES)
    assert differences.loc["width_px", ["p", "auc"]].tolist() == [1.0, 0.5]
    assert "kilobytes" in quality.varying_properties(table) and "width_px" not in quality.varying_properties(table)
    varying = [name for name in quality.varying_properties(table) if name != "saturation"]
    assert quality.varying_properties(table.assign(saturation=0.0)) == varying


def test_formats_and_missing_values_are_counted_by_class() -> None:
    scanned, manifest = dataset(60)
    scanned.loc[:9, "mode"] = "grey"
    scanned.loc[10:11, ["format", "mode"]] = ""
    counts = quality.formats(quality.properties(scanned, manifest), CLASSES)
    assert counts["PNG, grey"].sum() == 10 and counts["unknown"].sum() == 2 and counts.index.tolist() == list(CLASSES)
    ages = np.where(np.arange(60) < 7, np.nan, 50.0)
    sexes = np.where(np.arange(60) % 10 == 0, "", "female")
    table = quality.missing_values(manifest.with_frame(manifest.frame.assign(age=ages, sex=sexes)))
    assert table.loc["all", "age"] == 7 and table.loc["all", "sex"] == 6
    assert table.loc[list(CLASSES), "age"].sum() == 7


def test_a_tint_of_a_part_of_one_class_is_reported() -> None:
    scanned, manifest = dataset(900)
    draw = np.random.default_rng(1)
    grey = scanned.assign(saturation=np.abs(draw.normal(0.5, 0.5, len(scanned))))  # traces of recompression
    covid = np.flatnonzero((manifest.frame["label"] == "covid").to_numpy())
    chosen = covid[: len(covid) // 10]
    some_tinted = grey.assign(saturation=grey["saturation"].mask(grey.index.isin(chosen), 15.0))
    some_tinted.loc[0, "saturation"] = np.nan
    assert set(np.flatnonzero(tinted(some_tinted))) == set(chosen) - {0}
    table = quality.properties(some_tinted.drop(index=0), manifest)
    counts = quality.tints(table, CLASSES)
    assert counts["p"]["covid"] < 1e-6 and (counts["p"][["normal", "virus"]] == 1).all()
    sentences = quality.tint_sentences(counts)
    count = len(set(chosen) - {0})
    assert (
        f"{count} of {len(set(covid) - {0})} covid training images are tinted, 0 of " in sentences
        and "virus" not in sentences
    )
    # the same number of tinted images spread over all classes gives none away
    spread = grey.assign(saturation=grey["saturation"].mask(grey.index.isin(draw.choice(900, count, False)), 15.0))
    assert quality.tint_sentences(quality.tints(quality.properties(spread, manifest), CLASSES)) == ""
    for untinted in (grey, scanned):
        none = quality.tints(quality.properties(untinted, manifest), CLASSES)
        assert none.empty and quality.tint_sentences(none) == ""


def test_tinted_images_of_one_group_count_once() -> None:
    scanned, manifest = dataset(300)
    covid = (manifest.frame["label"] == "covid").to_numpy()
    chosen = np.flatnonzero(covid)[:20]
    grey = scanned.assign(saturation=np.where(scanned.index.isin(chosen), 20.0, 0.0))
    group = manifest.frame["group"].mask(manifest.frame.index.isin(chosen), "one patient")
    one = quality.tints(quality.properties(grey, manifest.with_frame(manifest.frame.assign(group=group))), CLASSES)
    assert one.loc["covid", "tinted"] == 20 and one.loc["covid", "p"] > 0.2


def test_a_class_of_fewer_than_ten_groups_is_never_called_a_shortcut() -> None:
    """Nine patients with a tint, a size and a name of their own are no evidence; ten are."""
    for groups, small in ((9, True), (10, False)):
        scanned, manifest = dataset(400)
        rare = np.arange(len(scanned)) < 2 * groups
        frame = manifest.frame.assign(label=np.where(rare, "rare", manifest.frame["label"]))
        frame.loc[rare, "path"] = [f"/images/zzz{number}.tif" for number in range(2 * groups)]
        manifest = Manifest("mini", frame, (*CLASSES, "rare"))
        scanned = scanned.assign(saturation=np.where(rare, 20.0, 0.0), blue=scanned["blue"] + 60 * rare)
        scanned.loc[rare, ["format", "bytes", "width"]] = ["TIFF", 900_000, 999]
        properties = quality.properties(scanned, manifest)
        differing, tinted_by_class = (f(properties, manifest.classes) for f in (quality.differences, quality.tints))
        table = quality.shortcuts(scanned, manifest)
        sentences = [
            quality.difference_sentences(differing, manifest),
            quality.shortcut_sentences(table, manifest),
            quality.tint_sentences(tinted_by_class),
        ]
        assert ("rare" in set(differing["class"])) != small and ("rare" in tinted_by_class.index) != small
        assert ("rare" in set(table["class"])) != small and table["images"].iloc[0] == (400 - 18 if small else 400)
        if small:
            assert all("rare (9)" in text and "fewer than 10 groups" in text for text in sentences[:2])
            assert "shortcut, unless" not in sentences[0] and "rare best" not in sentences[1] and sentences[2] == ""
            assert not table["above chance"].any()
        else:
            assert "class rare can be told" in sentences[0] and "rare best" in sentences[1] and sentences[2]
            assert quality.small_classes(manifest) == ""


def test_where_one_class_alone_is_large_enough_there_is_no_row() -> None:
    scanned, manifest = dataset(60)
    few = manifest.with_frame(manifest.frame.assign(label=np.where(np.arange(60) < 40, "covid", "normal")))
    few = Manifest("mini", few.frame.assign(group=np.where(np.arange(60) < 40, few.frame["group"], "g")), CLASSES)
    table = quality.shortcuts(scanned, few)
    sentences = quality.shortcut_sentences(table, few)
    assert table.empty and "too few" in sentences and "normal (1), virus (0)" in sentences
    differing = quality.differences(quality.properties(scanned, few), few.classes)
    assert (differing["p"] == 1).all() and (differing["class"] == "").all()
