"""How time and memory grow with the number of images: from files to a trained head, and of more than memory holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pairs import LIMIT, Side, running
from benchmarks.rows import SMALL, Sizes, datasets, jpegs

LINEAR = 1.1
"""Largest exponent of the count that still counts as linear growth."""
FLAT = 1.5
"""Largest growth of memory, from the fewest to the most images, that still counts as flat."""
ENOUGH = 3.0
"""GB of memory that no file backs, within which any number of images should go."""


@dataclass(frozen=True)
class Pipeline:
    """What is measured at growing numbers of images.

    Attributes:
        did: What it does, in a sentence.
        side: `module:function` that measures it, which takes `options` and `count`.
        options: Its arguments, plain JSON.
        steps: Names of what its time is made of.
        counts: Numbers of images.
        prepare: What makes the material.
        limit: Seconds that a measurement may take.
        within: GB that memory should stay within, as is shown; None where nothing is asked.
        unable: The reason why it cannot be measured.
    """

    did: str
    side: str
    options: dict[str, Any]
    steps: tuple[str, ...]
    counts: tuple[int, ...]
    prepare: tuple[Side, ...] = ()
    limit: float = LIMIT
    within: float | None = None
    unable: str = ""


def of_files(folder: Path, sizes: Sizes, data: Path | None) -> Pipeline:
    """The way from JPEG files to a trained head.

    Args:
        folder: Where the material is made.
        sizes: How many images, and of which size.
        data: Folder with JPEG files; None draws them.
    """
    prepare, path, count = jpegs(folder, sizes, data)
    few = f"{count} JPEG files are too few; expected at least {sorted(sizes.growth)[1]}"
    counts = tuple(each for each in sizes.growth if each <= count)
    return Pipeline(
        f"files decoded at {sizes.growth_size} px, features of MobileNetV2 0.35 by OpenVINO, head trained on them",
        "benchmarks.growing:of_files",
        {"folder": path, "backbone": SMALL, "size": sizes.growth_size},
        ("decode", "features", "head"),
        counts,
        prepare,
        unable=few if len(counts) < 2 else "",
    )


def of_drawn(folder: Path, sizes: Sizes) -> Pipeline:
    """All that a study does with its data before it fine-tunes, on more images than memory would hold.

    Args:
        folder: Where the material is made.
        sizes: How many images, and of which size.
    """
    prepare, path = datasets(folder, sizes)
    size, most = sizes.streaming_size, max(sizes.streaming)
    # per image its files, in blocks of the disk, its pixels, its grey picture, its features and the same turned
    needed = most * (4 * 4096 + 3 * size**2 + 64**2 + 2 * 4 * 1280) / 1e9
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free / 1e9
    return Pipeline(
        f"images of {size} px, drawn as the default study draws them, none of them twice but for the copies that are "
        f"planted, {sizes.streaming_each:,} of a seed: the computations and figures of the first notebook, pixels, "
        "features of MobileNetV2 0.35 by OpenVINO, head trained on them",
        "benchmarks.growing:of_drawn",
        {"folder": path, "backbone": SMALL, "size": size, "each": sizes.streaming_each},
        ("scan", "near copies", "split", "statistics", "decode", "features", "head"),
        sizes.streaming,
        (prepare,),
        limit=12 * LIMIT,
        within=ENOUGH,
        unable=f"{needed:.0f} GB of disk are needed, {free:.0f} are free" if free < needed else "",
    )


def measure(
    pipeline: Pipeline, environment: Mapping[str, str], say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measures a pipeline at growing numbers of images, each in a fresh process.

    Args:
        pipeline: What is measured.
        environment: Variables for the processes.
        say: Called with a line for each number of images.

    Returns:
        As `summary`; or `unable`, the reason why it was not run.
    """
    if pipeline.unable:
        return {"unable": pipeline.unable}
    for each in pipeline.prepare:
        with running(each, environment) as maker:
            maker.measure()
    found = []
    for n in pipeline.counts:
        side = Side(f"{n} images", pipeline.side, "", pipeline.options | {"count": n}, True, pipeline.limit)
        with running(side, environment) as process:
            measured = process.measure()
        found.append({"n": n, "seconds": measured.pop("value"), **measured})
        say(f"{n:,} images: {found[-1]['seconds']:.1f} s, {found[-1]['own memory']:.2f} GiB")
    return summary(pipeline, found)


def summary(pipeline: Pipeline, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the measurements say.

    Args:
        pipeline: What was measured.
        points: By number of images: `n`, `seconds` in all and of each step, `memory` (peak, GiB) and `own memory` (of
            it, what no file backs).

    Returns:
        `points`, each with its images a second by step, `rates`; `did`, `size` and `steps` of the pipeline; `exponents`
        of the number of images, in all and by step, and `memory growth`, last own memory over first; `linear` and
        `flat`, whether these are within their limits; and `within` with `kept within`, whether own memory was, where
        the pipeline has such a goal.
    """
    every = ("seconds", *pipeline.steps)
    exponents = {key: exponent([p["n"] for p in points], [p[key] for p in points]) for key in every}
    grown = points[-1]["own memory"] / points[0]["own memory"]
    found = {
        "did": pipeline.did,
        "size": pipeline.options["size"],
        "steps": list(pipeline.steps),
        "points": [point | {"rates": {key: point["n"] / max(point[key], 1e-9) for key in every}} for point in points],
        "exponents": exponents,
        "memory growth": grown,
        "linear": exponents["seconds"] <= LINEAR,
        "flat": grown <= FLAT,
    }
    if pipeline.within is not None:
        most = gigabytes(max(point["own memory"] for point in points))
        found |= {"within": pipeline.within, "kept within": most <= pipeline.within}
    return found


def gigabytes(memory: float) -> float:
    """GiB as GB."""
    return memory * 2**30 / 1e9


def exponent(counts: Sequence[float], values: Sequence[float]) -> float:
    """The b of value = a · count^b that fits best by least squares of the logarithms; 1 is linear growth."""
    return float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-9)), 1)[0])
