"""The manifest: labels of both kinds, in one order; what is not labelled is not absent."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scanbook.data.manifest import TEST, Manifest, finding_column, metadata_name
from scanbook.errors import DataError
from scanbook.evaluation import Calibration

FINDINGS = ("edema", "mass")


def images(n: int = 6) -> pd.DataFrame:
    names = [f"i{row}" for row in range(n)]
    frame = pd.DataFrame({"image_id": names, "path": names, "group": names, "mask_path": "", "split": TEST})
    stated = {"edema": [1, 0, -1, np.nan, 0, 1], "mass": [1, 0, -1, np.nan, np.nan, -1]}
    return frame.assign(**{finding_column(name): np.array(values[:n], float) for name, values in stated.items()})


def test_an_uncertain_label_counts_as_the_study_says_and_a_missing_one_never():
    manifest = Manifest.of_findings("ward", images(), FINDINGS, {"edema": "positive"})
    expected = np.array([[1, 1], [0, 0], [1, np.nan], [np.nan, np.nan], [0, np.nan], [1, np.nan]])
    assert np.array_equal(manifest.labels.values, expected, equal_nan=True)
    negative = Manifest.of_findings("ward", images(), FINDINGS, dict.fromkeys(FINDINGS, "negative"))
    assert negative.labels.values[2].tolist() == [0, 0] and np.isnan(negative.labels.values[3]).all()
    assert manifest.stated[2].tolist() == [-1, -1]
    assert list(manifest.frame["label"]) == [
        *("edema, mass", "no finding", "not labelled", "not labelled", "partly labelled", "edema")
    ]


def test_names_are_the_order_of_the_probabilities():
    manifest = Manifest.of_findings("ward", images(), FINDINGS)
    logits = np.arange(12.0).reshape(6, 2)
    predictions = manifest.predictions(TEST, logits)
    assert predictions.names == manifest.names == FINDINGS and manifest.classes == ()
    assert np.allclose(predictions.probabilities, 1 / (1 + np.exp(-logits)))
    calibration = Calibration(np.array([1.0, 0.5]), np.array([0.0, -1.0]), ("temperature", "Platt"))
    shifted = manifest.predictions(TEST, logits, calibration)
    assert np.allclose(shifted.probabilities[:, 1], 1 / (1 + np.exp(1 - logits[:, 1] / 2)))


def test_columns_of_findings_and_exams_are_no_metadata():
    frame = images().assign(exam="e", age=40)
    manifest = Manifest.of_findings("ward", frame, FINDINGS)
    assert manifest.metadata == ["age"] and manifest.has_exams
    assert metadata_name("finding: edema") == "finding: edema (source)" and metadata_name("exam") == "exam (source)"


def test_a_finding_that_a_split_never_or_always_shows_is_absent_there():
    manifest = Manifest.of_findings("ward", images(), FINDINGS)
    assert manifest.absent(TEST) == ()
    assert manifest.with_frame(manifest.frame.iloc[[0, 3]]).absent(TEST) == FINDINGS


def test_policy_and_labels_are_part_of_the_fingerprint():
    manifest = Manifest.of_findings("ward", images(), FINDINGS)
    prints = {
        manifest.fingerprint(),
        Manifest.of_findings("ward", images(), FINDINGS, {"mass": "negative"}).fingerprint(),
    }
    frame = images()
    frame.loc[0, finding_column("mass")] = np.nan
    prints.add(Manifest.of_findings("ward", frame, FINDINGS).fingerprint())
    assert len(prints) == 3


@pytest.mark.parametrize("names", [{"classes": ("a",), "findings": ("b",)}, {}])
def test_labels_are_of_one_kind(names):
    with pytest.raises(DataError, match="classes or findings"):
        Manifest("ward", images().assign(label=""), **names)
