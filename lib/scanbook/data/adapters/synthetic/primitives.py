"""Primitives of image synthesis that all modalities share: noise, outlines, discs, lines, artefacts and the camera.

Coordinates are in units of half the image: x to the right and y downwards, both from -1 to 1. Radii and widths use the
same unit, so an image looks alike at every size. Fields are float32 (size, size). Images are float32 planes
(3, size, size), 0 to 1, because NumPy is ten times slower along a last axis of three. Every function takes its random
generator and samples a fixed number of values from it, whatever the strengths. A change of one strength therefore
leaves the rest of the image in place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

Rng = np.random.Generator
Colour = Sequence[float]

_SHIFT = 4  # fractional bits of the sub-pixel coordinates that OpenCV takes
_ANGLES = 1024


@lru_cache(maxsize=8)
def coordinates(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of every pixel centre, each float32 (size, size), read-only."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0
    x, y = np.meshgrid(axis, axis)
    x.flags.writeable = y.flags.writeable = False
    return x, y


@lru_cache(maxsize=8)
def polar(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return radius (float32) and angle index (int, 0 to 1023 for a full turn), each (size, size), read-only."""
    x, y = coordinates(size)
    radius = np.hypot(x, y)
    angle = (np.arctan2(y, x) * (_ANGLES / (2 * np.pi))).astype(np.int64) % _ANGLES
    radius.flags.writeable = angle.flags.writeable = False
    return radius, angle


