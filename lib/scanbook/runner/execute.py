"""Runs one notebook: papermill, then the report, then `metrics.json`, whose presence means that the run is whole."""

from __future__ import annotations

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
from nbclient.exceptions import DeadKernelError

from scanbook import runtime, store
from scanbook.errors import RunError
from scanbook.processes import Peak
from scanbook.runner import index, locks, order, report
from scanbook.runner.failure import Failure
from scanbook.runner.freshness import FAILURE, METRICS, REPORT, Batch, read_json
from scanbook.runner.kernel import engine_arguments, memory_below

NOTEBOOK = "notebook.ipynb"
OWN_FILES = (METRICS, REPORT, FAILURE, NOTEBOOK, "results.json", "measurements.json")
OWN_FOLDERS = ("tables", "figures")


class Follower:
    """Says where a running notebook is: papermill calls it as each cell starts.

    Attributes:
        section: The last heading passed.
        cell: Number of the code cell that runs, as Jupyter counts them in brackets.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.section = ""
        self.cell = 0
        self._say = say

    def __call__(self, cell: Any, cell_index: int) -> None:
        """Notes the cell; a heading becomes the section, and a line on the terminal."""
        if cell.cell_type == "code":
            self.cell += bool(cell.source.strip())
            return
        headings = re.findall(r"^#{2,3} +(.+)", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            self.section = headings[-1].strip()
            self._say(self.section)

    def failure(self, kind: str, message: str) -> Failure:
        """An exception at the place reached."""
        return Failure(kind, message, self.section, self.cell)


def run(batch: Batch, name: str) -> Path:
    """Runs a notebook into its report.

    Args:
        batch: Study, profile and data.
        name: The notebook.

    Returns:
        Path of the report.

    Raises:
        RunError: The notebook failed; its report is then a page that says where and why.
    """
    order.path(name)
    folder = batch.folder / name
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{name} {time.perf_counter() - started:4.0f} s] {text}", flush=True)

    waiting = locks.hold(folder / ".lock", on_wait=lambda: say("waiting for another run of this notebook"))
    with waiting as waited:
        if waited and batch.fresh(name):
            say("the other run left a fresh report; nothing to do")
            return folder / REPORT
        # in the smallest profile its figures mean nothing, and need no machine to themselves
        alone = name == order.ALONE and batch.study.profile != "smoke"
        with locks.machine(alone, on_wait=lambda: say("waiting for the machine")):
            started = time.perf_counter()
            _run(batch, name, folder, say)
    return folder / REPORT


def _run(batch: Batch, name: str, folder: Path, say: Callable[[str], None]) -> None:
    _clear(folder)
    stale = batch.stale()
    say(f"starts: {batch.study.study}/{batch.study.profile}, {len(stale)} of {len(order.NOTEBOOKS)} notebooks to go")
    facts = {
        "notebook": name,
        "title": order.title(name),
        "study": batch.study.resolved(),
        "overrides": batch.overrides,
        "fingerprints": batch.fingerprints(name),
        "versions": runtime.versions(),
        "hardware": runtime.describe_machine(),
        "commit": _commit(),
    }
    follower = Follower(say)
    clock = time.perf_counter()
    peak, failure = _execute(batch, name, folder, follower)
    facts |= {
        "seconds": round(time.perf_counter() - clock, 2),
        "peak memory (GiB)": round(peak, 3),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if not failure and not (folder / "results.json").is_file():
        failure = follower.failure("RunError", "the notebook recorded no results; its last cell must call finish()")
    store.atomic_write(folder / REPORT, report.render(folder / NOTEBOOK, facts, failure))
    if failure:
        store.write_json(folder / FAILURE, facts | {"failure": asdict(failure), "sentence": failure.sentence})
        index.write()
        raise RunError(_one_line(batch, name, failure, folder))
    results = {key: read_json(folder / f"{key}.json") for key in ("results", "measurements")}
    store.write_json(folder / METRICS, facts | results)
    page = index.write()
    store.prune(runtime.store_limit())
    left = len(batch.stale())
    say(f"done, peak memory {peak:.1f} GiB: {folder / REPORT}")
    say(f"{left} of {len(order.NOTEBOOKS)} to go" if left else f"all {len(order.NOTEBOOKS)} reports are whole: {page}")


def _clear(folder: Path) -> None:
    """Removes what an earlier run left, `metrics.json` first: from then on the old report counts no more."""
    for file in OWN_FILES:
        (folder / file).unlink(missing_ok=True)
    for each in OWN_FOLDERS:
        shutil.rmtree(folder / each, ignore_errors=True)


def _execute(batch: Batch, name: str, folder: Path, follower: Follower) -> tuple[float, Failure | None]:
    """Runs the cells. Returns peak memory in GiB, and what went wrong."""
    study = batch.study
    parameters = {"STUDY": study.study, "PROFILE": study.profile, "DATA": study.data, "SET": batch.overrides}
    with _surroundings() as short, Peak(memory_below, 0.25) as memory:
        try:
            papermill.execute_notebook(
                order.path(name),
                folder / NOTEBOOK,
                parameters,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                cwd=runtime.project_root(),
                on_cell_start=follower,
                **engine_arguments(short),
            )
        except papermill.PapermillExecutionError as error:
            return memory.value, follower.failure(error.ename, error.evalue)
        except DeadKernelError as error:
            message = (
                "the kernel died (out of memory is the usual cause) "
                f"at cell {follower.cell}, peak {memory.value:.1f} GiB"
            )
            return memory.value, follower.failure(type(error).__name__, message)
    return memory.value, None


@contextmanager
def _surroundings() -> Iterator[str]:
    """Environment of a kernel that heeds no user's Jupyter or IPython settings; yields a folder with a short name."""
    base = "/tmp" if os.access("/tmp", os.W_OK) else None
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="scanbook-", dir=base) as short:
        os.environ |= {
            "SCANBOOK_HEADLESS": "1",
            "SCANBOOK_HOME": str(runtime.project_root()),
            "SCANBOOK_DATA": str(runtime.data_dir()),
            "SCANBOOK_STORE": str(runtime.store_dir()),
            "SCANBOOK_REPORTS": str(runtime.reports_dir()),
            "JUPYTER_RUNTIME_DIR": short,
            "IPYTHONDIR": f"{short}/ipython",
        }
        try:
            yield short
        finally:
            os.environ.clear()
            os.environ.update(before)


def _one_line(batch: Batch, name: str, failure: Failure, folder: Path) -> str:
    stale = batch.stale()
    waiting = [each for each in order.after(name) if each in stale]
    not_run = f"; not run because of it: {', '.join(waiting)}" if waiting else ""
    return f"{name} failed in {failure.place}: {failure.sentence} (see {folder / REPORT}{not_run})"


def _commit() -> str:
    """Commit of the project's code, marked when files differ from it; empty outside version control."""
    command = ["git", "-C", str(runtime.project_root()), "describe", "--always", "--dirty=+changes", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
