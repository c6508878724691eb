"""`reports/index.html`: every study, profile and notebook at a glance."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scanbook import runtime, store
from scanbook.runner import locks, order
from scanbook.runner.freshness import FAILURE, METRICS, REPORT, read_json
from scanbook.runner.report import environment

BUNDLE = Path("07_export_flask") / "bundle"


def write() -> Path:
    """Writes the index anew from what lies in the reports folder.

    Returns:
        Its path.
    """
    folder = runtime.reports_dir()
    with locks.hold(folder / ".index.lock"):  # whoever reads last writes last
        runs = [run for each in sorted(folder.glob("*/*/")) if (run := _run(each))]
        page = environment().get_template("index.html.j2")
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        store.atomic_write(folder / "index.html", page.render(runs=runs, made=made))
    return folder / "index.html"


def _run(folder: Path) -> dict[str, Any] | None:
    """One study in one profile; None when the folder holds no run."""
    found = {each.name: _row(each) for each in sorted(folder.iterdir()) if each.is_dir()}
    found = {name: row for name, row in found.items() if row["status"]}
    if not found:
        return None
    missing = {
        name: {"name": name, "title": order.title(name), "status": ""} for name in order.NOTEBOOKS if name not in found
    }
    rows = [(found | missing)[name] for name in sorted(found | missing)]
    study = next(iter(found.values()))["study"]
    return {
        "folder": f"{folder.parent.name}/{folder.name}",
        "study": study,
        "rows": rows,
        "done": sum(row["status"] == "done" for row in rows),
        "failed": sum(row["status"] == "failed" for row in rows),
        "seconds": sum(row.get("seconds", 0) for row in rows),
        "bundle": (folder / BUNDLE).is_dir(),
    }


def _headline(facts: dict[str, Any]) -> str:
    """The key figure that a notebook recorded: among its results or, where runs differ in it, its measurements."""
    return (facts.get("measurements", {}) | facts.get("results", {})).get("headline", "")


def _row(folder: Path) -> dict[str, Any]:
    facts, status = read_json(folder / METRICS), "done"
    if not facts or not (folder / REPORT).is_file():
        facts, status = read_json(folder / FAILURE), "failed"
    if not facts:
        return {"status": ""}
    return {
        "name": folder.name,
        "title": facts["title"],
        "study": facts["study"],
        "status": status,
        "figure": facts["sentence"] if status == "failed" else _headline(facts),
        "seconds": facts["seconds"],
        "memory": facts["peak memory (GiB)"],
        "date": facts["finished"].replace("T", " ")[:16],
    }
