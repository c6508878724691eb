"""Quality of images with findings: what reveals a finding, copies that disagree, and what is counted of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.findings import FINDINGS, ward
from scanbook import config
from scanbook.config import Splits
from scanbook.data import cards, counts, presence, quality, splits
from scanbook.data.manifest import NO_FINDING, Manifest, finding_column


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> splits.SplitDataset:
    """A ward of 240 images, with exact copies whose labels agree (0 and 1) and disagree (2 and 3)."""
    manifest = ward(tmp_path_factory.mktemp("ward"), 240, bayes_auroc={"Nodule": 0.93})
    frame = manifest.frame.copy()
    for first, second in ((0, 1), (2, 3)):
        Path(frame["path"][second]).write_bytes(Path(frame["path"][first]).read_bytes())
    frame.loc[[0, 1], [*map(finding_column, FINDINGS)]] = [[1, 0, np.nan], [1, np.nan, 0]]
    frame.loc[[2, 3], [*map(finding_column, FINDINGS)]] = [[1, 0, 0], [1, 1, 0]]
    frame = frame.assign(group=frame["group"].where(frame.index > 3, "patient 0"))
    manifest = Manifest.of_findings("ward", frame, FINDINGS, manifest.uncertain, manifest.facts)
    return splits.assign(manifest, quality.scan(manifest), Splits())


def scanned_of(values: np.ndarray, seed: int = 0) -> tuple[Manifest, pd.DataFrame]:
    """A training split of these labels, and a scan in which nothing depends on them."""
    draw, (n, k) = np.random.default_rng(seed), values.shape
    names = tuple(f"f{number}" for number in range(k))
    frame = pd.DataFrame({"image_id": [f"i{number:04d}" for number in range(n)]})
    frame = frame.assign(path=frame["image_id"] + ".png", mask_path="", split="train", group=frame["image_id"])
    frame[[finding_column(name) for name in names]] = values
    scan = pd.DataFrame({"image_id": frame["image_id"], "error": "", "format": "PNG", "mode": "RGB"})
    numbers = ("width", "height", "bytes", "brightness", "contrast", "sharpness", "saturation", "red", "green", "blue")
    scan = scan.assign(**{name: draw.uniform(50, 100, n) for name in numbers})
    return Manifest.of_findings("mini", frame, names), scan


def test_a_shortcut_of_one_finding_is_found_though_labels_are_missing() -> None:
    draw = np.random.default_rng(3)
    values = (draw.random((500, 4)) < [0.5, 0.1, 0.3, 0.5]).astype(float)
    manifest, scan = scanned_of(values)
    scan["bytes"] += 60 * values[:, 1]  # large files have the rare finding
    scan.loc[values[:, 2] == 1, "brightness"] += 30
    values[draw.random(values.shape) < 0.4] = np.nan
    manifest, _ = scanned_of(values)
    table = quality.label_shortcuts(scan, manifest)
    above = table[table["above chance"]]
    assert set(zip(above.index, above["seen"], strict=True)) == {
        ("f1", "size, aspect and bytes"),
        ("f2", "brightness, contrast, sharpness"),
    }
    assert (above["auc"] > 0.85).all() and (above["low"] > 0.5).all()
    text = quality.label_shortcut_sentences(table, manifest)
    assert "sees size, aspect and bytes alone predicts f1" in text and "it is a shortcut" in text
    differing = quality.label_differences(quality.properties(scan, manifest), manifest)
    telling = differing[differing["p"] < 0.01].reset_index()
    assert set(zip(telling["finding"], telling["property"], strict=True)) == {("f1", "kilobytes"), ("f2", "brightness")}
    assert telling["higher"].all()
    sentences = quality.label_difference_sentences(differing, manifest)
    assert "f1 can be told by file size alone" in sentences and "f2 can be told by brightness" in sentences


def test_no_shortcut_is_claimed_where_there_is_none() -> None:
    values = (np.random.default_rng(5).random((400, 8)) < 0.3).astype(float)
    manifest, scan = scanned_of(values, 6)
    table = quality.label_shortcuts(scan, manifest)
    assert len(table) == 8 * 5 and not table["above chance"].any()
    assert abs(table["auc"].mean() - 0.5) < 0.02
    assert "predicts a finding above chance" in quality.label_shortcut_sentences(table, manifest)


def test_a_large_area_of_few_groups_is_not_denied() -> None:
    values = (np.arange(24)[:, None] % 2).astype(float)
    manifest, scan = scanned_of(values)
    scan["contrast"] = values[:, 0] * 0.6 + np.random.default_rng(0).normal(size=24)
    table = quality.label_differences(quality.properties(scan, manifest), manifest)
    assert table["auc"].max() > 0.75 and table["p"].min() > 0.01
    assert "no AUC of 0.75 or more with a corrected p below 0.01" in quality.label_difference_sentences(table, manifest)


def test_a_rare_finding_is_named_and_not_looked_at() -> None:
    values = (np.random.default_rng(5).random((300, 2)) < 0.4).astype(float)
    values[:, 1] = 0
    values[:9, 1] = 1
    manifest, scan = scanned_of(values)
    assert set(quality.label_shortcuts(scan, manifest).index) == {"f0"}
    assert set(quality.label_differences(quality.properties(scan, manifest), manifest).index) == {"f0"}
    assert "f1 (9)" in quality.small_classes(manifest)


def test_a_tint_of_one_finding_is_found() -> None:
    values = (np.random.default_rng(1).random((300, 3)) < 0.3).astype(float)
    manifest, scan = scanned_of(values)
    scan["saturation"] = np.where(values[:, 2] == 1, 40.0, 1.0)
    table = quality.label_tints(quality.properties(scan, manifest), manifest)
    assert table.loc["f2", "p"] < 0.01 and table.loc[["f0", "f1"], "p"].min() > 0.05


def test_copies_agree_or_conflict_by_finding(dataset: splits.SplitDataset) -> None:
    table = dataset.shared
    assert table["compared"].to_dict() == {"Nodule": 2, "Effusion": 1, "Device": 1}
    assert table["agree: present"].to_dict() == {"Nodule": 2, "Effusion": 0, "Device": 0}
    assert table["conflict"].to_dict() == {"Nodule": 0, "Effusion": 1, "Device": 0}
    near = pd.DataFrame({"image_id": ["00000", "00002"], "other": ["00001", "00003"]})
    pairs = quality.across_splits(near, dataset.manifest).set_index("image_id")
    assert pairs["conflict"].to_dict() == {"00000": False, "00002": True}, "not labelled agrees with both"


def test_an_image_counts_for_each_of_its_findings(dataset: splits.SplitDataset) -> None:
    manifest = dataset.manifest
    table, names = counts.by_label(manifest)
    assert names[:4] == [*FINDINGS, NO_FINDING] and set(table.index) == set(manifest.frame.index)
    present = manifest.labels.present
    for column, name in enumerate(FINDINGS):
        assert set(table.index[table["label"] == name]) == set(np.flatnonzero(present[:, column]))
    several = counts.findings_per_image(manifest)
    used = (manifest.frame["split"] != "").to_numpy()
    assert (several["images"] * several.index).sum() == present[used].sum()
    together = counts.co_occurrence(manifest)
    both = present[used, 1] & present[used, 2]
    labelled = manifest.labels.labelled[used, 2] & present[used, 1]
    assert together.loc["Effusion", "Device"] == pytest.approx(both.sum() / labelled.sum())
    assert set(counts.by_label(manifest, manifest.frame.head(3))[0].index) <= {0, 1, 2}


def test_examples_show_each_finding_first_alone(dataset: splits.SplitDataset) -> None:
    pictures, captions = quality.class_examples(dataset.manifest, 3)
    assert len(pictures) == len(captions) >= 12
    assert [caption.split(" (")[0] for caption in captions[:12]] == list(np.repeat([*FINDINGS, NO_FINDING], 3))
    assert captions[3] == "Effusion" and quality.examples_title(dataset.manifest) == "Training images"


def test_references_of_findings(dataset: splits.SplitDataset) -> None:
    table = presence.references(dataset.manifest)
    labels = dataset.manifest.labels.values[dataset.manifest.rows("test")]
    assert table["prevalence"].tolist() == pytest.approx(np.nanmean(labels, axis=0).tolist())
    assert table["best AUROC"].tolist()[0] == 0.93 and np.isnan(table["best AUROC"].tolist()[1])


def test_the_card_names_findings(dataset: splits.SplitDataset) -> None:
    study = config.load("synthetic", "smoke")
    manifest, scanned = dataset.manifest, dataset.quality
    listed = manifest.with_frame(manifest.frame.assign(split=""))
    near = pd.DataFrame({"across": [False], "conflict": [True]})
    text = cards.dataset_card(
        study,
        listed,
        dataset,
        flagged=quality.flags(scanned),
        exact=quality.exact_copies(scanned),
        near=near,
        differing=quality.label_differences(quality.properties(scanned, manifest), manifest),
        shortcuts=quality.label_shortcuts(scanned, manifest),
    )
    assert "multi-label-image-classification" in text and "with 3 findings" in text
    assert "Nodule, Effusion, Device" in text and "| Nodule | train |" in text
    assert "4 byte-identical files, in 2 groups, 1 with conflicting labels" in text
    assert "iterative stratification" in text and "not labelled is not absent" in text
    assert "its exact copy has a different label" in text


def test_claims_of_findings_are_compared_with_the_images_that_have_them(dataset: splits.SplitDataset) -> None:
    study = config.load("synthetic", "smoke")
    claimed = {"Nodule": 40, "Device": 100, NO_FINDING: 90}
    source = study.dataset.model_copy(update={"claimed": claimed})
    table = cards.claims(study.model_copy(update={"dataset": source}), dataset.manifest)
    stated = dataset.manifest.stated
    assert table.loc["Device", "counted"] == (stated[:, 2] == 1).sum(), "what is uncertain is not claimed"
    assert "all" not in table.index and table.index.name == "finding"
    assert table.loc[NO_FINDING, "counted"] == dataset.manifest.frame["label"].eq(NO_FINDING).sum()
