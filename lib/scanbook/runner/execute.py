"""Runs one notebook: papermill, then the report, then `metrics.json`, whose presence means that the run is whole."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from scanbook import runtime, store
from scanbook.config import Study
from scanbook.errors import RunError
from scanbook.reporting import report, suite
from scanbook.reporting.failure import Failure
from scanbook.reporting.records import FAILURE, METRICS, NOTEBOOK, REPORT, duration, read_json
from scanbook.runner import display, index, kernel, locks, memory, progress
from scanbook.runner.freshness import Batch
from scanbook.runtime.processes import Peak, interruptible, with_malloc

# what it logs of a kernel that died is part of the one line that says why; a logger without a handler would print it
logging.getLogger("papermill").addHandler(logging.NullHandler())

OWN_FILES = (METRICS, REPORT, FAILURE, NOTEBOOK, "results.json", "measurements.json")
OWN_FOLDERS = ("tables", "figures")


class Follower:
    """Says where a running notebook is: papermill calls it as each cell starts, and the watcher of its memory.

    Attributes:
        at: How far it is.
    """

    def __init__(self, folder: Path, at: progress.Progress, say: Callable[[str], None]) -> None:
        self.at = at
        self._folder, self._say = folder, say
        self._written = 0.0

    def __call__(self, cell: Any, cell_index: int) -> None:
        """Notes the cell; a heading becomes the section, and a line on the terminal."""
        if cell.cell_type == "code":
            self.at.cell += bool(cell.source.strip())
            return
        headings = re.findall(r"^#{2,3} +(.+)", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            self.at.section = headings[-1].strip()
            self._say(self.at.section)

    def memory(self) -> float:
        """Memory of the kernel and its children, in GiB; every second, all is written where terminals find it."""
        self.at.memory = memory.memory_below()
        if time.monotonic() - self._written >= progress.BEAT:
            self._written = time.monotonic()
            self.at.write(self._folder)
        return self.at.memory

    def failure(self, kind: str, message: str) -> Failure:
        """An exception at the place reached."""
        return Failure(kind, message, self.at.section, self.at.cell)


def run(batch: Batch, name: str, if_stale: bool = False) -> Path:
    """Runs a notebook into its report.

    Args:
        batch: Study, profile and data.
        name: The notebook.
        if_stale: Whether a report that is fresh by now is left alone.

    Returns:
        Path of the report.

    Raises:
        RunError: The notebook failed; its report is then a page that says where and why.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; no process of the kernel is left.
    """
    suite.path(name)
    limit = runtime.store_limit()  # a wrong one is told before anything runs
    folder = batch.folder / name
    started = time.perf_counter()
    shown = bool(os.environ.get(progress.LIVE))

    def say(text: str, passing: bool = False) -> None:
        if not (passing and (shown or screen.live)):
            screen.say(f"[{batch.label}/{name} {time.perf_counter() - started:4.0f} s] {text}")

    with interruptible(), locks.writing(folder), display.screen([folder], quiet=shown) as screen:
        waiting = locks.hold(folder / ".lock", on_wait=lambda: say("waiting for another run of this notebook"))
        with waiting as waited:
            if (waited or if_stale) and (batch := batch.anew()).fresh(name):
                say("another run left a fresh report; nothing to do")
                return folder / REPORT
            # in the smallest profile its figures mean nothing, and need no machine to themselves
            alone = name == suite.BENCHMARK and batch.study.profile != "smoke"
            with locks.machine(alone, on_wait=lambda: say("waiting for the machine")):
                started = time.perf_counter()
                _run(batch.anew(), name, folder, say)
        store.prune(limit)
    return folder / REPORT


def _run(batch: Batch, name: str, folder: Path, say: Callable[..., None]) -> None:
    _bury(folder)
    _clear(folder)
    expected = read_json(folder / progress.PREVIOUS).get("seconds")
    say(f"starts: {f'the last run took {duration(expected)}' if expected else 'its first run'}", passing=True)
    facts = {
        "notebook": name,
        "title": suite.title(name),
        "study": batch.study.resolved(),
        "overrides": batch.overrides,
        "data": batch.study.data,
        "fingerprints": batch.fingerprints(name),
        "versions": runtime.versions(),
        "hardware": runtime.describe_machine(),
        "commit": _commit(),
    }
    at = progress.Progress(f"{batch.label}/{name}", expected=expected)
    follower = Follower(folder, at, lambda section: say(section, passing=True))
    clock = time.perf_counter()
    peak, failure = _execute(batch, name, folder, follower)
    facts |= {
        "seconds": round(time.perf_counter() - clock, 2),
        "peak memory (GiB)": round(peak, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if not failure and not (folder / "results.json").is_file():
        failure = follower.failure("RunError", "the notebook recorded no results; its last cell must call finish()")
    if failure:
        facts |= {"failure": asdict(failure), "sentence": failure.sentence}
    store.atomic_write(folder / REPORT, report.render(folder / NOTEBOOK, facts, failure))
    if failure:
        store.write_json(folder / FAILURE, facts)
        index.write()
        raise RunError(_one_line(batch, name, failure, folder))
    results = {key: read_json(folder / f"{key}.json") for key in ("results", "measurements")}
    store.write_json(folder / METRICS, facts | results)
    index.write()
    say(f"done, peak memory {peak:.1f} GiB: {folder / REPORT}")


def _bury(folder: Path) -> None:
    """Ends the kernel of a runner that was killed, and removes its folder; whoever holds the lock runs alone."""
    left = progress.read(folder)
    # a file may say anything, and no other folder is removed for it
    if left and Path(left.room).name.startswith(kernel.PREFIX):
        kernel.end(left.room)
        shutil.rmtree(left.room, ignore_errors=True)
    (folder / progress.RUNNING).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Removes what an earlier run left, `metrics.json` first: from then on the old report counts no more."""
    if (folder / METRICS).is_file():
        os.replace(folder / METRICS, folder / progress.PREVIOUS)
    for file in OWN_FILES:
        (folder / file).unlink(missing_ok=True)
    for each in OWN_FOLDERS:
        shutil.rmtree(folder / each, ignore_errors=True)


