"""Alignment of two small grey pictures: one is turned, shifted and stretched onto the other, and they are correlated.

Shift and stretch of each axis are estimated by Lucas and Kanade's method (1981; Baker and Matthews, 2004), for many
pairs at a time: a separable warp is two small matrix products.
"""

from __future__ import annotations

import cv2
import numpy as np

_LIMITS = (np.array([0.85, -0.16, 0.85, -0.16], np.float32), np.array([1.18, 0.16, 1.18, 0.16], np.float32))


def turn(pictures: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Return pictures `(p, s, s)` in orientations `(p,)` 0 to 7: mirrored from 4 on, then turned by n % 4 quarters."""
    turned = np.empty_like(pictures)
    for number in np.unique(orientation):
        rows = orientation == number
        mirrored = pictures[rows][:, :, ::-1] if number >= 4 else pictures[rows]
        turned[rows] = np.rot90(mirrored, number % 4, axes=(1, 2))
    return turned


def band(pictures: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """Return the structure between two scales, float32 `(n, s, s)`: a difference of Gaussians, deviations in pixels."""
    filtered = np.empty(pictures.shape, np.float32)
    for index, picture in enumerate(pictures.astype(np.float32)):
        filtered[index] = cv2.GaussianBlur(picture, (0, 0), fine) - cv2.GaussianBlur(picture, (0, 0), coarse)
    return filtered


def details(pictures: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Return fine structure, locally normalised, float32 `(n, s, s)`; coarser by the factor `scale`.

    Without the local normalisation, structure that all images of a kind share (the rim of a fundus, the ribs) would
    outweigh the structure of one image. The floor of two grey levels keeps the noise of even regions small.
    """
    filtered = band(pictures, 0.7 * scale, 2.0 * scale)
    for index, picture in enumerate(filtered):
        filtered[index] = picture / np.sqrt(cv2.GaussianBlur(picture * picture, (0, 0), 4.0 * scale) + 4.0)
    return filtered


def align(template: np.ndarray, source: np.ndarray, warp: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit the warps that map sources onto templates.

    Args:
        template: float32 `(p, s, s)`.
        source: float32 `(p, s, s)`.
        warp: float32 `(p, 4)`, the start: scale and shift along x, scale and shift along y. A point of the template,
            both axes from -1 to 1, lies at scale · point + shift of the source.
        steps: Gauss-Newton steps; 0 measures the warp as it is.

    Returns:
        The warps, `(p, 4)`, and the correlations over the area that both pictures show, `(p,)`.
    """
    side = template.shape[1]
    points = _points(side)
    for step in range(steps + 1):
        across, visible_across = _sampling(warp[:, 0], warp[:, 1], side)
        down, visible_down = _sampling(warp[:, 2], warp[:, 3], side)
        visible = visible_down[:, :, None] * visible_across[:, None, :]
        moved = _standardised(np.matmul(np.matmul(down, source), across.transpose(0, 2, 1)), visible)
        target = _standardised(template, visible)
        if step == steps:
            break
        slope_y, slope_x = np.gradient(moved, axis=(1, 2))
        slope_x *= visible
        slope_y *= visible
        columns = (slope_x * points, slope_x, slope_y * points[:, None], slope_y)
        jacobian = np.stack([column.reshape(len(warp), -1) for column in columns], 1)
        normal = np.matmul(jacobian, jacobian.transpose(0, 2, 1))
        damping = 1e-3 * np.trace(normal, axis1=1, axis2=2) / 4 + 1e-6
        normal += damping[:, None, None] * np.eye(4, dtype=np.float32)
        error = np.matmul(jacobian, (target - moved).reshape(len(warp), -1, 1))
        change = np.linalg.solve(normal, error)[..., 0] * (2 / side)
        warp = warp + np.repeat(warp[:, ::2], 2, axis=1) * change
        warp = np.clip(warp, *_LIMITS)
    return warp, (moved * target).sum((1, 2)) / visible.sum((1, 2))


def _points(side: int) -> np.ndarray:
    """Return the centres of the pixels of an axis, from -1 to 1."""
    return ((np.arange(side) + 0.5) * (2 / side) - 1).astype(np.float32)


def _sampling(scale: np.ndarray, shift: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return matrices of linear interpolation along an axis, `(p, side, side)`, and the points inside, `(p, side)`."""
    position = _points(side) * scale[:, None] + shift[:, None]
    cell = np.clip((position + 1) * (side / 2) - 0.5, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(cell[:, :, None] - np.arange(side, dtype=np.float32)))
    return weights.astype(np.float32), (np.abs(position) <= 1 + 1e-6).astype(np.float32)


def _standardised(pictures: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return the pictures with mean 0 and deviation 1 over the visible points, 0 elsewhere."""
    count = visible.sum((1, 2))
    centred = (pictures - ((pictures * visible).sum((1, 2)) / count)[:, None, None]) * visible
    deviation = np.sqrt((centred * centred).sum((1, 2)) / count) + 1e-4
    return centred / deviation[:, None, None]
