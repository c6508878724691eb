"""Masks of a lesion, the lungs or the retina, by classical methods or a U-Net: scores, cut-outs and crops."""

from scanbook.segmentation.derived import FORMS, preview
from scanbook.segmentation.inputs import cut, prepare
from scanbook.segmentation.masks import (
    UNET,
    choose_method,
    costs,
    cut_outs,
    describe_methods,
    expert_masks,
    runnable_methods,
    segment,
    train_unet,
    tune_all,
)
from scanbook.segmentation.scores import SCORES, examples, gaps, scores
