"""Synthetic retinal photographs: optic disc, macula and vessels, and the signs of diabetic retinopathy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from scanbook.data.adapters.synthetic import primitives

GRADES = 5
_MOST = 3.3  # severity beyond which new vessels grow and the other signs stay
_SPREAD = 0.33  # standard deviation of the severity within a grade; grades lie 1 apart
_RETINA = 0.92  # radius of the visible disc


@dataclass(frozen=True)
class Anatomy:
    """Positions in an eye: centre of the optic disc and of the macula, (2,), and veins, (4, 24, 2)."""

    disc: np.ndarray
    macula: np.ndarray
    veins: np.ndarray


def build_eye(rng: primitives.Rng, size: int) -> tuple[np.ndarray, Anatomy]:
    """Return a healthy fundus, float32 (3, size, size), without the edge of the field, and its anatomy."""
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    x, y = primitives.coordinates(size)
    red, green = rng.uniform(0.62, 0.82), rng.uniform(0.26, 0.40)
    tint = (red, green, green * rng.uniform(0.25, 0.55))
    mottle, fine = primitives.noise(rng, size, 4, 2), primitives.noise(rng, size, 32, 2)
    shade = 1.0 + 0.06 * mottle + 0.025 * fine - 0.22 * (x * x + y * y)
    image = np.stack([value * shade for value in tint]).astype(np.float32)

    disc = np.array([side * rng.uniform(0.38, 0.5), rng.uniform(-0.08, 0.08)])
    macula_x, macula_y = -side * rng.uniform(0.05, 0.2), rng.uniform(-0.03, 0.08)
    distance = np.hypot(x - macula_x, y - macula_y)
    image *= 1.0 - 0.42 * np.exp(-18.0 * distance * distance)
    nerve = np.hypot(x - float(disc[0]), (y - float(disc[1])) * 0.92) + 0.006 * mottle
    radius = rng.uniform(0.12, 0.15)
    primitives.blend(image, (0.97, 0.78, 0.48), 0.9 * primitives.smoothstep(radius + 0.03, radius - 0.03, nerve))
    cup = radius * rng.uniform(0.35, 0.6)
    primitives.blend(image, (1.0, 0.92, 0.72), 0.8 * primitives.smoothstep(cup + 0.03, cup - 0.03, nerve))
    veins = _add_vessels(image, rng, disc, side)
    return image, Anatomy(disc, np.array([macula_x, macula_y]), veins)


def photograph(image: np.ndarray, rng: primitives.Rng, blur: float) -> np.ndarray:
    """Return the photograph of a fundus, uint8 RGB (size, size, 3); `image` changes."""
    rim = primitives.polar(image.shape[-1])[0]
    image *= primitives.smoothstep(_RETINA + 0.02, _RETINA - 0.01, rim)
    return primitives.take_photograph(image, rng, balance=0.06, exposure=0.14, blur=blur)


def _add_vessels(image: np.ndarray, rng: primitives.Rng, disc: np.ndarray, side: float) -> np.ndarray:
    """Add the vascular arcades: they leave the optic disc above and below and bend round the macula.

    Returns:
        Points along the four large veins, (4, 24, 2).
    """
    inward = math.pi if side > 0 else 0.0
    steep = np.array([1.25, 0.95, -1.25, -0.95, 2.3, -2.3, 1.8, -1.8]) + 0.12 * rng.normal(size=8)
    headings = inward + steep
    lengths = np.array([1.5, 1.3, 1.5, 1.3, 0.7, 0.7, 0.9, 0.9]) * rng.uniform(0.85, 1.1, 8)
    mains = primitives.random_paths(rng, np.tile(disc, (8, 1)), headings, lengths, 0.25, points=24)
    # Bend towards the macula's side: a turn that grows along the path.
    along = np.linspace(0, 1, 24)[None, :]
    mains[..., 1] -= 0.40 * np.sign(np.sin(headings))[:, None] * lengths[:, None] * along**2
    mains[..., 0] += 0.35 * np.cos(inward) * (np.abs(steep) < 1.6)[:, None] * lengths[:, None] * along**2
    joints = np.array([5, 8, 11, 14, 17])
    step = mains[:, joints] - mains[:, joints - 1]
    forks = np.arctan2(step[..., 1], step[..., 0]) + rng.choice((-1.0, 1.0), (8, 5)) * rng.uniform(0.4, 0.9, (8, 5))
    twigs = primitives.random_paths(
        rng, mains[:, joints].reshape(-1, 2), forks.ravel(), rng.uniform(0.2, 0.5, 40), 0.8, points=24
    )
    paths = np.concatenate([mains, twigs])
    widths = np.concatenate([rng.uniform(0.030, 0.042, 8), rng.uniform(0.013, 0.021, 40)])
    vein = np.concatenate([np.arange(8) % 2 == 0, np.repeat(np.arange(8) % 2 == 0, 5)])
    size, tips = image.shape[-1], np.full(48, 0.35)
    primitives.blend(
        image, (0.50, 0.13, 0.07), primitives.ribbons(size, paths, widths * 0.8, tips, 0.75 * ~vein, blur=0.004)
    )
    primitives.blend(image, (0.34, 0.06, 0.05), primitives.ribbons(size, paths, widths, tips, 0.85 * vein, blur=0.004))
    return mains[::2]


def render(grade: int, rng: primitives.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a retinal photograph with the signs of a grade of diabetic retinopathy.

    The severity is normally distributed around the grade. Each sign appears at a severity of its own and grows with it,
    after the International Clinical Diabetic Retinopathy scale (Wilkinson et al., Ophthalmology 2003). Neighbouring
    grades therefore overlap, and grade 0 may show a microaneurysm.

    Args:
        grade: 0 (none) to 4 (proliferative).
        rng: Random generator.
        size: Side in pixels.

    Returns:
        The image, uint8 RGB (size, size, 3), and the field of view, uint8 (size, size), 0 or 255.
    """
    eye_rng, sign_rng, view_rng = rng.spawn(3)
    image, anatomy = build_eye(eye_rng, size)
    _add_signs(image, grade + _SPREAD * sign_rng.normal(), anatomy, sign_rng)
    photo = photograph(image, view_rng, blur=view_rng.uniform(0.006, 0.012))
    return photo, np.where(primitives.polar(size)[0] < _RETINA, np.uint8(255), np.uint8(0))


