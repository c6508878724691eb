"""Whole studies, as `make reports` runs them, and what their results must show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from helpers import pages
from scanbook.reporting.suite import BENCHMARK, NOTEBOOKS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
MAKE = ("make", "--no-print-directory", "reports")
Done = subprocess.CompletedProcess[str]


def run(*words: str, room: Path, core: int | None = None, **variables: str) -> Done:
    """A command with folders of its own below `room`, on one core or on all; no Keras cache but one that is named."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_HOME"} | {
        "HOME": str(room / "home"),
        "SCANBOOK_REPORTS": str(room / "reports"),
        "SCANBOOK_STORE": str(room / "store"),
    }
    (room / "home").mkdir(exist_ok=True)
    command = [*_pinned(core), *words]
    return subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False)


def _pinned(core: int | None) -> list[str]:
    return ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []


def notebooks(names: Iterable[str], study: str, *options: str) -> list[list[str]]:
    """The commands that run some notebooks of a study in smoke, one after the other."""
    command = [str(ROOT / ".venv" / "bin" / "scanbook"), "run"]
    return [[*command, name, "--study", study, "--profile", "smoke", *options] for name in names]


def run_each(jobs: Sequence[Sequence[Sequence[str]]], rooms: Sequence[Path]) -> list[Done]:
    """Several jobs at a time, each on a core of its own: side by side on all cores they would be slower.

    A job is the commands that follow each other until one fails; what the last did is returned.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0, 1]
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores[:2]:
        free.put(core)

    def work(job: Sequence[Sequence[str]], room: Path) -> Done:
        core = free.get()
        try:
            for words in job:
                done = run(*words, room=room, core=core, SCANBOOK_DATA=str(room / "data"))
                if done.returncode:
                    break
            return done
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores[:2])) as pool:
        return list(pool.map(work, jobs, rooms))


def results(room: Path, study: str, profile: str, names: Sequence[str] = NOTEBOOKS) -> dict[str, dict[str, Any]]:
    folder = room / "reports" / study / profile
    return {name: json.loads((folder / name / "metrics.json").read_text())["results"] for name in names}


def files(folder: Path) -> dict[Path, int]:
    """When each file below a folder was last written, in ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


SHORTER = "benchmark.images=128 benchmark.windows=6 segmentation.unet.epochs=2"
"""What notebooks 02 and 06 find is no part of what the default study must show."""


def test_the_default_study_shows_what_it_is_for(tmp_path: Path) -> None:
    words = [*MAKE, "PROFILE=quick", f"SET={SHORTER}"]
    done = run(*words, room=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path, "synthetic", "quick")
    assert (tmp_path / "reports" / "index.html").is_file()
    for name in NOTEBOOKS:
        assert (tmp_path / "reports" / "synthetic" / "quick" / name / "report.html").stat().st_size > 10_000

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
    parity = found["07_export_flask"]["parity"]
    assert set(parity) == {"Keras, saved", "OpenVINO", "OpenVINO int8", "SavedModel", "ONNX", "stored logits", "HTTP"}
    assert all(agrees for place, agrees in parity.items() if place != "OpenVINO int8"), parity
    looks = {name: found[name].get("test_evaluations", {}) for name in NOTEBOOKS}
    assert all(looks[name] for name in NOTEBOOKS if name not in ("01_eda", BENCHMARK))
    assert {count for each in looks.values() for count in each.values()} == {1}, "no network is scored twice on test"
    for name in NOTEBOOKS:
        metrics = json.loads((tmp_path / "reports" / "synthetic" / "quick" / name / "metrics.json").read_text())
        # two run side by side, but for the benchmark
        assert metrics["peak memory (GiB)"] < (4 if name == BENCHMARK else 4 / 2), name

    pages.check_reports(tmp_path / "reports", axe=True)

    written = files(tmp_path / "reports")
    again = run(*words, room=tmp_path)
    assert again.returncode == 0 and "starts:" not in again.stdout and "all 7 reports are fresh" in again.stderr
    assert files(tmp_path / "reports") == written, "a fresh report is left alone"


STAND_INS = ("dermnet", "melanoma", "chest_xray", "retinopathy", "skin11")
AGAIN = f"{STAND_INS[-1]} again"
REPEATED = ("04_transfer_learning", "05_fine_tuning")
"""Notebooks that train in every way; tests/test_unet.py repeats the U-Net's training."""


