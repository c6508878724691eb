"""Several processes, or several devices of one, train what one process trains."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.parallel import free_ports
from helpers import cluster
from helpers.cluster import NODES, Cluster
from helpers.together import TRAIN, check_same_curve, history, outputs, own_folders, start
from scanbook import runtime, training
from scanbook.augmentation import Augmenter
from scanbook.errors import RunError, ScanbookError
from scanbook.runner import train
from scanbook.runtime import distribution
from scanbook.runtime.distribution import Share
from scanbook.training import objectives

keras = runtime.keras()


def batches(**options):
    draw = np.random.default_rng(0)
    y = np.eye(3, dtype=np.float32)[draw.choice(3, 37, p=(0.7, 0.2, 0.1))]
    images = draw.integers(0, 256, (50, 16, 16, 3), np.uint8)
    rows = draw.permutation(50)[:37]
    policy = options.pop("policy", "dermoscopy")
    options |= {"strata": y.argmax(1)} if options.pop("sampling", False) else {}
    return training.Batches(images, rows, y, 10, Augmenter(policy, 37, 3), **options)


@pytest.mark.parametrize("share", [(1, 1), (1, 4), (2, 2), (3, 3), (2, 6), (5, 5)], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"policy": "dermoscopy+mixup"}, {"policy": "cutmix", "sampling": True}, {"policy": "none", "shuffle": False}],
    ids=str,
)
def test_the_shares_of_all_processes_are_the_batches_of_one(monkeypatch, share, options):
    processes, devices = share
    alone = batches(**options)
    for index in range(alone.num_batches):
        images, y = alone[index]
        shares = []
        for process in range(processes):
            with monkeypatch.context() as patch:
                patch.setattr(distribution, "_shares", [Share(process, processes, devices)])
                shares.append(batches(**options)[index])
        assert len({batch[0].shape for batch in shares}) == 1 and len(shares[0][0]) % (devices // processes) == 0
        joined = [np.concatenate([batch[place] for batch in shares]) for place in range(3)]
        counted = joined[2] == 1
        assert counted.sum() == len(images) and set(joined[2]) <= {0.0, 1.0}
        np.testing.assert_array_equal(joined[0][counted], images)
        np.testing.assert_array_equal(joined[1][counted], y)
        assert len(joined[0]) == -(-10 // devices) * devices, "every batch is of one size"


def test_images_that_fill_a_batch_up_change_neither_loss_nor_metrics():
    draw = np.random.default_rng(2)
    y, logits = np.eye(3, dtype=np.float32)[draw.integers(0, 3, 8)], draw.normal(size=(8, 3)).astype(np.float32)
    more = [np.concatenate([array, array[:4]]) for array in (y, logits)]
    weights = np.repeat(np.float32([1, 0]), (8, 4))
    for classes in (None, np.float32([0.5, 1, 3])):
        loss = objectives.CrossEntropy(0.1, classes)
        assert float(loss(*more, sample_weight=weights)) == pytest.approx(float(loss(y, logits)), rel=1e-6)
    for metric in objectives.ClassObjective(("a", "b", "c")).metrics():
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
        settings = distribution._slurm_settings()
        assert settings.get("JAX_LOCAL_DEVICE_IDS") == expected
        ports.add(int(settings["JAX_COORDINATOR_PORT"]))
    assert len(ports) == 2 and all(1 << 15 < port < 1 << 16 for port in ports), "two steps of a job do not meet"


def test_what_keeps_processes_from_training_together_is_one_line(monkeypatch):
    with pytest.raises(ScanbookError, match="Keras runs on tensorflow already; train together in a fresh process"):
        distribution.join()
    assert os.environ["KERAS_BACKEND"] == "tensorflow", "processes that are started later are none of it"
    monkeypatch.setattr(distribution, "find_spec", lambda name: None)
    with pytest.raises(ScanbookError, match=r"runs on JAX, which is not installed; pip install 'scanbook\[jax\]'"):
        distribution.join()


# whole runs of the command


def start_together(folder: Path, count: int) -> list[subprocess.Popen[str]]:
    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(count))
    return [start(folder, "--addresses", addresses, "--process", str(number)) for number in range(count)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a network that one process trained; beside it, as `devices`, that of one process with two devices."""
    folder = tmp_path_factory.mktemp("one_process")
    words = ("--distribute", "data-parallel")
    counts = {folder / "one": 1, folder / "devices": 2}
    outputs(*(start(place, *words, devices=count) for place, count in counts.items()))
    return folder / "one"


