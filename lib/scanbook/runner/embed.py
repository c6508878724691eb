"""`scanbook embed`: the vectors of a study's images by a pretrained network, written in pieces into one file."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime, store
from scanbook.config import Study
from scanbook.config.block import check_name
from scanbook.data import adapters, embeddings, images, quality, splits
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.errors import RunError, StudyError
from scanbook.runner.freshness import check_data
from scanbook.runtime import steps

PIECE = 512
"""Images of a piece: what a process that is killed computes again at most."""


@dataclass(frozen=True)
class Task:
    """What is written.

    Attributes:
        study: The study; a limit of images does not count, and vectors that it names are not read.
        backbone: The network.
        path: The file, `.npz`.
        dtype: Of the vectors: float32 or float16.
    """

    study: Study
    backbone: str
    path: Path
    dtype: str = "float32"

    def __post_init__(self) -> None:
        try:
            check_name("backbone", self.backbone)
        except ValueError as error:
            raise StudyError(str(error)) from None
        if self.path.suffix != ".npz":
            raise RunError(f"--to is {self.path.name!r}; expected the name of an .npz file, such as vectors.npz")


def prepared(study: Study, backbone: str) -> Study:
    """Return a study of all its images, with one network."""
    dataset = study.dataset.model_copy(update={"embeddings": ""})
    return study.model_copy(update={"dataset": dataset, "limit": None, "backbones": [backbone]})


def run(task: Task) -> str:
    """Write the vectors of every image of a study that can be read; continue what a killed process began.

    Args:
        task: What is written.

    Returns:
        What was written, in one line.

    Raises:
        StudyError: The backbone is unknown, or has no pretrained weights.
        DataError: The images are missing, or do not fit the study.
    """
    from scanbook.models import backbones, features

    study = prepared(task.study, task.backbone)
    check_data(study)
    available, missing = backbones.resolve(study)
    if task.backbone not in available:
        reason = missing.get(task.backbone, f"backbone {task.backbone} has no pretrained weights")
        raise StudyError(f"{reason}; name another backbone, or set weights")
    weights = available[task.backbone]
    with _logged_steps():
        manifest, rows = _readable(study)
        ids = manifest.frame["image_id"].to_numpy(object)[rows]
        about = {
            "backbone": task.backbone,
            "weights": weights.digest,
            "pretrained on": weights.in_words,
            "image_size": list(study.size),
            "input": study.input,
            "study": study.study,
            "data": manifest.facts.get("data", ""),
            "scanbook": version("scanbook"),
        }
        needed = {**about, **backbones.identify(task.backbone, weights), "ids": ids.tolist(), "dtype": task.dtype}
        needed |= {"cut": manifest.facts.get("cut", ""), "piece": PIECE, "packages": runtime.versions_of(["openvino"])}
        pieces = _Pieces(task, store.fingerprint(needed), len(rows))
        if pieces.missing:
            engine = features.open_backbone(task.backbone, weights, study.size)
            paths = manifest.frame["path"].to_numpy()[rows]
            done = len(pieces.numbers) - len(pieces.missing)
            if done:
                print(f"continues after {done} of {len(pieces.numbers)} pieces", file=sys.stderr)
            for number in runtime.progress(pieces.missing, f"vectors of {task.backbone}, in pieces of {PIECE} images"):
                pixels = _decode(paths[number * PIECE : (number + 1) * PIECE], study.size)
                pieces.save(number, engine.predict(pixels)[0])
        channels = pieces.write(ids.tolist(), about)
    left = len(manifest.frame) - len(rows)
    unreadable = f"; {left:,} images cannot be read, and have none" if left else ""
    return (
        f"{task.path}: {len(rows):,} vectors of {channels:,} channels, {task.dtype}, by {task.backbone} at "
        f"{study.size[0]} × {study.size[1]} pixels, pretrained on: {weights.in_words}{unreadable}. Use them with "
        f"--set dataset.embeddings={_from_project(task.path)}, or in the study's file."
    )


def _from_project(path: Path) -> Path:
    """Return a path as a study names it: from the project, where it is in there."""
    root = runtime.project_root().resolve()
    return path.relative_to(root) if path.is_relative_to(root) else path


class _Pieces:
    """Vectors of consecutive images, one file for each piece, in a hidden folder beside the file that they become.

    Args:
        task: What is written.
        key: Fingerprint of all that the vectors depend on: pieces of another one are removed.
        count: Number of images.
    """

    def __init__(self, task: Task, key: str, count: int) -> None:
        self.task, self.count = task, count
        self.folder = task.path.with_name(f".{task.path.name}.{key}.pieces")
        for other in task.path.parent.glob(f".{task.path.name}.*.pieces"):
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)
        self.numbers = range(-(-count // PIECE))
        self.missing = [number for number in self.numbers if not self._file(number).is_file()]

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06}.npy"

    def save(self, number: int, vectors: np.ndarray) -> None:
        """Write a piece whole: a process that is killed leaves none that looks finished."""
        content = io.BytesIO()
        np.save(content, vectors.astype(self.task.dtype))
        store.atomic_write(self._file(number), content.getvalue())

    def write(self, ids: list[str], about: dict[str, Any]) -> int:
        """Write the file from all pieces, remove these, and return the number of channels."""
        channels = np.load(self._file(0)).shape[1]
        shape = (self.count, channels)
        embeddings.write(self.task.path, ids, self._all(), shape, dtype=self.task.dtype, about=about)
        shutil.rmtree(self.folder, ignore_errors=True)
        return channels

    def _all(self) -> Iterator[np.ndarray]:
        for number in self.numbers:
            yield np.load(self._file(number))


def _logged_steps() -> AbstractContextManager[None]:
    """Return a context that prints how far this process is, where nobody sees its progress bar."""
    if runtime.interactive():
        return nullcontext()
    return steps.logged(lambda line: print(line, file=sys.stderr, flush=True))


def _readable(study: Study) -> tuple[Manifest, np.ndarray]:
    """Return all images of a study as its classifiers see them, and the rows of those that can be read."""
    manifest = adapters.load(study)
    readable = (quality.scan(manifest)["error"] == "").to_numpy()
    split = np.full(len(readable), "", object)
    if study.input != "original":  # the method and a U-Net are chosen on the study's own splits
        split = splits.split_study(study).manifest.frame["split"].to_numpy(object)
    whole = manifest.with_frame(manifest.frame.assign(split=np.where(readable & (split == ""), TRAIN, split)))
    if study.input != "original":
        from scanbook import segmentation

        cut = segmentation.cut(study, whole)
        # `data` is what a study that reads the vectors compares with its own images
        whole = replace(cut, facts={**cut.facts, "data": manifest.facts.get("data", ""), "cut": cut.facts["data"]})
    return whole, np.flatnonzero(readable)


def _decode(paths: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return images as the pixel cache has them, uint8 `(p, h, w, 3)`."""
    return np.stack(list(runtime.in_threads(lambda path: images.load(Path(path), size), paths)))
