"""Masks of every image by any method: choice of the clean-up and of the method on validation, and cut-out images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scanbook import runtime
from scanbook.config import Study
from scanbook.data import pixels
from scanbook.data.manifest import SPLITS, TEST, TRAIN, VALIDATION, Manifest
from scanbook.data.pixels import sample_fingerprint
from scanbook.errors import DataError
from scanbook.segmentation.classical import segment_image
from scanbook.segmentation.cleaning import Cleaning, candidates, clean
from scanbook.segmentation.scores import dice
from scanbook.store import atomic_write, fingerprint, stage

if TYPE_CHECKING:
    from scanbook.segmentation.unet import UNet

UNET = "U-Net"
_SELECTION_IMAGES = 200
"""Maximal number of validation images that select a clean-up, a method and the epoch of a U-Net."""
_TIMED_IMAGES = 24
"""Test images that are timed."""


@dataclass(frozen=True)
class Tuned:
    """The selected clean-up of a method.

    Attributes:
        cleaning: The parameters.
        dice: Mean Dice on the validation images that selected them; NaN where none has a mask.
        images: Number of these images.
    """

    cleaning: Cleaning
    dice: float
    images: int


def expert_masks(manifest: Manifest, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks of the source at a size, bool `(n, h, w)`, and which images have one, bool `(n,)`."""
    if (manifest.frame["mask_path"] != "").any():
        return pixels.masks(manifest, size)
    count = len(manifest.frame)
    return np.broadcast_to(np.zeros((), bool), (count, *size)), np.zeros(count, bool)


def runnable_methods(study: Study, manifest: Manifest) -> tuple[list[str], dict[str, str]]:
    """Return the study's methods that can run on a dataset, and the reason by method for those that cannot.

    Raises:
        DataError: The study's selected method, or every method, cannot run.
    """
    _, has_mask = expert_masks(manifest, study.size)
    names, missing = list(study.segmentation.methods), {}
    if UNET in names and not has_mask[manifest.rows(TRAIN)].any():
        names.remove(UNET)
        missing[UNET] = "no masks to learn from: no training image has one"
    if study.segmentation.use in missing or not names:
        raise DataError(
            f"study {study.study}: segmentation by {UNET} has no masks to learn from; "
            "name mask_folder in the study, or set segmentation.use to another of its methods"
        )
    return names, missing


def describe_methods(names: list[str], missing: dict[str, str]) -> str:
    """Return a sentence on the methods that run and those that do not; the arguments are from `runnable_methods`."""
    reasons = " ".join(f"Not run: {name}, {reason}." for name, reason in missing.items())
    return f"Methods: {', '.join(names)}. {reasons}".strip()


def _selection_rows(study: Study, manifest: Manifest, has_mask: np.ndarray) -> np.ndarray:
    """Return the rows of a sample of the validation images that have masks."""
    rows = manifest.rows(VALIDATION)
    rows = rows[has_mask[rows]]
    return np.sort(np.random.default_rng([study.seed, 2]).permutation(rows)[:_SELECTION_IMAGES])


def train_unet(study: Study, manifest: Manifest, images: np.ndarray) -> UNet:
    """Return the study's U-Net, which is trained unless the store has it.

    Args:
        study: The study.
        manifest: The dataset, split; some training images have masks.
        images: Its pixels, uint8 `(n, h, w, 3)`.
    """
    from scanbook.segmentation import unet  # imports Keras, which the other methods do not need

    experts, has_mask = expert_masks(manifest, images.shape[1:3])
    selection = _selection_rows(study, manifest, has_mask)
    return unet.train(study, manifest, images, experts=experts, has_mask=has_mask, selection=selection)


