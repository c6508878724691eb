"""Frontal chest radiographs: lungs, ribs, clavicles, spine, heart and diaphragm, and opacities of four kinds."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import canvas

CLASSES: tuple[str, ...] = ("xray_clear", "xray_consolidation", "xray_effusion", "xray_nodules", "xray_cardiomegaly")


@dataclass(frozen=True)
class _Chest:
    """Fields of one chest, float32 (size, size): its own coordinates, tissue in the beam, lungs and heart (0 to 1)."""

    u: np.ndarray
    v: np.ndarray
    amount: np.ndarray
    lungs: np.ndarray
    heart: np.ndarray


def render(kind: str, rng: canvas.Rng, size: int) -> np.ndarray:
    """Draw a chest radiograph.

    Args:
        kind: One of `CLASSES`.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        uint8 (size, size, 3), three equal channels but for the camera's tint of the film.
    """
    chest = _chest(rng, size, large=kind == "xray_cardiomegaly")
    film = _develop(chest, _opacity(kind, rng, chest.u, chest.v, chest.lungs * (1 - 0.9 * chest.heart)), rng)
    return canvas.camera(np.stack([film] * 3), rng, balance=0.004, exposure=0.08, blur=0.006, grain=0.02)


def _develop(chest: _Chest, opacity: np.ndarray, rng: canvas.Rng) -> np.ndarray:
    return np.clip(0.06 + 0.92 * (chest.amount + opacity), 0, 1) ** rng.uniform(0.85, 1.2)


def _chest(rng: canvas.Rng, size: int, large: bool) -> _Chest:
    """A healthy chest; its heart is enlarged where `large` says so."""
    x, y = canvas.coordinates(size)
    zoom, tilt, shift = rng.uniform(0.92, 1.08), rng.normal(0, 0.04), rng.normal(0, 0.04)
    u, v = (x - shift) * zoom + tilt * y, y * zoom - tilt * x
    soft, streaky = canvas.noise(rng, size, 5, 2), canvas.noise(rng, size, 26, 2)

    # Amounts of tissue in the beam; the film is brighter where there is more.
    body = canvas.smoothstep(1.02, 0.86, np.abs(u) + 0.30 * np.clip(-v - 0.45, 0, 1) + 0.03 * soft)
    amount = 0.50 * body + 0.03 * soft
    lungs = np.zeros_like(u)
    base = rng.uniform(0.48, 0.60)
    for side in (-1.0, 1.0):
        across = (side * u - 0.40) / (0.30 + 0.06 * canvas.smoothstep(-0.7, 0.4, v))
        up = np.where(v < 0, v / 0.76, v / np.maximum(base + 0.10 - 0.84 * (side * u - 0.40) ** 2, 1e-3))
        reach = np.abs(across) ** 2.6 + np.abs(up) ** 2.6 + 0.03 * soft
        lungs = np.maximum(lungs, canvas.smoothstep(1.10, 0.86, reach))
    swell = rng.uniform(1.35, 1.65) if large else rng.uniform(0.88, 1.08)
    heart = ((u - 0.10 * swell) / (0.24 * swell)) ** 2 + ((v - 0.24 - 0.3 * (u - 0.1)) / 0.30) ** 2
    heart = canvas.smoothstep(1.18, 0.82, heart + 0.04 * soft)
    spine = np.exp(-((u / 0.085) ** 2)) * (0.8 + 0.2 * np.cos(38.0 * v))
    middle = np.exp(-(((u - 0.01) / 0.12) ** 2)) * canvas.smoothstep(0.6, -0.2, v - 0.2)
    amount -= 0.40 * lungs * (1 - 0.85 * heart)
    amount += 0.20 * spine + 0.16 * middle + 0.06 * heart

    hilum = np.exp(-(((np.abs(u) - 0.17) / 0.15) ** 2) - ((v - 0.02) / 0.28) ** 2)
    amount += lungs * (0.025 + 0.09 * hilum) * streaky
    pitch = rng.uniform(0.155, 0.18)
    arc = v - 0.55 * (np.abs(u) - 0.15) ** 2 * np.where(np.abs(u) > 0.15, 1, 0) + 0.10 * np.abs(u)
    wave = np.cos(2 * np.pi * arc / pitch)
    cage = (
        canvas.smoothstep(0.94, 0.78, np.abs(u)) * canvas.smoothstep(0.70, 0.5, v) * canvas.smoothstep(-0.86, -0.7, v)
    )
    amount += 0.07 * cage * canvas.smoothstep(0.15, 0.75, wave) * canvas.smoothstep(0.08, 0.2, np.abs(u))
    collar = np.abs(v + 0.62 + 0.16 * (np.abs(u) - 0.1))
    amount += 0.10 * canvas.smoothstep(0.035, 0.015, collar) * canvas.smoothstep(0.8, 0.7, np.abs(u))
    return _Chest(u, v, amount, lungs, heart)


def _opacity(kind: str, rng: canvas.Rng, u: np.ndarray, v: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """What is wrong with the lungs, as an amount of tissue."""
    size = u.shape[0]
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    cloud = canvas.noise(rng, size, 9, 3)
    at_x, at_y = side * rng.uniform(0.32, 0.52), rng.uniform(-0.35, 0.3)
    strength = rng.uniform(0.22, 0.36)
    if kind == "xray_consolidation":
        near = np.exp(-(((u - at_x) / 0.22) ** 2) - ((v - at_y) / 0.24) ** 2)
        return strength * lungs * canvas.smoothstep(0.15, 0.85, near + 0.16 * cloud)
    if kind == "xray_effusion":
        level = rng.uniform(0.0, 0.32) - 0.9 * np.clip(side * u - 0.35, 0, 1) ** 1.5
        return 1.15 * strength * lungs * canvas.smoothstep(-0.05, 0.10, v - level) * (side * u > 0)
    if kind == "xray_nodules":
        count = int(rng.integers(3, 10))
        centres = np.stack(
            [rng.choice((-1, 1), count) * rng.uniform(0.22, 0.58, count), rng.uniform(-0.5, 0.4, count)], 1
        )
        return 0.7 * strength * canvas.discs(size, centres, rng.uniform(0.03, 0.075, count), np.ones(count), blur=0.012)
    return np.zeros_like(u)


FINDINGS: tuple[str, ...] = ("normal", "viral_pneumonia", "covid", "lung_opacity")
# Of each finding: mean and standard deviation of the strength of markings that run from the hila, of patchy opacities
# near them, of ground glass at the edge of both lungs, and of one dense opacity.
_STRENGTHS: dict[str, tuple[tuple[float, float], ...]] = {
    "normal": ((0.15, 0.18), (0.0, 0.12), (0.0, 0.12), (0.0, 0.05)),
    "viral_pneumonia": ((0.75, 0.22), (0.75, 0.25), (0.10, 0.15), (0.0, 0.15)),
    "covid": ((0.25, 0.20), (0.15, 0.18), (0.72, 0.27), (0.0, 0.15)),
    "lung_opacity": ((0.25, 0.2), (0.15, 0.2), (0.15, 0.2), (0.75, 0.2)),
}


def draw_finding(finding: str, rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a frontal radiograph of one patient.

    Args:
        finding: One of `FINDINGS`. Every picture draws its own strengths, so that findings overlap.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        The picture, uint8 grey (size, size), and the lungs, uint8 (size, size), 0 or 255.
    """
    chest_rng, ill_rng, film_rng = rng.spawn(3)
    chest = _chest(chest_rng, size, large=bool(ill_rng.uniform() < 0.12))
    air = chest.lungs * (1 - 0.9 * chest.heart)
    hila, patchy, glass, dense = (
        float(np.clip(mean + spread * ill_rng.normal(), 0, 1.2)) for mean, spread in _STRENGTHS[finding]
    )
    opacity = _infiltrates(chest, ill_rng, hila, patchy, glass)
    opacity += min(dense, 1.0) * _opacity("xray_consolidation", ill_rng, chest.u, chest.v, np.ones_like(air))
    _letters(chest, film_rng)
    film = _develop(chest, opacity * air, film_rng)
    lungs = chest.lungs * (1 - chest.heart)
    pose = _pose(film_rng, size)
    film, lungs = (cv2.warpAffine(each, pose, (size, size), borderMode=cv2.BORDER_REPLICATE) for each in (film, lungs))
    picture = canvas.camera(np.stack([film] * 3), film_rng, balance=0.0, exposure=0.08, blur=0.006, grain=0.02)
    return np.ascontiguousarray(picture[..., 0]), np.where(lungs > 0.5, np.uint8(255), np.uint8(0))


