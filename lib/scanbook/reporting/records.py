"""The records of a study's runs in the reports folder, for the pages about them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from scanbook.config import Study
from scanbook.reporting import suite

if TYPE_CHECKING:
    import pandas as pd  # slow to import, and `scanbook status` does without

METRICS = "metrics.json"
FAILURE = "failure.json"
REPORT = "report.html"
NOTEBOOK = "notebook.ipynb"
"""The executed notebook; a run that was stopped leaves only this file."""

PREDICTIONS, HISTORY = "predictions.csv", "history.csv"
"""The test predictions of a notebook's model and its training, by which runs are compared."""

UNDEFINED = "not defined"
"""What a table's cell shows where the images do not define a metric, such as one of a class without images."""

TRAINED_ON = "networks were trained on"
"""Key of the devices in the measurements, and their name in the foot of a report."""

REQUIRED = {"title", "study", "fingerprints", "finished"}
"""Keys that the runner writes for every run; a file without them is ignored."""


HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "validation_loss", "validation_accuracy", "seconds")
"""Columns of a training's history."""


def join_histories(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the histories of several trainings in one table, whose first column, `training`, has their names.

    Args:
        histories: One row per epoch of each, with `HISTORY_COLUMNS`.
    """
    import pandas as pd

    frames = [frame[list(HISTORY_COLUMNS)] for frame in histories.values()]
    return pd.concat(frames, keys=histories, names=["training"]).reset_index(0)


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON object; empty when the file is missing or broken."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Report:
    """One notebook's report.

    Attributes:
        name: The notebook.
        title: Its first heading.
        status: "done", "failed", or "" where it was not run.
        facts: Content of `metrics.json` or `failure.json`; empty where it was not run.
    """

    name: str
    title: str
    status: Literal["done", "failed", ""]
    facts: dict[str, Any]

    @classmethod
    def of(cls, folder: Path, name: str) -> Report:
        """Return the report of the notebook `name` in a run's folder."""
        facts = read_json(folder / name / METRICS)
        if facts.keys() >= REQUIRED and (folder / name / REPORT).is_file():
            return cls(name, facts["title"], "done", facts)
        facts = read_json(folder / name / FAILURE)
        if facts.keys() >= REQUIRED | {"sentence"}:
            return cls(name, facts["title"], "failed", facts)
        return cls(name, suite.title(name) if name in suite.notebooks() else name, "", {})

    @property
    def results(self) -> dict[str, Any]:
        """Results and measurements by key; empty where the notebook failed or was not run."""
        return self.facts.get("measurements", {}) | self.facts.get("results", {}) if self.status == "done" else {}

    @property
    def headline(self) -> str:
        """The key result; empty where the notebook failed or was not run."""
        return self.results.get("headline", "")

    @property
    def problem(self) -> str:
        """The failure in one sentence; empty where there was none."""
        return self.facts["sentence"] if self.status == "failed" else ""

    @property
    def seconds(self) -> float:
        """Run time."""
        return self.facts.get("seconds", 0)

    @property
    def memory(self) -> float:
        """Peak memory in GiB."""
        return self.facts.get("peak memory (GiB)", 0)

    @property
    def date(self) -> str:
        """End of the run, UTC, to the minute; empty where it was not run."""
        return self.facts.get("finished", "").replace("T", " ")[:16]


class Run:
    """The reports of one study in one profile.

    Attributes:
        folder: `<study>/<profile>` in the reports folder.
        reports: By notebook, in order; includes those that were not run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = sorted({*suite.notebooks(), *(path.name for path in folder.glob("*/"))})
        reports = [Report.of(folder, name) for name in names]
        studies = [report.facts["study"] for report in reports if report.status]
        notebooks = suite.notebooks(any(study.get("external", {}).get("study") for study in studies))
        self.reports = {report.name: report for report in reports if report.status or report.name in notebooks}

    @property
    def place(self) -> str:
        """`<study>/<profile>`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def ran(self) -> list[Report]:
        """The reports that exist, whole or of a failure, the last written first."""
        return sorted([*self.done, *self.failed], key=lambda report: report.facts["finished"], reverse=True)

    @property
    def study(self) -> dict[str, Any]:
        """The study as it was resolved last."""
        return self.ran[0].facts["study"]

    @property
    def runs_on(self) -> str:
        """Whether the images are real or synthetic; empty for a study of another version, which is no longer valid."""
        try:
            return Study.model_validate(self.study).runs_on
        except ValidationError:
            return ""

    @property
    def done(self) -> list[Report]:
        """The whole reports."""
        return self._with_status("done")

    @property
    def failed(self) -> list[Report]:
        """The reports of a failure."""
        return self._with_status("failed")

    @property
    def missing(self) -> list[Report]:
        """The notebooks that were not run."""
        return self._with_status("")

    def _with_status(self, status: str) -> list[Report]:
        return [report for report in self.reports.values() if report.status == status]

    @property
    def seconds(self) -> float:
        """Run time of all of them."""
        return sum(report.seconds for report in self.reports.values())

    @property
    def mixed(self) -> bool:
        """Whether the reports are of more than one study, dataset, library or set of packages."""
        shared = ("study", "data", "embeddings", "library", "packages")
        return len({tuple(report.facts["fingerprints"].get(key) for key in shared) for report in self.done}) > 1

    def command(self, goal: str) -> str:
        """Return the Make command of a goal for this study and profile."""
        words = ["make", goal, f"STUDY={self.study['study']}", f"PROFILE={self.study['profile']}"]
        facts = self.ran[0].facts
        options = {"DATA": facts.get("data"), "SET": facts.get("overrides")} if goal == "reports" else {}
        words += [f"{name}={shlex.quote(value)}" for name, value in options.items() if value]
        return " ".join(words)


def runs(reports: Path) -> list[Run]:
    """Return every study and profile that was run in a reports folder."""
    return [run for run in map(Run, sorted(reports.glob("*/*/"))) if run.ran]
