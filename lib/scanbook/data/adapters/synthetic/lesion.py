"""How a drawn skin lesion looks: from strengths of dermoscopic structures to a photograph through a dermatoscope.

A lesion is drawn once, on a plate of its own, as amounts of pigment and opaque structures; a view lays the plate
on skin under some pose and light and photographs it. Colour follows Beer and Lambert: what comes back from
the white dermis is attenuated by exp(-amount × absorbance) of melanin, haemoglobin and the grey of deep pigment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import canvas

# Absorbance of one unit of melanin, haemoglobin and deep (blue-grey) pigment in red, green and blue light, chosen
# by eye to give the browns, pinks and slate greys of dermoscopy.
_ABSORBANCE = np.array([[0.46, 0.82, 1.10], [0.10, 0.80, 0.62], [1.05, 0.80, 0.55]], np.float32)
_DERMIS = (0.98, 0.90, 0.84)
_RADIUS = 0.60  # of a lesion, in units of half the plate
_TAU = 2 * np.pi


@dataclass(frozen=True)
class Look:
    """Strength of each structure, 0 (absent) to 1 (as strong as it gets)."""

    irregularity: float = 0.2
    colours: float = 0.2
    darkness: float = 0.5
    network: float = 0.0
    globules: float = 0.0
    veil: float = 0.0
    vessels: float = 0.0
    milia: float = 0.0
    redness: float = 0.2
    streaks: float = 0.0
    regression: float = 0.0
    leaves: float = 0.0
    cobblestone: float = 0.0


@dataclass(frozen=True)
class Plate:
    """A synthetic lesion, without skin, pose or light.

    Attributes:
        pigment: float32 (4, size, size): melanin, haemoglobin, deep pigment, and the depth inside the outline.
        overlay: float32 (4, size, size): opaque structures as RGB times opacity, and opacity.
    """

    pigment: np.ndarray
    overlay: np.ndarray


@dataclass(frozen=True)
class Skin:
    """What is the patient's, not the lesion's: amounts of melanin and blood in the skin, and how hairy it is."""

    melanin: float
    blood: float
    hair: float


def draw_skin(rng: canvas.Rng) -> Skin:
    """Return a random patient's skin."""
    return Skin(melanin=0.08 + rng.gamma(2.0, 0.05), blood=rng.uniform(0.08, 0.22), hair=rng.uniform())


def draw_plate(look: Look, rng: canvas.Rng, size: int) -> Plate:
    """Draw a lesion.

    Args:
        look: Strengths of its structures.
        rng: Places the structures; the same generator state and another look give the same lesion, changed in that.
        size: Side of the plate in pixels.
    """
    shape_rng, colour_rng, fine_rng, spot_rng, line_rng = rng.spawn(5)
    curve = canvas.outline(shape_rng, _RADIUS, 0.05 + 0.20 * look.irregularity, 0.006 + 0.075 * look.irregularity)
    warp = canvas.noise(shape_rng, size, 14, 2)
    depth = canvas.depth_inside(curve, size) + (0.008 + 0.035 * look.irregularity) * warp
    body = canvas.smoothstep(-0.02, 0.16 - 0.10 * look.irregularity, depth)
    layers = _base(look, colour_rng, curve, depth, body)
    _network(layers, look, fine_rng)
    _spots(layers, look, spot_rng)
    _streaks(layers, look, spot_rng)
    _veils(layers, look, colour_rng)
    _lacunae(layers, look, spot_rng)
    _vessels(layers, look, line_rng)
    _milia(layers, look, spot_rng)
    return Plate(np.stack([layers.melanin, layers.blood, layers.deep, depth]), layers.overlay)


@dataclass
class _Layers:
    """A lesion being drawn: its outline, depth inside, how far it covers the skin, and what it is made of so far."""

    curve: np.ndarray
    depth: np.ndarray
    body: np.ndarray
    melanin: np.ndarray
    blood: np.ndarray
    deep: np.ndarray
    overlay: np.ndarray

    @property
    def size(self) -> int:
        return self.depth.shape[0]

    def cover(self, colour: tuple[float, float, float], opacity: np.ndarray) -> None:
        """Put something opaque over all that is drawn."""
        canvas.blend(self.overlay, (*colour, 1.0), opacity)


