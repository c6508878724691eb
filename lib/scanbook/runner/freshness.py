"""Which reports are stale, by content: the notebook, the study, the data, the library and the packages.

Modification times play no part, so a fresh checkout, a copied folder or a touched file reruns nothing.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from scanbook import runtime, store
from scanbook.errors import DataError
from scanbook.runner import order
from scanbook.study import KAGGLE, Study
from scanbook.study.prices import prices

METRICS = "metrics.json"
FAILURE = "failure.json"
REPORT = "report.html"
PRICED = "06_hardware_benchmark"
"""The notebook that reads the price table."""


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object; empty when the file is missing or broken."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def notebook_fingerprint(name: str) -> str:
    """Fingerprint of what a notebook says and runs: type, source and tags of its cells; outputs do not count."""
    return store.fingerprint(
        [[cell["cell_type"], cell["source"], cell.get("metadata", {}).get("tags", [])] for cell in order.cells(name)]
    )


def check_data(study: Study) -> None:
    """Sees to it that a study's data are there before anything runs; downloads them where DATA=kaggle asks for it.

    Raises:
        DataError: They are not, and cannot be fetched or drawn.
    """
    if study.data == KAGGLE and not study.location.exists():
        from scanbook.datasets import kaggle

        kaggle.fetch(study)
    if study.data and not study.location.exists():
        raise DataError(f"no data at {study.location}; expected the folder or file of study {study.study}: check DATA")
    if not _makes_its_own(study) and study.dataset.adapter != "medmnist" and not study.location.exists():
        raise DataError(
            f"study {study.study} has no data at {study.location}; put them there or name their place: "
            f"make reports STUDY={study.study} DATA=path (source: {study.dataset.source or 'your own'})"
        )


def _makes_its_own(study: Study) -> bool:
    return study.on_stand_in or study.dataset.adapter == "drawn"


class Batch:
    """The notebooks of one study, profile and dataset, as one command runs them.

    Attributes:
        study: The study, resolved.
        overrides: The `key=value` pairs that it was resolved with.
        folder: Where its reports go.
    """

    def __init__(self, study: Study, overrides: str = "") -> None:
        """Checks the data and reads the fingerprints that all notebooks share.

        Raises:
            DataError: The data are not there.
        """
        check_data(study)
        self.study = study
        self.overrides = overrides
        self.folder = runtime.reports_dir() / study.study / study.profile
        lock = runtime.project_root() / "requirements.lock"
        self._shared = {
            "study": store.fingerprint(study.resolved()),
            "data": ""
            if _makes_its_own(study)
            else store.fingerprint([store.tree_fingerprint(e) for e in study.sources]),
            "library": store.sources_fingerprint(),
            "packages": store.fingerprint(runtime.versions(), lock.read_bytes() if lock.is_file() else b""),
        }

    def fingerprints(self, name: str) -> dict[str, str]:
        """What the report of a notebook depends on, one fingerprint each."""
        found = {"notebook": notebook_fingerprint(name), **self._shared}
        if name == PRICED:
            table = [[instance, price.model_dump(mode="json")] for instance, price in prices().items()]
            found["prices"] = store.fingerprint(table)
        return found

    def fresh(self, name: str) -> bool:
        """Whether the report of a notebook is whole and shows what a run would show now."""
        folder = self.folder / name
        recorded = read_json(folder / METRICS).get("fingerprints")
        return (folder / REPORT).is_file() and recorded == self.fingerprints(name)

    def stale(self) -> list[str]:
        """Notebooks that have to be run, in order."""
        return [name for name in order.NOTEBOOKS if not self.fresh(name)]

    def command(self, name: str) -> list[str]:
        """The command that runs one notebook of this batch."""
        command = [sys.executable, "-m", "scanbook.cli", "run", name]
        command += ["--study", self.study.study, "--profile", self.study.profile]
        for option, value in (("--data", self.study.data), ("--set", self.overrides)):
            command += [option, value] if value else []
        return command

    def makefile(self) -> str:
        """Rules of Make that run the stale notebooks in order; empty when nothing is stale."""
        stale = self.stale()
        rules = [f".PHONY: all {' '.join(stale)}", f"all: {' '.join(stale)}"] if stale else []
        for name in stale:
            earlier = order.before(name)
            rules.append(f"{name}: {' '.join(each for each in stale if each in earlier)}".rstrip())
            rules.append("\t@" + shlex.join(self.command(name)).replace("$", "$$"))
        return "".join(f"{rule}\n" for rule in rules)
