"""What every figure must be: closed, not blank, titled with how many it shows, and labelled on its outer axes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def check(figure: Figure, *, labels: bool = True) -> None:
    """Assert that a figure, drawn once in few pixels, can be read.

    Args:
        figure: As a function of `plots` returns it.
        labels: Whether its panels have axes with labels; images have none.
    """
    assert isinstance(figure, Figure)
    assert not plt.get_fignums(), "an open figure is shown twice in a notebook"
    figure.set_dpi(40)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.asarray(canvas.buffer_rgba())[..., :3].std() > 5
    assert any(digit in title(figure) for digit in "123456789"), f"{title(figure)!r} does not say how many"
    panels = {axis: axis.get_subplotspec() for axis in figure.axes if axis.get_visible() and axis.has_data()}
    if labels:
        assert all(axis.get_ylabel() for axis, place in panels.items() if place and place.is_first_col())
        assert all(axis.get_xlabel() for axis, place in panels.items() if place and place.is_last_row())
        assert any(place and place.is_first_col() for place in panels.values())


def title(figure: Figure) -> str:
    """Return the titles of a figure and of its panels."""
    return figure.get_suptitle() + "".join(axis.get_title(side) for axis in figure.axes for side in ("left", "center"))


def texts(figure: Figure) -> list[str]:
    """Return the texts inside the panels of a figure."""
    return [text.get_text() for axis in figure.axes for text in axis.texts if text.get_text()]


def legend(owner: Figure | Axes) -> list[str]:
    """Return the entries of the legend of a figure or of a panel."""
    shown = owner.legends[0] if isinstance(owner, Figure) else owner.get_legend()
    return [text.get_text() for text in shown.get_texts()]
