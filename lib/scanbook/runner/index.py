"""The pages above the reports: `reports/index.html`, and the summary and checklists of every study and profile."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from scanbook import runtime, store
from scanbook.reporting import checklist, records, summary
from scanbook.reporting.report import environment
from scanbook.runner import locks

SWEEP = "sweep"
"""Folder of a sweep beside a study's reports."""
COMPARE = "compare"
"""Folder of the comparisons in the reports folder."""


def write() -> Path:
    """Write the pages from the contents of the reports folder.

    Returns:
        Path of the index.
    """
    folder = runtime.reports_dir()
    with locks.hold(folder / ".index.lock"):  # whoever reads last writes last
        summaries = []
        for run in records.runs(folder):
            try:
                pages = {"index.html": summary.page(run), "checklist.html": checklist.page(run)}
                summaries.append((run, summary.accuracy(run)))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                # cells record what they like; the pages of other runs must not depend on it
                cause = f"{type(error).__name__}: {error}"
                print(
                    f"{run.place}: excluded from the index, since its notebooks recorded what this version of scanbook "
                    f"does not know ({cause}); remove {run.folder}, or run it again with make reports",
                    file=sys.stderr,
                )
                continue
            for name, text in pages.items():
                store.atomic_write(run.folder / name, text)
        text = (
            environment()
            .get_template("index.html.j2")
            .render(
                summaries=summaries,
                written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
                sweeps=sorted(path.parent.relative_to(folder) for path in folder.glob(f"*/*/{SWEEP}/index.html")),
                comparisons=_comparisons(folder),
                bench=(folder / "bench/performance.html").is_file(),
            )
        )
        store.atomic_write(folder / "index.html", text)
    return folder / "index.html"


def _comparisons(folder: Path) -> dict[str, str]:
    """Return the titles of the comparisons in a reports folder, by their place in it."""
    contents = {path.parent: records.read_json(path) for path in sorted((folder / COMPARE).glob("*/results.json"))}
    return {
        place.relative_to(folder).as_posix(): str(content["title"])
        for place, content in contents.items()
        if {"title", "runs"} <= content.keys() and (place / "index.html").is_file()
    }
