"""Progress of running notebooks: a file beside each report, which its runner writes, and live lines of a terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from scanbook import runtime, store

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

RUNNING = ".running.json"
PREVIOUS = ".previous.json"
"""The `metrics.json` of the last whole run, kept during and after another run."""
INTERVAL = 1.0
"""Seconds between two writings."""
SILENCE = 15.0
"""Seconds without a writing after which the run has ended."""
LIVE = "SCANBOOK_LIVE"
"""Variable that tells a runner that another process shows its progress, so it does not print it."""


@dataclass
class Progress:
    """How far a notebook is.

    Attributes:
        label: Study, profile and notebook.
        kernel_folder: The kernel's own folder, which identifies its processes and is removed with them.
        expected: Seconds of the last whole run; None without one.
        started: Start of this run, in seconds since 1970.
        section: The last heading passed.
        steps: What the kernel does there and how far it is, as `runtime.steps` describes it.
        cell: Number of the code cell that runs, as Jupyter counts them in brackets.
        memory: Memory of the kernel and its children, in GiB.
    """

    label: str
    kernel_folder: str = ""
    expected: float | None = None
    started: float = field(default_factory=time.time)
    section: str = ""
    steps: str = ""
    cell: int = 0
    memory: float = 0.0

    def write(self, folder: Path) -> None:
        """Write it beside the report; on a full disk nothing shows it, and the run goes on."""
        with suppress(OSError):
            store.atomic_write(folder / RUNNING, json.dumps(asdict(self)))

    @property
    def place(self) -> str:
        """The section, and the steps in it."""
        return f"{self.section or 'starting'}{f' ({self.steps})' if self.steps else ''}"

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return max(0.0, time.time() - self.started)


def read(folder: Path) -> Progress | None:
    """Return what a runner wrote last into a folder, even if it has ended; None without a readable file."""
    try:
        return Progress(**json.loads((folder / RUNNING).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def running(folder: Path) -> Progress | None:
    """Return the progress of the run in a folder; None when nothing runs there."""
    try:
        silent = time.time() - os.stat(folder / RUNNING).st_mtime
    except OSError:
        return None
    return read(folder) if silent < SILENCE else None


class Screen:
    """Where lines are printed.

    Attributes:
        live: Whether a terminal shows the running notebooks below the lines.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.live = console is not None
        self._console = console

    def print(self, line: str, error: bool = False) -> None:
        """Print a line that stays, an error to the error stream."""
        stream = sys.stderr if error else sys.stdout
        if self._console and stream.isatty():
            from rich.text import Text

            self._console.print(Text(line), soft_wrap=True)
        else:
            print(f"{line}\n", end="", file=stream, flush=True)  # at once, so that lines of two runs do not mix


@contextmanager
def screen(folders: Iterable[Path], quiet: bool = False, foot: Callable[[], str] = lambda: "") -> Iterator[Screen]:
    """Show the notebooks that run in some folders while the block runs, if the error stream is a terminal.

    Args:
        folders: Their report folders.
        quiet: Whether another process shows them.
        foot: Returns a line that is shown below them.
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
        return table([progress for folder in watched if (progress := running(folder))], foot())

    with Live(get_renderable=lines, console=console, refresh_per_second=2, transient=True):
        yield Screen(console)


def table(notebooks: Iterable[Progress], foot: str = "") -> Table:
    """Return the live lines: notebook, its section, seconds of this run and of the last one, memory."""
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 2), expand=True)
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    rows.add_column(no_wrap=True, justify="right")
    rows.add_column(no_wrap=True, justify="right")
    for progress in notebooks:
        expected = f" of about {runtime.duration(progress.expected)}" if progress.expected else ""
        elapsed = f"{runtime.duration(progress.elapsed)}{expected}"
        row = Text(progress.label, "bold"), Text(progress.place), elapsed, f"{progress.memory:.1f} GiB"
        rows.add_row(*row)
    if foot:
        rows.add_row(Text(foot, "dim"))
    return rows
