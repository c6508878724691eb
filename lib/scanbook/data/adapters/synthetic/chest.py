"""Synthetic chest radiographs with several findings at once, each as visible as its severity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import primitives, xray
from scanbook.data.adapters.synthetic.primitives import Rng, smoothstep
from scanbook.data.adapters.synthetic.xray import Chest

_LIGHTER = 0.14  # tissue of the lungs beyond that of `xray`, so that air outside of them is darker


def _ramp(severity: float) -> float:
    """Return how much of a finding's contrast a severity shows: all from 0.4 on, so that its size tells more."""
    return float(smoothstep(0.0, 0.4, np.float64(severity)))


def _side(rng: Rng) -> float:
    return 1.0 if rng.uniform() < 0.5 else -1.0


def _half(chest: Chest, side: float) -> np.ndarray:
    """Return the half of the chest on one side, bool (size, size); side 1 is the image's right, the patient's left."""
    return chest.u * side > 0


def _effusion(chest: Chest, severity: float, rng: Rng) -> None:
    """Fill the base of one lung with fluid whose surface rises to the chest wall."""
    side, height = _side(rng), 0.16 + 0.44 * severity
    across = np.clip((side * chest.u - 0.12) / 0.55, 0, 1)
    surface = 0.72 - height - 0.20 * across**3
    fluid = chest.lungs * _half(chest, side) * smoothstep(-0.03, 0.05, chest.v - surface)
    chest.amount[:] += _ramp(severity) * 0.34 * fluid * (1 - chest.heart)


def _pneumothorax(chest: Chest, severity: float, rng: Rng) -> None:
    """Collapse one lung: air without markings at its apex and side, behind a thin line, and a denser lung."""
    side, rim = _side(rng), 0.86 - 0.48 * severity
    radius = np.sqrt(np.maximum(chest.reach, 0)) ** (2 / 2.6)
    radius = radius + 0.35 * smoothstep(0.1, -0.5, chest.v) - 0.25 * smoothstep(0.0, 0.5, chest.v)
    lung = chest.lungs * _half(chest, side) * (1 - chest.heart) * _ramp(severity)
    air = lung * smoothstep(rim - 0.02, rim + 0.03, radius)
    line = lung * np.exp(-(((radius - rim) / 0.035) ** 2))
    smooth = cv2.GaussianBlur(chest.amount, (0, 0), 0.02 * chest.amount.shape[0])
    chest.amount[:] += air * (smooth - chest.amount) * 0.8 - 0.26 * air + 0.16 * line
    chest.amount[:] += 0.16 * severity * (lung - air)


def _mass(chest: Chest, severity: float, rng: Rng) -> None:
    """Place one round dense opacity in a lung."""
    side, radius = _side(rng), 0.17 + 0.13 * severity
    x, y = side * rng.uniform(0.34, 0.46), rng.uniform(-0.42, 0.05)
    edge = primitives.noise(rng, chest.u.shape[0], 12, 2)
    distance = np.hypot(chest.u - x, chest.v - y) / radius + 0.06 * edge
    chest.amount[:] += _ramp(severity) * 0.50 * smoothstep(1.12, 0.85, distance) * chest.lungs


def _nodules(chest: Chest, severity: float, rng: Rng) -> None:
    """Scatter small round opacities over both lungs: more, and denser ones, where it is more severe."""
    count = 18
    places = np.stack([np.where(rng.uniform(size=count) < 0.5, 1, -1) * rng.uniform(0.2, 0.62, count)], 0)
    centres = np.stack([places[0], rng.uniform(-0.55, 0.45, count)], axis=1)
    radii = rng.uniform(0.050, 0.068, count)
    shown = np.arange(count) < round(4 + 14 * severity)
    spots = primitives.discs(chest.u.shape[0], centres, radii, _ramp(severity) * shown, blur=0.008)
    chest.amount[:] += 0.46 * spots * chest.lungs


def _consolidation(chest: Chest, severity: float, rng: Rng) -> None:
    """Fill the upper part of one lung with an airless cloud, with air in the bronchi."""
    side, size = _side(rng), chest.u.shape[0]
    cloud, bronchi = primitives.noise(rng, size, 9, 3), primitives.noise(rng, size, 30, 1)
    x, y = side * rng.uniform(0.36, 0.44), rng.uniform(-0.40, -0.18)
    spread = 0.22 + 0.18 * severity
    near = np.exp(-(((chest.u - x) / spread) ** 2) - ((chest.v - y) / (1.15 * spread)) ** 2)
    opaque = smoothstep(0.20, 0.75, near + 0.16 * cloud) * (1 - 0.35 * smoothstep(0.6, 1.6, bronchi))
    chest.amount[:] += _ramp(severity) * 0.50 * opaque * chest.lungs * (1 - chest.heart)


