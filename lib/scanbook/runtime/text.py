"""Text from the file system, whose names may hold bytes that are not UTF-8."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

_ADDRESS = "file://"
_MARKUP = re.compile(r"([\\`*_\[\]<>&|$~#])")


def legible(text: str) -> str:
    r"""Return a text as UTF-8 can hold it.

    Python reads a byte of a file's name that is not UTF-8 as a lone surrogate (PEP 383), with which the file is opened
    again. Whatever is shown or written has `\xe9` in its place.
    """
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, as JSON can hold
        return text.encode("utf-8", "backslashreplace").decode()


def as_markdown(name: str) -> str:
    """Return a name from the data so that Markdown shows it as it is, in a sentence and in the cell of a table."""
    return _MARKUP.sub(r"\\\1", " ".join(legible(name).split()))


def encode(text: str) -> bytes:
    """Return a text as UTF-8, `legible` where it has to be."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return legible(text).encode()


def path_as_text(path: Path) -> str:
    """Return a path as a text that UTF-8 can hold: one with other bytes as an address, "file:///data/caf%E9"."""
    text = str(path)
    return text if legible(text) == text else path.absolute().as_uri()


def path_from_text(text: str) -> Path:
    """Return the path that `path_as_text` wrote, or the path itself."""
    if text.startswith(_ADDRESS):
        return Path(os.fsdecode(unquote_to_bytes(text.removeprefix(_ADDRESS))))
    return Path(text)


def print_every_character() -> None:
    r"""Let this process print what its terminal cannot show as `\u2026`, instead of ending it with an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's is not a file
            stream.reconfigure(errors="backslashreplace")
