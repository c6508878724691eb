"""Synthetic clinical photographs of skin diseases: one table of their features, and one function that renders them.

A disease is a range for the strength of each feature. The strengths of an image are sampled between its disease's
and those of skin disease in general: the more typical the image, the nearer to its disease. Diseases therefore
overlap as they do in a clinic.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import primitives

Range = tuple[float, float]

# Patches: number, radius, softness and irregularity of the edge, clearing of the centre. Spots: number, radius, spread,
# and how far they lie along a line. Then colours, surface and other features.
_GENERAL: dict[str, Range] = {
    "patches": (0, 3),
    "patch_size": (0.18, 0.45),
    "soft": (0.1, 0.6),
    "edge": (0.1, 0.4),
    "ring": (0, 0.15),
    "spots": (0, 14),
    "spot_size": (0.02, 0.06),
    "spread": (0.25, 0.6),
    "line": (0, 0.3),
    "red": (0.25, 0.7),
    "purple": (0, 0.15),
    "brown": (0, 0.15),
    "pale": (0, 0.1),
    "scale": (0, 0.3),
    "crust": (0, 0.2),
    "ulcer": (0, 0.1),
    "relief": (0.1, 0.6),
    "flush": (0.1, 0.5),
    "fluid": (0, 0.1),
    "pus": (0, 0.1),
    "pits": (0, 0.15),
    "horn": (0, 0.15),
    "vessels": (0, 0.1),
    "scalp": (0, 0),
    "nail": (0, 0),
}
DISEASES: dict[str, dict[str, Range]] = {
    "acne": {
        **{"patches": (0, 2), "patch_size": (0.4, 0.7), "soft": (0.7, 1), "red": (0.1, 0.4), "spots": (15, 45)},
        **{"spot_size": (0.02, 0.045), "spread": (0.4, 0.6), "flush": (0.4, 0.8), "pus": (0.2, 0.9), "pits": (0.3, 1)},
    },
    "malignant": {
        **{"patches": (1, 2), "patch_size": (0.18, 0.4), "edge": (0.3, 0.7), "soft": (0, 0.3), "spots": (0, 2)},
        **{"red": (0.3, 0.6), "crust": (0.2, 0.7), "ulcer": (0.2, 0.9), "relief": (0.6, 1.1), "vessels": (0.3, 1)},
    },
    "atopic": {
        **{"patches": (3, 6), "patch_size": (0.3, 0.6), "soft": (0.6, 1), "red": (0.35, 0.7), "scale": (0.1, 0.35)},
        **{"spots": (5, 25), "spot_size": (0.015, 0.03), "horn": (0, 0.1), "brown": (0, 0.3), "relief": (0.2, 0.5)},
    },
    "bullous": {
        **{"patches": (0, 3), "spots": (4, 12), "spot_size": (0.07, 0.17), "fluid": (0.7, 1), "flush": (0.3, 0.8)},
        **{"red": (0.4, 0.8), "crust": (0.1, 0.5), "ulcer": (0, 0.5), "relief": (0.3, 0.8)},
    },
    "bacterial": {
        **{"patches": (1, 2), "patch_size": (0.4, 0.7), "soft": (0.4, 0.9), "red": (0.6, 1), "crust": (0.4, 0.9)},
        **{"spots": (2, 10), "pus": (0.2, 0.8), "edge": (0.2, 0.5), "fluid": (0, 0.3)},
    },
    "eczema": {
        **{"patches": (2, 5), "patch_size": (0.22, 0.48), "soft": (0.3, 0.7), "red": (0.45, 0.8), "scale": (0.2, 0.5)},
        **{"crust": (0.1, 0.5), "spots": (8, 30), "spot_size": (0.015, 0.035), "fluid": (0, 0.4), "edge": (0.3, 0.6)},
    },
    "exanthem": {
        **{
            "patches": (0, 1),
            "spots": (60, 130),
            "spot_size": (0.025, 0.06),
            "spread": (0.6, 0.8),
            "flush": (0.4, 0.8),
        },
        **{"red": (0.35, 0.8), "relief": (0, 0.15), "scale": (0, 0.1)},
    },
    "hair_loss": {
        **{"scalp": (0.7, 1), "patches": (1, 3), "patch_size": (0.25, 0.55), "red": (0, 0.25), "spots": (0, 8)},
        **{"relief": (0, 0.1), "scale": (0, 0.25), "edge": (0.1, 0.4), "soft": (0.1, 0.5)},
    },
    "herpes": {
        **{"patches": (0, 1), "patch_size": (0.25, 0.4), "spots": (9, 28), "spot_size": (0.025, 0.055)},
        **{"spread": (0.12, 0.25), "fluid": (0.4, 1), "flush": (0.6, 1), "red": (0.5, 0.8), "ulcer": (0, 0.5)},
    },
    "pigment": {
        **{"patches": (3, 8), "patch_size": (0.15, 0.42), "edge": (0.3, 0.7), "red": (0, 0.1), "pale": (0.1, 0.9)},
        **{"brown": (0, 0.5), "relief": (0, 0.06), "scale": (0, 0.06), "soft": (0, 0.4), "spots": (0, 5)},
    },
    "lupus": {
        **{"patches": (2, 4), "patch_size": (0.22, 0.5), "red": (0.5, 0.8), "purple": (0.2, 0.5), "scale": (0.2, 0.5)},
        **{"ring": (0, 0.6), "pale": (0.1, 0.4), "vessels": (0.1, 0.6), "edge": (0.2, 0.5), "pits": (0, 0.4)},
    },
    "mole": {
        **{"patches": (1, 1), "patch_size": (0.16, 0.4), "brown": (0.6, 1.3), "edge": (0.1, 0.6), "red": (0, 0.2)},
        **{"soft": (0, 0.25), "relief": (0.1, 0.7), "spots": (0, 3), "spot_size": (0.015, 0.04), "scale": (0, 0.05)},
    },
    "nail": {
        **{"nail": (0.7, 1), "crust": (0.2, 0.9), "scale": (0.1, 0.6), "patches": (0, 1), "spots": (0, 2)},
        **{"relief": (0.1, 0.4), "red": (0.1, 0.5)},
    },
    "contact": {
        **{"spots": (25, 70), "spot_size": (0.02, 0.05), "line": (0.6, 1), "spread": (0.35, 0.6), "fluid": (0.2, 0.7)},
        **{"flush": (0.6, 1), "patches": (1, 3), "red": (0.5, 0.8), "soft": (0.3, 0.8), "crust": (0, 0.3)},
    },
    "psoriasis": {
        **{"patches": (3, 7), "patch_size": (0.15, 0.42), "soft": (0, 0.2), "red": (0.55, 0.9), "scale": (0.5, 1)},
        **{"relief": (0.5, 1), "spots": (0, 12), "edge": (0.1, 0.4)},
    },
    "bites": {
        **{"patches": (0, 2), "ring": (0, 0.6), "spots": (4, 16), "spot_size": (0.04, 0.085), "relief": (0.6, 1.1)},
        **{"flush": (0.5, 0.9), "red": (0.5, 0.8), "pits": (0.3, 1), "spread": (0.4, 0.6), "soft": (0.4, 0.8)},
    },
    "seborrheic_keratosis": {
        **{"patches": (1, 5), "patch_size": (0.12, 0.32), "brown": (0.4, 1), "relief": (0.6, 1.2), "horn": (0.4, 1)},
        **{"edge": (0.1, 0.4), "soft": (0, 0.15), "scale": (0.1, 0.4), "red": (0, 0.25), "pits": (0, 0.3)},
    },
    "systemic": {
        **{"patches": (1, 4), "purple": (0, 0.4), "brown": (0, 0.4), "pale": (0, 0.4), "spots": (0, 25)},
        **{"relief": (0.1, 0.9), "edge": (0.1, 0.5), "vessels": (0, 0.4), "ulcer": (0, 0.3)},
    },
    "tinea": {
        **{"patches": (1, 3), "patch_size": (0.3, 0.6), "ring": (0.6, 1), "red": (0.4, 0.75), "scale": (0.2, 0.6)},
        **{"soft": (0, 0.3), "relief": (0.2, 0.6), "edge": (0.15, 0.4)},
    },
    "urticaria": {
        **{"patches": (4, 10), "patch_size": (0.12, 0.38), "red": (0.3, 0.6), "pale": (0.2, 0.5), "relief": (0.9, 1.5)},
        **{"edge": (0.3, 0.7), "soft": (0.1, 0.4), "scale": (0, 0.04), "crust": (0, 0.04), "ring": (0, 0.4)},
    },
    "vascular": {
        **{"patches": (1, 2), "patch_size": (0.15, 0.38), "red": (0.8, 1), "purple": (0.3, 0.9), "relief": (0.7, 1.3)},
        **{"soft": (0, 0.2), "edge": (0.05, 0.3), "spots": (0, 6), "scale": (0, 0.05), "vessels": (0, 0.4)},
    },
    "vasculitis": {
        **{"patches": (0, 1), "spots": (40, 110), "spot_size": (0.015, 0.045), "spread": (0.45, 0.7)},
        **{"purple": (0.6, 1), "red": (0.5, 0.8), "relief": (0, 0.3), "flush": (0, 0.3), "ulcer": (0, 0.4)},
    },
    "warts": {
        **{"patches": (0, 1), "patch_size": (0.1, 0.22), "spots": (4, 18), "spot_size": (0.045, 0.1), "horn": (0.4, 1)},
        **{"relief": (0.9, 1.5), "red": (0, 0.3), "flush": (0, 0.2), "pits": (0.1, 0.7), "spread": (0.2, 0.55)},
    },
    "normal_skin": dict.fromkeys(("patches", "spots", "red", "flush", "scale", "crust", "relief", "pits"), (0, 0)),
}
"""Ranges of the strengths by disease; those that a disease does not set are as in skin disease in general."""
_TYPICAL = (6.0, 1.0)  # parameters of the beta distribution of an image's typicality, 0 to 1
_HAIRY = 0.15  # share of the images with hairs across them
_SPOTS, _PATCHES, _TWIGS = 140, 11, 14
_RED, _PURPLE, _BROWN, _PALE = (0.92, 0.47, 0.47), (0.66, 0.36, 0.52), (0.50, 0.33, 0.24), (0.97, 0.88, 0.82)


def render(disease: str, rng: primitives.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a clinical photograph of a disease.

    Args:
        disease: One of `DISEASES`.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        The image, uint8 RGB (size, size, 3), and the affected skin, uint8 (size, size), 0 or 255.
    """
    strength_rng, skin_rng, patch_rng, spot_rng, fine_rng, view_rng = rng.spawn(6)
    strengths = _sample_strengths(disease, strength_rng)
    image, light = render_skin(skin_rng, size)
    _add_moles(image, skin_rng)
    if strengths["scalp"] > 0.4:
        image *= 0.88
    field, rim, height = _patches(strengths, patch_rng, size)
    bumps, flush, core = _spots(strengths, spot_rng, size)
    uneven, flakes, crumbs, veins = _surface(fine_rng, size)

    inner = field * (1.0 - strengths["ring"]) + rim * strengths["ring"]
    lesions = np.maximum(inner, bumps)
    inflamed = np.clip(np.maximum(inner, 0.9 * np.maximum(bumps, strengths["flush"] * flush)), 0, 1)
    inflamed *= 1.0 + 0.12 * uneven
    for amount, colour in ((strengths["red"], _RED), (strengths["purple"], _PURPLE), (strengths["brown"], _BROWN)):
        coverage = min(amount, 1.0) * (inflamed if colour == _RED else lesions)
        if colour == _BROWN:
            coverage = coverage * np.clip(1.0 + 0.5 * (amount - 0.5) * uneven, 0.3, 1.4)
        for plane, fraction in zip(image, colour, strict=True):
            np.multiply(plane, np.clip(1.0 - (1.0 - fraction) * coverage, 0.12, 1), out=plane)
    middle = cv2.GaussianBlur(field, (0, 0), 0.03 * size) * field
    primitives.blend(
        image, _PALE, np.clip(strengths["pale"], 0, 1) * 0.8 * middle * primitives.smoothstep(-0.9, 0.3, uneven)
    )
    primitives.blend(
        image, (0.62, 0.12, 0.12), min(strengths["vessels"], 1) * 0.8 * veins * np.clip(field + 0.2 * flush, 0, 1)
    )
    primitives.blend(image, (0.42, 0.07, 0.08), _ulceration(strengths, field, bumps, uneven))
    crusted = strengths["crust"] * lesions * primitives.smoothstep(0.1, 0.9, uneven + 0.4 * crumbs)
    primitives.blend(image, (0.70, 0.50, 0.20), 0.85 * np.clip(crusted, 0, 1))
    silver = np.clip(strengths["scale"] * inner * primitives.smoothstep(-0.1, 0.8, flakes + 0.3 * crumbs), 0, 1)
    primitives.blend(image, (0.95, 0.92, 0.88), 0.8 * silver)
    primitives.blend(image, (0.96, 0.84, 0.62), np.clip(strengths["fluid"], 0, 1) * 0.5 * core)
    horny = np.clip(strengths["horn"], 0, 1) * lesions * primitives.smoothstep(0.3, 1.1, crumbs)
    primitives.blend(image, (0.86, 0.78, 0.62), 0.6 * horny)
    _add_points(image, strengths, spot_rng, core)

    if strengths["nail"] > 0.4:
        image, field = _render_nail(image, strengths, fine_rng, flakes, uneven)
    height = strengths["relief"] * np.maximum(height, bumps) + 0.5 * strengths["fluid"] * bumps + 0.25 * silver
    height += 0.35 * horny * (1.0 + 0.3 * crumbs)
    if strengths["scalp"] > 0.4:
        _add_scalp_hair(image, strengths["scalp"], field, view_rng)
    photo = photograph(image, height.astype(np.float32), light, view_rng, 0.0 if strengths["nail"] > 0.4 else _HAIRY)
    return photo, np.where(np.maximum(lesions, field) > 0.5, np.uint8(255), np.uint8(0))


