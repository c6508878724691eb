"""The figure of cost."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers import figures
from scanbook.reporting.plots.cost import _short, cost_of_prediction

PUBLISHED = [
    ("ml.m5.xlarge", "VGG19", 0.23, 204.6, "published"),
    ("ml.c7g.xlarge", "VGG19", 0.174, 308.8, "published"),
    ("ml.m5.xlarge", "MobileNet", 0.23, 61.5, "published"),
    ("ml.c7g.xlarge", "MobileNet", 0.174, 71.2, "published"),
]
PAIR = ("ml.m5.xlarge", "ml.c7g.xlarge")


def table(*rows: tuple[str, str, float, float, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["where", "network", "usd_per_hour", "milliseconds", "kind"])


def what_if(*names: str) -> list[tuple[str, str, float, float, str]]:
    return [
        (f"this machine, if it cost what {name} costs", "a network", 0.1 * place, 4.0, "what-if")
        for place, name in enumerate(names, 1)
    ]


def test_arrows_show_a_cheaper_hour_with_a_more_expensive_prediction() -> None:
    texts = figures.texts(cost_of_prediction(table(*PUBLISHED), "t", PAIR))
    assert texts.count("hour −24 %\nprediction +14 %") == texts.count("hour −24 %\nprediction −12 %") == 1
    assert texts.count("m5") == texts.count("c7g") == 2
    assert not any(text.startswith("hour") for text in figures.texts(cost_of_prediction(table(*PUBLISHED), "t")))


def test_along_a_dotted_line_a_prediction_costs_what_it_says() -> None:
    [axis] = cost_of_prediction(table(*PUBLISHED), "t").axes
    axis.figure.canvas.draw()
    dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
    costs = [(line.get_xdata() * line.get_ydata() / 3.6).tolist() for line in dotted]
    labels = {text.get_text() for text in axis.texts}
    assert len(costs) >= 3
    for start, end in costs:
        assert start == pytest.approx(end)
    assert {f"{start:.4g} USD" for start, _ in costs} >= {text for text in labels if text.endswith(" USD")} != set()


def test_each_network_has_a_marker_of_its_own() -> None:
    figure = cost_of_prediction(table(*PUBLISHED, ("this machine", "a network", 0.1, 4.0, "measured")), "t", PAIR)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Published", "With this machine"]
    markers = [line.get_marker() for line in figure.axes[1].lines if line.get_marker() != "None"]
    assert len(markers) == len(set(markers)) == 3
    [legend] = figure.legends
    named = {text.get_text() for text in legend.get_texts()}
    assert {"VGG19, published", "this machine, a network", "same cost of a prediction as on m5"} <= named


def test_a_machine_whose_price_is_not_known_is_hollow_at_the_prices_of_others() -> None:
    figure = cost_of_prediction(table(*what_if("ml.m5.xlarge", "g4dn.xlarge", "ml.g4dn.xlarge")), "t")
    [axis] = figure.axes
    [line] = [line for line in axis.lines if line.get_marker() == "D"]
    assert line.get_markerfacecolor() == "white" and len(line.get_xdata()) == 3
    assert {"m5", "g4dn", "ml.g4dn"} <= set(figures.texts(figure))


def test_no_price_gives_a_note() -> None:
    assert "nothing to show" in figures.texts(cost_of_prediction(table(), "t"))[0]


def test_short_names_tell_instances_apart() -> None:
    assert _short(["ml.m5.xlarge", "g4dn.xlarge", "ml.g4dn.xlarge"]) == {
        "ml.m5.xlarge": "m5",
        "g4dn.xlarge": "g4dn",
        "ml.g4dn.xlarge": "ml.g4dn",
    }
