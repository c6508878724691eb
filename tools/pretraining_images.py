"""Synthetic images that the shipped backbone is pretrained on: four modalities, none of the default study's classes.

The dermoscopic classes are named by structure. Within each, the strength of its structure varies. Colour, outline and
traces of other structures vary alike in most classes, so that mainly fine structure distinguishes them.
"""

from __future__ import annotations

import numpy as np

from scanbook import runtime
from scanbook.data.adapters.synthetic import clinical, fundus, primitives, xray
from scanbook.data.adapters.synthetic.lesion import Appearance, build_lesion, photograph, sample_skin
from scanbook.data.adapters.synthetic.primitives import Rng

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
_CLINICAL = ("clinical_plaques", "clinical_papules", "clinical_rings", "clinical_scaling", "clinical_vesicles")
_FUNDUS = ("fundus_healthy", "fundus_microaneurysms", "fundus_haemorrhages", "fundus_exudates")
_XRAY = ("xray_clear", "xray_consolidation", "xray_effusion", "xray_nodules", "xray_cardiomegaly")
CLASSES: tuple[str, ...] = (*_ARCHETYPES, *_FUNDUS, *_XRAY, *_CLINICAL)


def render(name: str, rng: Rng, size: int) -> np.ndarray:
    """Return an image of the class `name` (one of `CLASSES`), uint8 RGB (size, size, 3)."""
    if name in _CLINICAL:
        return _render_clinical(name, rng, size)
    if name in _FUNDUS:
        return _render_fundus(name, rng, size)
    if name in _XRAY:
        return _render_xray(name, rng, size)
    ranges = _BACKGROUND | _ARCHETYPES[name]
    appearance = Appearance(**{structure: rng.uniform(*ranges[structure]) for structure in sorted(ranges)})
    lesion_rng, view_rng = rng.spawn(2)
    return photograph(build_lesion(appearance, lesion_rng, size), sample_skin(rng), view_rng, size)[0]


def _render_clinical(kind: str, rng: Rng, size: int) -> np.ndarray:
    """Return a clinical photograph of plaques, papules, rings, scales or vesicles."""
    image, light = clinical.render_skin(rng, size)
    height, redness, scale = _rash(kind, rng, size)
    for plane, fraction in zip(image, (0.90, 0.52, 0.52), strict=True):
        np.multiply(plane, 1.0 - (1.0 - fraction) * redness, out=plane)
    primitives.blend(image, (0.95, 0.92, 0.88), scale)
    return clinical.photograph(image, height, light, rng, hairy=0.4)


def _render_fundus(kind: str, rng: Rng, size: int) -> np.ndarray:
    """Return a retinal photograph."""
    image, _ = fundus.build_eye(rng, size)
    _add_lesions(image, kind, rng)
    return fundus.photograph(image, rng, blur=0.008)


def _render_xray(kind: str, rng: Rng, size: int) -> np.ndarray:
    """Return a chest radiograph: three equal channels but for the camera's tint of the film."""
    enlarged = kind == "xray_cardiomegaly"
    chest = xray.build_chest(rng, size, xray.LARGE_HEART if enlarged else xray.NORMAL_HEART)
    opacity = _opacity(kind, rng, chest.u, chest.v, chest.lungs * (1 - 0.9 * chest.heart))
    film = xray.develop(chest, opacity, rng)
    return primitives.take_photograph(np.stack([film] * 3), rng, balance=0.004, exposure=0.08, blur=0.006, grain=0.02)


