"""Blocks of a study for the training of its networks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from scanbook.config.block import (
    Augmentation,
    Backbone,
    Block,
    Count,
    Fraction,
    Method,
    OpenShare,
    Penalty,
    Positive,
    Rate,
    Share,
)
from scanbook.registry import SEGMENTATION_METHODS


class Schedule(Block):
    """Training of a network. The learning rate warms up over the first epoch, then falls to zero on a cosine."""

    epochs: Positive = 10
    """Passes over the training images."""
    learning_rate: Rate = 3e-4
    """Highest learning rate."""
    batch_size: Positive = 32
    """Images per step."""


class UNet(Schedule):
    """Training of the U-Net, on training images that have masks."""

    epochs: Positive = 9
    """Passes over the training images."""
    learning_rate: Rate = 4e-3
    """Highest learning rate."""
    batch_size: Positive = 16
    """Images per step."""
    images: Positive = 2000
    """Largest number of training images."""


class Segmentation(Block):
    """Segmentation, and what is made of the masks."""

    structure: Literal["lesion", "lungs", "retina"] = "lesion"
    """Structure that the masks show; it decides the clean-up and the words of the reports."""
    methods: Annotated[list[Method], Field(min_length=1)] = list(SEGMENTATION_METHODS)
    """Methods that notebook 02 compares."""
    use: str = "auto"
    """Method whose masks cut out images; auto: the best on validation where there are masks, else the first."""
    background: Literal["white", "black", "mean"] = "white"
    """Colour outside the mask; mean: the mean colour of the covered pixels."""
    margin: Fraction = 0.1
    """Margin around the mask's bounding box, as a share of its size."""
    unet: UNet = UNet()
    """Training of the U-Net."""

    @model_validator(mode="after")
    def _uses_one_of_its_methods(self) -> Segmentation:
        if self.use not in ("auto", *self.methods):
            raise ValueError(f"use is {self.use!r}; expected auto, or one of methods: {', '.join(self.methods)}")
        return self


class Head(Block):
    """Classifier head on a backbone's pooled features, trained on cached ones."""

    units: list[Positive] = []
    """Units of the hidden layers (Dense, ReLU)."""
    output: Literal["softmax", "sigmoid", "ordinal"] = "softmax"
    """softmax; sigmoid: one score for two classes; ordinal: one step from each grade to the next. Findings leave it
    out: each has a score of its own."""
    epochs: Positive = 20
    """Passes over the features."""
    learning_rate: Rate = 1e-2
    """Highest learning rate."""
    batch_size: Positive = 64
    """Images per step."""
    l2: Annotated[list[Penalty], Field(min_length=1)] = [0.01, 0.05, 0.25]
    """Penalties; one head is trained for each, and validation selects one."""
    augmentation: Augmentation = "none"
    """Augmentation policy of the copies that the head learns from, beside the images themselves."""
    views: Positive = 4
    """Number of augmented copies of each training image, where there is a policy."""


class Training(Schedule):
    """Training of a whole network; the weights of the epoch with the lowest validation loss are kept."""

    rate_schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """cosine: warm-up, then down to zero; plateau: halved when the validation loss stalls; or constant."""
    plateau_patience: Positive = 3
    """Epochs without a lower validation loss after which plateau halves the rate."""
    patience: Positive | None = None
    """Epochs without a lower validation loss after which training stops; null: it does not."""
    balance: Literal["none", "class_weights", "sampling"] = "none"
    """Correction for rare labels: weights in the loss, or equal sampling. class_weights: every class counts as much as
    another, and of each finding present as much as absent. sampling: every class is sampled equally often; an image
    with findings counts for its rarest one, and images without any are sampled like one more finding."""
    label_smoothing: Fraction = 0.0
    """Share of the label that is distributed over all classes; of a finding, over present and absent."""
    weight_decay: Penalty = 0.0
    """Weight decay of all layers, apart from the gradient, as in AdamW; biases and normalisation have none."""
    moving_average: Rate | None = None
    """Length of the moving average of the weights, in epochs: weights of that long ago count 1/e as much as the last
    ones. Validation measures the average, and it is what is kept. null: the weights themselves."""
    logit_adjustment: Fraction = 0.0
    """Share of the logarithm of the classes' frequencies that is added to the logits in training, and not afterwards:
    rare classes are then predicted more often. 1: as if all classes were equally frequent. Of findings, present and
    absent."""

    @model_validator(mode="after")
    def _one_correction_for_rare_labels(self) -> Training:
        if self.logit_adjustment and self.balance != "none":
            raise ValueError(
                f"logit_adjustment is {self.logit_adjustment:g} and balance is {self.balance}, which both correct for "
                "rare labels; expected one of them"
            )
        return self


class Sweep(Block):
    """The grid of `make sweep`: every backbone with every policy and every seed, each trained in a separate run."""

    backbones: list[Backbone] = []
    """Networks; empty: those of the study."""
    policies: list[Augmentation] = []
    """Augmentation policies of the training images; empty: none, and that of the study."""
    seeds: Positive = 3
    """Number of seeds for each, from `seed` on."""


class LearningCurve(Block):
    """Section of notebook 04 on how the results grow with the number of training patients."""

    sizes: Annotated[int, Field(ge=5)] = 8
    """Numbers of patients, from about a tenth of them to all, each of which trains a head on cached features."""
    repeats: Positive = 5
    """Random draws of each number of patients."""
    fine_tuning: bool = False
    """Whether the network is fine-tuned with each draw, too: sizes × repeats trainings of notebook 05's network."""
    half_widths: Annotated[list[OpenShare], Field(min_length=1)] = [0.05, 0.02]
    """Half-widths of a 95 % interval for which the size of a test set is computed."""


class FineTuning(Training):
    """Training of a pretrained network in stages: its head, then its top layers, then all layers.

    It starts from the head of the frozen backbone, and batch normalisation stays as pretrained.
    """

    learning_rate: Rate = 5e-4
    """Highest learning rate."""
    moving_average: Rate | None = 1.0
    """Length of the moving average of the weights, in epochs, as in `scratch`; null: the weights themselves."""
    backbones: Positive = 1
    """Number of backbones that are fine-tuned: those whose frozen networks are best on validation. It selects one."""
    head_epochs: Count = 0
    """Epochs that train the head alone, on augmented images."""
    top_epochs: Count = 0
    """Epochs that train the top layers."""
    top: Share = 0.3
    """Share of the layers that are the top layers."""
    image_sizes: Annotated[list[Share], Field(min_length=1)] = [1.0]
    """Sizes of the images in the stage that trains all layers, as shares of `image_size`: each of them for the same
    number of epochs, from small to 1, such as [0.7, 1.0]."""
    first_layer_rate: Share = 1.0
    """Learning rate of the first layer, as a share; those between it and the head follow on a geometric scale."""

    @model_validator(mode="after")
    def _images_grow_to_their_size(self) -> FineTuning:
        percents = [round(100 * share) for share in self.image_sizes]
        if sorted(set(percents)) != percents or self.image_sizes[-1] != 1:
            raise ValueError(
                f"image_sizes is {self.image_sizes}; expected shares that rise by one per cent or more and end in 1.0"
            )
        return self
