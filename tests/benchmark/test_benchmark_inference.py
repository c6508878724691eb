"""Inference benchmark: fresh processes that end with their owner, honest statistics, refused engines never win."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from helpers import planted
from scanbook import export, runtime
from scanbook.benchmark import inference, layers, worker
from scanbook.data.manifest import VALIDATION
from scanbook.errors import ModelError, RunError
from scanbook.models import engines
from scanbook.runtime import machine

KEYS = [("Keras", "fp32"), ("OpenVINO", "fp32"), ("OpenVINO", "int8"), ("ONNX Runtime", "fp32")]


def study(**benchmark):
    values = {"batch_sizes": [1, 4], "windows": 3, "window_seconds": 0.01, "calibration_images": 12}
    return planted.study(benchmark=values | benchmark, bootstrap_rounds=50)


@pytest.fixture(scope="module")
def models():
    """The planted network, saved for every engine."""
    return inference.prepare(study(), planted.manifest(), planted.pixels(), planted.network())


def answers(rate, batch=1, count=4, calls=40, spread=0.0):
    """Windows as a worker answers them: `rate` images a second, the medians of calls `spread` apart as a share."""
    return [
        {"milliseconds": [1000 * batch / rate * (1 + spread * place)] * calls, "seconds": calls * batch / rate}
        for place in range(count)
    ]


# --- statistics


def test_summary_of_planted_windows():
    windows = [{"milliseconds": list(np.arange(1.0, 51)), "seconds": seconds} for seconds in (1, 2, 4, 1, 2, 4)]
    figures = inference.summary(windows, batch=8, tolerance=0.05)
    assert (figures["calls"], figures["windows"], figures["stable"]) == (300, 6, True)
    every = np.tile(np.arange(1.0, 51), 6)
    assert [figures[name] for name in ("p50", "p95", "p99")] == np.percentile(every, [50, 95, 99]).tolist()
    assert (figures["images_per_second"], figures["low"], figures["high"]) == (200, 100, 400)


@pytest.mark.parametrize(("calls", "given"), [(9, "p50"), (20, "p50 p95"), (99, "p50 p95"), (100, "p50 p95 p99")])
def test_a_percentile_needs_a_call_beyond_it(calls, given):
    figures = inference.summary([{"milliseconds": [1.0] * calls, "seconds": 1.0}], 1, 0.05)
    assert " ".join(name for name in ("p50", "p95", "p99") if np.isfinite(figures[name])) == given


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=30))
def test_interval_of_the_median_covers_by_order_statistics(seconds):
    windows = [{"milliseconds": [1.0], "seconds": duration} for duration in seconds]
    figures = inference.summary(windows, 1, 0.05)
    if len(seconds) < 6:
        assert np.isnan(figures["low"]) and np.isnan(figures["high"])
        return
    rates, outside = np.sort(1 / np.array(seconds)), int(binom.ppf(0.025, len(seconds), 0.5)) - 1
    assert figures["low"] == rates[outside] and figures["high"] == rates[-1 - outside]
    assert figures["low"] <= figures["images_per_second"] <= figures["high"]
    assert 1 - 2 * binom.cdf(outside, len(seconds), 0.5) >= 0.95


def test_stable_is_said_of_the_last_three_windows():
    assert not inference.stable(answers(10, count=2), 0.05)
    assert inference.stable(answers(10, spread=0.02), 0.05)
    assert not inference.stable(answers(10, spread=0.03), 0.05)
    assert inference.stable([*answers(90, count=5), *answers(10, count=3)], 0.05)


# --- the order of windows


class Timed:
    """A process whose speed is known: it settles after `restless` windows of a size."""

    callers = 3

    def __init__(self, name, log, restless=0):
        self.name, self.log, self.restless = name, log, restless

    def window(self, engine, batch, seconds=0.0, callers=None):
        self.log.append((self.name, engine, batch, seconds))
        seen = sum(entry[0] == self.name and entry[2] == batch and entry[3] > 0 for entry in self.log)
        milliseconds = 1.0 + (seen if seen <= self.restless else 0)
        return {"milliseconds": [milliseconds] * 5, "seconds": 0.005}


def timed(restless, **benchmark):
    log = []
    workers = {
        inference.Configuration(name, "fp32", "latency", 1, Path(f"{name}.xml")): Timed(name, log, count)
        for name, count in restless.items()
    }
    return inference._measure_windows(study(**benchmark), workers), log


def test_windows_are_repeated_until_stable_and_no_longer():
    measurements, log = timed({"calm": 0, "restless": 6, "never": 99}, windows=12, stable=0.05)
    counts = {(configuration.engine, batch): len(windows) for (configuration, batch), windows in measurements.items()}
    assert counts == {
        **{("calm", batch): inference.WINDOWS for batch in (1, 4)},
        **{("restless", batch): 9 for batch in (1, 4)},
        **{("never", batch): 12 for batch in (1, 4)},
    }
    assert len([entry for entry in log if entry[3] > 0]) == sum(counts.values())


def test_windows_are_interleaved_in_an_order_set_by_the_seed():
    measurements, log = timed({"a": 0, "b": 0, "c": 0}, windows=8)
    warm, rest = log[:6], log[6:]
    assert [(name, batch) for name, _, batch, _ in warm] == [(name, size) for name in "abc" for size in (1, 4)]
    measured = [(name, batch) for name, _, batch, seconds in rest if seconds]
    rounds = [measured[start : start + 6] for start in range(0, len(measured), 6)]
    assert all(len(set(calls)) == 6 for calls in rounds), "each once a round"
    assert len({tuple(calls) for calls in rounds}) > 1, "in another order each time"
    assert [entry[:3] for entry in rest[::2]] == [entry[:3] for entry in rest[1::2]], (
        "a call before each that is not kept"
    )
    assert timed({"a": 0, "b": 0, "c": 0}, windows=8)[1] == log
    assert {len(windows) for windows in measurements.values()} == {inference.WINDOWS}


def test_window_keeps_every_call_of_every_caller():
    calls = []

    def predict(images):
        calls.append(len(images))
        time.sleep(0.002)

    with ThreadPoolExecutor(3) as pool:
        milliseconds, seconds = worker.window(predict, np.zeros((4, 2, 2, 3)), 0.0, 3, pool)
        assert calls == [4, 4, 4] and len(milliseconds) == 3, "once from each"
        milliseconds, seconds = worker.window(predict, np.zeros((4, 2, 2, 3)), 0.02, 2, pool)
    assert len(milliseconds) == len(calls) - 3 > 2
    assert min(milliseconds) >= 2 and seconds >= 0.02
    assert sum(milliseconds) <= 1000 * 2 * seconds


# --- processes


def task(models, **changes):
    path = models.paths["OpenVINO", "fp32"]
    values = {"path": str(path), "mode": "latency", "threads": 1, "engines": ["OpenVINO"], "seed": 0}
    return values | {"images": str(models.images)} | changes


every = inference.select_configurations


def only_openvino(monkeypatch, models):
    """Two configurations whose processes start soon, in float32 and in int8."""
    few = [
        configuration
        for configuration in every(study(), models)
        if (configuration.engine, configuration.mode, configuration.threads) == ("OpenVINO", "latency", 1)
    ]
    monkeypatch.setattr(inference, "select_configurations", lambda *_: few)


def children():
    return [process for process in psutil.Process().children() if "worker.py" in " ".join(process.cmdline())]


def test_worker_imports_neither_keras_nor_pandas():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-P", worker.__file__],
        input="",
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "scanbook" in imported and not imported & {"keras", "tensorflow", "pandas", "sklearn", "nncf", "openvino"}


def test_worker_answers_and_ends(models):
    with worker.Worker("a name", task(models)) as running_worker:
        process = psutil.Process(running_worker.process.pid)
        assert running_worker.callers == 1 and running_worker.load > 0 and running_worker.memory == 0
        first = running_worker.window("OpenVINO", 1, callers=1)
        assert len(first["milliseconds"]) == 1 and first["seconds"] > 0
        assert 0 < running_worker.memory <= psutil.virtual_memory().total / 2**20
        before = process.cpu_times()
        time.sleep(0.3)
        after = process.cpu_times()
        assert after.user + after.system - before.user - before.system < 0.1, "an idle process takes time from others"
    assert not process.is_running()


def test_throughput_mode_calls_from_as_many_threads_as_it_has_requests(models):
    threads = runtime.cores()
    with worker.Worker("a name", task(models, mode="throughput", threads=threads)) as running_worker:
        expected = engines.open_saved(models.paths["OpenVINO", "fp32"], "throughput", threads).requests
        assert running_worker.callers == expected
        running_worker.window("OpenVINO", 1, callers=1)
        assert len(running_worker.window("OpenVINO", 4)["milliseconds"]) == expected


def test_process_that_fails_is_one_line(models, tmp_path):
    with pytest.raises(RunError, match=r"inference with a name failed: .*; try smaller benchmark") as failed:
        worker.Worker("a name", task(models, path=str(tmp_path / "none.xml")))
    assert "\n" not in str(failed.value) and "none.xml" in str(failed.value)
    assert not children()


def test_killed_process_is_one_line_and_stops_the_others(models, monkeypatch):
    only_openvino(monkeypatch, models)
    seen, window = [], worker.Worker.window

    def kill(self, engine, batch, seconds=0.0, callers=None):
        if seconds and not seen:
            seen.extend(children())
            os.kill(self.process.pid, signal.SIGKILL)
        return window(self, engine, batch, seconds, callers)

    monkeypatch.setattr(worker.Worker, "window", kill)
    with pytest.raises(RunError, match=r"OpenVINO .* failed: killed by signal 9, as happens when memory") as failed:
        inference.measure(study(), models)
    assert "\n" not in str(failed.value)
    assert len(seen) == len(inference.select_configurations(study(), models)) > 1
    assert not any(process.is_running() for process in seen)


def test_interrupt_stops_every_process(models, monkeypatch):
    only_openvino(monkeypatch, models)
    seen, window = [], worker.Worker.window

    def interrupt(self, engine, batch, seconds=0.0, callers=None):
        if seconds:
            seen.extend(children())
            raise KeyboardInterrupt
        return window(self, engine, batch, seconds, callers)

    monkeypatch.setattr(worker.Worker, "window", interrupt)
    with pytest.raises(KeyboardInterrupt):
        inference.measure(study(), models)
    assert len(seen) > 1 and not any(process.is_running() for process in seen)


START = """
import json, os, runpy, signal, sys
worker = runpy.run_path(sys.argv[1], run_name="worker")
worker["Worker"].__init__.__globals__["__file__"] = sys.argv[1]
started = worker["Worker"]("a name", json.loads(sys.argv[2]))
print(started.process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_process_ends_with_its_owner_even_one_that_is_killed(models):
    run = [sys.executable, "-c", START, worker.__file__, json.dumps(task(models))]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    orphan = int(done.stdout)
    for _ in range(200):
        if not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"process {orphan} lives on")


