"""Clinical photographs of skin: plaques, papules, rings, scales and blisters, on skin lit from one side."""

from __future__ import annotations

import math

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import canvas

CLASSES: tuple[str, ...] = (
    "clinical_plaques",
    "clinical_papules",
    "clinical_rings",
    "clinical_scaling",
    "clinical_vesicles",
)


def render(kind: str, rng: canvas.Rng, size: int) -> np.ndarray:
    """Draw a clinical photograph.

    Args:
        kind: One of `CLASSES`.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        uint8 RGB (size, size, 3).
    """
    image, light = lit_skin(rng, size)
    height, redness, scale = _rash(kind, rng, size)
    for plane, kept in zip(image, (0.90, 0.52, 0.52), strict=True):
        np.multiply(plane, 1.0 - (1.0 - kept) * redness, out=plane)
    canvas.blend(image, (0.95, 0.92, 0.88), scale)
    return photograph(image, height, light, rng)


def lit_skin(rng: canvas.Rng, size: int) -> tuple[np.ndarray, float]:
    """Draw bare skin.

    Returns:
        float32 (3, size, size), 0 to 1, and the direction from which it is lit, radians.
    """
    x, y = canvas.coordinates(size)
    tone = np.array([0.90, 0.70, 0.59]) * np.exp(-rng.gamma(1.4, 0.14) * np.array([0.6, 1.0, 1.3]))
    turn = rng.uniform(0, 2 * math.pi)
    light = math.cos(turn) * x + math.sin(turn) * y
    mottle, creases = canvas.noise(rng, size, 5, 3), canvas.noise(rng, size, 40, 2)
    furrows = np.exp(-10.0 * creases * creases)
    shade = 1.0 - 0.16 * light - 0.08 * light * light + 0.02 * mottle - 0.05 * furrows
    image = np.stack([value * shade for value in tone.tolist()]).astype(np.float32)
    return image, turn


def photograph(image: np.ndarray, height: np.ndarray, turn: float, rng: canvas.Rng, hairy: float = 0.4) -> np.ndarray:
    """Take a clinical photograph: relief in the light, hairs, camera.

    Args:
        image: float32 (3, size, size), 0 to 1; changed.
        height: How far the skin stands out, float32 (size, size), about 0 to 1.
        turn: Direction of the light, radians.
        rng: Random generator.
        hairy: Probability of hairs across the picture.

    Returns:
        uint8 RGB (size, size, 3).
    """
    size = image.shape[-1]
    # what stands out is lit on the side of the light and shaded on the other.
    height = cv2.GaussianBlur(height, (0, 0), 0.014 * size / 2)
    slope_y, slope_x = np.gradient(height, 2.0 / size)
    relief = -(math.cos(turn) * slope_x + math.sin(turn) * slope_y)
    image *= 1.0 + np.clip(0.014 * relief, -0.35, 0.35)
    image += 0.25 * canvas.smoothstep(9.0, 26.0, relief)
    if rng.uniform() < hairy:
        canvas.hairs(image, rng, int(rng.integers(4, 16)), 0.5)
    canvas.vignette(image, rng, rng.uniform(0.05, 0.3), 0.0)
    return canvas.camera(image, rng, balance=0.05, exposure=0.12, blur=0.007, grain=0.02)


def _rash(kind: str, rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Height, redness and opacity of scale, each (size, size)."""
    uneven, flakes, crumbs = canvas.noise(rng, size, 9, 2), canvas.noise(rng, size, 22, 2), canvas.noise(rng, size, 44)
    strength = rng.uniform(0.55, 1.0)
    none = np.zeros((size, size), np.float32)
    if kind in {"clinical_papules", "clinical_vesicles"}:
        count = int(rng.integers(25, 70))
        middle = rng.uniform(-0.3, 0.3, 2)
        centres = middle + rng.uniform(0.35, 0.5) * rng.normal(size=(count, 2))
        radii = rng.uniform(0.028, 0.065, count)
        bumps = canvas.discs(size, centres, radii, np.ones(count), blur=0.016)
        flush = canvas.discs(size, centres, 1.7 * radii, np.ones(count), blur=0.03)
        if kind == "clinical_papules":
            return bumps, strength * np.clip(bumps + 0.35 * flush, 0, 1), none
        fluid = canvas.discs(size, centres, 0.8 * radii, np.full(count, 0.5), blur=0.01)
        return 1.6 * bumps, strength * 0.9 * flush, fluid * 0.7
    field, rim = none.copy(), none.copy()
    count = int(rng.integers(1, 4)) if kind == "clinical_rings" else int(rng.integers(2, 6))
    x, y = canvas.coordinates(size)
    for _ in range(count):
        at_x, at_y = rng.uniform(-0.6, 0.6, 2).tolist()
        radius = rng.uniform(0.22, 0.5)
        depth = 1.0 - np.hypot(x - at_x, (y - at_y) * rng.uniform(0.75, 1.3)) / radius + 0.08 * uneven + 0.02 * crumbs
        np.maximum(field, canvas.smoothstep(-0.04, 0.16, depth), out=field)
        np.maximum(rim, np.exp(-(((depth - 0.14) / 0.13) ** 2)), out=rim)
    if kind == "clinical_rings":
        return 0.8 * rim, strength * np.clip(rim + 0.15 * field, 0, 1), 0.25 * rim * canvas.smoothstep(0.7, 1.4, crumbs)
    if kind == "clinical_plaques":
        return (
            0.9 * field,
            strength * field * (0.85 + 0.12 * flakes),
            0.15 * field * canvas.smoothstep(0.9, 1.6, flakes),
        )
    silver = field * canvas.smoothstep(-0.1, 0.7, flakes + 0.3 * crumbs)
    return 0.5 * field + 0.25 * silver, strength * 0.7 * field, 0.75 * silver
