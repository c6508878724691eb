"""The results as a line, and as one page that opens offline."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from benchmarks import parallel
from benchmarks import plots as figures
from benchmarks.growth import gigabytes
from scanbook.reporting import report as runner
from scanbook.reporting.plots import writing

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """The page's template, on the base and the style sheet of all reports."""
    found = runner.environment(TEMPLATES)
    found.filters |= {"figure": figure, "goal": goal, "ratio": times, "verdict": verdict}
    found.filters |= {"gigabytes": gigabytes, "growth": growth_sentence}
    return found


def line(row: dict[str, Any]) -> str:
    """A row for the terminal: its ratio, its goal, and whether it reached it."""
    if row["status"] != "measured":
        return f"{row['name']}: {row['status']}: {row['reason']}"
    spread = f"{figure(row['low'])} to {figure(row['high'])}"
    values = " and ".join(figure(row["medians"][key]) for key in ("ours", "other"))
    said = f"{times(row['ratio'])} ({spread}; {values} {row['unit']})"
    known = [f"{row[key]['accuracy']:.3f}" for key in ("ours", "other") if "accuracy" in row[key]]
    accuracy = f", accuracy {' and '.join(known)}" if known else ""
    return f"{row['name']}: {said}{accuracy}, goal {goal(row)}: {verdict(row)}"


def verdict(row: dict[str, Any]) -> str:
    """How a row did: "reached", "missed", "no goal", "failed" or "not run"."""
    if row["status"] != "measured":
        return row["status"]
    return "no goal" if row["reached"] is None else "reached" if row["reached"] else "missed"


def goal(row: dict[str, Any]) -> str:
    """A row's goal: "≥ 25×", "≤ 1/6", "none"."""
    value = row["goal"]
    if value is None:
        return "none"
    whole = round(1 / value) if value < 0.25 else 0
    return f"{row['direction']} {f'1/{whole}' if whole and abs(1 / value - whole) < 1e-9 else times(value)}"


def times(ratio: float | None) -> str:
    """A ratio: "25×"."""
    return "" if ratio is None else f"{figure(ratio)}×"


def figure(value: float | None) -> str:
    """Three digits: "0.0123", "1.87", "1,870"."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def growth_sentence(growth: dict[str, Any]) -> str:
    """What was found about growth."""
    if "unable" in growth:
        return why_not(growth)
    counts = [f"{point['n']:,}" for point in growth["points"]]
    exponents = growth["exponents"]
    steps = ", ".join(f"{step} {value:.2f}" for step, value in exponents.items() if step != "seconds")
    said = (
        f"from {counts[0]} to {counts[-1]} images time grows with exponent {exponents['seconds']:.2f} ({steps}), "
        f"{'no more than linearly' if growth['linear'] else 'more than linearly'}; memory that no file backs becomes "
        f"{times(growth['memory growth'])}, {'flat' if growth['flat'] else 'not flat'}"
    )
    if "within" in growth:
        most = max(gigabytes(point["own memory"]) for point in growth["points"])
        kept = "within" if growth["kept within"] else "beyond"
        said += f", and is {most:.2f} GB at most, {kept} the {growth['within']:g} GB that are the goal"
    return said


def why_not(found: dict[str, Any]) -> str:
    """Why a measurement of its own kind, such as growth, has no figures."""
    said = found["unable"]
    return said if said.startswith("failed") else f"not run: {said}"


def render(found: dict[str, Any]) -> str:
    """The page.

    Args:
        found: What `performance.json` holds.

    Returns:
        HTML that needs no other file and no network.
    """
    pictures = {}
    if any(row["ratio"] is not None and row["goal"] for row in found["rows"]):
        pictures["ratios"] = writing.write(figures.ratios(found["rows"])).uri
    for name in ("growth", "streaming"):
        if "points" in found[name]:
            pictures[name] = writing.write(figures.growth(found[name])).uri
    together = found[parallel.NAME]
    if "networks" in together:
        pictures["curves"] = writing.write(figures.curves(together["networks"])).uri
    words = [verdict(row) for row in found["rows"]]
    counts = {word: words.count(word) for word in ("reached", "missed", "failed", "not run")}
    page = environment().get_template("performance.html.j2")
    return page.render(
        found=found,
        pictures=pictures,
        counts=counts,
        together=together,
        alone=why_not(together) if "unable" in together else "",
        code_style="",
    )