def test_peak_memory_is_this_process_own():
    """Not what the process that started it held: `ru_maxrss` would inherit that."""
    ballast = np.ones(40 * 2**20)
    code = "from scanbook import runtime; print(runtime.peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < 200 < ballast.nbytes / 2**20 <= runtime.peak_memory()


def test_machine_is_described():
    description = runtime.describe_machine()
    assert description["cores"] == runtime.cores() <= description["logical processors"]
    assert description["physical cores"] <= description["logical processors"] and description["memory (GiB)"] > 0
    flags = set(description["instruction sets"].split())
    assert flags <= set(machine.INSTRUCTION_SETS) and description["processor"]


# --- models and tables


def test_models_agree_but_for_int8(models):
    table = models.agreement
    assert list(table.index) == list(models.paths) == KEYS and models.missing == ()
    keras = table.loc[("Keras", "fp32")]
    assert keras["difference"] == keras["change"] == 0 and keras["refused"] == ""
    fp32 = table.xs("fp32", level="precision")
    assert (fp32["difference"] < engines.PARITY).all() and (fp32["refused"] == "").all()
    assert fp32["accuracy"].nunique() == 1
    int8 = table.loc[("OpenVINO", "int8")]
    assert int8["difference"] > engines.PARITY and int8["low"] <= int8["change"] <= int8["high"]
    assert int8["change"] == pytest.approx(100 * (int8["accuracy"] - keras["accuracy"]))
    assert engines.open_saved(models.paths["OpenVINO", "int8"]).precision == "int8"
    assert np.load(models.images).shape == (4, *planted.SIZE, 3)