def tune(study: Study, manifest: Manifest, images: np.ndarray, method: str) -> Tuned:
    """Return the clean-up of a method with the highest mean Dice on validation images; the default without masks.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        method: One of the study's methods.
    """
    structure = study.segmentation.structure
    choices = candidates(structure, method == UNET)
    experts, has_mask = expert_masks(manifest, images.shape[1:3])
    rows = _selection_rows(study, manifest, has_mask)
    if len(rows) == 0:
        return Tuned(choices[0], float("nan"), 0)
    segmenter = _segmenter(study, manifest, images, method)

    def build(folder: Path) -> None:
        means = []
        raw = {removal: segmenter(rows, removal) for removal in dict.fromkeys(item.hair_removal for item in choices)}
        for choice in runtime.progress(choices, f"clean-up of {method}"):
            masks = raw[choice.hair_removal]
            cleaned = _map_masks(lambda i, m=masks, c=choice: clean(m[i], structure, c), len(rows), masks.shape[1:])
            means.append(dice(experts[rows], cleaned).mean())
        table = pd.DataFrame([asdict(choice) for choice in choices]).assign(dice=means)
        atomic_write(folder / "tried.csv", table.to_csv(index=False))

    inputs = _inputs(study, manifest, images, method) | {"rows": fingerprint(rows)}
    tried = pd.read_csv(stage("clean_up", inputs, build, __name__) / "tried.csv")
    best = int(tried["dice"].to_numpy().argmax())
    return Tuned(choices[best], float(tried["dice"].iloc[best]), len(rows))


def tune_all(study: Study, manifest: Manifest, images: np.ndarray) -> pd.DataFrame:
    """Return the selected clean-up of each of the study's methods that can run.

    Returns:
        Index `method`, in the study's order; columns `hair_removal`, `smoothing`, `growth`, `dice` (mean on the
        validation images that selected them, NaN where none has a mask) and `images` (number of these images).
    """
    names, _ = runnable_methods(study, manifest)
    tuned = [tune(study, manifest, images, name) for name in names]
    rows = [asdict(result.cleaning) | {"dice": result.dice, "images": result.images} for result in tuned]
    return pd.DataFrame(rows, index=pd.Index(names, name="method"))


def choose_method(study: Study, manifest: Manifest, images: np.ndarray) -> str:
    """Return the method whose masks the study uses: the one that it names, else the best by mean Dice on validation.

    Where no validation image has a mask, it is the first of the study's methods that can run.
    """
    if study.segmentation.use != "auto":
        runnable_methods(study, manifest)
        return study.segmentation.use
    means = tune_all(study, manifest, images)["dice"].fillna(-1.0)
    return str(means.idxmax())


def segment(study: Study, manifest: Manifest, images: np.ndarray, method: str, split: str = "") -> np.ndarray:
    """Return the masks by one method, after clean-up.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        method: One of the study's methods.
        split: "train", "validation" or "test"; "" for the whole dataset.

    Returns:
        Read-only memory map, bool: `(m, h, w)` for the m images of the split; `(n, h, w)` for the whole dataset, all
        false for images in no split. A mask is all false where the method finds no structure.
    """
    cleaning = tune(study, manifest, images, method).cleaning
    inputs = _inputs(study, manifest, images, method) | {"cleaning": cleaning, "split": split}

    def build(folder: Path) -> None:
        if split:
            rows = manifest.rows(split)
            raw = _segmenter(study, manifest, images, method)(rows, cleaning.hair_removal)
            structure = study.segmentation.structure
            masks = _map_masks(lambda i: clean(raw[i], structure, cleaning), len(rows), raw.shape[1:])
            np.save(folder / "array.npy", masks)
            return
        whole = np.lib.format.open_memmap(folder / "array.npy", "w+", np.bool_, images.shape[:3])
        for name in SPLITS:
            whole[manifest.rows(name)] = segment(study, manifest, images, method, name)
        whole.flush()

    return np.load(stage("segmented", inputs, build, __name__) / "array.npy", mmap_mode="r")


def _milliseconds(study: Study, manifest: Manifest, images: np.ndarray, method: str) -> float:
    """Return the median time in which one thread segments one test image, clean-up included, in milliseconds."""
    cleaning, structure = tune(study, manifest, images, method).cleaning, study.segmentation.structure
    segmenter = _segmenter(study, manifest, images, method, threads=1)
    times = []
    rows = manifest.rows(TEST)[:_TIMED_IMAGES]
    for row in [rows[0], *rows]:  # the first call warms up
        started = time.perf_counter()
        clean(segmenter(np.array([row]), cleaning.hair_removal)[0], structure, cleaning)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[1:]))


