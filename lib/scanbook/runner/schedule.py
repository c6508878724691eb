"""`make reports`: Make runs the stale notebooks of some studies; one process shows their progress and stops them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from scanbook import runtime
from scanbook.errors import RunError
from scanbook.reporting import suite
from scanbook.reporting.records import METRICS, duration
from scanbook.runner import locks, planning, progress
from scanbook.runner.freshness import Batch
from scanbook.runtime.processes import interruptible

TIMEOUT = 20.0
"""Seconds in which interrupted runs must end their kernels and themselves."""
OWN = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
"""Variables through which a Make around this one controls those that it starts."""
_REMARKS = re.compile(r"^\S*make(\[\d+\])?: (\*\*\* \[|Target .+ not remade)")
"""Lines that Make prints for a notebook that failed, beside the line with the reason."""


def announce(batches: Sequence[Batch]) -> None:
    """Print for each study which notebooks will run."""
    for batch in batches:
        total, stale = len(suite.notebooks()), batch.stale()
        message = f"{len(stale)} of {total} notebooks to run: {', '.join(stale)}"
        if not stale:
            message = f"all {total} reports are fresh: {runtime.reports_dir() / 'index.html'}"
        print(f"{batch.label}: {message}", file=sys.stderr)


def run_stale(batches: Sequence[Batch], jobs: int, launch: str = "") -> bool:
    """Run the stale notebooks of some studies; if one fails, the others go on.

    Args:
        batches: The studies.
        jobs: Notebooks that run side by side.
        launch: Command that starts each run, such as "srun -n1"; "" to start it directly.

    Returns:
        Whether all reports are fresh now.

    Raises:
        RunError: There are runs and `jobs` is below 1, there is no Make, or the reports folder cannot be written.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; every kernel that was started has ended.
    """
    rules = planning.makefile(batches, launch)
    if not rules:
        return True
    started = time.time()
    folders = {f"{batch.label}/{name}": batch.folder / name for batch in batches for name in batch.stale()}

    def foot() -> str:
        done = sum(_written_since(started, folder / METRICS) for folder in folders.values())
        return f"{done} of {len(folders)} done in {duration(time.time() - started)}"

    run_make(rules, jobs, folders.values(), foot)
    return _summarise(batches, set(folders), time.time() - started)


def run_make(rules: str, jobs: int, folders: Iterable[Path], foot: Callable[[], str]) -> None:
    """Run Make on its rules and print the output of the runs; if one fails, the others go on.

    Args:
        rules: Rules of `planning.rules`.
        jobs: Runs side by side.
        folders: Folders in which notebooks write their progress.
        foot: Returns the line below the live ones.

    Raises:
        RunError: As `run_stale`.
        KeyboardInterrupt: As `run_stale`.
    """
    if jobs < 1:
        raise RunError(f"JOBS={jobs}; expected 1 or more runs side by side")
    with locks.hold(runtime.reports_dir() / ".index.lock"):  # fails once, before anything runs, if it cannot be written
        pass
    with interruptible(), progress.screen(folders, foot=foot) as screen:
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
            errors="replace",  # a launcher may print anything
            env=environment | ({progress.LIVE: "1"} if live else {}),
            process_group=0,  # Ctrl-C comes here alone, and is passed on once
        )
    except FileNotFoundError as error:
        raise RunError("there is no make on this machine; install GNU Make") from error
    assert process.stdin
    with suppress(BrokenPipeError):  # Make ended at once, and printed the reason
        process.stdin.write(rules)
        process.stdin.close()
    return process


def _follow(process: subprocess.Popen[str], screen: progress.Screen) -> None:
    """Print the output of Make and its runs until they have ended; when interrupted, end them silently."""
    stopped, unread = threading.Event(), threading.Event()

    def copy(pipe: IO[str], error: bool) -> None:
        for line in pipe:
            if not stopped.is_set() and not _REMARKS.match(line):
                try:
                    screen.print(line.rstrip("\n"), error)
                except OSError:  # the reader has closed the pipe, as `head` does; the runs must not wait for it
                    unread.set()
                    stopped.set()
                    end()

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # the runs end their kernels

    pipes = ((process.stdout, False), (process.stderr, True))
    copies = [threading.Thread(target=copy, args=arguments, daemon=True) for arguments in pipes]
    for thread in copies:
        thread.start()
    try:
        for thread in copies:  # to their ends: a run outlives a Make that was killed
            thread.join()
    except KeyboardInterrupt:
        stopped.set()
        end()
        for thread in copies:
            thread.join(TIMEOUT)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        process.wait()
    if unread.is_set():
        raise BrokenPipeError


def _summarise(batches: Sequence[Batch], started: set[str], seconds: float) -> bool:
    """Print how many reports are whole, and which are not; return whether all are."""
    states = {f"{batch.label}/{name}": batch.state(name) for batch in batches for name in suite.notebooks()}
    missing = {label: state for label, state in states.items() if state.word != "fresh"}
    count = f"{len(started - missing.keys())} of {len(started)} notebooks run in {duration(seconds)}"
    if not missing:
        print(f"{count}; all {len(states)} reports are whole: {runtime.reports_dir() / 'index.html'}", file=sys.stderr)
        return True
    groups = {
        "failed": [label for label, state in missing.items() if state.word == "failed"],
        "changed meanwhile": [label for label, state in missing.items() if state.word == "stale"],
        "stopped": [label for label, state in missing.items() if state.word == "missing" and state.reason],
        "not run": [label for label, state in missing.items() if state.word == "missing" and not state.reason],
    }
    lists = "; ".join(f"{word}: {', '.join(group)}" for word, group in groups.items() if group)
    print(f"{count}; {lists}", file=sys.stderr)
    return False