def test_int8_is_calibrated_on_training_images_sampled_by_seed(monkeypatch):
    shown = []
    monkeypatch.setattr(engines, "quantise", lambda _, images: shown.append(images))
    for seed in (0, 0, 1):
        options = study().model_copy(update={"seed": seed})
        export.quantise(options, planted.manifest(), planted.pixels(), None)
    training = planted.pixels()[planted.manifest().rows("train")]
    for images in shown:
        assert len(images) == 12
        assert all((image == training).all((1, 2, 3)).any() for image in images)
    assert (shown[0] == shown[1]).all() and (shown[0] != shown[2]).any()


def test_engine_that_is_not_installed_is_a_sentence(monkeypatch):
    def absent(model, path):
        raise ModelError('ONNX needs onnx: pip install "scanbook[onnx]"')

    monkeypatch.setattr(engines, "to_onnx", absent)
    monkeypatch.setattr(engines, "quantise", lambda model, images, transformer=False: model)
    prepared = inference.prepare(study(), planted.manifest(), planted.pixels(), planted.network())
    assert prepared.missing == ('ONNX Runtime is not available: ONNX needs onnx: pip install "scanbook[onnx]".',)
    assert "ONNX Runtime" not in prepared.agreement.index and not any(
        configuration.engine == "ONNX Runtime" for configuration in inference.select_configurations(study(), prepared)
    )