def costs(study: Study, manifest: Manifest, images: np.ndarray, predicted: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return the time and the number of empty masks of each method.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        predicted: Masks of the test images by method.

    Returns:
        Index `method`; columns `empty masks` (test images) and `ms per image` (median, one thread).
    """
    rows = {
        name: {
            "empty masks": int((~masks.any((1, 2))).sum()),
            "ms per image": _milliseconds(study, manifest, images, name),
        }
        for name, masks in predicted.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def cut_outs(manifest: Manifest, images: np.ndarray, masks: np.ndarray, background: str = "white") -> np.ndarray:
    """Return images in which everything outside the mask is painted over; an image with an empty mask stays whole.

    Args:
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        masks: bool `(n, h, w)`.
        background: "white", "black", or "mean": the mean colour of what is painted over.

    Returns:
        Read-only memory map, uint8 `(n, h, w, 3)`; images in no split are zeros.
    """
    rows = np.flatnonzero((manifest.frame["split"] != "").to_numpy())

    def build(folder: Path) -> None:
        painted = np.lib.format.open_memmap(folder / "array.npy", "w+", np.uint8, images.shape)

        def paint(row: int) -> None:
            painted[row] = cut_out(images[row], masks[row], background)

        for _ in runtime.progress(runtime.in_threads(paint, rows), "cutting out", len(rows)):
            pass
        painted.flush()

    inputs = {
        "manifest": manifest.fingerprint(),
        "pixels": sample_fingerprint(images),
        "masks": fingerprint(np.packbits(masks)),
        "background": background,
    }
    return np.load(stage("cut_outs", inputs, build, __name__) / "array.npy", mmap_mode="r")


def cut_out(image: np.ndarray, mask: np.ndarray, background: str) -> np.ndarray:
    """Return an image, uint8 `(h, w, 3)`, painted over outside its mask, bool `(h, w)`; see `cut_outs`."""
    if mask.all() or not mask.any():
        return np.array(image)
    colours = {"white": 255, "black": 0, "mean": np.rint(image[~mask].mean(0)) if background == "mean" else 0}
    return np.where(mask[..., None], image, colours[background]).astype(np.uint8)


def _inputs(study: Study, manifest: Manifest, images: np.ndarray, method: str) -> dict[str, object]:
    """Return what the masks of a method depend on, for the key of their stage."""
    trained = train_unet(study, manifest, images).folder.name if method == UNET else ""
    return {
        "manifest": manifest.fingerprint(),
        "pixels": sample_fingerprint(images),
        "structure": study.segmentation.structure,
        "method": method,
        "trained": trained,
    }


def _segmenter(
    study: Study, manifest: Manifest, images: np.ndarray, method: str, threads: int | None = None
) -> Callable[[np.ndarray, bool], np.ndarray]:
    """Return a function from rows, int `(m,)`, and whether to remove hairs, to masks before clean-up, `(m, h, w)`."""
    structure, shape = study.segmentation.structure, images.shape[1:3]
    if method == UNET:
        engine = train_unet(study, manifest, images).engine(threads)
        return lambda rows, _: _map_chunks(lambda chunk: engine.predict(images[chunk])[0] > 0, rows, shape)
    if threads == 1:
        return lambda rows, hairs: np.stack([segment_image(images[row], method, structure, hairs) for row in rows])
    title = f"segmenting by {method}"
    return lambda rows, hairs: _map_masks(
        lambda i: segment_image(images[rows[i]], method, structure, hairs), len(rows), shape, title
    )


def _map_chunks(work: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    chunks = [rows[start : start + 512] for start in range(0, len(rows), 512)]
    return np.concatenate([np.zeros((0, *shape), bool), *(work(chunk) for chunk in chunks)])


def _map_masks(work: Callable[[int], np.ndarray], count: int, shape: Sequence[int], title: str = "") -> np.ndarray:
    """Return the masks of `count` images, made in threads; a title adds a progress bar."""
    results = runtime.in_threads(work, range(count))
    masks = list(runtime.progress(results, title, count) if title else results)
    return np.stack(masks) if masks else np.zeros((0, *shape), bool)
