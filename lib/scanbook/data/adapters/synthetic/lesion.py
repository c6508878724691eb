"""A synthetic skin lesion: from the strengths of dermoscopic structures to a photograph through a dermatoscope.

`build_lesion` makes the lesion once, as amounts of pigment and opaque structures. `photograph` places it on skin in a
pose and a light. Colour follows the law of Beer and Lambert: the light that the white dermis reflects is attenuated by
exp(-amount × absorbance) of melanin, haemoglobin and deep grey pigment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scanbook.data.adapters.synthetic import primitives

# Absorbance of one unit of melanin, haemoglobin and deep (blue-grey) pigment in red, green and blue light, chosen
# by eye to give the browns, pinks and slate greys of dermoscopy.
_ABSORBANCE = np.array([[0.46, 0.82, 1.10], [0.10, 0.80, 0.62], [1.05, 0.80, 0.55]], np.float32)
_DERMIS = (0.98, 0.90, 0.84)
_RADIUS = 0.60  # of a lesion, in units of half its image
_TAU = 2 * np.pi


@dataclass(frozen=True)
class Appearance:
    """Strength of each structure, 0 (absent) to 1 (maximal)."""

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
class Lesion:
    """A synthetic lesion, without skin, pose or light.

    Attributes:
        pigment: float32 (4, size, size): melanin, haemoglobin, deep pigment, and the depth inside the outline.
        overlay: float32 (4, size, size): opaque structures as RGB times opacity, and opacity.
    """

    pigment: np.ndarray
    overlay: np.ndarray


@dataclass(frozen=True)
class Skin:
    """A patient's skin: amounts of melanin and blood, and how hairy it is (0 to 1)."""

    melanin: float
    blood: float
    hair: float


def sample_skin(rng: primitives.Rng) -> Skin:
    """Return the skin of a random patient."""
    return Skin(melanin=0.08 + rng.gamma(2.0, 0.05), blood=rng.uniform(0.08, 0.22), hair=rng.uniform())


def build_lesion(appearance: Appearance, rng: primitives.Rng, size: int) -> Lesion:
    """Return a synthetic lesion.

    Args:
        appearance: Strengths of its structures.
        rng: Places the structures. With the same state, another strength changes that structure alone.
        size: Side in pixels.
    """
    shape_rng, colour_rng, fine_rng, spot_rng, line_rng = rng.spawn(5)
    curve = primitives.outline(
        shape_rng, _RADIUS, 0.05 + 0.20 * appearance.irregularity, 0.006 + 0.075 * appearance.irregularity
    )
    warp = primitives.noise(shape_rng, size, 14, 2)
    depth = primitives.depth_inside(curve, size) + (0.008 + 0.035 * appearance.irregularity) * warp
    body = primitives.smoothstep(-0.02, 0.16 - 0.10 * appearance.irregularity, depth)
    layers = _base(appearance, colour_rng, curve, depth, body)
    _network(layers, appearance, fine_rng)
    _spots(layers, appearance, spot_rng)
    _streaks(layers, appearance, spot_rng)
    _veils(layers, appearance, colour_rng)
    _lacunae(layers, appearance, spot_rng)
    _vessels(layers, appearance, line_rng)
    _milia(layers, appearance, spot_rng)
    return Lesion(np.stack([layers.melanin, layers.blood, layers.deep, depth]), layers.overlay)


@dataclass
class _Layers:
    """A lesion in the making: outline, depth inside it, how far it covers the skin, and its pigments so far."""

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
        """Blend an opaque structure over all others."""
        primitives.blend(self.overlay, (*colour, 1.0), opacity)