TABLE = "ham10000"
ON_A_TABLE = ("01_eda", "02_segmentation", "05_fine_tuning", "07_export_flask")
"""Notebooks that see what a table has and class folders have not: groups, masks and metadata."""


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Done]]:
    """All five studies on their stand-ins, one of them again, and a real dataset where there is one.

    The room of each, and how its last command ended.
    """
    jobs = {study: [[*MAKE, "JOBS=1", f"STUDY={study}", "PROFILE=smoke"]] for study in STAND_INS}
    jobs[AGAIN] = notebooks(REPEATED, STAND_INS[-1])
    rooms = {name: tmp_path_factory.mktemp(name.replace(" ", "_")) for name in (*jobs, TABLE)}
    if os.environ.get("SCANBOOK_REAL_DATA"):
        images = unpacked("ham10000_200x150.zip", rooms[TABLE] / "images")
        weights = f"KERAS_HOME={keras_home(rooms[TABLE])}"
        jobs[TABLE] = [["env", weights, *words] for words in notebooks(ON_A_TABLE, TABLE, "--data", str(images))]
    done = run_each([*jobs.values()], [rooms[name] for name in jobs])
    return {name: (rooms[name], each) for name, each in zip(jobs, done, strict=True)}


@pytest.mark.parametrize("study", STAND_INS)
def test_a_published_study_runs_on_its_stand_in(study: str, side_by_side: dict[str, tuple[Path, Done]]) -> None:
    room, done = side_by_side[study]
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(room, study, "smoke")
    assert found["07_export_flask"]["parity"]["HTTP"] is True
    faults = found["01_eda"]["planted_faults"]
    for kind in ("unreadable", "exact duplicates", "near duplicates"):
        assert faults[kind]["found"] == faults[kind]["planted"] > 0, kind
    for name in NOTEBOOKS:
        folder = room / "reports" / study / "smoke" / name
        assert "synthetic images that stand in for the real ones" in (folder / "report.html").read_text()
    assert (room / "reports" / study / "smoke" / "01_eda" / "dataset_card.md").is_file()
    told = (room / "reports" / study / "smoke" / "index.html").read_text()
    assert "this run is on synthetic ones" in told
    pages.check_reports(room / "reports")


def test_two_runs_with_one_seed_give_identical_results(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    study = STAND_INS[-1]
    assert side_by_side[AGAIN][1].returncode == 0, side_by_side[AGAIN][1]
    rooms = [side_by_side[name][0] / "reports" / study / "smoke" for name in (study, AGAIN)]
    first, second = ({name: (each / name / "results.json").read_bytes() for name in REPEATED} for each in rooms)
    assert first == second


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
    recorded = json.loads((tmp_path / "reports/synthetic/smoke/07_export_flask/results.json").read_text())
    assert recorded["parity"]["HTTP"] is True


def unpacked(archive: str, folder: Path) -> Path:
    """Folder of the images of an archive of real ones."""
    with zipfile.ZipFile(Path(os.environ["SCANBOOK_REAL_DATA"]) / archive) as packed:
        packed.extractall(folder)
    return folder


def keras_home(room: Path) -> str:
    """Where ImageNet weights are, or an empty place."""
    return os.environ.get("KERAS_HOME", str(room / "home" / ".keras"))


def agree(room: Path, study: str, classes: int) -> None:
    """Every class of a dataset was learned, and the service gives the network's answers."""
    found = results(room, study, "smoke", ("05_fine_tuning", "07_export_flask"))
    assert len(found["05_fine_tuning"]["per_class"]) == classes + len(("macro average", "weighted average"))
    assert found["07_export_flask"]["parity"]["HTTP"] is True


@pytest.mark.usefixtures("real_data")
def test_a_table_of_real_images_goes_all_the_way(side_by_side: dict[str, tuple[Path, Done]]) -> None:
    room, done = side_by_side[TABLE]
    assert done.returncode == 0, done.stdout + done.stderr
    agree(room, TABLE, 7)


@pytest.mark.usefixtures("real_data")
def test_class_folders_of_real_images_give_all_reports(tmp_path: Path) -> None:
    images = unpacked("covid19_small.zip", tmp_path / "images")
    done = run(*MAKE, f"DATA={images}", "PROFILE=smoke", room=tmp_path, KERAS_HOME=keras_home(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(results(tmp_path, "folder", "smoke")) == len(NOTEBOOKS)
    agree(tmp_path, "folder", 3)
    pages.check_reports(tmp_path / "reports")
