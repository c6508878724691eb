"""What papermill, rendering and start-up cost: `make reports` of the default study, beside its cells' own time."""

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

from benchmarks.contests import Row
from scanbook import runtime
from scanbook.errors import RunError
from scanbook.reporting import suite
from scanbook.reporting.records import METRICS, read_json
from scanbook.runner.execute import NOTEBOOK

STUDY, PROFILE = "synthetic", "quick"
_NOT_OURS = ("MAKE", "MFLAGS", "SCANBOOK_", "KERAS_HOME")
"""Variables of the caller that would change what is run."""
LIMIT = 1800
"""Seconds that `make reports` may take."""
ROW = Row(
    "reports",
    "papermill, rendering and start-up of make reports, all of the default study",
    *("outside the cells", "inside the cells", "s", len(suite.NOTEBOOKS), "ours / other", 0.35, "≤"),
    note="One run: the command's time outside the cells over the time inside them, of the seven notebooks together.",
)


def run(folder: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Runs `make reports` of the default study, one notebook at a time, into an empty folder with an empty store.

    Args:
        folder: Where reports and store go.
        environment: Further variables.

    Returns:
        As `measured`.

    Raises:
        RunError: `make` is not there, fails or takes too long.
    """
    if not shutil.which("make"):
        raise RunError("there is no make on this machine; install GNU Make")
    before = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_OURS)}
    own = {"SCANBOOK_REPORTS": str(folder / "reports"), "SCANBOOK_STORE": str(folder / "store")}
    command = ["make", "--no-print-directory", "reports", "JOBS=1", f"STUDY={STUDY}", f"PROFILE={PROFILE}"]
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=runtime.project_root(),
        env={**before, **environment, **own},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that its kernels can be ended with it
    ) as done:
        try:
            _, errors = done.communicate(timeout=LIMIT)
        except BaseException as error:
            os.killpg(done.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RunError(f"make reports did not end within {LIMIT} s") from error
            raise
    wall = time.perf_counter() - started
    if done.returncode:
        said = [line for line in errors.splitlines() if line.startswith("scanbook:")] or errors.splitlines()
        raise RunError(f"make reports failed: {(said or ['no message'])[-1]}")
    return measured(folder / "reports" / STUDY / PROFILE, wall)


def measured(folder: Path, wall: float) -> dict[str, Any]:
    """What a run of all notebooks left, as a row of the table has it.

    Args:
        folder: Reports of a study's profile, whole.
        wall: Seconds that the command took in all.

    Returns:
        `ratio`, all time outside the cells over all time inside them; `low` and `high`, the same, since it runs once;
        `medians`, here the two sums; and `notebooks`, seconds inside the cells and in all, by notebook.

    Raises:
        RunError: A report is missing.
    """
    notebooks = {}
    for name in suite.NOTEBOOKS:
        facts = read_json(folder / name / METRICS)
        if not facts:
            raise RunError(f"make reports left no whole report in {folder / name}")
        notebooks[name] = {"cells": inside(folder / name / NOTEBOOK), "seconds": facts["seconds"]}
    cells = sum(each["cells"] for each in notebooks.values())
    ratio = (wall - cells) / cells
    return {
        "ratio": ratio,
        "low": ratio,
        "high": ratio,
        "ratios": [ratio],
        "medians": {"ours": wall - cells, "other": cells},
        "memory": max(read_json(folder / name / METRICS)["peak memory (GiB)"] for name in notebooks),
        "notebooks": notebooks,
    }


def inside(notebook: Path) -> float:
    """Seconds that the cells of an executed notebook ran, as papermill noted them."""
    cells = nbformat.read(notebook, as_version=4).cells
    return sum(cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in cells if cell.cell_type == "code")
