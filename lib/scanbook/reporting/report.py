"""The HTML page of an executed notebook, which opens offline and states why a run failed."""

from __future__ import annotations

import re
import sys
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from bs4 import BeautifulSoup, Tag
from jinja2 import Environment, FileSystemLoader
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from scanbook import runtime
from scanbook.reporting import stopping
from scanbook.reporting.failure import Failure, is_expected
from scanbook.reporting.records import UNDEFINED

TEMPLATES = Path(__file__).parent / "templates"
TRACEBACK_LINES = 16
WIDE = 8
"""Columns beyond which a table is printed in smaller letters."""
LONG_CELL = 40
"""Characters beyond which a table's cell is prose, wrapped and aligned to the left."""
_DIGITS = r"[-+−]?[\d,]*\.?\d+(e[-+]?\d+)?"
NUMBER = re.compile(rf"{_DIGITS}( ?[%×])?( \({_DIGITS}(–| to ){_DIGITS}\))?|NaN|-?inf")
"""A number in a table, with or without its interval; a column of numbers is aligned to the right and sorted by size."""
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_PRIORITY = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/latex", "text/plain"]


@cache
def environment(*folders: Path) -> Environment:
    """Return the templates of the pages, which share one style sheet; those of other folders come first."""
    loader = FileSystemLoader([*folders, TEMPLATES])
    templates = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters |= {"duration": runtime.duration, "anchor": anchor}
    return templates


def render(notebook: Path, facts: dict[str, Any], failure: Failure | None) -> str:
    """Return the page of a run.

    Args:
        notebook: The executed notebook; a partial one where the run failed.
        facts: Study, versions and hardware, as in `metrics.json`.
        failure: The failure of the run; None for a whole one.

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
    exporter = _Exporter(
        template_name="cells",
        extra_template_basedirs=[str(TEMPLATES)],
        config=Config(
            NbConvertBase={"display_data_priority": _PRIORITY},
            CoalesceStreamsPreprocessor={"enabled": True},  # the lines of one training run in one block
        ),
    )
    html, _ = exporter.from_notebook_node(content)
    return _for_reading(html)


class _Exporter(HTMLExporter):
    """Renders cells with the templates that come with nbconvert, whatever the user's own folders of Jupyter hold."""

    def get_prefix_root_dirs(self) -> list[str]:
        """Return the folders in which templates are looked up."""
        own = Path(sys.prefix) / "share" / "jupyter"
        return [str(own)] if (own / "nbconvert" / "templates" / "base").is_dir() else super().get_prefix_root_dirs()


def _up_to_failure(cells: list[Any], failure: Failure) -> list[Any]:
    """Return the cells that ran, the failed one last."""
    number = 0
    for position, cell in enumerate(cells):
        number += cell.cell_type == "code" and bool(cell.source.strip())
        if number == failure.cell:
            return cells[: position + 1]
    return cells


def _last_lines(error: Any) -> list[str]:
    """Return the last lines of a traceback, or only the message of an exception of scanbook."""
    if is_expected(error.ename):
        return [f"{error.ename}: {error.evalue}"]
    lines = _ANSI.sub("", "\n".join(error.traceback)).splitlines()
    return ["\n".join(lines[-TRACEBACK_LINES:])]


def _for_reading(html: str) -> tuple[str, list[dict[str, str]]]:
    """Return the cells, whose tables scroll and sort and which load nothing from elsewhere, and their headings."""
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
    sections = _until_stopped(_sections(soup))
    _open_with_answer(soup, sections[0])
    for section in sections:
        _fold_code(soup, section)
    for tag in soup.select(".output, .cell"):
        if not tag.decomposed and not tag.get_text(strip=True) and not tag.find("img"):
            tag.decompose()
    headings = soup.select("section.answer h2, .markdown :is(h2, h3)")
    for heading in headings:
        heading["id"] = anchor(heading.get_text())
    return str(soup), [{"id": tag["id"], "text": tag.get_text().strip(), "level": tag.name} for tag in headings]


def _sections(soup: BeautifulSoup) -> list[Tag]:
    """Put the cells of each section into one element, the cells before the first heading into the first one."""
    sections = [soup.new_tag("div")]
    for node in [node.extract() for node in list(soup.contents)]:
        if isinstance(node, Tag) and node.h2:
            sections.append(soup.new_tag("div"))
        sections[-1].append(node)
    soup.extend(sections)
    return sections