def _rash(kind: str, rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return height, redness and opacity of scale, each (size, size)."""
    uneven, flakes, crumbs = (
        primitives.noise(rng, size, 9, 2),
        primitives.noise(rng, size, 22, 2),
        primitives.noise(rng, size, 44),
    )
    strength = rng.uniform(0.55, 1.0)
    none = np.zeros((size, size), np.float32)
    if kind in {"clinical_papules", "clinical_vesicles"}:
        count = int(rng.integers(25, 70))
        middle = rng.uniform(-0.3, 0.3, 2)
        centres = middle + rng.uniform(0.35, 0.5) * rng.normal(size=(count, 2))
        radii = rng.uniform(0.028, 0.065, count)
        bumps = primitives.discs(size, centres, radii, np.ones(count), blur=0.016)
        flush = primitives.discs(size, centres, 1.7 * radii, np.ones(count), blur=0.03)
        if kind == "clinical_papules":
            return bumps, strength * np.clip(bumps + 0.35 * flush, 0, 1), none
        fluid = primitives.discs(size, centres, 0.8 * radii, np.full(count, 0.5), blur=0.01)
        return 1.6 * bumps, strength * 0.9 * flush, fluid * 0.7
    field, rim = none.copy(), none.copy()
    count = int(rng.integers(1, 4)) if kind == "clinical_rings" else int(rng.integers(2, 6))
    x, y = primitives.coordinates(size)
    for _ in range(count):
        centre_x, centre_y = rng.uniform(-0.6, 0.6, 2).tolist()
        radius = rng.uniform(0.22, 0.5)
        depth = (
            1.0
            - np.hypot(x - centre_x, (y - centre_y) * rng.uniform(0.75, 1.3)) / radius
            + 0.08 * uneven
            + 0.02 * crumbs
        )
        np.maximum(field, primitives.smoothstep(-0.04, 0.16, depth), out=field)
        np.maximum(rim, np.exp(-(((depth - 0.14) / 0.13) ** 2)), out=rim)
    if kind == "clinical_rings":
        return (
            0.8 * rim,
            strength * np.clip(rim + 0.15 * field, 0, 1),
            0.25 * rim * primitives.smoothstep(0.7, 1.4, crumbs),
        )
    if kind == "clinical_plaques":
        return (
            0.9 * field,
            strength * field * (0.85 + 0.12 * flakes),
            0.15 * field * primitives.smoothstep(0.9, 1.6, flakes),
        )
    silver = field * primitives.smoothstep(-0.1, 0.7, flakes + 0.3 * crumbs)
    return 0.5 * field + 0.25 * silver, strength * 0.7 * field, 0.75 * silver


def _add_lesions(image: np.ndarray, kind: str, rng: Rng) -> None:
    """Add the lesions of a retinal class."""
    size = image.shape[-1]
    dots = primitives.points_inside(rng, np.full(1024, 0.85), 60, 0.1, 0.95)
    if kind != "fundus_healthy":  # microaneurysms come first, and stay
        count = int(rng.integers(14, 40)) if kind == "fundus_microaneurysms" else int(rng.integers(6, 20))
        radii = rng.uniform(0.010, 0.018, count)
        primitives.blend(
            image, (0.36, 0.05, 0.04), primitives.discs(size, dots[:count], radii, np.full(count, 0.85), blur=0.003)
        )
    if kind == "fundus_haemorrhages":
        count = int(rng.integers(5, 16))
        blots = primitives.discs(
            size, dots[-count:], rng.uniform(0.03, 0.085, count), np.full(count, 1.0), blur=0.012, stretch=1.4
        )
        edge = primitives.smoothstep(0.2, 0.55, blots + 0.12 * primitives.noise(rng, size, 26))
        primitives.blend(image, (0.33, 0.04, 0.03), 0.85 * edge)
    if kind == "fundus_exudates":
        near = dots[:4][rng.integers(0, 4, 70)] + 0.11 * rng.normal(size=(70, 2))
        hard = primitives.discs(size, near, rng.uniform(0.009, 0.030, 70), rng.uniform(0.6, 1.0, 70), blur=0.004)
        primitives.blend(image, (0.99, 0.88, 0.45), 0.9 * hard)


def _opacity(kind: str, rng: Rng, u: np.ndarray, v: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    """Return the opacity of a class of radiographs, as an amount of tissue."""
    size = u.shape[0]
    side = 1.0 if rng.uniform() < 0.5 else -1.0
    cloud = primitives.noise(rng, size, 9, 3)
    centre_x, centre_y = side * rng.uniform(0.32, 0.52), rng.uniform(-0.35, 0.3)
    strength = rng.uniform(0.22, 0.36)
    if kind == "xray_consolidation":
        near = np.exp(-(((u - centre_x) / 0.22) ** 2) - ((v - centre_y) / 0.24) ** 2)
        return strength * lungs * primitives.smoothstep(0.15, 0.85, near + 0.16 * cloud)
    if kind == "xray_effusion":
        level = rng.uniform(0.0, 0.32) - 0.9 * np.clip(side * u - 0.35, 0, 1) ** 1.5
        return 1.15 * strength * lungs * primitives.smoothstep(-0.05, 0.10, v - level) * (side * u > 0)
    if kind == "xray_nodules":
        count = int(rng.integers(3, 10))
        centres = np.stack(
            [rng.choice((-1, 1), count) * rng.uniform(0.22, 0.58, count), rng.uniform(-0.5, 0.4, count)], 1
        )
        return (
            0.7
            * strength
            * primitives.discs(size, centres, rng.uniform(0.03, 0.075, count), np.ones(count), blur=0.012)
        )
    return np.zeros_like(u)


def synthesise(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of all classes in turn, made on all cores.

    Args:
        count: Number of images.
        size: Side in pixels.
        seed: Seed; image i depends on it and on i alone.

    Returns:
        Images, uint8 RGB (count, size, size, 3), and labels, int64 (count,), indices into `CLASSES`.
    """
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)

    def render_image(index: int) -> None:
        images[index] = render(CLASSES[labels[index]], np.random.default_rng([seed, index]), size)

    results = runtime.in_threads(render_image, range(count))
    for _ in runtime.progress(results, "synthesising images", count):
        pass
    return images, labels
