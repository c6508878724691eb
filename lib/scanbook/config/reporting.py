"""The blocks of a study that say what its reports hold beyond those of every study."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from scanbook.config.block import Block, Count, Fraction, OpenShare, Positive, Rate, Share


class Published(Block):
    """One table of a published study, as it was printed there.

    Where rows and columns are named as this run's, and the images are the dataset's own, the two are shown together; of
    a table of one `backbone`, only where this run's is the same.
    """

    notebook: str
    """Notebook that shows it, such as 05_fine_tuning."""
    caption: str
    """What the table is called, and where it was printed."""
    backbone: str = ""
    """Backbone that all of its figures are of, where they are of one."""
    rows: Annotated[dict[str, dict[str, float | int | str | None]], Field(min_length=1)]
    """Name of each row to its columns."""
    recompute: Literal["", "speedup", "scaled_speedup", "cost", "comparison"] = ""
    """What is computed anew from raw figures and shown beside what was printed. speedup: from the columns seconds and
    workers (empty where their number says nothing); scaled_speedup: from those and the work done; cost: per million
    predictions, from USD an hour and each network's ms; comparison: of the rows first and second of a cost table."""
    of: str = ""
    """Column of the work done (scaled_speedup), or name of the cost table (comparison)."""
    note: str = ""
    """A sentence shown under the table."""

    @model_validator(mode="after")
    def _has_what_is_recomputed_from(self) -> Published:
        needs = {
            "speedup": ["seconds"],
            "scaled_speedup": ["seconds", "workers", self.of],
            "cost": ["USD an hour"],
            "comparison": ["first", "second"],
        }.get(self.recompute, [])
        for row, values in self.rows.items():
            for column in needs:
                if column not in values:
                    raise ValueError(f"row {row!r} has no {column!r}; {self.recompute} is recomputed from it")
        if self.recompute == "comparison" and not self.of:
            raise ValueError("a comparison is of a table; expected its name as of")
        return self


class Evaluation(Block):
    """What the test report says beyond the metrics of every study."""

    ordered: bool = False
    """Whether the classes are grades in their order, so that quadratic weighted kappa counts."""
    targets: dict[str, list[str]] = {}
    """Sets of classes that are one decision, such as `malignant: [mel, bcc]`; each class is a decision anyway."""
    specificity: Fraction = 0.9
    """What the threshold of every decision has on validation."""
    coverage: Share = 0.9
    """Share of the validation images that are answered; below the confidence that this takes, it is *not sure*."""
    prevalence: dict[str, OpenShare] = {}
    """Prevalence of a class or finding at which predictive values are told; not named: the test part's."""
    subgroups: list[str] = []
    """Columns of metadata by whose values the test report is broken down."""
    robustness_images: Positive = 500
    """Test images that are corrupted, at most."""
    test_time_views: Count = 0
    """Augmented views that are averaged with the image itself; needs an augmentation."""
    ensemble: bool = False
    """Whether the seeds' networks are averaged."""


def _with_one(sizes: list[int]) -> list[int]:
    """Refuses batch sizes without 1, at which the cost of a prediction is told."""
    if 1 not in sizes:
        raise ValueError(f"batch sizes are {sizes}; expected 1 among them, at which the cost of a prediction is told")
    return sizes


class Benchmark(Block):
    """How much the hardware notebook measures."""

    images: Positive = 512
    """Images of each training arm, at most."""
    epochs: Positive = 3
    """Epochs of each training arm."""
    batch_sizes: Annotated[list[Positive], AfterValidator(_with_one)] = [1, 8, 32]
    """Batch sizes at which inference is timed, 1 among them."""
    windows: Annotated[int, Field(ge=3)] = 12
    """Windows in which inference is timed, at most."""
    window_seconds: Rate = 0.25
    """Length of a window."""
    stable: Share = 0.05
    """Timing ends when the medians of the last three windows differ by no more than this share."""
    one_thread: bool = True
    """Whether inference is timed with one thread too, beside all."""
    calibration_images: Positive = 300
    """Training images that calibrate int8."""
    price: Rate | None = None
    """What an hour of this machine costs, in USD; null where it is not rented."""
