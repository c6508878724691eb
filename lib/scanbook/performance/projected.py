"""The projection as one page that opens offline."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment

from scanbook.benchmark.projection import Rates
from scanbook.performance import report
from scanbook.plots import projection as figures
from scanbook.plots import writing


@cache
def environment() -> Environment:
    """The page's template, on the base and the style sheet of all reports."""
    found = report.environment().overlay()
    found.filters = found.filters | {"span": span, "hours": hours, "median": _median}
    return found


def span(found: dict[str, float] | None, unit: str = "") -> str:
    """A range in words: "3.1 to 4.2 h", "3.1 h" where both ends read the same, "–" where there is none."""
    if found is None:
        return "–"
    low, high = rough(found["low"]), rough(found["high"])
    return f"{low if low == high else f'{low} to {high}'}{f' {unit}' if unit else ''}"


def rough(value: float) -> str:
    """Two digits: a projection knows no more."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 9.95 else f"{value:.2g}"


def hours(found: dict[str, float]) -> str:
    """A range of hours, in minutes or seconds where all of it is below an hour or a minute."""
    units = (("s", 3600), ("min", 60), ("h", 1))
    unit, factor = next(((u, f) for u, f in units if found["high"] * f < 60), units[-1])
    return span({end: value * factor for end, value in found.items()}, unit)


def _median(values: list[float]) -> float:
    return float(np.median(values))


def measured_line(rates: Rates) -> str:
    """What was measured for a study, for the terminal."""
    parts = {
        "training on TensorFlow": rates.training,
        "on JAX": rates.together,
        "features by OpenVINO": rates.features,
        "augmentation": rates.augmentation,
    }
    said = [f"{name} {report.figure(_median(list(values)))}" for name, values in parts.items() if values]
    return f"images/s: {', '.join(said)}"


def even_sentence(found: dict[str, Any], price: float | None) -> str:
    """When this machine is the cheaper one for training; "" where no machine has a price."""
    if not found:
        return ""
    said = (
        f"Training costs {span(found['usd'], 'USD')} on {found['machine']}, the machine with GPUs that costs least at "
        f"its worst. Here it surely costs less while an hour of this machine costs less than "
        f"{rough(found['low'])} USD, and surely more above {rough(found['high'])} USD"
    )
    if price is None:
        return f"{said}."
    verdict = "less" if price < found["low"] else "more" if price > found["high"] else "about as much"
    return f"{said}: at {report.figure(price)} USD an hour, {verdict}."


def render(found: dict[str, Any]) -> str:
    """The page.

    Args:
        found: What `projection.json` holds.

    Returns:
        HTML that needs no other file and no network.
    """
    sentences = [even_sentence(each["break even"], found["plan"]["price"]) for each in found["studies"]]
    picture = writing.write(figures.hours(found["studies"])).uri
    page = environment().get_template("projection.html.j2")
    return page.render(found=found, picture=picture, sentences=sentences, code_style="")
