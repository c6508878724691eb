"""Metrics with intervals over patients, calibration, operating points, paired comparisons and subgroups."""

from scanbook.evaluation.bootstrap import group_weights, interval, resample
from scanbook.evaluation.calibration import apply_temperature, fit_temperature, reliability
from scanbook.evaluation.delong import AreaDifference, delong
from scanbook.evaluation.metrics import METRICS, Metric, metrics_for
from scanbook.evaluation.operating_points import choose_threshold, operating_point
from scanbook.evaluation.paired import Difference, comparison, mcnemar, paired_difference
from scanbook.evaluation.predictions import Predictions, failures, successes
from scanbook.evaluation.seeds import average, difference_over_seeds, over_seeds
from scanbook.evaluation.selective import abstain_below, abstention, choose_abstention, coverage_curve
from scanbook.evaluation.subgroups import LEAST_IMAGES, attribute, bands, subgroup_counts, subgroups
from scanbook.evaluation.summary import by_backbone, class_report, confusion, means, per_class, summary
from scanbook.evaluation.targets import check_targets, predictive_values, prevalence_curve, targets_table

__all__ = [
    "LEAST_IMAGES",
    "METRICS",
    "AreaDifference",
    "Difference",
    "Metric",
    "Predictions",
    "abstain_below",
    "abstention",
    "apply_temperature",
    "attribute",
    "average",
    "bands",
    "by_backbone",
    "check_targets",
    "choose_abstention",
    "choose_threshold",
    "class_report",
    "comparison",
    "confusion",
    "coverage_curve",
    "delong",
    "difference_over_seeds",
    "failures",
    "fit_temperature",
    "group_weights",
    "interval",
    "mcnemar",
    "means",
    "metrics_for",
    "operating_point",
    "over_seeds",
    "paired_difference",
    "per_class",
    "predictive_values",
    "prevalence_curve",
    "reliability",
    "resample",
    "subgroup_counts",
    "subgroups",
    "successes",
    "summary",
    "targets_table",
]