def smoothstep(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """Return 0 below `low`, 1 above `high` and the cubic 3t² - 2t³ between, in the shape of `values`.

    `low > high` falls instead of rising.
    """
    t = np.clip((values - low) * (1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def noise(rng: Rng, size: int, cells: int, octaves: int = 1) -> np.ndarray:
    """Return a band-limited field with mean 0 and standard deviation near 1, float32 (size, size).

    `cells` random values across the image are interpolated by cubics. Each further octave has twice as many values at
    half the amplitude. Octaves finer than the pixels are sampled from `rng` and then averaged away.
    """
    total = np.zeros((1, 1), np.float32)
    for octave in range(octaves):
        count = cells * 2**octave
        grid = rng.standard_normal((count, count), dtype=np.float32)
        if octave:  # added on the finer grid, which is far smaller than the image
            grid = 0.5**octave * grid + cv2.resize(total, (count, count), interpolation=cv2.INTER_CUBIC)
        total = grid
    method = cv2.INTER_CUBIC if total.shape[0] <= size else cv2.INTER_AREA
    total = cv2.resize(total, (size, size), interpolation=method)
    return total * np.float32(1.35 / math.sqrt(sum(0.25**octave for octave in range(octaves))))


def outline(rng: Rng, radius: float, lobes: float, jags: float) -> np.ndarray:
    """Return a closed curve as its radius at 1024 angles, from a random Fourier series.

    Args:
        rng: Random generator.
        radius: Mean radius.
        lobes: Amplitude of harmonics 2 to 5 (overall shape), as a fraction of the radius.
        jags: Amplitude of harmonics 6 to 24 (edge), as a fraction of the radius.
    """
    order = np.arange(2, 25)
    phase = rng.uniform(0, 2 * np.pi, order.size)
    weight = rng.normal(size=order.size)
    amplitude = np.where(order <= 5, lobes / (order - 1.0), jags * (order / 6.0) ** -1.3)
    angle = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    series = (amplitude * weight) @ np.cos(order[:, None] * angle + phase[:, None])
    return (radius * np.clip(1.0 + series, 0.45, 1.45)).astype(np.float32)


def depth_inside(curve: np.ndarray, size: int) -> np.ndarray:
    """Return 1 - r/R(angle): 1 at the centre, 0 on the curve, negative outside; float32 (size, size)."""
    radius, angle = polar(size)
    return 1.0 - radius / curve[angle]


def points_inside(rng: Rng, curve: np.ndarray, count: int, inner: float = 0.0, outer: float = 0.9) -> np.ndarray:
    """Return `count` points spread evenly over the curve's inside, between two fractions of its radius, (count, 2)."""
    index = rng.integers(0, _ANGLES, count)
    fraction = np.sqrt(rng.uniform(inner**2, outer**2, count))
    angle = index * (2 * np.pi / _ANGLES)
    return (curve[index] * fraction)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _pixels(values: np.ndarray, size: int) -> np.ndarray:
    """Return positions in image units as OpenCV's fixed-point pixel coordinates."""
    return np.rint(((np.asarray(values) + 1.0) * (size / 2.0) - 0.5) * (1 << _SHIFT)).astype(np.int32)


def discs(
    size: int, centres: np.ndarray, radii: np.ndarray, weights: np.ndarray, *, blur: float = 0.0, stretch: float = 1.0
) -> np.ndarray:
    """Return a field with a filled disc per centre, float32 (size, size) in 0 to 1.

    Args:
        size: Side in pixels.
        centres: Positions, (n, 2).
        radii: Radii, (n,).
        weights: Value of each disc, 0 to 1, (n,); discs of weight 0 are omitted.
        blur: Standard deviation of the Gaussian that softens them.
        stretch: Ratio of the axes; above 1 the discs are ellipses pointing away from the centre.
    """
    layer = np.zeros((size, size), np.uint8)
    positions = _pixels(centres, size)
    # OpenCV's smooth edge adds half a pixel; its smallest disc is 0.68 pixels in radius. Smaller ones are fainter.
    pixels = radii * (size / 2.0)
    pixel_radii = np.rint(np.maximum(pixels - 0.5, 0.125) * (1 << _SHIFT)).astype(int)
    levels = np.rint(np.clip(weights, 0, 1) * np.minimum(1.0, (pixels / 0.68) ** 2) * 255).astype(int)
    directions = np.degrees(np.arctan2(centres[:, 1], centres[:, 0]))
    for (x, y), radius, level, direction in zip(
        positions.tolist(), pixel_radii.tolist(), levels.tolist(), directions.tolist(), strict=True
    ):
        if level == 0:
            continue
        if stretch == 1.0:
            cv2.circle(layer, (x, y), radius, level, -1, cv2.LINE_AA, _SHIFT)
        else:
            axes = (int(radius * stretch), radius)
            cv2.ellipse(layer, (x, y), axes, direction, 0, 360, level, -1, cv2.LINE_AA, _SHIFT)
    return soften(layer, blur)


def ribbons(
    size: int, paths: np.ndarray, widths: np.ndarray, tips: np.ndarray, weights: np.ndarray, *, blur: float = 0.0
) -> np.ndarray:
    """Return a field with a tapering line along each path, float32 (size, size) in 0 to 1.

    Args:
        size: Side in pixels.
        paths: Points along each line, (n, k, 2).
        widths: Width at the start of each line, (n,). Lines thinner than a pixel become fainter instead.
        tips: Width at the end, as a fraction of that at the start, (n,).
        weights: Value of each line, 0 to 1, (n,); lines of weight 0 are omitted.
        blur: Standard deviation of the Gaussian that softens them.
    """
    layer = np.zeros((size, size), np.uint8)
    along = np.gradient(paths, axis=1)
    normal = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    pixels = widths * (size / 2.0)
    # OpenCV's smooth edges add about a pixel to what they surround.
    half = (np.maximum(pixels - 1.0, 0.0) / size)[:, None] * (
        1 + (tips[:, None] - 1) * np.linspace(0, 1, paths.shape[1])
    )
    edge = normal * half[..., None]
    shapes = _pixels(np.concatenate([paths + edge, (paths - edge)[:, ::-1]], axis=1), size)
    levels = (255 * np.clip(weights, 0, 1) * np.minimum(pixels, 1.0)).astype(int).tolist()
    for shape, level in zip(shapes, levels, strict=True):
        if level:
            cv2.fillPoly(layer, [shape], level, cv2.LINE_AA, _SHIFT)
    return soften(layer, blur)


def soften(layer: np.ndarray, blur: float) -> np.ndarray:
    """Return a uint8 layer as float32 in 0 to 1, blurred by a Gaussian of `blur` (image units)."""
    field = layer.astype(np.float32) * np.float32(1 / 255)
    sigma = blur * layer.shape[0] / 2.0
    return cv2.GaussianBlur(field, (0, 0), sigma) if sigma > 0.25 else field


def blend(image: np.ndarray, colour: Colour, alpha: np.ndarray) -> None:
    """Blend `colour` (c values) into an image (c, size, size) in place, with the opacity `alpha` (size, size)."""
    for plane, value in zip(image, colour, strict=True):
        np.add(plane, alpha * (value - plane), out=plane)


def random_paths(
    rng: Rng, starts: np.ndarray, headings: np.ndarray, lengths: np.ndarray, bend: float, *, points: int
) -> np.ndarray:
    """Return smooth random paths, (n, points, 2).

    Args:
        rng: Random generator.
        starts: First points, (n, 2).
        headings: First directions in radians, (n,).
        lengths: Lengths, (n,).
        bend: Typical change of direction from start to end, radians.
        points: Points along each path.
    """
    count, steps = len(starts), points - 1
    drift = rng.normal(size=(count, 1)) * np.linspace(0, 1, steps)
    drift += 0.5 / math.sqrt(points) * np.cumsum(rng.normal(size=(count, steps)), axis=1)
    heading = headings[:, None] + bend * drift
    moves = (lengths / steps)[:, None, None] * np.stack([np.cos(heading), np.sin(heading)], axis=-1)
    return starts[:, None] + np.concatenate([np.zeros((count, 1, 2)), np.cumsum(moves, axis=1)], axis=1)


def add_hairs(image: np.ndarray, rng: Rng, count: int, darkness: float) -> None:
    """Draw tapering, curved hairs over an RGB image (3, size, size), in place."""
    headings = rng.uniform(0, 2 * np.pi) + 0.6 * rng.normal(size=count)
    lengths = rng.uniform(0.6, 1.9, count)
    directions = np.stack([np.cos(headings), np.sin(headings)], axis=1)
    starts = rng.uniform(-0.9, 0.9, (count, 2)) - 0.5 * lengths[:, None] * directions
    paths = random_paths(rng, starts, headings, lengths, 0.8, points=20)
    widths = rng.uniform(0.013, 0.024, count)
    layer = ribbons(image.shape[-1], paths, widths, np.full(count, 0.3), np.full(count, darkness), blur=0.003)
    blend(image, (0.13, 0.09, 0.07), layer)


def add_ruler(image: np.ndarray, rng: Rng) -> None:
    """Draw the millimetre marks of a dermatoscope's scale along one edge of an RGB image (3, size, size), in place."""
    level = rng.uniform(0.80, 0.93)
    marks = np.arange(-0.95, 0.95, rng.uniform(0.085, 0.12))
    longer = np.where(np.arange(marks.size) % 5 == 0, 0.13, 0.075)
    ticks = np.stack([np.stack([marks, np.full(marks.size, level)], 1), np.stack([marks, level - longer], 1)], 1)
    lines = np.concatenate([ticks, [[[-1.0, level], [1.0, level]]]])
    ones = np.ones(len(lines))
    layer = ribbons(image.shape[-1], lines, 0.014 * ones, ones, 0.85 * ones)
    blend(image, (0.10, 0.10, 0.12), np.ascontiguousarray(np.rot90(layer, int(rng.integers(4)))))


def add_bubbles(image: np.ndarray, rng: Rng, count: int) -> None:
    """Draw bubbles of immersion gel (bright rim, dark outer edge, highlight) on an RGB image (3, size, size)."""
    size = image.shape[-1]
    rim, core, glint = (np.zeros((size, size), np.uint8) for _ in range(3))
    for _ in range(count):
        position, radius = rng.uniform(-0.95, 0.95, 2), rng.gamma(2.0, 0.022) + 0.02
        centre = tuple(_pixels(position, size).tolist())
        pixel = int(radius * size / 2 * (1 << _SHIFT))
        cv2.circle(core, centre, pixel, 60, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(rim, centre, pixel, 130, 1, cv2.LINE_AA, _SHIFT)
        light = tuple(_pixels(position - 0.4 * radius, size).tolist())
        cv2.circle(glint, light, max(pixel // 4, 8), 230, -1, cv2.LINE_AA, _SHIFT)
    blend(image, (0.95, 0.90, 0.87), soften(core, 0.01) * 0.6)
    blend(image, (0.98, 0.95, 0.93), soften(rim, 0.006))
    blend(image, (1.0, 1.0, 1.0), soften(glint, 0.006))


def add_vignette(image: np.ndarray, rng: Rng, strength: float, tube: float) -> None:
    """Darken an RGB image towards its corners, in place.

    Args:
        image: (3, size, size), 0 to 1.
        rng: Random generator, for the position of the light.
        strength: Fraction of light lost in the corners.
        tube: Radius of the dermatoscope's black surround; 0 for none.
    """
    x, y = coordinates(image.shape[-1])
    dx, dy = rng.normal(0, 0.12, 2).tolist()
    squared = (x - dx) ** 2 + (y - dy) ** 2
    image *= 1.0 - (strength / 2.0) * squared
    if tube > 0:
        image *= smoothstep(tube + 0.03, tube - 0.01, polar(image.shape[-1])[0])


def take_photograph(
    image: np.ndarray,
    rng: Rng,
    *,
    balance: float = 0.03,
    exposure: float = 0.10,
    blur: float = 0.004,
    grain: float = 0.012,
) -> np.ndarray:
    """Return an image as a camera records it: white balance, exposure, focus and sensor noise, then uint8.

    Args:
        image: (3, size, size), 0 to 1.
        rng: Random generator.
        balance: Standard deviation of each channel's log gain.
        exposure: Standard deviation of the log exposure.
        blur: Largest standard deviation of the focus blur, image units.
        grain: Largest standard deviation of the sensor noise, 0 to 1.

    Returns:
        uint8 RGB (size, size, 3).
    """
    size = image.shape[-1]
    gain = np.exp(rng.normal(0, balance, 3) + rng.normal(0, exposure)).tolist()
    sigma = rng.uniform(0.3, 1.0) * blur * size / 2.0
    level = rng.uniform(0.3, 1.0) * grain
    noise_layer = rng.random((size, size), dtype=np.float32)
    noise_layer -= 0.5
    photograph = cv2.merge([plane * value for plane, value in zip(image, gain, strict=True)])
    if sigma > 0.2:
        photograph = cv2.GaussianBlur(photograph, (0, 0), sigma)
    noise_layer *= level * math.sqrt(12)
    photograph += cv2.merge([noise_layer, noise_layer, noise_layer])
    return cv2.convertScaleAbs(np.clip(photograph, 0.0, 1.0), alpha=255.0)
