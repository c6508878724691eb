"""Keys of code: what can change a result changes them, and nothing else does."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import documents
from scanbook import config, registry, store
from scanbook.reporting.suite import NOTEBOOKS
from scanbook.runner import freshness
from scanbook.runner.freshness import Batch
from scanbook.runtime import machine
from scanbook.store import code

STAGES = sorted(
    f"scanbook.{path.relative_to(store.PACKAGE).with_suffix('').as_posix().replace('/', '.')}"
    for path in store.PACKAGE.rglob("*.py")
    if re.search(r"\bstage\(.*__name__\)|^        __name__,$", path.read_text(), re.MULTILINE)
)
"""Every module that builds stages."""


@pytest.fixture(autouse=True, scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all tests, in which the analysis of each file is kept."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("store")
        patch.setenv("SCANBOOK_STORE", str(folder))
        yield folder


# --- one file


def tree(text: str) -> str:
    return code.analyse(text.encode()).tree


SOURCE = '''"""A module."""

from dataclasses import dataclass
from scanbook.config import Study


@dataclass
class Plan:
    """A plan."""

    epochs: int = 3


def count(study: Study, least: int = 1) -> int:
    """Count."""
    found: int = least
    return found + 1
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    found:", "    # why\n    found:"),
        ('"""A module."""', '"""Another\n\ntext."""'),
        ('    """Count."""\n', ""),
        ('    """A plan."""\n\n    epochs: int = 3', '    epochs: int = 3\n    """Their number."""'),
        ("study: Study, least: int = 1) -> int", "study, least: float = 1) -> float"),
        ("found: int = least", "found: float = least"),
        ("return found + 1", "return (\n        found\n        + 1\n    )"),
        ("from scanbook.config import Study\n", "if TYPE_CHECKING:\n    from scanbook.config import Study\n"),
    ],
)
def test_what_changes_no_result_does_not_count(old: str, new: str) -> None:
    assert old in SOURCE and tree(SOURCE.replace(old, new)) == tree(SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("found + 1", "found + 2"),
        ("least: int = 1", "least: int = 2"),
        ("epochs: int", "epochs: float"),
        ("epochs: int = 3", "epochs: int = 4"),
        ("@dataclass\n", "@dataclass(frozen=True)\n"),
    ],
)
def test_what_can_change_a_result_counts(old: str, new: str) -> None:
    assert old in SOURCE and tree(SOURCE.replace(old, new)) != tree(SOURCE)


# --- a small library


FILES = {
    "__init__.py": "import os\n",
    "direct.py": "",
    "named.py": "",
    "sibling.py": "",
    "deep.py": "from scanbook import deeper\nother = deeper.x\n",
    "deeper.py": "",
    "lazy.py": "",
    "started/__init__.py": "",
    "started/__main__.py": "",
    "unrelated.py": "",
    "typed.py": "",
    "folder/__init__.py": "",
    "folder/beside.py": "from scanbook import sibling\nthing = sibling.x\n",
    "folder/template.css": "a {}\n",
    "folder/work.py": """import json
import cv2
import scanbook.direct
from typing import TYPE_CHECKING
from scanbook import named, parts, typed
from scanbook.folder.beside import thing
from scanbook.deep import other
from scanbook.whole import one

if TYPE_CHECKING:
    from scanbook import unrelated

def later(value: typed.Value):
    from scanbook import lazy
    return lazy.x, named, thing, other, one, parts.first, [sys.executable, "-m", "scanbook.started"]