def _pose(rng: canvas.Rng, size: int) -> np.ndarray:
    """How the patient stands and is built: turned, wider or taller, nearer or off the middle; (2, 3) in pixels."""
    turn, wide, tall = rng.normal(0, 0.035), rng.uniform(0.90, 1.10), rng.uniform(0.90, 1.10)
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([wide, tall])
    middle = (size - 1) / 2
    return np.column_stack([linear, middle + rng.normal(0, 0.025, 2) * size - linear @ np.full(2, middle)])


def _infiltrates(chest: _Chest, rng: canvas.Rng, hila: float, patchy: float, glass: float) -> np.ndarray:
    """Amount of tissue that streaks, patches near the hila and ground glass at the edge add."""
    size = chest.u.shape[0]
    streaks, clouds, veil, fine = (canvas.noise(rng, size, cells, 2) for cells in (24, 8, 6, 30))
    out = np.abs(chest.u) - 0.17
    near = np.exp(-((out / 0.24) ** 2) - ((chest.v - 0.02) / 0.42) ** 2)
    tissue = hila * near * (0.10 + 0.14 * np.abs(streaks))
    tissue += patchy * 0.28 * near * canvas.smoothstep(-0.4, 0.9, clouds)
    sides = 1.0 - rng.uniform(0, 0.5) * (chest.u * (1.0 if rng.uniform() < 0.5 else -1.0) > 0)
    edge = canvas.smoothstep(0.10, 0.34, out) * canvas.smoothstep(-0.55, 0.15, chest.v + 0.2 * veil)
    return tissue + glass * 0.22 * sides * edge * canvas.smoothstep(-0.7, 0.7, veil) * (1.0 + 0.15 * fine)


def _letters(chest: _Chest, rng: canvas.Rng) -> None:
    """The side marker in a corner of most films."""
    size = chest.amount.shape[0]
    at = (rng.choice((-0.85, 0.85)), rng.uniform(-0.9, -0.7))
    down = np.array([[0.0, -0.06], [0.0, 0.06]])
    strokes = np.stack([down, np.array([[0.0, 0.06], [0.06, 0.06]])]) + at
    shown = np.full(2, 0.9 * float(rng.uniform() < 0.6))
    marker = canvas.ribbons(size, strokes, np.full(2, 0.025), np.ones(2), shown)
    np.maximum(chest.amount, marker, out=chest.amount)
