"""Synthetic frontal chest radiographs: lungs, ribs, clavicles, spine, heart, diaphragm and opacities."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import primitives

NORMAL_HEART, LARGE_HEART = (0.88, 1.08), (1.35, 1.65)
CLASSES: tuple[str, ...] = ("normal", "viral_pneumonia", "covid", "lung_opacity")
# Of each class: mean and standard deviation of the strength of markings that run from the hila, of patchy opacities
# near them, of ground glass at the edge of both lungs, and of one dense opacity.
_STRENGTHS: dict[str, tuple[tuple[float, float], ...]] = {
    "normal": ((0.15, 0.18), (0.0, 0.12), (0.0, 0.12), (0.0, 0.05)),
    "viral_pneumonia": ((0.75, 0.22), (0.75, 0.25), (0.10, 0.15), (0.0, 0.15)),
    "covid": ((0.25, 0.20), (0.15, 0.18), (0.72, 0.27), (0.0, 0.15)),
    "lung_opacity": ((0.25, 0.2), (0.15, 0.2), (0.15, 0.2), (0.75, 0.2)),
}


@dataclass(frozen=True)
class Chest:
    """Fields of one chest, float32 (size, size): its coordinates, tissue in the beam, lungs and heart (0 to 1).

    `reach` is 0 at the centre of each lung and 1 at its edge.
    """

    u: np.ndarray
    v: np.ndarray
    amount: np.ndarray
    lungs: np.ndarray
    heart: np.ndarray
    reach: np.ndarray


def develop(chest: Chest, opacity: np.ndarray, rng: primitives.Rng) -> np.ndarray:
    """Return the film of a chest with an opacity in its lungs, 0 to 1, float32 (size, size)."""
    return np.clip(0.06 + 0.92 * (chest.amount + opacity), 0, 1) ** rng.uniform(0.85, 1.2)


def build_chest(rng: primitives.Rng, size: int, heart_width: tuple[float, float]) -> Chest:
    """Return a chest without opacities; the width of its heart lies in a range, 1 for a normal one."""
    x, y = primitives.coordinates(size)
    zoom, tilt, shift = rng.uniform(0.92, 1.08), rng.normal(0, 0.04), rng.normal(0, 0.04)
    u, v = (x - shift) * zoom + tilt * y, y * zoom - tilt * x
    soft, streaky = primitives.noise(rng, size, 5, 2), primitives.noise(rng, size, 26, 2)

    # Amounts of tissue in the beam; the film is brighter where there is more.
    body = primitives.smoothstep(1.02, 0.86, np.abs(u) + 0.30 * np.clip(-v - 0.45, 0, 1) + 0.03 * soft)
    amount = 0.50 * body + 0.03 * soft
    lungs, nearest = np.zeros_like(u), np.full_like(u, np.inf)
    base = rng.uniform(0.48, 0.60)
    for side in (-1.0, 1.0):
        across = (side * u - 0.40) / (0.30 + 0.06 * primitives.smoothstep(-0.7, 0.4, v))
        up = np.where(v < 0, v / 0.76, v / np.maximum(base + 0.10 - 0.84 * (side * u - 0.40) ** 2, 1e-3))
        reach = np.abs(across) ** 2.6 + np.abs(up) ** 2.6 + 0.03 * soft
        lungs = np.maximum(lungs, primitives.smoothstep(1.10, 0.86, reach))
        nearest = np.minimum(nearest, reach)
    swell = rng.uniform(*heart_width)
    heart = ((u - 0.10 * swell) / (0.24 * swell)) ** 2 + ((v - 0.24 - 0.3 * (u - 0.1)) / 0.30) ** 2
    heart = primitives.smoothstep(1.18, 0.82, heart + 0.04 * soft)
    spine = np.exp(-((u / 0.085) ** 2)) * (0.8 + 0.2 * np.cos(38.0 * v))
    middle = np.exp(-(((u - 0.01) / 0.12) ** 2)) * primitives.smoothstep(0.6, -0.2, v - 0.2)
    amount -= 0.40 * lungs * (1 - 0.85 * heart)
    amount += 0.20 * spine + 0.16 * middle + 0.06 * heart

    hilum = np.exp(-(((np.abs(u) - 0.17) / 0.15) ** 2) - ((v - 0.02) / 0.28) ** 2)
    amount += lungs * (0.025 + 0.09 * hilum) * streaky
    pitch = rng.uniform(0.155, 0.18)
    arc = v - 0.55 * (np.abs(u) - 0.15) ** 2 * np.where(np.abs(u) > 0.15, 1, 0) + 0.10 * np.abs(u)
    wave = np.cos(2 * np.pi * arc / pitch)
    cage = (
        primitives.smoothstep(0.94, 0.78, np.abs(u))
        * primitives.smoothstep(0.70, 0.5, v)
        * primitives.smoothstep(-0.86, -0.7, v)
    )
    amount += 0.07 * cage * primitives.smoothstep(0.15, 0.75, wave) * primitives.smoothstep(0.08, 0.2, np.abs(u))
    collar = np.abs(v + 0.62 + 0.16 * (np.abs(u) - 0.1))
    amount += 0.10 * primitives.smoothstep(0.035, 0.015, collar) * primitives.smoothstep(0.8, 0.7, np.abs(u))
    return Chest(u, v, amount, lungs, heart, nearest)


def _consolidation(chest: Chest, rng: primitives.Rng) -> np.ndarray:
    """Return the amount of tissue of one dense opacity, float32 (size, size)."""
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    cloud = primitives.noise(rng, chest.u.shape[0], 9, 3)
    centre_x, centre_y = side * rng.uniform(0.32, 0.52), rng.uniform(-0.35, 0.3)
    strength = rng.uniform(0.22, 0.36)
    near = np.exp(-(((chest.u - centre_x) / 0.22) ** 2) - ((chest.v - centre_y) / 0.24) ** 2)
    return strength * primitives.smoothstep(0.15, 0.85, near + 0.16 * cloud)


def render(label: str, rng: primitives.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a frontal radiograph of one patient.

    Args:
        label: One of `CLASSES`. The strengths of the opacities are sampled per image, so the classes overlap.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        The image, uint8 grey (size, size), and the lungs, uint8 (size, size), 0 or 255.
    """
    chest_rng, opacity_rng, film_rng = rng.spawn(3)
    chest = build_chest(chest_rng, size, LARGE_HEART if opacity_rng.uniform() < 0.12 else NORMAL_HEART)
    air = chest.lungs * (1 - 0.9 * chest.heart)
    hila, patchy, glass, dense = (
        float(np.clip(mean + spread * opacity_rng.normal(), 0, 1.2)) for mean, spread in _STRENGTHS[label]
    )
    opacity = infiltrates(chest, opacity_rng, hila, patchy, glass)
    opacity += min(dense, 1.0) * _consolidation(chest, opacity_rng)
    add_side_marker(chest, film_rng)
    film = develop(chest, opacity * air, film_rng)
    lungs = chest.lungs * (1 - chest.heart)
    pose = random_pose(film_rng, size)
    film, lungs = (
        cv2.warpAffine(field, pose, (size, size), borderMode=cv2.BORDER_REPLICATE) for field in (film, lungs)
    )
    image = primitives.take_photograph(
        np.stack([film] * 3), film_rng, balance=0.0, exposure=0.08, blur=0.006, grain=0.02
    )
    return np.ascontiguousarray(image[..., 0]), np.where(lungs > 0.5, np.uint8(255), np.uint8(0))


