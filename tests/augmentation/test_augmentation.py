"""Augmentation: what is sampled depends on seed, epoch and place alone, and does exactly what its numbers say."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanbook import augmentation, registry, runtime
from scanbook.augmentation import Augmenter, augmenter, matrices, mix, mixing, parameters, sampling
from scanbook.registry import POLICIES, Policy

MIXING = ("mixup", "cutmix", "dermoscopy+mixup", "mixup+cutmix")

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
    """Augments images with given parameters instead of synthetic ones."""

    def augment(images: np.ndarray, fill: str = "nearest", **changes: float) -> np.ndarray:
        sampled = pd.DataFrame([IDENTITY | changes] * len(images))
        monkeypatch.setattr(augmenter, "parameters", lambda *_: sampled)
        monkeypatch.setitem(POLICIES, "forced", Policy(rotation=1, fill=fill))
        return Augmenter("forced", len(images), 0)(images, np.arange(len(images)), 0)

    return augment


@pytest.mark.parametrize(
    "name", [*(name for name in POLICIES if name not in ("none", "mixup", "cutmix")), "xray+photometric+mixup"]
)
def test_the_same_draw_whatever_threads_and_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(13)
    whole = Augmenter(name, 13, 5)(images, np.arange(13), 2)
    assert not np.array_equal(whole, images)
    monkeypatch.setattr(runtime, "cores", lambda: 1)
    augment = Augmenter(name, 13, 5)
    order = np.random.default_rng(0).permutation(13)
    augmented = np.empty_like(images)
    for start in range(0, 13, 4):
        augment(images[:1], np.array([0]), 1)  # another epoch in between changes nothing
        places = order[start : start + 4]
        augmented[places] = augment(images[places], places, 2)
    assert np.array_equal(augmented, whole)


def test_epochs_seeds_and_places_differ() -> None:
    images = np.repeat(noise(1), 4, 0)
    augment = Augmenter("dermoscopy", 4, 0)
    first, second = augment(images, np.arange(4), 0), augment(images, np.arange(4), 1)
    other = Augmenter("dermoscopy", 4, 1)(images, np.arange(4), 0)
    assert len({image.tobytes() for batch in (first, second, other) for image in batch}) == 12


def test_the_size_of_an_image_counts_even_within_an_epoch() -> None:
    augment = Augmenter("dihedral", 3, 0)
    augment(noise(3, 24, 32), np.arange(3), 0)
    small = noise(3, 16, 12)
    assert np.array_equal(augment(small, np.arange(3), 0), Augmenter("dihedral", 3, 0)(small, np.arange(3), 0))


def test_an_epoch_of_many_images_draws_tables_for_those_asked_for_alone() -> None:
    augment = Augmenter("dermoscopy", 10_000, 0)
    tracemalloc.start()
    try:
        augment(noise(4), np.array([0, 1, 9_998, 9_999]), 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 600 * 10_000, "a table of one image takes 768 bytes, and more while it is made"


def test_none_is_the_identity() -> None:
    images = noise()
    assert np.array_equal(Augmenter("none", 6, 0)(images, np.arange(6), 3), images)
    sampled = parameters(POLICIES["none"], 5, 0, 0)
    assert sampled.to_dict("records") == [IDENTITY] * 5
    assert np.array_equal(matrices(sampled, (24, 32)), np.tile(np.eye(2, 3), (5, 1, 1)))


def test_the_images_given_are_not_changed() -> None:
    images = noise()
    originals = images.copy()
    images.setflags(write=False)
    assert Augmenter("dermoscopy", 6, 0)(images, np.arange(6), 0).dtype == np.uint8
    assert np.array_equal(images, originals)


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
    matrix = matrices(pd.DataFrame([row]), (height, width))[0]
    x, y = (width - 1) / 2, (height - 1) / 2
    steps = step(rotation=rotation) @ step(shear=shear) @ step(zoom=zoom) @ step(flip_x=flip_x, flip_y=flip_y)
    expected = move(shift_x * width, shift_y * height) @ move(x, y) @ steps @ move(-x, -y)
    np.testing.assert_allclose(np.vstack([matrix, [0, 0, 1]]), expected, atol=1e-9)


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
    sampled = parameters(policy, 50, seed, epoch)
    centred = sampled.assign(zoom=sampled["zoom"] - 1, contrast=sampled["contrast"] - 1)
    for channel in ("red", "green", "blue"):
        centred[channel] -= 1
    limits = {"rotation": rotation, "shift_x": shift, "shift_y": shift, "shear": shear, "zoom": zoom}
    limits |= {"brightness": brightness, "contrast": contrast, "red": colour, "green": colour, "blue": colour}
    for name, limit in limits.items():
        assert centred[name].abs().max() <= limit + 1e-12
    assert set(sampled["flip_x"]) <= ({0, 1} if horizontal else {0})
    assert set(sampled["flip_y"]) <= ({0, 1} if vertical else {0})


@pytest.mark.parametrize("name", POLICIES)
def test_draws_fill_their_ranges_evenly(name: str) -> None:
    policy, sampled = POLICIES[name], parameters(POLICIES[name], 4000, 0, 0)
    for column, limit, centre in (
        ("rotation", policy.rotation, 0),
        ("shift_x", policy.shift, 0),
        ("shift_y", policy.shift, 0),
        ("zoom", policy.zoom, 1),
        ("brightness", policy.brightness, 0),
        ("contrast", policy.contrast, 1),
        ("blue", policy.colour, 1),
    ):
        offset = sampled[column] - centre
        assert offset.abs().max() == pytest.approx(limit, rel=0.02)
        assert abs(offset.mean()) <= 0.05 * limit and offset.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    for column, allowed in (("flip_x", policy.flip_horizontal), ("flip_y", policy.flip_vertical)):
        assert sampled[column].mean() == pytest.approx(0.5 if allowed else 0, abs=0.03)
    own = sampled[list(IDENTITY)]
    varied = own.loc[:, own.nunique() > 1].corr().to_numpy()
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
    augmented = forced(images, brightness=brightness, contrast=contrast, **colours)
    for level in range(256):
        for channel in range(3):
            value = ((level - 127.5) * contrast + 127.5 + 255 * brightness) * gains[channel]
            expected = min(max(value, 0), 255)
            # half a level of rounding, and the single precision of the table
            assert abs(int(augmented[0].reshape(-1, 3)[level, channel]) - expected) <= 0.5 + 1e-4


def test_mid_grey_stays_under_contrast_and_order_is_kept(forced: Callable[..., np.ndarray]) -> None:
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    steep = forced(ramp, contrast=1.5).reshape(-1, 3)[:, 0].astype(int)
    assert abs(steep[127] - 127) <= 1 and abs(steep[128] - 128) <= 1
    assert (np.diff(steep) >= 0).all() and steep[0] == 0 and steep[-1] == 255


# --- policies joined


def test_a_joined_policy_does_what_each_does() -> None:
    joined = registry.policy("xray+mixup+cutmix")
    assert joined == Policy(**vars(POLICIES["xray"]) | {"mixup": 0.2, "cutmix": 1.0})
    assert registry.policy("skin11+mixup").fill == "nearest"
    assert registry.policy("dermoscopy+xray").rotation == POLICIES["xray"].rotation, "the last one's range holds"
    assert all(registry.policy(name) == POLICIES[name] for name in POLICIES)
    with pytest.raises(KeyError, match="sepia"):
        registry.policy("dermoscopy+sepia")


@pytest.mark.parametrize("name", ["mixup", "cutmix", "mixup+cutmix", "none+mixup"])
def test_a_policy_that_only_mixes_leaves_single_images(name: str) -> None:
    images = noise()
    assert Augmenter(name, 6, 0)(images, np.arange(6), 1) is images


def test_joining_changes_no_draw_of_single_images() -> None:
    images = noise()
    augmented = [Augmenter(name, 6, 3)(images, np.arange(6), 2) for name in ("dermoscopy", "dermoscopy+mixup")]
    assert np.array_equal(*augmented)


# --- mixing


FIRST = {"seed": 0, "epoch": 0, "batch": 0}


def one_hot(count: int, classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.arange(count) % classes]


@pytest.mark.parametrize("name", ["none", "dermoscopy", "xray"])
def test_a_policy_without_mixing_changes_no_batch(name: str) -> None:
    augment, images, y = Augmenter(name, 6, 0), noise(), one_hot(6)
    assert not augment.mixes
    mixed = augment.mix(images, y, 0, 0)
    assert mixed[0] is images and mixed[1] is y


@pytest.mark.parametrize("name", MIXING)
def test_what_is_mixed_depends_on_seed_epoch_and_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, y = noise(8), one_hot(8)
    augment = Augmenter(name, 100, 5)
    assert augment.mixes
    first = augment.mix(images, y, 2, 7)
    assert not np.array_equal(first[0], images) and first[0].dtype == np.uint8 and first[1].dtype == np.float32
    others = [augment.mix(images, y, 2, 8), augment.mix(images, y, 3, 7), Augmenter(name, 100, 6).mix(images, y, 2, 7)]
    assert len({batch[0].tobytes() for batch in (first, *others)}) == 4
    monkeypatch.setattr(runtime, "cores", lambda: 7)
    again = Augmenter(name, 100, 5).mix(images, y, 2, 7)
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))


def test_another_process_mixes_alike() -> None:
    code = (
        "import numpy as np, zlib; from scanbook.augmentation import Augmenter\n"
        "images = np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), np.uint8)\n"
        "x, y = Augmenter('dermoscopy+mixup+cutmix', 8, 5).mix(images, np.eye(8, dtype=np.float32), 1, 2)\n"
        "print(zlib.crc32(x.tobytes() + y.tobytes()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    x, y = Augmenter("dermoscopy+mixup+cutmix", 8, 5).mix(noise(8), np.eye(8, dtype=np.float32), 1, 2)
    assert int(done.stdout) == zlib.crc32(x.tobytes() + y.tobytes())


def test_mixing_shares_no_draw_with_shuffling_and_single_images() -> None:
    """A seed sequence takes zeros at its end for nothing: seeds of two and three numbers may be alike, of four not."""
    for other in ([5], [5, 2], [5, 1, 2], [5, 1, 0]):
        shared = np.random.default_rng(other).random(4)
        assert not np.isin(np.random.default_rng([5, 1, 0, sampling._MIXING]).random(4), shared).any()


@given(
    st.sampled_from(["mixup", "cutmix", "both"]), st.floats(0.05, 8), st.integers(1, 9), st.integers(1, 40),
    st.integers(1, 40), st.integers(0, 2**32 - 1), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_labels_are_mixed_as_the_pixels_are(
    kind: str, strength: float, count: int, height: int, width: int, seed: int, batch: int
) -> None:
    """Each image is one flat level of its own, so that what is left of it can be read from the mixed pixels."""
    policy = Policy(mixup=strength * (kind != "cutmix"), cutmix=strength * (kind != "mixup"))
    levels = np.linspace(0, 255, count).round().astype(np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()
    sampled = mixing(policy, (height, width), count, seed=seed, epoch=0, batch=batch)
    mixed, y = mix(images, np.eye(count, dtype=np.float32), sampled)
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-6)
    assert y.min() >= 0 and sorted(sampled["partner"]) == list(range(count))
    mean = mixed.reshape(count, -1).mean(1)
    rounding = 0.5 if sampled["method"][0] == "mixup" else 0  # of one blended level; pasted pixels are exact
    np.testing.assert_allclose(mean, y.astype(np.float64) @ levels, atol=rounding + 1e-3)


@pytest.mark.parametrize("size", [(24, 32), (9, 7), (1, 1)])
def test_cutmix_pastes_one_box_of_the_partner(size: tuple[int, int]) -> None:
    images = noise(12, *size)
    sampled = mixing(Policy(cutmix=1.0), size, 12, **FIRST)
    mixed, y = mix(images, np.eye(12, dtype=np.float32), sampled)
    for place, row in sampled.iterrows():
        inside = np.zeros(size, bool)
        inside[row.top : row.bottom, row.left : row.right] = True
        assert np.array_equal(mixed[place][inside], images[row.partner][inside])
        assert np.array_equal(mixed[place][~inside], images[place][~inside])
        if row.partner != place:
            assert y[place, row.partner] == np.float32(inside.mean())


def test_a_batch_of_one_stays_as_it_is() -> None:
    images, y = noise(1), one_hot(1)
    for name in MIXING:
        mixed = Augmenter(name, 1, 0).mix(images, y, 0, 0)
        assert np.array_equal(mixed[0], images) and np.array_equal(mixed[1], y)


def test_shares_follow_their_distribution() -> None:
    mixup = mixing(Policy(mixup=0.2), (32, 32), 20000, **FIRST)["share"]
    assert mixup.mean() == pytest.approx(0.5, abs=0.01)
    assert mixup.var() == pytest.approx(0.25 / 1.4, rel=0.03), "variance of Beta(a, a): 1 / (4 (2 a + 1))"
    boxes = mixing(Policy(cutmix=1.0), (500, 500), 20000, **FIRST)
    whole = boxes[(boxes.left > 0) & (boxes.top > 0) & (boxes.right < 500) & (boxes.bottom < 500)]
    sides = (whole.bottom - whole.top) / 500, (whole.right - whole.left) / 500
    assert np.abs(sides[0] - sides[1]).max() <= 0.005, "a box has the image's proportions"
    # a box of side s is whole with probability (1 - s)²; the area s² is uniform, so s has density 2 s (1 - s)² × 6
    assert sides[0].mean() == pytest.approx(0.4, abs=0.01)


def test_a_batch_takes_mixup_or_cutmix_as_often() -> None:
    policy = registry.policy("mixup+cutmix")
    draws = [mixing(policy, (8, 8), 2, seed=0, epoch=0, batch=batch) for batch in range(400)]
    assert all(table["method"].nunique() == 1 for table in draws)
    assert np.mean([table["method"][0] == "mixup" for table in draws]) == pytest.approx(0.5, abs=0.08)


def test_mixing_leaves_what_it_is_given() -> None:
    images, y = noise(), one_hot(6)
    originals = images.copy(), y.copy()
    images.setflags(write=False)
    y.setflags(write=False)
    for name in MIXING:
        Augmenter(name, 6, 0).mix(images, y, 0, 0)
    assert np.array_equal(images, originals[0]) and np.array_equal(y, originals[1])


def test_geometry_is_one_warp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotation, shear, zoom, mirror and shift together interpolate each pixel once."""
    calls: list[int] = []
    warp = augmenter.cv2.warpAffine
    monkeypatch.setattr(augmenter.cv2, "warpAffine", lambda *a, **k: calls.append(1) or warp(*a, **k))
    monkeypatch.setitem(POLICIES, "all", Policy(90, 0.1, 10, 0.2, True, True, 0.1, 0.1, 0.1))
    Augmenter("all+mixup", 6, 0)(noise(), np.arange(6), 0)
    assert len(calls) == 6


