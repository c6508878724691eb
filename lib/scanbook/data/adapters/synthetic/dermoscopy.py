"""Five kinds of skin lesion with a known best possible accuracy.

A lesion is a latent vector z of nine standardised features. Within a class z is Gaussian, with a mean and a covariance
of its own; the classes overlap. An image depends on z and on nuisance variables (place of the structures, skin, pose,
light, hairs, ruler, camera) that are independent of the class given z. Therefore class → z → image is a Markov chain,
and no classifier of the images can beat the Bayes rule on z. This module computes the accuracy of that rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from scanbook.data.adapters.synthetic.lesion import Appearance, Skin, build_lesion, photograph, sample_skin
from scanbook.data.adapters.synthetic.primitives import Rng

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

# Distance of the class means, which sets the difficulty: 1.06 gives a Bayes accuracy near 0.90.
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
# Correlations of the features within every class, and the standard deviation of each class.
_CORRELATIONS = {
    ("irregularity", "colours"): 0.35,
    ("colours", "veil"): 0.25,
    ("darkness", "network"): 0.25,
    ("vessels", "redness"): 0.20,
    ("network", "globules"): -0.20,
}
_SPREADS = (0.90, 1.10, 1.00, 0.95, 0.95)


# The logistic curve from a feature to a strength: a structure has half its maximal strength at z = 0.6.
_STEEPNESS, _MIDDLE = 1.5, 0.6


@dataclass(frozen=True)
class BayesAccuracy:
    """Accuracy of the best possible classifier, estimated by Monte Carlo, with the estimate's standard error."""

    value: float
    standard_error: float


@cache
def _densities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return Cholesky factors (5, d, d), their inverses, and log prior minus log determinant of the factors (5,)."""
    correlation = np.eye(len(LATENT))
    for (first, second), value in _CORRELATIONS.items():
        i, j = LATENT.index(first), LATENT.index(second)
        correlation[i, j] = correlation[j, i] = value
    factors = np.asarray(_SPREADS)[:, None, None] * np.linalg.cholesky(correlation)
    offsets = np.log(PRIORS) - np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    return factors, np.linalg.inv(factors), offsets


def sample_latent(labels: np.ndarray, rng: Rng) -> np.ndarray:
    """Return a sampled latent vector for each class index.

    Args:
        labels: Class indices into `CLASSES`, (n,).
        rng: Random generator.

    Returns:
        float64 (n, 9), columns in the order of `LATENT`.
    """
    factors, _, _ = _densities()
    white = rng.standard_normal((len(labels), len(LATENT)))
    return _MEANS[labels] + np.einsum("nij,nj->ni", factors[labels], white)


def posterior(latent: np.ndarray, priors: tuple[float, ...] = PRIORS) -> np.ndarray:
    """Return the probability of each class given the latent vectors, by Bayes' rule.

    Args:
        latent: (n, 9), columns in the order of `LATENT`.
        priors: Share of each class.

    Returns:
        float64 (n, 5), rows summing to 1, columns in the order of `CLASSES`.
    """
    _, inverses, offsets = _densities()
    latent = np.atleast_2d(latent)
    log = np.empty((len(latent), len(CLASSES)))
    for index, (inverse, mean, offset) in enumerate(zip(inverses, _MEANS, offsets, strict=True)):
        white = (latent - mean) @ inverse.T
        log[:, index] = offset - 0.5 * np.einsum("ij,ij->i", white, white)
    if priors != PRIORS:
        log += np.log(priors) - np.log(PRIORS)
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@cache
def bayes_accuracy(samples: int = 250_000, seed: int = 0, priors: tuple[float, ...] = PRIORS) -> BayesAccuracy:
    """Return the accuracy that no classifier of these images can exceed in expectation.

    It is E[max_k p(k | z)] over z from the mixture. The mean of the posterior's maximum estimates it with less variance
    than the share of correct answers does.

    Args:
        samples: Monte Carlo samples.
        seed: Seed of the samples.
        priors: Share of each class.
    """
    rng = np.random.default_rng(seed)
    best = posterior(sample_latent(rng.choice(len(CLASSES), samples, p=priors), rng), priors).max(axis=1)
    return BayesAccuracy(float(best.mean()), float(best.std(ddof=1) / np.sqrt(samples)))


def appearance_of(latent: np.ndarray) -> Appearance:
    """Return the strengths of the structures that a latent vector (9,) encodes.

    Each feature goes through a logistic curve. Streaks, regression, leaf-like areas and cobblestones are products of
    the results, so they add no information on the class to z.
    """
    strength = dict(
        zip(LATENT, (1.0 / (1.0 + np.exp(-_STEEPNESS * (np.asarray(latent) - _MIDDLE)))).tolist(), strict=True)
    )
    return Appearance(
        **strength,
        streaks=strength["irregularity"] * strength["network"] * strength["darkness"],
        regression=0.8 * strength["veil"] * strength["colours"] * (1 - strength["darkness"]),
        leaves=0.8 * strength["vessels"] * strength["veil"] * (1 - strength["network"]),
        cobblestone=0.5 * strength["globules"] * (1 - strength["network"]) * (1 - strength["redness"]),
    )


def render(
    latent: np.ndarray, lesion_seed: int, view_seed: int, size: int, skin: Skin | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return one image of one lesion.

    Args:
        latent: (9,), in the order of `LATENT`.
        lesion_seed: Places the lesion's structures; the same seed gives the same lesion in another view.
        view_seed: Samples the pose, light and camera, and the skin unless `skin` is given.
        size: Side in pixels.
        skin: The patient's skin.

    Returns:
        The image, uint8 RGB (size, size, 3), and the exact lesion mask, uint8 (size, size), 0 or 255.
    """
    view = np.random.default_rng(view_seed)
    sampled = sample_skin(view)
    lesion = build_lesion(appearance_of(latent), np.random.default_rng(lesion_seed), size)
    return photograph(lesion, skin or sampled, view, size)