def _add_signs(image: np.ndarray, severity: float, anatomy: Anatomy, rng: primitives.Rng) -> None:
    size = image.shape[-1]
    places = primitives.points_inside(rng, np.full(1024, 0.86), 150, 0.08, 1.0)
    dots, blots, wool, hubs = np.split(places, [70, 110, 120])

    def sign_weights(most: int, onset: float, per_grade: float) -> np.ndarray:
        """Return the weights of `most` signs: about `per_grade` are visible for every grade beyond the onset."""
        expected = per_grade * max(min(severity, _MOST) - onset, 0.0) * rng.gamma(3.0, 1 / 3)
        return np.clip(expected - np.arange(most), 0, 1)

    primitives.blend(
        image,
        (0.36, 0.05, 0.04),
        primitives.discs(size, dots, rng.uniform(0.012, 0.022, 70), sign_weights(70, 0.3, 13), blur=0.003),
    )
    radii = rng.uniform(0.025, 0.07, 40)
    bleeding = primitives.discs(size, blots, radii, sign_weights(40, 1.4, 6), blur=0.010, stretch=1.4)
    bleeding = primitives.smoothstep(0.2, 0.55, bleeding + 0.12 * primitives.noise(rng, size, 26) * (bleeding > 0.05))
    primitives.blend(image, (0.33, 0.04, 0.03), 0.85 * bleeding)
    hub = np.concatenate([hubs[:3], anatomy.macula[None] + 0.1 * rng.normal(size=(1, 2))])
    near = hub[rng.integers(0, 4, 80)] + 0.10 * rng.normal(size=(80, 2))
    hard = primitives.discs(size, near, rng.uniform(0.009, 0.028, 80), sign_weights(80, 1.3, 16), blur=0.004)
    primitives.blend(image, (0.99, 0.88, 0.45), 0.9 * hard)
    cotton = primitives.discs(
        size, wool, rng.uniform(0.05, 0.09, 10), sign_weights(10, 1.8, 1.6), blur=0.03, stretch=1.5
    )
    primitives.blend(image, (0.93, 0.84, 0.68), 0.7 * cotton)
    beads = anatomy.veins[:, 3:20].reshape(-1, 2) + 0.004 * rng.normal(size=(68, 2))
    knots = primitives.discs(
        size, beads, rng.uniform(0.022, 0.034, 68), rng.permutation(sign_weights(68, 2.3, 30)), blur=0.004
    )
    primitives.blend(image, (0.32, 0.05, 0.05), 0.85 * knots)
    _add_proliferation(image, severity - 3.3, anatomy, hubs[3:], rng)


def _add_proliferation(
    image: np.ndarray, beyond: float, anatomy: Anatomy, places: np.ndarray, rng: primitives.Rng
) -> None:
    """Add new vessels on the disc and elsewhere, preretinal haemorrhage, and laser scars in some eyes."""
    size, strength = image.shape[-1], float(np.clip(1.6 * beyond + 0.3 * (beyond > 0), 0, 1))
    hubs = np.concatenate([anatomy.disc[None], places[:2]])
    starts = np.repeat(hubs, 16, axis=0) + 0.03 * rng.normal(size=(48, 2))
    paths = primitives.random_paths(
        rng, starts, rng.uniform(0, 2 * math.pi, 48), rng.uniform(0.08, 0.26, 48), 3.0, points=16
    )
    weights = np.repeat(rng.uniform(size=3) < (0.9, 0.7, 0.5), 16) * strength
    tufts = primitives.ribbons(size, paths, np.full(48, 0.014), np.full(48, 0.5), weights, blur=0.002)
    primitives.blend(image, (0.50, 0.07, 0.06), 0.9 * tufts)
    x, y = primitives.coordinates(size)
    centre_x, centre_y = places[3].tolist()
    radius = rng.uniform(0.14, 0.3)
    pool = primitives.smoothstep(radius + 0.02, radius - 0.04, np.hypot(x - centre_x, y - centre_y))
    pool *= primitives.smoothstep(centre_y - 0.05, centre_y + 0.03, y)
    primitives.blend(image, (0.30, 0.03, 0.03), 0.9 * strength * float(rng.uniform() < 0.45) * pool)
    scars = primitives.points_inside(rng, np.full(1024, 0.86), 90, 0.55, 1.0)
    treated = np.full(90, strength * float(rng.uniform() < 0.4) * 0.6)
    primitives.blend(
        image, (0.86, 0.74, 0.46), primitives.discs(size, scars, rng.uniform(0.02, 0.032, 90), treated, blur=0.006)
    )
