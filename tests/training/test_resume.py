"""A killed machine: fine-tuning goes on from its last epoch and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
NAME = "05_fine_tuning"
WORDS = ("run", NAME, "--study", "synthetic", "--profile", "smoke", "--set", "fine_tuning.epochs=6")


def start(room: Path) -> subprocess.Popen[bytes]:
    own = {"SCANBOOK_STORE": str(room / "store"), "SCANBOOK_REPORTS": str(room / "reports"), "HOME": str(room)}
    command = [sys.executable, "-m", "scanbook.cli", *WORDS]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for the command and every kernel below it, as when a machine loses power."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in family:
        each.send_signal(signal.SIGKILL)
    psutil.wait_procs(family)
    process.wait()


def results(room: Path) -> dict:
    return json.loads((room / "reports" / "synthetic" / "smoke" / NAME / "results.json").read_text())


@pytest.mark.slow
def test_killed_fine_tuning_goes_on_to_the_same_results(tmp_path: Path) -> None:
    undisturbed = start(tmp_path)
    said = undisturbed.communicate(timeout=300)[0].decode()
    assert undisturbed.returncode == 0, said
    expected = results(tmp_path)
    tuned = tmp_path / "store" / "fine_tuning"
    shutil.rmtree(tuned)
    shutil.rmtree(tmp_path / "reports")

    killed, until = start(tmp_path), time.monotonic() + 300
    while not (found := list(tuned.glob(".*-checkpoint/all.npz"))) and time.monotonic() < until:
        assert killed.poll() is None, killed.stdout.read().decode()
        time.sleep(0.01)
    kill_all(killed)
    whole = [path for path in tuned.iterdir() if path.is_dir() and not path.name.startswith(".")]
    assert found and not whole, "it was to be killed in the middle"

    again = start(tmp_path)
    said = again.communicate(timeout=300)[0].decode()
    assert again.returncode == 0, said
    report = (tmp_path / "reports" / "synthetic" / "smoke" / NAME / "report.html").read_text()
    assert "fine-tuned: continues after epoch" in report and "epoch 6/6" in report
    assert "epoch 1/6" not in report, "trained anew"
    assert results(tmp_path) == expected
    assert not list(tuned.glob(".*-checkpoint"))
