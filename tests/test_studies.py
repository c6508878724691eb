"""Whole studies, as `make reports` runs them, and what their results must show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from scanbook.runner.order import NOTEBOOKS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def make(*words: str, room: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make` with folders of its own below `room`, and no Keras cache but one that is named."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_HOME"} | {
        "HOME": str(room / "home"),
        "SCANBOOK_REPORTS": str(room / "reports"),
        "SCANBOOK_STORE": str(room / "store"),
    }
    (room / "home").mkdir(exist_ok=True)
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False)


def results(room: Path, study: str, profile: str) -> dict[str, dict[str, Any]]:
    folder = room / "reports" / study / profile
    return {name: json.loads((folder / name / "metrics.json").read_text())["results"] for name in NOTEBOOKS}


def test_the_default_study_shows_what_it_is_for(tmp_path: Path) -> None:
    done = make("reports", "PROFILE=quick", room=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path, "drawn", "quick")
    assert (tmp_path / "reports" / "index.html").is_file()
    for name in NOTEBOOKS:
        assert (tmp_path / "reports" / "drawn" / "quick" / name / "report.html").stat().st_size > 10_000

    transfer, tuned = found["04_transfer_learning"], found["05_fine_tuning"]
    assert transfer["weights"] == {"mobilenet_v2_0.35": "scanbook"}
    assert set(transfer["differences"]) == {"baseline_cnn, from scratch", "mobilenet_v2_0.35, from scratch"}
    assert all(low > 0 for _, low, _ in transfer["differences"].values()), transfer["differences"]
    assert tuned["differences"]["accuracy"][0] > 0, tuned["differences"]
    bayes = found["01_eda"]["bayes_accuracy"]
    assert bayes < 0.95
    arms = [summary["accuracy"] for summary in transfer["summaries"].values()] + [tuned["summary"]["accuracy"]]
    assert all(arm["low"] < bayes for arm in arms)
    assert tuned["summary"]["accuracy"]["value"] > 0.6
    faults = found["01_eda"]["planted_faults"]
    assert faults["unreadable"]["found"] == faults["unreadable"]["planted"] > 0
    assert faults["exact duplicates"]["found"] == faults["exact duplicates"]["planted"] > 0
    assert found["07_export_flask"]["parity"] == {"stored logits": True, "OpenVINO": True, "HTTP": True}
    for name in NOTEBOOKS:
        metrics = json.loads((tmp_path / "reports" / "drawn" / "quick" / name / "metrics.json").read_text())
        assert metrics["peak memory (GiB)"] < 4 / 2, "two run side by side"

    again = make("reports", "PROFILE=quick", room=tmp_path)
    assert again.returncode == 0 and "starts:" not in again.stdout


def test_two_runs_with_one_seed_give_identical_results(tmp_path: Path) -> None:
    files = []
    for run in ("first", "second"):
        room = tmp_path / run
        room.mkdir()
        done = make("reports", "PROFILE=smoke", room=room)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = room / "reports" / "drawn" / "smoke"
        files.append({name: (folder / name / "results.json").read_bytes() for name in NOTEBOOKS})
    assert files[0] == files[1]


def test_a_notebook_runs_alone_from_any_directory(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = shutil.copy(ROOT / "notebooks" / "07_export_flask.ipynb", elsewhere)
    environment = os.environ | {
        "SCANBOOK_PROFILE": "smoke",
        "SCANBOOK_REPORTS": str(tmp_path / "reports"),
        "SCANBOOK_STORE": str(tmp_path / "store"),
    }
    command = [ROOT / ".venv/bin/python", "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", copy]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recorded = json.loads((tmp_path / "reports/drawn/smoke/07_export_flask/results.json").read_text())
    assert recorded["parity"]["HTTP"] is True


@pytest.mark.parametrize(
    ("archive", "study", "classes"),
    [("ham10000_200x150.zip", "ham10000", 7), ("covid19_small.zip", "folder", 3)],
)
def test_real_images_go_all_the_way(tmp_path: Path, real_data: Path, archive: str, study: str, classes: int) -> None:
    with zipfile.ZipFile(real_data / archive) as packed:
        packed.extractall(tmp_path / "data")
    words = [f"DATA={tmp_path / 'data'}", "PROFILE=smoke"] + ([f"STUDY={study}"] if study != "folder" else [])
    keras_home = os.environ.get("KERAS_HOME", str(tmp_path / "home" / ".keras"))
    done = make("reports", *words, room=tmp_path, KERAS_HOME=keras_home)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path, study, "smoke")
    assert len(found["05_fine_tuning"]["per_class"]) == classes
    assert found["07_export_flask"]["parity"]["HTTP"] is True
