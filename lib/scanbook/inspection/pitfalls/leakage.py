"""Mistakes of the split: something of the test images is among the training images.

Both heads of a comparison learn from the same number of images, most of which are the same. A part of one's training
images comes from the test images, the same part of the other's from training images with the same labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from scanbook import registry
from scanbook.data.manifest import TRAIN
from scanbook.evaluation import with_interval
from scanbook.inspection.pitfalls import heads
from scanbook.inspection.pitfalls.heads import Head
from scanbook.inspection.pitfalls.measuring import Pair, Row, measure
from scanbook.inspection.pitfalls.subject import WITHOUT_NETWORK, Subject
from scanbook.models import features

WEAK = 1e-4
"""Penalty of heads that fit their training images completely, as networks without a penalty do."""
_REPEATS = 2
"""Times that test images are sampled anew."""
_VIEWS = 4
"""Most augmented views of an image."""
_SHARE = 0.5
"""Largest share of the training images of a class that is replaced."""

PATIENTS = Row("patients", "patients or lesions on both sides of the split", "melanoma")
COPIES = Row("copies", "copies of test images in training", "none; melanoma and retinopathy have copies")
MIRRORED = Row("mirrored", "mirrored test images in training", "chest_xray")
AUGMENTED = Row("augmented", "augmented before the split", "melanoma, chest_xray")


def rows(subject: Subject) -> list[Row]:
    """Return what the mistakes of the split are worth; the last heads of each fit their training images completely."""
    return [row for mistake in (patients, copies, mirrored, augmented) for row in mistake(subject)]


def patients(subject: Subject) -> list[Row]:
    """Return what images of the test images' own patients or lesions among the training images are worth."""
    group, test = subject.group[subject.test], subject.test
    if not subject.manifest.facts.get("names_groups", False):
        return [PATIENTS.because("the source names no patients or lesions")]
    _, member, sizes = np.unique(group, return_inverse=True, return_counts=True)
    several = sizes[member] > 1
    rng = np.random.default_rng([subject.study.seed, 10])
    arms, evaluated = [], []
    for _ in range(_REPEATS):
        for donors in _halves_of_groups(member, rng):
            given, taken = _swap(subject, test[donors & several], rng)
            own, staying = np.isin(group, subject.group[given]), ~(donors & several)
            if (own & staying).any():
                arms.append(np.concatenate([_without(subject.train, taken), given]))
                evaluated.append((test[own & staying], test[staying]))
    if not arms:
        return [PATIENTS.because("no two test images are of one patient or lesion, of a class that others show")]
    honest, weak = _honest(subject)
    heads_of = _both_penalties(subject, [(subject.x[arm], arm) for arm in arms])
    pairs, every, weak_pairs = [], [], []
    for (head, unpenalised), (concerned, staying) in zip(heads_of, evaluated, strict=True):
        pairs.append((subject.predict(head, concerned), subject.predict(honest, concerned)))
        every.append((subject.predict(head, staying), subject.predict(honest, staying)))
        weak_pairs.append((subject.predict(unpenalised, concerned), subject.predict(weak, concerned)))
    filled = _both(subject, PATIENTS, pairs, weak_pairs)
    whole = measure(PATIENTS, every, **subject.study.resamples)
    of_all = with_interval(whole.difference, whole.low, whole.high, signed=True)
    note = (
        f"Of test images with another image of their patient or lesion in training; {several.mean():.0%} of the test "
        f"images could have one. Of all test images: {of_all}."
    )
    more = {"all images": whole.difference, "all images, low": whole.low, "all images, high": whole.high}
    return [replace(filled[0], note=note, more=more), filled[1]]


def copies(subject: Subject) -> list[Row]:
    """Return what exact copies of the test images among the training images are worth."""
    folds = list(_one_of_each(subject, 20))
    if not folds:
        return [COPIES.because("too few training images to replace")]
    sets = [np.concatenate([_without(subject.train, taken), given]) for given, taken in folds]
    honest, weak = _honest(subject)
    pairs, weak_pairs = [], []
    trained = _both_penalties(subject, [(subject.x[part], part) for part in sets])
    for (head, unpenalised), (given, _) in zip(trained, folds, strict=True):
        pairs.append((subject.predict(head, given), subject.predict(honest, given)))
        weak_pairs.append((subject.predict(unpenalised, given), subject.predict(weak, given)))
    filled = _both(subject, COPIES, pairs, weak_pairs)
    return [
        replace(filled[0], note="Of one test image of each patient or lesion, with its copy in training."),
        filled[1],
    ]


def _honest(subject: Subject) -> tuple[Head, Head]:
    """Return the heads of the training images as they are, with the penalty of validation and with the least."""
    [weak] = heads.train([subject.arm(subject.x[subject.train], subject.train, WEAK)])
    return subject.head, weak


def _both_penalties(subject: Subject, sets: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[Head, Head]]:
    """Return two heads for each set of features and the rows that label them, as `_honest` does."""
    trained = heads.train([subject.arm(x, rows, penalty) for x, rows in sets for penalty in (None, WEAK)])
    return list(zip(trained[::2], trained[1::2], strict=True))


def _both(subject: Subject, row: Row, pairs: Sequence[Pair], weak_pairs: Sequence[Pair]) -> list[Row]:
    """Return the rows of the heads with the penalty of validation, and of those with the least."""
    weak = replace(row, key=f"{row.key}_unpenalised", mistake=f"{row.mistake}, unpenalised")
    note = "The same with heads that fit their training images completely."
    resamples = subject.study.resamples
    return [measure(row, pairs, **resamples), replace(measure(weak, weak_pairs, **resamples), note=note)]