def random_pose(rng: primitives.Rng, size: int) -> np.ndarray:
    """Return a random rotation, width, height and shift of the patient, as a (2, 3) matrix in pixels."""
    turn, wide, tall = rng.normal(0, 0.035), rng.uniform(0.90, 1.10), rng.uniform(0.90, 1.10)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([wide, tall])
    middle = (size - 1) / 2
    return np.column_stack([linear, middle + rng.normal(0, 0.025, 2) * size - linear @ np.full(2, middle)])


def infiltrates(chest: Chest, rng: primitives.Rng, hila: float, patchy: float, glass: float) -> np.ndarray:
    """Return the tissue of streaks, of patches near the hila and of ground glass at the edge, float32 (size, size)."""
    size = chest.u.shape[0]
    streaks, clouds, veil, fine = (primitives.noise(rng, size, cells, 2) for cells in (24, 8, 6, 30))
    distance = np.abs(chest.u) - 0.17
    near = np.exp(-((distance / 0.24) ** 2) - ((chest.v - 0.02) / 0.42) ** 2)
    tissue = hila * near * (0.10 + 0.14 * np.abs(streaks))
    tissue += patchy * 0.28 * near * primitives.smoothstep(-0.4, 0.9, clouds)
    sides = 1.0 - rng.uniform(0, 0.5) * (chest.u * (1.0 if rng.uniform() < 0.5 else -1.0) > 0)
    edge = primitives.smoothstep(0.10, 0.34, distance) * primitives.smoothstep(-0.55, 0.15, chest.v + 0.2 * veil)
    return tissue + glass * 0.22 * sides * edge * primitives.smoothstep(-0.7, 0.7, veil) * (1.0 + 0.15 * fine)


def add_side_marker(chest: Chest, rng: primitives.Rng) -> None:
    """Add the side marker in a corner of most films."""
    size = chest.amount.shape[0]
    corner = (rng.choice((-0.85, 0.85)), rng.uniform(-0.9, -0.7))
    down = np.array([[0.0, -0.06], [0.0, 0.06]])
    strokes = np.stack([down, np.array([[0.0, 0.06], [0.06, 0.06]])]) + corner
    weights = np.full(2, 0.9 * float(rng.uniform() < 0.6))
    marker = primitives.ribbons(size, strokes, np.full(2, 0.025), np.ones(2), weights)
    np.maximum(chest.amount, marker, out=chest.amount)
