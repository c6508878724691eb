"""Masks of a lesion, of the lungs or of the retina: by rule or learned, how good they are, what is made of them."""

from scanbook.segmentation.derived import FORMS, prepare, preview
from scanbook.segmentation.masks import (
    UNET,
    choose,
    costs,
    cut_outs,
    describe,
    known_masks,
    milliseconds,
    runnable,
    segment,
    train_unet,
    tune,
    tune_all,
)
from scanbook.segmentation.scores import SCORES, dice, examples, gaps, iou, resized, scores, surface_distances

__all__ = [
    "FORMS",
    "SCORES",
    "UNET",
    "choose",
    "costs",
    "cut_outs",
    "describe",
    "dice",
    "examples",
    "gaps",
    "iou",
    "known_masks",
    "milliseconds",
    "prepare",
    "preview",
    "resized",
    "runnable",
    "scores",
    "segment",
    "surface_distances",
    "train_unet",
    "tune",
    "tune_all",
]
