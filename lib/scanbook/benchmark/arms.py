"""Training by threads, on the machine at hand: the same work on more threads, and more work on more threads.

Threads cannot be changed once TensorFlow has started, so every number of them has a process of its own; it is this
module, run with `python -m scanbook.benchmark.arms`.
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
from scanbook.models.backbones import Weights
from scanbook.runtime.processes import WITHOUT_GPU, Child, answering


@dataclass(frozen=True)
class TrainingTimes:
    """What training took with each number of threads.

    Seconds are of an epoch of training alone, without its validation; `low` and `high` are the fastest and the slowest.
    The first epoch, which traces and compiles, is left out of them.

    Attributes:
        strong: The same images for every arm. `arm`, `threads`, `images`; `seconds` (median), `low`, `high`,
            `first_epoch`, `total` of all epochs, the first included; `accuracy` on training images and
            `validation_accuracy` after the last epoch; `images_per_second`; `speedup` over one thread, `efficiency`,
            speed-up over threads, and `serial_fraction`, Karp and Flatt's, neither of which is defined for a GPU.
        weak: As many images a thread for every arm, of processors alone. `arm`, `threads`, `images`, `seconds`, `low`,
            `high`, `images_per_second`; `speedup` scaled by the work, `efficiency`, and `serial_fraction`, Gustafson's.
    """

    strong: pd.DataFrame
    weak: pd.DataFrame

    @property
    def by_threads(self) -> pd.DataFrame:
        """Both, of processors alone: index `scaling` ("strong" or "weak") and `threads`."""
        both = pd.concat({"strong": self._cores, "weak": self.weak}, names=["scaling", None])
        columns = ["images", "seconds", "speedup", "efficiency", "serial_fraction"]
        return both.set_index("threads", append=True).droplevel(1)[columns]

    @property
    def _cores(self) -> pd.DataFrame:
        return self.strong[self.strong["arm"] != "GPU"]

    @property
    def law(self) -> scaling.Amdahl | None:
        """Amdahl's law through the strong arms of processors; None for fewer than three numbers of threads."""
        cores = self._cores
        return scaling.amdahl(cores["threads"].tolist(), cores["seconds"].tolist())

    @property
    def curve(self) -> pd.DataFrame | None:
        """Its speed-up up to the most threads, as `plots.scaling_curves` draws it."""
        return self.law.curve(self.strong["threads"].max()) if self.law else None

    def conclusion(self) -> str:
        """What the most threads bring, in words."""
        cores, law = self._cores, self.law
        most = cores.iloc[-1]
        if len(cores) == 1:
            return "This machine has one thread to train on, so there is nothing to scale."
        said = (
            f"On {most['threads']} threads the same work goes {most['speedup']:.2f} × as fast as on one, "
            f"{most['efficiency']:.0%} of the ideal; Karp and Flatt's serial fraction is {most['serial_fraction']:.3f}."
        )
        if len(self.weak) > 1:
            grown = self.weak.iloc[-1]
            said += (
                f" Work that grows with the threads goes {grown['speedup']:.2f} × as fast on {grown['threads']}, "
                f"{grown['efficiency']:.0%} of the ideal."
            )
        if law is None:
            return f"{said} Amdahl's law is fitted from three numbers of threads on; here there are {len(cores)}."
        return f"{said} Amdahl's law fits with a {law}."


def training_arms() -> list[dict[str, Any]]:
    """The arms that this machine allows: 1, 2, 4 … and all threads, and a GPU when there is one."""
    most = runtime.cores()
    powers = {2**power for power in range(most.bit_length()) if 2**power <= most}
    arms = [
        {"arm": "sequential CPU" if count == 1 else "parallel CPU", "device": "cpu", "threads": count}
        for count in sorted(powers | {most})
    ]
    return arms + ([{"arm": "GPU", "device": "gpu", "threads": most}] if runtime.gpus() else [])


def work(images: int, threads: int, batch_size: int) -> tuple[int, int]:
    """How many images the arms train on.

    Whole batches where there are enough, so that the work an image is the same for every arm; and as many for the
    largest weak arm as for the strong ones, so that it need not be run twice.

    Args:
        images: At most so many training images.
        threads: Most threads of an arm.
        batch_size: Images in a batch.

    Returns:
        Images of every strong arm, and images a thread of the weak ones.
    """
    each = max(images // threads, 1)
    if each >= batch_size:
        each -= each % batch_size
    return min(each * threads, images), each


def training(study: Study, manifest: Manifest, images: np.ndarray, backbone: str, weights: Weights) -> TrainingTimes:
    """Trains the same network with each number of threads, in a fresh process each, in random order.

    A weak arm trains in the process of the strong one with its threads, on images drawn from the same.

    Args:
        study: At most how many images and how many epochs, in `benchmark`; the batch size of `fine_tuning`.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        backbone: Name of the network; all its layers learn.
        weights: What it starts from.

    Raises:
        RunError: An arm failed, with its last line.
    """
    arms, batch_size = training_arms(), study.fine_tuning.batch_size
    # drawn by lot: many sources list one class after the other
    draw = np.random.default_rng(study.seed)
    order, held_out = (draw.permutation(manifest.rows(split)) for split in (TRAIN, VALIDATION))
    most = max(arm["threads"] for arm in arms)
    count, each = work(min(study.benchmark.images, len(order)), most, batch_size)
    used = np.sort(np.concatenate([order[:count], held_out[: study.benchmark.images]]))
    found: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images[used])
        pd.to_pickle(manifest.with_frame(manifest.frame.iloc[used]), Path(folder) / "manifest.pickle")
        for place in runtime.progress(draw.permutation(len(arms)).tolist(), "training arms"):
            arm = arms[place]
            grown = each * arm["threads"] if arm["device"] == "cpu" else 0
            task = arm | {
                "data": folder,
                "backbone": backbone,
                "head": study.head.model_dump(),
                "weights": [weights.source, str(weights.path or ""), weights.digest],
                "epochs": study.benchmark.epochs,
                "batch_size": batch_size,
                "seed": study.seed,
                "weak_images": grown if grown <= count else 0,
            }
            found[place] = _run_arm(task)
    results = [found[place] for place in range(len(arms))]
    weak = [(arm, result["weak"]) for arm, result in zip(arms, results, strict=True) if result["weak"]]
    strong = [(arm, result["strong"]) for arm, result in zip(arms, results, strict=True)]
    return TrainingTimes(_scaled(strong, grown=False), _scaled(weak, grown=True))


