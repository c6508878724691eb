"""The blocks of a study that say how its networks learn."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scanbook.config.block import Augmentation, Backbone, Block, Count, Fraction, Method, Penalty, Positive, Rate, Share
from scanbook.registry import SEGMENTATION_METHODS


class Schedule(Block):
    """How a network is trained. The rate warms up over the first epoch, then falls to zero on a cosine."""

    epochs: Positive = 10
    """Passes over the training images."""
    learning_rate: Rate = 3e-4
    """Highest learning rate."""
    batch_size: Positive = 32
    """Images in a step."""


class UNet(Schedule):
    """Training of the U-Net, on training images that have masks."""

    epochs: Positive = 9
    """Passes over the training images."""
    learning_rate: Rate = 4e-3
    """Highest learning rate."""
    batch_size: Positive = 16
    """Images in a step."""
    images: Positive = 2000
    """Training images, at most."""


class Segmentation(Block):
    """What is segmented, by which methods, and what is made of it."""

    structure: Literal["lesion", "lungs", "retina"] = "lesion"
    """What the masks are of; it decides the clean-up and the words of the reports."""
    methods: Annotated[list[Method], Field(min_length=1)] = list(SEGMENTATION_METHODS)
    """Methods that notebook 02 compares."""
    use: str = "auto"
    """Method whose masks cut images out; auto: the best on validation where there are masks, else the first."""
    background: Literal["white", "black", "mean"] = "white"
    """What is painted outside the mask; mean: the mean colour of what is painted over."""
    margin: Fraction = 0.1
    """Share of the mask's box that a crop keeps around it."""
    unet: UNet = UNet()
    """Training of the U-Net."""

    @model_validator(mode="after")
    def _uses_one_of_its_methods(self) -> Segmentation:
        if self.use not in ("auto", *self.methods):
            raise ValueError(f"use is {self.use!r}; expected auto, or one of methods: {', '.join(self.methods)}")
        return self


class Head(Block):
    """What stands on a backbone's pooled features, and how it is trained on cached ones."""

    units: list[Positive] = []
    """Sizes of hidden layers (Dense, ReLU)."""
    output: Literal["softmax", "sigmoid", "ordinal"] = "softmax"
    """softmax; sigmoid: one score for two classes; ordinal: one step from each grade to the next."""
    epochs: Positive = 20
    """Passes over the features."""
    learning_rate: Rate = 1e-2
    """Highest learning rate."""
    batch_size: Positive = 64
    """Images in a step."""
    l2: Annotated[list[Penalty], Field(min_length=1)] = [0.01, 0.05, 0.25]
    """One head is trained for each of these penalties; validation chooses."""
    augmentation: Augmentation = "none"
    """Policy of the copies that the head learns from, beside the images themselves."""
    views: Positive = 4
    """Augmented copies of each training image, where there is a policy."""


class Training(Schedule):
    """Training of a whole network; the weights of the epoch with the lowest validation loss are kept."""

    rate_schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """cosine: warm-up, then down to zero; plateau: halved when validation loss stalls; or constant."""
    plateau_patience: Positive = 3
    """Epochs without a lower validation loss after which plateau halves the rate."""
    patience: Positive | None = None
    """Epochs without a lower validation loss after which training stops; null: it does not."""
    balance: Literal["none", "class_weights", "sampling"] = "none"
    """How rare classes are made up for: weights in the loss, or every class drawn as often as any other."""
    label_smoothing: Fraction = 0.0
    """Share of the label that is spread over all classes."""
    weight_decay: Penalty = 0.0
    """Weight decay, the same for all layers; biases and normalisation have none."""


class Sweep(Block):
    """The grid of `make sweep`: every backbone with every policy and every seed, each trained by a run of its own."""

    backbones: list[Backbone] = []
    """Networks; empty: the study's."""
    policies: list[Augmentation] = []
    """Policies for training images; empty: none, and the study's."""
    seeds: Positive = 3
    """How often each is trained, with seeds from `seed` on."""


class FineTuning(Training):
    """Training of a pretrained network in stages: its head, then its top layers, then all.

    The head starts as the frozen backbone's, and batch normalisation stays as pretrained.
    """

    head_epochs: Count = 0
    """Epochs in which the head alone learns, on augmented images."""
    top_epochs: Count = 0
    """Epochs in which the last layers learn."""
    top: Share = 0.3
    """Which layers these are: the last so many, as a share."""
    first_layer_rate: Share = 1.0
    """The first layer's share of the learning rate; those between it and the head follow on a geometric scale."""
