"""Training time by number of threads: strong scaling (the same work) and weak scaling (more work on more threads).

The number of threads is fixed once TensorFlow has started, so each has its own process, which runs this module with
`python -m scanbook.benchmark.training_times`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.benchmark import scaling
from scanbook.config import Study
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.models.backbones import RANDOM, Weights
from scanbook.runtime.processes import WITHOUT_GPU, Child, answering


@dataclass(frozen=True)
class TrainingTimes:
    """Training time with each number of threads.

    Seconds are those of one epoch of training, without validation; `low` and `high` are the fastest and the slowest.
    The first epoch, which traces and compiles, does not count.

    Attributes:
        backbone: Name of the trained network.
        strong: The same images for every arm. `arm`, `threads`, `images`; `seconds` (median), `low`, `high`,
            `first_epoch`, `total` of all epochs, including the first; `accuracy` on training images and
            `validation_accuracy` after the last epoch, of findings the share of right labels; `images_per_second`;
            `speedup` over one thread, `efficiency`, speed-up over threads, and Karp and Flatt's `serial_fraction`, both
            undefined for a GPU.
        weak: The same number of images per thread for every arm, processors only. `arm`, `threads`, `images`,
            `seconds`, `low`, `high`, `images_per_second`; `speedup` scaled by the work, `efficiency`, and Gustafson's
            `serial_fraction`.
    """

    backbone: str
    strong: pd.DataFrame
    weak: pd.DataFrame

    @property
    def by_threads(self) -> pd.DataFrame:
        """Both tables, processors only: index `scaling` ("strong" or "weak") and `threads`."""
        tables = pd.concat({"strong": self._cores, "weak": self.weak}, names=["scaling", None])
        columns = ["images", "seconds", "speedup", "efficiency", "serial_fraction"]
        return tables.set_index("threads", append=True).droplevel(1)[columns]

    @property
    def _cores(self) -> pd.DataFrame:
        return self.strong[self.strong["arm"] != "GPU"]

    @property
    def law(self) -> scaling.Amdahl | None:
        """Amdahl's law fitted to the strong arms of processors; None for fewer than three numbers of threads."""
        cores = self._cores
        return scaling.amdahl(cores["threads"].tolist(), cores["seconds"].tolist())

    @property
    def curve(self) -> pd.DataFrame | None:
        """Speed-up of the fitted law, as `plots.scaling_curves` draws it; None without a fit."""
        return self.law.curve(self.strong["threads"].max()) if self.law else None

    def conclusions(self) -> list[str]:
        """Return the effect of the most threads in one to three sentences."""
        cores, law = self._cores, self.law
        most = cores.iloc[-1]
        if len(cores) == 1:
            return ["This machine has one thread to train on, so scaling cannot be measured."]
        sentences = [
            f"On {most['threads']} threads the same work is {most['speedup']:.2f} × as fast as on one, "
            f"{most['efficiency']:.0%} of the ideal; Karp and Flatt's serial fraction is {most['serial_fraction']:.3f}."
        ]
        if len(self.weak) > 1:
            largest = self.weak.iloc[-1]
            sentences.append(
                f"Work that grows with the threads is {largest['speedup']:.2f} × as fast on "
                f"{largest['threads']}, {largest['efficiency']:.0%} of the ideal."
            )
        if law is None:
            few = f"Amdahl's law needs at least three numbers of threads; this machine has {len(cores)}."
            return [*sentences, few]
        return [*sentences, f"Amdahl's law fits with a {law}."]


def select_arms() -> list[dict[str, Any]]:
    """Return the arms of this machine: 1, 2, 4 … and all threads, and a GPU where there is one."""
    most = runtime.cores()
    powers = {2**power for power in range(most.bit_length()) if 2**power <= most}
    arms = [
        {"arm": "sequential CPU" if count == 1 else "parallel CPU", "device": "cpu", "threads": count}
        for count in sorted(powers | {most})
    ]
    return arms + ([{"arm": "GPU", "device": "gpu", "threads": most}] if runtime.gpus() else [])


def split_work(images: int, threads: int, batch_size: int) -> tuple[int, int]:
    """Return the number of images of the arms.

    Batches are whole where the images allow it, so that the work per image is the same for every arm. The largest weak
    arm has as many images as the strong ones, so that it runs once.

    Args:
        images: Most training images.
        threads: Most threads of an arm.
        batch_size: Images in a batch.

    Returns:
        Images of every strong arm, and images per thread of the weak ones.
    """
    per_thread = max(images // threads, 1)
    if per_thread >= batch_size:
        per_thread -= per_thread % batch_size
    return min(per_thread * threads, images), per_thread


def measure_training(
    study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights
) -> TrainingTimes:
    """Train the same network with each number of threads, each in a fresh process, in random order.

    A weak arm trains in the process of the strong arm with its threads, on a sample of the same images.

    Args:
        study: Its `benchmark` gives the numbers of images and epochs, its `fine_tuning` the batch size.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        backbone: Name of the study's network, unless `benchmark` names another; all layers learn.
        weights: Initial weights of the study's network.

    Raises:
        RunError: An arm failed; the message has its last line.
    """
    if study.benchmark.backbone:
        backbone, weights = study.benchmark.backbone, RANDOM
    arms, batch_size = select_arms(), study.fine_tuning.batch_size
    # a random sample, since many sources list one class after the other
    generator = np.random.default_rng(study.seed)
    training, validation = (generator.permutation(manifest.rows(split)) for split in (TRAIN, VALIDATION))
    most = max(arm["threads"] for arm in arms)
    count, per_thread = split_work(min(study.benchmark.images, len(training)), most, batch_size)
    rows = np.sort(np.concatenate([training[:count], validation[: study.benchmark.images]]))
    results: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images[rows])
        pd.to_pickle(manifest.with_frame(manifest.frame.iloc[rows]), Path(folder) / "manifest.pickle")
        pd.to_pickle(weights, Path(folder) / "weights.pickle")
        for index in runtime.progress(generator.permutation(len(arms)).tolist(), "training arms"):
            arm = arms[index]
            weak_images = per_thread * arm["threads"] if arm["device"] == "cpu" else 0
            task = arm | {
                "data": folder,
                "backbone": backbone,
                "head": study.head.model_dump(),
                "epochs": study.benchmark.epochs,
                "batch_size": batch_size,
                "seed": study.seed,
                "weak_images": weak_images if weak_images <= count else 0,
            }
            results[index] = _run_arm(task)
    strong = [arm | results[index]["strong"] for index, arm in enumerate(arms)]
    weak = [arm | results[index]["weak"] for index, arm in enumerate(arms) if results[index]["weak"]]
    return TrainingTimes(backbone, _add_scaling(strong, weak=False), _add_scaling(weak, weak=True))


