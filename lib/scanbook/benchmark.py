"""Measures training by threads and inference by engine, on the machine at hand.

Threads cannot be changed once TensorFlow has started, so every training arm runs in a process of its own; it is this
module, run with `python -m scanbook.benchmark`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import engines, runtime
from scanbook.backbones import Weights
from scanbook.errors import RunError
from scanbook.manifest import TRAIN, VALIDATION, Manifest
from scanbook.study import Study


def training_arms() -> list[dict[str, Any]]:
    """The arms that this machine allows: one thread, all threads, and a GPU when there is one."""
    threads = sorted({1, runtime.cores()})
    arms = [
        {"arm": "sequential CPU" if count == 1 else "parallel CPU", "device": "cpu", "threads": count}
        for count in threads
    ]
    return arms + ([{"arm": "GPU", "device": "gpu", "threads": runtime.cores()}] if runtime.gpus() else [])


def training(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> pd.DataFrame:
    """Trains the same network on the same images for each arm, in a fresh process each.

    The first epoch, which traces and compiles, is timed apart and left out of the medians.

    Returns:
        One row an arm: `arm`, `threads`, `first_epoch` and `seconds` an epoch (median, with `low` and `high`, the
        fastest and the slowest; each includes a pass over the validation images), `images_per_second` of training in
        that time, `speedup` over one thread, `efficiency` = speedup over threads (not defined for a GPU), `accuracy`
        and `validation_accuracy` after the last epoch.

    Raises:
        RunError: An arm failed, with its last line.
    """
    # drawn by lot: many sources list one class after the other
    draw = np.random.default_rng(study.seed)
    rows, validation = (
        np.sort(draw.permutation(manifest.rows(part))[: study.benchmark.images]) for part in (TRAIN, VALIDATION)
    )
    used = np.concatenate([rows, validation])
    found = []
    with tempfile.TemporaryDirectory() as work:
        np.save(Path(work) / "images.npy", images[used])
        pd.to_pickle(manifest.with_frame(manifest.frame.iloc[used]), Path(work) / "manifest.pickle")
        for arm in runtime.progress(training_arms(), "training arms"):
            task = arm | {
                "data": work,
                "backbone": backbone,
                "head": study.head.model_dump(),
                "weights": [weights.source, str(weights.path or ""), weights.digest],
                "epochs": study.benchmark.epochs,
                "batch_size": study.fine_tuning.batch_size,
                "seed": study.seed,
            }
            found.append(arm | _run_arm(task))
    table = pd.DataFrame(found).drop(columns="device")
    table["images_per_second"] = len(rows) / table["seconds"]
    table["speedup"] = table["seconds"].iloc[0] / table["seconds"]
    table["efficiency"] = (table["speedup"] / table["threads"]).where(table["arm"] != "GPU")
    return table


def _run_arm(task: dict[str, Any]) -> dict[str, float]:
    environment = os.environ | {"SCANBOOK_HEADLESS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if task["device"] == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "scanbook.benchmark"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode < 0:
            last = f"killed by signal {-done.returncode}, as happens when memory runs out"
        raise RunError(
            f"benchmark arm {task['arm']} with {task['threads']} threads failed: {last}; try fewer benchmark.images"
        )
    return json.loads(done.stdout.splitlines()[-1])


def _train_arm(task: dict[str, Any]) -> dict[str, float]:
    """One arm, inside its own process."""
    runtime.configure(task["seed"], task["threads"])
    from scanbook import backbones, training
    from scanbook.study import Head, Training

    source, path, digest = task["weights"]
    weights = Weights(source, Path(path) if path else None, digest)
    images = np.load(Path(task["data"]) / "images.npy")
    manifest = pd.read_pickle(Path(task["data"]) / "manifest.pickle")
    size, head = images.shape[1:3], Head.model_validate(task["head"])
    model = backbones.build(task["backbone"], size, len(manifest.classes), weights, head)
    training.let_learn(model)
    values = Training(epochs=task["epochs"] + 1, batch_size=task["batch_size"])
    history = training.train_all(training.Plan(task["arm"], values, "none", task["seed"]), model, images, manifest)
    epochs = np.diff(history["seconds"])
    return {
        "first_epoch": float(history["seconds"].iloc[0]),
        "seconds": float(np.median(epochs)),
        "low": float(epochs.min()),
        "high": float(epochs.max()),
        "accuracy": float(history["accuracy"].iloc[-1]),
        "validation_accuracy": float(history["validation_accuracy"].iloc[-1]),
    }


class _KerasPredict:
    """`model.predict`, as most notebooks call it."""

    name = "Keras predict"

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, images: np.ndarray, batch_size: int = 32) -> tuple[np.ndarray, ...]:
        return (self._model.predict(np.asarray(images), batch_size=batch_size, verbose=0),)


def inference_engines(model: Any) -> dict[str, engines.Engine]:
    """The ways to run a network that are compared, by name."""
    converted = engines.to_openvino(model)
    return {
        "Keras predict": _KerasPredict(model),
        "Keras traced": engines.KerasEngine(model),
        "OpenVINO latency": engines.OpenVinoEngine(converted, "latency"),
        "OpenVINO throughput": engines.OpenVinoEngine(converted, "throughput"),
    }


def inference(study: Study, runners: dict[str, engines.Engine], images: np.ndarray) -> pd.DataFrame:
    """Times every engine at every batch size, windows interleaved in random order after a warm-up.

    A window is one call of `predict` on eight batches; at batch size 1 that is eight single images.

    Args:
        study: Batch sizes, number of windows and seed.
        runners: Engines by name.
        images: Images to predict, uint8 `(n, h, w, 3)`; repeated where there are too few.

    Returns:
        One row an engine and batch size: `engine`, `batch`, `images_per_second` (median of the windows, with `low` and
        `high`, their quartiles), `milliseconds` for one batch (median).
    """
    plan = [(name, batch) for name in runners for batch in study.benchmark.batch_sizes]
    windows = {
        batch: np.resize(np.asarray(images), (8 * batch, *images.shape[1:])) for batch in study.benchmark.batch_sizes
    }
    times: dict[tuple[str, int], list[float]] = {pair: [] for pair in plan}
    order = np.random.default_rng(study.seed)
    for name, batch in plan:
        runners[name].predict(windows[batch], batch)
    for _ in runtime.progress(range(study.benchmark.windows), "timing engines"):
        for index in order.permutation(len(plan)):
            name, batch = plan[index]
            started = time.perf_counter()
            runners[name].predict(windows[batch], batch)
            times[name, batch].append(time.perf_counter() - started)
    rows = []
    for (name, batch), taken in times.items():
        rates = 8 * batch / np.array(taken)
        low, middle, high = np.quantile(rates, [0.25, 0.5, 0.75])
        rows.append((name, batch, middle, low, high, 1000 * batch / middle))
    return pd.DataFrame(rows, columns=["engine", "batch", "images_per_second", "low", "high", "milliseconds"])


def agreement(logits: dict[str, np.ndarray], y_true: np.ndarray) -> pd.DataFrame:
    """Holds every engine's logits against those of the first.

    Args:
        logits: `(n, k)` by engine.
        y_true: True classes, int `(n,)`.

    Returns:
        One row an engine: `difference` of the logits as a share of their spread, and `accuracy`.
    """
    reference = next(iter(logits.values()))
    rows = {
        name: {"difference": engines.parity(reference, values), "accuracy": float((values.argmax(1) == y_true).mean())}
        for name, values in logits.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("engine")


if __name__ == "__main__":
    print(json.dumps(_train_arm(json.load(sys.stdin))))
