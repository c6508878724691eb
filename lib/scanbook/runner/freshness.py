"""Which reports are stale, by content: the notebook, the study, the data, and the code and packages that it uses.

Modification times do not count, so a fresh checkout, a copied folder or a touched file reruns nothing; nor does a
comment. A report whose page alone would look different is rendered again from its executed notebook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from scanbook import registry, runtime, store
from scanbook.config import KAGGLE, Study, load
from scanbook.config.prices import prices, prices_file
from scanbook.errors import DataError, StudyError
from scanbook.reporting import suite
from scanbook.reporting.failure import Failure
from scanbook.reporting.records import FAILURE, METRICS, NOTEBOOK, REPORT, read_json
from scanbook.runner import progress
from scanbook.runtime import path_from_text

PAGE = "page"
"""What a report's page is rendered with: templates, style sheet and code."""
_RENDERING, _TRAINING = "scanbook.reporting.report", "scanbook.runner.train"
"""The modules that render pages, and that train the network of a trial."""
_TEMPLATES = ("scanbook.reporting",)
"""Packages whose files are templates of pages."""
_NOT_SHOWN = ("registry",)
"""Modules that a report does not depend on: of the registry, the entries of the study count."""


@dataclass(frozen=True)
class State:
    """State of a report.

    Attributes:
        word: "fresh"; "stale", when a run would show something else now; "failed"; or "missing".
        reason: What changed, what failed and where, or that its run was stopped; "" without one.
    """

    word: Literal["fresh", "stale", "failed", "missing"]
    reason: str = ""


def notebook_fingerprint(name: str) -> str:
    """Return the fingerprint of a notebook's content: type, source and tags of its cells; outputs do not count."""
    return store.fingerprint(
        [[cell["cell_type"], cell["source"], cell.get("metadata", {}).get("tags", [])] for cell in suite.cells(name)]
    )


def study_fingerprint(study: Study) -> str:
    """Return the fingerprint of a study's values, and of the backbones, policies and files that they name.

    Another source that it names concerns notebook 08 alone.
    """
    values = {key: value for key, value in study.resolved().items() if key != "external"}
    files = {name: store.tree_fingerprint(path) for name, path in study.pretrained_paths.items() if path.exists()}
    words = set(_strings(values))
    backbones = {
        name: registry.describe_backbone(registry.BACKBONES[name]) for name in sorted(words & registry.BACKBONES.keys())
    }
    combined = {word for word in words if {*word.split("+")} <= registry.POLICIES.keys()}
    policies = {name: registry.policy(name) for name in sorted(combined | registry.POLICIES.keys())}
    return store.fingerprint(values, backbones, policies, *([files] if files else []))


def _strings(values: Any) -> Iterator[str]:
    """Yield every text in a study's values."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        yield from _strings(list(values.values()))
    elif isinstance(values, list):
        for value in values:
            yield from _strings(value)


def data_available(study: Study) -> bool:
    """Return whether a study's data are on this machine, or are synthetic."""
    if study.on_stand_in or study.dataset.adapter == "synthetic" or study.location.exists():
        return True
    archives = (runtime.data_dir() / "medmnist").glob("*.npz") if study.dataset.adapter == "medmnist" else ()
    return not study.data and any(path.stem.split("_")[0] == study.dataset.flag for path in archives)


def check_data(study: Study) -> None:
    """Check that a study's data are available before anything runs; download them for DATA=kaggle.

    Raises:
        DataError: They are not, and cannot be downloaded or synthesised; or their vectors are not.
    """
    if study.embeddings:
        from scanbook.data import embeddings  # here: it imports SciPy

        embeddings.check_file(study)
    if study.data == KAGGLE and not study.location.exists():
        from scanbook.data.adapters import kaggle

        kaggle.fetch(study)
    if study.data and not study.location.exists():
        raise DataError(f"no data at {study.location}; expected the folder or file of study {study.study}: check DATA")
    # the small archives of MedMNIST are downloaded as they are read
    if not data_available(study) and study.dataset.adapter != "medmnist":
        raise DataError(
            f"study {study.study} has no data at {study.location}; put them there or name their place: "
            f"make reports STUDY={study.study} DATA=path (source: {study.dataset.source or 'your own'})"
        )


