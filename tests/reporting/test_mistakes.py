"""How the worth of mistakes is drawn: every row has its numbers, and noise is hollow."""

from __future__ import annotations

import numpy as np

from helpers import figures
from scanbook.inspection.pitfalls import Row
from scanbook.reporting import plots

CLEAR = Row("a", "copies in training", "x", "accuracy", 0.9, 0.6, 0.3, 0.2, 0.4)
NOISE = Row("b", "patients on both sides", "x", "accuracy", 0.61, 0.6, 0.01, -0.05, 0.06)
MISSING = Row("c", "masks", "x").because("there are none")
ALIKE = Row("d", "class names shifted", "x", "accuracy", 1.0, 0.0, 1.0, groups=9)


def test_every_measured_mistake_is_drawn_with_its_interval() -> None:
    figure = plots.worth_of_mistakes([CLEAR, NOISE, MISSING, ALIKE], "What each mistake adds (40 test images)")
    figures.check(figure)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "copies in training",
        "patients on both sides",
        "class names shifted",
    ]
    segments = [
        segment[:, 0].tolist()
        for segment in axis.collections[0].get_segments()
        if segment.size and np.isfinite(segment).all()
    ]
    np.testing.assert_allclose(segments, [[0.2, 0.4], [-0.05, 0.06]])
    points = [line for line in axis.lines if line.get_marker() in ("o", "s")]
    assert [point.get_markerfacecolor() == "white" for point in points] == [False, True, False]
    assert "0.900 − 0.600 = +0.300" in figures.texts(figure)
    note = plots.worth_of_mistakes([MISSING], "What each mistake adds")
    assert "no mistake can be measured" in figures.texts(note)[0]


def test_images_stand_above_what_is_left_of_them() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), np.uint8)
    figure = plots.painted_out(images, images // 2)
    figures.check(figure, labels=False)
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ["whole", "painted out"]
    assert "no image" in figures.texts(plots.painted_out(images[:0], images[:0]))[0]
