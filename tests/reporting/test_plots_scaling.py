"""Figures of scaling and of where the time goes: what is drawn is what was measured."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from scanbook.reporting.plots import scaling as plots


def measured(threads: list[int], serial: float, grown: bool = False) -> pd.DataFrame:
    used = np.array(threads)
    seconds = 20 * (serial + (1 - serial) / used) * (used if grown else 1)
    speedup = seconds[0] / seconds * (used if grown else 1)
    arms = ["sequential CPU", *["parallel CPU"] * (len(threads) - 1)]
    frame = pd.DataFrame({"arm": arms, "threads": used, "seconds": seconds, "speedup": speedup})
    return frame.assign(low=seconds * 0.9, high=seconds * 1.2, efficiency=speedup / used)


def law(most: int, serial: float) -> pd.DataFrame:
    threads = np.geomspace(1, most, 9)
    curve = 1 / (serial + (1 - serial) / threads)
    return pd.DataFrame({"threads": threads, "speedup": curve, "low": curve * 0.9, "high": curve * 1.1})


GPU = {"arm": "GPU", "threads": 4, "seconds": 0.5, "low": 0.4, "high": 0.6, "speedup": 40.0, "efficiency": np.nan}
FOUR = pd.concat([measured([1, 2, 4], 0.1), pd.DataFrame([GPU])], ignore_index=True)
WEAK = measured([1, 2, 4], 0.05, grown=True)
STAGES = pd.DataFrame(
    {"stages": [1, 3], "built": [0, 3], "seconds": [2.5, 7.5], "share": [0.25, 0.75], "mib": [4.0, 1.0]},
    index=["pixels", "fine_tuning"],
)
STEPS = pd.DataFrame(
    {"milliseconds": [1.0, 0.5, 4.5], "share": [np.nan, 0.1, 0.9]}, index=["decode and resize", "augment", "train"]
)
FIGURES = {
    "bars": lambda: plots.training_bars(FOUR, "Training"),
    "two bars": lambda: plots.training_bars(measured([1, 2], 0.3), "Training"),
    "curves": lambda: plots.scaling_curves(FOUR, WEAK, law(4, 0.1), "Training"),
    "two curves": lambda: plots.scaling_curves(measured([1, 2], 1.2), measured([1, 2], 0.1, True), None, "Training"),
    "stages": lambda: plots.stage_bars(STAGES, "Stages"),
    "steps": lambda: plots.stage_bars(STEPS, "Steps", "milliseconds", "milliseconds an image"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_renders_with_title_and_labels(name: str) -> None:
    figure = FIGURES[name]()
    assert isinstance(figure, Figure) and not plt.get_fignums()
    figure.savefig(io.BytesIO(), format="png", dpi=50)
    assert figure.get_suptitle() or figure.axes[0].get_title("left")
    assert all(axis.get_xlabel() for axis in figure.axes)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_bars_say_seconds_and_how_many_times_as_fast() -> None:
    figure = FIGURES["bars"]()
    assert words(figure) == ["20 s", "11 s, 1.82 ×", "6.5 s, 3.08 ×", "0.5 s, 40 ×"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["sequential CPU, 1 thread", "parallel CPU, 2 threads", "parallel CPU, 4 threads", "GPU"]
    hatches = {patch.get_hatch() for patch in figure.axes[0].patches}
    assert len(hatches) == 3, "told apart in black and white"


def test_curves_leave_a_gpu_out_and_draw_the_fit_where_there_is_one() -> None:
    left, right = FIGURES["curves"]().axes
    legend = [text.get_text() for text in left.get_legend().get_texts()]
    assert legend == ["ideal", "Amdahl's law, fitted", "its 95 % interval", "measured"]
    (points,) = [each for each in left.lines if each.get_label() == "measured"]
    assert points.get_xdata().tolist() == [1, 2, 4] and points.get_linestyle() == "None"
    found = {each.get_label(): each.get_ydata() for each in right.lines}
    np.testing.assert_allclose(found["work grows (weak)"], WEAK["efficiency"])
    np.testing.assert_allclose(found["the same work (strong)"], FOUR["efficiency"].dropna())


def test_two_threads_are_a_line_and_no_fit() -> None:
    left, _ = FIGURES["two curves"]().axes
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["ideal", "measured"]
    assert left.get_ylim()[0] < 1 / 1.2 / 1.2, "slower than one thread is still on the axis"


def test_one_thread_is_said() -> None:
    one = measured([1], 0.1)
    assert words(plots.scaling_curves(one, one, None, "Training")) == ["one thread: nothing to scale"]
    assert words(plots.stage_bars(STAGES.iloc[:0], "Stages")) == ["no stage was asked for"]


def test_stages_say_their_share_and_how_many_there_are() -> None:
    figure = FIGURES["stages"]()
    assert words(figure) == ["2.5, 25%", "7.5, 75%"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["pixels", "fine tuning (3)"]
    assert words(FIGURES["steps"]()) == ["1, once, not every epoch", "0.5, 10%", "4.5, 90%"]