def test_agreement_tells_a_wrong_engine():
    y = planted.manifest().y[planted.manifest().rows(VALIDATION)]
    right = 5 * np.eye(3)[y]
    wrong, broken = -right, np.full_like(right, np.nan)
    logits = dict(zip(KEYS, (right, right + 1e-4, wrong, broken), strict=True))
    table = inference.compare_engines(study(), planted.manifest(), logits)
    assert [bool(reason) for reason in table["refused"]] == [False, False, True, True]
    assert table["change"].iloc[2] == -100 and table["high"].iloc[2] == -100
    assert np.isnan(table["change"].iloc[3]) and table["accuracy"].iloc[2] == 0


def test_engines_are_compared_by_the_areas_of_findings():
    manifest = planted.observed()
    y = np.nan_to_num(manifest.label_values("validation"))
    right = 5 * (y - 0.5)
    logits = dict(zip(KEYS, (right, right + 1e-4, -right, np.full_like(right, np.nan)), strict=True))
    table = inference.compare_engines(study(), manifest, logits)
    assert [bool(reason) for reason in table["refused"]] == [False, False, True, True]
    assert list(table)[:2] == ["auroc", "change"] and table["auroc"].tolist()[:3] == [1, 1, 0]
    assert table["change"].iloc[2] == -100 and np.isnan(table["auroc"].iloc[3])


@pytest.mark.parametrize(("cores", "gpus", "count"), [(1, 0, 8), (8, 0, 12), (8, 1, 13)])
def test_configurations_are_those_of_the_machine(models, monkeypatch, cores, gpus, count):
    monkeypatch.setattr(runtime, "cores", lambda: cores)
    monkeypatch.setattr(runtime, "gpus", lambda: gpus)
    configurations = inference.select_configurations(study(), models)
    assert (
        len(configurations)
        == len(set(configurations))
        == len({configuration.name for configuration in configurations})
        == count
    )
    assert {configuration.threads for configuration in configurations} == {1, cores}
    assert [configuration.threads for configuration in configurations if configuration.engine == "Keras predict"] == [
        cores
    ]
    assert all(configuration.threads == cores for configuration in configurations if configuration.mode == "throughput")
    assert sum(configuration.device == "gpu" for configuration in configurations) == gpus


def measured(models, monkeypatch, **benchmark):
    only_openvino(monkeypatch, models)
    return inference.measure(study(**benchmark), models)


