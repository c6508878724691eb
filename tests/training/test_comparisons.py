"""Trained networks side by side."""

import numpy as np
import pandas as pd
import pytest

from helpers import planted
from scanbook import training
from scanbook.data.manifest import VALIDATION
from scanbook.evaluation import Predictions, paired_difference
from scanbook.models import backbones
from scanbook.training import comparisons
from scanbook.training.comparisons import Arm, accuracies, benefit


@pytest.mark.slow
def test_steps_are_of_validation_images_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path))
    monkeypatch.setattr(backbones, "resolve", lambda study: ({"baseline_cnn": planted.weights()}, {}))
    study = planted.study(
        seeds=2, evaluation={"ensemble": True, "ordered": True}, fine_tuning={"epochs": 1, "head_epochs": 1}
    )
    starts = training.starts(study, planted.manifest(), planted.pixels())
    networks = training.repeats(study, planted.manifest(), planted.pixels())
    final = training.averaged(study, planted.manifest(), planted.pixels(), networks)
    table = comparisons.by_step(study, planted.manifest(), starts, networks, final)
    assert list(table.columns) == ["accuracy", "auroc", "kappa", "log loss", "gain"]
    assert list(table.index) == [starts[0].name, "head on augmented images", "and all layers", final.name]
    expected = np.mean([training.validation_loss(planted.manifest(), each.logits(VALIDATION)) for each in networks])
    assert table.loc["and all layers", "log loss"] == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(table["gain"].iloc[1:], np.diff(table["auroc"]))


def said(share: float, split: str, seed: int, count: int = 200) -> Predictions:
    """Predictions of which that share is right."""
    y = np.arange(count) % 2
    right = np.random.default_rng(seed).permutation(count) < round(share * count)
    probabilities = np.eye(2)[np.where(right, y, 1 - y)]
    ids = [f"{split}{place}" for place in range(count)]
    return Predictions(ids, [f"{split}{place // 2}" for place in range(count)], y, probabilities, ("no", "yes"))


def arm(train: float, validation: float, test: float, seed: int) -> Arm:
    """An arm whose second of three epochs is kept."""
    history = pd.DataFrame({"accuracy": [0.1, train, 0.99], "validation_loss": [0.9, 0.3, 0.31]}, index=[0, 1, 2])
    return Arm(history, said(validation, "v", seed), said(test, "t", seed + 1))


def test_the_table_tells_what_augmentation_did_to_every_backbone() -> None:
    without = {"helped": arm(0.9, 0.6, 0.55, 0), "unchanged": arm(0.8, 0.7, 0.7, 2)}
    augmented = {"helped": arm(0.8, 0.8, 0.85, 4), "unchanged": without["unchanged"]}
    table, differences = benefit(without, augmented, rounds=200, seed=1)
    assert list(table) == [
        *("train, without", "train, with", "validation, without", "validation, with"),
        *("test, without", "test, with", "difference on test", "low", "high"),
    ]
    np.testing.assert_allclose(table.loc["helped"].to_list()[:7], [0.9, 0.8, 0.6, 0.8, 0.55, 0.85, 0.3])
    expected = paired_difference(augmented["helped"].test, without["helped"].test, "accuracy", 200, 1)
    assert differences["helped"] == expected and expected.clear
    assert table.loc["helped", ["low", "high"]].to_list() == [expected.low, expected.high]
    assert table.loc["unchanged", ["difference on test", "low", "high"]].to_list() == [0, 0, 0]
    assert accuracies(augmented).loc["helped"].to_dict() == {"train": 0.8, "validation": 0.8, "accuracy": 0.85}


def test_without_any_arm_the_table_is_empty() -> None:
    table, differences = benefit({}, {})
    assert table.empty and not differences and list(accuracies({})) == ["train", "validation", "accuracy"]
