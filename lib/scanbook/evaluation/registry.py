"""The metrics by name: what each is called, which labels it is of, and when it is defined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanbook.errors import DataError
from scanbook.evaluation import metrics

Floats = NDArray[np.float64]
Values = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric of predictions.

    Attributes:
        name: Key in `METRICS`.
        title: Name for tables, figures and sentences.
        higher_is_better: False for errors and losses.
        needs_every_class: Whether it describes the classes together: it is not defined on images that lack one, though
            it can be computed from the others. A Brier score and a calibration error are means over images.
        compute: Function of y_true (n,), or (n, k) of findings, probabilities (n, k), weights (rounds, n) or None,
            giving (rounds,).
    """

    name: str
    title: str
    higher_is_better: bool
    needs_every_class: bool
    compute: Callable[[Values, Floats, Floats | None], Floats]

    def point(self, y_true: Values, probabilities: Floats) -> float:
        """Return the metric with every image counted once, NaN where it is not defined."""
        defined = self.defined(y_true, probabilities.shape[1])
        return float(self.compute(y_true, probabilities, None)[0]) if defined else float("nan")

    def defined(self, y_true: Values, k: int) -> bool:
        """Return whether the images show each of the k classes that the metric needs; it needs no finding."""
        return y_true.ndim == 2 or not self.needs_every_class or len(np.unique(y_true)) == k


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", True, True, metrics.accuracy),
        Metric("balanced_accuracy", "balanced accuracy", True, True, metrics.balanced_accuracy),
        Metric("macro_precision", "macro precision", True, True, metrics.macro_precision),
        Metric("weighted_precision", "weighted precision", True, True, metrics.weighted_precision),
        Metric("macro_f1", "macro F1", True, True, metrics.macro_f1),
        Metric("weighted_f1", "weighted F1", True, True, metrics.weighted_f1),
        Metric("auroc", "macro AUROC", True, True, metrics.auroc),
        Metric("auprc", "macro AUPRC", True, True, metrics.auprc),
        Metric("brier", "Brier score", False, False, metrics.brier),
        Metric("ece", "calibration error (ECE)", False, False, metrics.ece),
        Metric("kappa", "quadratic weighted kappa", True, True, metrics.kappa),
        Metric("exact_match", "exact match at 0.5", True, False, metrics.exact_match),
        Metric("hamming", "Hamming loss at 0.5", False, False, metrics.hamming),
    )
}
OF_CLASSES = tuple(name for name in METRICS if name not in ("exact_match", "hamming"))
"""Names in `METRICS` that classes have; kappa alone needs them in an order."""
OF_FINDINGS = ("auroc", "auprc", "brier", "ece", "exact_match", "hamming")
"""Names in `METRICS` that findings have."""


def has_findings(labels: Any) -> bool:
    """Return whether predictions, or a manifest, are of findings, not of classes."""
    return bool(getattr(labels, "findings", ()))


def main_metric(labels: Any) -> str:
    """Return the metric by which models are compared: "accuracy" of classes, "auroc" of findings.

    Args:
        labels: Predictions or a manifest.
    """
    return "auroc" if has_findings(labels) else "accuracy"


def metrics_for(labels: Any, ordered: bool = False) -> tuple[str, ...]:
    """Return the names in `METRICS` that a report on test images shows: all, but kappa only of ordered classes.

    Args:
        labels: Predictions or a manifest.
        ordered: Whether the class order is a grading, such as the stages of a disease.
    """
    if has_findings(labels):
        return OF_FINDINGS
    return tuple(name for name in OF_CLASSES if ordered or name != "kappa")


def find_metrics(labels: Any, names: Sequence[str]) -> list[Metric]:
    """Return the metrics of those names.

    Args:
        labels: Predictions or a manifest.
        names: Names in `METRICS`.

    Raises:
        DataError: A name is unknown, or a metric is not one of these labels.
    """
    possible = metrics_for(labels, ordered=True)
    for name in names:
        find_metric(name)
        if name not in possible:
            kind = "findings" if has_findings(labels) else "classes"
            raise DataError(f"metric {name!r} is not defined for {kind}: expected one of {', '.join(possible)}")
    return [METRICS[name] for name in names]


def find_metric(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        DataError: the name is unknown.
    """
    if name not in METRICS:
        raise DataError(f"metric {name!r} is unknown: expected one of {', '.join(METRICS)}")
    return METRICS[name]
