"""An executed notebook as one HTML page that opens offline, and the page that says why a run failed."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from scanbook.reporting.failure import Failure, is_expected
from scanbook.reporting.records import duration

TEMPLATES = Path(__file__).parent / "templates"
TRACEBACK_LINES = 16
WIDE = 8
"""Columns from which a table is printed smaller."""
LONG_CELL = 40
"""Characters from which a table's cell is prose, wrapped and aligned to the left, rather than a figure."""
NUMBER = re.compile(r"[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?( ?[%×])?|NaN|-?inf")
"""What counts as a number in a table; its column is aligned to the right and sorted by size."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain"]


@cache
def environment(*folders: Path) -> Environment:
    """Templates of the pages, which share one style sheet; those of other folders come first."""
    loader = FileSystemLoader([*folders, TEMPLATES])
    found = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {"duration": duration, "anchor": anchor}
    return found


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
        parameters=list(_flat({key: value for key, value in facts["study"].items() if key != "published"})),
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
    """Cells as they are shown, and their headings: tables scroll and sort, nothing is loaded from elsewhere."""
    soup = BeautifulSoup(html, "html.parser")
    for image in soup.select("img[src^='http'], img[src^='//']"):
        image.replace_with(image.get("alt", "image"))
    for style in soup.select("style, a.anchor-link"):
        style.decompose()
    for figure in soup.select("figure[data-name]"):
        figure["id"] = f"figure-{figure['data-name']}"
        figure.figcaption.append(_link_to_file(soup, figure))
        figure.img.wrap(_scrolling(soup, {"aria-label": figure.figcaption.contents[0]}))
    for table in soup.select("table"):
        _prepare(soup, table)
    headings = soup.select(".markdown :is(h2, h3)")
    for heading in headings:
        heading["id"] = anchor(heading.get_text())
    return str(soup), [{"id": each["id"], "text": each.get_text().strip(), "level": each.name} for each in headings]


def _prepare(soup: BeautifulSoup, table: Tag) -> None:
    """A table that scrolls on its own, has a name, and tells numbers, which stand right, from words."""
    del table["border"]
    named = {"aria-label": "Table"}
    if table.caption and table.get("data-name"):  # set above the table, since in it it would be as narrow
        caption = table.caption.extract()
        caption.name, caption["class"], caption["id"] = "p", "caption", f"table-{table['data-name']}"
        caption.append(_link_to_file(soup, table))
        table.insert_before(caption)
        named = {"aria-labelledby": caption["id"]}
        table["aria-labelledby"] = caption["id"]
    for corner in (cell for cell in table.select("thead th") if not cell.get_text().strip()):
        corner.name = "td"  # a heading that is empty is none
    for heading in table.select("thead th"):  # a name in snake case may be broken where a person would
        words = heading.get_text().split("_")
        heading.clear()
        for place, word in enumerate(words):
            heading.extend([soup.new_tag("wbr"), f"_{word}"] if place else [word])
    rows = [row.find_all(["th", "td"]) for row in table.select("tr")]
    heads = len(table.select("thead tr"))
    if heads > 1:  # a heading over several columns is of none of them
        rows, heads = rows[heads:], 0
    if rows and len(rows[0]) > WIDE:
        table["class"] = "wide"
    for column in zip(*rows, strict=False):
        said = [text for cell in column[heads:] if (text := cell.get_text().strip()) not in ("", "–")]
        numbers = bool(said) and all(map(NUMBER.fullmatch, said))
        for cell in column:
            long = cell.name == "td" and len(cell.get_text()) > LONG_CELL
            cell["class"] = "number" if numbers else "long" if long else "word"
    table.wrap(_scrolling(soup, named))


def _scrolling(soup: BeautifulSoup, named: dict[str, str]) -> Tag:
    """A frame for what may be wider than the page; the keyboard scrolls it too."""
    return soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "group", **named})


def _link_to_file(soup: BeautifulSoup, shown: Tag) -> Tag:
    """A link to what is shown, as a file of its own."""
    file = Path(str(shown["data-file"]))
    link = soup.new_tag("a", attrs={"class": "file", "href": file.as_posix(), "title": file.name})
    link.string = file.suffix.removeprefix(".").upper()
    return link


def anchor(heading: str) -> str:
    """What the address of a heading ends with: "4. Test report" is at `#4-test-report`."""
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


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