def _base(look: Look, rng: canvas.Rng, curve: np.ndarray, depth: np.ndarray, body: np.ndarray) -> _Layers:
    """A lesion without structures: one colour, or patches of several."""
    size = depth.shape[0]
    x, y = canvas.coordinates(size)
    tilt = rng.uniform(0, _TAU)
    lean = (0.2 + 1.0 * look.irregularity) * (math.cos(tilt) * x + math.sin(tilt) * y)
    first, second, third = (canvas.noise(rng, size, cells, 2) for cells in (4, 4, 5))
    grain = canvas.noise(rng, size, 24, 2)
    uneven = 1.0 + 0.10 * grain + (0.08 + 0.30 * look.colours) * first + 0.5 * lean
    centre = 0.75 + 0.35 * np.clip(depth, 0, 1)
    amount = (0.30 + 1.10 * look.darkness) * (1.0 - 0.60 * look.redness)
    black = look.colours * canvas.smoothstep(0.5, 1.1, second + 0.5 * lean)
    tan = look.colours * canvas.smoothstep(0.4, 1.0, -second)
    red = look.colours * canvas.smoothstep(0.6, 1.2, third)
    melanin = amount * body * centre * np.clip(uneven, 0.25, 2.0) * (1.0 + 1.1 * black - 0.6 * tan - 0.5 * red)
    blood = body * (0.02 + 0.85 * look.redness + 0.40 * red + 0.08 * look.redness * grain)
    deep = body * (0.35 * black + 0.05 * look.darkness)
    return _Layers(curve, depth, body, melanin, blood, deep, np.zeros((4, size, size), np.float32))


def _honeycomb(x: np.ndarray, y: np.ndarray, pitch: float, angle: float) -> np.ndarray:
    """Sum of three plane waves at 60 degrees: 3 at the centres of a hexagonal lattice, down to -1.5 between them."""
    wave = np.zeros_like(x)
    for turn in (angle, angle + _TAU / 6, angle + _TAU / 3):
        k = _TAU / (pitch * math.sqrt(0.75))
        wave += np.cos(k * math.cos(turn) * x + k * math.sin(turn) * y)
    return wave


def _network(layers: _Layers, look: Look, rng: canvas.Rng) -> None:
    """Pigment network: a honeycomb of brown lines, which irregular lesions distort and break up."""
    size = layers.size
    x, y = canvas.coordinates(size)
    bend = 0.035 + 0.045 * look.irregularity
    u, v = x + bend * canvas.noise(rng, size, 7), y + bend * canvas.noise(rng, size, 7)
    patchy = canvas.noise(rng, size, 5)
    lines = canvas.smoothstep(0.1, -1.1, _honeycomb(u, v, rng.uniform(0.078, 0.104), rng.uniform(0, _TAU)))
    where = layers.body * np.clip(0.75 + (0.15 + 0.45 * look.irregularity) * patchy, 0, 1.3)
    where *= canvas.smoothstep(0.75, 0.45, layers.depth) * 0.6 + 0.4
    layers.melanin += look.network * where * (1.05 * lines - 0.30 * (0.25 + look.darkness))


def _spots(layers: _Layers, look: Look, rng: canvas.Rng) -> None:
    """Brown globules and dots, close-packed cobblestones and grey-blue leaf-like areas."""
    size = layers.size
    centres = canvas.points_inside(rng, layers.curve, 90, 0.1, 0.92)
    radii, tone = rng.uniform(0.013, 0.031, 90), rng.uniform(0.55, 1.0, 90)
    shown = np.clip(90 * look.globules - np.arange(90), 0, 1) * tone
    layers.melanin += 1.5 * canvas.discs(size, centres, radii, shown, blur=0.005)

    x, y = canvas.coordinates(size)
    u, v = x + 0.03 * canvas.noise(rng, size, 6), y + 0.03 * canvas.noise(rng, size, 6)
    angle = rng.uniform(0, _TAU)
    if look.cobblestone > 0.02:
        stones = canvas.smoothstep(-0.6, 0.9, _honeycomb(u, v, 0.125, angle))
        layers.melanin += look.cobblestone * layers.body * (0.9 * stones - 0.25)

    turn = (rng.uniform(0, _TAU) + rng.normal(0, 0.55, 14)) % _TAU
    reach = rng.uniform(0.55, 0.92, 14) * layers.curve[(turn * (len(layers.curve) / _TAU)).astype(int)]
    at = reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    shown = np.clip(14 * look.leaves - np.arange(14), 0, 1) * 0.9
    leaves = canvas.discs(size, at, rng.uniform(0.03, 0.055, 14), shown, blur=0.008, stretch=2.1) * layers.body
    layers.deep += 0.75 * leaves
    layers.melanin += 0.55 * leaves


