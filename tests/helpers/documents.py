"""The documents: their fenced blocks, commands and links."""

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
    """Return the fenced blocks of a language, in order."""
    return [block for name, block in _FENCE.findall(text(document)) if name == language]


def commands(document: str) -> list[str]:
    """Return every command of the shell blocks: a line, with those that continue it, without its comment."""
    lines = "".join(blocks(document, "sh")).replace("\\\n", " ").splitlines()
    without_comments = [_COMMENT.sub("", line).strip() for line in lines]
    for line in without_comments:
        shlex.split(line)  # a quote that is not closed raises
    return [re.sub(r"\s{2,}", " ", line) for line in without_comments if line]


def prose(document: str) -> str:
    """Return the text outside fenced blocks."""
    return _FENCE.sub("", text(document))


def anchors(document: str) -> set[str]:
    """Return the names under which GitHub links to the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
