"""Time of the suite itself: by stage of its pipeline, and by step of a training epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from scanbook import runtime, store
from scanbook.augmentation import Augmenter
from scanbook.benchmark.training_times import TrainingTimes
from scanbook.config import Study
from scanbook.data import images as decoder
from scanbook.data.manifest import TRAIN, Manifest

_REPEATS = 3


def stage_times(visits: Iterable[store.Visit] | None = None) -> pd.DataFrame:
    """Return the build times of the stages that this process used, by kind.

    Args:
        visits: Stages; None for those of this process.

    Returns:
        Index: `kind`, in the order in which the first of each was ready. `stages`, their number; `built`, the number of
        stages built now (the rest came from the store); `seconds` to build them, each without the stages inside it, so
        that they add up; `share` of these seconds; `mib`, their size.
    """
    stages = store.visited() if visits is None else visits
    rows = [(visit.kind, visit.built, visit.own_seconds, visit.size) for visit in stages]
    kinds = pd.DataFrame(rows, columns=["kind", "built", "seconds", "mib"]).groupby("kind", sort=False)
    table = kinds.agg(stages=("built", "size"), built=("built", "sum"), seconds=("seconds", "sum"), mib=("mib", "sum"))
    table.insert(3, "share", table["seconds"] / table["seconds"].sum())
    return table


def epoch_times(
    study: Study, manifest: Manifest, images: np.ndarray, times: TrainingTimes, count: int = 256
) -> pd.DataFrame:
    """Return the time per image of each step of a training epoch, with all threads.

    Images are decoded and augmented several times, and the median counts, so files come from the system's cache, not
    from the disk. The time of the training step is that of the arm with the most threads, which does not augment.

    Args:
        study: Augmentation, batch size and seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        times: Training time by threads.
        count: Most training images.

    Returns:
        Index: `step`. `milliseconds` per image; `images_per_second`; `share` of the steps of every epoch, NaN for the
        step that runs once, when the pixels are cached; `when`.
    """
    rows = np.random.default_rng(study.seed).permutation(manifest.rows(TRAIN))[:count]
    files = [Path(path) for path in manifest.frame["path"].iloc[rows]]
    batch, size = study.fine_tuning.batch_size, images.shape[1:3]
    pixels, y = np.asarray(images[rows]), manifest.labels.values[rows]
    augment = Augmenter(study.augmentation, len(rows), study.seed)

    def decode(_: int) -> None:
        with ThreadPoolExecutor(runtime.cores()) as pool:
            list(pool.map(lambda path: decoder.load(path, size), files))

    def augment_all(epoch: int) -> None:
        for number, start in enumerate(range(0, len(rows), batch)):
            indices = np.arange(start, min(start + batch, len(rows)))
            augment.mix(augment(pixels[indices], indices, epoch), y[indices], epoch, number)

    trained = times.strong[times.strong["arm"] != "GPU"].iloc[-1]
    seconds = {
        "decode and resize": _median(decode) / len(rows),
        "augment": _median(augment_all) / len(rows),
        "train": trained["seconds"] / trained["images"],
    }
    table = pd.DataFrame({"milliseconds": pd.Series(seconds) * 1000}).rename_axis("step")
    table["images_per_second"] = 1000 / table["milliseconds"]
    repeated = table["milliseconds"].drop("decode and resize")
    table["share"] = repeated / repeated.sum()
    return table.assign(when=["once", "every epoch", "every epoch"])


def _median(work: Callable[[int], None]) -> float:
    """Return the seconds of a call, the median of `_REPEATS`; each call gets its number, from 1."""
    seconds = []
    for number in range(1, _REPEATS + 1):
        started = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
