"""The documents, README, CONTRIBUTING and the pages of docs/: their fenced blocks, commands and links."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in sorted(DOCS.rglob("*.md"))))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"(^|\s+)# .*$")


@cache
def hooks() -> ModuleType:
    """Return the module that writes the generated pages, which is not part of a package."""
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def generated() -> dict[str, str]:
    """Return the generated pages of the documentation: path below the project, and Markdown."""
    return {f"docs/{path}": content for path, content in hooks().pages().items()}


def text(document: str) -> str:
    """Return the Markdown of a document or of a generated page."""
    if document in generated():
        return generated()[document]
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    return [block for name, block in _FENCE.findall(text(document)) if name == language]


def all_blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language in all documents."""
    return [block for document in DOCUMENTS for block in blocks(document, language)]


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
