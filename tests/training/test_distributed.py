"""Several processes, or several devices of one, train what one process trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.parallel import free_ports
from helpers.together import history, same_curve
from scanbook import runtime, training
from scanbook.augmentation import Augmenter
from scanbook.errors import RunError, ScanbookError
from scanbook.runner import train
from scanbook.runtime import distribution
from scanbook.runtime.distribution import Share
from scanbook.training import fitting

ROOT = Path(__file__).parents[2]
keras = runtime.keras()
PLAN = "augmentation=dermoscopy+mixup scratch.balance=class_weights scratch.epochs=8 scratch.learning_rate=0.003"
WORDS = ("train", "synthetic", "--profile", "smoke", "--backbone", "baseline_cnn", "--from-scratch")


def batches(**options):
    draw = np.random.default_rng(0)
    y = np.eye(3, dtype=np.float32)[draw.choice(3, 37, p=(0.7, 0.2, 0.1))]
    images = draw.integers(0, 256, (50, 16, 16, 3), np.uint8)
    rows = draw.permutation(50)[:37]
    policy = options.pop("policy", "dermoscopy")
    return training.Batches(images, rows, y, 10, Augmenter(policy, 37, 3), **options)


@pytest.mark.parametrize("share", [(1, 1), (1, 4), (2, 2), (3, 3), (2, 6), (5, 5)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"policy": "dermoscopy+mixup"}, {"policy": "cutmix", "sampling": True}, {"policy": "none", "shuffle": False}],
    ids=str,
)
def test_the_parts_of_all_processes_are_the_batches_of_one(monkeypatch, share, options):
    processes, devices = share
    alone = batches(**options)
    for index in range(alone.num_batches):
        images, y = alone[index]
        parts = []
        for process in range(processes):
            with monkeypatch.context() as patch:
                patch.setattr(distribution, "_shares", [Share(process, processes, devices)])
                parts.append(batches(**options)[index])
        assert len({part[0].shape for part in parts}) == 1 and len(parts[0][0]) % (devices // processes) == 0
        found = [np.concatenate([part[place] for part in parts]) for place in range(3)]
        counted = found[2] == 1
        assert counted.sum() == len(images) and set(found[2]) <= {0.0, 1.0}
        np.testing.assert_array_equal(found[0][counted], images)
        np.testing.assert_array_equal(found[1][counted], y)
        assert len(found[0]) == -(-10 // devices) * devices, "every batch is of one size"


def test_images_that_fill_a_batch_up_change_neither_loss_nor_metrics():
    draw = np.random.default_rng(2)
    y, logits = np.eye(3, dtype=np.float32)[draw.integers(0, 3, 8)], draw.normal(size=(8, 3)).astype(np.float32)
    more = [np.concatenate([each, each[:4]]) for each in (y, logits)]
    weights = np.repeat(np.float32([1, 0]), (8, 4))
    for classes in (None, np.float32([0.5, 1, 3])):
        loss = fitting.CrossEntropy(0.1, classes)
        assert float(loss(*more, sample_weight=weights)) == pytest.approx(float(loss(y, logits)), rel=1e-6)
    for metric in fitting.metrics():
        expected = float(metric(y, logits))
        metric.reset_state()
        assert float(metric(*more, sample_weight=weights)) == pytest.approx(expected, rel=1e-6)


def test_how_to_train_follows_from_where_one_is(monkeypatch):
    monkeypatch.setattr(distribution, "gpus", lambda: 1)
    monkeypatch.delenv(distribution.TASKS, raising=False)
    assert train.choose_distribution("auto") == "none" and train.choose_distribution("data-parallel") == "data-parallel"
    assert train.choose_distribution("auto", ["a:1", "b:1"]) == "data-parallel"
    monkeypatch.setenv(distribution.TASKS, "4")
    assert train.choose_distribution("auto") == "data-parallel"
    with pytest.raises(RunError, match="4 processes were started to train with --distribute none"):
        train.choose_distribution("none")
    monkeypatch.setenv(distribution.TASKS, "1")
    assert train.choose_distribution("auto") == "none"
    monkeypatch.setattr(distribution, "gpus", lambda: 8)
    assert train.choose_distribution("auto") == "data-parallel" and train.choose_distribution("none") == "none"


@pytest.mark.parametrize(
    ("step", "seen", "expected"),
    [
        ({"SLURM_STEP_NUM_NODES": "2", distribution.TASKS: "8"}, "0,1,2,3", None),  # a GPU each, by the task's number
        ({"SLURM_STEP_NUM_NODES": "2", distribution.TASKS: "2"}, "0,1,2,3", "0,1,2,3"),  # the only task of its node
        ({"SLURM_STEP_NUM_NODES": "2", distribution.TASKS: "8"}, "3", "0"),  # bound to one
        ({"SLURM_STEP_NUM_NODES": "2", distribution.TASKS: "2"}, None, None),
    ],
)
def test_a_task_of_slurm_takes_the_gpus_that_are_its_own(monkeypatch, step, seen, expected):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert distribution._slurm_settings() == {}
    for key, value in (step | {"SLURM_JOB_ID": "70001", "CUDA_VISIBLE_DEVICES": seen}).items():
        monkeypatch.delenv(key, raising=False) if value is None else monkeypatch.setenv(key, value)
    ports = set()
    for number in ("0", "1"):
        monkeypatch.setenv("SLURM_STEP_ID", number)
        found = distribution._slurm_settings()
        assert found.get("JAX_LOCAL_DEVICE_IDS") == expected
        ports.add(int(found["JAX_COORDINATOR_PORT"]))
    assert len(ports) == 2 and all(1 << 15 < port < 1 << 16 for port in ports), "two steps of a job do not meet"


def test_what_keeps_processes_from_training_together_is_one_line(monkeypatch):
    with pytest.raises(ScanbookError, match="Keras runs on tensorflow already; train together in a fresh process"):
        distribution.join()
    assert os.environ["KERAS_BACKEND"] == "tensorflow", "processes that are started later are none of it"
    monkeypatch.setattr(distribution, "find_spec", lambda name: None)
    with pytest.raises(ScanbookError, match=r"runs on JAX, which is not installed; pip install 'scanbook\[jax\]'"):
        distribution.join()


# whole runs of the command


def start(room: Path, *words: str, plan: str = PLAN, devices: int = 1) -> subprocess.Popen[str]:
    own = {
        "SCANBOOK_STORE": str(room / "store"),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-m", "scanbook.cli", *WORDS, "--set", plan, *words]
    room.mkdir(exist_ok=True)
    return subprocess.Popen(
        command, cwd=ROOT, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def start_together(room: Path, count: int, plan: str = PLAN) -> list[subprocess.Popen[str]]:
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(count))
    words = [("--addresses", addresses, "--process", str(number)) for number in range(count)]
    return [start(room, *each, plan=plan) for each in words]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """What each said, once all are done; each must have done well."""
    said = [process.communicate(timeout=300)[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
    return said


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> pd.DataFrame:
    """Losses and accuracies of one process with one device, on JAX."""
    room = tmp_path_factory.mktemp("alone") / "one"
    ended([start(room, "--distribute", "data-parallel")])
    return history(room)


@pytest.mark.cluster
def test_two_processes_train_what_one_does(tmp_path, alone):
    said = ended(start_together(tmp_path / "two", 2))
    assert "epoch 8/8" in said[0] and "images/s; validation loss" in said[0]
    assert "epoch" not in said[1], "one process speaks"
    same_curve(history(tmp_path / "two"), alone)
    (again,) = ended([start(tmp_path / "two", "--distribute", "none")])
    assert "epoch 1/8" not in again and "images/s" in again, "found in the store, trained by whom it may be"
    assert not list((tmp_path / "two" / "store" / "scratch").glob(".*")), "a checkpoint outlived its training"


@pytest.mark.cluster
def test_two_devices_of_one_process_train_what_one_does(tmp_path, alone):
    ended([start(tmp_path / "devices", "--distribute", "data-parallel", devices=2)])
    same_curve(history(tmp_path / "devices"), alone)


def begun(room: Path, *processes: subprocess.Popen[str]) -> None:
    """Waits until an epoch is done and kept."""
    until = time.monotonic() + 240
    while not list((room / "store" / "scratch").glob(".*/scratch.npz")) and time.monotonic() < until:
        assert all(each.poll() is None for each in processes)
        time.sleep(0.02)


@pytest.mark.cluster
def test_processes_that_do_not_start_from_the_same_say_so(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    alone = start(here, "--distribute", "data-parallel")
    begun(here, alone)
    alone.kill()
    alone.communicate()
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    for process in [start(each, "--addresses", addresses, "--process", str(i)) for i, each in enumerate((here, there))]:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 1 and "different checkpoints or heads of baseline_cnn, from scratch in" in said, (
            said
        )
        assert "expected one store for all" in said and "Traceback" not in said


@pytest.mark.cluster
def test_a_lost_process_costs_no_finished_epoch(tmp_path, alone):
    room = tmp_path / "lost"
    first, second = start_together(room, 2)
    begun(room, first, second)
    second.send_signal(signal.SIGKILL)
    said, _ = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 1 and "scanbook: process 0 of 2 lost another one" in said, said
    assert "Traceback" not in said and not list((room / "store" / "scratch").glob("*/history.csv"))

    (said,) = ended([start(room, "--distribute", "data-parallel")])
    assert "continues after epoch" in said and "epoch 1/" not in said, "trained anew"
    same_curve(history(room), alone)
