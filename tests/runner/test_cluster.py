"""Studies and a sweep on a real Slurm of two nodes, one of which is taken down: `make check-cluster`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from helpers import cluster, pages
from helpers.cluster import NODES, Cluster
from helpers.projects import ROOT, make_project
from helpers.together import own_folders
from scanbook.reporting import suite
from scanbook.runner.sweeps import page

pytestmark = [pytest.mark.cluster, cluster.needed]
LAUNCH = "LAUNCH=srun --nodes=1 --ntasks=1 --cpus-per-task=1"
STUDIES = ("synthetic", "skin11")
WHOLE_NOTEBOOKS = ("01_eda", "07_export_flask")
"""One that trains nothing and one that trains a network; the others compute nothing here."""


def results(folder: Path) -> dict[str, dict]:
    paths = sorted((folder / "reports").glob("*/smoke/*/results.json"))
    return {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in paths}


def test_reports_are_whole_though_a_node_is_lost(slurm: Cluster, tmp_path: Path) -> None:
    home, here, there = make_project(tmp_path / "home"), tmp_path / "here", tmp_path / "there"
    for name in STUDIES:
        shutil.copy(ROOT / "notebooks" / "studies" / f"{name}.yaml", home / "notebooks" / "studies")
    for name in WHOLE_NOTEBOOKS:
        shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", home / "notebooks")
    project = {"SCANBOOK_HOME": str(home)}
    words = ["make", "-j2", "reports", f"STUDY={','.join(STUDIES)}", "PROFILE=smoke", "SET=backbones=[baseline_cnn]"]
    number = slurm.submit(*words, LAUNCH, **own_folders(there), **project)
    slurm.until(lambda: len(list(there.glob("reports/*/smoke/*/metrics.json"))) >= 2, "two reports are whole", 600)
    slurm.until(lambda: slurm.running_on(NODES[1]), "a notebook runs on the second node", 120)
    slurm.kill(NODES[1])
    # Slurm waits before it runs a requeued job; meanwhile the same is run here
    environment = os.environ | own_folders(here) | project
    run_here = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    slurm.until(lambda: slurm.job(number)["Restarts"] == "1", "the job is requeued", 120)
    whole = {path: path.stat().st_mtime_ns for path in there.glob("reports/*/smoke/*/metrics.json")}
    slurm.start(NODES[1])  # it comes back
    text = slurm.ended(number, 1800)
    count = len(suite.NOTEBOOKS) + len(suite.notebooks(False))  # the first study names another source of images
    assert f"all {count} reports are whole" in text, text
    assert {path: path.stat().st_mtime_ns for path in whole} == whole, "what was whole is not run again"

    text = run_here.communicate(timeout=1800)[0]
    assert run_here.returncode == 0, text
    assert len(results(there)) == count and results(there) == results(here)
    assert results(there)["reports/synthetic/smoke/07_export_flask/results.json"]["parity"]["HTTP"] is True
    assert (there / "reports" / "index.html").is_file()


def test_a_sweep_that_was_killed_is_one_on_two_nodes_and_what_notebooks_find(slurm: Cluster, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    plan = "sweep.backbones=[baseline_cnn] sweep.policies=[none,dermoscopy] sweep.seeds=1 scratch.epochs=6"
    words = ["make", "-j2", "sweep", "STUDY=synthetic", "PROFILE=smoke", f"SET={plan}"]
    environment = os.environ | own_folders(here)

    run = subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    slurm.until(lambda: bool(list(here.glob("store/scratch/.*/scratch.npz"))), "an epoch is done", 240)
    assert run.poll() is None
    sweep = "reports/synthetic/smoke/sweep"
    for process in psutil.process_iter(["cmdline"]):
        if any(str(here / sweep) in word for word in process.info["cmdline"] or ()):
            process.kill()
    assert run.wait(60) != 0 and not list((here / sweep).glob("trials/*.json"))

    number = slurm.submit(*words, LAUNCH, **own_folders(there))
    again = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "continues after epoch" in again.stdout, again.stdout + again.stderr
    text = slurm.ended(number, 600)
    assert "2 of 2 trials run" in text, text
    assert results(there) == results(here) != {}
    for name in (page.RESULTS, "standings.svg"):
        assert (here / sweep / name).read_bytes() == (there / sweep / name).read_bytes()
    if pages.CHROMIUM:
        with pages.browser() as chromium:
            pages.check_shown(chromium, here / sweep / page.PAGE)

    command = [sys.executable, "-m", "scanbook.cli", "train", "synthetic", "--profile=smoke", f"--set={plan}"]
    command += ["--backbone=baseline_cnn", "--policy=dermoscopy", "--from-scratch"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "epoch 1/6" not in done.stdout, "the notebooks find what a trial trained"
