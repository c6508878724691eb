"""How time and memory grow with the number of images, from files to a trained head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scanbook.performance.pairs import Side, running
from scanbook.performance.rows import SMALL, Sizes, jpegs

STEPS = ("decode", "features", "head")
LINEAR = 1.1
"""Largest exponent of the count that still counts as linear growth."""
FLAT = 1.5
"""Largest growth of memory, from the fewest to the most images, that still counts as flat."""


def measure(
    folder: Path,
    sizes: Sizes,
    data: Path | None,
    environment: Mapping[str, str],
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures the pipeline at growing numbers of images, each in a fresh process.

    Args:
        folder: Where the material is made.
        sizes: How many images, and of which size.
        data: Folder with JPEG files; None draws them.
        environment: Variables for the processes.
        say: Called with a line for each number of images.

    Returns:
        As `summary`; or `unable`, the reason why it was not run.
    """
    prepare, path, count = jpegs(folder, sizes, data)
    counts = [each for each in sizes.growth if each <= count]
    if len(counts) < 2:
        return {"unable": f"{count} JPEG files are too few; expected at least {sorted(sizes.growth)[1]}"}
    for each in prepare:
        with running(each, environment) as maker:
            maker.measure()
    found = []
    for n in counts:
        options = {"folder": path, "backbone": SMALL, "size": sizes.growth_size, "count": n}
        side = Side(f"{n} images", "scanbook.performance.ours:growth", "", options, True)
        with running(side, environment) as process:
            measured = process.measure()
        found.append({"n": n, "seconds": measured.pop("value"), **measured})
        say(f"{n:,} images: {found[-1]['seconds']:.1f} s, {found[-1]['own memory']:.2f} GiB")
    return summary(found, sizes.growth_size)


def summary(points: Sequence[dict[str, float]], size: int) -> dict[str, Any]:
    """What the measurements say.

    Args:
        points: By number of images: `n`, `seconds` in all and of each of `STEPS`, `memory` (peak, GiB) and `own
            memory` (of it, what no file backs).
        size: Height and width of the images.

    Returns:
        `points`; `size`; `exponents` of the number of images, in all and by step, and `memory growth`, last own memory
        over first; `linear` and `flat`, whether these are within their limits; `did`, a sentence.
    """
    exponents = {key: exponent([p["n"] for p in points], [p[key] for p in points]) for key in ("seconds", *STEPS)}
    grown = points[-1]["own memory"] / points[0]["own memory"]
    return {
        "did": f"files decoded at {size} px, features of MobileNetV2 0.35 by OpenVINO, head trained on them",
        "size": size,
        "points": list(points),
        "exponents": exponents,
        "memory growth": grown,
        "linear": exponents["seconds"] <= LINEAR,
        "flat": grown <= FLAT,
    }


def exponent(counts: Sequence[float], values: Sequence[float]) -> float:
    """The b of value = a · count^b that fits best by least squares of the logarithms; 1 is linear growth."""
    return float(np.polyfit(np.log(counts), np.log(np.maximum(values, 1e-9)), 1)[0])
