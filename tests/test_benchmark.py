"""Benchmark: real processes with the threads asked for, honest ratios, one line for what failed."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import planted
from scanbook import benchmark, engines, training
from scanbook.backbones import RANDOM
from scanbook.errors import RunError

SEQUENTIAL = {"arm": "sequential CPU", "device": "cpu", "threads": 1}
PARALLEL = {"arm": "parallel CPU", "device": "cpu", "threads": 4}
GPU = {"arm": "GPU", "device": "gpu", "threads": 4}


def study():
    return planted.study(
        benchmark={"images": 16, "epochs": 1, "batch_sizes": [1, 4], "windows": 3},
        fine_tuning={"epochs": 1, "batch_size": 8},
    )


def train():
    return benchmark.training(study(), planted.manifest(), planted.pixels(), "baseline_cnn", RANDOM)


NOTE_THREADS = """
import atexit, os, pathlib, sys
def note():
    threading = sys.modules["tensorflow"].config.threading
    threads = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    pathlib.Path(__file__).with_name("threads").write_text(f"{os.getpid()} {threads}")
atexit.register(note)
"""


def test_arm_trains_in_a_process_of_its_own_with_the_threads_asked_for(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NOTE_THREADS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(benchmark, "training_arms", lambda: [SEQUENTIAL])
    [row] = train().to_dict(orient="records")
    process, threads = (tmp_path / "threads").read_text().split(maxsplit=1)
    assert int(process) != os.getpid() and threads == "(1, 1)"
    assert row["arm"] == "sequential CPU" and row["threads"] == 1
    assert row["first_epoch"] > row["seconds"] == row["low"] == row["high"] > 0
    assert row["images_per_second"] == pytest.approx(16 / row["seconds"])
    assert row["speedup"] == row["efficiency"] == 1
    assert 0 <= row["accuracy"] <= 1 and 0 <= row["validation_accuracy"] <= 1


def test_first_epoch_is_left_out(monkeypatch, tmp_path):
    np.save(tmp_path / "images.npy", planted.pixels()[:8])
    shown = planted.manifest().frame.iloc[:8]
    pd.to_pickle(planted.manifest().with_frame(shown), tmp_path / "manifest.pickle")
    columns = ["seconds", "accuracy", "validation_accuracy"]
    history = pd.DataFrame([(9, 1, 1), (10, 1, 1), (12, 1, 1), (17, 1, 0.5)], columns=columns)
    plans = []
    monkeypatch.setattr(training, "train_all", lambda plan, *_: plans.append(plan.values) or history)
    monkeypatch.setattr(benchmark.runtime, "configure", lambda seed, threads: None)
    task = SEQUENTIAL | {"data": str(tmp_path), "backbone": "baseline_cnn", "head": {}, "weights": ["none", "", ""]}
    arm = benchmark._train_arm(task | {"epochs": 3, "batch_size": 8, "seed": 0})
    assert (plans[0].epochs, plans[0].batch_size) == (4, 8)
    assert [arm[key] for key in ("first_epoch", "seconds", "low", "high")] == [9, 2, 1, 5]
    assert (arm["accuracy"], arm["validation_accuracy"]) == (1, 0.5)


def test_failing_arm_is_one_line(monkeypatch):
    monkeypatch.setattr(benchmark, "training_arms", lambda: [SEQUENTIAL])
    monkeypatch.setenv("KERAS_BACKEND", "abacus")  # fails in its own process, and soon
    with pytest.raises(RunError, match=r"arm sequential CPU with 1 threads failed: .*abacus.*; try fewer") as failed:
        train()
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize(("code", "said"), [(1, "the last line"), (-9, "killed by signal 9, as happens when memory")])
def test_what_a_failed_process_said_is_told(monkeypatch, code, said):
    done = subprocess.CompletedProcess([], code, "", "the first line\nthe last line\n")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RunError, match=f"failed: {said}"):
        train()


def test_ratios_are_those_of_the_first_arm(monkeypatch):
    seconds = {"sequential CPU": 8.0, "parallel CPU": 4.0, "GPU": 0.5}
    tasks = []

    def run(task):
        tasks.append(task | {"labels": set(pd.read_pickle(Path(task["data"]) / "manifest.pickle").frame["label"])})
        keys = ("first_epoch", "seconds", "low", "high", "accuracy", "validation_accuracy")
        return dict.fromkeys(keys, seconds[task["arm"]])

    monkeypatch.setattr(benchmark, "training_arms", lambda: [SEQUENTIAL, PARALLEL, GPU])
    monkeypatch.setattr(benchmark, "_run_arm", run)
    table = train()
    assert table["arm"].tolist() == list(seconds) and "device" not in table
    assert table["speedup"].tolist() == [1, 2, 16]
    assert table["efficiency"].tolist()[:2] == [1, 0.5] and np.isnan(table["efficiency"].iloc[2])
    assert table["images_per_second"].tolist() == [2, 4, 32]
    assert [(task["threads"], task["epochs"], task["batch_size"]) for task in tasks] == [
        (1, 1, 8),
        (4, 1, 8),
        (4, 1, 8),
    ]
    assert tasks[0]["labels"] == set(planted.CLASSES), "the manifest lists one class after the other"


def test_environment_hides_gpus_from_cpu_arms_alone(monkeypatch):
    seen = []

    def run(*_, env, **__):
        seen.append(env)
        return subprocess.CompletedProcess([], 0, '{"seconds": 1}\n', "")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(benchmark.subprocess, "run", run)
    for arm in (SEQUENTIAL, GPU):
        assert benchmark._run_arm(arm) == {"seconds": 1}
    assert seen[0]["CUDA_VISIBLE_DEVICES"] == "-1" and "CUDA_VISIBLE_DEVICES" not in seen[1]


def test_arms_are_those_of_the_machine(monkeypatch):
    for cores, gpus, expected in ((1, 0, [1]), (8, 0, [1, 8]), (8, 1, [1, 8, 8])):
        monkeypatch.setattr(benchmark.runtime, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(benchmark.runtime, "gpus", lambda gpus=gpus: gpus)
        arms = benchmark.training_arms()
        assert [arm["threads"] for arm in arms] == expected
        assert [arm["device"] for arm in arms] == ["cpu"] * (len(expected) - gpus) + ["gpu"] * gpus


class Timed:
    """An engine whose time is known."""

    name = "timed"

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.calls = clock, seconds, []

    def predict(self, images, batch_size=32):
        self.calls.append((len(images), batch_size))
        # the first call of a batch size compiles: it must not count
        self.clock[0] += self.seconds * len(images) * (1 if self.calls.count(self.calls[-1]) > 1 else 1000)
        return (np.zeros((len(images), 2), np.float32),)


def test_inference_has_a_row_an_engine_and_batch(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])
    runners = {"fast": Timed(clock, 0.001), "slow": Timed(clock, 0.01)}
    table = benchmark.inference(study(), runners, planted.pixels()[:5])
    assert list(zip(table["engine"], table["batch"], strict=True)) == [
        ("fast", 1), ("fast", 4), ("slow", 1), ("slow", 4)
    ]  # fmt: skip
    for column in ("images_per_second", "low", "high"):
        np.testing.assert_allclose(table[column], [1000, 1000, 100, 100], rtol=1e-6)
    np.testing.assert_allclose(table["milliseconds"], [1, 4, 10, 40], rtol=1e-6)
    assert sorted(runners["fast"].calls) == [(8, 1)] * 4 + [(32, 4)] * 4


def test_engines_compared_agree_and_are_timed():
    runners = benchmark.inference_engines(planted.network())
    assert list(runners) == ["Keras predict", "Keras traced", "OpenVINO latency", "OpenVINO throughput"]
    photos, y = planted.pixels(), planted.manifest().y
    logits = {name: runner.predict(photos)[0] for name, runner in runners.items()}
    table = benchmark.agreement(logits, y)
    assert table.index.tolist() == list(runners) and table["difference"].iloc[0] == 0
    assert (table["difference"] < 1e-3).all() and table["accuracy"].nunique() == 1
    speeds = benchmark.inference(study(), runners, photos)
    assert len(speeds) == 8 and (speeds["low"] <= speeds["high"]).all() and (speeds["images_per_second"] > 0).all()


def test_agreement_tells_a_wrong_engine():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    y = logits.argmax(1)
    table = benchmark.agreement({"right": logits, "wrong": -logits}, y)
    assert table.loc["right"].tolist() == [0, 1] and table.loc["wrong", "accuracy"] == 0
    assert table.loc["wrong", "difference"] == pytest.approx(engines.parity(logits, -logits)) and len(table) == 2
