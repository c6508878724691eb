"""Runs in order and side by side: each in a process of its own, whose output and progress one process shows."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from graphlib import TopologicalSorter
from pathlib import Path
from typing import IO

from scanbook import runtime
from scanbook.errors import RunError
from scanbook.reporting.records import METRICS
from scanbook.runner import locks, planning, progress
from scanbook.runner.freshness import Batch
from scanbook.runner.planning import Run
from scanbook.runtime.processes import interruptible

TIMEOUT = 20.0
"""Seconds in which interrupted runs must end their kernels and themselves."""


def announce(batches: Sequence[Batch]) -> None:
    """Print for each study which notebooks will run."""
    for batch in batches:
        total, stale = len(batch.notebooks), batch.stale()
        message = f"{len(stale)} of {total} notebooks to run: {', '.join(stale)}"
        if not stale:
            message = f"all {total} reports are fresh: {runtime.reports_dir() / 'index.html'}"
        print(f"{batch.label}: {message}", file=sys.stderr)


def run_stale(batches: Sequence[Batch], jobs: int, launch: str = "") -> bool:
    """Run the stale notebooks of some studies; if one fails, those that do not need it go on.

    Args:
        batches: The studies.
        jobs: Notebooks that run side by side.
        launch: Command that starts each run, such as "srun -n1"; "" to start it directly.

    Returns:
        Whether all reports are fresh now.

    Raises:
        RunError: There are runs and `jobs` is below 1, or the reports folder cannot be written.
        StudyError: As `planning.launcher`.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; every run has ended its kernel, or was killed after `TIMEOUT`.
    """
    runs = planning.plan(batches, launch)
    if not runs:
        return True
    started = time.time()
    folders = {f"{batch.label}/{name}": batch.folder / name for batch in batches for name in batch.stale()}

    def foot() -> str:
        done = sum(_written_since(started, folder / METRICS) for folder in folders.values())
        return f"{done} of {len(folders)} done in {runtime.duration(time.time() - started)}"

    run_all(runs, jobs, folders.values(), foot)
    return _summarise(batches, set(folders), time.time() - started)


def run_all(runs: Mapping[str, Run], jobs: int, folders: Iterable[Path], foot: Callable[[], str]) -> None:
    """Run commands in order and print their output; if one fails, those that do not need it go on.

    Args:
        runs: The commands, by their names.
        jobs: Runs side by side.
        folders: Folders in which notebooks write their progress.
        foot: Returns the line below the live ones.

    Raises:
        RunError: As `run_stale`.
        KeyboardInterrupt: As `run_stale`.
        BrokenPipeError: The reader of the output has closed it, as `head` does; the runs were stopped.
    """
    if jobs < 1:
        raise RunError(f"JOBS={jobs}; expected 1 or more runs side by side")
    with locks.hold(runtime.reports_dir() / ".index.lock"):  # fails once, before anything runs, if it cannot be written
        pass
    with interruptible(), progress.screen(folders, foot=foot) as screen:
        processes = _Processes(screen)
        try:
            _run_in_order(runs, jobs, processes)
        finally:  # the runs of an interrupted command end their kernels, silently
            processes.stop()


def _run_in_order(runs: Mapping[str, Run], jobs: int, processes: _Processes) -> None:
    order = TopologicalSorter({name: run.after for name, run in runs.items()})
    order.prepare()
    ready: list[str] = []
    while True:
        ready += order.get_ready()
        while ready and len(processes) < jobs:
            name = ready.pop(0)
            processes.start(name, runs[name].command)
        if not len(processes):
            return
        name, status = processes.wait()
        if status == 0:
            order.done(name)


class _Processes:
    """Processes that run now. Their output is printed as it comes.

    Args:
        screen: Prints lines.
    """

    def __init__(self, screen: progress.Screen) -> None:
        self._screen = screen
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._ended: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        self._stopped, self._unread = threading.Event(), threading.Event()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process."""
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",  # a launcher may print anything
            env=os.environ | ({progress.LIVE: "1"} if self._screen.live else {}),
            process_group=0,  # Ctrl-C comes to this process alone, and is passed on once
        )
        self._running[name] = process
        pipes = ((process.stdout, False), (process.stderr, True))
        copies = [threading.Thread(target=self._copy, args=pipe, daemon=True) for pipe in pipes]
        for thread in copies:
            thread.start()
        threading.Thread(target=self._follow, args=(name, process, copies), daemon=True).start()

    def wait(self) -> tuple[str, int]:
        """Return the name and status of the next process that has ended."""
        name, status = self._ended.get()
        del self._running[name]
        if self._unread.is_set():
            raise BrokenPipeError
        return name, status

    def stop(self) -> None:
        """End what still runs; kill it where it does not end in time."""
        self._stopped.set()
        self._signal(signal.SIGTERM)
        end = time.monotonic() + TIMEOUT
        while self._running:
            try:
                name, _ = self._ended.get(timeout=max(0.0, end - time.monotonic()))
                del self._running[name]
            except queue.Empty:
                self._signal(signal.SIGKILL)
                return

    def _signal(self, number: int) -> None:
        for process in list(self._running.values()):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    def _copy(self, pipe: IO[str], error: bool) -> None:
        for line in pipe:
            if not self._stopped.is_set():
                try:
                    self._screen.print(line.rstrip("\n"), error)
                except OSError:  # nobody reads any more; the runs must not wait for it
                    self._unread.set()
                    self._stopped.set()
                    self._signal(signal.SIGTERM)

    def _follow(self, name: str, process: subprocess.Popen[str], copies: Sequence[threading.Thread]) -> None:
        for thread in copies:
            thread.join()
        self._ended.put((name, process.wait()))


def _written_since(moment: float, path: os.PathLike[str]) -> bool:
    try:
        return os.stat(path).st_mtime >= moment
    except OSError:
        return False


def _summarise(batches: Sequence[Batch], started: set[str], seconds: float) -> bool:
    """Print how many reports are whole, and which are not; return whether all are."""
    states = {f"{batch.label}/{name}": batch.state(name) for batch in batches for name in batch.notebooks}
    missing = {label: state for label, state in states.items() if state.word != "fresh"}
    count = f"{len(started - missing.keys())} of {len(started)} notebooks run in {runtime.duration(seconds)}"
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
