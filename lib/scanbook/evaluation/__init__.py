"""Evaluation of a table of predictions: metrics with intervals over patients, calibration, targets and comparisons.

It is used without the other folders, too: load a table with `Predictions.load`, then call `summary`, `comparison` and
the others.
"""

from scanbook.evaluation.calibration import Calibration, fit_temperature, reliability
from scanbook.evaluation.findings import AnyPredictions, FindingPredictions
from scanbook.evaluation.labels import Labels
from scanbook.evaluation.metrics import METRICS, metrics_for
from scanbook.evaluation.paired import Difference, comparison, mcnemar, paired_difference
from scanbook.evaluation.predictions import Predictions, failures, successes
from scanbook.evaluation.resampling import group_folds, group_weights, interval
from scanbook.evaluation.seeds import difference_over_seeds, over_seeds
from scanbook.evaluation.selective import abstain_below, abstention, coverage_curve
from scanbook.evaluation.subgroups import LEAST_IMAGES, attribute, subgroups
from scanbook.evaluation.summary import by_backbone, class_report, confusion, means, per_class, summary
from scanbook.evaluation.targets import check_targets, prevalence_curve, targets_table
