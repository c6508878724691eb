"""Labels that look wrong: confident learning on out-of-fold predictions of a head on frozen features.

Confident learning (Northcutt, Jiang and Chuang, Confident learning: estimating uncertainty in dataset labels, JAIR 70,
2021; package cleanlab) compares each label with a prediction by a head that saw no image of the same patient. A wrong
label, a rare class and an image that is hard to tell look alike to it: a person has to look at the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scanbook.config import Study
from scanbook.data import inputs, presence, quality, splits, spreading
from scanbook.data.manifest import TRAIN, Manifest
from scanbook.data.splits import SplitDataset
from scanbook.errors import DataError, StudyError
from scanbook.evaluation.resampling import correct_ends, interval, resample
from scanbook.models import backbones
from scanbook.registry import EMBEDDINGS
from scanbook.training import out_of_fold
from scanbook.training.out_of_fold import FOLDS

RULE = "label_conflict"
"""Name of the rule in `quality.drop`."""
DOUBT = 0.05
"""Probability of a given label, were all labels equally frequent, below which the rule says that it is in conflict."""
SURE = 0.1
"""Share of the labels, those that the head is most confident of, whose disagreement bounds the share of wrong ones."""


@dataclass(frozen=True)
class LabelCheck:
    """Labels beside what a head predicts that saw no image of the same patient.

    Attributes:
        table: One row per label that was checked, the least probable first: `image_id`, `group`, `split`, of findings
            `finding`, the `given` and the most probable label, `suggested`, with its `confidence`; the `probability` of
            the given label; whether it is `suspected` by confident learning, and in `conflict`, as the rule has it.
        small: Classes or findings that were not checked, because too few patients have them.
        backbone: The backbone whose features were used, and its weights; "" where no weights are available.
        reason: Why nothing was checked; "" where something was.
    """

    table: pd.DataFrame
    small: tuple[str, ...] = ()
    backbone: str = ""
    reason: str = ""

    @property
    def suspected(self) -> pd.DataFrame:
        """The rows of the table that confident learning suspects."""
        return self.table[self.table["suspected"]]

    def worst(self, count: int = 50) -> pd.DataFrame:
        """Return the most suspicious label of each patient, at most `count` of them.

        Returns:
            Rows of the table, with the number of `labels` of the patient that were checked, and `suspected` of these.
        """
        of_group = self.table.groupby("group")["suspected"].agg(["size", "sum"])
        first = self.suspected.drop_duplicates("group").head(count).drop(columns="suspected")
        counts = of_group.loc[first["group"]].set_axis(["labels", "suspected"], axis=1)
        return first.assign(**{name: column.to_numpy() for name, column in counts.items()})

    def shares(self, rounds: int, seed: int) -> pd.DataFrame:
        """Return two estimates of the share of wrong labels, with 95 % intervals over resamples of patients.

        The first counts the labels that confident learning suspects. It is too high where the head is weak or classes
        are hard to tell apart. The second is the share of the labels that differ from the prediction, among the tenth
        on which the head is most confident; it bounds the share of labels that are wrong at random, since the head's
        own errors are in it too.

        Args:
            rounds: Number of resamples.
            seed: Seed of the resamples.

        Returns:
            Index "suspected", "most confident"; columns `value`, `low`, `high`, `count` and `labels`.
        """
        table = self.table
        sure = table[table["confidence"].rank(ascending=False, method="first") <= max(1, SURE * len(table))]
        hits = {
            "suspected": (table, table["suspected"]),
            "most confident": (sure, sure["given"] != sure["suggested"]),
        }
        return _shares(hits, rounds, seed)

    def shares_by_label(self, rounds: int, seed: int) -> pd.DataFrame:
        """Return the share of suspected labels of each given class or finding, as `shares`, the highest first."""
        column = "finding" if "finding" in self.table else "given"
        table = _shares({name: (own, own["suspected"]) for name, own in self.table.groupby(column)}, rounds, seed)
        return table.sort_values("value", ascending=False, kind="stable")


def prepare(study: Study) -> Manifest:
    """Return the study's images with their splits, without training images whose label the study's rule excludes."""
    return exclude(study, splits.split_study(study)).manifest


def exclude(study: Study, dataset: SplitDataset) -> SplitDataset:
    """Exclude the training images whose label is in conflict, where `quality.drop` names the rule.

    The head sees labels of training images alone, so that validation and test do not decide what training uses.

    Args:
        study: The study.
        dataset: `splits.split_study`.

    Returns:
        The dataset; each excluded image is among `excluded`, with its reason.

    Raises:
        StudyError: The rule is named, and no pretrained weights are available for it.
        DataError: A class or finding would be without training images.
    """
    if RULE not in study.quality.drop:
        return dataset
    check = check_labels(study, dataset, TRAIN)
    if not check.backbone:
        raise StudyError(f"quality.drop names {RULE}, and {check.reason}; remove the rule, or name another backbone")
    reasons = _reasons(check.table[check.table["conflict"]])
    frame = dataset.manifest.frame
    mask = frame["image_id"].isin(list(reasons)).to_numpy()
    ids = frame.loc[mask, "image_id"]
    log = pd.DataFrame({"image_id": ids, "split": TRAIN, "reason": ids.map(reasons)})
    excluded = pd.concat([dataset.excluded, log], ignore_index=True)
    manifest = dataset.manifest.with_frame(frame.assign(split=frame["split"].mask(mask, "")))
    if reason := presence.refusal(manifest, excluded):
        raise DataError(reason)
    return replace(dataset, manifest=manifest, excluded=excluded)


def check_labels(study: Study, dataset: SplitDataset, split: str = "") -> LabelCheck:
    """Compare labels with out-of-fold predictions of a head on the features of a frozen backbone.

    The backbone is the study's first with pretrained weights, and sees whole images. Patients, and exact copies, are
    never in the training fold of their own prediction.

    Args:
        study: The study.
        dataset: `splits.split_study`, before `exclude`: the features are those of notebook 04.
        split: The split whose labels are used and checked; "" for those of every split.
    """
    manifest = dataset.manifest
    used = manifest.frame["split"] == split if split else manifest.frame["split"] != ""
    rows = np.flatnonzero(used.to_numpy())
    name, weights, reason = _backbone(study)
    if not name:
        return LabelCheck(_table(manifest, rows[:0], np.empty((0, len(manifest.names)))), reason=reason)
    copies = quality.copy_groups(manifest.frame, quality.exact_copies(dataset.quality)).fillna(-1).to_numpy(np.int64)
    unit = spreading.units(manifest.frame["group"].to_numpy()[rows], copies[rows])
    images = inputs.load(study, manifest)
    probabilities = out_of_fold.predict(manifest, images, (name, weights), rows=rows, unit=unit, seed=study.seed)
    small = np.array(manifest.names, object)[np.isnan(probabilities).all(axis=0)]
    table = _table(manifest, rows, probabilities)
    reason = "" if len(table) else f"too few patients have each label (fewer than {FOLDS})"
    of = "the study's vectors (embeddings)" if name == EMBEDDINGS else f"{name}, pretrained on {weights.in_words}"
    return LabelCheck(table, tuple(small), of, reason)


def _backbone(study: Study) -> tuple[str, backbones.Weights, str]:
    """Return the study's first backbone with pretrained weights, and these; or "" and why there is none."""
    reasons = []
    for name in study.pretrained_backbones:
        available, missing = backbones.resolve(study.model_copy(update={"backbones": [name]}))
        if name in available:
            return name, available[name], ""
        reasons.append(missing[name])
    return "", backbones.RANDOM, reasons[0] if reasons else "no backbone of the study has pretrained weights"