def _streaks(layers: _Layers, look: Look, rng: canvas.Rng) -> None:
    """Radial lines at the edge, as in a starburst."""
    count, phase = int(rng.integers(22, 32)), rng.uniform(0, _TAU)
    wobble = canvas.noise(rng, layers.size, 6)
    if look.streaks > 0.02:
        _, angle = canvas.polar(layers.size)
        turn = angle.astype(np.float32) * (count * _TAU / len(layers.curve))
        ridge = canvas.smoothstep(0.0, 0.9, np.cos(turn + phase + 1.2 * wobble))
        band = canvas.smoothstep(0.42, 0.22, layers.depth) * canvas.smoothstep(-0.01, 0.03, layers.depth)
        layers.melanin += look.streaks * band * (1.7 * ridge - 0.35)


def _veils(layers: _Layers, look: Look, rng: canvas.Rng) -> None:
    """Blue-white veil, and the white scar and grey peppering of regression."""
    size = layers.size
    x, y = canvas.coordinates(size)
    turn, other = rng.uniform(0, _TAU, 2).tolist()
    place, scar, texture = canvas.noise(rng, size, 4, 2), canvas.noise(rng, size, 4, 2), canvas.noise(rng, size, 20)
    pepper = canvas.noise(rng, size, 48)
    near = 0.9 - 2.2 * np.hypot(x - 0.18 * math.cos(turn), y - 0.18 * math.sin(turn))
    veil = layers.body * canvas.smoothstep(0.9, -0.6, 1.55 - 2.1 * look.veil - near - 0.35 * place)
    veil *= min(1.0, 4.0 * look.veil)
    layers.deep += 0.55 * veil
    layers.cover((0.62, 0.68, 0.78), veil * (0.40 + 0.05 * texture))
    near = 0.9 - 2.4 * np.hypot(x - 0.22 * math.cos(other), y - 0.22 * math.sin(other))
    white = layers.body * look.regression * canvas.smoothstep(-0.2, 0.5, near + 0.35 * scar)
    layers.deep += white * canvas.smoothstep(0.9, 1.6, pepper) * 0.9
    layers.cover((0.93, 0.86, 0.83), white * 0.62)


def _lacunae(layers: _Layers, look: Look, rng: canvas.Rng) -> None:
    """Red to purple lagoons of blood."""
    centres = canvas.points_inside(rng, layers.curve, 30, 0.0, 0.85)
    radii, tone = rng.uniform(0.045, 0.105, 30), rng.uniform(0.5, 1.0, 30)
    shown = np.clip(36 * (look.redness - 0.45) / 0.55 - np.arange(30), 0, 1) * tone
    lagoons = canvas.discs(layers.size, centres, radii, shown, blur=0.008)
    layers.blood += 1.5 * lagoons
    layers.deep += 0.38 * lagoons * lagoons


def _vessels(layers: _Layers, look: Look, rng: canvas.Rng) -> None:
    """Arborising vessels: trunks that enter from the edge, branch and thin out."""
    trunks, joints = 6, np.array([3, 5, 7, 9, 11])
    strength = np.clip(trunks * look.vessels - np.arange(trunks), 0, 1) * (0.45 + 0.55 * look.vessels)
    turns = rng.uniform(0, _TAU, trunks)
    starts = 0.5 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    headings = turns + np.pi + 0.4 * rng.normal(size=trunks)
    mains = canvas.wander(rng, starts, headings, rng.uniform(0.5, 0.9, trunks), 0.9, points=14)
    along = mains[:, joints] - mains[:, joints - 1]
    sides = rng.choice((-1.0, 1.0), (trunks, joints.size)) * rng.uniform(0.5, 1.1, (trunks, joints.size))
    forks = (np.arctan2(along[..., 1], along[..., 0]) + sides).ravel()
    lengths = rng.uniform(0.15, 0.4, forks.size)
    twigs = canvas.wander(rng, mains[:, joints].reshape(-1, 2), forks, lengths, 1.3, points=14)
    paths = np.concatenate([mains, twigs])
    widths = np.repeat([0.028, 0.019], [trunks, forks.size])
    weights = np.concatenate([strength, np.repeat(0.9 * strength, joints.size)])
    lines = canvas.ribbons(layers.size, paths, widths, np.full(widths.size, 0.4), weights, blur=0.003)
    layers.blood += 1.9 * lines * layers.body