# --- what is reported


def test_the_first_epoch_is_described_as_it_is_sampled() -> None:
    sampled = augmentation.first_epoch("skin11+mixup", (24, 32), 50, 16, 3)
    assert list(sampled) == [
        *("rotation, degrees", "horizontal shift, share of the width", "vertical shift, share of the height"),
        *("shear, degrees", "mirrored left to right", "share of its own label"),
    ]
    single = parameters(POLICIES["skin11"], 50, 3, 1)
    assert np.array_equal(sampled["rotation, degrees"], single["rotation"])
    assert np.array_equal(sampled["mirrored left to right"] == "yes", single["flip_x"] == 1)
    policy = registry.policy("skin11+mixup")
    batches = [
        mixing(policy, (24, 32), size, seed=3, epoch=1, batch=place) for place, size in enumerate([16, 16, 16, 2])
    ]
    assert np.array_equal(sampled["share of its own label"], pd.concat(batches)["share"])


def test_of_none_and_of_one_image_nothing_varies() -> None:
    assert augmentation.first_epoch("none", (24, 32), 50, 16, 3).shape == (50, 0)
    assert augmentation.first_epoch("dermoscopy+cutmix", (24, 32), 1, 16, 3).shape == (1, 0)


def test_both_methods_show_in_the_first_epoch() -> None:
    sampled = augmentation.first_epoch("mixup+cutmix", (24, 32), 400, 8, 0)
    assert set(sampled["mixed by"]) == {"mixup", "cutmix"}
