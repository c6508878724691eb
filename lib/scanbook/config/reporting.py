"""Blocks of a study for its reports: published figures, evaluation and benchmark."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from scanbook.config.block import Block, Count, Fraction, Listed, OpenShare, Positive, Rate, Share


class Published(Block):
    """One table of a published study, as it was printed.

    Where its rows and columns have the names of this run's, and the images are the real ones, both are shown together;
    a table of one `backbone` only where this run has the same.
    """

    notebook: str
    """Notebook that shows the table, such as 05_fine_tuning."""
    caption: str
    """Title of the table, and its source."""
    backbone: str = ""
    """Backbone of all figures, where there is only one."""
    rows: Annotated[dict[str, dict[str, float | int | str | None]], Field(min_length=1)]
    """Rows by name, each with its columns."""
    recompute: Literal["", "speedup", "scaled_speedup", "cost", "comparison"] = ""
    """Figures that are recomputed from raw ones and shown beside the printed ones. speedup: from the columns seconds
    and workers (empty where the number of workers is not meaningful); scaled_speedup: from those and the work done;
    cost: per million predictions, from USD an hour and each network's ms; comparison: of the rows first and second of a
    cost table."""
    of: str = ""
    """Column of the work done (scaled_speedup), or name of the cost table (comparison)."""
    note: str = ""
    """Sentence shown under the table."""

    @model_validator(mode="after")
    def _has_the_raw_figures(self) -> Published:
        columns = {
            "speedup": ["seconds"],
            "scaled_speedup": ["seconds", "workers", self.of],
            "cost": ["USD an hour"],
            "comparison": ["first", "second"],
        }.get(self.recompute, [])
        for row, values in self.rows.items():
            for column in columns:
                if column not in values:
                    raise ValueError(f"row {row!r} has no {column!r}; {self.recompute} is recomputed from it")
        if self.recompute == "comparison" and not self.of:
            raise ValueError("a comparison needs a cost table; expected its name as of")
        return self


class Evaluation(Block):
    """Contents of the test report beyond the metrics of every study."""

    ordered: bool = False
    """Whether the classes are ordered grades; the report then has quadratic weighted kappa. Not for findings."""
    targets: dict[str, list[str]] = {}
    """Groups of classes with a threshold, such as `malignant: [mel, bcc]`; each single class is a target anyway. Each
    finding has a threshold, and groups of findings have none."""
    specificity: Fraction = 0.9
    """Specificity at the threshold of every target or finding, on validation."""
    coverage: Share = 0.9
    """Share of the validation images that get a prediction; the model abstains where it is less confident. Of each
    finding, the share of its labelled images; nearer to the threshold the answer is "not sure"."""
    prevalence: dict[str, OpenShare] = {}
    """Prevalence of a class, finding or target for its predictive values; others use that of the test split."""
    subgroups: list[str] = []
    """Columns of patient metadata that define the subgroups of the test report."""
    robustness_images: Positive = 500
    """Largest number of test images that are corrupted."""
    test_time_views: Count = 0
    """Number of augmented views whose predictions are averaged with the image's; needs an augmentation."""
    ensemble: bool = False
    """Whether the predictions of the networks of all seeds and of all backbones that are fine-tuned are averaged."""
    averages: Literal["always", "if_better"] = "always"
    """Whether networks and views are averaged in any case, or only where that is better on validation by `metric`."""
    metric: Literal["accuracy", "balanced_accuracy", "auroc", "auprc", "kappa"] | None = None
    """Metric by which validation chooses the final model: fine-tuned or left frozen, and what is averaged. null: kappa
    of grades, accuracy of other classes, auroc of findings."""

    def prevalence_of(self, names: Collection[str]) -> dict[str, float]:
        """Return the stated prevalences of some names; a dataset may lack images of the others."""
        return {name: share for name, share in self.prevalence.items() if name in names}

    def options_of_points(self, findings: Collection[str]) -> dict[str, Any]:
        """Return what `evaluation.finding_points` of some findings takes from here."""
        prevalence = self.prevalence_of(findings)
        return {"specificity": self.specificity, "coverage": self.coverage, "prevalence": prevalence}


def _with_one(sizes: list[int]) -> list[int]:
    """Return batch sizes; raise an error where 1, for which the cost of a prediction is reported, is missing."""
    if 1 not in sizes:
        raise ValueError(
            f"batch sizes are {sizes}; expected 1 among them, for which the cost of a prediction is reported"
        )
    return sizes


class Benchmark(Block):
    """Size of the measurements of notebook 06."""

    backbone: Listed | None = None
    """Listed backbone that the training arms train from random weights; null for network and weights of the study."""
    images: Positive = 512
    """Largest number of images for each training arm."""
    epochs: Positive = 3
    """Epochs for each training arm."""
    batch_sizes: Annotated[list[Positive], AfterValidator(_with_one)] = [1, 8, 32]
    """Batch sizes at which inference is timed, 1 among them."""
    windows: Annotated[int, Field(ge=3)] = 12
    """Largest number of windows in which inference is timed."""
    window_seconds: Rate = 0.25
    """Length of a window, in seconds."""
    stable: Share = 0.05
    """Timing ends when the medians of the last three windows differ by no more than this share."""
    one_thread: bool = True
    """Whether inference is also timed with one thread."""
    calibration_images: Positive = 300
    """Number of training images that calibrate int8."""
    price: Rate | None = None
    """Price of this machine per hour, in USD; null where it is not rented."""
