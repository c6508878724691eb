"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from helpers.projects import make_project
from scanbook import runtime

if TYPE_CHECKING:
    from helpers.cluster import Cluster

# no clock decides: an example may take long on a busy machine
hypothesis.settings.register_profile("scanbook", deadline=None)
hypothesis.settings.load_profile("scanbook")

FIRST = (
    *("test_reports.py", "test_studies.py"),
    *("05_fine_tuning.ipynb", "04_transfer_learning.ipynb", "02_segmentation.ipynb", "06_hardware_benchmark.ipynb"),
    *(
        "07_export_flask.ipynb",
        "08_external_validation.ipynb",
        "03_augmentation.ipynb",
        "09_pitfalls.ipynb",
        "01_eda.ipynb",
    ),
    *("test_training.py", "test_grad_cam.py", "test_engines.py", "test_backbones.py", "test_distributed.py"),
    "test_cluster.py",
)
"""Files that take longest, in the order in which none waits for what another one trains."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import the tests without looking for garbage, which takes half of the time."""
    with runtime.without_garbage_collection():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, so that all workers end at the same time."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture(scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store and a reports folder of the session's own: no test reads or leaves anything in the project."""
    return {f"SCANBOOK_{name}": str(tmp_path_factory.mktemp(name.lower())) for name in ("STORE", "REPORTS")}


@pytest.fixture(scope="module", autouse=True)
def _own_environment(_own_folders: dict[str, str]) -> Iterator[None]:
    """Environment of a test file; undone after it, since nbval runs the notebooks in this process with the caller's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _own_folders.items():
            patch.setenv(name, value)
        for name in ("SCANBOOK_PROFILE", "SCANBOOK_HOME", "SCANBOOK_DATA", "SCANBOOK_TRACEBACK"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of small notebooks, none of them run."""
    monkeypatch.setenv("SCANBOOK_HOME", str(make_project(tmp_path)))
    monkeypatch.setenv("SCANBOOK_PROFILE", "smoke")
    for name in ("REPORTS", "STORE"):
        monkeypatch.setenv(f"SCANBOOK_{name}", str(tmp_path / name.lower()))
    return tmp_path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real datasets."""
    named = os.environ.get("SCANBOOK_REAL_DATA", "")
    if not named:
        pytest.skip("SCANBOOK_REAL_DATA does not name the folder of the real datasets")
    return Path(named)


@pytest.fixture(scope="session")
def _running_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from helpers import cluster

    with cluster.started(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def slurm(_running_slurm: Cluster) -> Cluster:
    """A Slurm of two nodes, both of which are idle when the test begins."""
    _running_slurm.bring_back()
    return _running_slurm
