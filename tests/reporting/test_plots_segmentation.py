"""Figures of segmentation and of two arms: they can be read, and show the measured values."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from helpers import figures
from scanbook import evaluation, segmentation
from scanbook.evaluation import Predictions
from scanbook.reporting import plots

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 255, (4, 24, 32, 3)).astype(np.uint8)
MASKS = np.zeros((4, 24, 32), bool)
MASKS[:, 6:18, 8:24] = True
TABLE = pd.DataFrame(
    {"value": [0.8123, 0.9], "low": [0.78, 0.88], "high": [0.83, 0.91]},
    index=pd.Index(["Otsu", "U-Net"], name="method"),
)
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3],
        "loss": [0.9, 0.5, 0.4],
        "dice": [0.5, 0.8, 0.9],
        "validation_loss": [0.8, 0.5, 0.6],
        "validation_dice": [0.6, 0.85, 0.84],
    }
)


def arms(classes: tuple[str, ...]) -> dict[str, Predictions]:
    names = np.array([f"i{index}" for index in range(90)])
    truth = RANDOM.integers(len(classes), size=90)
    predictions = {}
    for arm, skill in {"whole image": 2.0, "lesion alone": 0.5}.items():
        chances = np.exp(RANDOM.normal(0, 1, (90, len(classes))) + skill * np.eye(len(classes))[truth])
        predictions[arm] = Predictions(names, names, truth, chances / chances.sum(1, keepdims=True), classes)
    return predictions


FIGURES = {
    "mask_overlays": lambda: plots.mask_overlays(
        IMAGES, MASKS, np.roll(MASKS, 2, 1), [f"Dice 0.{i}" for i in range(4)]
    ),
    "mask_overlays_unknown": lambda: plots.mask_overlays(IMAGES, [], MASKS, ["a", "b", "c", "d"]),
    "score_panels": lambda: plots.score_panels(dict.fromkeys(segmentation.SCORES, TABLE), "Masks, 40 test images"),
    "unet_curves": lambda: plots.unet_curves(HISTORY, 600),
    "input_forms": lambda: plots.input_forms(segmentation.preview(IMAGES, MASKS, 0.1), segmentation.FORMS),
    "roc_arms_two": lambda: plots.roc_arms(arms(("benign", "malignant")), rounds=30),
}


@cache
def drawn(name: str) -> Figure:
    return FIGURES[name]()


@pytest.mark.parametrize("name", FIGURES)
def test_figure_can_be_read(name: str) -> None:
    figures.check(drawn(name), labels="mask" not in name and "forms" not in name)


def test_nothing_to_show_is_said() -> None:
    for figure in (plots.mask_overlays([], [], [], []), plots.input_forms([], segmentation.FORMS)):
        assert "no image" in figure.axes[0].texts[0].get_text()


def test_unknown_outlines_are_not_promised() -> None:
    labels = figures.legend(drawn("mask_overlays_unknown"))
    assert labels == ["predicted outline"]
    assert len(figures.legend(drawn("mask_overlays"))) == 2


def test_every_score_has_its_panel_with_values_and_intervals() -> None:
    figure = drawn("score_panels")
    assert [axis.get_xlabel() for axis in figure.axes] == list(segmentation.SCORES.values())
    for axis in figure.axes:
        assert [text.get_text() for text in axis.texts] == ["0.812", "0.900"]
        ends = [segment[:, 0].tolist() for segment in axis.collections[0].get_segments()]
        np.testing.assert_allclose(ends, TABLE[["low", "high"]].to_numpy())


def test_the_kept_epoch_is_marked() -> None:
    for axis in drawn("unet_curves").axes:
        marks = [line for line in axis.lines if line.get_label() == "best on validation"]
        assert list(marks[0].get_xdata()) == [2, 2]


def test_arms_stand_side_by_side_with_their_areas() -> None:
    compared = arms(("benign", "malignant"))
    figure = plots.roc_arms(compared, rounds=30)
    assert [axis.get_title("left") for axis in figure.axes] == list(compared)
    for axis, predictions in zip(figure.axes, compared.values(), strict=True):
        row = evaluation.summary(predictions, ("auroc",), 30).loc["auroc"]
        area = f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})"
        assert f"malignant (n = {(predictions.y_true == 1).sum()}): {area}" in figures.legend(axis)
    few, many = (figures.legend(plots.roc_arms(arms(tuple(names)), rounds=30).axes[0]) for names in ("abc", "abcdef"))
    assert len(few) == 3 + 2 and len(many) == 2 and many[0].startswith("mean of 6 classes")
