"""The metrics by name: what each is called, which labels it is of, and when it is defined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanbook.errors import DataError
from scanbook.evaluation import metrics
from scanbook.evaluation.predictions import Predictions

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
        by_class: Of a metric that ranks images, the function of the same that gives (rounds, k); its mean over the
            classes or findings is the metric.
        bounds: Its least and its largest value.
    """

    name: str
    title: str
    higher_is_better: bool
    needs_every_class: bool
    compute: Callable[[Values, Floats, Floats | None], Floats]
    by_class: Callable[[Values, Floats, Floats | None], Floats] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    def point(self, predictions: Any) -> float:
        """Return the metric with every image counted once, NaN where it is not defined."""
        return float(self.of(predictions)(None)[0]) if self.defined(predictions) else float("nan")

    def of(self, predictions: Any) -> Callable[[Floats | None], Floats]:
        """Return the metric of predictions as a function of weights (rounds, n), or None, that gives (rounds,).

        With several folds, a metric that ranks images is the mean over the folds, of each class or finding first.
        """
        if predictions.fold is None or not self.by_class:
            return lambda weights: self.compute(predictions.y_true, predictions.probabilities, weights)
        by_class = mean_over_folds(self.by_class, predictions)
        return lambda weights: metrics.macro(by_class(weights))

    def defined(self, predictions: Any) -> bool:
        """Return whether the images show each of the classes that the metric needs; it needs no finding."""
        return not self.needs_every_class or not isinstance(predictions, Predictions) or not predictions.absent


def mean_over_folds(
    by_class: Callable[[Values, Floats, Floats | None], Floats], predictions: Any
) -> Callable[[Floats | None], Floats]:
    """Return a metric of each class or finding as a function of weights; with several folds, its mean over them.

    A fold without a class, or without the others, does not count for that class.

    Args:
        by_class: Function of y_true, probabilities (n, k) and weights (rounds, n) or None, giving (rounds, k).
        predictions: n images.
    """
    y_true, probabilities, fold = predictions.y_true, predictions.probabilities, predictions.fold
    if fold is None:
        return lambda weights: by_class(y_true, probabilities, weights)
    rows = [np.flatnonzero(fold == name) for name in np.unique(fold)]

    def mean(weights: Floats | None) -> Floats:
        values = np.stack(
            [by_class(y_true[own], probabilities[own], None if weights is None else weights[:, own]) for own in rows]
        )
        known = ~np.isnan(values)
        return metrics.ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0))

    return mean


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "accuracy", True, True, metrics.accuracy),
        Metric("balanced_accuracy", "balanced accuracy", True, True, metrics.balanced_accuracy),
        Metric("macro_precision", "macro precision", True, True, metrics.macro_precision),
        Metric("weighted_precision", "weighted precision", True, True, metrics.weighted_precision),
        Metric("macro_f1", "macro F1", True, True, metrics.macro_f1),
        Metric("weighted_f1", "weighted F1", True, True, metrics.weighted_f1),
        Metric("auroc", "macro AUROC", True, True, metrics.auroc, metrics.class_auroc),
        Metric("auprc", "macro AUPRC", True, True, metrics.auprc, metrics.class_auprc),
        Metric("brier", "Brier score", False, False, metrics.brier, bounds=(0.0, 2.0)),
        Metric("ece", "calibration error (ECE)", False, False, metrics.ece),
        Metric("kappa", "quadratic weighted kappa", True, True, metrics.kappa, bounds=(-1.0, 1.0)),
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