def data_fingerprint(study: Study) -> str:
    """Return the fingerprint of a study's images; "" where the study defines them."""
    # one of synthetic images defines all of them, and one of MedMNIST names an archive that the library knows
    if not study.data and (study.on_stand_in or study.dataset.adapter in ("synthetic", "medmnist")):
        return ""
    return store.fingerprint([store.tree_fingerprint(path) for path in study.sources])


def vectors_fingerprint(study: Study) -> dict[str, str]:
    """Return the fingerprint of the file of a study's vectors, by its name; nothing where the models take images."""
    return {"embeddings": store.tree_fingerprint(study.embeddings)} if study.embeddings else {}


def load_source(study: Study) -> Study | None:
    """Return the study of the other source that a study names, resolved for its profile; None where it names none."""
    other = study.external
    return load(other.study, study.profile, other.data) if other.study else None


def check_sources(study: Study) -> None:
    """Check that the data of a study, and of the other source that it names, are available, as `check_data` does."""
    for source in (study, load_source(study)):
        if source:
            check_data(source)


class CodeState:
    """The code of scanbook as it is now. What a notebook uses of it is looked up once, for all studies of a command.

    Args:
        page: Fingerprint of what pages are rendered with, from an earlier state of this process: it renders with the
            code that it has imported, whatever became of the files.
    """

    def __init__(self, page: str = "") -> None:
        self._source, self._page = store.SourceCode(), page
        self._scripts: dict[str, dict[str, str]] = {}

    def of_script(self, text: str) -> dict[str, str]:
        """Return the fingerprints of what a script uses: the code with the files that it reads, and the packages."""
        if text not in self._scripts:
            code = self._source.code_of_script(text, _NOT_SHOWN)
            self._scripts[text] = _code_fingerprints(code, code.resources(_TEMPLATES))
        return self._scripts[text]

    def of_trainings(self) -> dict[str, str]:
        """Return the fingerprints of what trains the network of a sweep's trial."""
        return _code_fingerprints(self._source.code_of(_TRAINING, store.NOT_COUNTED))

    @property
    def page(self) -> str:
        """Fingerprint of what a page is rendered with: code, templates and packages."""
        if not self._page:
            code = self._source.code_of(_RENDERING, _NOT_SHOWN)
            self._page = store.fingerprint(code.modules, code.resources(), runtime.versions_of(code.packages))
        return self._page


def _code_fingerprints(code: store.Code, resources: Any = None) -> dict[str, str]:
    return {
        "library": store.fingerprint(code.modules, resources),
        "packages": store.fingerprint(runtime.versions(()), runtime.versions_of(code.packages)),
    }


