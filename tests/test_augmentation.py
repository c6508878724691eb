"""Augmentation: what is drawn depends on seed, epoch and place alone, and does exactly what its numbers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanbook import augmentation, runtime
from scanbook.augmentation import Augmenter, matrices, parameters
from scanbook.catalogue import POLICIES, Policy

IDENTITY = {"rotation": 0.0, "shift_x": 0.0, "shift_y": 0.0, "shear": 0.0, "zoom": 1.0, "flip_x": 0, "flip_y": 0} | {
    "brightness": 0.0,
    "contrast": 1.0,
    "red": 1.0,
    "green": 1.0,
    "blue": 1.0,
}


def noise(count: int = 6, height: int = 24, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Augments images with given parameters instead of drawn ones."""

    def augment(images: np.ndarray, fill: str = "nearest", **changes: float) -> np.ndarray:
        drawn = pd.DataFrame([IDENTITY | changes] * len(images))
        monkeypatch.setattr(augmentation, "parameters", lambda *_: drawn)
        monkeypatch.setitem(POLICIES, "forced", Policy(rotation=1, fill=fill))
        return Augmenter("forced", len(images), 0)(images, np.arange(len(images)), 0)

    return augment


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "none"])
def test_the_same_draw_whatever_threads_and_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(13)
    whole = Augmenter(name, 13, 5)(images, np.arange(13), 2)
    assert not np.array_equal(whole, images)
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    augment = Augmenter(name, 13, 5)
    order = np.random.default_rng(0).permutation(13)
    found = np.empty_like(images)
    for start in range(0, 13, 4):
        augment(images[:1], np.array([0]), 1)  # another epoch in between changes nothing
        places = order[start : start + 4]
        found[places] = augment(images[places], places, 2)
    assert np.array_equal(found, whole)


def test_epochs_seeds_and_places_differ() -> None:
    images = np.repeat(noise(1), 4, 0)
    augment = Augmenter("dermoscopy", 4, 0)
    first, second = augment(images, np.arange(4), 0), augment(images, np.arange(4), 1)
    other = Augmenter("dermoscopy", 4, 1)(images, np.arange(4), 0)
    assert len({each.tobytes() for batch in (first, second, other) for each in batch}) == 12


def test_the_size_of_an_image_counts_even_within_an_epoch() -> None:
    augment = Augmenter("dihedral", 3, 0)
    augment(noise(3, 24, 32), np.arange(3), 0)
    small = noise(3, 16, 12)
    assert np.array_equal(augment(small, np.arange(3), 0), Augmenter("dihedral", 3, 0)(small, np.arange(3), 0))


def test_none_is_the_identity() -> None:
    images = noise()
    assert np.array_equal(Augmenter("none", 6, 0)(images, np.arange(6), 3), images)
    drawn = parameters(POLICIES["none"], 5, 0, 0)
    assert drawn.to_dict("records") == [IDENTITY] * 5
    assert np.array_equal(matrices(drawn, (24, 32)), np.tile(np.eye(2, 3), (5, 1, 1)))


def test_the_images_given_are_not_changed() -> None:
    images = noise()
    kept = images.copy()
    images.setflags(write=False)
    assert Augmenter("dermoscopy", 6, 0)(images, np.arange(6), 0).dtype == np.uint8
    assert np.array_equal(images, kept)


EXACT = {
    "identity": ({}, lambda x: x),
    "flip left to right": ({"flip_x": 1}, lambda x: x[:, :, ::-1]),
    "flip top to bottom": ({"flip_y": 1}, lambda x: x[:, ::-1]),
    "turn by 180": ({"rotation": 180.0}, lambda x: x[:, ::-1, ::-1]),
    "turn by -180": ({"rotation": -180.0}, lambda x: x[:, ::-1, ::-1]),
    "both flips are a turn": ({"flip_x": 1, "flip_y": 1}, lambda x: x[:, ::-1, ::-1]),
    "flip and turn": ({"flip_x": 1, "rotation": 180.0}, lambda x: x[:, ::-1]),
    "shift by a quarter": ({"shift_x": 0.25}, lambda x: np.concatenate([x[:, :, 8:], x[:, :, [-1] * 8]], 2)),
}


@pytest.mark.parametrize("how", EXACT)
def test_forced_geometry_equals_numpy(how: str, forced: Callable[..., np.ndarray]) -> None:
    changes, expected = EXACT[how]
    images = noise()
    assert np.array_equal(forced(images, **changes), expected(images))


@pytest.mark.parametrize(("angle", "turns"), [(90.0, 1), (-90.0, -1)])
def test_a_quarter_turn_of_a_square_equals_numpy(angle: float, turns: int, forced: Callable[..., np.ndarray]) -> None:
    images = noise(3, 32, 32)
    assert np.array_equal(forced(images, rotation=angle), np.rot90(images, turns, (1, 2)))


def test_zooming_by_two_enlarges_the_centre(forced: Callable[..., np.ndarray]) -> None:
    y, x = np.mgrid[-1:1:65j, -1:1:65j]
    disc = np.stack([np.where(np.hypot(x, y) < 0.3, 255, 0)] * 3, -1).astype(np.uint8)[None]
    area = (forced(disc, zoom=2.0) > 127).mean() / (disc > 127).mean()
    assert area == pytest.approx(4, rel=0.05)


def test_what_shows_beyond_the_edge(forced: Callable[..., np.ndarray]) -> None:
    images = noise(2)
    assert np.array_equal(forced(images, "nearest", shift_x=0.25)[:, :, -8:], images[:, :, [-1] * 8])
    mirrored = images[:, :, ::-1][:, :, 1:9]
    assert np.array_equal(forced(images, "reflect", shift_x=0.25)[:, :, -8:], mirrored)


