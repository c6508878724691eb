"""Real faults stop a run: after each, one more `make reports` has the results of an undisturbed one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from helpers.processes import has_ended
from helpers.projects import ROOT, make_project, write_notebook
from scanbook import config
from scanbook.reporting import suite
from scanbook.reporting.records import FAILURE, METRICS, REPORT
from scanbook.runner import progress
from scanbook.runner.freshness import Batch

pytestmark = pytest.mark.slow

NAME = "01_eda"
SETUP = f"""
import ctypes, json, os, pathlib, subprocess, sys, time
import numpy as np
from scanbook import store
folder = pathlib.Path(os.environ["SCANBOOK_REPORTS"]) / STUDY / PROFILE / "{NAME}"
gate = pathlib.Path(os.environ["SCANBOOK_HOME"]) / "gate"
def wait(place=gate):
    while place.exists():
        time.sleep(0.02)
"""
RECORD = '(folder / "results.json").write_text(json.dumps({"answer": 42}))'
MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
"""Variables through which `make check` controls a Make that a test starts."""
HELPER = 'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)'


class Project:
    """A small project of which one notebook is stale, and what is run and left there."""

    def __init__(self, folder: Path) -> None:
        self.home = make_project(folder / "home")
        self.reports, self.store = folder / "reports", folder / "store"
        self.folder = self.reports / "synthetic" / "smoke" / NAME
        self.gate = self.home / "gate"
        own = {"HOME": self.home, "REPORTS": self.reports, "STORE": self.store, "PROFILE": "smoke"}
        around = {key: value for key, value in os.environ.items() if key not in MAKE}
        self.environment = around | {f"SCANBOOK_{key}": str(value) for key, value in own.items()}

    def notebook(self, *steps: str, name: str = NAME) -> None:
        write_notebook(self.home, name, SETUP.replace(NAME, name), *steps)

    def make_fresh(self, *stale: str) -> None:
        """Make the reports of all notebooks except some look fresh."""
        with pytest.MonkeyPatch.context() as patch:
            for key, value in self.environment.items():
                patch.setenv(key, value)
            batch = Batch(config.load("synthetic"))
            for name in set(suite.NOTEBOOKS) - {*stale}:
                folder = batch.folder / name
                folder.mkdir(parents=True)
                (folder / REPORT).write_text("")
                facts = {"title": name, "study": batch.study.resolved(), "seconds": 1, "peak memory (GiB)": 1}
                facts |= {"finished": "2026-01-02T03:04:05", "fingerprints": batch.fingerprints(name), "results": {}}
                (folder / METRICS).write_text(json.dumps(facts))

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "scanbook.cli", *words]
        heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs ignore
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=self.environment, preexec_fn=heard, **pipes)  # noqa: PLW1509  no thread here

    def run(self, *words: str) -> tuple[int, str, list[str]]:
        """Status, output, and lines of the error stream of a command."""
        process = self.start(*(words or ("run", NAME)))
        out, errors = process.communicate(timeout=120)
        return process.returncode, out, errors.splitlines()

    def whole(self) -> bool:
        """Whether the report is whole, with the results of an undisturbed run, and nothing is left of others."""
        metrics = json.loads((self.folder / METRICS).read_text())
        assert metrics["results"] == json.loads((self.folder / "results.json").read_text()) == {"answer": 42}
        assert (self.folder / REPORT).is_file() and not (self.folder / FAILURE).exists()
        assert not (self.folder / progress.RUNNING).exists() and self.processes() == []
        return True

    def failed(self, word: str) -> str:
        """The one line of a run that fails, with a word in it; no traceback, no whole report."""
        status, out, errors = self.run()
        assert status == 1 and len(errors) == 1 and errors[0].startswith("scanbook: "), errors
        assert word in errors[0] and "Traceback" not in out
        assert not (self.folder / METRICS).exists()
        return errors[0]

    def processes(self) -> list[psutil.Process]:
        """Those of this project that still run."""
        running = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                own = process.environ().get("SCANBOOK_HOME") == str(self.home)
                if own and process.status() != psutil.STATUS_ZOMBIE:
                    running.append(process)
        return running

    def section(self) -> str:
        at = progress.read(self.folder)
        return at.section if at else ""

    def kernel_folder(self) -> str:
        at = progress.read(self.folder)
        return at.kernel_folder if at else ""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    for process in made.processes():
        with contextlib.suppress(psutil.Error):
            process.kill()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_a_runner_that_is_killed_at_any_moment_leaves_no_kernel_and_no_report(project: Project) -> None:
    last = project.home / "last gate"
    project.notebook(HELPER, "wait()", RECORD, f"wait(pathlib.Path({str(last)!r}))")
    moments = {
        "before the kernel": (project.folder / progress.RUNNING).exists,
        "in a cell": lambda: project.section().startswith("3."),
        "with results written": (project.folder / "results.json").exists,
    }
    last.touch()
    for moment, reached in moments.items():
        before = project.kernel_folder()
        if moment == "with results written":
            project.gate.unlink()
        else:
            project.gate.touch()
        runner = project.start("run", NAME)
        wait_for(lambda before=before, reached=reached: project.kernel_folder() != before and reached())
        kernels = [process for process in project.processes() if "ipykernel_launcher" in " ".join(process.cmdline())]
        runner.kill()
        assert kernels or moment == "before the kernel"
        assert all(has_ended(kernel.pid) for kernel in kernels), moment
        assert not (project.folder / METRICS).exists()
        runner.communicate()
    left = progress.read(project.folder)
    assert left and Path(left.kernel_folder).is_dir() and project.processes(), "what the kernel started outlives it"
    last.unlink()
    assert project.run()[0] == 0
    assert project.whole() and not Path(left.kernel_folder).exists()


def test_make_reports_goes_on_after_its_own_processes_were_killed(project: Project) -> None:
    project.notebook("wait()", RECORD)
    project.make_fresh(NAME)
    project.gate.touch()
    with project.start("reports") as first:
        wait_for(lambda: project.section().startswith("2."))
        first.kill()
    second = project.start("reports")
    project.gate.unlink()
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 0 and f"all {len(suite.NOTEBOOKS)} reports are whole" in errors
    wait_for(lambda: not project.processes())
    assert project.whole()


def test_two_make_reports_at_once_run_each_notebook_once(project: Project) -> None:
    log = project.home / "log"
    for name in ("05_fine_tuning", NAME):
        project.notebook(f'open({str(log)!r}, "a").write("{name} ")', RECORD, name=name)
    project.make_fresh(NAME, "05_fine_tuning")
    both = [project.start("reports", "--jobs", "2") for _ in range(2)]
    messages = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], messages
    assert log.read_text().split() == [NAME, "05_fine_tuning"]
    assert all(f"all {len(suite.NOTEBOOKS)} reports are whole" in message for message in messages) and project.whole()


@pytest.mark.parametrize("way", ["SIGINT to the command", "SIGTERM to make"])
def test_ctrl_c_stops_every_kernel(way: str, project: Project) -> None:
    for name in suite.NOTEBOOKS[1:3]:
        project.notebook(HELPER, "wait()", "while True: pass", name=name)
    project.make_fresh(*suite.NOTEBOOKS[1:3])
    project.gate.touch()
    if way == "SIGTERM to make":
        command = ["make", "-C", str(ROOT), "--no-print-directory", "reports", "JOBS=2"]
        words = {"env": project.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process, number = subprocess.Popen(command, **words), signal.SIGTERM
    else:
        process, number = project.start("reports", "--jobs", "2"), signal.SIGINT
    places = [project.folder.with_name(name) for name in suite.NOTEBOOKS[1:3]]
    wait_for(lambda: all((at := progress.read(place)) and at.section.startswith("3.") for place in places))
    process.send_signal(number)
    process.send_signal(number)  # of an impatient user; what puts things away goes on
    _, errors = process.communicate(timeout=60)
    assert project.processes() == []
    own = [line for line in errors.splitlines() if not line.startswith("make: ")]
    assert f"2 of {len(suite.NOTEBOOKS)} notebooks to run" in own[-2] and own[-1] == "scanbook: interrupted", own
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert not any((place / METRICS).exists() or (place / progress.RUNNING).exists() for place in places)


def test_a_reader_that_stops_stops_the_runs(project: Project) -> None:
    """As `make reports | head -1` does."""
    project.notebook("wait()", "print(1)", RECORD)
    project.make_fresh(NAME)
    project.gate.touch()
    process = project.start("reports")
    assert "starts" in process.stdout.readline()
    process.stdout.close()
    project.gate.unlink()
    errors = process.stderr.read()
    assert process.wait(60) == 1 and "Traceback" not in errors
    assert project.processes() == []


def test_the_report_names_a_kernel_that_does_not_start(project: Project) -> None:
    project.notebook(RECORD)
    broken = project.home / "broken" / "ipykernel_launcher.py"
    broken.parent.mkdir()
    broken.write_text("raise SystemExit(3)")
    whole = project.environment
    project.environment = whole | {"PYTHONPATH": str(broken.parent)}
    line = project.failed("the kernel does not answer")
    assert "JOBS=1" in line and "the kernel does not answer" in (project.folder / REPORT).read_text()
    project.environment = whole
    assert project.run()[0] == 0 and project.whole()


@contextlib.contextmanager
def disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A small disk of its own at a folder; the function that it gives changes its mount options."""
    folder.mkdir()

    def mount(options: str) -> str:
        """What keeps it from being mounted, "" for nothing."""
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.stderr.strip() or "no reason given" if done.returncode else ""

    def change(options: str) -> None:
        assert mount(f"remount,{options}") == ""

    if refused := mount(f"size={size}"):
        pytest.skip(f"a small disk cannot be mounted here, as root can elsewhere ({refused})")
    try:
        yield change
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_or_read_only_reports_folder_is_one_line(project: Project) -> None:
    project.notebook('(folder / "table.csv").write_bytes(bytes(3 * 2**20)) if gate.exists() else None', RECORD)
    with disk(project.reports, "1m") as mount:
        mount("ro")
        line = project.failed("Read-only file system")
        assert str(project.reports) in line and "SCANBOOK_REPORTS" in line
        mount("rw")
        project.gate.touch()  # the notebook fills it
        project.failed("No space left on device")
        filler = project.reports / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            file.write(bytes(2**21))
        line = project.failed("No space left on device")  # it is full from the start
        assert str(project.reports) in line and "SCANBOOK_REPORTS" in line
        filler.unlink()
        project.gate.unlink()
        mount("size=8m")
        assert project.run()[0] == 0 and project.whole()


