"""The pages above the reports: `reports/index.html`, and for every study and profile its story and its checklists."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from scanbook import runtime, store
from scanbook.reporting import checklist, records, summary
from scanbook.reporting.report import environment
from scanbook.runner import locks

SWEEP = "sweep"
"""Folder of a sweep among a study's reports."""


def write() -> Path:
    """Writes the pages anew from what lies in the reports folder.

    Returns:
        Path of the index.
    """
    folder = runtime.reports_dir()
    with locks.hold(folder / ".index.lock"):  # whoever reads last writes last
        runs = records.runs(folder)
        told = []
        for run in runs:
            try:
                written = {"index.html": summary.page(run), "checklist.html": checklist.page(run)}
                told.append((run, summary.accuracy(run)))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                # what a notebook recorded is what its cells say; one run must not cost all others their pages
                cause = f"{type(error).__name__}: {error}"
                print(
                    f"{run.place}: left out of the index, since its notebooks recorded what this version of scanbook "
                    f"does not know ({cause}); remove {run.folder}, or run it again with make reports",
                    file=sys.stderr,
                )
                continue
            for name, text in written.items():
                store.atomic_write(run.folder / name, text)
        page = environment().get_template("index.html.j2")
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        bench = (folder / "bench/performance.html").is_file()
        sweeps = sorted(each.parent.relative_to(folder) for each in folder.glob(f"*/*/{SWEEP}/index.html"))
        store.atomic_write(folder / "index.html", page.render(told=told, made=made, sweeps=sweeps, bench=bench))
    return folder / "index.html"
