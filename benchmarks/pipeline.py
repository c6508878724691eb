"""scanbook's pipeline from files to a trained head at one number of images, timed by step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import inputs
from benchmarks.inputs import BATCH
from benchmarks.scanbook_side import empty_store, list_files
from benchmarks.studies import make_study
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
    """Seconds of each step, and the largest memory during it that no file backs, in GiB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure the block."""
        with Peak(own_memory, 0.02) as memory:
            started = time.perf_counter()
            yield
            self.seconds[name] = time.perf_counter() - started
        self.memory[name] = memory.value

    def figures(self) -> dict[str, Any]:
        """Return the figures of a measurement."""
        peak = max(self.memory.values())
        return {"value": sum(self.seconds.values()), **self.seconds, "own memory": peak, "own memories": self.memory}


@contextmanager
def of_files(folder: str, backbone: str, size: int, count: int) -> Iterator[Callable[[], dict[str, Any]]]:
    """Time decoding, features and head of `count` JPEG files."""
    runtime.configure(0)

    def measure(count: int = count) -> dict[str, Any]:
        manifest, steps = list_files(folder, count, dict(zip(SPLITS, (60, 20, 20), strict=True))), Steps()
        with empty_store():
            _learn(steps, manifest, backbone, size)
        return steps.figures()

    measure(min(count, 2 * BATCH))
    yield measure


@contextmanager
def of_synthetic_images(
    folder: str, backbone: str, size: int, images: int, count: int
) -> Iterator[Callable[[], dict[str, Any]]]:
    """Time the first notebook's computations on `count` synthetic images, then their pixels, features and a head.

    Further figures are `pixels`, bytes of the pixel cache, and `recall` and `precision` of the planted near-duplicates.
    """
    runtime.configure(0)

    def measure(count: int = count) -> dict[str, Any]:
        manifest, steps = merge_datasets(Path(folder), images, count), Steps()
        with empty_store():
            split, figures = _explore(steps, manifest)
            loaded = _learn(steps, split.manifest, backbone, size)
            figures["pixels"] = loaded.nbytes
        return steps.figures() | figures

    measure(images)
    yield measure


def merge_datasets(folder: Path, images: int, count: int) -> Manifest:
    """Return the first `count` images of a folder of synthetic datasets, of `images` images each, as one dataset."""
    frames, faults = [], dict[str, list]()
    for number in range(count // images):
        split, prefix = folder / inputs.dataset_name(number), f"{number:03d}-"
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
            ids = [prefix + item if isinstance(item, str) else [prefix + name for name in item] for item in members]
            faults.setdefault(kind, []).extend(ids)
    return Manifest("bench", pd.concat(frames, ignore_index=True), dermoscopy.CLASSES, {"faults": faults})


def _explore(steps: Steps, manifest: Manifest) -> tuple[splits.SplitDataset, dict[str, Any]]:
    """Run the first notebook's computations; return the split dataset and the recall of near-duplicates."""
    study = make_study("mobilenet_v2_0.35", 96, {})
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
        shortcuts = quality.shortcuts(scanned, split.manifest, study.seed)
        for figure in (
            plots.class_counts(frame, classes),
            plots.montage(*quality.class_examples(split.manifest)),
            *(plots.category_by_class(frame, name, classes) for name in ("sex", "site")),
            plots.numeric_by_class(frame, "age", classes),
            plots.image_sizes(table, classes),
            plots.image_statistics(table, quality.varying_properties(table), classes),
            plots.montage(*quality.flagged_examples(manifest, flagged), title="Flagged by the quality checks"),
            plots.montage(*quality.pair_examples(manifest, near), 4),
            plots.shortcut_bars(shortcuts),
        ):
            writing.write(figure)
    return split, planted.loc["near duplicates", ["recall", "precision"]].to_dict()


def _learn(steps: Steps, manifest: Manifest, backbone: str, size: int) -> np.ndarray:
    """Run pixels, features and head; return the pixels."""
    weights = backbones.pretrained(backbone, "scanbook")
    with steps.step("decode"):
        images = pixels.load(manifest, (size, size))
    with steps.step("features"):
        features.extract(manifest, images, backbone, weights)
    with steps.step("head"):
        training.train_head(make_study(backbone, size, {}), manifest, images, backbone, weights)
    return images
