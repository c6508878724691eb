"""Time and memory against the number of images: from files to a trained head, and for more images than memory holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import LIMIT, Side, start_side
from benchmarks.table import SMALL, Sizes, datasets, jpegs

LINEAR = 1.1
"""Largest exponent of the count that still counts as linear growth."""
FLAT = 1.5
"""Largest growth of memory, from the fewest to the most images, that still counts as flat."""
ENOUGH = 3.0
"""Limit of the memory that no file backs, in GB, for any number of images."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that is measured at growing numbers of images.

    Attributes:
        description: What it does, in a phrase.
        side: `module:function` that measures it, with the arguments `options` and `count`.
        options: Its arguments, plain JSON.
        steps: Names of its steps.
        counts: Numbers of images.
        prepare: Sides that write the inputs.
        limit: Most seconds of a measurement.
        within: Limit of memory in GB that the page shows; None for no limit.
        unable: The reason why it cannot be measured.
    """

    description: str
    side: str
    options: dict[str, Any]
    steps: tuple[str, ...]
    counts: tuple[int, ...]
    prepare: tuple[Side, ...] = ()
    limit: float = LIMIT
    within: float | None = None
    unable: str = ""


def pipeline_of_files(folder: Path, sizes: Sizes, data: Path | None) -> Pipeline:
    """Return the pipeline from JPEG files to a trained head.

    Args:
        folder: Folder of the inputs.
        sizes: Number and size of the images.
        data: Folder with JPEG files; None for synthetic ones.
    """
    prepare, path, count = jpegs(folder, sizes, data)
    few = f"{count} JPEG files are too few; expected at least {sorted(sizes.growth)[1]}"
    counts = tuple(number for number in sizes.growth if number <= count)
    return Pipeline(
        f"files decoded at {sizes.growth_size} px, features of MobileNetV2 0.35 by OpenVINO, head trained on them",
        "benchmarks.pipeline:of_files",
        {"folder": path, "backbone": SMALL, "size": sizes.growth_size},
        ("decode", "features", "head"),
        counts,
        prepare,
        unable=few if len(counts) < 2 else "",
    )


def pipeline_of_synthetic_images(folder: Path, sizes: Sizes) -> Pipeline:
    """Return the pipeline of a study up to fine-tuning, on more images than memory holds.

    Args:
        folder: Folder of the inputs.
        sizes: Number and size of the images.
    """
    prepare, path = datasets(folder, sizes)
    size, largest = sizes.streaming_size, max(sizes.streaming)
    # per image its files, in blocks of the disk, its pixels, its grey picture, its features and the same turned
    needed = largest * (4 * 4096 + 3 * size**2 + 64**2 + 2 * 4 * 1280) / 1e9
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free / 1e9
    return Pipeline(
        f"synthetic images of {size} px as in the default study, all different but for the planted copies, "
        f"{sizes.streaming_each:,} per seed: the computations and figures of the first notebook, pixels, "
        "features of MobileNetV2 0.35 by OpenVINO, head trained on them",
        "benchmarks.pipeline:of_synthetic_images",
        {"folder": path, "backbone": SMALL, "size": size, "images": sizes.streaming_each},
        ("scan", "near copies", "split", "statistics", "decode", "features", "head"),
        sizes.streaming,
        (prepare,),
        limit=12 * LIMIT,
        within=ENOUGH,
        unable=f"{needed:.0f} GB of disk are needed, {free:.0f} are free" if free < needed else "",
    )


def measure(
    pipeline: Pipeline, environment: Mapping[str, str], log: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Measure a pipeline at growing numbers of images, each in a fresh process.

    Args:
        pipeline: The pipeline.
        environment: Variables for the processes.
        log: Called with a line for each number of images.

    Returns:
        As `summary`; or `unable`, the reason why nothing was measured.
    """
    if pipeline.unable:
        return {"unable": pipeline.unable}
    for input_side in pipeline.prepare:
        with start_side(input_side, environment) as writer:
            writer.measure()
    points = []
    for n in pipeline.counts:
        side = Side(f"{n} images", pipeline.side, "", pipeline.options | {"count": n}, True, pipeline.limit)
        with start_side(side, environment) as process:
            figures = process.measure()
        points.append({"n": n, "seconds": figures.pop("value"), **figures})
        log(f"{n:,} images: {points[-1]['seconds']:.1f} s, {points[-1]['own memory']:.2f} GiB")
    return summary(pipeline, points)


def summary(pipeline: Pipeline, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return exponents and limits of the measurements.

    Args:
        pipeline: The pipeline.
        points: By number of images: `n`, `seconds` in total and of each step, `memory` (peak, GiB) and `own memory`
            (the share of it that no file backs).

    Returns:
        `points`, each with its images per second by step, `rates`; `description`, `size` and `steps` of the pipeline;
        `exponents` of time, in total and by step, and `memory growth`, last own memory over first; `linear` and
        `flat`, whether these are within their limits; and `within` with `kept within`, whether own memory was, where
        the pipeline has a limit.
    """
    keys = ("seconds", *pipeline.steps)
    exponents = {key: exponent([p["n"] for p in points], [p[key] for p in points]) for key in keys}
    grown = points[-1]["own memory"] / points[0]["own memory"]
    result = {
        "description": pipeline.description,
        "size": pipeline.options["size"],
        "steps": list(pipeline.steps),
        "points": [point | {"rates": {key: point["n"] / max(point[key], 1e-9) for key in keys}} for point in points],
        "exponents": exponents,
        "memory growth": grown,
        "linear": exponents["seconds"] <= LINEAR,
        "flat": grown <= FLAT,
    }
    if pipeline.within is not None:
        peak = gigabytes(max(point["own memory"] for point in points))
        result |= {"within": pipeline.within, "kept within": peak <= pipeline.within}
    return result


def gigabytes(memory: float) -> float:
    """Return GiB as GB."""
    return memory * 2**30 / 1e9


def exponent(counts: Sequence[float], values: Sequence[float]) -> float:
    """Return b of value = a · count^b, fitted by least squares of the logarithms; 1 is linear growth."""
    return float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-9)), 1)[0])