""",
    "whole/__init__.py": "from scanbook.whole.inner import one\nfrom scanbook.whole.outer import two\n",
    "whole/inner.py": "",
    "whole/outer.py": "",
    "parts/__init__.py": "from scanbook.parts.first import first\nfrom scanbook.parts.second import second\n",
    "parts/first.py": "",
    "parts/second.py": "",
}
REACHED = {
    *("__init__.py", "folder/work.py", "direct.py", "named.py", "folder/beside.py", "sibling.py", "deep.py"),
    *(
        "deeper.py",
        "lazy.py",
        "typed.py",
        "whole/inner.py",
        "parts/__init__.py",
        "parts/first.py",
        "started/__main__.py",
        "started/__init__.py",
    ),
}
"""Files whose code `folder.work` can run; the lists of exports count only by what they name."""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "lib")
    return tmp_path / "lib"


def key() -> str:
    return store.SourceCode().code_of("scanbook.folder.work").fingerprint


def test_code_is_followed_through_imports_and_lists_of_exports(small: Path) -> None:
    before = key()
    for name, text in FILES.items():
        if name.endswith(".py"):
            (small / name).write_text(f"{text}ADDED = 1\n")
            assert (key() != before) == (name in REACHED), name
            (small / name).write_text(text)
    assert key() == before
    (small / "parts" / "__init__.py").write_text("from scanbook.parts.second import second as first\n")
    assert key() != before, "another module defines what is used"
    (small / "parts" / "__init__.py").write_text(
        FILES["parts/__init__.py"] + "from scanbook.unrelated import anything\n"
    )
    assert key() == before, "another export connects nothing"
    assert store.SourceCode().code_of("scanbook.folder.work").packages == ("cv2",)


def test_a_package_used_as_a_whole_counts_with_all_that_it_exports(small: Path) -> None:
    modules = store.SourceCode().code_of_script("from scanbook import parts\nuse(parts)\n").modules
    assert {"scanbook.parts.first", "scanbook.parts.second"} <= modules.keys()
    assert store.SourceCode().code_of_script("from scanbook.parts import *\n").modules == modules
    modules = store.SourceCode().code_of_script("from scanbook import parts\nparts.second()\n").modules
    assert "scanbook.parts.first" not in modules and "scanbook.parts.second" in modules


def test_a_script_that_is_not_plain_python_depends_on_all(small: Path) -> None:
    modules = store.SourceCode().code_of_script("%matplotlib inline\nfrom scanbook import named\n").modules
    assert len(modules) == len(FILES) - 1
    assert store.SourceCode().code_of_script("from scanbook.gone import x\nfrom scanbook import nothing\nx, nothing")


def test_files_beside_the_code_count_without_their_comments(small: Path) -> None:
    def resources() -> dict[str, str]:
        return store.SourceCode().code_of("scanbook.folder.work").resources()

    before = resources()
    assert list(before) == ["folder/template.css"]
    (small / "folder" / "template.css").write_text("/* why\n */a {}\n")
    assert resources() == before
    (small / "folder" / "template.css").write_text("b {}\n")
    assert resources() != before
    (small / "folder" / "template.css").write_text(FILES["folder/template.css"])
    for name in (".template.css.swp", ".DS_Store", "template.css~"):
        (small / "folder" / name).write_text("left by an editor")
    assert resources() == before
    assert store.SourceCode().code_of("scanbook.folder.work").resources(["scanbook.folder"]) == {}


def test_code_that_changed_while_a_process_ran_is_of_no_known_code(small: Path) -> None:
    """The process may have imported the code before or after the change, so that no other one may find its results."""
    imported = {"scanbook.deep": store.file_digest(small / "deep.py")}

    def running() -> str:
        return store.SourceCode(imported).code_of("scanbook.folder.work").fingerprint

    before = key()
    assert running() == before
    text = (small / "deep.py").read_text()
    (small / "deep.py").write_text(f"# a comment\n{text}")
    assert running() == before == key()
    (small / "deep.py").write_text(f"{text}ADDED = 1\n")
    changed = key()
    assert running() not in (before, changed) and running() != running()


@pytest.mark.parametrize("text", ["{", "[]", '{"analyser": 1}'])
def test_a_damaged_index_costs_only_time(text: str, small: Path, own_store: Path) -> None:
    before = key()
    index = own_store / "code.json"
    content = json.loads(index.read_bytes())
    for damaged in (text, json.dumps(content | {"files": {name: 1 for name in content["files"]}})):
        index.write_text(damaged)
        assert key() == before


# --- the library itself


def fingerprints(package: Path) -> dict[str, dict[str, str]]:
    """Return the fingerprints of stages and of the default study's reports, with the code of a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "PACKAGE", package)
        batch = Batch(config.load("synthetic", "smoke"))
        return {
            "stages": {name: code.stage_code.__wrapped__(name).fingerprint for name in STAGES},
            "reports": {
                f"{name} {part}": value for name in NOTEBOOKS for part, value in batch.fingerprints(name).items()
            },
        }


class Copy:
    """A copy of the library, and what it says of stages and reports after a change."""

    def __init__(self, folder: Path, before: dict[str, dict[str, str]]) -> None:
        self.lib, self.before = folder / "scanbook", before
        shutil.copytree(store.PACKAGE, self.lib, ignore=shutil.ignore_patterns("__pycache__"))

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.lib / name).read_text()
        assert old in text
        (self.lib / name).write_text(text.replace(old, new, 1))

    def changed(self) -> tuple[set[str], set[str]]:
        """Return the stages that are other ones now, and the fingerprints of reports that changed."""
        before, now = self.before, fingerprints(self.lib)
        stages, reports = (
            {name for name in before[kind] if now[kind][name] != before[kind][name]} for kind in ("stages", "reports")
        )
        return stages, reports


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, str]]:
    return fingerprints(store.PACKAGE)


@pytest.fixture
def copy(tmp_path: Path, before: dict[str, dict[str, str]]) -> Copy:
    return Copy(tmp_path, before)


def test_the_stages_are_known() -> None:
    assert {"scanbook.data.pixels", "scanbook.models.features", "scanbook.training.end_to_end"} < set(STAGES)
    assert len(STAGES) > 10


