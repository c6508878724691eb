"""What a terminal shows of running notebooks: a live line each, below the lines that stay."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scanbook.reporting.records import duration
from scanbook.runner import progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class Screen:
    """Where lines go.

    Attributes:
        live: Whether a terminal shows the running notebooks below them.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.live = console is not None
        self._console = console

    def say(self, line: str, error: bool = False) -> None:
        """Prints a line that stays, an error to the error stream."""
        stream = sys.stderr if error else sys.stdout
        if self._console and stream.isatty():
            from rich.text import Text

            self._console.print(Text(line), soft_wrap=True)
        else:
            print(line, file=stream, flush=True)


@contextmanager
def screen(folders: Iterable[Path], quiet: bool = False, foot: Callable[[], str] | None = None) -> Iterator[Screen]:
    """Shows the notebooks that run in some folders as long as the block runs, where the error stream is a terminal.

    Args:
        folders: Those of their reports.
        quiet: Whether another process shows them.
        foot: Gives a line below them.
    """
    if quiet or not sys.stderr.isatty():
        yield Screen()
        return
    from rich.console import Console
    from rich.live import Live

    console, watched = Console(stderr=True), list(folders)
    if console.is_dumb_terminal:
        yield Screen()
        return

    def lines() -> Table:
        return table([at for folder in watched if (at := progress.running(folder))], foot() if foot else "")

    with Live(get_renderable=lines, console=console, refresh_per_second=2, transient=True):
        yield Screen(console)


def table(found: Iterable[progress.Progress], foot: str = "") -> Table:
    """The live lines: notebook, section it is in, time that it runs and ran last time, memory."""
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    rows.add_column(no_wrap=True, justify="right")
    rows.add_column(no_wrap=True, justify="right")
    for at in found:
        usual = f" of about {duration(at.expected)}" if at.expected else ""
        time = f"{duration(at.elapsed)}{usual}"
        rows.add_row(Text(at.label, "bold"), Text(at.section or "starting"), time, f"{at.memory:.1f} GiB")
    if foot:
        rows.add_row(Text(foot, "dim"))
    return rows
