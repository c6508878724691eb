"""Skin diseases as clinical photographs show them: one table of looks, and one way to draw any of them.

A disease is a range for each strength. A picture draws its strengths between those of its disease and those of skin
disease in general, the more typical the nearer, so that diseases overlap as they do in a clinic.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import canvas, clinical

Range = tuple[float, float]

# Patches: how many, their radius, how soft and how irregular their edge, how far their middle clears. Spots: the same,
# how widely they are spread, and how much they lie along a line. Then colours, surface, and what else is to be seen.
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
LOOKS: dict[str, dict[str, Range]] = {
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
"""Ranges of the strengths that a disease sets; all others are as in skin disease in general."""
_TYPICAL = (6.0, 1.0)  # of the beta distribution of how typical a picture is, 0 to 1
_HAIRY = 0.15  # how many pictures have hairs across them
_SPOTS, _PATCHES, _TWIGS = 140, 11, 14
_RED, _PURPLE, _BROWN, _PALE = (0.92, 0.47, 0.47), (0.66, 0.36, 0.52), (0.50, 0.33, 0.24), (0.97, 0.88, 0.82)


def draw(name: str, rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a clinical photograph of a disease.

    Args:
        name: One of `LOOKS`.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        The picture, uint8 RGB (size, size, 3), and the affected skin, uint8 (size, size), 0 or 255.
    """
    look_rng, skin_rng, patch_rng, spot_rng, fine_rng, view_rng = rng.spawn(6)
    look = _strengths(name, look_rng)
    image, light = clinical.lit_skin(skin_rng, size)
    _moles(image, skin_rng)
    if look["scalp"] > 0.4:
        image *= 0.88
    field, rim, height = _patches(look, patch_rng, size)
    bumps, flush, core = _spots(look, spot_rng, size)
    uneven, flakes, crumbs, veins = _surface(fine_rng, size)

    inner = field * (1.0 - look["ring"]) + rim * look["ring"]
    lesions = np.maximum(inner, bumps)
    inflamed = np.clip(np.maximum(inner, 0.9 * np.maximum(bumps, look["flush"] * flush)), 0, 1)
    inflamed *= 1.0 + 0.12 * uneven
    for amount, kept in ((look["red"], _RED), (look["purple"], _PURPLE), (look["brown"], _BROWN)):
        where = min(amount, 1.0) * (inflamed if kept == _RED else lesions)
        if kept == _BROWN:
            where = where * np.clip(1.0 + 0.5 * (amount - 0.5) * uneven, 0.3, 1.4)
        for plane, fraction in zip(image, kept, strict=True):
            np.multiply(plane, np.clip(1.0 - (1.0 - fraction) * where, 0.12, 1), out=plane)
    middle = cv2.GaussianBlur(field, (0, 0), 0.03 * size) * field
    canvas.blend(image, _PALE, np.clip(look["pale"], 0, 1) * 0.8 * middle * canvas.smoothstep(-0.9, 0.3, uneven))
    canvas.blend(image, (0.62, 0.12, 0.12), min(look["vessels"], 1) * 0.8 * veins * np.clip(field + 0.2 * flush, 0, 1))
    canvas.blend(image, (0.42, 0.07, 0.08), _open(look, field, bumps, uneven))
    crusted = look["crust"] * lesions * canvas.smoothstep(0.1, 0.9, uneven + 0.4 * crumbs)
    canvas.blend(image, (0.70, 0.50, 0.20), 0.85 * np.clip(crusted, 0, 1))
    silver = np.clip(look["scale"] * inner * canvas.smoothstep(-0.1, 0.8, flakes + 0.3 * crumbs), 0, 1)
    canvas.blend(image, (0.95, 0.92, 0.88), 0.8 * silver)
    canvas.blend(image, (0.96, 0.84, 0.62), np.clip(look["fluid"], 0, 1) * 0.5 * core)
    horny = np.clip(look["horn"], 0, 1) * lesions * canvas.smoothstep(0.3, 1.1, crumbs)
    canvas.blend(image, (0.86, 0.78, 0.62), 0.6 * horny)
    _points(image, look, spot_rng, core)

    if look["nail"] > 0.4:
        image, field = _nail(image, look, fine_rng, flakes, uneven)
    height = look["relief"] * np.maximum(height, bumps) + 0.5 * look["fluid"] * bumps + 0.25 * silver
    height += 0.35 * horny * (1.0 + 0.3 * crumbs)
    if look["scalp"] > 0.4:
        _scalp(image, look["scalp"], field, view_rng)
    picture = clinical.photograph(
        image, height.astype(np.float32), light, view_rng, 0.0 if look["nail"] > 0.4 else _HAIRY
    )
    return picture, np.where(np.maximum(lesions, field) > 0.5, np.uint8(255), np.uint8(0))


