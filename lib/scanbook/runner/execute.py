"""Run one notebook: papermill, then the report, then `metrics.json`, whose presence means that the run is whole."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from scanbook.reporting.records import (
    FAILURE,
    HISTORY,
    METRICS,
    NOTEBOOK,
    PREDICTIONS,
    REPORT,
    TRAINED_ON,
    read_json,
)
from scanbook.runner import index, kernel, locks, memory, tracking
from scanbook.runner.freshness import PAGE, Batch
from scanbook.runner.origin import commit
from scanbook.runner.progress import INTERVAL, LIVE, PREVIOUS, RUNNING, Progress, screen
from scanbook.runner.progress import read as read_progress
from scanbook.runtime import steps
from scanbook.runtime.processes import Peak, interruptible, with_malloc

# papermill logs the death of a kernel, which our error line reports too; without a handler it would be printed twice
logging.getLogger("papermill").addHandler(logging.NullHandler())

QUIET = 15.0
"""Seconds in one section after which a line says again how far a notebook is."""


class Follower:
    """Follows a running notebook: papermill calls it when a cell starts, and a thread calls its method `memory`.

    Args:
        folder: Folder of the report.
        progress: How far the notebook is.
        print_line: Prints how far it is: for each section, and again after `QUIET` seconds in one.

    Attributes:
        progress: How far the notebook is.
    """

    def __init__(self, folder: Path, progress: Progress, print_line: Callable[[str], None]) -> None:
        self.progress = progress
        self._folder, self._print_line = folder, print_line
        self._written = 0.0
        self._printed = time.monotonic()

    def __call__(self, cell: Any, cell_index: int) -> None:
        """Count a code cell; store a heading as the current section and print it on the terminal."""
        if cell.cell_type == "code":
            self.progress.cell += bool(cell.source.strip())
            return
        headings = re.findall(r"^#{2,3} +(.+)", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and headings:
            self.progress.section, self.progress.steps = headings[-1].strip(), ""
            self._print_place()

    def memory(self) -> float:
        """Return the memory of the kernel and its children, in GiB; every second, read and write the progress."""
        self.progress.memory = memory.memory_below()
        now = time.monotonic()
        if now - self._written >= INTERVAL:
            self._written = now
            self.progress.steps = steps.describe(steps.read(Path(self.progress.kernel_folder) / kernel.STEPS))
            self.progress.write(self._folder)
            if now - self._printed >= QUIET:
                with suppress(OSError):  # nobody reads any more, which stops the run at its next section
                    self._print_place()
        return self.progress.memory

    def _print_place(self) -> None:
        self._printed = time.monotonic()
        self._print_line(self.progress.place)

    def failure(self, kind: str, message: str) -> Failure:
        """Return a failure at the place reached."""
        return Failure(kind, message, self.progress.section, self.progress.cell)


def run(batch: Batch, name: str, if_stale: bool = False) -> Path:
    """Run a notebook into its report.

    Args:
        batch: Study, profile and data.
        name: The notebook.
        if_stale: Whether to run only if the report is still stale; where only its page is, it is rendered again.

    Returns:
        Path of the report.

    Raises:
        RunError: The notebook failed; its report is then a page with the reason and the place.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP; no process of the kernel remains.
    """
    suite.path(name)
    limit = runtime.store_limit()  # a wrong one is an error before anything runs
    folder = batch.folder / name
    started = time.perf_counter()
    quiet = bool(os.environ.get(LIVE))

    def report_line(text: str, passing: bool = False) -> None:
        if not (passing and (quiet or terminal.live)):
            terminal.print(f"[{batch.label}/{name} {time.perf_counter() - started:4.0f} s] {text}")

    with interruptible(), locks.writing(folder), screen([folder], quiet=quiet) as terminal:
        lock = locks.hold(folder / ".lock", on_wait=lambda: report_line("waiting for another run of this notebook"))
        with lock as waited:
            batch = batch.refreshed()
            if (waited or if_stale) and batch.fresh(name):
                report_line("another run left a fresh report; nothing to do")
                return folder / REPORT
            if if_stale and batch.only_page_changed(name):
                _render_again(batch, name, folder)
                report_line(f"rendered again from its executed notebook: {folder / REPORT}")
                return folder / REPORT
            # smoke measures too little for meaningful times, so other notebooks may run beside the benchmark
            alone = name == suite.BENCHMARK and batch.study.profile != "smoke"
            with locks.machine(alone, on_wait=lambda: report_line("waiting for the machine")):
                started = time.perf_counter()
                _run(batch.refreshed(), name, folder, report_line)
            if logged := tracking.log(folder):
                report_line(logged)
        store.prune(limit)
    return folder / REPORT


def _run(batch: Batch, name: str, folder: Path, report_line: Callable[..., None]) -> None:
    _end_killed_run(folder)
    _clear(folder)
    expected = read_json(folder / PREVIOUS).get("seconds")
    message = f"starts: {f'the last run took {runtime.duration(expected)}' if expected else 'its first run'}"
    report_line(message, passing=True)
    facts = {
        "notebook": name,
        "title": suite.title(name),
        "study": batch.study.resolved(),
        "overrides": batch.overrides,
        "data": batch.study.data,
        **({"bundle": batch.bundle} if batch.bundle else {}),
        "fingerprints": batch.fingerprints(name),
        "versions": runtime.versions(),
        "hardware": runtime.describe_machine(),
        "commit": commit(),
    }
    progress = Progress(f"{batch.label}/{name}", expected=expected)
    follower = Follower(folder, progress, lambda place: report_line(place, passing=True))
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
    results = {key: read_json(folder / f"{key}.json") for key in ("results", "measurements")}
    facts["hardware"] |= {TRAINED_ON: "; ".join(results["measurements"].get(TRAINED_ON, []))}
    store.atomic_write(folder / REPORT, report.render(folder / NOTEBOOK, facts, failure))
    if failure:
        store.write_json(folder / FAILURE, facts)
        index.write()
        raise RunError(_error_line(batch, name, failure, folder))
    store.write_json(folder / METRICS, facts | results)
    index.write()
    report_line(f"done, peak memory {peak:.1f} GiB: {folder / REPORT}")


def _render_again(batch: Batch, name: str, folder: Path) -> None:
    """Write the page of a whole run again; what it recorded stays."""
    facts = read_json(folder / METRICS)
    store.atomic_write(folder / REPORT, report.render(folder / NOTEBOOK, facts, None))
    store.write_json(folder / METRICS, facts | {"fingerprints": facts["fingerprints"] | {PAGE: batch.code.page}})
    index.write()


def _end_killed_run(folder: Path) -> None:
    """End the kernel of a runner that was killed, and remove its folder; the caller must hold the folder's lock."""
    previous = read_progress(folder)
    # the file may hold anything, and no other folder is removed because of it
    if previous and Path(previous.kernel_folder).name.startswith(kernel.PREFIX):
        kernel.end(previous.kernel_folder)
        shutil.rmtree(previous.kernel_folder, ignore_errors=True)
    (folder / RUNNING).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove the files of an earlier run, `metrics.json` first: without it the old report is no longer whole."""
    if (folder / METRICS).is_file():
        os.replace(folder / METRICS, folder / PREVIOUS)
    for file in (METRICS, REPORT, FAILURE, NOTEBOOK, "results.json", "measurements.json", PREDICTIONS, HISTORY):
        (folder / file).unlink(missing_ok=True)
    for name in ("tables", "figures"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _execute(batch: Batch, name: str, folder: Path, follower: Follower) -> tuple[float, Failure | None]:
    """Run the cells; return the peak memory in GiB, and what failed."""
    study = batch.study
    parameters = {"STUDY": study.study, "PROFILE": study.profile, "DATA": study.data, "SET": batch.overrides}
    if suite.takes(name, "BUNDLE"):
        parameters["BUNDLE"] = batch.bundle
    kills = memory.kills()

    def failure(cause: str, hint: str) -> tuple[float, Failure]:
        place = f"{cause} at cell {follower.progress.cell}, peak {peak.value:.1f} GiB"
        return peak.value, follower.failure(RunError.__name__, f"{place}; {hint}")

    with _kernel_environment(name) as own, interruptible(lambda: kernel.end(own)):
        follower.progress.kernel_folder = own
        follower.progress.write(folder)  # before the kernel starts: if this run is killed, the next one must find it
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
                    **kernel.engine_arguments(own),
                )
        except papermill.PapermillExecutionError as error:
            if error.ename in memory.EXHAUSTED:
                return failure("out of memory", memory.advice(study))
            return peak.value, follower.failure(error.ename, error.evalue)
        except DeadKernelError:
            cause = kernel.death(memory.kills() > kills)
            return failure(cause, _hint(cause, study))
        except (CellTimeoutError, RuntimeError) as error:  # Jupyter's, of a kernel that does not start or answer
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            return failure(f"the kernel does not answer ({reason})", "run one notebook at a time (JOBS=1)")
        finally:
            kernel.end(own)  # processes that outlived it
            (folder / RUNNING).unlink(missing_ok=True)
    return peak.value, None


def _hint(cause: str, study: Study) -> str:
    """Return what to do about a kernel that died."""
    if "memory" in cause:
        return memory.advice(study)
    if "disk" in cause:
        return "make room, or set SCANBOOK_STORE to another folder"
    return "run it again; if it fails again, run the notebook's cells one by one (make lab) to find the call that fails"


@contextmanager
def _kernel_environment(notebook: str) -> Iterator[str]:
    """Set the environment of a kernel that ignores a user's Jupyter and IPython settings; yield its own folder."""
    base = "/tmp" if os.access("/tmp", os.W_OK) else None
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix=kernel.PREFIX, dir=base) as own:
        os.environ |= {
            **with_malloc(),
            "SCANBOOK_HEADLESS": "1",
            "SCANBOOK_HOME": str(runtime.project_root()),
            "SCANBOOK_DATA": str(runtime.data_dir()),
            "SCANBOOK_STORE": str(runtime.store_dir()),
            "SCANBOOK_REPORTS": str(runtime.reports_dir()),
            runtime.NOTEBOOK: notebook,
            kernel.FOLDER: own,
            steps.FILE: f"{own}/{kernel.STEPS}",
            "TMPDIR": os.environ.get("TMPDIR", own),  # temporary files are removed with the kernel's folder
            "IPYTHONDIR": f"{own}/ipython",
        }
        try:
            yield own
        finally:
            os.environ.clear()
            os.environ.update(before)


def _error_line(batch: Batch, name: str, failure: Failure, folder: Path) -> str:
    waiting = [later for later in suite.after(name) if not batch.fresh(later)]
    not_run = f"; not run because of it: {', '.join(waiting)}" if waiting else ""
    return f"{batch.label}/{name} failed in {failure.place}: {failure.sentence} (see {folder / REPORT}{not_run})"