def _base(
    appearance: Appearance, rng: primitives.Rng, curve: np.ndarray, depth: np.ndarray, body: np.ndarray
) -> _Layers:
    """Return a lesion without structures: one colour, or patches of several."""
    size = depth.shape[0]
    x, y = primitives.coordinates(size)
    tilt = rng.uniform(0, _TAU)
    lean = (0.2 + 1.0 * appearance.irregularity) * (math.cos(tilt) * x + math.sin(tilt) * y)
    first, second, third = (primitives.noise(rng, size, cells, 2) for cells in (4, 4, 5))
    grain = primitives.noise(rng, size, 24, 2)
    uneven = 1.0 + 0.10 * grain + (0.08 + 0.30 * appearance.colours) * first + 0.5 * lean
    centre = 0.75 + 0.35 * np.clip(depth, 0, 1)
    amount = (0.30 + 1.10 * appearance.darkness) * (1.0 - 0.60 * appearance.redness)
    black = appearance.colours * primitives.smoothstep(0.5, 1.1, second + 0.5 * lean)
    tan = appearance.colours * primitives.smoothstep(0.4, 1.0, -second)
    red = appearance.colours * primitives.smoothstep(0.6, 1.2, third)
    melanin = amount * body * centre * np.clip(uneven, 0.25, 2.0) * (1.0 + 1.1 * black - 0.6 * tan - 0.5 * red)
    blood = body * (0.02 + 0.85 * appearance.redness + 0.40 * red + 0.08 * appearance.redness * grain)
    deep = body * (0.35 * black + 0.05 * appearance.darkness)
    return _Layers(curve, depth, body, melanin, blood, deep, np.zeros((4, size, size), np.float32))


def _honeycomb(x: np.ndarray, y: np.ndarray, pitch: float, angle: float) -> np.ndarray:
    """Return the sum of three plane waves at 60 degrees: 3 at the centres of a hexagonal lattice, -1.5 between them."""
    wave = np.zeros_like(x)
    for direction in (angle, angle + _TAU / 6, angle + _TAU / 3):
        k = _TAU / (pitch * math.sqrt(0.75))
        wave += np.cos(k * math.cos(direction) * x + k * math.sin(direction) * y)
    return wave


def _network(layers: _Layers, appearance: Appearance, rng: primitives.Rng) -> None:
    """Add the pigment network: a honeycomb of brown lines, which irregular lesions distort and break up."""
    size = layers.size
    x, y = primitives.coordinates(size)
    bend = 0.035 + 0.045 * appearance.irregularity
    u, v = x + bend * primitives.noise(rng, size, 7), y + bend * primitives.noise(rng, size, 7)
    patchy = primitives.noise(rng, size, 5)
    lines = primitives.smoothstep(0.1, -1.1, _honeycomb(u, v, rng.uniform(0.078, 0.104), rng.uniform(0, _TAU)))
    where = layers.body * np.clip(0.75 + (0.15 + 0.45 * appearance.irregularity) * patchy, 0, 1.3)
    where *= primitives.smoothstep(0.75, 0.45, layers.depth) * 0.6 + 0.4
    layers.melanin += appearance.network * where * (1.05 * lines - 0.30 * (0.25 + appearance.darkness))


