"""Images that the shipped backbone learns from: other classes than the synthetic dataset's, in four modalities.

The dermoscopic classes are named by structure. Within each the strength of its own structure varies, and so do colour,
outline and traces of other structures, alike in most of them; so mainly fine structure tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scanbook import runtime
from scanbook.data.adapters.synthetic import clinical, fundus, xray
from scanbook.data.adapters.synthetic.canvas import Rng
from scanbook.data.adapters.synthetic.lesion import Look, draw_plate, draw_skin, photograph

# For each class the ranges of the strengths that it sets; all others come from `_BACKGROUND`.
_ARCHETYPES: dict[str, dict[str, tuple[float, float]]] = {
    "network_regular": {"network": (0.45, 1.0), "irregularity": (0.0, 0.25)},
    "network_faint": {"network": (0.15, 0.40), "globules": (0.0, 0.04), "milia": (0.0, 0.04)},
    "network_irregular": {"network": (0.5, 1.0), "irregularity": (0.65, 1.0)},
    "globular": {"globules": (0.45, 1.0)},
    "dots_sparse": {"globules": (0.10, 0.30)},
    "network_globular": {"network": (0.45, 0.9), "globules": (0.4, 0.9)},
    "cobblestone": {"cobblestone": (0.5, 1.0)},
    "structureless": {name: (0.0, 0.03) for name in ("network", "globules", "vessels", "milia", "veil")},
    "homogeneous_blue": {"veil": (0.85, 1.0), "colours": (0.0, 0.3)},
    "veil_partial": {"veil": (0.35, 0.65)},
    "starburst": {"streaks": (0.5, 1.0)},
    "milia_rich": {"milia": (0.45, 1.0)},
    "milia_sparse": {"milia": (0.12, 0.32)},
    "vessels_arborising": {"vessels": (0.5, 1.0)},
    "vessels_sparse": {"vessels": (0.12, 0.35)},
    "lacunae": {"redness": (0.75, 1.0)},
    "regression": {"regression": (0.5, 1.0)},
    "leaf_like": {"leaves": (0.4, 1.0)},
    "multicoloured": {"colours": (0.75, 1.0), "irregularity": (0.4, 1.0)},
}
_BACKGROUND: dict[str, tuple[float, float]] = {
    "irregularity": (0.0, 0.9),
    "colours": (0.0, 0.5),
    "darkness": (0.0, 1.0),
    "redness": (0.0, 0.5),
    "network": (0.0, 0.12),
    "globules": (0.0, 0.08),
    "veil": (0.0, 0.15),
    "vessels": (0.0, 0.08),
    "milia": (0.0, 0.08),
}
CLASSES: tuple[str, ...] = (*_ARCHETYPES, *fundus.CLASSES, *xray.CLASSES, *clinical.CLASSES)
_MODALITIES: dict[str, Callable[[str, Rng, int], np.ndarray]] = {
    name: module.render for module in (fundus, xray, clinical) for name in module.CLASSES
}


def render(name: str, rng: Rng, size: int) -> np.ndarray:
    """Draw an image of the class `name` (one of `CLASSES`), uint8 RGB (size, size, 3)."""
    if name in _MODALITIES:
        return _MODALITIES[name](name, rng, size)
    ranges = _BACKGROUND | _ARCHETYPES[name]
    look = Look(**{structure: rng.uniform(*ranges[structure]) for structure in sorted(ranges)})
    plate_rng, view_rng = rng.spawn(2)
    return photograph(draw_plate(look, plate_rng, size), draw_skin(rng), view_rng, size)[0]


def draw(
    count: int, size: int, seed: int, progress: Callable[[Iterable, str, int], Iterable] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw images of all classes in turn, on all cores.

    Args:
        count: Images.
        size: Side in pixels.
        seed: Seed; image i depends on it and on i alone.
        progress: Wraps the loop, as `runtime.progress` does: called with an iterable, a description and a total.

    Returns:
        Images, uint8 RGB (count, size, size, 3), and labels, int64 (count,), indices into `CLASSES`.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)

    def work(index: int) -> None:
        images[index] = render(CLASSES[labels[index]], np.random.default_rng([seed, index]), size)

    with ThreadPoolExecutor(runtime.cores()) as pool:
        done: Iterable = pool.map(work, range(count))
        for _ in progress(done, "drawing", count) if progress else done:
            pass
    return images, labels