def _table(manifest: Manifest, rows: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Return the table of a `LabelCheck` from the out-of-fold probabilities of rows of the manifest, `(m, k)`."""
    columns = ["image_id", "group", "split", *(["finding"] if manifest.findings else [])]
    columns += ["given", "suggested", "confidence", "probability", "suspected", "conflict"]
    parts = [frame[columns] for frame in _judged(manifest, rows, probabilities)]
    if not parts:
        return pd.DataFrame(columns=columns).astype({"suspected": bool, "conflict": bool})
    return pd.concat(parts).sort_values(["probability", "image_id"], kind="stable", ignore_index=True)


def _judged(manifest: Manifest, rows: np.ndarray, probabilities: np.ndarray) -> Iterator[pd.DataFrame]:
    """Yield the checked labels: those of all classes together, and of each finding by itself."""
    frame = manifest.frame[["image_id", "group", "split"]].iloc[rows].reset_index(drop=True)
    if manifest.classes:
        chosen = np.flatnonzero(~np.isnan(probabilities).all(axis=0))
        known = ~np.isnan(probabilities[:, chosen]).any(axis=1)
        if len(chosen) > 1 and known.any():
            given = np.searchsorted(chosen, manifest.y[rows][known])
            names = np.array(manifest.classes, object)[chosen]
            yield frame[known].assign(**_judge(probabilities[np.ix_(known, chosen)], given, names))
        return
    states = np.array(["absent", "present"], object)
    for column, finding in enumerate(manifest.findings):
        known = ~np.isnan(probabilities[:, column])
        if known.any():
            present = probabilities[known, column]
            given = manifest.labels.values[rows[known], column].astype(np.int64)
            judged = _judge(np.stack([1 - present, present], axis=1), given, states)
            yield frame[known].assign(finding=finding, **judged)


def _judge(probabilities: np.ndarray, given: np.ndarray, names: np.ndarray) -> dict[str, np.ndarray]:
    """Return columns of a `LabelCheck`'s table, from probabilities `(m, k)` and the index of each given label."""
    from cleanlab.filter import find_label_issues

    places = np.arange(len(given))
    suspected = find_label_issues(given, probabilities, filter_by="confident_learning", n_jobs=1)
    # as if all labels were equally frequent: else every label of a rare class would be in doubt
    even = probabilities / np.maximum(np.bincount(given, minlength=len(names)), 1)
    doubtful = even[places, given] < DOUBT * even.sum(axis=1)
    return {
        "given": names[given],
        "suggested": names[probabilities.argmax(axis=1)],
        "confidence": probabilities.max(axis=1),
        "probability": probabilities[places, given],
        "suspected": suspected,
        "conflict": suspected & doubtful,
    }


def _shares(hits: dict[str, tuple[pd.DataFrame, pd.Series]], rounds: int, seed: int) -> pd.DataFrame:
    """Return the share of hits among rows, with intervals over resamples of their groups, for each name."""
    rows = {}
    for name, (table, hit) in hits.items():
        group, values = table["group"].to_numpy(), hit.to_numpy(np.float64)
        resampled = resample(lambda weights, hits=values: weights @ hits / weights.sum(axis=1), group, rounds, seed)
        share = np.asarray(values.mean())
        low, high = correct_ends(share, *interval(resampled), np.asarray(len(set(group))))
        rows[name] = [float(share), float(low), float(high), int(values.sum()), len(values)]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "count", "labels"])


def _reasons(table: pd.DataFrame) -> dict[str, str]:
    """Return why each image is excluded, from rows of the table that are in conflict."""
    texts = table["given"].astype(str)
    if "finding" in table:
        texts = table["finding"] + " " + texts
    details = [
        f"labelled {text}; {suggested} has a probability of {min(confidence, 0.99):.2f}"
        for text, suggested, confidence in zip(texts, table["suggested"], table["confidence"], strict=True)
    ]
    joined = pd.Series(details, table["image_id"].to_numpy(), dtype=object).groupby(level=0, sort=False).agg("; ".join)
    return {image: f"{RULE}: {text}" for image, text in joined.items()}
