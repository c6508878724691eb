"""The steps that a process is at, one inside the other, for a log or another process: what, how far, and time left."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "SCANBOOK_STEPS"
"""Variable with the file in which a process writes its steps, for the runner."""
_INTERVAL = 1.0
"""Seconds between two writings while a step goes on."""
_steps: list[Step] = []
_written = 0.0


@dataclass
class Step:
    """One step.

    Attributes:
        text: What is done.
        total: Number of its parts; None if it is not known.
        part: Name of a part, such as "epoch", of which the one that runs is named; "" to count those that are done.
        done: Number of parts that are done.
        before: Number of them that were done when it started, as in a training that continues.
        started: Its start, in seconds since 1970.
    """

    text: str
    total: int | None = None
    part: str = ""
    done: int = 0
    before: int = 0
    started: float = field(default_factory=time.time)

    def advance(self, done: int) -> None:
        """Set how many parts are done."""
        self.done = done
        _write(0.0 if self.part else _INTERVAL)

    def describe(self, now: float) -> str:
        """Return what is done and how far it is."""
        if not self.total:
            return self.text
        number = f"{self.part} {min(self.done + 1, self.total)}" if self.part else f"{self.done}"
        return f"{self.text}, {number} of {self.total}{self._time_left(now)}"

    def _time_left(self, now: float) -> str:
        parts = self.done - self.before
        if parts <= 0 or not self.total:
            return ""
        return f", about {duration((now - self.started) / parts * max(0, self.total - self.done))} left"


def duration(seconds: float) -> str:
    """Return seconds in words: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def step(text: str, total: int | None = None, part: str = "") -> Iterator[Step]:
    """Report a step while the block runs."""
    with reported(Step(text, total, part)) as current:
        yield current


@contextmanager
def reported(current: Step) -> Iterator[Step]:
    """Report a step that exists while the block runs."""
    depth = len(_steps)
    current.started = time.time()
    _steps.append(current)
    _write()
    try:
        yield current
    finally:
        del _steps[depth:]
        _write()


def describe(steps: list[Step] | None = None) -> str:
    """Return the steps of this process, or others, from the outermost to the innermost; "" without any."""
    now = time.time()
    return ": ".join(current.describe(now) for current in (_steps if steps is None else steps))


def read(path: Path) -> list[Step]:
    """Return the steps that another process wrote; none without a readable file."""
    try:
        return [Step(**values) for values in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


@contextmanager
def logged(write_line: Callable[[str], None], interval: float = 15.0) -> Iterator[None]:
    """Write a line with the steps of this process every few seconds while the block runs."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(interval):
            if text := describe():
                write_line(text)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write(interval: float = 0.0) -> None:
    """Write the steps into the file that `FILE` names, if they were not written within some seconds."""
    global _written  # noqa: PLW0603  one file, one process
    path = os.environ.get(FILE)
    if not path or time.monotonic() - _written < interval:
        return
    _written = time.monotonic()
    with suppress(OSError):  # of a full disk: nothing shows it, and the work goes on
        handle, name = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(handle, "w") as file:
            json.dump([asdict(current) for current in _steps], file)
        os.replace(name, path)
