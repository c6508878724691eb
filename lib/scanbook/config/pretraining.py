"""What a study tells of pretrained weights that scanbook does not know."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from scanbook.config.block import Block, word_or_keys
from scanbook.registry import SCALINGS, Scaling


def _check_channels(values: Any) -> list[float]:
    numbers = values if isinstance(values, list) else [values]
    if len(numbers) not in (1, 3) or not all(
        isinstance(number, int | float) and math.isfinite(number) for number in numbers
    ):
        raise ValueError("expected a number, or three in brackets, one for each channel")
    return [float(number) for number in numbers]


def _check_divisors(values: list[float]) -> list[float]:
    if min(values) <= 0:
        raise ValueError("expected numbers above 0, by which levels are divided")
    return values


Levels = Annotated[list[float], BeforeValidator(_check_channels)]
Divisors = Annotated[Levels, AfterValidator(_check_divisors)]


class Normalisation(Block):
    """Scaling by a mean and a deviation: (level - mean) / deviation, with levels from 0 to 255."""

    mean: Levels
    """Mean, one for all channels or one for each."""
    deviation: Divisors
    """Divisor, likewise."""
    bgr: bool = False
    """Whether the network takes blue, green, red, in place of red, green, blue; `mean` is then in that order."""

    @property
    def scaling(self) -> Scaling:
        """The same as factor and summand."""
        count = max(len(self.mean), len(self.deviation))
        mean, deviation = (values * (count // len(values)) for values in (self.mean, self.deviation))
        scale = tuple(1 / divisor for divisor in deviation)
        offset = tuple(-value / divisor for value, divisor in zip(mean, deviation, strict=True))
        return Scaling(scale, offset, self.bgr)


class Pretraining(Block):
    """How the weights of one backbone were pretrained. Reports and cards show it."""

    scaling: word_or_keys(Literal[tuple(SCALINGS)] | None, Normalisation) = None
    """Values that the network expects. `-1..1`, `0..1` and `0..255`; `caffe`: blue, green, red minus the mean of
    ImageNet; `imagenet`: 0 to 1, minus the mean of ImageNet, divided by its deviation; or `{mean: 127, deviation:
    128}`. null: those of the backbone; a `file:` network must name them."""
    corpus: str = ""
    """Images on which the weights were pretrained, such as RadImageNet."""
    source: str = ""
    """Where the weights come from, such as an address."""
    licence: str = ""
    """Licence of the weights."""
    corpus_list: str = ""
    """Text file with one image of that corpus per line: its name, or the SHA-256 of its file. Notebook 05 counts the
    test images that are among them, and evaluates without them. Names are compared without folder and ending, and
    without regard to case. Relative paths start at the project."""

    @property
    def stated_scaling(self) -> Scaling | None:
        """The scaling; None where the study states none."""
        return SCALINGS[self.scaling] if isinstance(self.scaling, str) else self.scaling and self.scaling.scaling
