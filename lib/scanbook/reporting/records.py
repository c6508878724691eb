"""What the runs of a study left in the reports folder, as the pages about them need it."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from scanbook.config import Study
from scanbook.reporting import suite

METRICS = "metrics.json"
FAILURE = "failure.json"
REPORT = "report.html"
NOTEBOOK = "notebook.ipynb"
"""The notebook as it ran; a run that was stopped leaves this alone."""


RECORDED = {"title", "study", "fingerprints", "finished"}
"""What the runner says of every run; a file without it is of another program, and as good as none."""


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object; empty when the file is missing or broken."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@dataclass(frozen=True)
class Report:
    """One notebook's report.

    Attributes:
        name: The notebook.
        title: Its first heading.
        status: "done", "failed", or "" where it was not run.
        facts: What `metrics.json` or `failure.json` holds; empty where it was not run.
    """

    name: str
    title: str
    status: Literal["done", "failed", ""]
    facts: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, name: str) -> Report:
        """Reads the report of the notebook `name` in a run's folder."""
        facts = read_json(folder / name / METRICS)
        if facts.keys() >= RECORDED and (folder / name / REPORT).is_file():
            return cls(name, facts["title"], "done", facts)
        facts = read_json(folder / name / FAILURE)
        if facts.keys() >= RECORDED | {"sentence"}:
            return cls(name, facts["title"], "failed", facts)
        return cls(name, suite.title(name) if name in suite.notebooks() else name, "", {})

    @property
    def recorded(self) -> dict[str, Any]:
        """Results and, where they have other names, measurements; empty where the notebook failed or was not run."""
        return self.facts.get("measurements", {}) | self.facts.get("results", {}) if self.status == "done" else {}

    @property
    def headline(self) -> str:
        """The key figure; empty where the notebook failed or was not run."""
        return self.recorded.get("headline", "")

    @property
    def problem(self) -> str:
        """What stopped the notebook; empty where nothing did."""
        return self.facts["sentence"] if self.status == "failed" else ""

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return self.facts.get("seconds", 0)

    @property
    def memory(self) -> float:
        """Peak memory in GiB."""
        return self.facts.get("peak memory (GiB)", 0)

    @property
    def date(self) -> str:
        """When it ended, UTC, to the minute; empty where it was not run."""
        return self.facts.get("finished", "").replace("T", " ")[:16]


class Run:
    """The reports of one study in one profile.

    Attributes:
        folder: `<study>/<profile>` in the reports folder.
        reports: By notebook, in order; those that were not run are among them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        others = (each.name for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else ()
        names = sorted({*suite.notebooks(), *others})
        found = [Report.of(folder, name) for name in names]
        self.reports = {each.name: each for each in found if each.status or each.name in suite.notebooks()}

    @property
    def place(self) -> str:
        """`<study>/<profile>`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def ran(self) -> list[Report]:
        """The reports that are there, whole or of a failure, the last written first."""
        there = (each for each in self.reports.values() if each.status)
        return sorted(there, key=lambda each: each.facts["finished"], reverse=True)

    @property
    def study(self) -> dict[str, Any]:
        """The study as it was resolved last."""
        return self.ran[0].facts["study"]

    @property
    def runs_on(self) -> str:
        """Whether the images are real or drawn; empty for a study of another version, which is no study any more."""
        try:
            return Study.model_validate(self.study).runs_on
        except ValidationError:
            return ""

    @property
    def done(self) -> list[Report]:
        """The whole reports."""
        return [each for each in self.reports.values() if each.status == "done"]

    @property
    def failed(self) -> list[Report]:
        """The reports of a failure."""
        return [each for each in self.reports.values() if each.status == "failed"]

    @property
    def missing(self) -> list[Report]:
        """The notebooks that were not run."""
        return [each for each in self.reports.values() if not each.status]

    @property
    def seconds(self) -> float:
        """How long all of them ran."""
        return sum(each.seconds for each in self.reports.values())

    @property
    def mixed(self) -> bool:
        """Whether the reports are of more than one study, dataset, library or set of packages."""
        shared = ("study", "data", "library", "packages")
        found = {tuple(each.facts["fingerprints"].get(key) for key in shared) for each in self.done}
        return len(found) > 1

    def command(self, goal: str) -> str:
        """The command of Make that does something with this study and profile."""
        words = ["make", goal, f"STUDY={self.study['study']}", f"PROFILE={self.study['profile']}"]
        facts = self.ran[0].facts
        given = (("DATA", facts.get("data")), ("SET", facts.get("overrides"))) if goal == "reports" else ()
        words += [f"{name}={shlex.quote(value)}" for name, value in given if value]
        return " ".join(words)


def runs(reports: Path) -> list[Run]:
    """Every study and profile that was run in a reports folder."""
    found = map(Run, sorted(each for each in reports.glob("*/*/") if each.is_dir()))
    return [each for each in found if each.ran]