def _add_scaling(rows: list[dict[str, Any]], *, weak: bool) -> pd.DataFrame:
    """Return a table of the arms with speed, speed-up over the first, efficiency and serial fraction."""
    frame = pd.DataFrame(rows)
    frame["images_per_second"] = frame["images"] / frame["seconds"]
    threads = frame["threads"].astype(float).where(frame["device"] == "cpu")
    speedups = scaling.table(frame["seconds"].tolist(), threads.tolist(), frame["images"].tolist() if weak else None)
    serial = scaling.gustafson if weak else scaling.karp_flatt
    frame = frame.drop(columns="device").join(speedups)
    return frame.assign(serial_fraction=serial(frame["speedup"], threads))


def _run_arm(task: dict[str, Any]) -> dict[str, Any]:
    """Train with one number of threads in a separate process; return its figures."""
    name = f"training with {task['threads']} thread{'' if task['threads'] == 1 else 's'} ({task['arm']})"
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | (WITHOUT_GPU if task["device"] == "cpu" else {})
    hint = "try fewer benchmark.images"
    with Child(name, ["-m", "scanbook.benchmark.training_times"], environment, hint=hint, patience=10) as child:
        return child.ask(task)


def _train_arm(task: dict[str, Any]) -> dict[str, Any]:
    """Train the strong arm, and the weak one where its work differs; runs in the process of the arm."""
    runtime.configure(task["seed"], task["threads"])
    from scanbook import training
    from scanbook.augmentation import Augmenter
    from scanbook.config import Head, Training
    from scanbook.models import backbones
    from scanbook.training import objectives
    from scanbook.training.end_to_end import build_in_training_precision

    weights = pd.read_pickle(Path(task["data"]) / "weights.pickle")
    images = np.load(Path(task["data"]) / "images.npy")
    manifest = pd.read_pickle(Path(task["data"]) / "manifest.pickle")
    size, head = images.shape[1:3], Head.model_validate(task["head"])
    model = build_in_training_precision(
        lambda: backbones.build(task["backbone"], size, len(manifest.names), weights, head)
    )
    training.set_trainable(model)
    rows, y = manifest.rows(TRAIN), manifest.label_values(TRAIN)
    order = np.random.default_rng(task["seed"]).permutation(len(rows))

    def batches(count: int) -> training.Batches:
        sample = np.sort(order[:count])
        return training.Batches(
            images, rows[sample], y[sample], task["batch_size"], Augmenter("none", count, task["seed"])
        )

    whole, epochs = batches(len(rows)), task["epochs"] + 1
    values = Training(epochs=epochs, batch_size=task["batch_size"])
    objective = objectives.of(manifest.labels)
    steps = training.optimizer(values, whole.num_batches)
    model.compile(steps, objective.loss(), weighted_metrics=objective.metrics())
    model.optimizer.build(model.trainable_variables)
    seconds, history = _epochs(model, whole, epochs)
    validation = manifest.rows(VALIDATION)
    logits = np.concatenate(
        [model(images[batch], training=False) for batch in np.split(validation, range(64, len(validation), 64))]
    )
    strong = _summary(seconds, len(rows)) | {
        "first_epoch": seconds[0],
        "total": sum(seconds),
        "accuracy": history["accuracy"][-1],
        "validation_accuracy": objective.accuracy(manifest.label_values(VALIDATION), logits),
    }
    weak = None
    if task["weak_images"] == len(rows):
        weak = _summary(seconds, len(rows))
    elif task["weak_images"]:
        weak = _summary(_epochs(model, batches(task["weak_images"]), epochs)[0], task["weak_images"])
    return {"strong": strong, "weak": weak}


def _epochs(model: Any, batches: Any, count: int) -> tuple[list[float], dict[str, list[float]]]:
    """Train for `count` epochs; return the seconds of each and the Keras history.

    Keras waits for the result of the last step before it calls `on_epoch_end`, on a GPU too.
    """
    starts, ends = [], []
    clock = runtime.keras().callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: starts.append(time.perf_counter()),
        on_epoch_end=lambda *_: ends.append(time.perf_counter()),
    )
    batches.begin(0)
    history = model.fit(batches, epochs=count, shuffle=False, verbose=0, callbacks=[clock]).history
    return (np.array(ends) - starts).tolist(), history


def _summary(seconds: list[float], images: int) -> dict[str, float]:
    later = seconds[1:]
    return {"images": images, "seconds": float(np.median(later)), "low": min(later), "high": max(later)}


if __name__ == "__main__":
    answer = answering()
    answer(_train_arm(json.loads(sys.stdin.readline())))
