"""Heads and networks trained with fewer patients: random draws of whole groups, each within the next larger one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanbook import registry, runtime
from scanbook.config import Study
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.models import features
from scanbook.store import stage
from scanbook.training import model_selection
from scanbook.training.head import Rows, fit_head
from scanbook.training.linear_head import fit_linear_head, to_logits
from scanbook.training.trained_model import TrainedModel

_IN_MEMORY = 2**28
"""Bytes of training features, of all threads together, up to which several heads are trained at the same time."""
SMALLEST = 10
"""The smallest draw has this part of the patients, about."""
_FILE = "curve.npz"


@dataclass(frozen=True)
class SizedTraining:
    """The test logits of one kind of network, trained with several numbers of patients.

    Attributes:
        name: Backbone and kind of training, for reports.
        patients: Numbers of training groups, ascending, int `(s,)`; the last is all of them.
        images: Numbers of training images, int `(r, s)`, of r repeats.
        logits: Logits of the m test images, float32 `(r, s, m, k)`; with all patients those of the study's network.
    """

    name: str
    patients: np.ndarray
    images: np.ndarray
    logits: np.ndarray


def curve_sizes(patients: int, count: int, smallest: int = 1) -> np.ndarray:
    """Return numbers of patients on a geometric scale from a tenth of them to all, int; fewer where they coincide.

    Args:
        patients: Number of training patients.
        count: Largest number of sizes.
        smallest: Least number of patients in a draw.
    """
    first = max(smallest, round(patients / SMALLEST), min(2, patients))
    return np.unique(np.round(np.geomspace(first, patients, count)).astype(np.int64))


def draw_patients(manifest: Manifest, count: int, repeats: int, seed: int) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Draw training patients: the first of a random order, so that each draw is within the next larger one.

    The smallest draw of every repeat shows two classes, or each finding as present and as absent.

    Args:
        manifest: The dataset, split.
        count: Largest number of sizes.
        repeats: Number of random orders.
        seed: Seed of the orders; the first of more repeats are the same.

    Returns:
        Numbers of patients, ascending, int `(s,)`; and by repeat and size the training rows of those drawn, ascending.
    """
    rows = manifest.rows(TRAIN)
    labels = manifest.labels.rows(rows)
    kinds = labels.present if labels.exclusive else np.concatenate([labels.present, labels.values == 0], axis=1)
    needed = 2 if labels.exclusive else kinds.shape[1]
    _, member = np.unique(manifest.frame["group"].to_numpy(str)[rows], return_inverse=True)
    patients = member.max() + 1
    places = [np.random.default_rng([seed, 2, repeat]).permutation(patients)[member] for repeat in range(repeats)]
    # place of the first patient who shows each class or finding; of one that no patient shows, that of the last
    first = [np.sort([place[shown].min(initial=patients - 1) for shown in kinds.T])[needed - 1] for place in places]
    sizes = curve_sizes(patients, count, int(max(first)) + 1)
    return sizes, [[rows[place < size] for size in sizes] for place in places]


