"""Studies and training on a real Slurm of two nodes, one of which is taken down: `make check-cluster`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from helpers import cluster
from helpers.cluster import NODES, Cluster
from helpers.together import history, same_curve

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(bool(cluster.missing()), reason=cluster.missing())]
STUDIES = "drawn,skin11"
LAUNCH = "LAUNCH=srun --nodes=1 --ntasks=1 --cpus-per-task=1"
SHORTER = "benchmark.windows=3 benchmark.images=16"
TRAIN = (
    *("-m", "scanbook.cli", "train", "synthetic", "--profile", "smoke", "--backbone", "baseline_cnn", "--from-scratch"),
    *("--set", "scratch.epochs=8 scratch.learning_rate=0.003 augmentation=dermoscopy"),
)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster.started(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(autouse=True)
def _whole(slurm: Cluster) -> None:
    """Both nodes are there when a test begins."""
    for node, state in slurm.states().items():
        if state.startswith("down"):
            slurm.start(node)
    slurm.until(lambda: set(slurm.states().values()) == {"idle"}, "both nodes are idle")


def own(room: Path) -> dict[str, str]:
    room.mkdir(exist_ok=True)
    folders = {f"SCANBOOK_{name.upper()}": str(room / name) for name in ("store", "reports")}
    return folders | {"JAX_PLATFORMS": "cpu", "SCANBOOK_DATA": str(room / "data")}


def results(room: Path) -> dict[str, dict]:
    found = sorted((room / "reports").glob("*/smoke/*/results.json"))
    return {path.relative_to(room).as_posix(): json.loads(path.read_text()) for path in found}


@pytest.fixture(scope="module")
def trained_here(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    room = tmp_path_factory.mktemp("here") / "room"
    command = [sys.executable, *TRAIN, "--distribute", "data-parallel"]
    subprocess.run(command, cwd=ROOT, env=os.environ | own(room), check=True, capture_output=True)
    return history(room)


def test_a_job_of_two_nodes_trains_what_one_process_does(slurm: Cluster, tmp_path: Path, trained_here) -> None:
    number = slurm.submit("srun", sys.executable, *TRAIN, **own(tmp_path / "room"))
    said = slurm.ended(number, 300)
    assert "epoch 8/8" in said and "images/s; validation loss" in said
    same_curve(history(tmp_path / "room"), trained_here)


def test_training_goes_on_when_a_node_is_lost(slurm: Cluster, tmp_path: Path, trained_here) -> None:
    room = tmp_path / "room"
    # on as many nodes as there are: on two at first, then on the one that is left, where "auto" would take TensorFlow
    command = ("srun", "--kill-on-bad-exit=1", sys.executable, *TRAIN, "--distribute", "data-parallel")
    number = slurm.submit(*command, nodes="1-2", **own(room))
    slurm.until(lambda: bool(list((room / "store").glob("scratch/.*/scratch.npz"))), "an epoch is done", 300)
    slurm.kill(NODES[1])
    said = slurm.ended(number, 300)
    assert slurm.job(number)["Restarts"] == "1" and slurm.states()[NODES[1]].startswith("down")
    assert "continues after epoch" in said and said.count("epoch 1/8") == 1, said
    same_curve(history(room), trained_here)


def test_reports_are_whole_though_a_node_is_lost(slurm: Cluster, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    words = ["make", "-j2", "reports", f"STUDY={STUDIES}", "PROFILE=smoke", f"SET={SHORTER}"]
    number = slurm.submit(*words, LAUNCH, **own(there))
    slurm.until(lambda: len(list(there.glob("reports/*/smoke/*/metrics.json"))) >= 2, "two reports are whole", 600)
    slurm.until(lambda: slurm.running_on(NODES[1]), "a notebook runs on the second node", 120)
    slurm.kill(NODES[1])
    # Slurm runs a requeued job after two minutes, in which the same is run here
    run_here = subprocess.Popen(words, cwd=ROOT, env=os.environ | own(here), stdout=subprocess.PIPE, text=True)
    slurm.until(lambda: slurm.job(number)["Restarts"] == "1", "the job is requeued", 120)
    whole = {path: path.stat().st_mtime_ns for path in there.glob("reports/*/smoke/*/metrics.json")}
    slurm.start(NODES[1])  # it comes back
    said = slurm.ended(number, 1800)
    assert "all 14 reports are whole" in said, said
    assert {path: path.stat().st_mtime_ns for path in whole} == whole, "what was whole is not run again"

    said = run_here.communicate(timeout=1800)[0]
    assert run_here.returncode == 0, said
    assert len(results(there)) == 14 and results(there) == results(here)
    assert (there / "reports" / "index.html").is_file()


def test_a_sweep_on_two_nodes_is_one_on_this_machine(slurm: Cluster, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    plan = "sweep.backbones=[baseline_cnn] sweep.policies=[none,dermoscopy] sweep.seeds=2 scratch.epochs=2"
    words = ["make", "-j2", "sweep", "STUDY=synthetic", "PROFILE=smoke", f"SET={plan}"]
    said = slurm.ended(slurm.submit(*words, LAUNCH, **own(there)), 600)
    assert "4 of 4 trials run" in said, said
    subprocess.run(words, cwd=ROOT, env=os.environ | own(here), capture_output=True, check=True)
    assert results(there) == results(here) != {}
