"""Every figure of the notebooks, in one style; each function returns a closed figure, which a notebook shows once."""

from scanbook.reporting.plots import style
from scanbook.reporting.plots.comparing import reliability_of_runs, roc_of_runs
from scanbook.reporting.plots.cost import cost_of_prediction
from scanbook.reporting.plots.data import (
    category_by_class,
    class_counts,
    image_sizes,
    image_statistics,
    metadata_by_class,
    montage,
    numeric_by_class,
    shortcut_bars,
)
from scanbook.reporting.plots.evaluation import (
    MOST_SQUARES,
    confusion_matrix,
    confusions,
    difference_plot,
    heat_maps,
    metric_bars,
    reliability_diagram,
    roc_arms,
    roc_curves,
)
from scanbook.reporting.plots.external import (
    decision_curves,
    local_labels,
    reliability_of_sources,
    shift_bars,
    two_sources,
)
from scanbook.reporting.plots.findings import (
    co_errors,
    finding_answers,
    finding_bars,
    finding_coverage,
    finding_reliability_diagrams,
    finding_robustness,
    finding_subgroup_bars,
)
from scanbook.reporting.plots.hardware import (
    latency_percentiles,
    layer_times,
    scaling_curves,
    stage_bars,
    throughput_by_batch,
    training_bars,
)
from scanbook.reporting.plots.labels import (
    areas_by_finding,
    co_occurrence,
    copied_classes,
    findings_per_image,
    label_states,
    suspected_labels,
)
from scanbook.reporting.plots.learning import (
    learning_curves,
    mixed_batch,
    parameter_distributions,
    patient_curves,
    policy_preview,
)
from scanbook.reporting.plots.pitfalls import painted_out, worth_of_mistakes
from scanbook.reporting.plots.segmentation import input_forms, mask_overlays, score_panels, unet_curves
from scanbook.reporting.plots.trust import (
    corruption_preview,
    coverage_curve,
    prevalence_curve,
    robustness_curves,
    seed_dots,
    standings,
    subgroup_bars,
)
