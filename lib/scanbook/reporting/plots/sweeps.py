"""Figures of sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from scanbook.reporting.plots.style import COLOURS, INK, WIDTH, row_labels, styled


@styled
def standings(values: Mapping[str, Sequence[float]], metric: str) -> Figure:
    """A row a configuration: each seed's value, and their mean.

    Args:
        values: Of each seed, by configuration, the first one on top.
        metric: What they are, in words.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 0.36 * len(values) + 1.3))
    for place, found in enumerate(values.values()):
        # seeds side by side, so that equal ones are all seen
        spread = (np.arange(len(found)) - (len(found) - 1) / 2) * min(0.14, 0.5 / len(found))
        seeds = {"color": COLOURS[0], "marker": "o", "linestyle": "none", "markerfacecolor": "white"}
        axis.plot(found, place + spread, **seeds, label="" if place else "a seed")
        mean = {"color": INK, "marker": "|", "linestyle": "none", "markersize": 16, "markeredgewidth": 2.2}
        axis.plot([np.mean(found)], [place], **mean, label="" if place else "their mean")
    row_labels(axis, list(values))
    axis.set(xlabel=f"{metric}, validation images")
    figure.legend(loc="outside lower center", ncols=2)
    return figure
