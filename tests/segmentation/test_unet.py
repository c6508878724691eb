"""The U-Net learns a planted disc, and repeats itself exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scanbook.config import Study
from scanbook.data.manifest import Manifest
from scanbook.models import engines
from scanbook.registry import POLICIES
from scanbook.segmentation import unet
from scanbook.segmentation.scores import dice

SIDE = 32


def planted(count: int = 48) -> tuple[Manifest, np.ndarray, np.ndarray]:
    """Noisy images, each with a disc that is darker; two thirds for training."""
    draw = np.random.default_rng(11)
    rows, columns = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    images, masks = np.zeros((count, SIDE, SIDE, 3), np.uint8), np.zeros((count, SIDE, SIDE), bool)
    for index in range(count):
        x, y, radius = draw.uniform(-0.4, 0.4), draw.uniform(-0.4, 0.4), draw.uniform(0.3, 0.55)
        masks[index] = np.hypot(columns - x, rows - y) < radius
        noise = draw.normal(0, 20, (SIDE, SIDE, 1))
        images[index] = (140 - 50 * masks[index][..., None] + noise).clip(0, 255)
    splits = [("train", "train", "train", "train", "validation", "test")[index % 6] for index in range(count)]
    names = [f"i{index}" for index in range(count)]
    frame = pd.DataFrame(
        {"image_id": names, "path": "", "label": "a", "group": names, "mask_path": "", "split": splits}
    )
    return Manifest("planted", frame, ("a", "b"), {"data": "discs"}), images, masks


def plan(**changes: object) -> Study:
    values = {"study": "planted", "title": "t", "question": "q?", "dataset": {"adapter": "folder"}}
    learning = {"epochs": 5, "learning_rate": 0.01, "batch_size": 4} | changes
    return Study.model_validate(
        values | {"backbones": ["baseline_cnn"], "image_size": SIDE, "segmentation": {"unet": learning}}
    )


def trained(chosen: Study) -> tuple[unet.UNet, np.ndarray]:
    """The network trained on the planted discs, and its logits for all of them."""
    manifest, images, masks = planted()
    options = {"experts": masks, "has_mask": np.ones(len(images), bool), "selection": manifest.rows("validation")}
    network = unet.train(chosen, manifest, images, **options)
    return network, network.engine().predict(images)[0]


@pytest.mark.slow
def test_it_learns_a_planted_disc(monkeypatch: pytest.MonkeyPatch) -> None:
    """With three of its five resolutions, enough for 32 pixels, since most of the time is tracing the network."""
    monkeypatch.setattr(unet, "WIDTHS", unet.WIDTHS[:3])
    manifest, _, masks = planted()
    network, logits = trained(plan())
    validation, test = (
        dice(masks[rows], logits[rows] > 0).mean() for rows in map(manifest.rows, ("validation", "test"))
    )
    assert test > 0.85
    best = network.history["validation_dice"].max()
    assert network.history["epoch"].tolist() == [1, 2, 3, 4, 5] and network.images == 32 and best > 0.85
    assert set(network.history["device"]) == {"CPU"}
    assert validation == pytest.approx(best, abs=2e-3), "the best epoch is the one that is kept"


@pytest.mark.slow
def test_it_repeats_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unet, "WIDTHS", (8, 12))  # the order of batches and sums is what could differ
    runs = []
    for folder in ("first", "second"):
        monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / folder))
        runs.append(trained(plan(epochs=2)))
    (first, logits), (second, others) = runs
    assert second.folder != first.folder and np.array_equal(logits, others)
    pd.testing.assert_frame_equal(first.history.drop(columns="seconds"), second.history.drop(columns="seconds"))


def test_any_size_goes_through_and_openvino_agrees() -> None:
    size = (50, 66)
    model = unet.build(size)
    images = np.random.default_rng(0).integers(0, 255, (3, *size, 3)).astype(np.uint8)
    expected = engines.KerasEngine(model).predict(images)[0]
    predicted = engines.OpenVinoEngine(engines.to_openvino(model)).predict(images)[0]
    assert expected.shape == (3, *size) and engines.parity(expected, predicted) < 1e-3
    assert 100_000 < model.count_params() < 500_000


def test_loss_and_dice_are_those_of_the_formulas() -> None:
    truth = np.zeros((2, 4, 5), np.uint8)
    truth[0, :2] = 1
    logits = np.random.default_rng(3).normal(0, 2, (2, 4, 5)).astype(np.float32)
    inside = 1 / (1 + np.exp(-logits))
    entropy = -(truth * np.log(inside) + (1 - truth) * np.log(1 - inside)).mean((1, 2))
    soft = (2 * (inside * truth).sum((1, 2)) + 1) / (inside.sum((1, 2)) + truth.sum((1, 2)) + 1)
    np.testing.assert_allclose(unet.ops.convert_to_numpy(unet.loss(truth, logits)), entropy + 1 - soft, rtol=1e-5)
    overlap = unet.ops.convert_to_numpy(unet.dice(truth, logits))
    np.testing.assert_allclose(overlap, dice(truth.astype(bool), logits > 0), rtol=1e-6)


@pytest.mark.parametrize("policy", sorted(set(unet.AUGMENTATION.values())))
def test_a_mask_goes_through_the_warp_of_its_image(policy: str) -> None:
    """Images that are their own masks stay so, whatever the sampled warp."""
    _, _, masks = planted(12)
    images = np.repeat(masks[..., None].astype(np.uint8) * 200 + 20, 3, axis=3)
    batches = unet.MaskedBatches(images, np.arange(12), masks, 5, unet.Augmenter(policy, 12, 4))
    for _ in range(2):
        for index in range(batches.num_batches):
            warped, warped_masks = batches[index]
            assert dice(warped[..., 1] > 120, warped_masks > 0).min() > 0.9
        batches.on_epoch_end()


def test_a_chest_is_never_mirrored() -> None:
    policy = POLICIES[unet.AUGMENTATION["lungs"]]
    assert not policy.flip_horizontal and not policy.flip_vertical and policy.rotation < 15
    assert all(POLICIES[name].fill == "reflect" for name in unet.AUGMENTATION.values()), "masks are warped that way"
