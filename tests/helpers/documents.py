"""What the documents show: their fenced blocks, commands and links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", ".github/DEPLOY.md", "notebooks/studies/README.md")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"(^|\s+)# .*$")


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    """Fenced blocks of a language, in order."""
    return [block for found, block in _FENCE.findall(text(document)) if found == language]


def commands(document: str) -> list[str]:
    """Every command of the shell blocks: a line, with those that continue it, without its comment."""
    lines = "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    found = [_COMMENT.sub("", line).strip() for line in lines]
    for line in found:
        shlex.split(line)  # a quote that is not closed raises
    return [re.sub(r"\s{2,}", " ", line) for line in found if line]


def prose(document: str) -> str:
    """The text outside fenced blocks."""
    return _FENCE.sub("", text(document))


def anchors(document: str) -> set[str]:
    """Names under which GitHub links to the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
