"""Trained networks side by side."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from helpers.models import findings
from scanbook.evaluation import FindingPredictions, Predictions, paired_difference
from scanbook.training.comparisons import TrainingResult, compare_augmentation, scores_by_split


def predictions(share: float, split: str, seed: int, count: int = 200) -> Predictions:
    """Predictions of which that share is right."""
    y = np.arange(count) % 2
    right = np.random.default_rng(seed).permutation(count) < round(share * count)
    probabilities = np.eye(2)[np.where(right, y, 1 - y)]
    ids = [f"{split}{place}" for place in range(count)]
    return Predictions(ids, [f"{split}{place // 2}" for place in range(count)], y, probabilities, ("no", "yes"))


def result(train: float, validation: float, test: float, seed: int) -> TrainingResult:
    """A result whose second of three epochs is the best."""
    history = pd.DataFrame({"accuracy": [0.1, train, 0.99], "validation_loss": [0.9, 0.3, 0.31]}, index=[0, 1, 2])
    return TrainingResult(history, predictions(validation, "v", seed), predictions(test, "t", seed + 1))


def test_the_table_tells_what_augmentation_did_to_every_backbone() -> None:
    without = {"helped": result(0.9, 0.6, 0.55, 0), "unchanged": result(0.8, 0.7, 0.7, 2)}
    augmented = {"helped": result(0.8, 0.8, 0.85, 4), "unchanged": without["unchanged"]}
    table, differences = compare_augmentation(without, augmented, rounds=200, seed=1)
    assert list(table) == [
        *("train, without", "train, with", "validation, without", "validation, with"),
        *("test, without", "test, with", "difference on test", "low", "high"),
    ]
    np.testing.assert_allclose(table.loc["helped"].to_list()[:7], [0.9, 0.8, 0.6, 0.8, 0.55, 0.85, 0.3])
    expected = paired_difference(augmented["helped"].test, without["helped"].test, "accuracy", 200, 1)
    assert differences["helped"] == expected and expected.clear
    assert table.loc["helped", ["low", "high"]].to_list() == [expected.low, expected.high]
    assert table.loc["unchanged", ["difference on test", "low", "high"]].to_list() == [0, 0, 0]
    assert scores_by_split(augmented).loc["helped"].to_dict() == {"train": 0.8, "validation": 0.8, "accuracy": 0.85}


def test_without_results_the_table_is_empty() -> None:
    table, differences = compare_augmentation({}, {})
    assert table.empty and not differences and list(scores_by_split({})) == ["train", "validation", "accuracy"]


def test_findings_are_compared_by_macro_auroc() -> None:
    history = pd.DataFrame({"accuracy": [0.9, 0.8], "validation_loss": [0.5, 0.4]})
    of = {name: TrainingResult(history, *(findings(skill=s, seed=n, labels=n) for n in (1, 2))) for name, s in SKILLS}
    table, differences = compare_augmentation({"net": of["weak"]}, {"net": of["strong"]}, rounds=100)
    splits = ("validation, without", "validation, with", "test, without", "test, with")
    assert list(table) == [*splits, "difference on test", "low", "high"], "it is not measured on training images"
    assert differences["net"].metric == "auroc" and differences["net"].low > 0
    areas = [roc_auc_score(y[y >= 0], p[y >= 0]) for y, p in zip(*arrays(of["strong"].test), strict=True)]
    assert table.loc["net", "test, with"] == pytest.approx(np.mean(areas))


SKILLS = (("weak", 0.5), ("strong", 2.0))


def arrays(of: FindingPredictions) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of each finding."""
    return of.y_true.T, of.probabilities.T