def train_sized_heads(study: Study, manifest: Manifest, images: np.ndarray) -> SizedTraining | None:
    """Train heads of the selected frozen backbone with fewer patients; None without pretrained weights.

    A head without hidden layers is trained in NumPy, in a tenth of the time. All draws have the same validation images,
    which select penalty and epoch, as for the study's own head.

    Args:
        study: Study with the hyper-parameters, in `head` and `learning_curve`.
        manifest: The dataset, split.
        images: Images of all its rows, uint8 `(n, h, w, 3)`.
    """
    base, backbone, weights = model_selection.select_base_model(study, manifest, images)
    if weights.random:
        return None
    plan, options = study.head, study.learning_curve
    policy = {} if plan.augmentation == "none" else {"policy": registry.policy(plan.augmentation)}

    def fit(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        held_out, test = (np.asarray(values[manifest.rows(split)]) for split in (VALIDATION, TEST))
        y = manifest.labels.values
        views, of_views = (), ()
        if policy:
            views, of_views, _ = features.extract_views(
                manifest, images, backbone, weights, policy=plan.augmentation, views=plan.views, seed=study.seed
            )

        def logits(rows: np.ndarray) -> np.ndarray:
            places = np.searchsorted(manifest.rows(TRAIN), rows)
            x = Rows([(values, rows), *((view, places) for view in views)])
            train = x, np.concatenate([y[rows], *(labels[places] for labels in of_views)])
            if not plan.units:
                validation = held_out, manifest.label_values(VALIDATION)
                return fit_linear_head(plan, manifest.labels, train, validation, study.seed).logits(test)
            layers, _ = fit_head(study, manifest, train, held_out)
            hidden = test
            for kernel, bias in layers[:-1]:
                hidden = np.maximum(hidden @ kernel + bias, 0)
            return to_logits(hidden @ layers[-1][0] + layers[-1][1], plan.output)

        return logits

    inputs = features.inputs(manifest, images, backbone, weights)
    inputs |= {"head": plan, "seed": study.seed, "sizes": options.sizes, "repeats": options.repeats} | policy

    def build(folder: Path) -> None:
        runtime.configure(study.seed)
        values, _ = features.extract(manifest, images, backbone, weights)
        with runtime.single_threaded():
            of_thread = values[:1].nbytes * len(manifest.rows(TRAIN)) * (1 + plan.views * bool(policy))
            side_by_side = not plan.units and of_thread * runtime.cores() <= _IN_MEMORY  # Keras trains hidden layers
            _save(folder, study, manifest, base, fit(values), side_by_side=side_by_side)

    return _read(base.name, stage("learning_curve", inputs | {"full": base.folder.name}, build, __name__))


def train_sized_networks(study: Study, manifest: Manifest, images: np.ndarray) -> SizedTraining | None:
    """Fine-tune the selected backbone with fewer patients, each draw from a head of its own; None without weights.

    Arguments as for `train_sized_heads`. Each network is a stage of its own, so that an interrupted run continues.
    """
    _, backbone, weights = model_selection.select_base_model(study, manifest, images)
    if weights.random:
        return None
    tuned = model_selection.end_to_end_training(study, manifest, images, backbone, weights).run()

    def logits(rows: np.ndarray) -> np.ndarray:
        drawn = np.isin(np.arange(len(manifest.frame)), rows) | (manifest.frame["split"] != TRAIN)
        split = manifest.frame["split"].where(drawn, "")
        fewer = manifest.with_frame(manifest.frame.assign(split=split))
        return model_selection.end_to_end_training(study, fewer, images, backbone, weights).run().logits(TEST)

    options = study.learning_curve
    inputs = {"full": tuned.folder.name, "sizes": options.sizes, "repeats": options.repeats, "seed": study.seed}

    def build(folder: Path) -> None:
        _save(folder, study, manifest, tuned, logits)

    return _read(tuned.name, stage("learning_curve", inputs, build, __name__))


def _save(
    folder: Path,
    study: Study,
    manifest: Manifest,
    full: TrainedModel,
    logits: Callable[[np.ndarray], np.ndarray],
    *,
    side_by_side: bool = False,
) -> None:
    """Save the test logits of networks trained with fewer patients, and of `full`, trained with all of them.

    Args:
        folder: Folder of the stage.
        study: The study.
        manifest: The dataset, split.
        full: The study's own network.
        logits: Trains a network on some rows and returns its logits of the test images.
        side_by_side: Whether threads train several at the same time.
    """
    options, whole = study.learning_curve, full.logits(TEST)
    sizes, drawn = draw_patients(manifest, options.sizes, options.repeats, study.seed)
    values = np.empty((len(drawn), len(sizes), *whole.shape), np.float32)
    values[:, -1] = whole
    jobs = [(repeat, size) for size in range(len(sizes) - 1) for repeat in range(len(drawn))]
    draws = [drawn[repeat][size] for repeat, size in jobs]
    trained = runtime.in_threads(logits, draws) if side_by_side else map(logits, draws)
    progress = runtime.progress(trained, f"{full.name}, with fewer patients", len(jobs))
    for (repeat, size), of_draw in zip(jobs, progress, strict=True):
        values[repeat, size] = of_draw
    images = np.array([[len(rows) for rows in of_repeat] for of_repeat in drawn], np.int64)
    np.savez(folder / _FILE, patients=sizes, images=images, logits=values)


def _read(name: str, folder: Path) -> SizedTraining:
    with np.load(folder / _FILE) as arrays:
        return SizedTraining(name, arrays["patients"], arrays["images"], arrays["logits"])
