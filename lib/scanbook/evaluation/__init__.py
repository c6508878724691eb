"""Evaluation of a table of predictions: metrics with intervals over patients, calibration, targets and comparisons.

It is used without the other folders, too: load a table with `Predictions.load`, or of findings with
`FindingPredictions.load`, then call `summary`, `comparison` and the others.
"""

from scanbook.evaluation.calibration import (
    calibrate,
    finding_reliability,
    fit_calibration,
    fit_temperature,
    reliability,
)
from scanbook.evaluation.exams import ExamRule, Exams, combine, fit_exam_rule, have_labels
from scanbook.evaluation.findings import AnyPredictions, Calibration, FindingPredictions, load_predictions
from scanbook.evaluation.labels import Labels
from scanbook.evaluation.learning_curve import LEAST_SIZES, LearningCurve, fit_curve, sizes_of_test_sets
from scanbook.evaluation.operating_points import (
    co_errors,
    confident,
    distance,
    finding_abstention,
    finding_coverage_curve,
    finding_errors,
    finding_points,
)
from scanbook.evaluation.paired import Difference, comparison, holm, mcnemar, paired_difference
from scanbook.evaluation.predictions import Predictions, choose_by_fold, failures, of_images, pool, successes
from scanbook.evaluation.pseudonyms import pseudonymous
from scanbook.evaluation.registry import METRICS, OF_CLASSES, has_findings, main_metric, metrics_for
from scanbook.evaluation.resampling import count_groups, group_folds, group_weights, interval, widening, widening_of
from scanbook.evaluation.seeds import difference_over_seeds, over_folds, over_seeds
from scanbook.evaluation.selective import abstain_below, abstention, coverage_curve
from scanbook.evaluation.subgroups import LEAST_IMAGES, attribute, finding_subgroups, subgroups
from scanbook.evaluation.summary import (
    MACRO,
    by_backbone,
    class_report,
    confusion,
    default_metrics,
    finding_report,
    means,
    per_class,
    summary,
)
from scanbook.evaluation.targets import check_targets, chosen_for, prevalence_curve, targets_table
from scanbook.evaluation.texts import with_interval
from scanbook.evaluation.unpaired import unpaired_difference
