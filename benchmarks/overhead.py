"""Cost of papermill, rendering and start-up: time of `make reports` outside the cells of the default study."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

from benchmarks.comparisons import Row
from scanbook import runtime
from scanbook.errors import RunError
from scanbook.reporting import suite
from scanbook.reporting.records import METRICS, read_json
from scanbook.runner.execute import NOTEBOOK

STUDY, PROFILE = "synthetic", "quick"
_REMOVED = ("MAKE", "MFLAGS", "SCANBOOK_", "KERAS_HOME")
"""Variables of the caller that would change the run."""
LIMIT = 1800
"""Most seconds that `make reports` may take."""
ROW = Row(
    "reports",
    "papermill, rendering and start-up of make reports, all notebooks of the default study",
    *("outside the cells", "inside the cells", "s", len(suite.NOTEBOOKS), "scanbook / baseline", 0.35, "≤"),
    note="One run: the command's time outside the cells over the time inside them, of the seven notebooks together.",
)


def run(folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Run `make reports` of the default study, one notebook at a time, into an empty folder with an empty store.

    Args:
        folder: Folder of reports and store.
        environment: Further variables.

    Returns:
        As `summary`.

    Raises:
        RunError: `make` is missing, fails or takes too long.
    """
    if not shutil.which("make"):
        raise RunError("make is not installed on this machine; install GNU Make")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(_REMOVED)}
    folders = {"SCANBOOK_REPORTS": str(folder / "reports"), "SCANBOOK_STORE": str(folder / "store")}
    command = ["make", "--no-print-directory", "reports", "JOBS=1", f"STUDY={STUDY}", f"PROFILE={PROFILE}"]
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=runtime.project_root(),
        env={**inherited, **environment, **folders},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its kernels end with it
    ) as process:
        try:
            _, errors = process.communicate(timeout=LIMIT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RunError(f"make reports did not end within {LIMIT} s") from error
            raise
    wall = time.perf_counter() - started
    if process.returncode:
        lines = [line for line in errors.splitlines() if line.startswith("scanbook:")] or errors.splitlines()
        raise RunError(f"make reports failed: {(lines or ['no message'])[-1]}")
    return summary(folder / "reports" / STUDY / PROFILE, wall)


def summary(folder: Path, wall: float) -> dict[str, Any]:
    """Return the figures of a run of all notebooks.

    Args:
        folder: Reports of a study's profile, whole.
        wall: Seconds of the command.

    Returns:
        `ratio`, all time outside the cells over all time inside them; `low` and `high`, the same, since it runs once;
        `medians`, here the two sums; and `notebooks`, seconds inside the cells and in total, by notebook.

    Raises:
        RunError: A report is missing.
    """
    notebooks = {}
    for name in suite.NOTEBOOKS:
        facts = read_json(folder / name / METRICS)
        if not facts:
            raise RunError(f"make reports left no whole report in {folder / name}")
        notebooks[name] = {"cells": cell_seconds(folder / name / NOTEBOOK), "seconds": facts["seconds"]}
    cells = sum(times["cells"] for times in notebooks.values())
    ratio = (wall - cells) / cells
    return {
        "ratio": ratio,
        "low": ratio,
        "high": ratio,
        "ratios": [ratio],
        "medians": {"scanbook": wall - cells, "baseline": cells},
        "memory": max(read_json(folder / name / METRICS)["peak memory (GiB)"] for name in notebooks),
        "notebooks": notebooks,
    }


def cell_seconds(notebook: Path) -> float:
    """Return the seconds of the cells of an executed notebook, as papermill recorded them."""
    cells = nbformat.read(notebook, as_version=4).cells
    return sum(cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in cells if cell.cell_type == "code")
