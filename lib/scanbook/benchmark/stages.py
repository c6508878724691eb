"""Where the suite's own time goes: by stage of its pipeline, and by step of a training epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from scanbook import runtime, store
from scanbook.augmentation import Augmenter
from scanbook.benchmark.arms import TrainingTimes
from scanbook.config import Study
from scanbook.data import images as decoder
from scanbook.data.manifest import TRAIN, Manifest

_REPEATS = 3


def of_the_pipeline(visits: Iterable[store.Visit] | None = None) -> pd.DataFrame:
    """What the stages that this process asked for took when they were built, by kind.

    Args:
        visits: Stages; None for those of this process.

    Returns:
        Index: `kind`, in the order in which the first of each was ready. `stages`, how many; `built`, how many of them
        were built now, the others being found in the store; `seconds` to build them all, each without the stages that
        it asked for meanwhile, so that they add up; `share` of those; `mib` that they hold.
    """
    found = store.visited() if visits is None else list(visits)
    rows = [(each.kind, each.built, each.own_seconds, each.size) for each in found]
    kinds = pd.DataFrame(rows, columns=["kind", "built", "seconds", "mib"]).groupby("kind", sort=False)
    table = kinds.agg(stages=("built", "size"), built=("built", "sum"), seconds=("seconds", "sum"), mib=("mib", "sum"))
    table.insert(3, "share", table["seconds"] / table["seconds"].sum())
    return table


def of_an_epoch(
    study: Study, manifest: Manifest, images: np.ndarray, times: TrainingTimes, count: int = 256
) -> pd.DataFrame:
    """What an image costs on its way through a training epoch, by step, with all threads.

    Images are decoded and augmented here and now, several times over, of which the median counts: so files come from
    the system's cache, not from its disk. The step of training is what the arm with the most threads took, which
    augments nothing.

    Args:
        study: Augmentation, batch size and seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        times: What training took.
        count: At most so many training images.

    Returns:
        Index: `step`. `milliseconds` an image; `images_per_second`; `share` of what comes every epoch, NaN for what
        comes once, when the pixels are cached; `when`.
    """
    rows = np.random.default_rng(study.seed).permutation(manifest.rows(TRAIN))[:count]
    files = [Path(path) for path in manifest.frame["path"].iloc[rows]]
    batch, size = study.fine_tuning.batch_size, images.shape[1:3]
    pixels, y = np.asarray(images[rows]), np.eye(len(manifest.classes), dtype=np.float32)[manifest.y[rows]]
    augment = Augmenter(study.augmentation, len(rows), study.seed)

    def decode(_: int) -> None:
        with ThreadPoolExecutor(runtime.cores()) as pool:
            list(pool.map(lambda path: decoder.load(path, size), files))

    def augmented(epoch: int) -> None:
        for number, start in enumerate(range(0, len(rows), batch)):
            places = np.arange(start, min(start + batch, len(rows)))
            augment.mix(augment(pixels[places], places, epoch), y[places], epoch, number)

    trained = times.strong[times.strong["arm"] != "GPU"].iloc[-1]
    each = {
        "decode and resize": _median(decode) / len(rows),
        "augment": _median(augmented) / len(rows),
        "train": trained["seconds"] / trained["images"],
    }
    table = pd.DataFrame({"milliseconds": pd.Series(each) * 1000}).rename_axis("step")
    table["images_per_second"] = 1000 / table["milliseconds"]
    often = table["milliseconds"].drop("decode and resize")
    table["share"] = often / often.sum()
    return table.assign(when=["once", "every epoch", "every epoch"])


def _median(work: Callable[[int], None]) -> float:
    """Seconds of a call, the median of `_REPEATS`; each is told its number, from 1."""
    taken = []
    for number in range(1, _REPEATS + 1):
        started = time.perf_counter()
        work(number)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
