"""`make reports`, and what the reports must show: of the default study, and of a folder of real images."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers import pages
from helpers.studies import check_all_classes, keras_home, results, run, unpack_images
from scanbook import bundle
from scanbook.reporting.suite import BENCHMARK, NOTEBOOKS, notebooks
from scanbook.store import PACKAGE

pytestmark = pytest.mark.slow
MAKE = ("make", "--no-print-directory", "reports")

SHORTER = (
    "benchmark.backbone=baseline_cnn benchmark.images=64 benchmark.one_thread=false benchmark.windows=3 "
    "segmentation.methods=[Otsu,U-Net] segmentation.unet.epochs=1 segmentation.unet.images=128"
)
"""What notebooks 02 and 06 find is not part of what the default study must show."""


def test_the_default_study_shows_what_it_is_for(tmp_path: Path) -> None:
    words = [*MAKE, "PROFILE=quick", f"SET={SHORTER}"]
    done = run(*words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    by_notebook = results(tmp_path, "synthetic", "quick")
    reports = tmp_path / "reports" / "synthetic" / "quick"
    assert (tmp_path / "reports" / "index.html").is_file()

    transfer, tuned = by_notebook["04_transfer_learning"], by_notebook["05_fine_tuning"]
    assert transfer["weights"] == {"mobilenet_v2_0.35": "scanbook"}
    assert set(transfer["differences"]) == {"baseline_cnn, from scratch", "mobilenet_v2_0.35, from scratch"}
    assert all(low > 0 for _, low, _ in transfer["differences"].values()), transfer["differences"]
    assert tuned["differences"]["accuracy"][0] > 0, tuned["differences"]
    bayes = by_notebook["01_eda"]["bayes_accuracy"]
    assert bayes < 0.95
    arms = [summary["accuracy"] for summary in transfer["summaries"].values()] + [tuned["summary"]["accuracy"]]
    assert all(arm["low"] < bayes for arm in arms)
    assert tuned["summary"]["accuracy"]["value"] > 0.6
    check_planted_faults(pd.DataFrame(by_notebook["01_eda"]["planted_faults"]).T)
    mistakes = by_notebook["09_pitfalls"]["mistakes"]
    worth = ("copies_unpenalised", "augmented_unpenalised", "bgr", "names")
    assert all(mistakes[name]["low"] > 0 for name in worth), mistakes
    assert mistakes["copies_unpenalised"]["published"] > 0.95, "a copy is recognised"
    parity = by_notebook["07_export_flask"]["parity"]
    assert set(parity) == {*bundle.FORMAT_NAMES.values(), "stored logits", "HTTP"}
    assert all(agrees for place, agrees in parity.items() if "int8" not in place), parity
    evaluations = {name: by_notebook[name].get("test_evaluations", {}) for name in NOTEBOOKS}
    assert all(evaluations[name] for name in NOTEBOOKS if name not in ("01_eda", BENCHMARK))
    counts = {count for networks in evaluations.values() for count in networks.values()}
    assert counts == {1}, "no network is scored twice on test"
    for name in NOTEBOOKS:
        assert (reports / name / "report.html").stat().st_size > 10_000
        metrics = json.loads((reports / name / "metrics.json").read_text())
        assert metrics["results"] == by_notebook[name]
        # two run side by side, but for the benchmark
        assert metrics["peak memory (GiB)"] < (4 if name == BENCHMARK else 4 / 2), name

    pages.check_reports(tmp_path / "reports", axe=True)

    before = modification_times(tmp_path / "reports")
    again = run(*words, folder=tmp_path)
    assert (
        again.returncode == 0
        and "starts:" not in again.stdout
        and f"all {len(NOTEBOOKS)} reports are fresh" in again.stderr
    )
    assert modification_times(tmp_path / "reports") == before, "a fresh report is left alone"
    check_what_changes_of_the_library_cost(tmp_path, words)


def check_what_changes_of_the_library_cost(folder: Path, words: list[str]) -> None:
    """A comment costs nothing, a style sheet no kernel, and a metric that reports show no network."""
    lib = folder / "lib"
    shutil.copytree(PACKAGE, lib / "scanbook", ignore=shutil.ignore_patterns("__pycache__"))
    for path in lib.rglob("*.py"):
        path.write_text(f"# a comment\n{path.read_text()}")
    status = [*words[:2], "status", *words[3:]]
    assert f"synthetic/quick: {len(NOTEBOOKS)} fresh" in run(*status, folder=folder, PYTHONPATH=str(lib)).stdout

    style = lib / "scanbook" / "reporting" / "templates" / "page.css"
    style.write_text(f"{style.read_text()}\n.planted {{ color: red; }}\n")
    executed = {path: path.stat().st_mtime_ns for path in (folder / "reports").glob("*/*/*/notebook.ipynb")}
    done = run(*words, folder=folder, PYTHONPATH=str(lib))
    rendered = done.stdout.count("rendered again from its executed notebook")
    assert done.returncode == 0 and rendered == len(NOTEBOOKS), done.stderr
    assert all(".planted" in path.with_name("report.html").read_text() for path in executed)
    assert {path: path.stat().st_mtime_ns for path in executed} == executed, "no notebook was run"

    metrics = lib / "scanbook" / "evaluation" / "metrics.py"
    metrics.write_text(f"{metrics.read_text()}\nPLANTED = 1\n")
    stages = {path.name for path in (folder / "store").glob("*/*")}
    tuning = "05_fine_tuning"
    states = run(*status, folder=folder, PYTHONPATH=str(lib)).stdout
    assert re.search(rf"{tuning} +stale +changed since: library$", states, re.MULTILINE), states
    scanbook = [sys.executable, "-m", "scanbook.cli", "run", tuning, "--if-stale", "--profile", "quick"]
    done = run(*scanbook, "--set", SHORTER, folder=folder, PYTHONPATH=str(lib))
    assert done.returncode == 0 and "14. Results" in done.stdout, done.stdout + done.stderr
    assert {path.name for path in (folder / "store").glob("*/*")} == stages, "no network is trained again"


def check_planted_faults(faults: pd.DataFrame) -> None:
    """Nearly all of the faults that were planted are found, and hardly any other."""
    for kind in ("unreadable", "exact duplicates"):
        assert faults.loc[kind, "found"] == faults.loc[kind, "planted"] > 0, faults
    assert faults["planted"].sum() >= 40 and (faults["found"] >= 0.9 * faults["planted"]).all(), faults
    assert faults["others"].sum() <= 24, faults
    assert (faults.loc["near duplicates", ["recall", "precision"]] >= 0.95).all(), faults


def modification_times(folder: Path) -> dict[Path, int]:
    """Return when each file below a folder was last written, in ns."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("real_data")
def test_class_folders_of_real_images_give_all_reports(tmp_path: Path) -> None:
    images = unpack_images("covid19_small.zip", tmp_path / "images")
    done = run(*MAKE, f"DATA={images}", "PROFILE=smoke", folder=tmp_path, KERAS_HOME=keras_home(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    names = notebooks(external=False)
    assert results(tmp_path, "folder", "smoke", names)["07_export_flask"]["parity"]["HTTP"] is True
    check_all_classes(tmp_path, "folder", 3)
    pages.check_reports(tmp_path / "reports", len(names))