def _until_stopped(sections: list[Tag]) -> list[Tag]:
    """Return the sections up to the one in which the notebook ended; the others are removed."""
    ended = [place for place, section in enumerate(sections) if section.select_one(f"p.{stopping.MARK}")]
    last = ended[0] + 1 if ended else len(sections)
    for section in sections[last:]:
        section.decompose()
    return sections[:last]


def _open_with_answer(soup: BeautifulSoup, section: Tag) -> None:
    """Move the notebook's answer and its warnings to the end of the first section, with the figure that shows it."""
    answers, warnings = soup.select("section.answer"), soup.select("p.warning")
    if answers:
        answer = answers[-1].extract()
        heading = soup.new_tag("h2")
        heading.string = answer.get("data-title", "Answer")
        answer.insert(0, heading)
        if figure := soup.find(id=f"figure-{answer['data-figure']}"):
            shown = copy(figure)
            del shown["id"]
            answer.append(shown)
        section.append(answer)
    if warnings:
        listed = soup.new_tag("ul", attrs={"class": "warnings", "aria-label": "What to know before using the figures"})
        for warning in warnings:
            warning.name = "li"
            listed.append(warning.extract())
        section.append(listed)


def _fold_code(soup: BeautifulSoup, section: Tag) -> None:
    """Move the code of a section's cells into one folded element at its end."""
    folded = soup.new_tag("details", attrs={"class": "code"})
    numbers = []
    for code in section.select("details.code"):
        numbers += [number.get_text().removeprefix("cell ") for number in code.summary.select("span")]
        code.summary.decompose()
        folded.extend(code.extract().contents)
    if folded.contents:
        summary = soup.new_tag("summary")
        cells = f"cells {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"cell {''.join(numbers)}"
        summary.string = f"Code of this section ({cells})" if numbers else "Code of this section"
        folded.insert(0, summary)
        section.append(folded)


def _prepare(soup: BeautifulSoup, table: Tag) -> None:
    """Give a table a scrolling frame, a name, and classes that align numbers to the right."""
    del table["border"]
    named = {"aria-label": "Table"}
    if table.caption and table.get("data-name"):  # above the table, since inside it would be as narrow as the table
        caption = table.caption.extract()
        caption.name, caption["class"], caption["id"] = "p", "caption", f"table-{table['data-name']}"
        caption.append(_link_to_file(soup, table))
        folded = table.parent if table.parent.name == "details" else None
        (folded or table).insert_before(caption)
        if folded:
            folded.summary.string = f"All {len(table.select('tbody tr')):,} rows"
        named = {"aria-labelledby": caption["id"]}
        table["aria-labelledby"] = caption["id"]
    for corner in (cell for cell in table.select("thead th") if not cell.get_text().strip()):
        corner.name = "td"  # an empty cell is not a heading
    for heading in table.select("thead th"):  # a name in snake case may be broken at an underscore
        first, *others = heading.get_text().split("_")
        heading.string = first
        for word in others:
            heading.extend([soup.new_tag("wbr"), f"_{word}"])
    rows = [row.find_all(["th", "td"]) for row in table.select("tr")]
    heads = len(table.select("thead tr"))
    if heads > 1:  # a heading over several columns belongs to none of them
        rows, heads = rows[heads:], 0
    if rows and len(rows[0]) > WIDE:
        table["class"] = "wide"
    for column in zip(*rows, strict=False):
        texts = [text for cell in column[heads:] if (text := cell.get_text().strip()) not in ("", "–", UNDEFINED)]
        numbers = bool(texts) and all(map(NUMBER.fullmatch, texts))
        for row, cell in enumerate(column):
            long = (cell.name == "td" or row >= heads) and len(cell.get_text()) > LONG_CELL
            cell["class"] = "number" if numbers else "long" if long else "word"
    table.wrap(_scrolling(soup, named))


def _scrolling(soup: BeautifulSoup, named: dict[str, str]) -> Tag:
    """Return a frame for a table or figure that may be wider than the page; the keyboard scrolls it too."""
    return soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "group", **named})


def _link_to_file(soup: BeautifulSoup, output: Tag) -> Tag:
    """Return a link to the file of a table or figure."""
    file = Path(str(output["data-file"]))
    link = soup.new_tag("a", attrs={"class": "file", "href": file.as_posix(), "title": file.name})
    link.string = file.suffix.removeprefix(".").upper()
    return link


def anchor(heading: str) -> str:
    """Return the end of a heading's address: "4. Test report" is at `#4-test-report`."""
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
