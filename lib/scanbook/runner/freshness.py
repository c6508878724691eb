"""Which reports are stale, by content: the notebook, the study, the data, the library and the packages.

Modification times play no part, so a fresh checkout, a copied folder or a touched file reruns nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scanbook import runtime, store
from scanbook.config import KAGGLE, Study
from scanbook.config.prices import prices, prices_file
from scanbook.errors import DataError, StudyError
from scanbook.reporting import suite
from scanbook.reporting.failure import Failure
from scanbook.reporting.records import FAILURE, METRICS, NOTEBOOK, REPORT, read_json


@dataclass(frozen=True)
class State:
    """How a report stands.

    Attributes:
        word: "fresh"; "stale", when it shows what a run would not show now; "failed"; or "missing".
        why: What changed, what went wrong and where, or that a run is no more whole; "" where there is nothing to say.
    """

    word: Literal["fresh", "stale", "failed", "missing"]
    why: str = ""


def notebook_fingerprint(name: str) -> str:
    """Fingerprint of what a notebook says and runs: type, source and tags of its cells; outputs do not count."""
    return store.fingerprint(
        [[cell["cell_type"], cell["source"], cell.get("metadata", {}).get("tags", [])] for cell in suite.cells(name)]
    )


def at_hand(study: Study) -> bool:
    """Whether a study's data lie on this machine, or are drawn by scanbook itself."""
    if study.on_stand_in or study.dataset.adapter == "synthetic" or study.location.exists():
        return True
    archives = (runtime.data_dir() / "medmnist").glob("*.npz") if study.dataset.adapter == "medmnist" else ()
    return not study.data and any(path.stem.split("_")[0] == study.dataset.flag for path in archives)


def check_data(study: Study) -> None:
    """Sees to it that a study's data are there before anything runs; downloads them where DATA=kaggle asks for it.

    Raises:
        DataError: They are not, and cannot be fetched or drawn.
    """
    if study.data == KAGGLE and not study.location.exists():
        from scanbook.data.adapters import kaggle

        kaggle.fetch(study)
    if study.data and not study.location.exists():
        raise DataError(f"no data at {study.location}; expected the folder or file of study {study.study}: check DATA")
    if not at_hand(study) and study.dataset.adapter != "medmnist":  # whose small archives are fetched as they are read
        raise DataError(
            f"study {study.study} has no data at {study.location}; put them there or name their place: "
            f"make reports STUDY={study.study} DATA=path (source: {study.dataset.source or 'your own'})"
        )


class Batch:
    """The notebooks of one study, profile and dataset, as one command runs them.

    Attributes:
        study: The study, resolved.
        overrides: The `key=value` pairs that it was resolved with.
        folder: Where its reports go.
        shared: What all its reports depend on: study, data, library and packages, a fingerprint each.
    """

    def __init__(self, study: Study, overrides: str = "") -> None:
        """Reads the fingerprints that all notebooks share."""
        self.study = study
        self.overrides = overrides
        self.folder = runtime.reports_dir() / study.study / study.profile
        lock = runtime.project_root() / "requirements.lock"
        # a study of synthetic images says all of them, and one of MedMNIST names an archive that the library knows
        told = not study.data and (study.on_stand_in or study.dataset.adapter in ("synthetic", "medmnist"))
        self.shared = {
            "study": store.fingerprint(study.resolved()),
            "data": "" if told else store.fingerprint([store.tree_fingerprint(each) for each in study.sources]),
            "library": store.sources_fingerprint(),
            "packages": store.fingerprint(runtime.versions(), lock.read_bytes() if lock.is_file() else b""),
        }

    def anew(self) -> Batch:
        """The same with what study, data, library and packages are now."""
        return Batch(self.study, self.overrides)

    @property
    def label(self) -> str:
        """Study and profile, as messages name them."""
        return f"{self.study.study}/{self.study.profile}"

    def fingerprints(self, name: str) -> dict[str, str]:
        """What the report of a notebook depends on, one fingerprint each."""
        found = {"notebook": notebook_fingerprint(name), **self.shared}
        if name == suite.BENCHMARK:
            found["prices"] = _prices_fingerprint()
        return found

    def state(self, name: str) -> State:
        """How the report of a notebook stands."""
        folder = self.folder / name
        whole, failed = read_json(folder / METRICS), read_json(folder / FAILURE)
        if whole and (folder / REPORT).is_file():
            changed = self._changed(name, whole)
            return State("stale", f"changed since: {', '.join(changed)}") if changed else State("fresh")
        if failed:
            failure, changed = Failure(**failed["failure"]), self._changed(name, failed)
            since = f" (changed since: {', '.join(changed)})" if changed else ""
            return State("failed", f"{failure.place}: {failure.sentence}{since}")
        return State("missing", "its run was stopped, or overwritten since" if (folder / NOTEBOOK).is_file() else "")

    def _changed(self, name: str, facts: dict[str, Any]) -> list[str]:
        recorded, now = facts.get("fingerprints", {}), self.fingerprints(name)
        return [each for each in {**recorded, **now} if recorded.get(each) != now.get(each)]

    def fresh(self, name: str) -> bool:
        """Whether the report of a notebook is whole and shows what a run would show now."""
        return self.state(name).word == "fresh"

    def stale(self) -> list[str]:
        """Notebooks that have to be run, in order."""
        return [name for name in suite.notebooks() if not self.fresh(name)]


def _prices_fingerprint() -> str:
    """Fingerprint of the price table; with a mistake in it, of the file, so that only its reader stumbles over it."""
    try:
        return store.fingerprint([[name, price.model_dump(mode="json")] for name, price in prices().items()])
    except StudyError:
        return store.fingerprint(prices_file().read_bytes())