def test_a_full_store_is_one_line(project: Project) -> None:
    save = 'np.save(work / "a.npy", np.zeros(10**6))'
    project.notebook(f'store.stage("demo", {{}}, lambda work: {save}, "scanbook.errors")', RECORD)
    with disk(project.store, "1m") as mount:
        line = project.failed("cannot write the store")
        assert "SCANBOOK_STORE" in line and not list(project.store.glob("demo/*/"))
        memmap = 'np.lib.format.open_memmap(work / "a.npy", "w+", shape=(10**6,)).fill(1)'
        project.notebook(f'store.stage("demo", {{}}, lambda work: {memmap}, "scanbook.errors")', RECORD)
        assert "SCANBOOK_STORE" in project.failed("the disk was full at cell 4")
        mount("size=16m")
        assert project.run()[0] == 0 and project.whole()


def test_a_full_disk_where_nobody_may_mount_one(project: Project) -> None:
    """A limit on the size of files stands in for the disk's."""
    project.notebook('os.write(1, b"x") and (folder / "a.npy").write_bytes(bytes(2**20))', RECORD)
    limited = ["sh", "-c", 'ulimit -f 200; exec "$0" "$@"', sys.executable, "-m", "scanbook.cli", "run", NAME]
    done = subprocess.run(limited, env=project.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not (project.folder / METRICS).exists() and project.processes() == []


STAGES = """
def stage(kind, build):
    return store.stage(kind, {}, build, "scanbook.errors")
made = stage("array", lambda work: np.save(work / "a.npy", np.arange(1000)))
assert np.load(made / "a.npy", mmap_mode="r").sum() == 499500
made = stage("weights", lambda work: np.savez(work / "a.npz", np.ones(1000)))
assert np.load(made / "a.npz")["arr_0"].sum() == 1000
made = stage("history", lambda work: store.write_json(work / "a.json", {"loss": 1}))
assert json.loads((made / "a.json").read_text()) == {"loss": 1}
"""


def test_a_damaged_store_is_built_again_and_reported(project: Project) -> None:
    project.notebook(STAGES, RECORD)
    assert project.run()[0] == 0
    kinds = {made.parent.name: made for made in project.store.glob("*/*/")}
    (kinds["array"] / "a.npy").write_bytes((kinds["array"] / "a.npy").read_bytes()[:-8] + b"\1" * 8)
    os.truncate(kinds["weights"] / "a.npz", 20)
    (kinds["history"] / "a.json").write_text("{")
    assert project.run()[0] == 0 and project.whole()
    page = (project.folder / REPORT).read_text()
    assert page.count("so it is built again") == 3
    assert all(name in page for name in ("a.npy was overwritten", "a.npz holds 20 bytes", "a.json holds 1 bytes"))


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A control group with a limit of memory, in bytes."""
    first = Path("/sys/fs/cgroup/memory")  # version 1, where the system still has it
    version, base = (1, first) if first.is_dir() else (2, Path("/sys/fs/cgroup"))
    group = base / f"scanbook-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version == 1 else "memory.max")).write_text(str(limit))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"memory cannot be limited here, as root can where control groups may be made ({error})")
    try:
        yield group
    finally:
        wait_for(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_kernel_that_the_system_kills_for_memory_says_where_and_what_helps(project: Project) -> None:
    project.notebook("blocks = []", "while gate.exists(): blocks.append(np.ones(2**22))", RECORD)
    project.gate.touch()
    with memory_group(600 * 2**20) as group:
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$0" "$@"']
        words = [*enter, sys.executable, "-m", "scanbook.cli", "run", NAME]
        done = subprocess.run(words, env=project.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "out of memory at cell 5, peak 0." in done.stderr and "JOBS=1" in done.stderr
    assert "out of memory at cell 5, peak 0." in (project.folder / REPORT).read_text()
    project.gate.unlink()
    assert project.run()[0] == 0 and project.whole()


def test_an_array_too_large_and_a_crash_say_what_they_are(project: Project) -> None:
    project.notebook("np.ones((2**24, 2**24)) if gate.exists() else None", RECORD)
    project.gate.touch()
    assert "JOBS=1" in project.failed("out of memory at cell 4, peak ")
    project.notebook("ctypes.string_at(0) if gate.exists() else None", RECORD)
    assert "JOBS=1" not in project.failed("the kernel crashed in native code (SIGSEGV) at cell 4, peak ")