def _edema(chest: Chest, severity: float, rng: Rng) -> None:
    """Spread haze and streaks from both hila, with short lines at the sides of the bases."""
    size = chest.u.shape[0]
    streaks, haze = primitives.noise(rng, size, 22, 2), primitives.noise(rng, size, 7, 2)
    reach = 0.16 + 0.16 * severity
    wings = np.exp(-(((np.abs(chest.u) - 0.20) / reach) ** 2) - ((chest.v - 0.06) / 0.38) ** 2)
    tissue = wings * (0.20 + 0.05 * haze + 0.06 * np.abs(streaks))
    lines = smoothstep(0.5, 0.9, np.cos(2 * np.pi * chest.v / 0.055))
    sides = smoothstep(0.50, 0.58, np.abs(chest.u)) * smoothstep(0.05, 0.15, chest.v) * smoothstep(0.50, 0.40, chest.v)
    tissue = tissue + 0.20 * sides * lines
    chest.amount[:] += _ramp(severity) * (0.95 + 0.65 * severity) * tissue * chest.lungs * (1 - 0.9 * chest.heart)


def _atelectasis(chest: Chest, severity: float, rng: Rng) -> None:
    """Draw dense plates across the lower part of one lung."""
    side, count = _side(rng), 4
    levels = rng.uniform(-0.24, -0.16) + 0.125 * np.arange(count) + rng.normal(0, 0.012, count)
    tilts, starts = rng.normal(0.05, 0.06, count), rng.uniform(0.20, 0.28, count)
    steps = np.linspace(0, 1, 12)
    x = side * (starts[:, None] + 0.42 * steps)
    y = levels[:, None] + tilts[:, None] * steps + 0.02 * np.sin(np.pi * steps)
    widths = np.full(count, 0.055 + 0.035 * severity)
    shown = np.clip(1.5 + 3.0 * severity - np.arange(count), 0, 1)
    plates = primitives.ribbons(chest.u.shape[0], np.stack([x, y], -1), widths, np.full(count, 0.6), shown, blur=0.006)
    chest.amount[:] += _ramp(severity) * 0.50 * plates * chest.lungs


def _pleural_thickening(chest: Chest, severity: float, rng: Rng) -> None:
    """Line the apex and side of one lung with a dense rim."""
    side, inner = _side(rng), 0.92 - 0.32 * severity
    radius = np.sqrt(np.maximum(chest.reach, 0)) ** (2 / 2.6)
    place = smoothstep(0.30, 0.40, np.abs(chest.u) - 0.25 * chest.v) * smoothstep(0.35, 0.15, chest.v)
    rim = smoothstep(inner, inner + 0.06, radius) * place * _half(chest, side)
    chest.amount[:] += _ramp(severity) * 0.34 * rim * chest.lungs


def _devices(chest: Chest, severity: float, rng: Rng) -> None:
    """Add what is not the patient: a catheter, electrodes with wires, and a pacemaker where it is more severe."""
    size, side = chest.u.shape[0], _side(rng)
    steps = np.linspace(0, 1, 16)
    line = np.stack([side * (0.55 - 0.50 * steps), -0.72 + 0.65 * steps**2 + 0.05 * np.sin(3 * steps)], -1)
    lead = np.stack([-side * 0.10 + 0.45 * -side * (1 - steps), 0.20 - 0.72 * (1 - steps) ** 1.5], -1)
    wires = primitives.ribbons(size, np.stack([line, lead]), np.full(2, 0.030), np.ones(2), np.array([1.0, 1.0]))
    centres = np.array([[-0.55, -0.15], [0.55, -0.20], [0.50, 0.42]]) + rng.normal(0, 0.04, (3, 2))
    pads = primitives.discs(size, centres, np.full(3, 0.035 + 0.02 * severity), np.ones(3))
    box = np.array([-side * rng.uniform(0.42, 0.52), -0.50])
    pacemaker = smoothstep(1.1, 0.9, ((np.abs(chest.u - box[0])) ** 3 + np.abs(chest.v - box[1]) ** 3) / 0.11**3)
    metal = np.maximum(np.maximum(0.7 * wires, pads), pacemaker * smoothstep(0.3, 0.7, np.float64(severity)))
    shown = _ramp(severity)
    chest.amount[:] += shown * metal * (0.95 - np.minimum(chest.amount, 0.95))