def _execute(batch: Batch, name: str, folder: Path, follower: Follower) -> tuple[float, Failure | None]:
    """Runs the cells. Returns peak memory in GiB, and what went wrong."""
    study = batch.study
    parameters = {"STUDY": study.study, "PROFILE": study.profile, "DATA": study.data, "SET": batch.overrides}
    kills = memory.kills()

    def failure(cause: str, hint: str) -> Failure:
        place = f"{cause} at cell {follower.at.cell}, peak {peak.value:.1f} GiB"
        return follower.failure(RunError.__name__, f"{place}; {hint}")

    with _surroundings(name) as room, interruptible(lambda: kernel.end(room)):
        follower.at.room = room
        follower.at.write(folder)  # before there is a kernel that another run may have to end
        try:
            with Peak(follower.memory, 0.25) as peak:
                papermill.execute_notebook(
                    suite.path(name),
                    folder / NOTEBOOK,
                    parameters,
                    kernel_name="python3",
                    language="python",
                    progress_bar=False,
                    cwd=runtime.project_root(),
                    on_cell_start=follower,
                    **kernel.engine_arguments(room),
                )
        except papermill.PapermillExecutionError as error:
            if error.ename in memory.EXHAUSTED:
                return peak.value, failure("out of memory", memory.advice(study))
            return peak.value, follower.failure(error.ename, error.evalue)
        except DeadKernelError:
            cause = kernel.death(memory.kills() > kills)
            return peak.value, failure(cause, _help(cause, study))
        except (CellTimeoutError, RuntimeError) as error:  # Jupyter's, of a kernel that does not start or answer
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return peak.value, failure(f"the kernel does not answer ({said})", "run one notebook at a time (JOBS=1)")
        finally:
            kernel.end(room)  # what outlived it
            (folder / progress.RUNNING).unlink(missing_ok=True)
    return peak.value, None


def _help(cause: str, study: Study) -> str:
    """What to do about a kernel that died."""
    if "memory" in cause:
        return memory.advice(study)
    if "disk" in cause:
        return "make room, or set SCANBOOK_STORE to another folder"
    return "run it again; if that ends alike, run the notebook's cells one by one (make lab) to see which call it is"


@contextmanager
def _surroundings(notebook: str) -> Iterator[str]:
    """Environment of a kernel that heeds no user's Jupyter or IPython settings; yields a folder with a short name."""
    base = "/tmp" if os.access("/tmp", os.W_OK) else None
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix=kernel.PREFIX, dir=base) as short:
        os.environ |= {
            **with_malloc(),
            "SCANBOOK_HEADLESS": "1",
            "SCANBOOK_HOME": str(runtime.project_root()),
            "SCANBOOK_DATA": str(runtime.data_dir()),
            "SCANBOOK_STORE": str(runtime.store_dir()),
            "SCANBOOK_REPORTS": str(runtime.reports_dir()),
            runtime.NOTEBOOK: notebook,
            kernel.ROOM: short,
            "TMPDIR": os.environ.get("TMPDIR", short),  # what a kernel leaves there goes with its room
            "IPYTHONDIR": f"{short}/ipython",
        }
        try:
            yield short
        finally:
            os.environ.clear()
            os.environ.update(before)


def _one_line(batch: Batch, name: str, failure: Failure, folder: Path) -> str:
    waiting = [each for each in suite.after(name) if not batch.fresh(each)]
    not_run = f"; not run because of it: {', '.join(waiting)}" if waiting else ""
    return f"{batch.label}/{name} failed in {failure.place}: {failure.sentence} (see {folder / REPORT}{not_run})"


def _commit() -> str:
    """Commit of the project's code, marked when files differ from it; empty outside version control."""
    command = ["git", "-C", str(runtime.project_root()), "describe", "--always", "--dirty=+changes", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
