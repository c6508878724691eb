"""Robustness: corruptions that get worse with severity and repeat from a seed; curves that tell two networks apart."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from scanbook import evaluation, runtime
from scanbook.errors import DataError
from scanbook.inspection import robustness
from scanbook.inspection.robustness import KINDS, SEVERITIES, corrupt, curves

EVERY = pytest.mark.parametrize("kind", KINDS)


def photographs(count: int = 4, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth colours with edges and texture, away from black and white."""
    draw = np.random.default_rng(seed)
    coarse = draw.uniform(40, 200, (count, 6, 8, 3)).astype(np.float32)
    smooth = np.stack([cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) for grid in coarse])
    smooth[:, : height // 2, : width // 2] += 30
    return np.clip(smooth + draw.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def distance(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Root mean square difference of each image, in levels."""
    return np.sqrt(((images.astype(float) - others) ** 2).mean((1, 2, 3)))


@EVERY
@pytest.mark.parametrize("size", [(48, 64), (224, 224), (28, 28)])
def test_every_severity_is_worse_than_the_last(kind: str, size: tuple[int, int]) -> None:
    images = photographs(3, *size)
    far = np.stack([distance(images, corrupt(images, kind, severity)) for severity in (0, *SEVERITIES)])
    assert not far[0].any()
    assert (np.diff(far, axis=0) > 0).all(), far


@EVERY
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(0, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_any_size_keeps_shape_and_type(
    kind: str, height: int, width: int, count: int, severity: int, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)
    corrupted = corrupt(images, kind, severity, seed)
    assert corrupted.shape == images.shape and corrupted.dtype == np.uint8


@EVERY
def test_the_same_whatever_the_threads_and_the_neighbours(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = photographs()
    images.setflags(write=False)
    first = corrupt(images, kind, 3, 7)
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    assert np.array_equal(corrupt(images, kind, 3, 7), first)
    assert np.array_equal(corrupt(images[:2], kind, 3, 7), first[:2])
    assert np.array_equal(corrupt(images, kind, 3, 8), first) == (kind != "noise")
    assert not np.shares_memory(corrupt(images, kind, 0), images)
    assert corrupt(images[:0], kind, 3).shape == (0, 48, 64, 3)


def test_noise_has_the_strength_of_the_paper_and_differs_between_images() -> None:
    grey = np.full((2, 200, 200, 3), 127, np.uint8)
    noise = corrupt(grey, "noise", 1) - 127.0
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02) and abs(noise.mean()) < 0.3
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("side", [28, 96, 224])
def test_blur_is_a_disc_that_grows_with_the_image(side: int) -> None:
    """A disc of radius r has variance r² / 4 along each axis; its smoothing and the pixels add theirs."""
    for radius in (3, 6, 10):
        scaled = radius * side / 224
        kernel = robustness._disc(scaled).astype(np.float64)
        place = np.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum() == pytest.approx(1, abs=1e-6) and np.allclose(kernel, kernel.T, atol=1e-7)
        assert (kernel.sum(0) * place**2).sum() == pytest.approx(scaled**2 / 4 + 0.5**2 + 1 / 12, rel=0.02)
    dot = np.zeros((1, side, side, 3), np.uint8)
    dot[0, side // 2, side // 2] = 255
    assert corrupt(dot, "blur", 1)[0, side // 2, side // 2].max() < 255


def test_brightness_contrast_and_jpeg_equal_their_definitions() -> None:
    images = photographs(1)
    value = images.max(-1, keepdims=True).astype(float)
    expected = images * np.minimum(value + 0.3 * 255, 255) / value
    np.testing.assert_allclose(corrupt(images, "brightness", 3), expected, atol=0.51)
    mean = images.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(corrupt(images, "contrast", 2), mean + 0.3 * (images - mean), atol=0.51)
    red = np.zeros((1, 32, 32, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(corrupt(red, "jpeg", 1)[0].mean((0, 1)), [200, 0, 0], atol=6)


@pytest.mark.parametrize(("kind", "severity", "words"), [("fog", 1, "noise, blur"), ("blur", 6, "from 0")])
def test_what_there_is_not_is_named(kind: str, severity: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        corrupt(photographs(1), kind, severity)


# --- curves


class Planted:
    """Knows the class from one property of the image, and gives logits."""

    def __init__(self, measure: str) -> None:
        self.measure, self.seen = measure, 0

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        self.seen += 1
        pixels = images.astype(float)
        if self.measure == "colour":
            score = pixels[..., 0].mean((1, 2)) - pixels[..., 2].mean((1, 2))
        elif self.measure == "level":
            score = pixels.mean((1, 2, 3)) - 120
        else:
            score = np.zeros(len(images))
        return np.stack([-score, score], 1).astype(np.float32), np.zeros((len(images), 4, 4), np.float32)


def two_classes(count: int = 40) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images that differ in hue and in mean level: class 1 is red and light, class 0 blue and dark."""
    y = np.arange(count) % 2
    pixels = photographs(count, 24, 24, seed=1) * 0.2 + 60
    pixels[..., 0] += np.where(y, 70, 0)[:, None, None]
    pixels[..., 2] += np.where(y, 15, 30)[:, None, None]
    return pixels.astype(np.uint8), y, [f"p{place // 2}" for place in range(count)]


def test_curves_tell_what_each_network_relies_on() -> None:
    images, y, group = two_classes()
    engines = {name: Planted(name) for name in ("colour", "level", "nothing")}
    middle = images.mean()
    tables = {}
    for name, engine in engines.items():
        if name == "level":
            engine.predict = lambda worse: (  # knows the middle level of images as they are
                np.stack([middle - worse.mean((1, 2, 3)), worse.mean((1, 2, 3)) - middle], 1),
            )
        frame = curves(engine, images, predicts(y, group), rounds=100)
        assert list(frame.columns) == ["kind", "severity", "images", "accuracy", "low", "high", "auroc"]
        assert len(frame) == 30 and (frame["images"] == 40).all()
        tables[name] = frame.set_index(["kind", "severity"])
    assert (tables["colour"]["accuracy"] == 1).all() and (tables["colour"]["auroc"] == 1).all()
    assert (tables["nothing"]["accuracy"] == 0.5).all() and (tables["nothing"]["auroc"] == 0.5).all()
    level = tables["level"]
    assert level.loc[("brightness", 0), "accuracy"] == 1 > level.loc[("brightness", 5), "accuracy"]
    assert (level.loc["blur"]["accuracy"] == 1).all()


def predicts(y: np.ndarray, group: np.ndarray):
    names = [f"i{i}" for i in range(len(y))]
    return lambda logits: evaluation.Predictions(names, group, y, softmax(logits, axis=1), ("blue", "red"))


def test_findings_have_an_auroc_each_and_their_mean() -> None:
    images, y, group = two_classes()
    labels = np.column_stack([y, 1 - y, np.where(np.arange(40) < 30, y, np.nan), np.zeros(40)]).astype(float)
    names = [f"i{i}" for i in range(40)]
    engine = Planted("colour")
    score = engine.predict

    def logits(worse: np.ndarray) -> tuple[np.ndarray]:
        difference = np.subtract(*score(worse)[0].T[::-1])
        return (np.column_stack([difference, difference, difference, difference]),)

    engine.predict = logits
    findings = ("red", "blue", "often not labelled", "never")
    frame = curves(
        engine, images, lambda z: evaluation.FindingPredictions(names, group, labels, expit(z), findings), rounds=50
    )
    assert list(frame)[:6] == ["kind", "severity", "images", "auroc", "low", "high"]
    assert (frame["auroc: red"] == 1).all() and (frame["auroc: blue"] == 0).all()
    assert (frame["auroc: often not labelled"] == 1).all() and frame["auroc: never"].isna().all()
    np.testing.assert_allclose(frame["auroc"], 2 / 3)


def test_intervals_are_those_of_the_evaluation_and_runs_repeat() -> None:
    images, y, group = two_classes()
    y = y.copy()
    y[:6] = 1 - y[:6]  # errors
    engine = Planted("colour")
    frame = curves(engine, images, predicts(y, group), rounds=200, seed=3)
    assert engine.seen == 26, "images as they are are predicted once"
    logits = Planted("colour").predict(images)[0].astype(float)
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    predictions = evaluation.Predictions([str(i) for i in range(40)], group, y, probabilities, ("blue", "red"))
    row = evaluation.summary(predictions, ("accuracy",), 200, 3).loc["accuracy"]
    for kind in KINDS:
        first = frame[(frame["kind"] == kind) & (frame["severity"] == 0)].iloc[0]
        assert first[["accuracy", "low", "high"]].tolist() == row.tolist()
    again = curves(Planted("colour"), images, predicts(y, group), rounds=200, seed=3)
    assert frame.equals(again)


def test_examples_are_one_image_at_every_severity() -> None:
    image = photographs(1)[0]
    corrupted = robustness.examples(image, 2)
    assert list(corrupted) == list(KINDS) and all(len(series) == 6 for series in corrupted.values())
    assert np.array_equal(corrupted["noise"][0], image)
    assert np.array_equal(corrupted["noise"][4], corrupt(image[None], "noise", 4, 2)[0])
