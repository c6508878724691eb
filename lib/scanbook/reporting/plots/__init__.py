"""Every figure of the notebooks, in one style; each function returns a closed figure, which a notebook shows once."""

from scanbook.reporting.plots.cost import cost_of_prediction
from scanbook.reporting.plots.data import (
    category_by_class,
    class_counts,
    flagged,
    image_statistics,
    montage,
    numeric_by_class,
)
from scanbook.reporting.plots.evaluation import (
    confusion_matrix,
    difference_plot,
    heat_maps,
    metric_bars,
    reliability_diagram,
    roc_curves,
)
from scanbook.reporting.plots.hardware import latency_percentiles, layer_times, throughput_by_batch
from scanbook.reporting.plots.learning import learning_curves, mixed_batch, parameter_distributions, policy_preview
from scanbook.reporting.plots.quality import image_sizes, shortcut_bars
from scanbook.reporting.plots.robustness import corruption_preview, robustness_curves
from scanbook.reporting.plots.scaling import scaling_curves, stage_bars, training_bars
from scanbook.reporting.plots.segmentation import input_forms, mask_overlays, roc_arms, score_panels, unet_curves
from scanbook.reporting.plots.style import apply
from scanbook.reporting.plots.trust import coverage_curve, prevalence_curve, seed_dots, subgroup_bars

__all__ = [
    "apply",
    "category_by_class",
    "class_counts",
    "confusion_matrix",
    "corruption_preview",
    "cost_of_prediction",
    "coverage_curve",
    "difference_plot",
    "flagged",
    "heat_maps",
    "image_sizes",
    "image_statistics",
    "input_forms",
    "latency_percentiles",
    "layer_times",
    "learning_curves",
    "mask_overlays",
    "metric_bars",
    "mixed_batch",
    "montage",
    "numeric_by_class",
    "parameter_distributions",
    "policy_preview",
    "prevalence_curve",
    "reliability_diagram",
    "robustness_curves",
    "roc_arms",
    "roc_curves",
    "scaling_curves",
    "score_panels",
    "seed_dots",
    "shortcut_bars",
    "stage_bars",
    "subgroup_bars",
    "throughput_by_batch",
    "training_bars",
    "unet_curves",
]
