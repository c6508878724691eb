"""Claims compared with counts, and the dataset card, whose numbers are those that were counted."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import yaml

from helpers.planted import study
from scanbook.config import Study
from scanbook.data import cards, quality, splits
from scanbook.data.manifest import Manifest
from scanbook.data.quality.copies import COLUMNS

CLASSES = ("eczema", "melanoma")
# https://huggingface.co/docs/hub/datasets-cards: the values that the front matter may take
SIZES = {"n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "n>10M"}


def listed(count: int = 120, split: str | list[str] = "", **facts: object) -> Manifest:
    frame = pd.DataFrame({"image_id": [f"i{number:03d}" for number in range(count)], "path": "", "mask_path": ""})
    frame["label"] = np.where(np.arange(count) % 4 == 0, "melanoma", "eczema")
    return Manifest("mini", frame.assign(group=frame["image_id"], split=split), CLASSES, facts)


def claimed(**dataset: object) -> Study:
    block = {"adapter": "folder", "source": "https://example.org/set", "licence": "CC BY-NC 4.0"}
    return study(study="mini", title="Mini | skin", dataset=block | dataset)


def scan(manifest: Manifest) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    columns = ("brightness", "contrast", "sharpness", "saturation", "red", "green", "blue")
    scanned = pd.DataFrame({"image_id": manifest.frame["image_id"], "error": "", "format": "JPEG", "mode": "RGB"})
    scanned = scanned.assign(**{name: draw.normal(100, 5, len(scanned)) for name in columns})
    scanned["sha256"] = scanned["image_id"]
    return scanned.assign(bytes=9000.0, width=300.0, height=draw.integers(200, 220, len(scanned)).astype(float))


def card(chosen: Study, manifest: Manifest, scanned: pd.DataFrame) -> tuple[str, dict[str, object]]:
    """The card and its front matter."""
    options = {"drop": chosen.quality.drop, "max_per_class": chosen.max_per_class}
    split = splits.assign(manifest, scanned, chosen.splits, **options)
    near = pd.DataFrame([("i001", "i002", "as is", 1.0, 0.99)], columns=COLUMNS)
    assigned = {
        "flagged": quality.flags(scanned),
        "exact": quality.exact_copies(scanned),
        "near": quality.across_splits(near, split.manifest),
        "differing": quality.differences(quality.properties(scanned, split.manifest), CLASSES),
        "shortcuts": pd.DataFrame(),
    }
    text = cards.dataset_card(chosen, manifest, split, **assigned)
    return text, yaml.safe_load(re.match(r"---\n(.*?)\n---\n\n# ", text, re.DOTALL)[1])


def test_claims_stand_beside_counts_and_their_difference() -> None:
    manifest = listed(claimed_in_names={"melanoma": 15750})
    table = cards.claims(claimed(claimed={"eczema": 100, "melanoma": 30, "warts": 5}), manifest)
    assert table.columns.tolist() == ["in the folder's name", "claimed", "counted", "counted minus name", "difference"]
    assert table.index.tolist() == ["eczema", "melanoma", "warts", "all"]
    assert table["difference"].tolist() == [-10, 0, -5, -15] and table["counted"].tolist() == [90, 30, 0, 120]
    assert table.loc["melanoma", "in the folder's name"] == 15750 and np.isnan(table.iloc[0, 0])
    only_names = cards.claims(claimed(), manifest)
    less = only_names["counted minus name"]
    assert less["melanoma"] == 30 - 15750 and np.isnan(less["eczema"]) and "difference" not in only_names
    assert cards.claims(claimed(), listed()).empty


def test_a_wrong_folder_name_is_reported_on_a_stand_in_too() -> None:
    manifest = listed(claimed_in_names={"eczema": 90, "melanoma": 15750})
    on_stand_in = claimed(claimed={"eczema": 100}).model_copy(update={"on_stand_in": True})
    table = cards.claims(on_stand_in, manifest)
    assert table.columns.tolist() == ["in the folder's name", "claimed", "counted", "counted minus name"]
    assert table["counted minus name"].tolist() == [0, 30 - 15750, 30 - 15750]
    note = cards.comparison_note(on_stand_in, manifest)
    assert "melanoma (15,750 in the name, 30 counted)" in note and "eczema" not in note and "synthetic" in note
    true = listed(claimed_in_names={"eczema": 90, "melanoma": 30})
    assert cards.comparison_note(claimed(), true) == ""
    sampled = claimed().model_copy(update={"limit": 120})
    sample = listed(
        claimed_in_names={"melanoma": 15750}, sampled=True, notes=["120 of 900 images were taken (limit 120)"]
    )
    assert "15,750" not in cards.comparison_note(sampled, sample) and "counted minus name" not in cards.claims(
        sampled, sample
    )


def test_splits_are_compared_as_the_source_gives_them() -> None:
    manifest = listed(split=["train"] * 90 + ["test"] * 30)
    table = cards.claimed_splits(claimed(claimed_splits={"train": 95, "test": 30}), manifest)
    assert table["difference"].tolist() == [-5, 0, -5]
    assert cards.claimed_splits(claimed(), manifest).empty


def test_stand_ins_and_samples_are_not_compared() -> None:
    chosen = claimed(claimed={"eczema": 100})
    on_stand_in = chosen.model_copy(update={"on_stand_in": True})
    assert "difference" not in cards.claims(on_stand_in, listed()) and "synthetic" in cards.comparison_note(
        on_stand_in, listed()
    )
    sampled = chosen.model_copy(update={"limit": 120})
    assert "sample" in cards.comparison_note(sampled, listed(sampled=True))
    part = listed(partial=True)
    assert "difference" not in cards.claims(chosen, part) and "part that is read" in cards.comparison_note(chosen, part)
    assert "difference" not in cards.claims(sampled, listed(sampled=True))
    assert cards.comparison_note(sampled, listed()) == "", "a dataset smaller than the limit is whole"


def test_the_card_is_in_the_format_of_hugging_face() -> None:
    manifest = listed(grouped=False, notes=["Two folders were merged."])
    text, front = card(claimed(claimed={"eczema": 100, "melanoma": 30}), manifest, scan(manifest))
    assert front["pretty_name"] == "Mini | skin" and front["license"] == "cc-by-nc-4.0"
    assert front["task_categories"] == ["image-classification"] and front["size_categories"] == ["n<1K"]
    assert set(front["size_categories"]) <= SIZES and "medical" in front["tags"]
    for expected in (
        "| eczema | 100 | 90 | -10 |",
        "Two folders were merged.",
        "https://example.org/set",
        "JPEG (120)",
    ):
        assert expected in text
    assert "1 pairs of near-duplicates" in text and "names no patient" in text and "synthetic" not in text
    assert "\n\n\n" not in text and "{{" not in text and "{%" not in text
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert {"Uses", "Structure", "Claims and counts", "Known faults", "Bias and shortcuts"} <= set(headings)


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("", {"license": "unknown"}),
        (
            "see the source; research use",
            {
                "license": "other",
                "license_name": "see-the-source-research-use",
                "license_link": "https://example.org/set",
            },
        ),
    ],
)
def test_a_licence_has_its_identifier(licence: str, expected: dict[str, str]) -> None:
    manifest = listed()
    _, front = card(claimed(licence=licence), manifest, scan(manifest))
    assert {key: value for key, value in front.items() if key.startswith("license")} == expected


def test_the_card_lists_excluded_images_and_reasons() -> None:
    manifest = listed(1200, grouped=True)
    scanned = scan(manifest)
    scanned.loc[5, "error"] = "is empty"
    scanned.loc[7, "sha256"] = scanned.loc[8, "sha256"]
    scanned.loc[100:140, "brightness"] = 3.0
    chosen = claimed().model_copy(update={"max_per_class": 300})
    chosen = chosen.model_copy(update={"quality": chosen.quality.model_copy(update={"drop": ["dark"]})})
    text, front = card(chosen, manifest, scanned)
    split = splits.assign(manifest, scanned, chosen.splits, drop=["dark"], max_per_class=300)
    for reason, count in split.excluded["reason"].str.partition(":")[0].value_counts().items():
        assert f"- {count}: {reason}" in text
    assert front["size_categories"] == ["1K<n<10K"] and "41 dark" in text and "training: dark" in text
    assert "2 byte-identical files, in 1 groups, 1 with conflicting labels" in text
    assert "At most 300 training images" in text and "1200 groups" in text


def test_synthetic_images_are_named_as_such() -> None:
    manifest = listed()
    chosen = claimed(claimed={"eczema": 3}).model_copy(update={"on_stand_in": True})
    text, front = card(chosen, manifest, scan(manifest))
    assert "stand in" in str(front["pretty_name"]) and "they show no patient" in text
    assert re.search(r"to the real dataset\.\n\n120 images of 2 classes", text), "a paragraph of its own"
    assert "not compared" in text and "difference |" not in text
    assert front["license"] == "apache-2.0" and "license_link" not in front
    assert "**Source:** synthetic, by scanbook, in the layout of https://example.org/set" in text