def step(**values: float) -> np.ndarray:
    """One step alone, 3 × 3, from the centred output to the centred input, written out from its definition."""
    a, s = np.deg2rad(values.get("rotation", 0.0)), np.deg2rad(values.get("shear", 0.0))
    if "rotation" in values:
        return np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    if "shear" in values:
        return np.array([[1, -np.sin(s), 0], [0, np.cos(s), 0], [0, 0, 1]])
    if "zoom" in values:
        return np.diag([1 / values["zoom"], 1 / values["zoom"], 1])
    return np.diag([-1 if values.get("flip_x") else 1, -1 if values.get("flip_y") else 1, 1])


def move(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])


@given(
    st.floats(-180, 180), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(-30, 30), st.floats(0.5, 2),
    st.booleans(), st.booleans(), st.integers(8, 300), st.integers(8, 300),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_composed_matrix_equals_the_steps(
    rotation: float, shift_x: float, shift_y: float, shear: float, zoom: float, flip_x: bool, flip_y: bool,
    height: int, width: int,
) -> None:  # fmt: skip
    row = IDENTITY | {"rotation": rotation, "shift_x": shift_x, "shift_y": shift_y, "shear": shear, "zoom": zoom}
    row |= {"flip_x": int(flip_x), "flip_y": int(flip_y)}
    found = matrices(pd.DataFrame([row]), (height, width))[0]
    x, y = (width - 1) / 2, (height - 1) / 2
    steps = step(rotation=rotation) @ step(shear=shear) @ step(zoom=zoom) @ step(flip_x=flip_x, flip_y=flip_y)
    expected = move(shift_x * width, shift_y * height) @ move(x, y) @ steps @ move(-x, -y)
    np.testing.assert_allclose(np.vstack([found, [0, 0, 1]]), expected, atol=1e-9)


@given(
    st.floats(0, 180), st.floats(0, 0.5), st.floats(0, 45), st.floats(0, 0.9), st.floats(0, 1), st.floats(0, 0.9),
    st.floats(0, 0.5), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_draws_never_exceed_their_ranges(
    rotation: float, shift: float, shear: float, zoom: float, brightness: float, contrast: float, colour: float,
    horizontal: bool, vertical: bool, seed: int, epoch: int,
) -> None:  # fmt: skip
    policy = Policy(rotation, shift, shear, zoom, horizontal, vertical, brightness, contrast, colour)
    drawn = parameters(policy, 50, seed, epoch)
    centred = drawn.assign(zoom=drawn["zoom"] - 1, contrast=drawn["contrast"] - 1)
    for channel in ("red", "green", "blue"):
        centred[channel] -= 1
    limits = {"rotation": rotation, "shift_x": shift, "shift_y": shift, "shear": shear, "zoom": zoom}
    limits |= {"brightness": brightness, "contrast": contrast, "red": colour, "green": colour, "blue": colour}
    for name, limit in limits.items():
        assert centred[name].abs().max() <= limit + 1e-12
    assert set(drawn["flip_x"]) <= ({0, 1} if horizontal else {0})
    assert set(drawn["flip_y"]) <= ({0, 1} if vertical else {0})


@pytest.mark.parametrize("name", POLICIES)
def test_draws_fill_their_ranges_evenly(name: str) -> None:
    policy, drawn = POLICIES[name], parameters(POLICIES[name], 4000, 0, 0)
    for column, limit, centre in (
        ("rotation", policy.rotation, 0),
        ("shift_x", policy.shift, 0),
        ("shift_y", policy.shift, 0),
        ("zoom", policy.zoom, 1),
        ("brightness", policy.brightness, 0),
        ("contrast", policy.contrast, 1),
        ("blue", policy.colour, 1),
    ):
        offset = drawn[column] - centre
        assert offset.abs().max() == pytest.approx(limit, rel=0.02)
        assert abs(offset.mean()) <= 0.05 * limit and offset.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    for column, allowed in (("flip_x", policy.flip_horizontal), ("flip_y", policy.flip_vertical)):
        assert drawn[column].mean() == pytest.approx(0.5 if allowed else 0, abs=0.03)
    varied = drawn.loc[:, drawn.nunique() > 1].corr().to_numpy()
    assert np.abs(varied - np.eye(len(varied))).max(initial=0) < 0.06, "draws are independent"


def test_an_x_ray_is_never_mirrored() -> None:
    assert not POLICIES["xray"].flip_horizontal and not POLICIES["xray"].flip_vertical


@pytest.mark.parametrize("seed", range(4))
def test_brightness_contrast_and_gains_equal_a_slow_reference(seed: int, forced: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(seed)
    brightness, contrast = float(rng.uniform(-0.3, 0.3)), float(rng.uniform(0.5, 1.5))
    gains = rng.uniform(0.8, 1.2, 3)
    images = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    colours = dict(zip(("red", "green", "blue"), gains, strict=True))
    found = forced(images, brightness=brightness, contrast=contrast, **colours)
    for level in range(256):
        for channel in range(3):
            value = ((level - 127.5) * contrast + 127.5 + 255 * brightness) * gains[channel]
            expected = min(max(value, 0), 255)
            # half a level of rounding, and the single precision of the table
            assert abs(int(found[0].reshape(-1, 3)[level, channel]) - expected) <= 0.5 + 1e-4


def test_mid_grey_stays_under_contrast_and_order_is_kept(forced: Callable[..., np.ndarray]) -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    steep = forced(ramp, contrast=1.5).reshape(-1, 3)[:, 0].astype(int)
    assert abs(steep[127] - 127) <= 1 and abs(steep[128] - 128) <= 1
    assert (np.diff(steep) >= 0).all() and steep[0] == 0 and steep[-1] == 255
