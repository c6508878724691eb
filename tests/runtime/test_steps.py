"""What a process does and how far it is, as a log or another process reads it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from scanbook import runtime
from scanbook.runtime import steps


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(steps.FILE, str(tmp_path / "steps.json"))
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")
    monkeypatch.setattr(steps, "_INTERVAL", 0.0)
    return tmp_path / "steps.json"


def test_steps_inside_each_other_are_read_by_another_process(file: Path) -> None:
    assert steps.describe(steps.read(file)) == ""
    seen = []
    with runtime.step("stage features"):
        for _ in runtime.progress("abcd", "reading"):
            seen.append(steps.describe(steps.read(file)))
        assert steps.describe(steps.read(file)) == "stage features"
    assert seen[0] == "stage features: reading, 0 of 4"
    assert seen[2] == "stage features: reading, 2 of 4, about 0 s left"
    assert steps.read(file) == [] and [path.name for path in file.parent.iterdir()] == [file.name]


def test_time_left_is_that_of_the_parts_done_since_the_start() -> None:
    now = time.time()
    training = steps.Step("ResNet18", 12, "epoch", done=8, before=4, started=now - 400)
    assert training.describe(now) == "ResNet18, epoch 9 of 12, about 6 min 40 s left"
    assert steps.Step("ResNet18", 12, "epoch", done=4, before=4).describe(now) == "ResNet18, epoch 5 of 12"
    last = steps.Step("ResNet18", 12, "epoch", done=12, started=now - 9)
    assert last.describe(now) == "ResNet18, epoch 12 of 12, about 0 s left"


def test_a_step_that_failed_is_not_reported_any_more(file: Path) -> None:
    with runtime.step("outer"):
        with pytest.raises(ValueError, match="broke"), runtime.step("inner"):
            left_behind = runtime.step("of a loop that nobody ends")
            left_behind.__enter__()
            raise ValueError("broke")
        assert steps.describe() == "outer"

    @runtime.step("a function")
    def work() -> str:
        return steps.describe()

    assert work() == work() == "a function" and steps.describe() == ""


@pytest.mark.parametrize("text", ["", "{", "1", '[{"colour": 1}]'])
def test_a_damaged_file_shows_nothing(text: str, file: Path) -> None:
    file.write_text(text)
    assert steps.read(file) == []


def test_a_folder_that_is_gone_stops_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(steps.FILE, str(tmp_path / "gone" / "steps.json"))
    with runtime.step("work"):
        assert steps.describe() == "work"


def test_a_log_has_a_line_as_long_as_a_step_lasts() -> None:
    lines: list[str] = []
    several = threading.Event()

    def write_line(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            several.set()

    with steps.logged(write_line, interval=0.01):
        with runtime.step("work"):
            assert several.wait(10)
        count = len(lines)
    assert set(lines) == {"work"} and len(lines) - count <= 1
