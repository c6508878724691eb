"""DATA=kaggle: a dataset arrives whole or not at all, and whatever fails is one line without a credential in it."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from kagglehub import exceptions

from helpers.layouts import layout, make_study, write_image
from scanbook import cli
from scanbook.config import Study, load
from scanbook.data import adapters
from scanbook.data.adapters import kaggle
from scanbook.errors import DataError
from scanbook.runner import schedule
from scanbook.runner.freshness import Batch

SECRET = "KGAT_0123456789abcdef"  # noqa: S105  gitleaks:allow
DATASET = {"adapter": "folder", "kaggle": "owner/some-images"}
COMPETITION = {"adapter": "folder", "kaggle": "competitions/some-contest"}


@pytest.fixture(autouse=True)
def _own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SCANBOOK_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)


Action = Callable[[str, Path], str | None]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Action], list[tuple[str, str]]]:
    """Puts an action in the place of kagglehub's downloads; returns the requests."""

    def install(action: Action) -> list[tuple[str, str]]:
        requested = []

        def download(kind: str) -> Callable[..., str]:
            def run(handle: str, *, output_dir: str) -> str:
                requested.append((kind, handle))
                print(f"Downloading {handle} with {SECRET} ...")
                return action(handle, Path(output_dir)) or output_dir

            return run

        fake = types.ModuleType("kagglehub")
        fake.dataset_download, fake.competition_download = download("dataset"), download("competition")
        monkeypatch.setitem(sys.modules, "kagglehub", fake)
        monkeypatch.setitem(sys.modules, "kagglehub.exceptions", exceptions)
        return requested

    return install


def whole(_: str, folder: Path) -> None:
    layout(folder, "a/1.png", "a/2.png", "b/1.png", ".complete/bundle.png")


def study(dataset: dict[str, Any] = DATASET) -> Study:
    return make_study("kaggle", dataset)


def left(where: Path) -> list[str]:
    return [path.name for path in where.parent.iterdir()] if where.parent.is_dir() else []


