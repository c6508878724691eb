"""Former names of keys, studies and adapters: each still works, and prints one line that says the present one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from scanbook import cli, config
from scanbook.config import Study, loading
from scanbook.errors import StudyError

FOLDER = {"adapter": "folder"}
TABLE = {"adapter": "table", "csv": "a.csv", "image_column": "a", "label_column": "b"}
FORMER: dict[str, tuple[dict[str, str], object, Callable[[Study], object]]] = {
    "parts": (FOLDER, {"seed": 3}, lambda study: study.splits.model_dump(include={"seed"})),
    "limit_shares": (FOLDER, "source", lambda study: study.limit_class_balance),
    "dataset.claimed_parts": (FOLDER, {"a": 2}, lambda study: study.dataset.claimed_splits),
    "dataset.part_column": (TABLE, "split", lambda study: study.dataset.split_column),
    "stand_in.fewest": (FOLDER, 3, lambda study: study.stand_in.min_per_class),
    "segmentation.target": (FOLDER, "lungs", lambda study: study.segmentation.structure),
    "evaluation.findings": (FOLDER, {"t": ["a"]}, lambda study: study.evaluation.targets),
    "evaluation.answered": (FOLDER, 0.5, lambda study: study.evaluation.coverage),
}
"""For each former key a dataset in which it is valid, a value, and where the study has it now."""


@pytest.fixture(autouse=True)
def _forget() -> None:
    """Let each test print its lines again, which a process prints once."""
    loading._report_renamed.cache_clear()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a study file of another project."""
    folder = tmp_path / "notebooks" / "studies"
    folder.mkdir(parents=True)
    monkeypatch.setenv("SCANBOOK_HOME", str(tmp_path))

    def write(name: str = "mine", *changes: dict[str, object], dataset: dict[str, str] = FOLDER) -> None:
        content = {"study": name, "title": "T", "question": "Q?", "dataset": dataset, "backbones": ["baseline_cnn"]}
        for change in ({"stand_in": {"classes": {"a": "nevus"}}}, *changes):
            content = loading._merge(content, change)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))

    return write


def nested(key: str, value: object) -> dict[str, object]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def test_every_former_key_is_tested() -> None:
    assert FORMER.keys() == loading.RENAMED_KEYS.keys()


@pytest.mark.parametrize("place", ["file", "profiles", "SET"])
@pytest.mark.parametrize("former", FORMER)
def test_a_former_key_works_and_prints_one_line(
    former: str, place: str, write: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, value, read = FORMER[former]
    change = nested(former, value)
    changes = {"file": [change], "profiles": [{"profiles": {"quick": change}}], "SET": []}[place]
    write("mine", *changes, dataset=dataset)
    text = yaml.safe_dump([value], default_flow_style=True).strip()[1:-1]
    overrides = f"'{former}={text}'" if place == "SET" else ""
    for _ in range(2):
        assert read(config.load("mine", overrides=overrides)) == value
    present = former.replace(former.rpartition(".")[2], loading.RENAMED_KEYS[former])
    line = f"scanbook: study mine: key {former!r} is now called {present!r}; the old name still works\n"
    assert capsys.readouterr().err == line


def test_a_former_key_beside_its_present_one_is_refused(write: Callable[..., None]) -> None:
    message = "study mine: 'evaluation.answered' is now called 'evaluation.coverage', and both are set; remove"
    write()
    with pytest.raises(StudyError, match=message):
        config.load("mine", overrides="evaluation.coverage=0.8 evaluation.answered=0.7")
    write("mine", {"evaluation": {"coverage": 0.8, "answered": 0.7}})
    with pytest.raises(StudyError, match=message):
        config.load("mine")
    write("mine", {"evaluation": {"answered": 0.7}})
    assert config.load("mine", overrides="evaluation.coverage=0.8").evaluation.coverage == 0.8, "SET comes after a file"


def test_a_former_study_and_adapter_work_and_print_one_line(
    write: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    write("synthetic", dataset={"adapter": "drawn"})
    write()
    for _ in range(2):
        study = config.load("drawn")
        assert study.study == "synthetic" and study.dataset.adapter == "synthetic"
        assert config.load("mine", overrides="dataset.adapter=drawn").dataset.adapter == "synthetic"
    assert capsys.readouterr().err.splitlines() == [
        "scanbook: study 'drawn' is now called 'synthetic'; the old name still works",
        "scanbook: study synthetic: adapter 'drawn' is now called 'synthetic'; the old name still works",
        "scanbook: study mine: adapter 'drawn' is now called 'synthetic'; the old name still works",
    ]
    write("drawn")
    assert config.load("drawn").study == "drawn", "a study of the user keeps its name"


def test_the_command_takes_a_former_study_as_make_passes_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--study", "drawn", "--profile", "smoke"]) == 0
    printed = capsys.readouterr()
    assert "synthetic/smoke" in printed.out and "drawn" not in printed.out
    assert printed.err == "scanbook: study 'drawn' is now called 'synthetic'; the old name still works\n"
