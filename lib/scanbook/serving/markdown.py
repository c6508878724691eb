"""Reads the Markdown of a card into the sections that its page shows."""

from __future__ import annotations

import re

from scanbook.bundle.card import Section

_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_RULE = re.compile(r"\|[\s|:-]+\|")
_EMPHASIS = re.compile(r"\*\*(.+?)\*\*")


def sections(text: str) -> list[Section]:
    """Return the sections of a card. Each entry of a list is a paragraph, each table a section of its own.

    The parser knows the Markdown of scanbook's cards: headings, paragraphs, lists, tables and bold words. It keeps
    anything else as text.
    """
    parts: list[Section] = []
    heading, paragraphs, rows = "", [], []

    def close(next_heading: str) -> None:
        nonlocal heading, paragraphs, rows
        if paragraphs or rows:
            parts.append(Section(heading, tuple(paragraphs), tuple(rows)))
        heading, paragraphs, rows = next_heading, [], []

    for block in re.split(r"\n\s*\n", _FRONT_MATTER.sub("", text)):
        for line in block.strip().splitlines():
            plain = _EMPHASIS.sub(r"\1", line.strip())
            if plain.startswith("#"):
                close(plain.lstrip("# "))
            elif plain.startswith("|"):
                if not _RULE.fullmatch(plain):
                    cells = re.split(r"(?<!\\)\|", plain.strip("|"))
                    rows.append(tuple(cell.strip().replace("\\|", "|") for cell in cells))
            else:
                if rows:
                    close(heading)
                paragraphs.append(f"• {plain[2:]}" if plain.startswith("- ") else plain)
        if rows:
            close(heading)
    close("")
    return parts
