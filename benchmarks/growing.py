"""What growth measures: scanbook's way from files to a trained head, step by step, at one number of images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import material
from benchmarks.material import BATCH
from benchmarks.ours import empty_store, listed, study_of
from benchmarks.worker import own_memory
from scanbook import runtime, training
from scanbook.data import pixels, quality, splits
from scanbook.data.adapters.synthetic import dermoscopy
from scanbook.data.manifest import SPLITS, Manifest
from scanbook.models import backbones, features
from scanbook.reporting import plots
from scanbook.reporting.plots import writing
from scanbook.runtime.processes import Peak


class Steps:
    """Seconds of each step, and the most memory during it that no file backs, in GiB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measures the block."""
        with Peak(own_memory, 0.02) as memory:
            started = time.perf_counter()
            yield
            self.seconds[name] = time.perf_counter() - started
        self.memory[name] = memory.value

    def measured(self) -> dict[str, Any]:
        """As a side answers."""
        most = max(self.memory.values())
        return {"value": sum(self.seconds.values()), **self.seconds, "own memory": most, "own memories": self.memory}


@contextmanager
def of_files(folder: str, backbone: str, size: int, count: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Decoding, features and head of `count` JPEG files."""
    runtime.configure(0)

    def once(count: int = count) -> dict[str, Any]:
        manifest, steps = listed(folder, count, dict(zip(SPLITS, (60, 20, 20), strict=True))), Steps()
        with empty_store():
            _learn(steps, manifest, backbone, size)
        return steps.measured()

    once(min(count, 2 * BATCH))
    yield once


@contextmanager
def of_drawn(folder: str, backbone: str, size: int, each: int, count: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """What the notebook on the data computes of `count` synthetic images, then their pixels, features and a head.

    Further answers are `pixels`, bytes of the pixel cache, and `recall` and `precision` of the planted near-duplicates.
    """
    runtime.configure(0)

    def once(count: int = count) -> dict[str, Any]:
        manifest, steps = drawn(Path(folder), each, count), Steps()
        with empty_store():
            split, found = _explore(steps, manifest)
            images = _learn(steps, split.manifest, backbone, size)
            found["pixels"] = images.nbytes
        return steps.measured() | found

    once(each)
    yield once


def drawn(folder: Path, each: int, count: int) -> Manifest:
    """The first so many images of the synthetic datasets in a folder, of `each` images each, as one dataset."""
    frames, faults = [], dict[str, list]()
    for number in range(count // each):
        split, prefix = folder / material.numbered(number), f"{number:03d}-"
        table = pd.read_csv(split / "metadata.csv")
        names = table["image_id"]
        values = {
            "image_id": prefix + names,
            "path": [str(split / "images" / f"{name}.jpg") for name in names],
            "label": table["diagnosis"],
            "group": prefix + table["patient_id"],
            "mask_path": "",
            "split": "",
        }
        frames.append(pd.DataFrame(values).join(table[["age", "sex", "site"]]))
        for kind, members in json.loads((split / "truth.json").read_text())["faults"].items():
            named = [prefix + one if isinstance(one, str) else [prefix + name for name in one] for one in members]
            faults.setdefault(kind, []).extend(named)
    return Manifest("bench", pd.concat(frames, ignore_index=True), dermoscopy.CLASSES, {"faults": faults})


def _explore(steps: Steps, manifest: Manifest) -> tuple[splits.Split, dict[str, Any]]:
    """The first notebook's work."""
    study = study_of("mobilenet_v2_0.35", 96, {})
    with steps.step("scan"):
        scanned = quality.scan(manifest)
        flagged, exact = quality.flags(scanned), quality.exact_copies(scanned)
    with steps.step("near copies"):
        near = quality.near_copies(manifest)
    with steps.step("split"):
        split = splits.assign(manifest, scanned, study.splits)
        near = quality.across_splits(near, split.manifest)
    with steps.step("statistics"):
        frame, classes = split.manifest.frame, manifest.classes
        table = quality.properties(scanned, split.manifest)
        quality.formats(table, classes)
        quality.differences(table, classes)
        quality.tints(table, classes)
        planted = quality.planted(manifest, flagged, exact, near, scanned)
        found = quality.shortcuts(scanned, split.manifest, study.seed)
        for figure in (
            plots.class_counts(frame, classes),
            plots.montage(*quality.examples(split.manifest)),
            *(plots.category_by_class(frame, name, classes) for name in ("sex", "site")),
            plots.numeric_by_class(frame, "age", classes),
            plots.image_sizes(table, classes),
            plots.image_statistics(table, quality.varying(table), classes),
            plots.flagged(*quality.caught(manifest, flagged)),
            plots.montage(*quality.side_by_side(manifest, near), 4),
            plots.shortcut_bars(found),
        ):
            writing.write(figure)
    return split, planted.loc["near duplicates", ["recall", "precision"]].to_dict()


def _learn(steps: Steps, manifest: Manifest, backbone: str, size: int) -> np.ndarray:
    """Pixels, features and a head; returns the pixels."""
    weights = backbones.pretrained(backbone, "scanbook")
    with steps.step("decode"):
        images = pixels.load(manifest, (size, size))
    with steps.step("features"):
        features.extract(manifest, images, backbone, weights)
    with steps.step("head"):
        training.transfer(study_of(backbone, size, {}), manifest, images, backbone, weights)
    return images
