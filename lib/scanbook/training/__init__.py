"""Training: a head on frozen features, a network from scratch, fine-tuning; resumed where a process was killed."""

from scanbook.training.arms import averaged, final, fine_tune, repeats, scratch, seeded, start, starts, transfer, whole
from scanbook.training.batches import Batches
from scanbook.training.fitting import Clock, optimizer
from scanbook.training.networks import Plan, let_learn, train_all
from scanbook.training.trained import Trained, validation_loss

__all__ = [
    "Batches",
    "Clock",
    "Plan",
    "Trained",
    "averaged",
    "final",
    "fine_tune",
    "let_learn",
    "optimizer",
    "repeats",
    "scratch",
    "seeded",
    "start",
    "starts",
    "train_all",
    "transfer",
    "validation_loss",
    "whole",
]
