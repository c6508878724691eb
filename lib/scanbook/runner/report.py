"""An executed notebook as one HTML page that opens offline, and the page that says why a run failed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from scanbook.runner.failure import Failure, is_expected

TEMPLATES = Path(__file__).parent / "templates"
TRACEBACK_LINES = 16
LONG_CELL = 40
"""Characters from which a table's cell is prose, wrapped and aligned to the left, rather than a figure."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain"]


@cache
def environment() -> Environment:
    """Templates of the pages, which share one style sheet."""
    found = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.filters["duration"] = duration
    return found


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def render(notebook: Path, facts: dict[str, Any], failure: Failure | None) -> str:
    """The page of a run.

    Args:
        notebook: The executed notebook; a partial one where the run failed.
        facts: Study, versions, hardware and the like, as `metrics.json` keeps them.
        failure: What stopped the run; None for a whole one.

    Returns:
        HTML that needs no other file and no network.
    """
    body, contents = _body(notebook, failure)
    page = environment().get_template("report.html.j2")
    return page.render(
        body=body,
        contents=contents,
        facts=facts,
        parameters=list(_flat(facts["study"])),
        failure=failure,
        code_style=_code_style(),
    )


def _body(notebook: Path, failure: Failure | None) -> tuple[str, list[dict[str, str]]]:
    content = nbformat.read(notebook, as_version=4)
    content.cells = [cell for cell in content.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])]
    if failure:
        content.cells = _up_to_failure(content.cells, failure)
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                output.traceback = _last_lines(output)
    exporter = HTMLExporter(
        template_name="cells",
        extra_template_basedirs=[str(TEMPLATES)],
        config=Config(
            NbConvertBase={"display_data_priority": _PRIORITY},
            CoalesceStreamsPreprocessor={"enabled": True},  # the lines of one training run in one block
        ),
    )
    html, _ = exporter.from_notebook_node(content)
    return _for_reading(html)


def _up_to_failure(cells: list[Any], failure: Failure) -> list[Any]:
    """The cells that ran, the failed one last: those after it have nothing to show."""
    seen = 0
    for position, cell in enumerate(cells):
        seen += cell.cell_type == "code" and bool(cell.source.strip())
        if seen == failure.cell:
            return cells[: position + 1]
    return cells


def _last_lines(error: Any) -> list[str]:
    """What of a traceback a person reads: nothing but the message where scanbook raised it on purpose."""
    if is_expected(error.ename):
        return [f"{error.ename}: {error.evalue}"]
    lines = _ANSI.sub("", "\n".join(error.traceback)).splitlines()
    return ["\n".join(lines[-TRACEBACK_LINES:])]


def _for_reading(html: str) -> tuple[str, list[dict[str, str]]]:
    """Cells as they are shown, and their headings: tables scroll, nothing is loaded from elsewhere."""
    soup = BeautifulSoup(html, "html.parser")
    for image in soup.select("img[src^='http'], img[src^='//']"):
        image.replace_with(image.get("alt", "image"))
    for style in soup.select("style"):
        style.decompose()
    for anchor in soup.select("a.anchor-link"):
        anchor.decompose()
    for table in soup.select("table"):
        del table["border"]
        for cell in table.select("td"):
            if len(cell.get_text()) > LONG_CELL:
                cell["class"] = "long"
        table.wrap(
            soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "table"})
        )
    contents = [
        {"id": heading["id"], "text": heading.get_text().strip(), "level": heading.name}
        for heading in soup.select(".markdown h2[id], .markdown h3[id]")
    ]
    return str(soup), contents


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
        elif value not in (None, "", []):
            rows.append((name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


@cache
def _code_style() -> str:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
