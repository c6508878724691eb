"""Every kind of synthetic image that a stand-in can hold, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scanbook.data.adapters.synthetic import chest, clinical, dermoscopy, fundus, lesion, xray
from scanbook.data.adapters.synthetic.lesion import Skin
from scanbook.data.adapters.synthetic.primitives import Rng


@dataclass(frozen=True)
class SyntheticImage:
    """A synthetic image with its mask and diagnosis.

    Attributes:
        image: uint8, RGB (size, size, 3), or grey (size, size) for X-rays.
        mask: The structure to segment (lesion, affected skin, lungs, retina), uint8 (size, size), 0 or 255.
        diagnosis: The class of the lesion where the kind is a mixture; else the kind's own name.
    """

    image: np.ndarray
    mask: np.ndarray
    diagnosis: str


Generator = Callable[[Rng, int, Skin | None], SyntheticImage]

# Kinds that mix lesions: the share of each of `dermoscopy.CLASSES`. Benign lesions are mostly nevi, as in ISIC 2020.
_LESIONS: dict[str, dict[str, float]] = {
    "benign": {"nevus": 0.80, "seborrheic_keratosis": 0.14, "vascular_lesion": 0.06},
    "melanoma": {"melanoma": 1.0},
    "nevus": {"nevus": 1.0},
    "basal_cell_carcinoma": {"basal_cell_carcinoma": 1.0},
    "benign_keratosis": {"seborrheic_keratosis": 0.85, "nevus": 0.15},
    "seborrheic_keratosis": {"seborrheic_keratosis": 1.0},
    "vascular_lesion": {"vascular_lesion": 1.0},
}


def _clinical(disease: str) -> Generator:
    return lambda rng, size, skin: SyntheticImage(*clinical.render(disease, rng, size), disease)


def _dermoscopy(mixture: dict[str, float]) -> Generator:
    def generate(rng: Rng, size: int, skin: Skin | None) -> SyntheticImage:
        class_rng, lesion_rng, view_rng = rng.spawn(3)
        name = str(class_rng.choice(list(mixture), p=list(mixture.values())))
        latent = dermoscopy.sample_latent(np.array([dermoscopy.CLASSES.index(name)]), class_rng)[0]
        sampled_skin = lesion.sample_skin(class_rng)
        synthetic = lesion.build_lesion(dermoscopy.appearance_of(latent), lesion_rng, size)
        return SyntheticImage(*lesion.photograph(synthetic, skin or sampled_skin, view_rng, size), name)

    return generate


def _xray(label: str) -> Generator:
    return lambda rng, size, skin: SyntheticImage(*xray.render(label, rng, size), label)


def _fundus(grade: int) -> Generator:
    return lambda rng, size, skin: SyntheticImage(*fundus.render(grade, rng, size), f"grade {grade}")


KINDS: dict[str, Generator] = {
    **{f"clinical_{disease}": _clinical(disease) for disease in clinical.DISEASES},
    **{f"dermoscopy_{name}": _dermoscopy(mixture) for name, mixture in _LESIONS.items()},
    **{f"xray_{label}": _xray(label) for label in xray.CLASSES},
    **{f"fundus_grade_{grade}": _fundus(grade) for grade in range(fundus.GRADES)},
}
"""Generators by kind. Each takes a random generator, a side in pixels, and the patient's skin or None."""
FINDING_KINDS: tuple[str, ...] = tuple(f"xray_{name}" for name in chest.NAMES)
"""Kinds of findings on chest radiographs, several of which a film can show."""


def modality(kind: str) -> str:
    """Return "clinical", "dermoscopy", "xray" or "fundus"."""
    return kind.partition("_")[0]