FINDINGS: dict[str, Callable[[Chest, float, Rng], None]] = {
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "mass": _mass,
    "nodules": _nodules,
    "consolidation": _consolidation,
    "edema": _edema,
    "atelectasis": _atelectasis,
    "pleural_thickening": _pleural_thickening,
    "devices": _devices,
}
"""What adds a finding of a severity from 0 to 1 to a chest; cardiomegaly is the width of the chest's heart."""
CARDIOMEGALY = "cardiomegaly"
NAMES = (CARDIOMEGALY, *FINDINGS)


def render_lateral(severities: Mapping[str, float], patient: Rng, rng: Rng, size: int) -> np.ndarray:
    """Return a radiograph from the side, uint8 grey (size, size): of the findings only the heart and fluid change it.

    Args:
        severities: As in `render`.
        patient: As in `render`.
        rng: As in `render`.
        size: Side in pixels.
    """
    x, y = primitives.coordinates(size)
    soft, streaky = primitives.noise(patient, size, 5, 2), primitives.noise(patient, size, 26, 2)
    bend = 0.10 * np.cos(1.6 * y)
    body = smoothstep(0.78, 0.66, np.abs(x - 0.04) + 0.10 * np.clip(-y - 0.5, 0, 1) + 0.02 * soft)
    lungs = smoothstep(1.08, 0.88, (np.abs(x - 0.02) / 0.54) ** 2.6 + (np.abs(y + 0.08) / 0.74) ** 2.8 + 0.02 * soft)
    below = smoothstep(-0.02, 0.05, y - 0.46 - 0.30 * (x + 0.25) ** 2 * np.sign(x + 0.25))
    lungs = lungs * (1 - below)
    width = 0.26 * (1 + 0.75 * severities.get(CARDIOMEGALY, 0.0))
    heart = smoothstep(1.15, 0.85, ((x + 0.24) / width) ** 2 + ((y - 0.22 + 0.5 * (x + 0.24)) / 0.26) ** 2)
    column = (x - 0.46 - bend) / 0.085
    spine = np.exp(-(column**2)) * (0.75 + 0.25 * np.cos(30.0 * y))
    amount = 0.52 * body - 0.34 * lungs * (1 - 0.75 * heart) + 0.18 * spine * body + 0.02 * streaky * lungs
    ribs = smoothstep(0.5, 0.95, np.cos(2 * np.pi * (y - 0.35 * x) / 0.17))
    amount += 0.05 * ribs * lungs
    if (fluid := severities.get("effusion", 0.0)) > 0:
        surface = 0.52 - 0.55 * fluid - 0.15 * np.clip(x, 0, 1)
        amount += _ramp(fluid) * 0.30 * lungs * smoothstep(-0.03, 0.05, y - surface) * smoothstep(-0.1, 0.2, x)
    film = np.clip(0.06 + 0.92 * amount, 0, 1) ** rng.uniform(0.85, 1.2)
    film = cv2.warpAffine(film, xray.random_pose(rng, size), (size, size), borderMode=cv2.BORDER_REPLICATE)
    return _photograph(film.astype(np.float32), rng)


def _photograph(film: np.ndarray, rng: Rng) -> np.ndarray:
    shown = primitives.take_photograph(np.stack([film] * 3), rng, balance=0.0, exposure=0.06, blur=0.006, grain=0.02)
    return np.ascontiguousarray(shown[..., 0])


def render(severities: Mapping[str, float], patient: Rng, rng: Rng, size: int) -> np.ndarray:
    """Return a frontal radiograph, uint8 grey (size, size).

    Args:
        severities: Severity of each of `NAMES`, 0 (nothing to see) to 1; 0 where it is not named.
        patient: Samples the anatomy; two films of one patient have equal generators.
        rng: Samples the places of the findings, the pose and the exposure.
        size: Side in pixels.
    """
    film_rng, *finding_rngs = rng.spawn(1 + len(FINDINGS))
    enlarged = severities.get(CARDIOMEGALY, 0.0)
    width = 0.86 + 1.10 * enlarged
    chest = xray.build_chest(patient, size, (width, width))
    chest.amount[:] += _LIGHTER * chest.lungs * (1 - chest.heart) + 0.10 * enlarged * chest.heart
    for (name, add), finding_rng in zip(FINDINGS.items(), finding_rngs, strict=True):
        if (severity := severities.get(name, 0.0)) > 0:
            add(chest, severity, finding_rng)
    xray.add_side_marker(chest, film_rng)
    film = xray.develop(chest, np.zeros_like(chest.amount), film_rng)
    film = cv2.warpAffine(film, xray.random_pose(film_rng, size), (size, size), borderMode=cv2.BORDER_REPLICATE)
    return _photograph(film, film_rng)
