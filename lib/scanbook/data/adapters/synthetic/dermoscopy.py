"""Five kinds of skin lesion with a known best possible accuracy.

A lesion is a latent vector z of nine standardised appearances. Within a class z is Gaussian, with a mean and a
covariance of its own; the classes overlap. A picture is drawn from z and from nuisance (place of the structures,
skin, pose, light, hairs, ruler, camera) that is independent of the class given z. So class → z → picture is a
Markov chain, and no classifier of pictures can beat the Bayes rule on z, whose accuracy is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from scanbook.data.adapters.synthetic.canvas import Rng
from scanbook.data.adapters.synthetic.lesion import Look, Plate, Skin, draw_plate, draw_skin, photograph

CLASSES: tuple[str, ...] = (
    "nevus",
    "melanoma",
    "seborrheic_keratosis",
    "basal_cell_carcinoma",
    "vascular_lesion",
)
PRIORS: tuple[float, ...] = (0.36, 0.18, 0.18, 0.16, 0.12)
LATENT: tuple[str, ...] = (
    "irregularity",
    "colours",
    "darkness",
    "network",
    "globules",
    "veil",
    "vessels",
    "milia",
    "redness",
)

# How far the class means lie apart. The one knob of difficulty: 1.06 gives a Bayes accuracy near 0.90.
_SEPARATION = 1.06
_MEANS = _SEPARATION * np.array(
    [
        # irreg. colours dark  network globules veil  vessels milia redness
        [-0.8, -0.8, 0.0, 1.2, 0.5, -0.8, -0.8, -0.6, -0.5],
        [1.1, 1.1, 0.7, 0.6, 0.4, 1.1, -0.1, -0.6, -0.2],
        [-0.1, 0.2, 0.1, -0.9, -0.3, -0.5, -0.5, 1.6, -0.5],
        [0.1, 0.0, -0.8, -1.0, -0.4, 0.4, 1.6, -0.4, 0.5],
        [-0.5, -0.3, -0.1, -1.0, -0.9, 0.0, -0.1, -0.6, 1.7],
    ]
)
# Appearances that go together in every class (correlation), and how much each class varies (standard deviation).
_CORRELATIONS = {
    ("irregularity", "colours"): 0.35,
    ("colours", "veil"): 0.25,
    ("darkness", "network"): 0.25,
    ("vessels", "redness"): 0.20,
    ("network", "globules"): -0.20,
}
_SPREADS = (0.90, 1.10, 1.00, 0.95, 0.95)


# The logistic curve from a component to a strength: a structure is half as strong as it gets at z = 0.6.
_STEEPNESS, _MIDDLE = 1.5, 0.6


@dataclass(frozen=True)
class BayesAccuracy:
    """Accuracy of the best possible classifier, estimated by Monte Carlo, with the estimate's standard error."""

    value: float
    standard_error: float


@cache
def _densities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cholesky factors (5, d, d), their inverses, and log prior minus log determinant of the factors (5,)."""
    correlation = np.eye(len(LATENT))
    for (first, second), value in _CORRELATIONS.items():
        i, j = LATENT.index(first), LATENT.index(second)
        correlation[i, j] = correlation[j, i] = value
    factors = np.asarray(_SPREADS)[:, None, None] * np.linalg.cholesky(correlation)
    offsets = np.log(PRIORS) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    return factors, np.linalg.inv(factors), offsets


def draw_latent(labels: np.ndarray, rng: Rng) -> np.ndarray:
    """Draw a latent vector for each class index.

    Args:
        labels: Class indices into `CLASSES`, (n,).
        rng: Random generator.

    Returns:
        float64 (n, 9), columns in the order of `LATENT`.
    """
    factors, _, _ = _densities()
    white = rng.standard_normal((len(labels), len(LATENT)))
    return _MEANS[labels] + np.einsum("nij,nj->ni", factors[labels], white)


def posterior(latent: np.ndarray) -> np.ndarray:
    """Return the probability of each class given the latent vectors, by Bayes' rule with `PRIORS`.

    Args:
        latent: (n, 9), columns in the order of `LATENT`.

    Returns:
        float64 (n, 5), rows summing to 1, columns in the order of `CLASSES`.
    """
    _, inverses, offsets = _densities()
    latent = np.atleast_2d(latent)
    log = np.empty((len(latent), len(CLASSES)))
    for index, (inverse, mean, offset) in enumerate(zip(inverses, _MEANS, offsets, strict=True)):
        white = (latent - mean) @ inverse.T
        log[:, index] = offset - 0.5 * np.einsum("ij,ij->i", white, white)
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@cache
def bayes_accuracy(samples: int = 250_000, seed: int = 0) -> BayesAccuracy:
    """Return the accuracy no classifier of these pictures can exceed in expectation.

    It is E[max_k p(k | z)] over z from the mixture; the mean of the posterior's maximum estimates it with less
    variance than counting hits does.

    Args:
        samples: Monte Carlo samples.
        seed: Seed of the samples.
    """
    rng = np.random.default_rng(seed)
    best = posterior(draw_latent(rng.choice(len(CLASSES), samples, p=PRIORS), rng)).max(axis=1)
    return BayesAccuracy(float(best.mean()), float(best.std(ddof=1) / np.sqrt(samples)))


def look_of(latent: np.ndarray) -> Look:
    """Return the strengths that a latent vector (9,) stands for.

    Each component goes through a logistic curve; streaks, regression, leaf-like areas and cobblestones are products
    of these, and so add nothing to what z says of the class.
    """
    strength = dict(
        zip(LATENT, (1.0 / (1.0 + np.exp(-_STEEPNESS * (np.asarray(latent) - _MIDDLE)))).tolist(), strict=True)
    )
    return Look(
        **strength,
        streaks=strength["irregularity"] * strength["network"] * strength["darkness"],
        regression=0.8 * strength["veil"] * strength["colours"] * (1 - strength["darkness"]),
        leaves=0.8 * strength["vessels"] * strength["veil"] * (1 - strength["network"]),
        cobblestone=0.5 * strength["globules"] * (1 - strength["network"]) * (1 - strength["redness"]),
    )


def draw_lesion(latent: np.ndarray, rng: Rng, size: int) -> Plate:
    """Draw the lesion with a latent vector (9,) on a plate of `size` pixels."""
    return draw_plate(look_of(latent), rng, size)


def render(
    latent: np.ndarray, lesion_seed: int, view_seed: int, size: int, skin: Skin | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture of one lesion.

    Args:
        latent: (9,), in the order of `LATENT`.
        lesion_seed: Places the lesion's structures; keep it for another view of the same lesion.
        view_seed: Draws the pose, light and camera (and the skin, unless given).
        size: Side in pixels.
        skin: The patient's skin.

    Returns:
        The picture, uint8 RGB (size, size, 3), and the exact lesion mask, uint8 (size, size), 0 or 255.
    """
    view = np.random.default_rng(view_seed)
    own = draw_skin(view)
    return photograph(draw_lesion(latent, np.random.default_rng(lesion_seed), size), skin or own, view, size)
