"""How a score grows with the number of training patients, what more of them would bring, and the size of a test set.

The score of n patients is taken as a power law, y = a - b n^-c (Figueroa, Zeng-Treitler, Kandula and Ngo, Predicting
sample size required for classification performance, BMC Medical Informatics and Decision Making 12:8, 2012), fitted by
weighted least squares. Errors about it are not independent, so that weights are a matrix. Scores of one test set share
its error, which moves the level of the curve and is not part of the prediction, which is for the same images. Draws of
a pool of N patients share the pool, and a repeat's draws are nested. Where a score is a mean of terms of each patient,
or of each pair, the covariance of draws of m and n patients given the pool is that of max(m, n): proportional to
max(m, n)^-p - N^-p, with p = 1 or 2 (Hoeffding, 1948). Each training adds an error of its own, and each size another
one, since no curve is exactly a power law.

Least squares determines a and b for each exponent c; c itself is poorly known from a few sizes, and where it is fixed
at its estimate, intervals are too narrow. So c, and the ratios of the kinds of errors, are integrated over on a grid,
each with the weight of its likelihood. Before the scores are seen, each share of the gain of one doubling that the
next doubling brings, 2^-c, is equally likely. Where it is near 1 the curve grows with log n: a, its limit, is then
beyond any score, so that the curve, and not a, has to stay below 1. Sizes within one order of magnitude do not tell
such a curve from one that is about to end, so that y = a - b exp(-n / t) has a quarter of the weight.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import helmert

from scanbook.errors import DataError
from scanbook.evaluation.findings import AnyPredictions
from scanbook.evaluation.registry import METRICS
from scanbook.evaluation.resampling import interval, resample

Floats = NDArray[np.float64]

LEAST_SIZES = 5
"""Fewest sizes to which a curve is fitted: it has three unknowns, and its errors have others."""
_GAINS = np.linspace(0.25, 0.99, 38)
"""Shares of the gain of one doubling that the next one brings, by a power law."""
_ENDING_GAINS = np.linspace(0.02, 0.98, 25)
"""The same by an exponential, which gives each later doubling a smaller share."""
_WEIGHT_OF_ENDING = 0.25
_REACH = 4
"""How many times the patients a curve may be asked for: up to there it does not exceed 1."""
_RATIOS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Variances of each training and of each size, as parts of that of the draws of patients."""
_POWERS = (1, 2)
_LEAST_DEVIATION = 0.002
"""Standard deviation of scores that counts as one more observation: scores that are all equal are not exact."""
_SAMPLES = 20_000
_FEWEST = 500
"""Fewest samples of curves that rise, of which an interval is made."""


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A fitted power law, as samples of what the scores allow it to be.

    Attributes:
        sizes: (k,) numbers of training patients, ascending; the last is all of them.
        scores: (r, k) scores of r repeats; with all patients each repeat has the same one.
        exponent: (s,) samples of c; 0 of exponentials.
        rate: (s,) samples of 1 / t per patient; 0 of power laws.
        level: (s,) of the curve with all patients.
        rise: (s,) of the curve, from the smallest size to all patients.
        variance: (s, 3) variances by the draw of patients, by training and by size.
        power: (s,) 1 or 2, by which the first of them falls.
    """

    sizes: NDArray[np.int64]
    scores: Floats
    exponent: Floats
    rate: Floats
    level: Floats
    rise: Floats
    variance: Floats
    power: NDArray[np.int64]

    def predict(self, size: ArrayLike, seed: int = 0) -> pd.DataFrame:
        """Return the score of one training with other numbers of patients on the same test images.

        Args:
            size: (m,) numbers of patients.
            seed: Seed of the errors.

        Returns:
            Index `patients`; columns value, the median of the curve, and low and high, a 95 % prediction interval.
        """
        rows, random = {}, np.random.default_rng(seed)
        normal = random.standard_normal(len(self.level))
        for count in np.atleast_1d(np.asarray(size, np.int64)):
            curve = self.level - self.rise * _basis(np.array([count]), self.sizes, self.exponent, self.rate)[:, 0]
            spread = np.column_stack([_draws(count, count, self.sizes, self.power), np.ones((len(curve), 2))])
            deviation = np.sqrt((self.variance * np.abs(spread)).sum(axis=1))
            low, high = interval(np.clip(curve + deviation * normal, None, 1.0))
            rows[int(count)] = {"value": float(np.median(curve)), "low": float(low), "high": float(high)}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("patients")


def fit_curve(sizes: ArrayLike, scores: ArrayLike, seed: int = 0) -> LearningCurve:
    """Fit a power law to scores of nested draws of training patients.

    Args:
        sizes: (k,) numbers of training patients, ascending; the last is all of them.
        scores: (r, k) float, at most 1, higher is better: scores of r repeats on one test set.
        seed: Seed of the samples.

    Raises:
        DataError: There are too few sizes, a score is not defined, or scores fall so clearly that no rising curve fits.
    """
    n, y = np.asarray(sizes, np.int64), np.atleast_2d(np.asarray(scores, np.float64))
    if len(n) < LEAST_SIZES or (np.diff(n) <= 0).any() or y.shape[1:] != n.shape:
        raise DataError(
            f"sizes are {n.tolist()} for scores of shape {y.shape}: expected {LEAST_SIZES} or more ascending numbers "
            "of patients, one per column of scores"
        )
    if not np.isfinite(y).all():
        raise DataError("scores of a learning curve hold one that is not defined: expected a number for every draw")
    random = np.random.default_rng(seed)
    cells = _Cells(n, y)
    chosen = random.choice(len(cells.weight), _SAMPLES, p=cells.weight)
    scale = cells.squares[chosen] / random.chisquare(cells.freedom, _SAMPLES)
    noise = random.standard_normal((_SAMPLES, 2)) * np.sqrt(scale)[:, None]
    level, rise = (cells.beta[chosen] + np.einsum("sij,sj->si", cells.root[chosen], noise)).T
    exponent, rate = cells.exponent[chosen], cells.rate[chosen]
    possible = (rise >= 0) & (level - rise * _basis(n[-1:] * _REACH, n, exponent, rate)[:, 0] <= 1)
    if possible.sum() < _FEWEST:
        raise DataError(
            f"scores fall from {y[:, 0].mean():.3f} to {y[:, -1].mean():.3f}: no rising curve fits them; "
            "expected scores that are higher with more patients"
        )
    variance = scale[:, None] * cells.variance[chosen]
    samples = (exponent, rate, level, rise, variance, cells.power[chosen])
    return LearningCurve(n, y, *(values[possible] for values in samples))


class _Cells:
    """The grid of exponents, powers and ratios of variances; in each, least squares in closed form.

    The coefficients are the level with all patients and the rise from the smallest size, which have flat priors: so
    has no exponent an advantage by the scale of its own a and b. The variance has Jeffreys's, and one observation.

    Args:
        n: (k,) sizes.
        y: (r, k) scores.
    """

    def __init__(self, n: NDArray[np.int64], y: Floats) -> None:
        repeats, k = y.shape
        mean = y.mean(axis=0)
        contrasts = helmert(repeats) @ y[:, :-1]  # orthonormal, so that their covariance is that of one repeat
        ending = -2 / n[-1] * np.log((np.sqrt(1 + 4 * _ENDING_GAINS) - 1) / 2)
        exponents, rates = np.r_[-np.log2(_GAINS), 0 * ending], np.r_[0 * _GAINS, ending]
        before = np.repeat(
            np.log([(1 - _WEIGHT_OF_ENDING) / len(_GAINS), _WEIGHT_OF_ENDING / len(ending)]), [len(_GAINS), len(ending)]
        )
        basis = _basis(n, n, exponents, rates)
        design = np.stack([np.ones_like(basis), -basis], axis=2)
        weight, squares, beta, root, variance, power = [], [], [], [], [], []
        self.freedom = k - 2 + (repeats - 1) * (k - 1) + 1
        for p in _POWERS:
            draws = _draws(n[:, None], n[None, :], n, np.full(1, p))[0]
            for trained, sized in itertools.product(_RATIOS, _RATIOS):
                own = draws + trained * np.eye(k)
                shared = own / repeats + sized * np.eye(k)
                shared[-1, -1] = trained + sized  # with all patients the repeats are one training
                inverse = np.linalg.inv(shared)
                information = np.einsum("cki,kl,clj->cij", design, inverse, design)
                solved = np.linalg.solve(information, np.einsum("cki,kl,l->ci", design, inverse, mean)[..., None])
                coefficients = solved[..., 0]
                residual = mean - np.einsum("cki,ci->ck", design, coefficients)
                within = own[:-1, :-1]
                rest = np.einsum("ck,kl,cl->c", residual, inverse, residual)
                rest += np.einsum("rk,kl,rl->", contrasts, np.linalg.inv(within), contrasts) + _LEAST_DEVIATION**2
                likelihood = -np.linalg.slogdet(shared)[1] - (repeats - 1) * np.linalg.slogdet(within)[1]
                likelihood = likelihood - np.linalg.slogdet(information)[1] - self.freedom * np.log(rest)
                weight.append(likelihood / 2 + before)
                squares.append(rest)
                beta.append(coefficients)
                root.append(np.linalg.cholesky(np.linalg.inv(information)))
                variance.append(np.tile((1.0, trained, sized), (len(rates), 1)))
                power.append(np.full(len(rates), p))
        log_weight = np.concatenate(weight)
        likelihood = np.exp(log_weight - log_weight.max())
        self.weight = likelihood / likelihood.sum()
        self.exponent, self.rate = (np.tile(values, len(weight)) for values in (exponents, rates))
        self.squares, self.power = map(np.concatenate, (squares, power))
        self.beta, self.root, self.variance = map(np.concatenate, (beta, root, variance))


def _basis(size: NDArray[np.int64], sizes: NDArray[np.int64], exponent: Floats, rate: Floats) -> Floats:
    """Return n^-c exp(-n / t), scaled to 1 at the smallest of the sizes and 0 at the largest; (s, m)."""
    n = np.asarray(size, np.float64)
    logs = -np.outer(exponent, np.log(n / sizes[0])) - np.outer(rate, n - sizes[0])
    last = -exponent * np.log(sizes[-1] / sizes[0]) - rate * (sizes[-1] - sizes[0])
    return ((np.exp(logs).T - np.exp(last)) / (1 - np.exp(last))).T


def _draws(m: ArrayLike, n: ArrayLike, sizes: NDArray[np.int64], power: NDArray[np.int64]) -> Floats:
    """Return the covariance of draws of m and n patients, of a pool of the largest size; 1 is their mean variance.

    Returns:
        (s, ...): negative beyond the pool, where its absolute value is the variance that further patients add.
    """
    p = np.asarray(power, np.float64).reshape(-1, *[1] * np.ndim(np.maximum(m, n)))
    pool = float(sizes[-1]) ** -p
    unit = (np.asarray(sizes[:-1], np.float64) ** -np.asarray(power, np.float64)[:, None]).mean(axis=1)
    unit = unit.reshape(p.shape) - pool
    return (np.maximum(m, n).astype(np.float64) ** -p - pool) / unit


def sizes_of_test_sets(
    predictions: AnyPredictions, metric: str, half_widths: Sequence[float], rounds: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return how many test patients an interval of a promised half-width takes: n (h / w)^2, for h from n patients.

    h is half the width of the group bootstrap's interval. The design effect is its variance over that of a bootstrap
    of single images: how many images of these patients are worth one of independent patients (Kish, 1965).

    Args:
        predictions: n images.
        metric: Name in `METRICS`.
        half_widths: Half-widths w of a 95 % interval, above 0.
        rounds: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        Index `half_width`, that of these images first; columns patients and images, rounded up, and design_effect; no
        row where the metric or its interval is not defined, or has no width.
    """
    chosen = METRICS[metric]
    columns = ["patients", "images", "design_effect"]
    table = pd.DataFrame(columns=columns, index=pd.Index([], name="half_width", dtype=float))
    if math.isnan(chosen.point(predictions)):
        return table
    half = {}
    for unit, names in {"group": predictions.group, "image": predictions.image_id}.items():
        low, high = interval(resample(chosen.of(predictions), names, rounds, seed))
        half[unit] = float(high - low) / 2
    if not min(half.values()) > 0:  # NaN, too
        return table
    patients, images = len(np.unique(predictions.group)), len(predictions)
    for width in (half["group"], *half_widths):
        share = (half["group"] / width) ** 2
        counts = (math.ceil(share * patients - 1e-9), math.ceil(share * images - 1e-9))
        table.loc[width] = [*counts, (half["group"] / half["image"]) ** 2]
    return table.astype({"patients": int, "images": int})
