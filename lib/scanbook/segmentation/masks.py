"""Masks of every image by any method: clean-up chosen on validation, the best method, and images cut out by them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from scanbook.segmentation import classical
from scanbook.segmentation.cleaning import Cleaning, candidates, clean
from scanbook.segmentation.scores import dice
from scanbook.store import atomic_write, fingerprint, stage

if TYPE_CHECKING:
    from scanbook.segmentation.unet import UNet

UNET = "U-Net"
_CHOOSERS = 200
"""Most validation images that choose a clean-up, a method and a U-Net's epoch."""
_TIMED = 24
"""Test images that are timed."""


@dataclass(frozen=True)
class Tuned:
    """A method's clean-up.

    Attributes:
        cleaning: The parameters.
        dice: Mean Dice on the validation images that chose them; NaN where none has a mask.
        images: How many these were.
    """

    cleaning: Cleaning
    dice: float
    images: int


def known_masks(manifest: Manifest, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the source at a size and which images have one: bool `(n, h, w)` and `(n,)`."""
    if (manifest.frame["mask_path"] != "").any():
        return pixels.masks(manifest, size)
    count = len(manifest.frame)
    return np.broadcast_to(np.zeros((), bool), (count, *size)), np.zeros(count, bool)


def runnable(study: Study, manifest: Manifest) -> tuple[list[str], dict[str, str]]:
    """The study's methods that can run on a dataset, and the reason by method for those that cannot.

    Raises:
        DataError: The study's method, or each of its methods, is one that cannot.
    """
    _, known = known_masks(manifest, study.size)
    names, missing = list(study.segmentation.methods), {}
    if UNET in names and not known[manifest.rows(TRAIN)].any():
        names.remove(UNET)
        missing[UNET] = "no masks to learn from: no training image has one"
    if study.segmentation.use in missing or not names:
        raise DataError(
            f"study {study.study}: segmentation by {UNET} has no masks to learn from; "
            "name mask_folder in the study, or set segmentation.use to another of its methods"
        )
    return names, missing


def describe(names: list[str], missing: dict[str, str]) -> str:
    """A sentence on which methods run and why others do not; the arguments are what `runnable` gave."""
    lack = " ".join(f"Not run: {name}, {reason}." for name, reason in missing.items())
    return f"Methods: {', '.join(names)}. {lack}".strip()


def _choosers(study: Study, manifest: Manifest, known: np.ndarray) -> np.ndarray:
    """Rows of a sample of the validation images that have masks."""
    rows = manifest.rows(VALIDATION)
    rows = rows[known[rows]]
    return np.sort(np.random.default_rng([study.seed, 2]).permutation(rows)[:_CHOOSERS])


def train_unet(study: Study, manifest: Manifest, images: np.ndarray) -> UNet:
    """The study's U-Net, trained now or earlier.

    Args:
        study: The study.
        manifest: The dataset, split; some training images have masks.
        images: Its pixels, uint8 `(n, h, w, 3)`.
    """
    from scanbook.segmentation import unet  # Keras, which the other methods do without

    truth, known = known_masks(manifest, _size(images))
    held_out = _choosers(study, manifest, known)
    return unet.train(study, manifest, images, truth=truth, known=known, held_out=held_out)


def tune(study: Study, manifest: Manifest, images: np.ndarray, method: str) -> Tuned:
    """Chooses a method's clean-up by mean Dice on validation images; the default where none has a mask.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        method: One of the study's methods.
    """
    target = study.segmentation.structure
    choices = candidates(target, method == UNET)
    truth, known = known_masks(manifest, _size(images))
    rows = _choosers(study, manifest, known)
    if len(rows) == 0:
        return Tuned(choices[0], float("nan"), 0)
    raw = _finder(study, manifest, images, method)

    def build(folder: Path) -> None:
        expert, means = truth[rows], []
        by_hairs = {hairs: raw(rows, hairs) for hairs in dict.fromkeys(each.hair_removal for each in choices)}
        for choice in runtime.progress(choices, f"clean-up of {method}"):
            masks = by_hairs[choice.hair_removal]
            cleaned = _each(lambda i, m=masks, c=choice: clean(m[i], target, c), len(rows), masks.shape[1:])
            means.append(dice(expert, cleaned).mean())
        table = pd.DataFrame([asdict(choice) for choice in choices]).assign(dice=means)
        atomic_write(folder / "tried.csv", table.to_csv(index=False))

    inputs = _inputs(study, manifest, images, method) | {"rows": fingerprint(rows)}
    tried = pd.read_csv(stage("clean_up", inputs, build, __name__) / "tried.csv")
    best = int(tried["dice"].to_numpy().argmax())
    return Tuned(choices[best], float(tried["dice"].iloc[best]), len(rows))


def tune_all(study: Study, manifest: Manifest, images: np.ndarray) -> pd.DataFrame:
    """The clean-up of each of the study's methods that can run, and how it was chosen.

    Returns:
        Index `method`, in the study's order; columns `hair_removal`, `smoothing`, `growth`, `dice` (mean on the
        validation images that chose them, NaN where none has a mask) and `images` (how many these were).
    """
    names, _ = runnable(study, manifest)
    tuned = {name: tune(study, manifest, images, name) for name in names}
    rows = [asdict(each.cleaning) | {"dice": each.dice, "images": each.images} for each in tuned.values()]
    return pd.DataFrame(rows, index=pd.Index(list(tuned), name="method"))


def choose(study: Study, manifest: Manifest, images: np.ndarray) -> str:
    """The method whose masks the study uses: the one that it names, else the best by mean Dice on validation.

    Where no validation image has a mask, it is the first of the study's methods that can run.
    """
    if study.segmentation.use != "auto":
        runnable(study, manifest)
        return study.segmentation.use
    means = tune_all(study, manifest, images)["dice"].fillna(-1.0)
    return str(means.idxmax())


def segment(study: Study, manifest: Manifest, images: np.ndarray, method: str, split: str = "") -> np.ndarray:
    """Masks by one method, cleaned up.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        method: One of the study's methods.
        split: "train", "validation" or "test"; "" for the whole dataset.

    Returns:
        Read-only memory map, bool: of the part's m images `(m, h, w)`; of the whole dataset `(n, h, w)`, where rows in
        no part are false. All false, too, where nothing was found.
    """
    cleaning = tune(study, manifest, images, method).cleaning
    inputs = _inputs(study, manifest, images, method) | {"cleaning": cleaning, "split": split}

    def build(folder: Path) -> None:
        if split:
            rows = manifest.rows(split)
            raw = _finder(study, manifest, images, method)(rows, cleaning.hair_removal)
            target = study.segmentation.structure
            np.save(folder / "array.npy", _each(lambda i: clean(raw[i], target, cleaning), len(rows), raw.shape[1:]))
            return
        whole = np.lib.format.open_memmap(folder / "array.npy", "w+", np.bool_, images.shape[:3])
        for each in SPLITS:
            whole[manifest.rows(each)] = segment(study, manifest, images, method, each)
        whole.flush()

    return np.load(stage("segmented", inputs, build, __name__) / "array.npy", mmap_mode="r")


def milliseconds(study: Study, manifest: Manifest, images: np.ndarray, method: str) -> float:
    """Median time in milliseconds in which one thread segments one test image, clean-up included."""
    cleaning, target = tune(study, manifest, images, method).cleaning, study.segmentation.structure
    raw = _finder(study, manifest, images, method, threads=1)
    times = []
    rows = manifest.rows(TEST)[:_TIMED]
    for row in [rows[0], *rows]:  # the first call makes ready
        started = time.perf_counter()
        clean(raw(np.array([row]), cleaning.hair_removal)[0], target, cleaning)
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times[1:]))


def costs(study: Study, manifest: Manifest, images: np.ndarray, found: dict[str, np.ndarray]) -> pd.DataFrame:
    """What each method costs.

    Args:
        study: The study.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        found: Masks of the test images by method.

    Returns:
        Index `method`; columns `nothing found` (test images) and `ms an image` (median, one thread).
    """
    rows = {
        name: {
            "nothing found": int((~masks.any((1, 2))).sum()),
            "ms an image": milliseconds(study, manifest, images, name),
        }
        for name, masks in found.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def cut_outs(manifest: Manifest, images: np.ndarray, masks: np.ndarray, background: str = "white") -> np.ndarray:
    """Images with everything outside the mask painted over; an image whose mask is empty stays whole.

    Args:
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        masks: bool `(n, h, w)`.
        background: "white", "black", or "mean": the mean colour of what is painted over.

    Returns:
        Read-only memory map, uint8 `(n, h, w, 3)`; rows in no part are zeros.
    """
    rows = np.flatnonzero((manifest.frame["split"] != "").to_numpy())

    def build(folder: Path) -> None:
        painted = np.lib.format.open_memmap(folder / "array.npy", "w+", np.uint8, images.shape)

        def one(row: int) -> None:
            painted[row] = cut_out(images[row], masks[row], background)

        for _ in runtime.progress(runtime.in_threads(one, rows), "cutting out", len(rows)):
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
    """One image, uint8 `(h, w, 3)`, with everything outside its mask, bool `(h, w)`, painted over; see `cut_outs`."""
    if mask.all() or not mask.any():
        return np.array(image)
    colours = {"white": 255, "black": 0, "mean": np.rint(image[~mask].mean(0)) if background == "mean" else 0}
    return np.where(mask[..., None], image, colours[background]).astype(np.uint8)


def _size(images: np.ndarray) -> tuple[int, int]:
    return images.shape[1], images.shape[2]


def _inputs(study: Study, manifest: Manifest, images: np.ndarray, method: str) -> dict[str, object]:
    """What a method's masks depend on, for the name of their stage."""
    learned = train_unet(study, manifest, images).folder.name if method == UNET else ""
    return {
        "manifest": manifest.fingerprint(),
        "pixels": sample_fingerprint(images),
        "target": study.segmentation.structure,
        "method": method,
        "learned": learned,
    }


