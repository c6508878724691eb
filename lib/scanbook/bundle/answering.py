"""The rules that turn probabilities into answers: present, absent or not sure, of an image and of an exam.

The probabilities of a bundle are calibrated and float32. The rules work on logits, which follow from them: of a finding
its log odds; of classes the logarithms, up to the temperature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from scanbook.models.engines import centred_log

PRESENT, NOT_SURE, ABSENT = "present", "not sure", "absent"
STATES = (PRESENT, NOT_SURE, ABSENT)
"""Answers for a finding, in the order in which they are listed."""
RULES = {"mean": np.mean, "maximum": np.max}
"""How the logits of an exam's images become those of the exam, by name."""
RESOLVED = 0.999
"""Largest probability whose logit is compared: float32 resolves that of a larger one to less than a thousandth."""
_LARGEST = 1 - 2.0**-24
_LEAST = 1e-12
"""Smallest distance from 0 and 1 at which margins count, as in `evaluation.distance`, which chose them."""


class Described(Protocol):
    """What the rules need of a `Bundle`; the attributes are as there."""

    @property
    def findings(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def calibration(self) -> dict[str, dict[str, Any]]: ...  # noqa: D102
    @property
    def operating_points(self) -> dict[str, dict[str, Any]]: ...  # noqa: D102
    @property
    def exam(self) -> dict[str, Any]: ...  # noqa: D102


def log_odds(probabilities: Any, largest: float = _LARGEST) -> np.ndarray:
    """Return the log odds of probabilities, float64 of their shape.

    Args:
        probabilities: Between 0 and 1; 0 counts as the smallest normal float32.
        largest: Largest probability; a larger one counts as this.
    """
    p = np.clip(np.asarray(probabilities, np.float64), np.finfo(np.float32).tiny, largest)
    return np.log(p) - np.log1p(-p)


def comparable_logits(probabilities: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """Return the logits by which two sources of probabilities, `(n, k)`, are compared.

    Args:
        probabilities: Calibrated.
        exclusive: Whether they are of classes, and not of findings.
    """
    return centred_log(probabilities) if exclusive else log_odds(probabilities, RESOLVED)


def find_answers(points: Mapping[str, Mapping[str, Any]], probabilities: np.ndarray) -> np.ndarray:
    """Return the answer for each finding: one of `STATES`, str `(n, k)`.

    A finding is present at or above its threshold. The answer is "not sure" where the log odds are nearer to those of
    the threshold than its margin, and where the finding has no threshold.

    Args:
        points: Operating point of each finding, in their order: `threshold`, `margin`.
        probabilities: Calibrated, `(n, k)`.
    """
    cuts, margins = find_thresholds(points), np.array([point["margin"] for point in points.values()])
    p, cut = (np.clip(np.asarray(values, np.float64), _LEAST, 1 - _LEAST) for values in (probabilities, cuts))
    near = np.abs(np.log(p / (1 - p)) - np.log(cut / (1 - cut))) < margins
    answers = np.where(np.asarray(probabilities, np.float64) >= cuts, PRESENT, ABSENT)
    return np.where(near | np.isnan(cuts), NOT_SURE, answers)


def find_thresholds(points: Mapping[str, Mapping[str, Any]]) -> np.ndarray:
    """Return the thresholds of findings, float64 `(k,)`, NaN for none, from their operating points."""
    return np.array([np.nan if point["threshold"] is None else point["threshold"] for point in points.values()], float)


def combine(bundle: Described, probabilities: np.ndarray) -> np.ndarray:
    """Return the calibrated probabilities of an exam, float64 `(k,)`.

    The logits before calibration, which follow from the probabilities, are combined by the rule of the bundle; the
    exam's own calibration makes probabilities of them. The logits of classes are normalised, `log_softmax`: what is
    added to all of an image changes none of its probabilities.

    Args:
        bundle: A bundle with `exam`.
        probabilities: Calibrated, of the exam's images, `(m, k)`.
    """
    rule, calibration = RULES[bundle.exam["rule"]], bundle.exam["calibration"]
    if bundle.findings:
        slope, offset = _scale(bundle.calibration)
        logits = rule((log_odds(probabilities) - offset) / slope, axis=0)
        slope, offset = _scale(calibration)
        return 1 / (1 + np.exp(-(logits * slope + offset)))
    logits = rule(_log_softmax(bundle.temperature * centred_log(probabilities)), axis=0)
    return np.exp(_log_softmax(logits[None] / calibration)[0])


def _scale(calibration: Mapping[str, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    slope, offset = (np.array([values[key] for values in calibration.values()]) for key in ("slope", "offset"))
    return slope, offset


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def unsure_range(point: Mapping[str, Any]) -> tuple[float, float]:
    """Return the probabilities between which a finding is answered with "not sure"; both are the threshold without."""
    centre = log_odds(point["threshold"])
    low, high = (float(1 / (1 + np.exp(-(centre + sign * point["margin"])))) for sign in (-1, 1))
    return low, high


def find_faults(bundle: Described) -> Iterator[tuple[str, Any, str]]:
    """Yield what contradicts itself in the findings, their operating points and the exams of a bundle.

    Yields:
        The key, its value, and what was expected.
    """
    if bundle.findings:
        yield from _faults_of_findings("", bundle, bundle.calibration, bundle.operating_points)
    elif bundle.calibration:
        yield "calibration", bundle.calibration, "none without findings: classes have a temperature"
    exam = bundle.exam
    if not exam:
        return
    if exam.get("rule") not in RULES:
        yield "exam.rule", exam.get("rule"), f"one of {', '.join(RULES)}"
    if bundle.findings:
        yield from _faults_of_findings("exam.", bundle, exam.get("calibration"), exam.get("operating_points"))
        return
    if not _is_number(exam.get("calibration"), above=0):
        yield "exam.calibration", exam.get("calibration"), "a temperature, a number above 0"
    if not _is_number(exam.get("abstain_below"), least=0, most=1):
        yield "exam.abstain_below", exam.get("abstain_below"), "a probability between 0 and 1"


def _faults_of_findings(where: str, bundle: Described, calibration: Any, points: Any) -> Iterator[tuple[str, Any, str]]:
    for key, values in (("calibration", calibration), ("operating_points", points)):
        names = list(values) if isinstance(values, Mapping) else values
        if names != list(bundle.findings):
            yield f"{where}{key}", names, f"the findings in their order, {', '.join(bundle.findings)}"
            return
    for finding in bundle.findings:
        scale, point = calibration[finding], points[finding]
        if not (isinstance(scale, Mapping) and isinstance(point, Mapping)):
            yield f"{where}operating_points.{finding}", point, "a threshold and a margin, beside a slope and an offset"
            return
        if not (_is_number(scale.get("slope"), above=0) and _is_number(scale.get("offset"))):
            yield f"{where}calibration.{finding}", scale, "a slope above 0 and an offset"
        if point.get("threshold") is not None and not _is_number(point["threshold"], least=0, most=1):
            yield f"{where}operating_points.{finding}.threshold", point["threshold"], "a probability between 0 and 1"
        if "threshold" not in point or not _is_number(point.get("margin"), least=0):
            yield f"{where}operating_points.{finding}", point, "a threshold and a margin of 0 or more"


def _is_number(value: Any, *, above: float = -np.inf, least: float = -np.inf, most: float = np.inf) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
    return bool(number and value > above and least <= value <= most)
