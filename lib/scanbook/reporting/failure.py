"""The failure of a run, in the words of its report."""

from __future__ import annotations

from dataclasses import dataclass

from scanbook import errors


def is_expected(kind: str) -> bool:
    """Return whether this is the name of an exception of scanbook, whose message is complete."""
    exception = getattr(errors, kind, None)
    return isinstance(exception, type) and issubclass(exception, errors.ScanbookError)


@dataclass(frozen=True)
class Failure:
    """An exception in a notebook.

    Attributes:
        kind: Name of its class.
        message: Its message.
        section: Heading before the cell; empty before the first.
        cell: Number of the code cell, as Jupyter shows it in brackets.
    """

    kind: str
    message: str
    section: str
    cell: int

    @property
    def sentence(self) -> str:
        """The exception in one line, with its class only where the message is not complete."""
        message = " ".join(self.message.split())
        if len(message) > 400:
            message = f"{message[:400]}…"
        return message if is_expected(self.kind) else f"{self.kind}: {message}"

    @property
    def place(self) -> str:
        """Section and cell."""
        return f"section {self.section!r}, cell {self.cell}" if self.section else f"cell {self.cell}"
