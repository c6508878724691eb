"""The pages above the reports: `reports/index.html`, and for every study and profile its story and its checklists."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from scanbook import runtime, store
from scanbook.runner import checklist, locks, recorded, story
from scanbook.runner.report import environment


def write() -> Path:
    """Writes the pages anew from what lies in the reports folder.

    Returns:
        Path of the index.
    """
    folder = runtime.reports_dir()
    with locks.hold(folder / ".index.lock"):  # whoever reads last writes last
        runs = recorded.runs(folder)
        for run in runs:
            store.atomic_write(run.folder / "index.html", story.page(run))
            store.atomic_write(run.folder / "checklist.html", checklist.page(run))
        page = environment().get_template("index.html.j2")
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        told = [(run, story.accuracy(run)) for run in runs]
        bench = (folder / "bench" / "performance.html").is_file()
        store.atomic_write(folder / "index.html", page.render(told=told, made=made, bench=bench))
    return folder / "index.html"
