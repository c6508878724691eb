"""What a page shows of a prediction, in the reader's language."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scanbook.bundle import Bundle
from scanbook.bundle.answering import ABSENT, NOT_SURE, PRESENT
from scanbook.errors import ImageError
from scanbook.serving.languages import language
from scanbook.serving.predictor import AnyPrediction, FindingsPrediction
from scanbook.serving.problems import REASONS

SHOWN_FINDINGS = 6
"""Findings that are shown at once; further ones that are absent are folded away, if they are three or more."""


@dataclass(frozen=True)
class Finding:
    """One finding as the page shows it.

    Attributes:
        name: Its name.
        share: Its calibrated probability.
        answer: "present", "not sure" or "absent".
        threshold: Probability from which on it is present; None where it has no threshold.
    """

    name: str
    share: float
    answer: str
    threshold: float | None


@dataclass(frozen=True)
class View:
    """One image, or one exam, as the page shows it.

    Attributes:
        number: Position among the images of the request, from 1; 0 for the exam.
        problem: Why there is no prediction; "" if there is one.
        label: The most probable class; "" of findings.
        confidence: Its calibrated probability.
        abstained: Whether the confidence is too low for a prediction.
        least: Confidence from which on the model answers.
        bars: Each class and its probability, the most probable first.
        findings: Each finding: those that are present, then those not sure, then the others.
        picture: The image, as a data URI; "" of an exam.
        heat_maps: Names of the class or findings, and the evidence for each, to lie over the picture, as a data URI.
    """

    number: int
    problem: str = ""
    label: str = ""
    confidence: float = 0.0
    abstained: bool = False
    least: float = 0.0
    bars: list[tuple[str, float]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    picture: str = ""
    heat_maps: list[tuple[str, str]] = field(default_factory=list)

    @property
    def present(self) -> list[str]:
        """Names of the findings that are present."""
        return [finding.name for finding in self.findings if finding.answer == PRESENT]

    @property
    def unsure(self) -> list[str]:
        """Names of the findings of which the model is not sure."""
        return [finding.name for finding in self.findings if finding.answer == NOT_SURE]

    @property
    def doubtful(self) -> bool:
        """Whether the verdict is "not sure"."""
        return self.abstained or bool(self.unsure and not self.present)

    @property
    def shown(self) -> int:
        """Number of the findings that are shown at once; the others are absent."""
        absent = sum(finding.answer == ABSENT for finding in self.findings)
        shown = max(SHOWN_FINDINGS, len(self.findings) - absent)
        return shown if len(self.findings) - shown > 2 else len(self.findings)


def make_view(bundle: Bundle, number: int, outcome: AnyPrediction | ImageError) -> View:
    """Return the view of a prediction, or of the reason why there is none.

    Args:
        bundle: The bundle that predicted.
        number: As `View.number`.
        outcome: The prediction, or the error.
    """
    if isinstance(outcome, ImageError):
        return View(number, problem=str(REASONS[outcome.reason]))
    picture = data_uri("image/jpeg", outcome.picture) if outcome.picture else ""
    if isinstance(outcome, FindingsPrediction):
        points = bundle.operating_points if number else bundle.exam["operating_points"]
        maps = [(_name(bundle, index), data_uri("image/png", data)) for index, data in outcome.heat_maps.items()]
        return View(number, findings=_findings(bundle, outcome, points), picture=picture, heat_maps=maps)
    probabilities = outcome.probabilities.tolist()
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    bars = [(_name(bundle, index), probabilities[index]) for index in order]
    return View(
        number,
        label=bars[0][0],
        confidence=outcome.confidence,
        abstained=outcome.abstained,
        least=bundle.abstain_below if number else bundle.exam["abstain_below"],
        bars=bars,
        picture=picture,
        heat_maps=[(bars[0][0], data_uri("image/png", outcome.heat_map))] if outcome.heat_map else [],
    )


def _findings(bundle: Bundle, prediction: FindingsPrediction, points: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(
            _name(bundle, index),
            float(prediction.probabilities[index]),
            prediction.answers[index],
            points[bundle.findings[index]]["threshold"],
        )
        for index in prediction.order
    ]


def _name(bundle: Bundle, index: int) -> str:
    return bundle.label(index, language())


def data_uri(kind: str, data: bytes) -> str:
    """Return bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