def _strengths(name: str, rng: canvas.Rng) -> dict[str, float]:
    """Strengths of one picture. Counts and sizes vary over their range, atypical pictures lean to the general ones."""
    typical = rng.beta(*_TYPICAL)
    found = {}
    for key, general in _GENERAL.items():
        own, usual = (low + (high - low) * rng.beta(1.2, 1.2) for low, high in (LOOKS[name].get(key, general), general))
        found[key] = own if name == "normal_skin" or key in ("scalp", "nail") else typical * own + (1 - typical) * usual
    return found


def _patches(look: dict[str, float], rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Large lesions: how far they cover the skin, their rims, and how far they stand out; each (size, size)."""
    x, y = canvas.coordinates(size)
    warp, crumbs = canvas.noise(rng, size, 6, 3), canvas.noise(rng, size, 40)
    field, rim = np.zeros((size, size), np.float32), np.zeros((size, size), np.float32)
    places = rng.uniform(-0.68, 0.68, (_PATCHES, 2)) * (0.35 if round(look["patches"]) <= 1 else 1.0)
    radii, stretch = rng.uniform(0.7, 1.2, _PATCHES), rng.uniform(0.7, 1.35, _PATCHES)
    for at, wide, tall in zip(places[: round(look["patches"])].tolist(), radii, stretch, strict=False):
        radius = look["patch_size"] * float(wide)
        depth = 1.0 - np.hypot(x - at[0], (y - at[1]) * float(tall)) / radius
        depth += (0.04 + 0.35 * look["edge"]) * warp * min(1.0, 0.35 / radius) + 0.02 * crumbs
        np.maximum(field, canvas.smoothstep(-0.03 - 0.2 * look["soft"], 0.10 + 0.6 * look["soft"], depth), out=field)
        np.maximum(rim, np.exp(-(((depth - 0.14) / 0.13) ** 2)), out=rim)
    return field, rim, field * (1 - 0.7 * look["ring"]) + 0.7 * look["ring"] * rim


def _spots(look: dict[str, float], rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small lesions: the spots, the flush around them and their middles; each (size, size)."""
    turn, middle = rng.uniform(0, 2 * math.pi), rng.uniform(-0.3, 0.3, 2)
    around = rng.normal(size=(_SPOTS, 2)) * look["spread"]
    along = np.array([math.cos(turn), math.sin(turn)])
    straight = np.outer(around @ along * 1.3, along) + 0.15 * around
    line = float(np.clip(look["line"] * 1.4 - 0.3, 0, 1))
    centres = middle + (1 - line) * around + line * straight
    radii = look["spot_size"] * rng.uniform(0.6, 1.4, _SPOTS)
    shown = (np.arange(_SPOTS) < round(look["spots"])).astype(float)
    bumps = canvas.discs(size, centres, radii, shown, blur=0.010)
    flush = canvas.discs(size, centres, 1.9 * radii, shown, blur=0.04)
    return bumps, flush, canvas.discs(size, centres, 0.75 * radii, shown, blur=0.008)


def _surface(rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unevenness, flakes and crumbs, each of standard deviation 1, and fine vessels, 0 to 1."""
    starts = rng.uniform(-0.6, 0.6, (_TWIGS, 2))
    lengths = rng.uniform(0.2, 0.6, _TWIGS)
    paths = canvas.wander(rng, starts, rng.uniform(0, 2 * math.pi, _TWIGS), lengths, 1.5, points=12)
    ones = np.ones(_TWIGS)
    veins = canvas.ribbons(size, paths, 0.014 * ones, 0.4 * ones, ones, blur=0.002)
    return canvas.noise(rng, size, 9, 2), canvas.noise(rng, size, 22, 2), canvas.noise(rng, size, 44), veins


def _open(look: dict[str, float], field: np.ndarray, bumps: np.ndarray, uneven: np.ndarray) -> np.ndarray:
    """Where the skin is open: the middle of patches, and some of the spots."""
    deep = cv2.GaussianBlur(np.maximum(field, 0.8 * bumps), (0, 0), 0.045 * field.shape[0])
    return np.clip(look["ulcer"], 0, 1) * 0.9 * canvas.smoothstep(0.55, 0.85, deep + 0.12 * uneven)


def _points(image: np.ndarray, look: dict[str, float], rng: canvas.Rng, core: np.ndarray) -> None:
    """Pus in the middle of spots, and dark points: comedones, bites, clotted vessels."""
    size = image.shape[-1]
    yellow = cv2.erode(core, np.ones((3, 3), np.uint8)) if size >= 96 else core
    canvas.blend(image, (0.96, 0.90, 0.62), np.clip(look["pus"], 0, 1) * 0.8 * yellow)
    count = 60
    centres = rng.normal(0, 0.45, (count, 2))
    shown = np.clip(count * 0.6 * look["pits"] - np.arange(count), 0, 1)
    canvas.blend(image, (0.16, 0.10, 0.08), 0.8 * canvas.discs(size, centres, rng.uniform(0.008, 0.018, count), shown))


def _moles(image: np.ndarray, rng: canvas.Rng) -> None:
    """Up to four freckles and moles, as anybody has."""
    count = int(rng.integers(0, 5))
    spots = canvas.discs(
        image.shape[-1], rng.uniform(-0.95, 0.95, (4, 2)), rng.uniform(0.01, 0.03, 4), (np.arange(4) < count) * 0.7
    )
    canvas.blend(image, (0.32, 0.19, 0.13), spots)


def _scalp(image: np.ndarray, density: float, bald: np.ndarray, rng: canvas.Rng) -> None:
    """A head of hair, but where it is bald."""
    size, count = image.shape[-1], 320
    heading, colour = rng.uniform(0, 2 * math.pi), np.array([0.30, 0.21, 0.15]) * rng.uniform(0.4, 1.6)
    starts = rng.uniform(-1.2, 1.2, (count, 2))
    paths = canvas.wander(rng, starts, heading + 0.25 * rng.normal(size=count), np.full(count, 0.7), 0.5, points=8)
    widths, shown = rng.uniform(0.014, 0.03, count), np.full(count, 0.9) * (np.arange(count) < density * count)
    layer = canvas.ribbons(size, paths, widths, np.full(count, 0.4), shown, blur=0.003)
    canvas.blend(image, colour.tolist(), layer * (1.0 - 0.93 * bald))


def _nail(
    image: np.ndarray, look: dict[str, float], rng: canvas.Rng, flakes: np.ndarray, uneven: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A fingertip before a cloth, with its nail; returns the picture and where the nail is diseased."""
    size = image.shape[-1]
    x, y = canvas.coordinates(size)
    turn, wide, tall = rng.uniform(-0.6, 0.6), rng.uniform(0.34, 0.46), rng.uniform(0.40, 0.56)
    u, v = math.cos(turn) * x + math.sin(turn) * y, math.cos(turn) * y - math.sin(turn) * x
    finger = canvas.smoothstep(1.05, 0.97, np.hypot(u / (wide * 1.6), np.minimum(v + 0.15, 0) / (tall * 1.45)))
    cloth = np.array(rng.uniform(0.15, 0.6)) * np.array([0.85, 1.0, 1.1])
    image = image * (0.75 + 0.25 * np.sqrt(np.clip(1 - (u / (wide * 1.65)) ** 2, 0, 1)))
    canvas.blend(image, cloth.tolist(), 1.0 - finger)
    plate = canvas.smoothstep(1.04, 0.94, (np.abs(u) / wide) ** 3 + (np.abs(v + 0.1) / tall) ** 3)
    canvas.blend(image, (0.93, 0.74, 0.68), 0.85 * plate)
    canvas.blend(image, (0.97, 0.90, 0.86), 0.7 * plate * canvas.smoothstep(-0.1 - tall * 0.75, -0.1 - tall * 0.9, v))
    reach = rng.uniform(-0.4, 0.5)
    sick = plate * canvas.smoothstep(reach + 0.25, reach - 0.15, (v + 0.1) / tall + 0.25 * uneven)
    canvas.blend(image, (0.76, 0.62, 0.30), np.clip(0.35 + 0.6 * look["crust"], 0, 1) * 0.9 * sick)
    ridges = np.cos(u * rng.uniform(50, 80)) + flakes
    canvas.blend(image, (0.42, 0.31, 0.18), sick * (0.3 + look["scale"]) * 0.5 * canvas.smoothstep(0.3, 1.6, ridges))
    return image.astype(np.float32), sick