def render_skin(rng: primitives.Rng, size: int) -> tuple[np.ndarray, float]:
    """Return healthy skin.

    Returns:
        float32 (3, size, size), 0 to 1, and the direction of the light, radians.
    """
    x, y = primitives.coordinates(size)
    tone = np.array([0.90, 0.70, 0.59]) * np.exp(-rng.gamma(1.4, 0.14) * np.array([0.6, 1.0, 1.3]))
    direction = rng.uniform(0, 2 * math.pi)
    light = math.cos(direction) * x + math.sin(direction) * y
    mottle, creases = primitives.noise(rng, size, 5, 3), primitives.noise(rng, size, 40, 2)
    furrows = np.exp(-10.0 * creases * creases)
    shade = 1.0 - 0.16 * light - 0.08 * light * light + 0.02 * mottle - 0.05 * furrows
    image = np.stack([value * shade for value in tone.tolist()]).astype(np.float32)
    return image, direction


def photograph(
    image: np.ndarray, height: np.ndarray, direction: float, rng: primitives.Rng, hairy: float
) -> np.ndarray:
    """Return a clinical photograph of skin, with relief in the light, hairs and the camera's noise.

    Args:
        image: float32 (3, size, size), 0 to 1; changed in place.
        height: Elevation of the skin, float32 (size, size), about 0 to 1.
        direction: Direction of the light, radians.
        rng: Random generator.
        hairy: Probability of hairs across the image.

    Returns:
        uint8 RGB (size, size, 3).
    """
    size = image.shape[-1]
    # Elevations are lit on the side of the light and shaded on the other.
    height = cv2.GaussianBlur(height, (0, 0), 0.014 * size / 2)
    slope_y, slope_x = np.gradient(height, 2.0 / size)
    relief = -(math.cos(direction) * slope_x + math.sin(direction) * slope_y)
    image *= 1.0 + np.clip(0.014 * relief, -0.35, 0.35)
    image += 0.25 * primitives.smoothstep(9.0, 26.0, relief)
    if rng.uniform() < hairy:
        primitives.add_hairs(image, rng, int(rng.integers(4, 16)), 0.5)
    primitives.add_vignette(image, rng, rng.uniform(0.05, 0.3), 0.0)
    return primitives.take_photograph(image, rng, balance=0.05, exposure=0.12, blur=0.007, grain=0.02)


