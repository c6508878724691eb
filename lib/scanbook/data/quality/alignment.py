"""How well two small grey pictures agree once one is turned, shifted and stretched onto the other.

Shift and stretch of each axis are estimated by Lucas and Kanade's method (1981; Baker and Matthews, 2004), for many
pairs at a time: a separable warp is two small matrix products.
"""

from __future__ import annotations

import cv2
import numpy as np

_LIMITS = (np.array([0.85, -0.16, 0.85, -0.16], np.float32), np.array([1.18, 0.16, 1.18, 0.16], np.float32))


def turn(pictures: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """Pictures `(p, s, s)` in orientations `(p,)` from 0 to 7: mirrored if 4 or more, then so many quarter-turns."""
    turned = np.empty_like(pictures)
    for each in np.unique(orientation):
        rows = orientation == each
        chosen = pictures[rows][:, :, ::-1] if each >= 4 else pictures[rows]
        turned[rows] = np.rot90(chosen, each % 4, axes=(1, 2))
    return turned


def band(pictures: np.ndarray, fine: float, coarse: float) -> np.ndarray:
    """What lies between two scales, float32 `(n, s, s)`: a difference of Gaussians, deviations in pixels."""
    found = np.empty(pictures.shape, np.float32)
    for place, picture in enumerate(pictures.astype(np.float32)):
        found[place] = cv2.GaussianBlur(picture, (0, 0), fine) - cv2.GaussianBlur(picture, (0, 0), coarse)
    return found


def details(pictures: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Fine structure at even strength all over the picture, float32 `(n, s, s)`; coarser by the factor `scale`.

    Without the local scale, what all images of a kind share (the rim of a fundus, the ribs) would outweigh what one
    alone has. The floor of two grey levels keeps the noise of even regions small.
    """
    found = band(pictures, 0.7 * scale, 2.0 * scale)
    for place, picture in enumerate(found):
        found[place] = picture / np.sqrt(cv2.GaussianBlur(picture * picture, (0, 0), 4.0 * scale) + 4.0)
    return found


def align(template: np.ndarray, source: np.ndarray, warp: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Fits the warps that lay sources onto templates.

    Args:
        template: float32 `(p, s, s)`.
        source: float32 `(p, s, s)`.
        warp: float32 `(p, 4)`, the start: scale and shift along x, scale and shift along y. A point of the template,
            both axes from -1 to 1, lies at scale · point + shift of the source.
        steps: Gauss-Newton steps; 0 measures the warp as it is.

    Returns:
        The warps, `(p, 4)`, and the correlations where both pictures show something, `(p,)`.
    """
    side = template.shape[1]
    points = _points(side)
    for step in range(steps + 1):
        across, seen_across = _sampling(warp[:, 0], warp[:, 1], side)
        down, seen_down = _sampling(warp[:, 2], warp[:, 3], side)
        seen = seen_down[:, :, None] * seen_across[:, None, :]
        moved = _standardised(np.matmul(np.matmul(down, source), across.transpose(0, 2, 1)), seen)
        target = _standardised(template, seen)
        if step == steps:
            break
        slope_y, slope_x = np.gradient(moved, axis=(1, 2))
        slope_x *= seen
        slope_y *= seen
        columns = (slope_x * points, slope_x, slope_y * points[:, None], slope_y)
        jacobian = np.stack([column.reshape(len(warp), -1) for column in columns], 1)
        normal = np.matmul(jacobian, jacobian.transpose(0, 2, 1))
        damping = 1e-3 * np.trace(normal, axis1=1, axis2=2) / 4 + 1e-6
        normal += damping[:, None, None] * np.eye(4, dtype=np.float32)
        error = np.matmul(jacobian, (target - moved).reshape(len(warp), -1, 1))
        change = np.linalg.solve(normal, error)[..., 0] * (2 / side)
        warp = warp + np.repeat(warp[:, ::2], 2, axis=1) * change
        warp = np.clip(warp, *_LIMITS)
    return warp, (moved * target).sum((1, 2)) / seen.sum((1, 2))


def _points(side: int) -> np.ndarray:
    """Centres of the pixels of an axis, from -1 to 1."""
    return ((np.arange(side) + 0.5) * (2 / side) - 1).astype(np.float32)


def _sampling(scale: np.ndarray, shift: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of linear interpolation along an axis, `(p, side, side)`, and which points lie inside, `(p, side)`."""
    where = _points(side) * scale[:, None] + shift[:, None]
    cell = np.clip((where + 1) * (side / 2) - 0.5, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(cell[:, :, None] - np.arange(side, dtype=np.float32)))
    return weights.astype(np.float32), (np.abs(where) <= 1 + 1e-6).astype(np.float32)


def _standardised(pictures: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 over the points seen, 0 elsewhere."""
    count = seen.sum((1, 2))
    centred = (pictures - ((pictures * seen).sum((1, 2)) / count)[:, None, None]) * seen
    deviation = np.sqrt((centred * centred).sum((1, 2)) / count) + 1e-4
    return centred / deviation[:, None, None]