def _milia(layers: _Layers, look: Look, rng: canvas.Rng) -> None:
    """Milia-like cysts (small, bright, blurred) and comedo-like openings (dark brown plugs)."""
    centres = canvas.points_inside(rng, layers.curve, 44, 0.05, 0.9)
    radii, tone = rng.uniform(0.015, 0.033, 44), rng.uniform(0.6, 1.0, 44)
    shown = np.clip(44 * look.milia - np.arange(44), 0, 1) * tone
    cyst = np.arange(44) % 3 > 0
    layers.melanin += 1.5 * canvas.discs(layers.size, centres, 1.25 * radii, shown * ~cyst, blur=0.008)
    layers.cover((0.98, 0.93, 0.78), 0.85 * canvas.discs(layers.size, centres, radii, shown * cyst, blur=0.009))


def photograph(plate: Plate, skin: Skin, rng: canvas.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay a lesion on skin in a random pose and light, and photograph it.

    Args:
        plate: The lesion.
        skin: The patient's skin.
        rng: Draws everything about the view; none of it depends on the lesion.
        size: Side of the picture in pixels.

    Returns:
        The picture, uint8 RGB (size, size, 3), and the exact lesion mask, uint8 (size, size), 0 or 255.
    """
    pose_rng, skin_rng, extra_rng, camera_rng = rng.spawn(4)
    pose = _pose(pose_rng, plate.pigment.shape[-1], size)
    melanin, blood, deep, depth = _lay(plate.pigment, pose, size, cv2.BORDER_REPLICATE)
    *overlay, opacity = _lay(plate.overlay, pose, size, cv2.BORDER_CONSTANT)
    mask = np.where(depth > 0, np.uint8(255), np.uint8(0))

    mottle, creases = canvas.noise(skin_rng, size, 5, 2), canvas.noise(skin_rng, size, 30, 2)
    furrows = np.exp(-8.0 * creases * creases)
    melanin = np.maximum(melanin, 0) + skin.melanin * (1.0 + 0.10 * mottle) + 0.03 * furrows
    blood = np.maximum(blood, 0) + skin.blood * (1.0 + 0.12 * canvas.noise(skin_rng, size, 8, 3)) + 0.02 * creases
    deep = np.maximum(deep, 0)
    clear = (1.0 - opacity) * (1.0 + 0.02 * creases)
    image = np.empty((3, size, size), np.float32)
    for channel, (plane, cover) in enumerate(zip(image, overlay, strict=True)):
        of_melanin, of_blood, of_deep = _ABSORBANCE[:, channel].tolist()
        attenuation = np.exp(-(of_melanin * melanin + of_blood * blood + of_deep * deep))
        np.add(_DERMIS[channel] * clear * attenuation, cover, out=plane)

    chance = extra_rng.uniform(size=5)
    hairs = int(extra_rng.integers(3, 16))
    if skin.hair + 0.3 * (chance[0] - 0.5) > 0.66:
        canvas.hairs(image, extra_rng, hairs, extra_rng.uniform(0.55, 0.95))
    if chance[1] < 0.22:
        canvas.bubbles(image, extra_rng, int(extra_rng.integers(2, 9)))
    if chance[2] < 0.12:
        canvas.ruler(image, extra_rng)
    tube = extra_rng.uniform(1.0, 1.25) if chance[3] < 0.3 else 0.0
    canvas.vignette(image, extra_rng, extra_rng.uniform(0.08, 0.35), tube)
    return canvas.camera(image, camera_rng), mask


def _lay(planes: np.ndarray, pose: np.ndarray, size: int, border: int) -> Sequence[np.ndarray]:
    return cv2.split(
        cv2.warpAffine(cv2.merge(list(planes)), pose, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    )


def _pose(rng: canvas.Rng, plate_size: int, size: int) -> np.ndarray:
    """Random rotation, zoom, shift and mirror image, as the (2, 3) matrix from plate pixels to picture pixels."""
    angle, zoom = rng.uniform(0, _TAU), rng.uniform(0.82, 1.12) * size / plate_size
    mirror = 1.0 if rng.uniform() < 0.5 else -1.0
    linear = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1.0])
    shift = (size - 1) / 2 + rng.uniform(-0.05, 0.05, 2) * size - linear @ np.full(2, (plate_size - 1) / 2)
    return np.column_stack([linear, shift])
