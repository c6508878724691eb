"""Lesion masks without training, how good they are, and images cut out by them."""

from scanbook.segmentation.masks import METHODS, cut_outs, segment
from scanbook.segmentation.scores import dice, iou, scores

__all__ = ["METHODS", "cut_outs", "dice", "iou", "scores", "segment"]
