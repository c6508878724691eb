"""RandAugment, TrivialAugment and random crops: operations equal Pillow's, and move a planted point as they say."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from scanbook import augmentation, registry, runtime
from scanbook.augmentation import Augmenter, augmenter, matrices, operations, parameters, sampling
from scanbook.config.block import check_name
from scanbook.data.adapters.synthetic.kinds import KINDS
from scanbook.errors import StudyError
from scanbook.registry import POLICIES, Policy

OPERATIONS = operations.OPERATIONS
NEW = ("randaugment", "trivialaugment", "random_crop", "dihedral+trivialaugment", "dermoscopy+random_crop+randaugment")


def own_values(count: int) -> pd.DataFrame:
    """Neutral values of a policy's own ranges."""
    return parameters(POLICIES["none"], count, 0, 0)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    kinds = ("dermoscopy_melanoma", "dermoscopy_nevus", "clinical_acne", "xray_covid", "fundus_grade_3")
    images = [KINDS[kind](np.random.default_rng(3), 96, None).image for kind in kinds]
    return [np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image for image in images]


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Augments an image with given operations and values instead of sampled ones."""

    def augment(image: np.ndarray, *steps: tuple[str, float], **values: float) -> np.ndarray:
        sampled = own_values(1).assign(**values)
        for place, (name, strength) in enumerate(steps, 1):
            sampled[f"operation_{place}"], sampled[f"strength_{place}"] = name, strength
        monkeypatch.setattr(augmenter, "parameters", lambda *_: sampled)
        return Augmenter("trivialaugment", 1, 0)(image[None], np.array([0]), 0)[0]

    return augment


# --- what existed before


# a checksum of the values of six images; and the mean of their pixels, weighted by a ramp, before operations existed
BEFORE = {
    "skin11": (137333877, 60.688),
    "dihedral": (2143200407, 60.956),
    "photometric": (3236167508, 60.465),
    "dermoscopy": (764848620, 59.599),
    "xray": (2213600626, 60.228),
}


def ramps() -> np.ndarray:
    """Six images: red rises to the right, green to the bottom, blue is noise."""
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3), np.uint8)
    images[..., 0], images[..., 1] = 8 * np.arange(32), 10 * np.arange(24)[:, None]
    return images


@pytest.mark.parametrize("name", BEFORE)
def test_policies_without_operations_are_what_they_were(name: str) -> None:
    values = parameters(POLICIES[name], 6, 7, 2)
    checksum, mean = BEFORE[name]
    assert values.shape == (6, 12)
    assert zlib.crc32(np.rint(values.to_numpy(float) * 1e6).astype("<i8").tobytes()) == checksum
    augmented = Augmenter(name, 6, 7)(ramps(), np.arange(6), 2)
    ramp = np.linspace(0, 1, augmented.size).reshape(augmented.shape)
    # not the bytes: interpolation rounds differently on other processors
    assert (augmented * ramp).mean() == pytest.approx(mean, abs=0.05)


@pytest.mark.parametrize("name", BEFORE)
def test_adding_operations_and_a_crop_leaves_the_policys_own_values(name: str) -> None:
    alone = parameters(POLICIES[name], 40, 3, 1)
    for added in ("randaugment", "trivialaugment", "random_crop", "random_crop+trivialaugment"):
        joined = parameters(registry.policy(f"{name}+{added}"), 40, 3, 1)
        pd.testing.assert_frame_equal(joined[list(alone)], alone)


# --- colour, against Pillow


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalise": lambda image, _: ImageOps.equalize(image),
    "posterise": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarise": ImageOps.solarize,
    "colour": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
STRENGTHS = {"posterise": (2, 4, 6, 8), "solarise": (0, 60, 178.5, 255)}
# levels by which results may differ: Pillow cuts decimals where scanbook rounds, and rounds an image's grey before it
# blends colour
TOLERANCE = {"autocontrast": 1, "brightness": 1, "contrast": 1, "colour": 2, "sharpness": 1}


@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_on_colour_equals_pillows(
    name: str, photographs: list[np.ndarray], forced: Callable[..., np.ndarray]
) -> None:
    strengths = STRENGTHS.get(name, (0.01, 0.3, 0.73, 1, 1.27, 1.99) if OPERATIONS[name].unit else (0,))
    for image in photographs:
        for strength in strengths:
            expected = np.asarray(PILLOW[name](Image.fromarray(image), strength)).astype(int)
            # Pillow does not smooth the outermost pixels
            inside = np.s_[1:-1, 1:-1] if name == "sharpness" else np.s_[:]
            difference = np.abs(forced(image, (name, strength)) - expected)[inside]
            assert difference.max() <= TOLERANCE.get(name, 0), f"strength {strength}"


@pytest.mark.parametrize("first", PILLOW)
@pytest.mark.parametrize("second", ["autocontrast", "equalise", "contrast", "solarise", "colour", "sharpness"])
def test_operations_on_colour_follow_each_other(
    first: str, second: str, photographs: list[np.ndarray], forced: Callable[..., np.ndarray]
) -> None:
    """Two operations in one table equal two passes over the image, so that counts of levels follow the first one."""
    strength = {"posterise": 3, "solarise": 100}
    steps = [(name, strength.get(name, 0.6)) for name in (first, second)]
    for image in photographs:
        passes = forced(forced(image, steps[0]), steps[1])
        assert np.array_equal(forced(image, *steps), passes)


def test_levels_are_counted_anew_after_colour(photographs: list[np.ndarray], forced: Callable[..., np.ndarray]) -> None:
    for image in photographs:
        passes = image
        for step in (("contrast", 1.9), ("colour", 1.9), ("equalise", 0)):
            passes = forced(passes, step)
        assert np.array_equal(forced(image, ("contrast", 1.9), ("colour", 1.9), ("equalise", 0)), passes)


def test_a_policys_own_colour_comes_before_the_operations(
    photographs: list[np.ndarray], forced: Callable[..., np.ndarray]
) -> None:
    image = photographs[0]
    own = forced(image, brightness=0.1, contrast=1.3, red=0.9)
    for name in ("equalise", "contrast", "colour"):
        together = forced(image, (name, 0.5), brightness=0.1, contrast=1.3, red=0.9)
        assert np.array_equal(together, forced(own, (name, 0.5)))


@given(st.sampled_from(sorted(PILLOW)), st.sampled_from(sorted(PILLOW)), st.integers(0, 255), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_flat_and_tiny_images_pass_every_operation(first: str, second: str, level: int, side: int) -> None:
    image = np.full((side, side, 3), level, np.uint8)
    strength = {"posterise": 3, "solarise": 256}
    operations.recolour(image, (first, second), [strength.get(name, 1.0) for name in (first, second)], None)
    expected = level // 32 * 32 if "posterise" in (first, second) else level
    assert np.abs(image.astype(int) - expected).max() <= 1, "a flat image is neither stretched nor equalised"


# --- geometry, by a planted point


def planted(point: tuple[float, float], height: int = 61, width: int = 81) -> np.ndarray:
    """A round spot, brightest at (x, y) from the centre."""
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - (width - 1) / 2 - point[0], y - (height - 1) / 2 - point[1]
    return np.repeat(np.rint(255 * np.exp(-(x**2 + y**2) / 8))[..., None], 3, 2).astype(np.uint8)


def place_of(image: np.ndarray) -> np.ndarray:
    """Centre of the brightness, (x, y) from the image's centre."""
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    centre = (np.array(weight.shape[::-1]) - 1) / 2
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum() - centre


