"""`make reports`: Make runs the stale notebooks of some studies, one process shows how far they are and stops them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from scanbook import runtime
from scanbook.errors import RunError
from scanbook.reporting import suite
from scanbook.reporting.records import METRICS, duration
from scanbook.runner import display, locks, planning, progress
from scanbook.runner.freshness import Batch
from scanbook.runtime.processes import interruptible

PATIENCE = 20.0
"""Seconds that runs have to end their kernels and themselves."""
OWN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
"""Variables in which a Make around this one speaks to those that it starts."""
_REMARKS = re.compile(r"^\S*make(\[\d+\])?: (\*\*\* \[|Target .+ not remade)")
"""What Make says of a notebook that failed, beside the line that says why."""


def announce(planned: list[Batch]) -> None:
    """Says in a line for each study what is to be run."""
    for batch in planned:
        stale = batch.stale()
        if stale:
            said = f"{len(stale)} of {len(suite.notebooks())} notebooks to run: {', '.join(stale)}"
        else:
            said = f"all {len(suite.notebooks())} reports are fresh: {runtime.reports_dir() / 'index.html'}"
        print(f"{batch.label}: {said}", file=sys.stderr)


def make(planned: list[Batch], jobs: int, launch: str = "") -> bool:
    """Runs the stale notebooks of some studies, and goes on with the others where one fails.

    Args:
        planned: The studies.
        jobs: Notebooks that run side by side.
        launch: Command that starts each notebook's own, such as "srun -n1"; "" to start it directly.

    Returns:
        Whether all reports are fresh now.

    Raises:
        RunError: There are runs and `jobs` is none, there is no Make, or the reports folder cannot be written.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; every kernel that was started has ended.
    """
    rules = planning.makefile(planned, launch)
    if not rules:
        return True
    started = time.time()
    chosen = {f"{batch.label}/{name}": batch.folder / name for batch in planned for name in batch.stale()}

    def foot() -> str:
        done = sum(_written_since(started, folder / METRICS) for folder in chosen.values())
        return f"{done} of {len(chosen)} done in {duration(time.time() - started)}"

    follow(rules, jobs, chosen.values(), foot)
    return _sum_up(planned, set(chosen), time.time() - started)


def follow(rules: str, jobs: int, folders: Iterable[Path], foot: Callable[[], str]) -> None:
    """Lets Make follow its rules, passes on what the runs say, and goes on with the others where one fails.

    Args:
        rules: Of `planning.rules`.
        jobs: Runs side by side.
        folders: Where notebooks say how far they are.
        foot: Gives the line below the live ones.

    Raises:
        RunError: As `make`.
        KeyboardInterrupt: As `make`.
    """
    if jobs < 1:
        raise RunError(f"JOBS={jobs}; expected 1 or more runs side by side")
    with locks.hold(runtime.reports_dir() / ".index.lock"):  # says once, before anything runs, that it cannot
        pass
    with interruptible(), display.screen(folders, foot=foot) as screen:
        _follow(_start(rules, jobs, screen.live), screen)


def _written_since(moment: float, path: os.PathLike[str]) -> bool:
    try:
        return os.stat(path).st_mtime >= moment
    except OSError:
        return False


def _start(rules: str, jobs: int, live: bool) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key not in OWN}
    try:
        process = subprocess.Popen(
            ["make", "--no-print-directory", "-k", "-j", str(jobs), "-f", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # a launcher may say anything
            env=environment | ({progress.LIVE: "1"} if live else {}),
            process_group=0,  # Ctrl-C comes here alone, and is passed on once
        )
    except FileNotFoundError as error:
        raise RunError("there is no make on this machine; install GNU Make") from error
    assert process.stdin
    with suppress(BrokenPipeError):  # Make ended at once, and says why
        process.stdin.write(rules)
        process.stdin.close()
    return process


def _follow(process: subprocess.Popen[str], screen: display.Screen) -> None:
    """Passes on what Make and the runs say until they have ended; when interrupted, ends them without a word."""
    stopped, unheard = threading.Event(), threading.Event()

    def copy(pipe: IO[str], error: bool) -> None:
        for line in pipe:
            if not stopped.is_set() and not _REMARKS.match(line):
                try:
                    screen.say(line.rstrip("\n"), error)
                except OSError:  # who reads it has had enough, as `head` has; the runs must not wait for a reader
                    unheard.set()
                    stopped.set()
                    end()

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # the runs end their kernels

    pipes = ((process.stdout, False), (process.stderr, True))
    copies = [threading.Thread(target=copy, args=each, daemon=True) for each in pipes]
    for each in copies:
        each.start()
    try:
        for each in copies:  # to their ends: a run outlives a Make that was killed
            each.join()
    except KeyboardInterrupt:
        stopped.set()
        end()
        for each in copies:
            each.join(PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        process.wait()
    if unheard.is_set():
        raise BrokenPipeError


def _sum_up(planned: list[Batch], chosen: set[str], seconds: float) -> bool:
    """Says how many reports are whole, and which are not. Returns whether all are."""
    states = {f"{batch.label}/{name}": batch.state(name) for batch in planned for name in suite.notebooks()}
    left = {label: state for label, state in states.items() if state.word != "fresh"}
    took = f"{len(chosen - left.keys())} of {len(chosen)} notebooks run in {duration(seconds)}"
    if not left:
        print(f"{took}; all {len(states)} reports are whole: {runtime.reports_dir() / 'index.html'}", file=sys.stderr)
        return True
    groups = {
        "failed": [label for label, state in left.items() if state.word == "failed"],
        "changed meanwhile": [label for label, state in left.items() if state.word == "stale"],
        "stopped": [label for label, state in left.items() if state.word == "missing" and state.why],
    }
    groups["not run"] = [label for label in left if not any(label in group for group in groups.values())]
    told = "; ".join(f"{word}: {', '.join(group)}" for word, group in groups.items() if group)
    print(f"{took}; {told}", file=sys.stderr)
    return False