@pytest.mark.cluster
def test_two_devices_of_one_process_train_what_one_does(one_process):
    check_same_curve(history(one_process.with_name("devices")), history(one_process))


@pytest.mark.cluster
def test_two_processes_train_what_one_does(tmp_path, one_process):
    first, second = outputs(*start_together(tmp_path / "two", 2))
    assert "epoch 8/8" in first and "images/s; validation loss" in first
    assert first.count("epoch 1/8") == 1, "the command that follows, in one process, finds it in the store"
    assert "epoch" not in second, "one process speaks"
    check_same_curve(history(tmp_path / "two"), history(one_process))
    assert not list((tmp_path / "two" / "store" / "scratch").glob(".*")), "a checkpoint outlived its training"


def wait_for_an_epoch(folder: Path, *processes: subprocess.Popen[str]) -> None:
    """Wait until a checkpoint is written."""
    until = time.monotonic() + 240
    while not list((folder / "store" / "scratch").glob(".*/scratch.npz")) and time.monotonic() < until:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


@pytest.mark.cluster
def test_a_lost_process_costs_no_finished_epoch_and_another_store_is_refused(tmp_path, one_process):
    folder, other = tmp_path / "lost", tmp_path / "other"
    first, second = start_together(folder, 2)
    wait_for_an_epoch(folder, first, second)
    second.send_signal(signal.SIGKILL)
    text, _ = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 1 and "scanbook: process 0 of 2 lost another one" in text, text
    assert "Traceback" not in text and not list((folder / "store" / "scratch").glob("*/history.csv"))

    addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
    words = [("--addresses", addresses, "--process", str(number)) for number in range(2)]
    for process in [start(place, *options) for place, options in zip((folder, other), words, strict=True)]:
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 1, text
        assert "different checkpoints or heads of baseline_cnn, from scratch in" in text, text
        assert "expected one store for all" in text and "Traceback" not in text

    (text,) = outputs(start(folder, "--distribute", "data-parallel"))
    assert "continues after epoch" in text and "epoch 1/" not in text, "trained again"
    check_same_curve(history(folder), history(one_process))


# on a cluster


@pytest.mark.cluster
@cluster.needed
def test_a_job_of_two_nodes_trains_what_one_process_does(slurm: Cluster, tmp_path: Path, one_process: Path) -> None:
    number = slurm.submit("srun", *TRAIN, **own_folders(tmp_path / "job"))
    text = slurm.ended(number, 300)
    assert "epoch 8/8" in text and "images/s; validation loss" in text
    check_same_curve(history(tmp_path / "job"), history(one_process))


@pytest.mark.cluster
@cluster.needed
def test_training_goes_on_when_a_node_is_lost(slurm: Cluster, tmp_path: Path, one_process: Path) -> None:
    folder = tmp_path / "job"
    # on as many nodes as there are: on two at first, then on the one that is left, where "auto" would take TensorFlow
    command = ("srun", "--kill-on-bad-exit=1", *TRAIN, "--distribute", "data-parallel")
    number = slurm.submit(*command, nodes="1-2", **own_folders(folder))
    slurm.until(lambda: bool(list((folder / "store").glob("scratch/.*/scratch.npz"))), "an epoch is done", 300)
    slurm.kill(NODES[1])
    text = slurm.ended(number, 300)
    assert slurm.job(number)["Restarts"] == "1" and slurm.states()[NODES[1]].startswith("down")
    assert "continues after epoch" in text and text.count("epoch 1/8") == 1, text
    check_same_curve(history(folder), history(one_process))
