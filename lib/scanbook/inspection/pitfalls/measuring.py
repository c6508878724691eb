"""Rows of the table of mistakes: a figure as it would have been published, the honest one, and their difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanbook.evaluation import METRICS, AnyPredictions, interval, main_metric
from scanbook.evaluation.predictions import check_same
from scanbook.evaluation.resampling import resample

Floats = NDArray[np.float64]
Pair = tuple[AnyPredictions, AnyPredictions]
"""Predictions for the same images: with the mistake, and without it."""


@dataclass(frozen=True)
class Row:
    """What one mistake is worth on a study's own images.

    Attributes:
        key: Short name, for `results.json`.
        mistake: The mistake, in words.
        made_by: Published study that made it, or that none of the five did.
        figure: Name of the figure that is compared.
        published: The figure as it would have been published.
        honest: The figure without the mistake; NaN, like the others, where it is not measured.
        difference: published − honest.
        low: Lower end of the 95 % interval of the difference, NaN where resamples show no spread of it, as those of one
            group.
        high: Its upper end.
        images: Number of test images that the figures are of.
        groups: Number of their patients or lesions.
        note: What the row does not say itself, in one or two sentences.
        reason: Why the mistake is not measured here; "" where it is.
        more: Further numbers, for `results.json`.
        too_high: What an interval above zero says of it.
        too_low: What an interval below zero says.
    """

    key: str
    mistake: str
    made_by: str
    figure: str = ""
    published: float = math.nan
    honest: float = math.nan
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    images: int = 0
    groups: int = 0
    note: str = ""
    reason: str = ""
    more: dict[str, float] = field(default_factory=dict)
    too_high: str = "published too high"
    too_low: str = "published too low"

    @property
    def measured(self) -> bool:
        """Whether there is a difference."""
        return not math.isnan(self.difference)

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero, or all resamples of several groups show one difference."""
        return self.low > 0 or self.high < 0 or (math.isnan(self.low) and self.groups > 1 and self.difference != 0)

    @property
    def inflated(self) -> bool:
        """Whether the published figure is clearly too high."""
        return self.measured and self.clear and self.difference > 0

    @property
    def verdict(self) -> str:
        """What the interval says of the difference, in a few words."""
        if not self.measured:
            return f"not measured: {self.reason}"
        if self.difference == 0 and not self.clear:
            return "no difference"
        if math.isnan(self.low) and not self.clear:
            return "no interval: all images are of one group"
        if not self.clear:
            return "within noise"
        alike = " (resamples do not differ)" if math.isnan(self.low) else ""
        return (self.too_high if self.difference > 0 else self.too_low) + alike

    def because(self, reason: str) -> Row:
        """Return the row of a mistake that is not measured, with the reason: "the study has …"."""
        return replace(self, reason=reason)


def measure(row: Row, pairs: Sequence[Pair], rounds: int, seed: int, metric: str = "") -> Row:
    """Return a row with the means over several pairs, and the interval over resamples of groups.

    A resample takes the same groups in every pair. Trained heads are held fixed: the interval ignores that other
    training images would give other heads.

    Args:
        row: The row to fill.
        pairs: At least one; each pair is of the same images, and several pairs may be of different ones.
        rounds: Number of resamples.
        seed: Seed of the resamples.
        metric: Name in `METRICS`; "" for accuracy, of findings macro AUROC. It is of the classes that have images.
    """
    for first, second in pairs:
        check_same(first, second)
    chosen = METRICS[metric or main_metric(pairs[0][0])]

    def both(place: int, weights: Floats) -> Floats:
        return np.stack([chosen.compute(model.y_true, model.probabilities, weights) for model in pairs[place]], axis=1)

    groups = [pair[0].group for pair in pairs]
    images = {image for pair in pairs for image in pair[0].image_id}
    return measure_values(replace(row, figure=chosen.title, images=len(images)), both, groups, rounds, seed)


def measure_values(
    row: Row, both: Callable[[int, Floats], Floats], groups: Sequence[ArrayLike], rounds: int, seed: int
) -> Row:
    """Return a row with the values of any figure.

    Args:
        row: The row to fill.
        both: Function of the number of a pair and of weights `(rounds, n)` that returns `(rounds, 2)`: the figure with
            the mistake, and without it; NaN where it is not defined.
        groups: Of each pair, the group of its n images.
        rounds: Number of resamples.
        seed: Seed of the resamples.
    """
    names = np.unique(np.concatenate([np.asarray(group) for group in groups]))
    members = [np.searchsorted(names, np.asarray(group)) for group in groups]

    def means(weights: NDArray[np.floating]) -> Floats:
        values = np.stack([both(place, weights[:, member]) for place, member in enumerate(members)])
        defined = ~np.isnan(values)
        count = defined.sum(axis=0)
        return np.where(count > 0, np.where(defined, values, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)

    published, honest = means(np.ones((1, len(names))))[0].tolist()
    if math.isnan(published) or math.isnan(honest):
        return row.because(f"{row.figure} is not defined on these test images")
    difference = published - honest
    low, high = interval(resample(lambda weights: -np.diff(means(weights), axis=1)[:, 0], names, rounds, seed))
    if difference and low == high:  # of rates of 0 or 1, whose spread resamples do not show
        low = high = np.float64(np.nan)
    return replace(
        row,
        published=published,
        honest=honest,
        difference=difference,
        low=float(low),
        high=float(high),
        groups=len(names),
    )


def halves(group: ArrayLike, count: int, seed: int) -> NDArray[np.float64]:
    """Return which images are in a random half of the groups, 0 or 1, `(count, n)`."""
    names, member = np.unique(np.asarray(group), return_inverse=True)
    random = np.random.default_rng(seed)
    ranks = random.permuted(np.tile(np.arange(len(names)), (count, 1)), axis=1)
    return (ranks < len(names) / 2).astype(np.float64)[:, member]
