"""Training by threads: real processes with the threads asked for, honest ratios, one line for what failed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import planted
from scanbook.benchmark import stage_times, training_times
from scanbook.models.backbones import RANDOM
from scanbook.store import Visit

SEQUENTIAL = {"arm": "sequential CPU", "device": "cpu", "threads": 1}
PARALLEL = {"arm": "parallel CPU", "device": "cpu", "threads": 4}
GPU = {"arm": "GPU", "device": "gpu", "threads": 4}


def study(**changes):
    benchmark = {"images": 16, "epochs": 1, "batch_sizes": [1, 4], "windows": 3}
    return planted.study(benchmark=benchmark, fine_tuning={"epochs": 1, "batch_size": 8}, **changes)


def train():
    return training_times.measure_training(study(), planted.manifest(), planted.pixels(), "baseline_cnn", RANDOM)


NOTE_THREADS = """
import atexit, os, pathlib, sys
def note():
    threading = sys.modules["tensorflow"].config.threading
    threads = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    pathlib.Path(__file__).with_name("threads").write_text(f"{os.getpid()} {threads}")
atexit.register(note)
"""


@pytest.mark.slow  # a process with TensorFlow
def test_arm_trains_in_a_separate_process_with_the_requested_threads(monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(NOTE_THREADS)
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), inherited])))
    monkeypatch.setattr(training_times, "select_arms", lambda: [SEQUENTIAL])
    times = train()
    [row] = times.strong.to_dict(orient="records")
    process, threads = (tmp_path / "threads").read_text().split(maxsplit=1)
    assert int(process) != os.getpid() and threads == "(1, 1)"
    assert times.backbone == "baseline_cnn"
    assert (row["arm"], row["threads"], row["images"]) == ("sequential CPU", 1, 16)
    assert row["first_epoch"] > row["seconds"] == row["low"] == row["high"] > 0
    assert row["images_per_second"] == pytest.approx(16 / row["seconds"])
    assert row["speedup"] == row["efficiency"] == 1 and np.isnan(row["serial_fraction"])
    [weak] = times.weak.to_dict(orient="records")
    assert all(weak[key] == row[key] for key in ("images", "seconds", "efficiency")), "one thread has all the work"


def test_weak_arm_trains_on_fewer_images_in_the_same_process(monkeypatch, tmp_path):
    rows = np.concatenate([planted.manifest().rows("train")[:16], planted.manifest().rows("validation")])
    np.save(tmp_path / "images.npy", planted.pixels()[rows])
    shown = planted.manifest().with_frame(planted.manifest().frame.iloc[rows])
    pd.to_pickle(shown, tmp_path / "manifest.pickle")
    pd.to_pickle(RANDOM, tmp_path / "weights.pickle")
    monkeypatch.setattr(training_times.runtime, "configure", lambda seed, threads: None)
    seen, epochs = [], training_times._epochs

    def count(model, batches, number):
        seen.append((len(batches.rows), batches.num_batches, number))
        return epochs(model, batches, number)

    monkeypatch.setattr(training_times, "_epochs", count)
    task = SEQUENTIAL | {"data": str(tmp_path), "backbone": "baseline_cnn", "head": {}}
    times = training_times._train_arm(task | {"epochs": 2, "batch_size": 8, "seed": 0, "weak_images": 8})
    assert seen == [(16, 2, 3), (8, 1, 3)]
    assert (times["strong"]["images"], times["weak"]["images"]) == (16, 8)
    for arm in times.values():
        assert 0 < arm["low"] <= arm["seconds"] <= arm["high"]
    assert set(times["weak"]) == {"images", "seconds", "low", "high"}
    strong = times["strong"]
    assert strong["first_epoch"] > strong["high"] and strong["total"] > strong["first_epoch"] + strong["seconds"]
    assert 0 <= strong["accuracy"] <= 1 and 0 <= strong["validation_accuracy"] <= 1


def test_seconds_are_of_training_alone_and_the_first_epoch_is_excluded(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(training_times.time, "perf_counter", lambda: clock[0])

    class Model:
        def fit(self, batches, *, epochs, callbacks, **_):
            for epoch, taken in enumerate((9, 1, 2, 5)[:epochs]):
                callbacks[0].on_epoch_begin(epoch)
                clock[0] += taken
                callbacks[0].on_epoch_end(epoch)
                clock[0] += 100  # whatever is between epochs
            return type("History", (), {"history": {"accuracy": [0.5, 1]}})

    batches = type("Batches", (), {"begin": lambda *_: None})()
    seconds, history = training_times._epochs(Model(), batches, 4)
    assert seconds == [9, 1, 2, 5] and history["accuracy"][-1] == 1
    assert training_times._summary(seconds, 24) == {"images": 24, "seconds": 2, "low": 1, "high": 5}


def planted_times(monkeypatch, kinds, seconds, weak_seconds):
    """The tables of arms whose times are known, and the tasks in the order in which they ran."""
    tasks = []

    def run(task):
        frame = pd.read_pickle(Path(task["data"]) / "manifest.pickle").frame
        tasks.append(task | {"labels": set(frame["label"]), "splits": frame["split"].value_counts().to_dict()})
        key = task["arm"] if task["device"] == "gpu" else task["threads"]
        strong = dict.fromkeys(("first_epoch", "seconds", "low", "high", "total"), seconds[key])
        strong |= {"images": tasks[-1]["splits"]["train"], "accuracy": 1.0, "validation_accuracy": 0.5}
        grown = {"images": task["weak_images"], "seconds": weak_seconds.get(key), "low": 0.0, "high": 9.0}
        return {"strong": strong, "weak": grown if task["weak_images"] else None}

    monkeypatch.setattr(training_times, "select_arms", lambda: kinds)
    monkeypatch.setattr(training_times, "_run_arm", run)
    return train(), tasks


def test_ratios_are_those_of_the_first_arm(monkeypatch):
    kinds = [SEQUENTIAL, PARALLEL | {"threads": 2}, PARALLEL, GPU]
    times, tasks = planted_times(monkeypatch, kinds, {1: 8.0, 2: 5.0, 4: 4.0, "GPU": 0.5}, {1: 2.0, 2: 2.5, 4: 4.0})
    strong, weak = times.strong, times.weak
    assert strong["arm"].tolist() == ["sequential CPU", "parallel CPU", "parallel CPU", "GPU"]
    assert strong["speedup"].tolist() == [1, 1.6, 2, 16]
    assert strong["efficiency"].tolist()[:3] == [1, 0.8, 0.5] and np.isnan(strong["efficiency"].iloc[3])
    np.testing.assert_allclose(strong["serial_fraction"], [np.nan, 0.25, 1 / 3, np.nan])
    assert strong["images_per_second"].tolist() == [2, 3.2, 4, 32]
    assert weak["threads"].tolist() == [1, 2, 4] and weak["images"].tolist() == [4, 8, 16], "work that really grows"
    assert weak["speedup"].tolist() == [1, 1.6, 2] and weak["efficiency"].tolist() == [1, 0.8, 0.5]
    np.testing.assert_allclose(weak["serial_fraction"], [np.nan, 0.4, 2 / 3])
    assert not {"device", "accuracy"} & set(weak.columns) and "device" not in strong
    both = times.by_threads
    assert both.index.tolist() == [(kind, count) for kind in ("strong", "weak") for count in (1, 2, 4)]
    assert both["images"].tolist() == [16, 16, 16, 4, 8, 16] and both.loc[("weak", 2), "speedup"] == 1.6
    assert times.law.serial == pytest.approx(0.32, abs=0.1) and times.curve["threads"].max() == 4
    assert " ".join(times.conclusions()) == (
        "On 4 threads the same work is 2.00 × as fast as on one, 50% of the ideal; Karp and Flatt's serial fraction "
        "is 0.333. Work that grows with the threads is 2.00 × as fast on 4, 50% of the ideal. "
        f"Amdahl's law fits with a {times.law}."
    )
    assert all((task["epochs"], task["batch_size"]) == (1, 8) for task in tasks)
    assert tasks[0]["labels"] == set(planted.CLASSES), "the manifest lists one class after the other"
    assert tasks[0]["splits"]["train"] == 16


def test_arms_run_in_a_random_order(monkeypatch):
    kinds = [PARALLEL | {"threads": threads} for threads in (1, 2, 3, 4, 5, 6, 7, 8)]
    seconds = dict.fromkeys(range(1, 9), 1.0)
    times, tasks = planted_times(monkeypatch, kinds, seconds, seconds)
    order = [task["threads"] for task in tasks]
    assert sorted(order) == times.strong["threads"].tolist() == list(range(1, 9)) and order != sorted(order)
    assert [task["threads"] for task in planted_times(monkeypatch, kinds, seconds, seconds)[1]] == order


def test_two_threads_are_no_fit_and_one_scales_nothing(monkeypatch):
    two, _ = planted_times(monkeypatch, [SEQUENTIAL, PARALLEL | {"threads": 2}], {1: 8.0, 2: 5.0}, {1: 4.0, 2: 5.0})
    assert two.law is None and two.curve is None
    assert two.conclusions()[-1].endswith("needs at least three numbers of threads; this machine has 2.")
    one, _ = planted_times(monkeypatch, [SEQUENTIAL], {1: 8.0}, {1: 8.0})
    assert one.conclusions() == ["This machine has one thread to train on, so scaling cannot be measured."]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2000), st.integers(1, 128), st.integers(1, 64))
def test_work_fits_the_data_and_the_largest_weak_arm_is_a_strong_one(images, threads, batch_size):
    strong, weak = training_times.split_work(images, threads, batch_size)
    assert 1 <= weak <= strong <= images
    assert strong == weak * threads or images < threads
    assert weak < batch_size or weak % batch_size == 0
    assert weak >= batch_size or weak == max(images // threads, 1)


def test_environment_hides_gpus_from_cpu_arms_alone(monkeypatch):
    seen = []

    class Child:
        def __init__(self, name, arguments, environment, *, hint, **_):
            seen.append(environment)
            assert name.startswith("training with ") and hint == "try fewer benchmark.images"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def ask(self, task):
            return {"arm": task["arm"]}

    monkeypatch.setattr(training_times, "Child", Child)
    assert [training_times._run_arm(arm) for arm in (SEQUENTIAL, GPU)] == [{"arm": "sequential CPU"}, {"arm": "GPU"}]
    assert seen[0]["CUDA_VISIBLE_DEVICES"] == "-1" and "CUDA_VISIBLE_DEVICES" not in seen[1]


def test_arms_are_those_of_the_machine(monkeypatch):
    for cores, gpus, expected in ((1, 0, [1]), (2, 0, [1, 2]), (6, 0, [1, 2, 4, 6]), (8, 1, [1, 2, 4, 8, 8])):
        monkeypatch.setattr(training_times.runtime, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(training_times.runtime, "gpus", lambda gpus=gpus: gpus)
        arms = training_times.select_arms()
        assert [arm["threads"] for arm in arms] == expected
        assert [arm["device"] for arm in arms] == ["cpu"] * (len(expected) - gpus) + ["gpu"] * gpus
        assert [arm["arm"] for arm in arms].count("sequential CPU") == 1


def test_stages_add_up_by_kind():
    visits = [
        Visit("pixels", Path("a"), built=False, seconds=2.0, own_seconds=2.0, size=8.0),
        Visit("transfer", Path("b"), built=True, seconds=6.0, own_seconds=4.0, size=1.0),
        Visit("transfer", Path("c"), built=False, seconds=2.0, own_seconds=2.0, size=1.5),
    ]
    table = stage_times.stage_times(visits)
    assert table.index.tolist() == ["pixels", "transfer"] and table.columns.tolist() == [
        "stages", "built", "seconds", "share", "mib"
    ]  # fmt: skip
    assert table.loc["pixels"].tolist() == [1, 0, 2, 0.25, 8]
    assert table.loc["transfer"].tolist() == [2, 1, 6, 0.75, 2.5]
    assert stage_times.stage_times([]).empty


def test_steps_of_an_epoch_are_measured_on_training_images(monkeypatch):
    images = planted.pixels()  # decoded once in a process, and here before anything watches the decoder
    seen = []
    load = stage_times.decoder.load
    monkeypatch.setattr(stage_times.decoder, "load", lambda path, size: seen.append((path, size)) or load(path, size))
    row = {"arm": "parallel CPU", "seconds": 0.5, "images": 100}
    times = training_times.TrainingTimes(
        "baseline_cnn", pd.DataFrame([row, row | {"arm": "GPU", "seconds": 0.001}]), pd.DataFrame()
    )
    table = stage_times.epoch_times(study(augmentation="dihedral+mixup"), planted.manifest(), images, times, count=10)
    assert table.index.tolist() == ["decode and resize", "augment", "train"]
    assert table.loc["train", "milliseconds"] == 5 and table.loc["train", "images_per_second"] == 200
    assert (table["milliseconds"] > 0).all() and table["share"].iloc[1:].sum() == pytest.approx(1)
    assert np.isnan(table.loc["decode and resize", "share"]) and table["when"].tolist()[0] == "once"
    paths = {path for path, _ in seen}
    training = set(map(Path, planted.manifest().frame["path"].iloc[planted.manifest().rows("train")]))
    assert len(paths) == 10 and paths <= training and {size for _, size in seen} == {planted.SIZE}