def _finder(
    study: Study, manifest: Manifest, images: np.ndarray, method: str, threads: int | None = None
) -> Callable[[np.ndarray, bool], np.ndarray]:
    """A function from rows, int `(m,)`, and whether to paint hairs over, to masks before clean-up, bool `(m, h, w)`."""
    target = study.segmentation.structure
    if method == UNET:
        engine = train_unet(study, manifest, images).engine(threads)
        return lambda rows, _: _in_chunks(lambda chunk: engine.predict(images[chunk])[0] > 0, rows, images.shape[1:3])
    if threads == 1:
        return lambda rows, hairs: np.stack([classical.find(images[row], method, target, hairs) for row in rows])
    said = f"segmenting by {method}"
    return lambda rows, hairs: _each(
        lambda i: classical.find(images[rows[i]], method, target, hairs), len(rows), images.shape[1:3], said
    )


def _in_chunks(work: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    chunks = [rows[start : start + 512] for start in range(0, len(rows), 512)]
    return np.concatenate([np.zeros((0, *shape), bool), *(work(chunk) for chunk in chunks)])


def _each(work: Callable[[int], np.ndarray], count: int, shape: Sequence[int], description: str = "") -> np.ndarray:
    """Masks of `count` images, in threads; a progress bar where there is a description."""
    with ThreadPoolExecutor(runtime.cores()) as pool:
        masks = pool.map(work, range(count))
        found = list(runtime.progress(masks, description, count) if description else masks)
    return np.stack(found) if found else np.zeros((0, *shape), bool)