def test_inference_has_a_row_a_configuration_and_batch(models, monkeypatch):
    table = measured(models, monkeypatch)
    planned = inference.select_configurations(study(), models)
    assert len(table) == 2 * len(planned) and not table.duplicated([*inference.CONFIGURATION, "batch"]).any()
    assert (table["windows"] == 3).all() and (table["calls"] >= 3).all() and table["low"].isna().all()
    assert (table["p50"] > 0).all() and (table["images_per_second"] > 0).all() and (table["memory"] > 1).all()
    np.testing.assert_allclose(table["cold_start"], table["load"] + table["first"])
    sizes = table.groupby("precision")["size"].first()
    assert sizes["int8"] < sizes["fp32"] == engines.size_on_disk(models.paths["OpenVINO", "fp32"]) / 2**20
    per = inference.by_configuration(table)
    assert len(per) == len(planned) and "batch" not in per


def speeds(refused=""):
    rows = [("Keras predict", 10.0, ""), ("OpenVINO", 100.0, ""), ("OpenVINO", 300.0, refused)]
    return pd.DataFrame(
        {
            "engine": engine,
            "precision": ("fp32", "fp32", "int8")[place],
            "mode": "latency",
            "threads": 2,
            "batch": batch,
        }
        | inference.summary(answers(rate * batch, batch), batch, 0.05)
        | {"refused": reason}
        for place, (engine, rate, reason) in enumerate(rows)
        for batch in (1, 4)
    )


def test_refused_engine_is_never_the_fastest(models):
    assert inference.fastest(speeds())["precision"] == "int8"
    assert inference.fastest(speeds("int8: right on 1 of 11 images"))["precision"] == "fp32"
    reason = "int8: right on 1 of 11 images"
    agreement = models.agreement.assign(refused=["", "", reason, ""])
    refusing = replace(models, agreement=agreement, missing=("No abacus.",))
    sentences = " ".join(inference.result_sentences(speeds(reason), refusing))
    assert sentences.startswith(
        "Fastest: OpenVINO fp32, latency, 2 threads, at batch 4: 400 images/s, 10.0 × `model.predict`"
    )
    assert "OpenVINO fp32, latency, 2 threads, 10 ms (median of 160 calls), compared with 100 ms" in sentences
    assert "Refused, OpenVINO, int8: right on 1 of 11 images." in sentences and sentences.endswith("No abacus.")
    assert "not stable" not in sentences
    unsettled = speeds().assign(stable=False)
    assert "6 of 6 rows are not stable" in " ".join(inference.result_sentences(unsettled, models))


# --- layers


def test_layers_are_named_and_add_up(models):
    table = layers.profile(models)
    assert table["layer"].is_unique and table["layer"].str.match(r"\d+ [A-Z]").all()
    convolution = next(name for name in table["layer"] if " Convolution " in name)
    assert "3×3 → " in convolution and convolution.count("×") == 3
    assert (table[["fp32", "int8"]].min() >= 0).all() and table[["fp32", "int8"]].notna().any(axis=1).all()
    types, expensive = layers.by_type(table), layers.most_expensive(table, 3)
    for precision in layers.PRECISIONS:
        assert types[f"{precision} share"].sum() == pytest.approx(1)
        assert types[f"{precision} milliseconds"].sum() == pytest.approx(table[precision].sum())
        assert types[f"{precision} layers"].sum() == table[precision].count()
    assert len(expensive) == 3 and expensive["fp32 milliseconds"].dropna().is_monotonic_decreasing
    assert not any("Quantized" in name for name in types.index)


# --- Keras, whose processes take long to start


@pytest.mark.slow
def test_keras_two_ways_share_a_process(models, monkeypatch):
    monkeypatch.setattr(runtime, "gpus", lambda: 1)  # without one, that process runs on the CPU
    shared = [
        configuration
        for configuration in every(study(), models)
        if configuration.path.suffix == ".keras" and configuration.threads == runtime.cores()
    ]
    monkeypatch.setattr(inference, "select_configurations", lambda *_: shared)
    table = inference.measure(study(), models)
    per = inference.by_configuration(table).reset_index()
    assert per["engine"].tolist() == [worker.PREDICT, worker.TRACED, "Keras traced, GPU"]
    both = per.iloc[:2]
    assert per["cold_start"].notna().iloc[2]
    assert both["memory"].nunique() == 1
    assert both["cold_start"].notna().tolist() == [True, False]
    assert (table["accuracy"] == models.agreement["accuracy"].iloc[0]).all()
