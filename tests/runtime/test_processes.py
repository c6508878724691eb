"""Processes that answer: whole answers, one line for what failed, and nothing left behind."""

from __future__ import annotations

import psutil
import pytest

from helpers.ending import ended
from scanbook.errors import RunError
from scanbook.runtime.processes import Child

ECHO = """
import json, subprocess, sys
from scanbook.runtime.processes import answering
answer = answering()
print("noise that a library prints")
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
for line in sys.stdin:
    answer({"asked": json.loads(line), "other": other.pid})
"""


def test_it_answers_every_line_and_takes_what_it_started_with_it() -> None:
    with Child("echo", ["-c", ECHO], {}) as child:
        answers = [child.ask(each) for each in (1, {"a": ["ü"]}, None)]
        pids = [child.process.pid, answers[0]["other"]]
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert [each["asked"] for each in answers] == [1, {"a": ["ü"]}, None]
    assert all(ended(pid) for pid in pids)
    child.stop()


@pytest.mark.parametrize(
    ("code", "said"),
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
def test_what_failed_is_one_line(code: str, said: str) -> None:
    child = Child("a thing", ["-c", code], {}, hint="do less")
    with pytest.raises(RunError, match=f"^a thing failed: {said}; do less$"):
        child.ask("anything")


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    with Child("sleeper", ["-c", "import time; time.sleep(600)"], {}, limit=0.2) as child:
        with pytest.raises(RunError, match=r"^sleeper failed: no answer in 0\.2 s$"):
            child.ask()
        assert not psutil.pid_exists(child.process.pid)