def _sample_strengths(disease: str, rng: primitives.Rng) -> dict[str, float]:
    """Return the strengths of one image, between those of its disease and the general ones."""
    typicality = rng.beta(*_TYPICAL)
    strengths = {}
    for key, general in _GENERAL.items():
        ranges = DISEASES[disease].get(key, general), general
        specific, average = (low + (high - low) * rng.beta(1.2, 1.2) for low, high in ranges)
        pure = disease == "normal_skin" or key in ("scalp", "nail")
        strengths[key] = specific if pure else typicality * specific + (1 - typicality) * average
    return strengths


def _patches(strengths: dict[str, float], rng: primitives.Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the coverage of large lesions, their rims and their elevation, each (size, size)."""
    x, y = primitives.coordinates(size)
    warp, crumbs = primitives.noise(rng, size, 6, 3), primitives.noise(rng, size, 40)
    field, rim = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    centres = rng.uniform(-0.68, 0.68, (_PATCHES, 2)) * (0.35 if round(strengths["patches"]) <= 1 else 1.0)
    radii, stretch = rng.uniform(0.7, 1.2, _PATCHES), rng.uniform(0.7, 1.35, _PATCHES)
    count = round(strengths["patches"])
    for (centre_x, centre_y), scale, height in zip(
        centres[:count].tolist(), radii[:count], stretch[:count], strict=True
    ):
        radius = strengths["patch_size"] * float(scale)
        depth = 1.0 - np.hypot(x - centre_x, (y - centre_y) * float(height)) / radius
        depth += (0.04 + 0.35 * strengths["edge"]) * warp * min(1.0, 0.35 / radius) + 0.02 * crumbs
        np.maximum(
            field,
            primitives.smoothstep(-0.03 - 0.2 * strengths["soft"], 0.10 + 0.6 * strengths["soft"], depth),
            out=field,
        )
        np.maximum(rim, np.exp(-(((depth - 0.14) / 0.13) ** 2)), out=rim)
    return field, rim, field * (1 - 0.7 * strengths["ring"]) + 0.7 * strengths["ring"] * rim


def _spots(strengths: dict[str, float], rng: primitives.Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return small lesions, the flush around them and their centres, each (size, size)."""
    direction, middle = rng.uniform(0, 2 * math.pi), rng.uniform(-0.3, 0.3, 2)
    around = rng.normal(size=(_SPOTS, 2)) * strengths["spread"]
    along = np.array([math.cos(direction), math.sin(direction)])
    straight = np.outer(around @ along * 1.3, along) + 0.15 * around
    line = float(np.clip(strengths["line"] * 1.4 - 0.3, 0, 1))
    centres = middle + (1 - line) * around + line * straight
    radii = strengths["spot_size"] * rng.uniform(0.6, 1.4, _SPOTS)
    weights = (np.arange(_SPOTS) < round(strengths["spots"])).astype(float)
    bumps = primitives.discs(size, centres, radii, weights, blur=0.010)
    flush = primitives.discs(size, centres, 1.9 * radii, weights, blur=0.04)
    return bumps, flush, primitives.discs(size, centres, 0.75 * radii, weights, blur=0.008)


def _surface(rng: primitives.Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return unevenness, flakes and crumbs, each of standard deviation 1, and fine vessels, 0 to 1."""
    starts = rng.uniform(-0.6, 0.6, (_TWIGS, 2))
    lengths = rng.uniform(0.2, 0.6, _TWIGS)
    paths = primitives.random_paths(rng, starts, rng.uniform(0, 2 * math.pi, _TWIGS), lengths, 1.5, points=12)
    ones = np.ones(_TWIGS)
    veins = primitives.ribbons(size, paths, 0.014 * ones, 0.4 * ones, ones, blur=0.002)
    return primitives.noise(rng, size, 9, 2), primitives.noise(rng, size, 22, 2), primitives.noise(rng, size, 44), veins


def _ulceration(strengths: dict[str, float], field: np.ndarray, bumps: np.ndarray, uneven: np.ndarray) -> np.ndarray:
    """Return where the skin is ulcerated: the centre of patches, and some of the spots."""
    deep = cv2.GaussianBlur(np.maximum(field, 0.8 * bumps), (0, 0), 0.045 * field.shape[0])
    return np.clip(strengths["ulcer"], 0, 1) * 0.9 * primitives.smoothstep(0.55, 0.85, deep + 0.12 * uneven)


def _add_points(image: np.ndarray, strengths: dict[str, float], rng: primitives.Rng, core: np.ndarray) -> None:
    """Add pus in the centre of spots, and dark points: comedones, bites, clotted vessels."""
    size = image.shape[-1]
    yellow = cv2.erode(core, np.ones((3, 3), np.uint8)) if size >= 96 else core
    primitives.blend(image, (0.96, 0.90, 0.62), np.clip(strengths["pus"], 0, 1) * 0.8 * yellow)
    count = 60
    centres = rng.normal(0, 0.45, (count, 2))
    weights = np.clip(count * 0.6 * strengths["pits"] - np.arange(count), 0, 1)
    primitives.blend(
        image, (0.16, 0.10, 0.08), 0.8 * primitives.discs(size, centres, rng.uniform(0.008, 0.018, count), weights)
    )


def _add_moles(image: np.ndarray, rng: primitives.Rng) -> None:
    """Add up to four freckles and moles."""
    count = int(rng.integers(0, 5))
    spots = primitives.discs(
        image.shape[-1], rng.uniform(-0.95, 0.95, (4, 2)), rng.uniform(0.01, 0.03, 4), (np.arange(4) < count) * 0.7
    )
    primitives.blend(image, (0.32, 0.19, 0.13), spots)


def _add_scalp_hair(image: np.ndarray, density: float, bald: np.ndarray, rng: primitives.Rng) -> None:
    """Add hair outside the bald areas."""
    size, count = image.shape[-1], 320
    heading, colour = rng.uniform(0, 2 * math.pi), np.array([0.30, 0.21, 0.15]) * rng.uniform(0.4, 1.6)
    starts = rng.uniform(-1.2, 1.2, (count, 2))
    paths = primitives.random_paths(
        rng, starts, heading + 0.25 * rng.normal(size=count), np.full(count, 0.7), 0.5, points=8
    )
    widths, weights = rng.uniform(0.014, 0.03, count), np.full(count, 0.9) * (np.arange(count) < density * count)
    layer = primitives.ribbons(size, paths, widths, np.full(count, 0.4), weights, blur=0.003)
    primitives.blend(image, colour.tolist(), layer * (1.0 - 0.93 * bald))


def _render_nail(
    image: np.ndarray, strengths: dict[str, float], rng: primitives.Rng, flakes: np.ndarray, uneven: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a fingertip with its nail on a cloth, and where the nail is diseased."""
    size = image.shape[-1]
    x, y = primitives.coordinates(size)
    angle, wide, tall = rng.uniform(-0.6, 0.6), rng.uniform(0.34, 0.46), rng.uniform(0.40, 0.56)
    u, v = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    finger = primitives.smoothstep(1.05, 0.97, np.hypot(u / (wide * 1.6), np.minimum(v + 0.15, 0) / (tall * 1.45)))
    cloth = np.array(rng.uniform(0.15, 0.6)) * np.array([0.85, 1.0, 1.1])
    image = image * (0.75 + 0.25 * np.sqrt(np.clip(1 - (u / (wide * 1.65)) ** 2, 0, 1)))
    primitives.blend(image, cloth.tolist(), 1.0 - finger)
    nail = primitives.smoothstep(1.04, 0.94, (np.abs(u) / wide) ** 3 + (np.abs(v + 0.1) / tall) ** 3)
    primitives.blend(image, (0.93, 0.74, 0.68), 0.85 * nail)
    primitives.blend(
        image, (0.97, 0.90, 0.86), 0.7 * nail * primitives.smoothstep(-0.1 - tall * 0.75, -0.1 - tall * 0.9, v)
    )
    reach = rng.uniform(-0.4, 0.5)
    diseased = nail * primitives.smoothstep(reach + 0.25, reach - 0.15, (v + 0.1) / tall + 0.25 * uneven)
    primitives.blend(image, (0.76, 0.62, 0.30), np.clip(0.35 + 0.6 * strengths["crust"], 0, 1) * 0.9 * diseased)
    ridges = np.cos(u * rng.uniform(50, 80)) + flakes
    primitives.blend(
        image, (0.42, 0.31, 0.18), diseased * (0.3 + strengths["scale"]) * 0.5 * primitives.smoothstep(0.3, 1.6, ridges)
    )
    return image.astype(np.float32), diseased