def _spots(layers: _Layers, appearance: Appearance, rng: primitives.Rng) -> None:
    """Add brown globules and dots, close-packed cobblestones and grey-blue leaf-like areas."""
    size = layers.size
    centres = primitives.points_inside(rng, layers.curve, 90, 0.1, 0.92)
    radii, tone = rng.uniform(0.013, 0.031, 90), rng.uniform(0.55, 1.0, 90)
    weights = np.clip(90 * appearance.globules - np.arange(90), 0, 1) * tone
    layers.melanin += 1.5 * primitives.discs(size, centres, radii, weights, blur=0.005)

    x, y = primitives.coordinates(size)
    u, v = x + 0.03 * primitives.noise(rng, size, 6), y + 0.03 * primitives.noise(rng, size, 6)
    angle = rng.uniform(0, _TAU)
    if appearance.cobblestone > 0.02:
        stones = primitives.smoothstep(-0.6, 0.9, _honeycomb(u, v, 0.125, angle))
        layers.melanin += appearance.cobblestone * layers.body * (0.9 * stones - 0.25)

    turn = (rng.uniform(0, _TAU) + rng.normal(0, 0.55, 14)) % _TAU
    reach = rng.uniform(0.55, 0.92, 14) * layers.curve[(turn * (len(layers.curve) / _TAU)).astype(int)]
    centres = reach[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    weights = np.clip(14 * appearance.leaves - np.arange(14), 0, 1) * 0.9
    leaves = (
        primitives.discs(size, centres, rng.uniform(0.03, 0.055, 14), weights, blur=0.008, stretch=2.1) * layers.body
    )
    layers.deep += 0.75 * leaves
    layers.melanin += 0.55 * leaves


def _streaks(layers: _Layers, appearance: Appearance, rng: primitives.Rng) -> None:
    """Add radial lines at the edge, as in a starburst."""
    count, phase = int(rng.integers(22, 32)), rng.uniform(0, _TAU)
    wobble = primitives.noise(rng, layers.size, 6)
    if appearance.streaks > 0.02:
        _, angle = primitives.polar(layers.size)
        turn = angle.astype(np.float32) * (count * _TAU / len(layers.curve))
        ridge = primitives.smoothstep(0.0, 0.9, np.cos(turn + phase + 1.2 * wobble))
        band = primitives.smoothstep(0.42, 0.22, layers.depth) * primitives.smoothstep(-0.01, 0.03, layers.depth)
        layers.melanin += appearance.streaks * band * (1.7 * ridge - 0.35)


def _veils(layers: _Layers, appearance: Appearance, rng: primitives.Rng) -> None:
    """Add the blue-white veil, and the white scar and grey peppering of regression."""
    size = layers.size
    x, y = primitives.coordinates(size)
    turn, other = rng.uniform(0, _TAU, 2).tolist()
    place, scar, texture = (
        primitives.noise(rng, size, 4, 2),
        primitives.noise(rng, size, 4, 2),
        primitives.noise(rng, size, 20),
    )
    pepper = primitives.noise(rng, size, 48)
    near = 0.9 - 2.2 * np.hypot(x - 0.18 * math.cos(turn), y - 0.18 * math.sin(turn))
    veil = layers.body * primitives.smoothstep(0.9, -0.6, 1.55 - 2.1 * appearance.veil - near - 0.35 * place)
    veil *= min(1.0, 4.0 * appearance.veil)
    layers.deep += 0.55 * veil
    layers.cover((0.62, 0.68, 0.78), veil * (0.40 + 0.05 * texture))
    near = 0.9 - 2.4 * np.hypot(x - 0.22 * math.cos(other), y - 0.22 * math.sin(other))
    white = layers.body * appearance.regression * primitives.smoothstep(-0.2, 0.5, near + 0.35 * scar)
    layers.deep += white * primitives.smoothstep(0.9, 1.6, pepper) * 0.9
    layers.cover((0.93, 0.86, 0.83), white * 0.62)


def _lacunae(layers: _Layers, appearance: Appearance, rng: primitives.Rng) -> None:
    """Add red to purple lacunae of blood."""
    centres = primitives.points_inside(rng, layers.curve, 30, 0.0, 0.85)
    radii, tone = rng.uniform(0.045, 0.105, 30), rng.uniform(0.5, 1.0, 30)
    weights = np.clip(36 * (appearance.redness - 0.45) / 0.55 - np.arange(30), 0, 1) * tone
    lacunae = primitives.discs(layers.size, centres, radii, weights, blur=0.008)
    layers.blood += 1.5 * lacunae
    layers.deep += 0.38 * lacunae * lacunae


def _vessels(layers: _Layers, appearance: Appearance, rng: primitives.Rng) -> None:
    """Add arborising vessels: trunks that enter from the edge, branch and thin out."""
    trunks, joints = 6, np.array([3, 5, 7, 9, 11])
    strength = np.clip(trunks * appearance.vessels - np.arange(trunks), 0, 1) * (0.45 + 0.55 * appearance.vessels)
    turns = rng.uniform(0, _TAU, trunks)
    starts = 0.5 * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    headings = turns + np.pi + 0.4 * rng.normal(size=trunks)
    mains = primitives.random_paths(rng, starts, headings, rng.uniform(0.5, 0.9, trunks), 0.9, points=14)
    along = mains[:, joints] - mains[:, joints - 1]
    sides = rng.choice((-1.0, 1.0), (trunks, joints.size)) * rng.uniform(0.5, 1.1, (trunks, joints.size))
    forks = (np.arctan2(along[..., 1], along[..., 0]) + sides).ravel()
    lengths = rng.uniform(0.15, 0.4, forks.size)
    twigs = primitives.random_paths(rng, mains[:, joints].reshape(-1, 2), forks, lengths, 1.3, points=14)
    paths = np.concatenate([mains, twigs])
    widths = np.repeat([0.028, 0.019], [trunks, forks.size])
    weights = np.concatenate([strength, np.repeat(0.9 * strength, joints.size)])
    lines = primitives.ribbons(layers.size, paths, widths, np.full(widths.size, 0.4), weights, blur=0.003)
    layers.blood += 1.9 * lines * layers.body


def _milia(layers: _Layers, appearance: Appearance, rng: primitives.Rng) -> None:
    """Add milia-like cysts (small, bright, blurred) and comedo-like openings (dark brown plugs)."""
    centres = primitives.points_inside(rng, layers.curve, 44, 0.05, 0.9)
    radii, tone = rng.uniform(0.015, 0.033, 44), rng.uniform(0.6, 1.0, 44)
    weights = np.clip(44 * appearance.milia - np.arange(44), 0, 1) * tone
    cyst = np.arange(44) % 3 > 0
    layers.melanin += 1.5 * primitives.discs(layers.size, centres, 1.25 * radii, weights * ~cyst, blur=0.008)
    layers.cover((0.98, 0.93, 0.78), 0.85 * primitives.discs(layers.size, centres, radii, weights * cyst, blur=0.009))


def photograph(lesion: Lesion, skin: Skin, rng: primitives.Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a lesion on skin, in a random pose and light.

    Args:
        lesion: The lesion.
        skin: The patient's skin.
        rng: Samples the view; nothing in the view depends on the lesion.
        size: Side of the image in pixels.

    Returns:
        The image, uint8 RGB (size, size, 3), and the exact lesion mask, uint8 (size, size), 0 or 255.
    """
    pose_rng, skin_rng, extra_rng, camera_rng = rng.spawn(4)
    pose = _random_pose(pose_rng, lesion.pigment.shape[-1], size)
    melanin, blood, deep, depth = _warp(lesion.pigment, pose, size, cv2.BORDER_REPLICATE)
    *overlay, opacity = _warp(lesion.overlay, pose, size, cv2.BORDER_CONSTANT)
    mask = np.where(depth > 0, np.uint8(255), np.uint8(0))

    mottle, creases = primitives.noise(skin_rng, size, 5, 2), primitives.noise(skin_rng, size, 30, 2)
    furrows = np.exp(-8.0 * creases * creases)
    melanin = np.maximum(melanin, 0) + skin.melanin * (1.0 + 0.10 * mottle) + 0.03 * furrows
    blood = np.maximum(blood, 0) + skin.blood * (1.0 + 0.12 * primitives.noise(skin_rng, size, 8, 3)) + 0.02 * creases
    deep = np.maximum(deep, 0)
    clear = (1.0 - opacity) * (1.0 + 0.02 * creases)
    image = np.empty((3, size, size), np.float32)
    for channel, (plane, opaque) in enumerate(zip(image, overlay, strict=True)):
        per_melanin, per_blood, per_deep = _ABSORBANCE[:, channel].tolist()
        attenuation = np.exp(-(per_melanin * melanin + per_blood * blood + per_deep * deep))
        np.add(_DERMIS[channel] * clear * attenuation, opaque, out=plane)

    probability = extra_rng.uniform(size=5)
    hairs = int(extra_rng.integers(3, 16))
    if skin.hair + 0.3 * (probability[0] - 0.5) > 0.66:
        primitives.add_hairs(image, extra_rng, hairs, extra_rng.uniform(0.55, 0.95))
    if probability[1] < 0.22:
        primitives.add_bubbles(image, extra_rng, int(extra_rng.integers(2, 9)))
    if probability[2] < 0.12:
        primitives.add_ruler(image, extra_rng)
    tube = extra_rng.uniform(1.0, 1.25) if probability[3] < 0.3 else 0.0
    primitives.add_vignette(image, extra_rng, extra_rng.uniform(0.08, 0.35), tube)
    return primitives.take_photograph(image, camera_rng), mask


def _warp(planes: np.ndarray, pose: np.ndarray, size: int, border: int) -> Sequence[np.ndarray]:
    return cv2.split(
        cv2.warpAffine(cv2.merge(list(planes)), pose, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
    )


def _random_pose(rng: primitives.Rng, lesion_size: int, size: int) -> np.ndarray:
    """Return a random rotation, zoom, shift and reflection: the (2, 3) matrix from lesion pixels to image pixels."""
    angle, zoom = rng.uniform(0, _TAU), rng.uniform(0.82, 1.12) * size / lesion_size
    mirror = 1.0 if rng.uniform() < 0.5 else -1.0
    linear = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([mirror, 1.0])
    shift = (size - 1) / 2 + rng.uniform(-0.05, 0.05, 2) * size - linear @ np.full(2, (lesion_size - 1) / 2)
    return np.column_stack([linear, shift])
