"""What stopped a run, as a person reads it."""

from __future__ import annotations

from dataclasses import dataclass

from scanbook import errors


def is_expected(kind: str) -> bool:
    """Whether an exception of this name is one that scanbook raises on purpose, whose message says all."""
    known = getattr(errors, kind, None)
    return isinstance(known, type) and issubclass(known, errors.ScanbookError)


@dataclass(frozen=True)
class Failure:
    """An exception in a notebook.

    Attributes:
        kind: Name of its class.
        message: What it said.
        section: Heading before the cell; empty before the first.
        cell: Number of the code cell, as Jupyter counts them in brackets.
    """

    kind: str
    message: str
    section: str
    cell: int

    @property
    def sentence(self) -> str:
        """The exception in one line; its class is named only where the message does not say all."""
        message = " ".join(self.message.split())
        if len(message) > 400:
            message = f"{message[:400]}…"
        return message if is_expected(self.kind) else f"{self.kind}: {message}"

    @property
    def place(self) -> str:
        """Section and cell."""
        return f"section {self.section!r}, cell {self.cell}" if self.section else f"cell {self.cell}"