# from where a point is to where it goes, (x, y) from the centre: what is at the result came from where it was
MOVES: dict[str, tuple[float, Callable[[float, float], tuple[float, float]]]] = {
    "shear x": (0.3, lambda x, y: (x - 0.3 * y, y)),
    "shear y": (-0.4, lambda x, y: (x, y + 0.4 * x)),
    "translate x": (0.1, lambda x, y: (x - 8.1, y)),
    "translate y": (-0.1, lambda x, y: (x, y + 6.1)),
    # counterclockwise on the screen, as Pillow's rotate
    "rotate": (30, lambda x, y: (0.75**0.5 * x + 0.5 * y, -0.5 * x + 0.75**0.5 * y)),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_geometric_operation_moves_a_planted_point(name: str, forced: Callable[..., np.ndarray]) -> None:
    strength, move = MOVES[name]
    for point in ((0.0, 0.0), (12.0, 7.0), (-10.0, 9.0)):
        moved = forced(planted(point), (name, strength))
        np.testing.assert_allclose(place_of(moved), move(*point), atol=0.05)


def test_geometry_follows_the_order_of_the_operations(forced: Callable[..., np.ndarray]) -> None:
    """Crop, the policy's own ranges, then operations, the first one first."""
    point = (6.0, -4.0)
    for first, second in (("rotate", "translate x"), ("translate x", "rotate"), ("shear y", "rotate")):
        expected = MOVES[second][1](*MOVES[first][1](-point[0], point[1]))
        steps = [(name, MOVES[name][0]) for name in (first, second)]
        np.testing.assert_allclose(place_of(forced(planted(point), *steps, flip_x=1)), expected, atol=0.05)
    box = {"crop_left": 0.25, "crop_top": 0.25, "crop_width": 0.5, "crop_height": 0.5}
    turned = forced(planted(point), ("rotate", 30), flip_x=1, **box)
    np.testing.assert_allclose(place_of(turned), MOVES["rotate"][1](-12, -8), atol=0.1)


def test_a_rotation_equals_pillows(photographs: list[np.ndarray], forced: Callable[..., np.ndarray]) -> None:
    image = photographs[0]
    expected = np.asarray(Image.fromarray(image).rotate(40, Image.Resampling.BILINEAR)).astype(int)
    inside = np.asarray(Image.new("L", image.shape[1::-1], 255).rotate(40)) == 255
    inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5))) == 1
    # OpenCV interpolates at 32 places between two pixels
    assert np.abs(forced(image, ("rotate", 40)) - expected)[inside].mean() < 1