def mirrored(subject: Subject) -> list[Row]:
    """Return what the test images' mirrored copies among the training images are worth, against others' copies."""
    if subject.of_vectors:
        return [MIRRORED.because(WITHOUT_NETWORK)]
    folds = list(_one_of_each(subject, 30))
    if not folds:
        return [MIRRORED.because("too few training images to replace")]
    chosen = np.unique(np.concatenate([part for fold in folds for part in fold]))
    x = dict(zip(chosen.tolist(), subject.changed(lambda images, _: images[:, :, ::-1], chosen), strict=True))
    pairs = _with_changed(subject, folds, {row: values[None] for row, values in x.items()})
    filled = _both(subject, MIRRORED, *pairs)
    note = (
        "Of one test image of each patient or lesion, with its mirrored copy in training; the honest head has mirrored "
        "copies of training images."
    )
    return [replace(filled[0], note=note), filled[1]]


def augmented(subject: Subject) -> list[Row]:
    """Return what the test images' augmented views among the training images are worth, against others' views."""
    if subject.of_vectors:
        return [AUGMENTED.because(WITHOUT_NETWORK)]
    policy = "+".join(name for name in subject.study.augmentation.split("+") if not _mixes(name))
    if policy in ("", "none"):
        return [AUGMENTED.because("the study's augmentation changes no single image")]
    if subject.weights is None:
        return [AUGMENTED.because("no backbone has pretrained weights, by which views are compared")]
    folds = list(_one_of_each(subject, 40))
    if not folds:
        return [AUGMENTED.because("too few training images to replace")]
    chosen = np.unique(np.concatenate([part for fold in folds for part in fold]))
    split = np.where(np.isin(np.arange(len(subject.group)), chosen), TRAIN, "")
    of = subject.manifest.with_frame(subject.manifest.frame.assign(split=split))
    views = min(_VIEWS, subject.study.head.views)
    x, _, _ = features.extract_views(
        of, subject.images, subject.backbone, subject.weights, policy=policy, views=views, seed=subject.study.seed
    )
    pairs = _with_changed(subject, folds, {row: x[:, place] for place, row in enumerate(chosen.tolist())})
    note = (
        f"Of one test image of each patient or lesion, with {views} views under the policy {policy} in training; the "
        "honest head has as many views of training images."
    )
    filled = _both(subject, AUGMENTED, *pairs)
    return [replace(filled[0], note=note), filled[1]]


def _with_changed(
    subject: Subject, folds: Sequence[tuple[np.ndarray, np.ndarray]], x: Mapping[int, np.ndarray]
) -> tuple[list[Pair], list[Pair]]:
    """Return the predictions for each fold by heads with changed copies of its images, and of other images.

    Args:
        subject: The subject.
        folds: Rows of test images, and of as many training images with the same labels.
        x: By row, the features of its changed copies, `(copies, channels)`.

    Returns:
        Pairs of heads with the penalty of validation, and of those with the least.
    """
    sets = []
    for fold in folds:
        rest = _without(subject.train, fold[1])
        for source in fold:
            changed = np.concatenate([x[row] for row in source.tolist()])
            rows = np.concatenate([rest, np.repeat(source, len(changed) // len(source))])
            sets.append((np.concatenate([subject.x[rest], changed]), rows))
    trained = _both_penalties(subject, sets)
    pairs = [
        [
            (subject.predict(leaked[place], given), subject.predict(honest[place], given))
            for (given, _), leaked, honest in zip(folds, trained[::2], trained[1::2], strict=True)
        ]
        for place in (0, 1)
    ]
    return pairs[0], pairs[1]


def _mixes(name: str) -> bool:
    policy = registry.policy(name)
    return bool(policy.mixup or policy.cutmix)


def _one_of_each(subject: Subject, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of test images, one of each group, and the training images that they replace.

    Of several images of a patient, the others would be in training, too: another mistake.
    """
    rng = np.random.default_rng([subject.study.seed, seed])
    for _ in range(_REPEATS):
        shuffled = rng.permutation(subject.test)
        _, first = np.unique(subject.group[shuffled], return_index=True)
        given, taken = _swap(subject, np.sort(shuffled[first]), rng)
        if len(given):
            yield given, taken


def _halves_of_groups(member: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return which images are in one half of their group, by its number, and which in the other, bool `(n,)` each."""
    order = rng.permutation(len(member))
    place = np.zeros(len(member), int)
    place[order] = pd.Series(member[order]).groupby(member[order]).cumcount()
    return place % 2 == 0, place % 2 == 1


def _swap(subject: Subject, given: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return rows to add to the training images, and as many of these to take away, of the same classes.

    Of each class at most half of the training images are replaced; of findings, of all of them.

    Args:
        subject: The subject.
        given: Rows of test images.
        rng: Samples where there are too many.
    """
    strata = np.zeros(len(subject.group), int) if subject.manifest.findings else subject.manifest.y
    added, taken = [], []
    for name in np.unique(strata[given]):
        of_test, of_train = given[strata[given] == name], subject.train[strata[subject.train] == name]
        count = min(len(of_test), int(_SHARE * len(of_train)))
        added.append(np.sort(rng.permutation(of_test)[:count]))
        taken.append(np.sort(rng.permutation(of_train)[:count]))
    empty = np.zeros(0, int)
    return np.concatenate([empty, *added]), np.concatenate([empty, *taken])


def _without(rows: np.ndarray, taken: np.ndarray) -> np.ndarray:
    return rows[~np.isin(rows, taken)]