def test_a_comment_in_any_file_makes_nothing_stale(copy: Copy) -> None:
    comments: dict[str, Callable[[str], str]] = {
        ".py": "# why\n{}# why\n".format,
        ".yaml": "# why\n{}\n".format,
        ".css": "/* why */{}".format,
        ".js": "{}\n// why\n".format,
        ".j2": "{}{{# why #}}".format,
        ".html": "{}{{# why #}}".format,
        ".svg": "{}<!-- why -->".format,
        ".cfg": "# why\n{}".format,
        ".po": "# why\n{}".format,
    }
    changed = 0
    for path in copy.lib.rglob("*"):
        if path.suffix in comments:
            path.write_text(comments[path.suffix](path.read_text()))
            changed += 1
    assert changed > 150
    assert copy.changed() == (set(), set())


def test_a_backbone_that_is_added_recomputes_nothing(copy: Copy) -> None:
    [diff] = [text for text in documents.all_blocks("diff") if "registry.py" in text]
    subprocess.run(
        ["git", "apply", "--unsafe-paths", "-p3", f"--directory={copy.lib}"], input=diff, text=True, check=True
    )
    assert "mobilenet_v3_small" in (copy.lib / "registry.py").read_text()
    assert copy.changed() == (set(), set())


def test_a_style_sheet_concerns_only_pages(copy: Copy) -> None:
    copy.edit("reporting/templates/page.css", "{", "{ color: red;")
    stages, reports = copy.changed()
    assert stages == set() and {part.split()[1] for part in reports} == {"page"} and len(reports) == len(NOTEBOOKS)


def test_a_metric_that_reports_show_trains_no_network(copy: Copy) -> None:
    copy.edit("evaluation/metrics.py", "\ndef ", "\nADDED = 1\n\n\ndef ")
    stages, reports = copy.changed()
    assert stages == set()
    assert {part for part in reports if "page" in part} == set()
    assert {"04_transfer_learning library", "05_fine_tuning library", "07_export_flask library"} <= reports


def test_what_chooses_a_network_trains_it_again(copy: Copy) -> None:
    copy.edit("training/trained_model.py", "def validation_loss(", "ADDED = 1\n\n\ndef validation_loss(")
    stages, reports = copy.changed()
    assert stages == {f"scanbook.training.{name}" for name in ("end_to_end", "learning_curve", "model_selection")}
    assert "01_eda library" not in reports and "05_fine_tuning library" in reports


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("reporting/plots/data.py", set()),
        ("errors.py", set()),
        ("config/loading.py", set()),
        ("data/splits.py", set()),
        ("serving/app.py", set()),
        ("segmentation/classical.py", {"scanbook.segmentation.derived", "scanbook.segmentation.masks"}),
        ("data/adapters/synthetic/xray.py", {"scanbook.data.adapters.stand_in"}),
    ],
)
def test_a_stage_depends_on_what_computes_it(file: str, stages: set[str], copy: Copy) -> None:
    with (copy.lib / file).open("a") as opened:
        opened.write("\nADDED = 1\n")
    assert copy.changed()[0] == stages


def test_the_decoder_concerns_all_that_sees_pixels() -> None:
    for name in ("pixels", "quality.scanning", "adapters.medmnist"):
        assert "scanbook.data.images" in code.stage_code(f"scanbook.data.{name}").modules
    assert (
        "scanbook.serving.predictor"
        in store.SourceCode().code_of_script("from scanbook.benchmark import client\nclient.x").modules
    )


def test_every_package_that_is_imported_has_a_version() -> None:
    """By its own name, as installed: a package that is not found would never make anything stale."""
    installed = importlib.metadata.packages_distributions()
    known = {"google", "js", "pyodide", "mlflow"}  # of Colab, of browsers, and of users who have it
    for path in store.PACKAGE.rglob("*.py"):
        for name in code.analyse(path.read_bytes()).packages:
            if name not in known:
                assert machine.versions_of([name]), f"{path.name} imports {name}, of {installed.get(name)}"


def test_a_report_and_a_sweep_depend_on_the_builders_of_their_backbones_and_on_policies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prints() -> list[str]:
        sets = ("backbones=[resnet18]", "backbones=[baseline_cnn]", "augmentation=dermoscopy+mixup")
        return [freshness.study_fingerprint(config.load("synthetic", "smoke", overrides=values)) for values in sets]

    before = prints()
    version = machine.version
    monkeypatch.setattr(machine, "version", lambda name: "0" if name == "keras-hub" else version(name))
    assert [now == then for now, then in zip(prints(), before, strict=True)] == [False, True, True]
    monkeypatch.undo()
    monkeypatch.setattr(registry, "policy", lambda name: registry.Policy(mixup=0.9 if "+" in name else 0.1))
    assert prints()[2] != before[2]


def test_packages_that_matter_are_those_that_a_stage_imports() -> None:
    decoding = machine.numeric_versions(code.stage_code("scanbook.data.pixels").packages)
    training = machine.numeric_versions(code.stage_code("scanbook.training.end_to_end").packages)
    assert {"numpy", "opencv-python-headless", "python"} <= decoding.keys() <= training.keys()
    assert {"keras", "tensorflow", "scikit-learn"} <= training.keys() - decoding.keys()
    assert decoding["python"].count(".") == 1, "a patch of Python changes no number"
    assert ast.literal_eval(decoding["numpy"].split(".")[0]) >= 2
