"""The results as lines for the terminal, and as one page that opens offline."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment

from benchmarks import parallel
from benchmarks import plots as figures
from benchmarks.growth import gigabytes
from scanbook.reporting import report as reports
from scanbook.reporting.plots import writing

TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment() -> Environment:
    """Return the page's template, which extends the base of all reports."""
    templates = reports.environment(TEMPLATES)
    templates.filters |= {"number": format_number, "goal": format_goal, "ratio": format_ratio, "verdict": verdict}
    templates.filters |= {"gigabytes": gigabytes, "growth": describe_growth}
    return templates


def format_row(row: dict[str, Any]) -> str:
    """Return a row as a line for the terminal: its ratio, its goal, and whether it reached the goal."""
    if row["status"] != "measured":
        return f"{row['name']}: {row['status']}: {row['reason']}"
    spread = f"{format_number(row['low'])} to {format_number(row['high'])}"
    values = " and ".join(format_number(row["medians"][key]) for key in ("scanbook", "baseline"))
    ratio = f"{format_ratio(row['ratio'])} ({spread}; {values} {row['unit']})"
    accuracies = [f"{row[key]['accuracy']:.3f}" for key in ("scanbook", "baseline") if "accuracy" in row[key]]
    accuracy = f", accuracy {' and '.join(accuracies)}" if accuracies else ""
    return f"{row['name']}: {ratio}{accuracy}, goal {format_goal(row)}: {verdict(row)}"


def verdict(row: dict[str, Any]) -> str:
    """Return the result of a row: "reached", "missed", "no goal", "failed" or "not run"."""
    if row["status"] != "measured":
        return row["status"]
    return "no goal" if row["reached"] is None else "reached" if row["reached"] else "missed"


def format_goal(row: dict[str, Any]) -> str:
    """Return a row's goal: "≥ 25×", "≤ 1/6", "none"."""
    value = row["goal"]
    if value is None:
        return "none"
    whole = round(1 / value) if value < 0.25 else 0
    return f"{row['direction']} {f'1/{whole}' if whole and abs(1 / value - whole) < 1e-9 else format_ratio(value)}"


def format_ratio(ratio: float | None) -> str:
    """Return a ratio such as "25×"."""
    return "" if ratio is None else f"{format_number(ratio)}×"


def format_number(value: float | None) -> str:
    """Return a number with three digits: "0.0123", "1.87", "1,870"."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def describe_growth(growth: dict[str, Any]) -> str:
    """Describe the growth of time and memory in a sentence."""
    if "unable" in growth:
        return describe_failure(growth)
    counts = [f"{point['n']:,}" for point in growth["points"]]
    exponents = growth["exponents"]
    steps = ", ".join(f"{step} {value:.2f}" for step, value in exponents.items() if step != "seconds")
    sentence = (
        f"from {counts[0]} to {counts[-1]} images time grows with exponent {exponents['seconds']:.2f} ({steps}), "
        f"{'no more than linearly' if growth['linear'] else 'more than linearly'}; memory that no file backs becomes "
        f"{format_ratio(growth['memory growth'])}, {'flat' if growth['flat'] else 'not flat'}"
    )
    if "within" in growth:
        peak = max(gigabytes(point["own memory"]) for point in growth["points"])
        position = "within" if growth["kept within"] else "beyond"
        sentence += f", and is {peak:.2f} GB at most, {position} the limit of {growth['within']:g} GB"
    return sentence


def describe_failure(result: dict[str, Any]) -> str:
    """Return the reason why a measurement without a ratio has no figures."""
    reason = result["unable"]
    return reason if reason.startswith("failed") else f"not run: {reason}"


def render(results: dict[str, Any]) -> str:
    """Return the page as HTML that needs no other file and no network.

    Args:
        results: Content of `performance.json`.
    """
    pictures = {}
    if any(row["ratio"] is not None and row["goal"] for row in results["rows"]):
        pictures["ratios"] = writing.write(figures.ratios(results["rows"])).uri
    for name in ("growth", "streaming"):
        if "points" in results[name]:
            pictures[name] = writing.write(figures.growth(results[name])).uri
    data_parallel = results[parallel.NAME]
    if "networks" in data_parallel:
        pictures["curves"] = writing.write(figures.curves(data_parallel["networks"])).uri
    words = [verdict(row) for row in results["rows"]]
    counts = {word: words.count(word) for word in ("reached", "missed", "failed", "not run")}
    page = environment().get_template("performance.html.j2")
    return page.render(
        results=results,
        pictures=pictures,
        counts=counts,
        data_parallel=data_parallel,
        data_parallel_reason=describe_failure(data_parallel) if "unable" in data_parallel else "",
        code_style="",
    )