class Batch:
    """The notebooks of one study, profile and dataset, as one command runs them.

    Attributes:
        study: The study, resolved.
        overrides: The `key=value` pairs that it was resolved with.
        bundle: Folder of the bundle that is validated on the study's images; "" for none.
        folder: Folder of its reports.
        shared: Fingerprints of what all its reports depend on: study, data and, in place of images, vectors.
        code: The code of scanbook, as it was when the batch was made.
    """

    def __init__(self, study: Study, overrides: str = "", code: CodeState | None = None, *, bundle: str = "") -> None:
        self.study = study
        self.overrides = overrides
        self.bundle = bundle
        self.folder = runtime.reports_dir() / study.study / study.profile
        self.code = code or CodeState()
        self.shared = {"study": study_fingerprint(study), "data": data_fingerprint(study)}
        self.shared |= vectors_fingerprint(study)

    def refreshed(self) -> Batch:
        """Return the same batch with the fingerprints of now."""
        return Batch(self.study, self.overrides, CodeState(self.code.page), bundle=self.bundle)

    @property
    def notebooks(self) -> tuple[str, ...]:
        """The notebooks that are run, in order; that of external validation where another source is named."""
        return suite.notebooks(bool(self.bundle or self.study.external.study))

    @property
    def label(self) -> str:
        """Study and profile, as messages name them."""
        return f"{self.study.study}/{self.study.profile}"

    def fingerprints(self, name: str) -> dict[str, str]:
        """Return the fingerprints of what the report of a notebook depends on."""
        prices = {"prices": _prices_fingerprint()} if name == suite.BENCHMARK else {}
        lists = _lists_fingerprint(self.study) if name == suite.FINE_TUNING else {}
        external = {"external": _external_fingerprint(self.study, self.bundle)} if name == suite.EXTERNAL else {}
        return {
            "notebook": notebook_fingerprint(name),
            **self.shared,
            **self.code.of_script(suite.script(name)),
            **prices,
            **lists,
            **external,
            PAGE: self.code.page,
        }

    def state(self, name: str) -> State:
        """Return the state of the report of a notebook."""
        folder = self.folder / name
        whole, failed = read_json(folder / METRICS), read_json(folder / FAILURE)
        if whole and (folder / REPORT).is_file():
            changed = self._changed(name, whole)
            remark = " (will be rendered again, not run)" if changed == [PAGE] else ""
            return State("stale", f"changed since: {', '.join(changed)}{remark}") if changed else State("fresh")
        if failed:
            failure, changed = Failure(**failed["failure"]), self._changed(name, failed)
            since = f" (changed since: {', '.join(changed)})" if changed else ""
            return State("failed", f"{failure.place}: {failure.sentence}{since}")
        return State("missing", "its run was stopped, or overwritten since" if (folder / NOTEBOOK).is_file() else "")

    def _changed(self, name: str, facts: dict[str, Any]) -> list[str]:
        recorded, now = facts.get("fingerprints", {}), self.fingerprints(name)
        return [key for key in {**recorded, **now} if recorded.get(key) != now.get(key)]

    def only_page_changed(self, name: str) -> bool:
        """Return whether a run would record the same as the last one, which is whole, and only its page is stale."""
        whole = read_json(self.folder / name / METRICS)
        return bool(whole) and (self.folder / name / NOTEBOOK).is_file() and self._changed(name, whole) == [PAGE]

    def fresh(self, name: str) -> bool:
        """Return whether the report of a notebook is whole and a run would show the same now."""
        return self.state(name).word == "fresh"

    def stale(self) -> list[str]:
        """Return the notebooks that must be run, in order."""
        return [name for name in self.notebooks if not self.fresh(name)]


def status(batch: Batch) -> Iterator[str]:
    """Yield a line for the study, with how many of its reports are fresh, then one for each notebook."""
    states = {name: batch.state(name) for name in batch.notebooks}
    counts = Counter(state.word for state in states.values())
    yield f"{batch.label}: {', '.join(f'{count} {word}' for word, count in counts.items())}"
    width = max(map(len, states))
    for name, state in states.items():
        word, reason = state.word, state.reason
        if run := progress.running(batch.folder / name):
            word, reason = "running", f"{run.place}, since {runtime.duration(run.elapsed)}"
        yield f"  {name:{width}}  {word:7}  {reason}".rstrip()


def _external_fingerprint(study: Study, bundle: str) -> str:
    """Return the fingerprint of what is validated where: a bundle, or the images of the source that a study names."""
    labels = study.external.classes
    if bundle:
        from scanbook.bundle.description import CHECKSUMS  # here: it imports OpenCV

        checksums = path_from_text(bundle) / CHECKSUMS
        return store.fingerprint(labels, checksums.read_bytes() if checksums.is_file() else bundle)
    other = load_source(study)
    return store.fingerprint(labels, [study_fingerprint(other), data_fingerprint(other)] if other else "")


def _lists_fingerprint(study: Study) -> dict[str, str]:
    """Return the fingerprint of the lists of images on which weights were pretrained; nothing where there are none."""
    paths = [runtime.path_in_project(known.corpus_list) for known in study.pretraining.values() if known.corpus_list]
    return {"corpus lists": store.fingerprint([store.tree_fingerprint(path) for path in paths])} if paths else {}


def _prices_fingerprint() -> str:
    """Return the fingerprint of the price table; of the file if it has a mistake, which only notebook 06 reports."""
    try:
        return store.fingerprint([[name, price.model_dump(mode="json")] for name, price in prices().items()])
    except StudyError:
        return store.fingerprint(prices_file().read_bytes())