def complaint(dataset: dict[str, Any] = DATASET) -> str:
    with pytest.raises(DataError) as caught:
        kaggle.fetch(study(dataset))
    message = str(caught.value)
    assert "\n" not in message and SECRET not in message
    assert left(study().location) == [], "nothing half-written stays"
    return message


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [(DATASET, ("dataset", "owner/some-images")), (COMPETITION, ("competition", "some-contest"))],
)
def test_a_dataset_arrives_in_its_folder(
    dataset: dict[str, Any], expected: tuple[str, str], hub: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    requested = hub(whole)
    where = kaggle.fetch(study(dataset))
    assert where == study().location and requested == [expected]
    assert sorted(path.name for path in where.iterdir()) == ["a", "b"], "kagglehub's own mark is gone"
    assert left(where) == ["mini"] and capsys.readouterr().out == "", "Make reads standard output"
    assert adapters.load(study(dataset)).classes == ("a", "b")
    (where / "a" / "1.png").unlink()
    assert kaggle.fetch(study(dataset)) == where and len(requested) == 1, "what is there stays as it is"


def test_the_copy_that_a_platform_has_is_linked_not_moved(hub: Any, tmp_path: Path) -> None:
    platform = layout(tmp_path / "kaggle" / "input", "a/1.png", "b/1.png")
    hub(lambda *_: str(platform))
    where = kaggle.fetch(study())
    assert where.is_symlink() and adapters.load(study()).classes == ("a", "b") and platform.is_dir()
    platform.rename(tmp_path / "gone")
    hub(whole)
    assert not kaggle.fetch(study()).is_symlink() and left(where) == ["mini"], "a link to nothing is replaced"


def half(error: BaseException) -> Action:
    def action(_: str, folder: Path) -> None:
        write_image(folder / "a" / "1.png")
        raise error

    return action


def refused(status: int) -> exceptions.KaggleApiHTTPError:
    response = requests.Response()
    response.status_code = status
    return exceptions.KaggleApiHTTPError(f"{status} Client Error.\n\nheaders: {SECRET}", response=response)


@pytest.mark.parametrize(
    ("error", "dataset", "splits"),
    [
        (
            exceptions.UnauthenticatedError(),
            COMPETITION,
            ("needs credentials", "kaggle.com/settings", "KAGGLE_API_TOKEN"),
        ),
        (refused(401), DATASET, ("refuses the credentials", "kaggle.json")),
        (refused(403), COMPETITION, ("accept the rules at https://www.kaggle.com/competitions/some-contest/rules",)),
        (refused(403), DATASET, ("https://www.kaggle.com/datasets/owner/some-images", "KAGGLE_KEY")),
        (refused(404), DATASET, ("Kaggle has no owner/some-images", "dataset.kaggle")),
        (refused(503), DATASET, ("HTTP 503", "try again later")),
        (requests.exceptions.ConnectionError(SECRET), DATASET, ("cannot reach Kaggle", "ConnectionError", "DATA=path")),
        (requests.exceptions.ReadTimeout(SECRET), COMPETITION, ("cannot reach Kaggle", "ReadTimeout")),
        (exceptions.DataCorruptionError(SECRET), DATASET, ("damaged", "try again")),
        (ValueError(f"Invalid Kaggle credentials file {SECRET}"), DATASET, ("malformed", "dataset.kaggle")),
        (OSError(28, "No space left on device"), DATASET, ("No space left", "make room")),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, BaseException) else "",
)
def test_whatever_fails_is_one_line(
    error: Exception, dataset: dict[str, Any], splits: tuple[str, ...], hub: Any
) -> None:
    hub(half(error))
    message = complaint(dataset)
    assert all(split in message for split in splits), message


def test_an_interrupted_download_leaves_nothing(hub: Any) -> None:
    hub(half(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        kaggle.fetch(study())
    assert left(study().location) == []


def test_what_kaggle_cannot_give_is_one_line(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = hub(lambda _, folder: folder.mkdir())
    assert "no dataset.kaggle" in complaint({"adapter": "folder"}) and requested == []
    assert "gave no files" in complaint()
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert 'pip install "scanbook[kaggle]"' in complaint()


def test_a_data_folder_that_cannot_be_made_is_one_line(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(whole)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SCANBOOK_DATA", str(tmp_path / "file" / "data"))
    with pytest.raises(DataError, match="SCANBOOK_DATA"):
        kaggle.fetch(study())


@pytest.mark.slow
def test_kagglehub_itself_takes_these_arguments_and_fails_in_one_line_without_a_network(tmp_path: Path) -> None:
    program = (
        "import os\nfrom helpers.layouts import make_study\nfrom scanbook.data.adapters import kaggle\n"
        "from scanbook.errors import DataError\n"
        f"for token in (None, '{SECRET}'):\n"
        "    os.environ.update({'KAGGLE_API_TOKEN': token} if token else {})\n"
        "    for name in ('owner/some-images', 'competitions/some-contest', 'malformed'):\n"
        "        try:\n            kaggle.fetch(make_study('kaggle', {'adapter': 'folder', 'kaggle': name}))\n"
        "        except DataError as error:\n            print(error)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "HOME": str(tmp_path),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    environment.pop("KAGGLE_API_TOKEN", None)
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    lines = process.stdout.splitlines()
    assert SECRET not in process.stdout + process.stderr and len(lines) == 6
    for message, (public, contest, malformed) in (("needs credentials", lines[:3]), ("cannot reach Kaggle", lines[3:])):
        assert "cannot reach Kaggle for owner/some-images" in public and message in contest
        assert "some-contest" in contest and "'malformed' is malformed" in malformed


def test_reports_are_compared_with_what_was_downloaded(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not against the folder that was missing when the command began, by which each would be stale at once."""
    monkeypatch.setenv("SCANBOOK_REPORTS", str(tmp_path / "reports"))
    requested = hub(whole)
    planned: list[Batch] = []
    monkeypatch.setattr(schedule, "run_stale", lambda batches, *_: planned.extend(batches) or True)
    monkeypatch.setattr(cli, "check_images", lambda study, label: None)  # these files are no images
    assert cli.main(["reports", "--study", "dermnet", "--data", "kaggle"]) == 0
    assert len(requested) == 1
    assert planned[0].fingerprints("01_eda") == Batch(load("dermnet", data="kaggle")).fingerprints("01_eda")
