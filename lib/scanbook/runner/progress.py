"""How far a running notebook is: a file beside its report, which its runner writes and terminals show."""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scanbook import store

RUNNING = ".running.json"
PREVIOUS = ".previous.json"
"""What `metrics.json` said of the last whole run, kept while and after another one."""
BEAT = 1.0
"""Seconds between two writings."""
SILENCE = 15.0
"""Seconds without one after which nobody runs the notebook any more."""
LIVE = "SCANBOOK_LIVE"
"""Variable that says to a runner that somebody shows its progress, so that it need not print it."""


@dataclass
class Progress:
    """How far a notebook is.

    Attributes:
        label: Study, profile and notebook.
        room: Folder of the kernel's own, which tells its processes from others and goes with them.
        expected: Seconds that the last whole run took; None where there was none.
        started: When this one started, in seconds since 1970.
        section: The last heading passed.
        cell: Number of the code cell that runs, as Jupyter counts them in brackets.
        memory: What kernel and children hold, in GiB.
    """

    label: str
    room: str = ""
    expected: float | None = None
    started: float = field(default_factory=time.time)
    section: str = ""
    cell: int = 0
    memory: float = 0.0

    def write(self, folder: Path) -> None:
        """Writes it beside the report; where there is no room, nobody sees it, and that is all."""
        with contextlib.suppress(OSError):
            store.atomic_write(folder / RUNNING, json.dumps(asdict(self)))

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return max(0.0, time.time() - self.started)


def read(folder: Path) -> Progress | None:
    """What a runner wrote last into a folder, whether it still lives or not; None where there is nothing readable."""
    try:
        return Progress(**json.loads((folder / RUNNING).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def running(folder: Path) -> Progress | None:
    """The run that goes on in a folder; None when there is none."""
    try:
        silent = time.time() - os.stat(folder / RUNNING).st_mtime
    except OSError:
        return None
    return read(folder) if silent < SILENCE else None
