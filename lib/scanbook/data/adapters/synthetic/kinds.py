"""Every kind of picture that a stand-in can be made of, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scanbook.data.adapters.synthetic import dermoscopy, eruptions, fundus, lesion, xray
from scanbook.data.adapters.synthetic.canvas import Rng
from scanbook.data.adapters.synthetic.lesion import Skin


@dataclass(frozen=True)
class Drawing:
    """One picture and what is known of it.

    Attributes:
        picture: uint8, RGB (size, size, 3), or grey (size, size) for X-rays.
        mask: What segmentation looks for (lesion, affected skin, lungs, retina), uint8 (size, size), 0 or 255.
        diagnosis: What was drawn, where the kind is a mixture; else the kind's own name.
    """

    picture: np.ndarray
    mask: np.ndarray
    diagnosis: str


# Classes that are several kinds of lesion: how often each of `dermoscopy.CLASSES` is drawn. The benign lesions are
# mostly nevi, as in ISIC 2020.
_LESIONS: dict[str, dict[str, float]] = {
    "benign": {"nevus": 0.80, "seborrheic_keratosis": 0.14, "vascular_lesion": 0.06},
    "melanoma": {"melanoma": 1.0},
    "nevus": {"nevus": 1.0},
    "basal_cell_carcinoma": {"basal_cell_carcinoma": 1.0},
    "benign_keratosis": {"seborrheic_keratosis": 0.85, "nevus": 0.15},
    "seborrheic_keratosis": {"seborrheic_keratosis": 1.0},
    "vascular_lesion": {"vascular_lesion": 1.0},
}


def _clinical(look: str) -> Callable[[Rng, int, Skin | None], Drawing]:
    return lambda rng, size, subject: Drawing(*eruptions.draw(look, rng, size), look)


def _dermoscopy(mixture: dict[str, float]) -> Callable[[Rng, int, Skin | None], Drawing]:
    def draw(rng: Rng, size: int, subject: Skin | None) -> Drawing:
        which_rng, plate_rng, view_rng = rng.spawn(3)
        name = str(which_rng.choice(list(mixture), p=list(mixture.values())))
        latent = dermoscopy.draw_latent(np.array([dermoscopy.CLASSES.index(name)]), which_rng)[0]
        own = lesion.draw_skin(which_rng)
        plate = dermoscopy.draw_lesion(latent, plate_rng, size)
        return Drawing(*lesion.photograph(plate, subject or own, view_rng, size), name)

    return draw


def _xray(finding: str) -> Callable[[Rng, int, Skin | None], Drawing]:
    return lambda rng, size, subject: Drawing(*xray.draw_finding(finding, rng, size), finding)


def _fundus(grade: int) -> Callable[[Rng, int, Skin | None], Drawing]:
    return lambda rng, size, subject: Drawing(*fundus.draw_grade(grade, rng, size), f"grade {grade}")


KINDS: dict[str, Callable[[Rng, int, Skin | None], Drawing]] = {
    **{f"clinical_{look}": _clinical(look) for look in eruptions.LOOKS},
    **{f"dermoscopy_{name}": _dermoscopy(mixture) for name, mixture in _LESIONS.items()},
    **{f"xray_{finding}": _xray(finding) for finding in xray.FINDINGS},
    **{f"fundus_grade_{grade}": _fundus(grade) for grade in range(fundus.GRADES)},
}
"""What draws each kind: a random generator, a side in pixels, and the patient's skin where the patient is known."""


def modality(kind: str) -> str:
    """Return "clinical", "dermoscopy", "xray" or "fundus"."""
    return kind.partition("_")[0]
