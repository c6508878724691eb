"""Retinal photographs: a disc with optic disc, macula and vessels, and the lesions of diabetic retinopathy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scanbook.data.adapters.synthetic import canvas

CLASSES: tuple[str, ...] = ("fundus_healthy", "fundus_microaneurysms", "fundus_haemorrhages", "fundus_exudates")
_RETINA = 0.92  # radius of the visible disc


@dataclass(frozen=True)
class Anatomy:
    """Where things lie in a drawn eye: middle of the optic disc and of the macula, (2,), and veins, (4, 24, 2)."""

    disc: np.ndarray
    macula: np.ndarray
    veins: np.ndarray


def render(kind: str, rng: canvas.Rng, size: int) -> np.ndarray:
    """Draw a retinal photograph.

    Args:
        kind: One of `CLASSES`.
        rng: Random generator.
        size: Side in pixels.

    Returns:
        uint8 RGB (size, size, 3).
    """
    image, _ = _eye(rng, size)
    _lesions(image, kind, rng)
    return _photograph(image, rng, blur=0.008)


def _eye(rng: canvas.Rng, size: int) -> tuple[np.ndarray, Anatomy]:
    """A healthy eye ground, float32 (3, size, size), without the edge of the field."""
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
    veins = _vessels(image, rng, disc, side)
    return image, Anatomy(disc, np.array([macula_x, macula_y]), veins)


def _photograph(image: np.ndarray, rng: canvas.Rng, blur: float) -> np.ndarray:
    rim = canvas.polar(image.shape[-1])[0]
    image *= canvas.smoothstep(_RETINA + 0.02, _RETINA - 0.01, rim)
    return canvas.camera(image, rng, balance=0.06, exposure=0.14, blur=blur)


def _vessels(image: np.ndarray, rng: canvas.Rng, disc: np.ndarray, side: float) -> np.ndarray:
    """Arcades that leave the optic disc above and below and bend round the macula, with their branches.

    Returns:
        Points along the four large veins, (4, 24, 2).
    """
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
    return mains[::2]


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


GRADES = 5
_MOST = 3.3  # severity beyond which new vessels grow, and nothing else gets worse
_SPREAD = 0.33  # standard deviation of the severity within a grade; grades lie 1 apart


def draw_grade(grade: int, rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a retinal photograph with the signs of a grade of diabetic retinopathy.

    The severity is normal around the grade; each sign sets in at a severity of its own and grows with it, after the
    International Clinical Diabetic Retinopathy scale (Wilkinson et al., Ophthalmology 2003). So neighbouring grades
    overlap, and 0 may show a microaneurysm.

    Args:
        grade: 0 (none) to 4 (proliferative).
        rng: Random generator.
        size: Side in pixels.

    Returns:
        The picture, uint8 RGB (size, size, 3), and the field of view, uint8 (size, size), 0 or 255.
    """
    eye_rng, sign_rng, view_rng = rng.spawn(3)
    image, anatomy = _eye(eye_rng, size)
    _signs(image, grade + _SPREAD * sign_rng.normal(), anatomy, sign_rng)
    picture = _photograph(image, view_rng, blur=view_rng.uniform(0.006, 0.012))
    return picture, np.where(canvas.polar(size)[0] < _RETINA, np.uint8(255), np.uint8(0))


def _signs(image: np.ndarray, severity: float, eye: Anatomy, rng: canvas.Rng) -> None:
    size = image.shape[-1]
    places = canvas.points_inside(rng, np.full(1024, 0.86), 150, 0.08, 1.0)
    dots, blots, wool, hubs = np.split(places, [70, 110, 120])

    def many(most: int, onset: float, pace: float) -> np.ndarray:
        """Weights of `most` signs, of which about `pace` show for every grade beyond the onset."""
        expected = pace * max(min(severity, _MOST) - onset, 0.0) * rng.gamma(3.0, 1 / 3)
        return np.clip(expected - np.arange(most), 0, 1)

    canvas.blend(
        image,
        (0.36, 0.05, 0.04),
        canvas.discs(size, dots, rng.uniform(0.012, 0.022, 70), many(70, 0.3, 13), blur=0.003),
    )
    radii = rng.uniform(0.025, 0.07, 40)
    bleeding = canvas.discs(size, blots, radii, many(40, 1.4, 6), blur=0.010, stretch=1.4)
    bleeding = canvas.smoothstep(0.2, 0.55, bleeding + 0.12 * canvas.noise(rng, size, 26) * (bleeding > 0.05))
    canvas.blend(image, (0.33, 0.04, 0.03), 0.85 * bleeding)
    hub = np.concatenate([hubs[:3], eye.macula[None] + 0.1 * rng.normal(size=(1, 2))])
    near = hub[rng.integers(0, 4, 80)] + 0.10 * rng.normal(size=(80, 2))
    hard = canvas.discs(size, near, rng.uniform(0.009, 0.028, 80), many(80, 1.3, 16), blur=0.004)
    canvas.blend(image, (0.99, 0.88, 0.45), 0.9 * hard)
    cotton = canvas.discs(size, wool, rng.uniform(0.05, 0.09, 10), many(10, 1.8, 1.6), blur=0.03, stretch=1.5)
    canvas.blend(image, (0.93, 0.84, 0.68), 0.7 * cotton)
    beads = eye.veins[:, 3:20].reshape(-1, 2) + 0.004 * rng.normal(size=(68, 2))
    knots = canvas.discs(size, beads, rng.uniform(0.022, 0.034, 68), rng.permutation(many(68, 2.3, 30)), blur=0.004)
    canvas.blend(image, (0.32, 0.05, 0.05), 0.85 * knots)
    _proliferation(image, severity - 3.3, eye, hubs[3:], rng)


def _proliferation(image: np.ndarray, beyond: float, eye: Anatomy, places: np.ndarray, rng: canvas.Rng) -> None:
    """New vessels on the disc and elsewhere, bleeding before the retina, and scars of the laser in some eyes."""
    size, strength = image.shape[-1], float(np.clip(1.6 * beyond + 0.3 * (beyond > 0), 0, 1))
    hubs = np.concatenate([eye.disc[None], places[:2]])
    starts = np.repeat(hubs, 16, axis=0) + 0.03 * rng.normal(size=(48, 2))
    paths = canvas.wander(rng, starts, rng.uniform(0, 2 * math.pi, 48), rng.uniform(0.08, 0.26, 48), 3.0, points=16)
    shown = np.repeat(rng.uniform(size=3) < (0.9, 0.7, 0.5), 16) * strength
    tufts = canvas.ribbons(size, paths, np.full(48, 0.014), np.full(48, 0.5), shown, blur=0.002)
    canvas.blend(image, (0.50, 0.07, 0.06), 0.9 * tufts)
    x, y = canvas.coordinates(size)
    at, radius = places[3], rng.uniform(0.14, 0.3)
    pool = canvas.smoothstep(radius + 0.02, radius - 0.04, np.hypot(x - float(at[0]), y - float(at[1])))
    pool *= canvas.smoothstep(float(at[1]) - 0.05, float(at[1]) + 0.03, y)
    canvas.blend(image, (0.30, 0.03, 0.03), 0.9 * strength * float(rng.uniform() < 0.45) * pool)
    scars = canvas.points_inside(rng, np.full(1024, 0.86), 90, 0.55, 1.0)
    treated = np.full(90, strength * float(rng.uniform() < 0.4) * 0.6)
    canvas.blend(
        image, (0.86, 0.74, 0.46), canvas.discs(size, scars, rng.uniform(0.02, 0.032, 90), treated, blur=0.006)
    )
