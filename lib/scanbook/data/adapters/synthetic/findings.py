"""The population behind synthetic findings: how severe they are, what their reader states, and the best AUROC.

Every finding of an exam has a liability, standard normal. Liabilities of one exam are correlated (`CORRELATIONS`), and
so are those of one patient's exams. Above the finding's threshold it is visible; its severity grows with the liability.
The reader states it as present with a probability that rises from `overcalled` to 1 - `missed` around the threshold, so
that no model can be perfect. Given the severities, the reader's errors in two findings are independent. The posterior
of a finding is therefore a function of its own severity, and the AUROC of that posterior is the best that any model can
reach. Both, and the odds ratio of two findings, follow from integrals over one or two normal variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from scanbook.data.adapters.synthetic.primitives import Rng


@dataclass(frozen=True)
class Finding:
    """Frequency of a finding, and how often its reader errs.

    Attributes:
        visible: Share of the exams in which it is above the threshold.
        missed: Share of the clearly visible ones that the reader states as absent.
        overcalled: Share of the exams with nothing to see in which the reader states it.
    """

    visible: float
    missed: float
    overcalled: float


FINDINGS: dict[str, Finding] = {
    "cardiomegaly": Finding(0.26, 0.06, 0.015),
    "effusion": Finding(0.30, 0.04, 0.020),
    "pneumothorax": Finding(0.18, 0.04, 0.008),
    "mass": Finding(0.18, 0.06, 0.010),
    "nodules": Finding(0.18, 0.08, 0.012),
    "consolidation": Finding(0.22, 0.08, 0.020),
    "edema": Finding(0.24, 0.06, 0.020),
    "atelectasis": Finding(0.26, 0.08, 0.030),
    "pleural_thickening": Finding(0.16, 0.08, 0.012),
    "devices": Finding(0.36, 0.02, 0.020),
}
"""Findings by name. They are more frequent than in hospitals: a few hundred test images hold enough of each."""
CORRELATIONS: dict[tuple[str, str], float] = {
    ("cardiomegaly", "effusion"): 0.40,
    ("cardiomegaly", "edema"): 0.45,
    ("effusion", "edema"): 0.50,
    ("effusion", "atelectasis"): 0.40,
    ("effusion", "consolidation"): 0.20,
    ("edema", "consolidation"): 0.20,
    ("atelectasis", "consolidation"): 0.20,
    ("mass", "nodules"): 0.40,
    ("pneumothorax", "devices"): 0.40,
    ("effusion", "devices"): 0.30,
    ("edema", "devices"): 0.30,
}
"""Correlation of the liabilities of two findings in one exam; that of other pairs is 0."""
SAME_PATIENT = 0.6
"""Correlation of a finding's liabilities in two exams of one patient."""
_READER = 0.06  # spread of the reader's threshold, in units of the liability
# Severity by liability above the threshold: the reader doubts where the finding is faint, and never elsewhere.
_LIABILITIES, _SEVERITIES = (-0.15, 0.0, 0.15, 1.8), (0.0, 0.25, 0.5, 1.0)


def correlation(names: Sequence[str]) -> np.ndarray:
    """Return the correlation of the liabilities of these findings in one exam, float64 (k, k)."""
    matrix = np.eye(len(names))
    for (first, second), value in CORRELATIONS.items():
        if first in names and second in names:
            row, column = names.index(first), names.index(second)
            matrix[row, column] = matrix[column, row] = value
    return matrix


def sample_liabilities(names: Sequence[str], patients: np.ndarray, rng: Rng) -> np.ndarray:
    """Return the liability of each finding in each exam.

    Args:
        names: Findings.
        patients: Number of the patient of each exam, int (n,).
        rng: Random generator.

    Returns:
        Float64 (n, k).
    """
    root = np.linalg.cholesky(correlation(names)).T
    person = rng.standard_normal((int(patients.max(initial=-1)) + 1, len(names))) @ root
    visit = rng.standard_normal((len(patients), len(names))) @ root
    return np.sqrt(SAME_PATIENT) * person[patients] + np.sqrt(1 - SAME_PATIENT) * visit


def severity(name: str, liability: np.ndarray) -> np.ndarray:
    """Return how severe a finding is, 0 (nothing to see) to 1, in the shape of the liabilities."""
    return np.interp(liability - _threshold(name), _LIABILITIES, _SEVERITIES)


def posterior(name: str, severities: np.ndarray) -> np.ndarray:
    """Return the probability that the reader states a finding of these severities as present, in their shape."""
    finding = FINDINGS[name]
    seen = ndtr(np.interp(severities, _SEVERITIES, _LIABILITIES) / _READER)
    return finding.overcalled + (1 - finding.missed - finding.overcalled) * seen


def prevalence(name: str) -> float:
    """Return the share of the population's exams in which the reader states the finding."""
    values, weights = _grid()
    return float(weights @ posterior(name, severity(name, values)))


@lru_cache
def best_auroc(name: str) -> float:
    """Return the AUROC of the posterior in the population: no model of the images can have a higher one."""
    values, weights = _grid()  # rising, and so is the posterior
    stated = posterior(name, severity(name, values))
    positive, negative = weights * stated, weights * (1 - stated)
    below = np.cumsum(negative) - 0.5 * negative  # equal severities count half
    return float(positive @ below / (positive.sum() * negative.sum()))


def odds_ratio(first: str, second: str) -> float:
    """Return the odds ratio of two findings that the reader states, in the population's exams."""
    values, weights = _grid(601)
    rho = correlation((first, second))[0, 1]
    one = weights * posterior(first, severity(first, values))
    given = posterior(second, severity(second, rho * values[:, None] + np.sqrt(1 - rho**2) * values))
    both, single, other = float(one @ given @ weights), prevalence(first), prevalence(second)
    return both * (1 - single - other + both) / ((single - both) * (other - both))


def _threshold(name: str) -> float:
    return float(-ndtri(FINDINGS[name].visible))


def _grid(points: int = 6001) -> tuple[np.ndarray, np.ndarray]:
    """Return points of a standard normal variable and their probabilities, each float64 (points,)."""
    values = np.linspace(-6, 6, points)
    weights = np.exp(-0.5 * values**2)
    return values, weights / weights.sum()
