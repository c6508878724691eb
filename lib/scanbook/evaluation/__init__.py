"""Metrics with intervals over patients, calibration, operating points, paired comparisons and subgroups."""

from scanbook.evaluation.bootstrap import group_weights, interval, resample
from scanbook.evaluation.calibration import apply_temperature, fit_temperature, reliability
from scanbook.evaluation.metrics import METRICS, Metric
from scanbook.evaluation.operating import choose_threshold, operating_point
from scanbook.evaluation.paired import Difference, mcnemar, paired_difference
from scanbook.evaluation.predictions import Predictions
from scanbook.evaluation.summary import by_backbone, confusion, majority, means, per_class, subgroups, summary

__all__ = [
    "METRICS",
    "Difference",
    "Metric",
    "Predictions",
    "apply_temperature",
    "by_backbone",
    "choose_threshold",
    "confusion",
    "fit_temperature",
    "group_weights",
    "interval",
    "majority",
    "mcnemar",
    "means",
    "operating_point",
    "paired_difference",
    "per_class",
    "reliability",
    "resample",
    "subgroups",
    "summary",
]
