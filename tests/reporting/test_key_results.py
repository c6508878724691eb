"""The key results of a dataset: what was planted is said, the most serious first, and nothing is invented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from helpers import planted
from helpers.findings import ward
from scanbook.config import Splits
from scanbook.data import counts, quality, splits
from scanbook.data.manifest import TRAIN
from scanbook.data.splits import SplitDataset
from scanbook.reporting import key_results
from scanbook.reporting.key_results import CAUTION, MOST, NOTE, SERIOUS, KeyResult
from scanbook.training.label_check import LabelCheck

UNCHECKED = LabelCheck(pd.DataFrame({"suspected": []}), reason="the study sets weights to none")
EXCLUDED = pd.DataFrame(columns=["image_id", "split", "reason"])


def shortcuts(file_name: tuple[float, float, float], colour: tuple[float, float, float]) -> pd.DataFrame:
    table = pd.DataFrame([file_name, colour], columns=["auc", "low", "high"], index=["file name", "mean colour"])
    return table.assign(**{"class": "sky", "class_auc": 0.9, "images": 90, "above chance": table["low"] > 0.5})


def differing(auc: float) -> pd.DataFrame:
    values = {"H": 1.0, "p": 1e-6, "epsilon²": 0.1, "class": "sky", "higher": True, "auc": auc, "low": auc - 0.05}
    table = pd.DataFrame(values | {"high": min(1, auc + 0.05)}, index=pd.Index(["width_px", "brightness"]))
    return table


NOTHING: dict[str, Any] = {
    "flagged": pd.DataFrame({"image_id": [], "rule": []}),
    "near": pd.DataFrame({"across": pd.Series(dtype=bool)}),
    "differing": differing(0.6),
    "shortcuts": shortcuts((0.51, 0.45, 0.57), (0.5, 0.44, 0.56)),
}


def dataset(shared: pd.DataFrame | None = None, excluded: pd.DataFrame = EXCLUDED, **facts: Any) -> SplitDataset:
    manifest = replace(planted.manifest(), facts={"grouped": True, "names_groups": True} | facts)
    return SplitDataset(manifest, pd.DataFrame(), excluded, pd.DataFrame() if shared is None else shared)


def severity(results: list[KeyResult], text: str) -> str:
    (found,) = (result for result in results if text in result.sentence)
    return found.severity


def test_nothing_is_invented_where_nothing_is_wrong() -> None:
    whole = dataset()
    results = key_results.rank(whole, UNCHECKED, **NOTHING)
    assert SERIOUS not in {result.severity for result in results} and 3 <= len(results) <= MOST
    assert severity(results, "No patient and no lesion is in two splits; no pair of near-duplicates is") == NOTE
    assert severity(results, "Labels were not checked: the study sets weights to none.") == NOTE
    assert severity(results, "the highest AUC is 0.510 (0.450–0.570) (file name)") == NOTE
    assert severity(results, "No image has a fault") == NOTE
    assert severity(results, "Always answering the most frequent class is right for") == NOTE
    assert severity(results, "Fewer than 10 patients or lesions of a class are in training or test") == CAUTION, (
        "4 each"
    )
    images = counts.image_counts(whole.manifest)
    first, second = key_results.describe_contents(whole.manifest, images, results)
    assert first == "The splits hold 59 images in 3 classes: train 36, validation 11, test 12."
    assert second.startswith("Nothing serious was found. Looked for were leakage between splits, copies under other")
    assert "labels that look wrong" not in second, "they were not checked"
    of_class = images.head(1).set_axis(["all"]) - 1  # of a class that is called as the total, and comes before it
    assert key_results.describe_contents(whole.manifest, pd.concat([of_class, images]), results)[0] == first


def test_what_was_planted_is_said_the_most_serious_first() -> None:
    shared = pd.DataFrame(
        {"split": [TRAIN, "test"], "images": [12, 4], "copied": [3, 1], "sky": [0, 0]},
        index=pd.Index(["brick", "brick"], name="class"),
    )
    excluded = pd.DataFrame(
        [("i1", TRAIN, "label_conflict: labelled sky; leaf has a probability of 0.99"), ("i2", "", "unreadable")],
        columns=["image_id", "split", "reason"],
    )
    whole = dataset(shared, excluded, grouped=False, names_groups=False, split_notes=("No image in test of 'brick'.",))
    flagged = pd.DataFrame({"image_id": list("abcd"), "rule": ["unreadable", "unreadable", "dark", "blurred"]})
    claims = pd.DataFrame({"claimed": [20.0, 21.0], "counted": [20, 20], "difference": [0.0, -1.0]}, ["sky", "leaf"])
    labels = pd.DataFrame(
        [[0.08, 0.06, 0.11, 8, 100], [0.2, 0.02, 0.5, 2, 10]],
        ["suspected", "most confident"],
        ["value", "low", "high", "count", "labels"],
    )
    found = {
        "flagged": flagged,
        "near": pd.DataFrame({"across": [True, False, True]}),
        "differing": differing(0.9),
        "shortcuts": shortcuts((0.8, 0.7, 0.9), (0.7, 0.6, 0.8)),
        "claims": claims,
        "shares": labels,
        "others": [KeyResult(SERIOUS, "One split is not enough.")],
    }
    results = key_results.rank(whole, UNCHECKED, **found)
    order = [result.severity for result in results]
    assert len(results) == MOST and order == sorted(order, key=key_results.SEVERITIES.index)
    assert results[0].sentence == "No image in test of 'brick'."
    assert severity(results, "2 pairs of near-duplicates are in two splits") == SERIOUS
    copied = "4 images are byte-identical to an image of another class (brick), and 1 of them is in validation or test"
    assert severity(results, copied) == SERIOUS
    assert (
        severity(results, "sees only file name predicts the class with an AUC of 0.800 (0.700–0.900). This") == SERIOUS
    )
    assert (
        severity(results, "sees only mean colour predicts the class with an AUC of 0.700 (0.600–0.800). Part")
        == CAUTION
    )
    assert severity(results, "Images of the class sky can be told by width alone, with an AUC of 0.900") == SERIOUS
    assert severity(results, "told by brightness alone") == CAUTION
    assert severity(results, "The source names no patients, so that one may be in two splits") == CAUTION
    assert severity(results, "One split is not enough.") == SERIOUS
    assert severity(results, "2 of the 10 labels that a frozen network is most confident of") == CAUTION
    assert not any(
        "Nothing serious" in text
        for text in key_results.describe_contents(whole.manifest, counts.image_counts(whole.manifest), results)
    )
    fewer = key_results.rank(whole, UNCHECKED, **NOTHING | {"flagged": flagged, "claims": claims})
    assert severity(fewer, "2 of 60 files cannot be read, and are in no split.") == CAUTION
    assert severity(fewer, "2 images have a fault (dark 1, blurred 1).") == CAUTION
    assert (
        severity(fewer, "The source claims other numbers of images than there are: leaf 20 instead of 21.") == CAUTION
    )
    assert severity(fewer, "1 training image is excluded (label conflict 1).") == CAUTION


@pytest.mark.parametrize(("low", "expected"), [(0.0, NOTE), (0.01, CAUTION), (0.05, SERIOUS), (np.nan, NOTE)])
def test_wrong_labels_are_as_serious_as_their_interval_is_sure(low: float, expected: str) -> None:
    rows = [[0.1, 0.08, 0.12, 100, 1000], [0.06, low, 0.2, 6, 100]]
    shares = pd.DataFrame(rows, ["suspected", "most confident"], ["value", "low", "high", "count", "labels"])
    results = key_results.rank(dataset(), UNCHECKED, **NOTHING, shares=shares)
    assert severity(results, "Confident learning suspects 100 of 1,000 labels (10.0%, interval 8.0% to") == expected
    assert severity(results, "Rare and ambiguous classes look wrong, too.") == expected
    assert not any("nan" in result.sentence for result in results)
    bound = "if wrong labels are spread evenly, at most about 20.0% of all labels are wrong"
    assert any(bound in result.sentence for result in results)
    sentences = key_results.describe_contents(planted.manifest(), counts.image_counts(planted.manifest()), results)
    assert any("labels that look wrong" in text for text in sentences) == (expected != SERIOUS)


def test_findings_are_told_with_their_names(tmp_path: Path) -> None:
    manifest = ward(tmp_path / "images", 240, bayes_auroc={"Nodule": 0.93, "Effusion": 0.98})
    whole = splits.assign(manifest, quality.scan(manifest), Splits(test_folds=3, validation_folds=5))
    table = quality.label_differences(quality.properties(whole.quality, whole.manifest), whole.manifest)
    found = quality.label_shortcuts(whole.quality, whole.manifest, 0)
    options = NOTHING | {"differing": table, "shortcuts": found}
    results = key_results.rank(whole, UNCHECKED, **options)
    text = " ".join(result.sentence for result in results)
    assert "predicts Effusion with an AUC of 1.000" in text
    assert "Nodule, the rarest finding" in text and "0.930 (Nodule) to 0.980 (Effusion)" in text
    # a larger area that may be chance does not stand in its place
    doubtful = found.assign(**{"auc": 1.0, "above chance": False})
    mixed = pd.concat([doubtful, found[found["above chance"]].assign(auc=0.9)])
    texts = [result.sentence for result in key_results.rank(whole, UNCHECKED, **options | {"shortcuts": mixed})]
    assert any("predicts" in text and "an AUC of 0.900" in text for text in texts)
    none = key_results.rank(whole, UNCHECKED, **options | {"shortcuts": doubtful})
    assert severity(none, f"is better than chance, corrected for {len(doubtful)} such models") == NOTE
    images = counts.image_counts(whole.manifest)
    assert "with 3 findings" in key_results.describe_contents(whole.manifest, images, results)[0]


def test_the_interval_that_one_split_gives_is_foreseen() -> None:
    """By hand, Wilson's interval of 8 of 10: .490 to .943; patients count, not images."""
    whole = planted.manifest()
    rows = whole.rows("test")
    frame = whole.frame.copy()
    frame.loc[rows, "group"] = [f"p{place % 10}" for place in range(len(rows))]
    result = key_results.describe_precision(whole.with_frame(frame), Splits())
    assert result.severity == CAUTION
    assert (
        "has 10 patients or lesions: an accuracy of 80 % would have an interval of about ±22.7 points"
        in result.sentence
    )
    assert "With `splits: {folds: 5}` all " in result.sentence
    folded = key_results.describe_precision(whole.with_frame(frame), Splits(folds=5))
    assert folded.severity == NOTE and "In the folds of notebook 05" in folded.sentence
    counted = len(np.unique(frame.loc[frame["split"] != "", "group"]))
    width = binomtest(round(0.8 * round(counted / 2.25)), round(counted / 2.25)).proportion_ci(method="wilson")
    assert f"are test: ±{50 * (width.high - width.low):.1f} points" in folded.sentence
    given = key_results.describe_precision(replace(whole, facts={"gives_test": True}), Splits())
    assert "{folds: 5, pool: true}" in given.sentence
    of_findings = key_results.describe_precision(planted.observed(), Splits())
    assert "the rarest finding: a sensitivity of 80 %" in of_findings.sentence


def test_the_note_of_a_fold_is_no_fault_of_the_data() -> None:
    whole = dataset(
        fold="fold 1 of 5", split_notes=("Cross-validation: test is fold 1 of 5 here.", "a class is missing")
    )
    results = key_results.rank(whole, UNCHECKED, **NOTHING)
    assert [result.sentence for result in results if result.severity == SERIOUS] == ["a class is missing"]