def _scaled(rows: list[tuple[dict[str, Any], dict[str, float]]], *, grown: bool) -> pd.DataFrame:
    """A table of arms and what they took, with what the first row makes of the others."""
    frame = pd.DataFrame([arm | result for arm, result in rows])
    frame["images_per_second"] = frame["images"] / frame["seconds"]
    threads = frame["threads"].astype(float).where(frame["device"] == "cpu")
    gained = scaling.table(frame["seconds"].tolist(), threads.tolist(), frame["images"].tolist() if grown else None)
    serial = scaling.gustafson if grown else scaling.karp_flatt
    frame = frame.drop(columns="device").join(gained)
    return frame.assign(serial_fraction=serial(frame["speedup"], threads))


def _run_arm(task: dict[str, Any]) -> dict[str, Any]:
    """One number of threads in a process of its own."""
    name = f"training with {task['threads']} thread{'' if task['threads'] == 1 else 's'} ({task['arm']})"
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | (WITHOUT_GPU if task["device"] == "cpu" else {})
    hint = "try fewer benchmark.images"
    with Child(name, ["-m", "scanbook.benchmark.arms"], environment, hint=hint, patience=10) as child:
        return child.ask(task)


def _train_arm(task: dict[str, Any]) -> dict[str, Any]:
    """One number of threads, inside its own process: the strong arm, and the weak one where its work differs."""
    runtime.configure(task["seed"], task["threads"])
    from scanbook import training
    from scanbook.augmentation import Augmenter
    from scanbook.config import Head, Training
    from scanbook.models import backbones
    from scanbook.training.fitting import CrossEntropy, metrics
    from scanbook.training.networks import in_training_precision

    source, path, digest = task["weights"]
    weights = Weights(source, Path(path) if path else None, digest)
    images = np.load(Path(task["data"]) / "images.npy")
    manifest = pd.read_pickle(Path(task["data"]) / "manifest.pickle")
    size, head = images.shape[1:3], Head.model_validate(task["head"])
    model = in_training_precision(lambda: backbones.build(task["backbone"], size, len(manifest.classes), weights, head))
    training.let_learn(model)
    rows, y = manifest.rows(TRAIN), manifest.one_hot(TRAIN)
    lot = np.random.default_rng(task["seed"]).permutation(len(rows))

    def batches(count: int) -> training.Batches:
        drawn = np.sort(lot[:count])
        return training.Batches(
            images, rows[drawn], y[drawn], task["batch_size"], Augmenter("none", count, task["seed"])
        )

    whole, epochs = batches(len(rows)), task["epochs"] + 1
    values = Training(epochs=epochs, batch_size=task["batch_size"])
    model.compile(training.optimizer(values, whole.num_batches), CrossEntropy(), weighted_metrics=metrics())
    seconds, history = _epochs(model, whole, epochs)
    known = model.evaluate(
        images[manifest.rows(VALIDATION)], manifest.one_hot(VALIDATION), batch_size=64, verbose=0, return_dict=True
    )
    strong = _summary(seconds, len(rows))
    more = {
        "first_epoch": seconds[0],
        "total": sum(seconds),
        "accuracy": history["accuracy"][-1],
        "validation_accuracy": known["accuracy"],
    }
    found = {"strong": strong | more, "weak": None}
    if task["weak_images"] == len(rows):
        found["weak"] = strong
    elif task["weak_images"]:
        found["weak"] = _summary(_epochs(model, batches(task["weak_images"]), epochs)[0], task["weak_images"])
    return found


def _epochs(model: Any, batches: Any, count: int) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds of every epoch, and what Keras kept of them.

    Keras waits for what an epoch's last step computed before it calls `on_epoch_end`, on a GPU too.
    """
    begun, ended = [], []
    clock = runtime.keras().callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: begun.append(time.perf_counter()),
        on_epoch_end=lambda *_: ended.append(time.perf_counter()),
    )
    batches.begin(0)
    history = model.fit(batches, epochs=count, shuffle=False, verbose=0, callbacks=[clock]).history
    return (np.array(ended) - begun).tolist(), history


def _summary(seconds: list[float], images: int) -> dict[str, float]:
    later = seconds[1:]
    return {"images": images, "seconds": float(np.median(later)), "low": min(later), "high": max(later)}


if __name__ == "__main__":
    answer = answering()
    answer(_train_arm(json.loads(sys.stdin.readline())))
