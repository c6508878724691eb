"""Retinal photographs: a disc with optic disc, macula and vessels, and the lesions of diabetic retinopathy."""

from __future__ import annotations

import math

import numpy as np

from scanbook.datasets.drawn import canvas

CLASSES: tuple[str, ...] = ("fundus_healthy", "fundus_microaneurysms", "fundus_haemorrhages", "fundus_exudates")
_RETINA = 0.92  # radius of the visible disc


def render(kind: str, rng: canvas.Rng, size: int) -> np.ndarray:
    """Draw a retinal photograph.

    Args:
        kind: One of `CLASSES`.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        uint8 RGB (size, size, 3).
    """
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    x, y = canvas.coordinates(size)
    red, green = rng.uniform(0.62, 0.82), rng.uniform(0.26, 0.40)
    tint = (red, green, green * rng.uniform(0.25, 0.55))
    mottle, fine = canvas.noise(rng, size, 4, 2), canvas.noise(rng, size, 32, 2)
    shade = 1.0 + 0.06 * mottle + 0.025 * fine - 0.22 * (x * x + y * y)
    image = np.stack([value * shade for value in tint]).astype(np.float32)

    disc = np.array([side * rng.uniform(0.38, 0.5), rng.uniform(-0.08, 0.08)])
    macula_x, macula_y = -side * rng.uniform(0.05, 0.2), rng.uniform(-0.03, 0.08)
    distance = np.hypot(x - macula_x, y - macula_y)
    image *= 1.0 - 0.42 * np.exp(-18.0 * distance * distance)
    nerve = np.hypot(x - float(disc[0]), (y - float(disc[1])) * 0.92) + 0.006 * mottle
    radius = rng.uniform(0.12, 0.15)
    canvas.blend(image, (0.97, 0.78, 0.48), 0.9 * canvas.smoothstep(radius + 0.03, radius - 0.03, nerve))
    cup = radius * rng.uniform(0.35, 0.6)
    canvas.blend(image, (1.0, 0.92, 0.72), 0.8 * canvas.smoothstep(cup + 0.03, cup - 0.03, nerve))
    _vessels(image, rng, disc, side)
    _lesions(image, kind, rng)

    rim = canvas.polar(size)[0]
    image *= canvas.smoothstep(_RETINA + 0.02, _RETINA - 0.01, rim)
    return canvas.camera(image, rng, balance=0.06, exposure=0.14, blur=0.008)


def _vessels(image: np.ndarray, rng: canvas.Rng, disc: np.ndarray, side: float) -> None:
    """Arcades that leave the optic disc above and below and bend round the macula, with their branches."""
    inward = math.pi if side > 0 else 0.0
    steep = np.array([1.25, 0.95, -1.25, -0.95, 2.3, -2.3, 1.8, -1.8]) + 0.12 * rng.normal(size=8)
    headings = inward + steep
    lengths = np.array([1.5, 1.3, 1.5, 1.3, 0.7, 0.7, 0.9, 0.9]) * rng.uniform(0.85, 1.1, 8)
    mains = canvas.wander(rng, np.tile(disc, (8, 1)), headings, lengths, 0.25, points=24)
    # Bend towards the macula's side: a turn that grows along the path.
    along = np.linspace(0, 1, 24)[None, :]
    mains[..., 1] -= 0.40 * np.sign(np.sin(headings))[:, None] * lengths[:, None] * along**2
    mains[..., 0] += 0.35 * np.cos(inward) * (np.abs(steep) < 1.6)[:, None] * lengths[:, None] * along**2
    joints = np.array([5, 8, 11, 14, 17])
    step = mains[:, joints] - mains[:, joints - 1]
    forks = np.arctan2(step[..., 1], step[..., 0]) + rng.choice((-1.0, 1.0), (8, 5)) * rng.uniform(0.4, 0.9, (8, 5))
    twigs = canvas.wander(
        rng, mains[:, joints].reshape(-1, 2), forks.ravel(), rng.uniform(0.2, 0.5, 40), 0.8, points=24
    )
    paths = np.concatenate([mains, twigs])
    widths = np.concatenate([rng.uniform(0.030, 0.042, 8), rng.uniform(0.013, 0.021, 40)])
    vein = np.concatenate([np.arange(8) % 2 == 0, np.repeat(np.arange(8) % 2 == 0, 5)])
    size, tips = image.shape[-1], np.full(48, 0.35)
    canvas.blend(image, (0.50, 0.13, 0.07), canvas.ribbons(size, paths, widths * 0.8, tips, 0.75 * ~vein, blur=0.004))
    canvas.blend(image, (0.34, 0.06, 0.05), canvas.ribbons(size, paths, widths, tips, 0.85 * vein, blur=0.004))


def _lesions(image: np.ndarray, kind: str, rng: canvas.Rng) -> None:
    size = image.shape[-1]
    disc = np.full(1024, 0.85)
    dots = canvas.points_inside(rng, disc, 60, 0.1, 0.95)
    if kind != "fundus_healthy":  # microaneurysms come first, and stay
        count = int(rng.integers(14, 40)) if kind == "fundus_microaneurysms" else int(rng.integers(6, 20))
        radii = rng.uniform(0.010, 0.018, count)
        canvas.blend(
            image, (0.36, 0.05, 0.04), canvas.discs(size, dots[:count], radii, np.full(count, 0.85), blur=0.003)
        )
    if kind == "fundus_haemorrhages":
        count = int(rng.integers(5, 16))
        blots = canvas.discs(
            size, dots[-count:], rng.uniform(0.03, 0.085, count), np.full(count, 1.0), blur=0.012, stretch=1.4
        )
        edge = canvas.smoothstep(0.2, 0.55, blots + 0.12 * canvas.noise(rng, size, 26))
        canvas.blend(image, (0.33, 0.04, 0.03), 0.85 * edge)
    if kind == "fundus_exudates":
        near = dots[:4][rng.integers(0, 4, 70)] + 0.11 * rng.normal(size=(70, 2))
        hard = canvas.discs(size, near, rng.uniform(0.009, 0.030, 70), rng.uniform(0.6, 1.0, 70), blur=0.004)
        canvas.blend(image, (0.99, 0.88, 0.45), 0.9 * hard)
