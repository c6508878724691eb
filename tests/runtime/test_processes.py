"""Child processes: whole answers, one line for a failure, nothing left behind, and glibc's settings for all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from helpers.processes import has_ended
from scanbook.benchmark.client import plain_environment
from scanbook.errors import RunError
from scanbook.runner import execute
from scanbook.runtime.processes import MALLOC, Child

ROOT = Path(__file__).resolve().parents[2]
ECHO = """
import json, os, subprocess, sys
from scanbook.runtime.processes import answering
answer = answering()
print("noise that a library prints")
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
for line in sys.stdin:
    answer({"asked": json.loads(line), "other": other.pid, "environment": dict(os.environ)})
"""


def test_a_child_answers_every_line_and_ends_with_the_processes_that_it_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in MALLOC:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    with Child("echo", ["-c", ECHO], {"MALLOC_TOP_PAD_": None}) as child:
        answers = [child.ask(message) for message in (1, {"a": ["ü"]}, None)]
        pids = [child.process.pid, answers[0]["other"]]
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert [answer["asked"] for answer in answers] == [1, {"a": ["ü"]}, None]
    environment = answers[0]["environment"]
    expected = MALLOC | {"MALLOC_ARENA_MAX": "7"}  # the user's value stays
    del expected["MALLOC_TOP_PAD_"]
    assert {name: value for name, value in environment.items() if name in MALLOC} == expected
    assert all(has_ended(pid) for pid in pids)
    child.stop()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; print('first', file=sys.stderr); sys.exit('the last line')", "the last line"),
        (
            "import os; os.kill(os.getpid(), 9)",
            r"killed by signal 9, as happens when memory .*\(last line: no message\)",
        ),
        ('print(\'{"error": "it says so"}\')', "it says so"),
        ("pass", "no message"),
    ],
)
def test_a_failure_is_one_line(code: str, reason: str) -> None:
    child = Child("a thing", ["-S", "-c", code], {}, hint="do less")
    with pytest.raises(RunError, match=f"^a thing failed: {reason}; do less$"):
        child.ask("anything")


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    with Child("sleeper", ["-S", "-c", "import time; time.sleep(600)"], {}, limit=0.2) as child:
        with pytest.raises(RunError, match=r"^sleeper failed: no answer in 0\.2 s$"):
            child.ask()
        assert not psutil.pid_exists(child.process.pid)


def test_a_kernel_has_the_settings_of_malloc_and_a_service_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MALLOC:
        monkeypatch.delenv(name, raising=False)
    with execute._kernel_environment("01_eda"):  # papermill starts the kernel with this environment
        assert {name: os.environ[name] for name in MALLOC} == MALLOC
        assert not MALLOC.keys() & plain_environment().keys()
        os.environ["MALLOC_ARENA_MAX"] = "7"
        assert plain_environment()["MALLOC_ARENA_MAX"] == "7", "the user's value reaches a service, too"
    assert not MALLOC.keys() & os.environ.keys()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_a_program_that_computes_starts_again_with_the_settings_of_malloc() -> None:
    code = (
        "import os, sys; from scanbook.runtime import processes; processes.restart_with_malloc(); "
        "print(os.getpid(), *sys.argv[1:], *(os.environ[name] for name in processes.MALLOC))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in MALLOC}
    started = subprocess.Popen([sys.executable, "-c", code, "a b"], env=environment, stdout=subprocess.PIPE, text=True)
    output = started.communicate(timeout=60)[0]
    assert output == f"{started.pid} a b {' '.join(MALLOC.values())}\n"


def test_the_makefile_has_the_same_settings() -> None:
    lines = re.findall(r'(\w+)="\$\$\{\1:-(\d+)\}"', (ROOT / "Makefile").read_text())
    assert dict(lines) == MALLOC