def test_a_crop_shows_its_part_of_the_image(forced: Callable[..., np.ndarray]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    shown = forced(image, crop_left=0.25, crop_top=0.5, crop_width=0.5, crop_height=0.5)
    expected = cv2.resize(image[12:24, 8:24], (32, 24), interpolation=cv2.INTER_LINEAR)
    # beside the crop is the image, where resizing the part alone repeats its edge
    assert np.abs(shown[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 1


def test_every_policy_warps_once(monkeypatch: pytest.MonkeyPatch, photographs: list[np.ndarray]) -> None:
    calls: list[int] = []
    warp = cv2.warpAffine
    monkeypatch.setattr(augmenter.cv2, "warpAffine", lambda *a, **k: calls.append(1) or warp(*a, **k))
    Augmenter("dermoscopy+random_crop+randaugment", 5, 0)(np.stack(photographs), np.arange(5), 0)
    assert len(calls) == 5


@pytest.mark.parametrize("fill", ["reflect", "nearest"])
def test_beyond_the_edge_is_what_the_policy_says(fill: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    sampled = own_values(1).assign(operation_1="translate x", strength_1=0.25)
    monkeypatch.setattr(augmenter, "parameters", lambda *_: sampled)
    monkeypatch.setitem(POLICIES, "forced", Policy(trivialaugment=True, fill=fill))
    edge = Augmenter("forced", 1, 0)(image[None], np.array([0]), 0)[0][:, -8:]
    assert np.array_equal(edge, image[:, ::-1][:, 1:9] if fill == "reflect" else image[:, [-1] * 8])


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment", "random_crop", "xray+trivialaugment+random_crop"])
def test_these_policies_never_mirror(name: str) -> None:
    policy = registry.policy(name)
    linear = matrices(parameters(policy, 4000, 0, 1), (64, 64))[:, :, :2]
    assert (np.linalg.det(linear) > 0).all()
    assert (parameters(policy, 4000, 0, 1)[["flip_x", "flip_y"]] == 0).all(axis=None)


# --- what is sampled


def sampled_operations(policy: Policy, count: int = 28_000) -> pd.DataFrame:
    """One row per operation: its name and strength."""
    sampled = operations.sample(policy, count, 0, 1)
    columns = zip(*operations.columns_of(sampled), strict=True)
    pairs = [sampled[list(pair)].set_axis(["operation", "strength"], axis=1) for pair in columns]
    return pd.concat(pairs, ignore_index=True)


@pytest.mark.parametrize("policy", [Policy(trivialaugment=True), Policy(randaugment=2, magnitude=3)])
def test_every_operation_is_as_frequent(policy: Policy) -> None:
    shares = sampled_operations(policy)["operation"].value_counts(normalize=True)
    assert set(shares.index) == set(OPERATIONS) and len(OPERATIONS) == 14
    assert np.abs(shares * 14 - 1).max() < 0.1


# table 1 of Müller and Hutter (2021), "wide"; 32 pixels at the 224 at which the paper trains on ImageNet
WIDE = {"shear x": (-0.99, 0.99), "shear y": (-0.99, 0.99), "translate x": (-1 / 7, 1 / 7), "rotate": (-135, 135)}
WIDE |= {name: (0.01, 1.99) for name in ("brightness", "colour", "contrast", "sharpness")}
WIDE |= {"translate y": (-1 / 7, 1 / 7), "posterise": (2, 8), "solarise": (0, 255)}


def test_trivialaugments_strengths_fill_their_wide_ranges() -> None:
    rows = sampled_operations(Policy(trivialaugment=True))
    for name, (low, high) in WIDE.items():
        strength = rows.loc[rows["operation"] == name, "strength"]
        assert (strength.min(), strength.max()) == pytest.approx((low, high))
        assert strength.mean() == pytest.approx((low + high) / 2, abs=0.04 * (high - low))
        steps = {"posterise": 7, "solarise": 31}.get(name, 61)
        assert strength.round(9).nunique() == steps, "31 strengths, to either side where there are two"
    assert set(OPERATIONS) - set(WIDE) == {"identity", "autocontrast", "equalise"}


@pytest.mark.parametrize(("magnitude", "share"), [(0, 0), (3, 0.3), (10, 1)])
def test_randaugments_strengths_are_of_one_magnitude(magnitude: float, share: float) -> None:
    rows = sampled_operations(Policy(randaugment=2, magnitude=magnitude))
    whole = {"rotate": 30, "shear x": 0.3, "shear y": 0.3, "translate x": 150 / 331, "translate y": 150 / 331}
    for name, largest in whole.items():
        np.testing.assert_allclose(rows.loc[rows["operation"] == name, "strength"].abs(), share * largest)
    for name in ("brightness", "colour", "contrast", "sharpness"):
        np.testing.assert_allclose((rows.loc[rows["operation"] == name, "strength"] - 1).abs(), share * 0.9)
    assert set(rows.loc[rows["operation"] == "posterise", "strength"]) == {8 - round(4 * share)}
    np.testing.assert_allclose(rows.loc[rows["operation"] == "solarise", "strength"], 255 * (1 - share))
    if share:
        assert (rows.loc[rows["operation"] == "rotate", "strength"] > 0).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("smallest", [0.08, 0.5, 0.95])
def test_crops_have_their_areas_and_ratios_and_lie_in_the_image(smallest: float) -> None:
    crops = parameters(Policy(crop=smallest), 20_000, 0, 1)
    area, ratio = crops["crop_width"] * crops["crop_height"], crops["crop_width"] / crops["crop_height"]
    assert area.min() >= smallest - 1e-9 and area.max() <= 1
    assert area.mean() == pytest.approx((1 + smallest) / 2, abs=0.02 * (1 - smallest)), "the area is uniform"
    assert ratio.min() >= 3 / 4 - 1e-9 and ratio.max() <= 4 / 3 + 1e-9
    assert np.log(ratio).mean() == pytest.approx(0, abs=0.005), "as often wider as narrower"
    small = area < 0.75  # every ratio from 3/4 to 4/3 fits
    if small.any():
        assert np.log(ratio[small]).std() == pytest.approx(np.log(4 / 3) / 3**0.5, rel=0.02)
    for start, length in (("crop_left", "crop_width"), ("crop_top", "crop_height")):
        assert crops[start].min() >= 0 and (crops[start] + crops[length]).max() <= 1 + 1e-12


@pytest.mark.parametrize("name", NEW)
def test_values_depend_on_seed_epoch_and_place_alone(name: str) -> None:
    policy = registry.policy(name)
    whole = parameters(policy, 100, 5, 2)
    pd.testing.assert_frame_equal(parameters(policy, 60, 5, 2), whole[:60])
    for seed, epoch in ((6, 2), (5, 3)):
        assert not parameters(policy, 100, seed, epoch).equals(whole)


@pytest.mark.parametrize("name", NEW)
def test_threads_and_batches_change_nothing(
    name: str, photographs: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.stack(photographs * 6)
    places = np.arange(len(images))
    whole = Augmenter(name, len(images), 5)(images, places, 2)
    assert len({image.tobytes() for image in whole}) > 20
    for cores in (1, 3, 7):
        monkeypatch.setattr(runtime, "cores", lambda cores=cores: cores)
        augment = Augmenter(name, len(images), 5)
        parts = [augment(images[places[start::4]], places[start::4], 2) for start in range(4)]
        assert all(np.array_equal(part, whole[start::4]) for start, part in enumerate(parts))


def test_operations_and_crops_share_no_value_with_each_other_or_mixing() -> None:
    assert len({sampling._MIXING, sampling._CROP, operations._SEED}) == 3
    crops = parameters(Policy(crop=0.5), 12, 5, 1)
    own = np.random.default_rng([5, 1]).random(144)
    area = (crops["crop_width"] * crops["crop_height"] - 0.5) / 0.5
    left = crops["crop_left"] / (1 - crops["crop_width"])
    for values in (area, left):
        assert np.abs(values.to_numpy()[:, None] - own).min() > 1e-9
    chosen = operations.sample(Policy(trivialaugment=True), 48, 5, 1)["operation_1"]
    assert list(chosen) != [list(OPERATIONS)[int(14 * share)] for share in own[::3]]


# --- policies joined, and refused


def test_joined_policies_do_what_each_does() -> None:
    assert registry.policy("dihedral+trivialaugment") == Policy(**vars(POLICIES["dihedral"]) | {"trivialaugment": True})
    joined = registry.policy("skin11+randaugment+random_crop")
    assert (joined.randaugment, joined.magnitude, joined.crop, joined.fill) == (2, 3, 0.5, "nearest")
    assert Augmenter("trivialaugment+mixup", 5, 0).mixes


@pytest.mark.parametrize("name", ["randaugment+trivialaugment", "dihedral+trivialaugment+randaugment"])
def test_both_sets_of_operations_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(StudyError, match="exclude each other; expected one of them") as error:
        registry.policy(name)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="exclude each other"):
        check_name("policy", name)


@pytest.mark.parametrize("values", [{"crop": 0.0}, {"crop": 1.5}, {"magnitude": 11}, {"magnitude": -1}])
def test_a_range_that_cannot_be_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(StudyError, match="expected"):
        Policy(**values)


# --- what is reported


def test_the_first_epoch_names_operations_with_their_units() -> None:
    sampled = augmentation.first_epoch("trivialaugment+random_crop", (24, 32), 400, 16, 3)
    single = parameters(registry.policy("trivialaugment+random_crop"), 400, 3, 1)
    assert np.array_equal(sampled["operation"], single["operation_1"])
    rotated = single["operation_1"] == "rotate"
    assert sampled["operation rotate, degrees"].notna().equals(rotated)
    assert np.array_equal(sampled["operation rotate, degrees"][rotated], single["strength_1"][rotated])
    assert sampled["crop, share of the area"].between(0.5, 1).all()
    np.testing.assert_allclose(
        sampled["crop, aspect ratio relative to the image's"], single["crop_width"] / single["crop_height"]
    )
    assert not any("identity" in column or "equalise" in column for column in sampled)
    two = augmentation.first_epoch("randaugment", (24, 32), 400, 16, 3)
    assert [*two][:2] == ["operation 1", "operation 2"] and set(two["operation posterise, bits kept"].dropna()) == {7}
    assert augmentation.first_epoch("randaugment", (24, 32), 1, 16, 3).shape == (1, 0)
    assert not sampled.describe().isna().any(axis=None), "no table shows a value that is not defined"
