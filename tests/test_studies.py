"""Whole studies, as `make reports` runs them, and what their results must show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import pages
from scanbook.runner.order import BENCHMARK, NOTEBOOKS

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
Done = subprocess.CompletedProcess[str]


def make(*words: str, room: Path, core: int | None = None, **variables: str) -> Done:
    """`make` with folders of its own below `room`, on one core or on all, and no Keras cache but one that is named."""
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_HOME"} | {
        "HOME": str(room / "home"),
        "SCANBOOK_REPORTS": str(room / "reports"),
        "SCANBOOK_STORE": str(room / "store"),
    }
    (room / "home").mkdir(exist_ok=True)
    command = [*_pinned(core), "make", "--no-print-directory", *words]
    return subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False)


def _pinned(core: int | None) -> list[str]:
    return ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []


def make_each(words: Sequence[Sequence[str]], rooms: Sequence[Path], **variables: str) -> list[Done]:
    """Several runs of `make` at a time, each on a core of its own: side by side on all cores they would be slower."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0, 1]
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores[:2]:
        free.put(core)

    def run(one: Sequence[str], room: Path) -> Done:
        core = free.get()
        try:
            return make(*one, "JOBS=1", room=room, core=core, SCANBOOK_DATA=str(room / "data"), **variables)
        finally:
            free.put(core)

    with ThreadPoolExecutor(len(cores[:2])) as pool:
        return list(pool.map(run, words, rooms))


def results(room: Path, study: str, profile: str) -> dict[str, dict[str, Any]]:
    folder = room / "reports" / study / profile
    return {name: json.loads((folder / name / "metrics.json").read_text())["results"] for name in NOTEBOOKS}


def files(folder: Path) -> dict[Path, int]:
    """When each file below a folder was last written, in ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


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
    parity = found["07_export_flask"]["parity"]
    assert set(parity) == {"Keras, saved", "OpenVINO", "OpenVINO int8", "SavedModel", "ONNX", "stored logits", "HTTP"}
    assert all(agrees for place, agrees in parity.items() if place != "OpenVINO int8"), parity
    looks = {name: found[name].get("test_evaluations", {}) for name in NOTEBOOKS}
    assert all(looks[name] for name in NOTEBOOKS if name not in ("01_eda", BENCHMARK))
    assert {count for each in looks.values() for count in each.values()} == {1}, "no network is scored twice on test"
    for name in NOTEBOOKS:
        metrics = json.loads((tmp_path / "reports" / "drawn" / "quick" / name / "metrics.json").read_text())
        # two run side by side, but for the benchmark
        assert metrics["peak memory (GiB)"] < (4 if name == BENCHMARK else 4 / 2), name

    pages.check_reports(tmp_path / "reports", axe=True)

    written = files(tmp_path / "reports")
    again = make("reports", "PROFILE=quick", room=tmp_path)
    assert again.returncode == 0 and "starts:" not in again.stdout and "all 7 reports are fresh" in again.stderr
    assert files(tmp_path / "reports") == written, "a fresh report is left alone"


STAND_INS = ("dermnet", "melanoma", "chest_xray", "retinopathy", "skin11")
AGAIN = f"{STAND_INS[0]} again"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Done]]:
    """All five studies on their stand-ins, and one of them again; the room of each, and how `make` ended."""
    names = [*STAND_INS, AGAIN]
    rooms = [tmp_path_factory.mktemp(name.replace(" ", "_")) for name in names]
    runs = make_each([("reports", f"STUDY={name.split()[0]}", "PROFILE=smoke") for name in names], rooms)
    return dict(zip(names, zip(rooms, runs, strict=True), strict=True))


@pytest.mark.parametrize("study", STAND_INS)
def test_a_published_study_runs_on_its_stand_in(study: str, stand_ins: dict[str, tuple[Path, Done]]) -> None:
    room, done = stand_ins[study]
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(room, study, "smoke")
    assert found["07_export_flask"]["parity"]["HTTP"] is True
    faults = found["01_eda"]["planted_faults"]
    for kind in ("unreadable", "exact duplicates", "near duplicates"):
        assert faults[kind]["found"] == faults[kind]["planted"] > 0, kind
    for name in NOTEBOOKS:
        folder = room / "reports" / study / "smoke" / name
        assert "drawn images that stand in for the real ones" in (folder / "report.html").read_text()
    assert (room / "reports" / study / "smoke" / "01_eda" / "dataset_card.md").is_file()
    told = (room / "reports" / study / "smoke" / "index.html").read_text()
    assert "this run is on drawn ones" in told
    pages.check_reports(room / "reports")


def test_two_runs_with_one_seed_give_identical_results(stand_ins: dict[str, tuple[Path, Done]]) -> None:
    study = STAND_INS[0]
    rooms = [stand_ins[name][0] / "reports" / study / "smoke" for name in (study, AGAIN)]
    first, second = ({name: (each / name / "results.json").read_bytes() for name in NOTEBOOKS} for each in rooms)
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
    recorded = json.loads((tmp_path / "reports/drawn/smoke/07_export_flask/results.json").read_text())
    assert recorded["parity"]["HTTP"] is True


REAL = {"ham10000_200x150.zip": ("ham10000", 7), "covid19_small.zip": ("folder", 3)}


@pytest.fixture(scope="module")
def on_real_images(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> dict[str, tuple[Path, Done]]:
    """A table and class folders of real images; the room of each archive, and how `make` ended."""
    rooms = [tmp_path_factory.mktemp(study) for study, _ in REAL.values()]
    words = []
    for (archive, (study, _)), room in zip(REAL.items(), rooms, strict=True):
        with zipfile.ZipFile(real_data / archive) as packed:
            packed.extractall(room / "images")
        named = () if study == "folder" else (f"STUDY={study}",)
        words.append(("reports", f"DATA={room / 'images'}", "PROFILE=smoke", *named))
    keras_home = os.environ.get("KERAS_HOME", str(rooms[0] / "home" / ".keras"))
    runs = make_each(words, rooms, KERAS_HOME=keras_home)
    return dict(zip(REAL, zip(rooms, runs, strict=True), strict=True))


@pytest.mark.parametrize("archive", REAL)
def test_real_images_go_all_the_way(archive: str, on_real_images: dict[str, tuple[Path, Done]]) -> None:
    (study, classes), (room, done) = REAL[archive], on_real_images[archive]
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(room, study, "smoke")
    assert len(found["05_fine_tuning"]["per_class"]) == classes + len(("macro average", "weighted average"))
    assert found["07_export_flask"]["parity"]["HTTP"] is True
    pages.check_reports(room / "reports")
