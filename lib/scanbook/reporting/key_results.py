"""The key results of a dataset, with which notebook 01 opens: what a reviewer must know, the most serious first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from scanbook import evaluation
from scanbook.config import Splits
from scanbook.data import counts as counting
from scanbook.data import folds, presence
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.data.quality.differences import PROPERTIES, revealing
from scanbook.data.quality.rules import FEWEST_GROUPS, count_groups
from scanbook.data.quality.shortcuts import FROM_PIXELS, explain_view
from scanbook.data.splits import SplitDataset
from scanbook.evaluation import with_interval
from scanbook.reporting import answers

if TYPE_CHECKING:
    from scanbook.training.label_check import LabelCheck  # which imports Keras

SERIOUS, CAUTION, NOTE = "Serious", "Caution", "Note"
SEVERITIES = (SERIOUS, CAUTION, NOTE)
"""Serious: what a model is measured to do may be wrong. Caution: it may mislead. Note: to know."""
MOST = 10
"""Most key results; the sections have the others."""
_CHECKED = (
    "leakage between splits, copies under other labels, shortcuts, labels that look wrong, unreadable and faulty "
    "files, small and unbalanced {}, and sizes, light and colour that differ by {}"
)
_UNCHECKED = "Labels were not checked"
_FREQUENT = 0.01
"""Share of images from which faults, or labels that look wrong, are more than a note."""
_GRAVE = 0.05
"""Share from which they are serious."""
_UNBALANCED = 10.0
"""Images of the largest class for one of the smallest from which imbalance is more than a note."""
_MISSING = 0.2
"""Share of labels that are missing from which that is more than a note."""
_WIDE = 5.0
"""Half-width of an interval, in points, above which one test split says little."""
_NAMED = 4
"""Most classes or findings that a sentence names."""
_BY_FILE = ("width_px", "height_px", "kilobytes")
"""Properties of the file, which are no sign of a disease."""


class KeyResult(NamedTuple):
    """One thing that a reviewer must know: how serious it is, and a sentence with its number."""

    severity: str
    sentence: str


def describe_contents(manifest: Manifest, images: pd.DataFrame, ranked: Sequence[KeyResult]) -> list[str]:
    """Return what a dataset contains, and, where no key result is serious, that nothing serious was found.

    Args:
        manifest: The dataset, split.
        images: `counts.image_counts`.
        ranked: The key results.
    """
    # a class may have the name of a total, which comes after it
    rows, groups = (images[images.index == total].iloc[-1] for total in ("all", "groups"))
    several = f" of {groups['all']:,} patients or lesions" if groups["all"] < rows["all"] else ""
    splits = ", ".join(f"{split} {rows[split]:,}" for split in ("train", "validation", "test"))
    sentences = [f"The splits hold {rows['all']:,} images{several} {_labels_in_words(manifest)}: {splits}."]
    if not any(result.severity == SERIOUS for result in ranked):
        kinds = ("findings", "finding") if manifest.findings else ("classes", "class")
        looked_for = _CHECKED.format(*kinds)
        if any(result.sentence.startswith(_UNCHECKED) for result in ranked):
            looked_for = looked_for.replace("labels that look wrong, ", "")
        sentences.append(f"Nothing serious was found. Looked for were {looked_for}.")
    return sentences


def rank(
    dataset: SplitDataset,
    checked: LabelCheck,
    *,
    flagged: pd.DataFrame,
    near: pd.DataFrame,
    differing: pd.DataFrame,
    shortcuts: pd.DataFrame,
    claims: pd.DataFrame | None = None,
    shares: pd.DataFrame | None = None,
    others: Sequence[KeyResult] = (),
) -> list[KeyResult]:
    """Return the key results of a dataset, at most `MOST`, the most serious first.

    Args:
        dataset: The images with their splits, as all notebooks use them.
        checked: `label_check.check_labels`.
        flagged: `quality.flags`.
        near: `quality.across_splits`.
        differing: `quality.label_differences`.
        shortcuts: `quality.label_shortcuts`.
        claims: `cards.claims`.
        shares: `LabelCheck.shares`; None where nothing was checked.
        others: Further results; of one severity they come last.
    """
    manifest = dataset.manifest
    results = [
        *(KeyResult(SERIOUS, note) for note in presence.notes(manifest)[1 if "fold" in manifest.facts else 0 :]),
        *_of_leakage(dataset, near),
        *_of_copies(dataset),
        *_of_shortcuts(manifest, shortcuts),
        *_of_properties(manifest, differing),
        *_of_labels(checked, shares),
        *_of_sizes(manifest),
        *_of_faults(dataset, flagged),
        *_of_claims(claims),
        *_of_balance(manifest),
        *others,
        KeyResult(NOTE, describe_references(manifest)),
        *_of_exclusions(dataset),
    ]
    return sorted(results, key=lambda result: SEVERITIES.index(result.severity))[:MOST]


def describe_precision(manifest: Manifest, splits: Splits) -> KeyResult:
    """Return how wide an interval the test split gives, and how wide one of all images in folds.

    The width is Wilson's (1927), each patient or lesion counted as one trial with a probability of 80 %; from folds it
    is that of fewer trials, by the square of `evaluation.widening_of`.
    """
    groups = manifest.frame["group"].to_numpy()
    kept = splits.cross_validated and not splits.pool and bool(manifest.facts.get("gives_test"))
    test, every = manifest.rows(TEST), manifest.rows(TRAIN, VALIDATION, *([] if kept else [TEST]))
    divided = manifest.with_frame(manifest.frame.iloc[every])
    what, who = "an accuracy", "patients or lesions"
    if manifest.findings:
        of_test = evaluation.count_groups(manifest.labels.present[test], groups[test])
        rarest = int(np.where(of_test > 0, of_test, of_test.max() + 1).argmin())
        test, every = (rows[manifest.labels.present[rows, rarest]] for rows in (test, every))
        what, who = "a sensitivity", f"patients with {manifest.findings[rarest]}, the rarest finding"
    counts = [len(np.unique(groups[rows])) for rows in (test, every)]
    if not min(counts):
        return KeyResult(NOTE, "No finding is present on test, so no interval can be foreseen.")
    count = folds.count_folds(divided, splits)
    half, of_all = (_half_width(patients) for patients in (counts[0], counts[1] / evaluation.widening_of(count) ** 2))
    text = f"The test split has {counts[0]:,} {who}: {what} of 80 % would have an interval of about ±{half:.1f} points"
    if splits.cross_validated:
        return KeyResult(NOTE, f"{text}. In the folds of notebook 05 all {counts[1]:,} are test: ±{of_all:.1f} points.")
    severity, pool = CAUTION if half > _WIDE else NOTE, ", pool: true" if manifest.facts.get("gives_test") else ""
    if count < 2:
        return KeyResult(severity, f"{text}.")
    how = f"`splits: {{folds: {count}{pool}}}`"
    return KeyResult(severity, f"{text}. With {how} all {counts[1]:,} would be test: ±{of_all:.1f} points.")


def _half_width(count: float) -> float:
    """Return half the width of a share of 80 % of so many trials, in points."""
    trials = max(round(count), 1)
    interval = binomtest(round(0.8 * trials), trials).proportion_ci(method="wilson")
    return 50 * (interval.high - interval.low)


def describe_references(manifest: Manifest) -> str:
    """Return what to compare a model with: the most frequent class, or the prevalences, and the best possible."""
    if manifest.findings:
        return answers.describe_prevalence(presence.references(manifest))
    if reason := presence.why_undefined(manifest):
        return f"The accuracy of always answering the most frequent class is not defined: {reason}."
    share, *bayes = answers.reference_values(manifest).values()
    text = f"Always answering the most frequent class is right for {share:.1%} of the test images"
    return f"{text}; at most {bayes[0]:.1%} are possible." if bayes else f"{text}."


def _labels_in_words(manifest: Manifest) -> str:
    if manifest.classes:
        return f"in {len(manifest.classes)} classes"
    several = manifest.labels.present[(manifest.frame["split"] != "").to_numpy()].sum(axis=1) > 1
    return f"with {len(manifest.findings)} findings (several in {several.mean():.1%} of the images)"


def _of_leakage(dataset: SplitDataset, near: pd.DataFrame) -> Iterator[KeyResult]:
    manifest, across = dataset.manifest, int(near["across"].sum())
    if across:
        yield KeyResult(
            SERIOUS if across >= _FREQUENT * len(manifest.rows(TEST)) else CAUTION,
            f"{_count(across, 'pair')} of near-duplicates {_are(across)} in two splits, so that test results may be "
            "too good; `quality.drop: [near_duplicates]` excludes those in training.",
        )
    independent = "" if across else "; no pair of near-duplicates is in two splits"
    if manifest.facts.get("grouped", False):
        yield KeyResult(NOTE, f"No patient and no lesion is in two splits{independent}.")
        return
    some = manifest.facts.get("names_groups", False)
    unnamed = "The source does not name the patient of every image" if some else "The source names no patients"
    yield KeyResult(
        CAUTION, f"{unnamed}, so that one may be in two splits, and intervals may be too narrow{independent}."
    )


def _of_copies(dataset: SplitDataset) -> Iterator[KeyResult]:
    manifest, shared = dataset.manifest, dataset.shared
    if manifest.classes:
        by_split = shared.groupby("split", observed=True)["copied"].sum() if len(shared) else pd.Series(dtype=int)
        left, total = int(by_split.drop(TRAIN, errors="ignore").sum()), int(by_split.sum())
        what, named = "class", [str(name) for name in shared.index.unique()]
    else:
        conflicts = shared.filter(like="images in conflict") if len(shared) else pd.DataFrame()
        total = int(conflicts.sum(axis=None)) if len(conflicts) else 0
        left = total - int(conflicts[f"images in conflict: {TRAIN}"].sum()) if total else 0
        what, named = "finding", [str(name) for name in shared.index[conflicts.sum(axis=1) > 0]] if total else []
    if not total:
        return
    share = total / max(len(manifest.frame) * (len(manifest.findings) or 1), 1)
    evaluated = len(manifest.rows(VALIDATION)) + len(manifest.rows(TEST))
    of_evaluated = left / max(evaluated * (len(manifest.findings) or 1), 1)
    where = f", and {left} of them {_are(left)} in validation or test" if left else ""
    noun = "label" if manifest.findings else "image"
    yield KeyResult(
        SERIOUS if max(share, of_evaluated) >= _FREQUENT else CAUTION,
        f"{_count(total, noun)} {'contradicts' if total == 1 else 'contradict'} that of a byte-identical image "
        f"({what} {_names(named)}){where}: nobody can tell which label is right. Training excludes these images."
        if manifest.findings
        else f"{_count(total, noun)} {_are(total)} byte-identical to an image of another class ({_names(named)})"
        f"{where}: nobody can tell which label is right. Training excludes them.",
    )


def _of_shortcuts(manifest: Manifest, table: pd.DataFrame) -> Iterator[KeyResult]:
    if table.empty:
        yield KeyResult(NOTE, "There are too few training images, patients or lesions to look for shortcuts.")
        return
    seen = table["seen"] if manifest.findings else table.index.to_series()
    pixels = seen.isin(FROM_PIXELS).to_numpy()
    above = table["above chance"].to_numpy(bool)
    for own, severity in ((~pixels, SERIOUS), (pixels, CAUTION)):
        rows, views = table[own & above], seen[own & above]
        if len(rows):
            best = int(rows["auc"].to_numpy().argmax())
            row, view = rows.iloc[best], views.iloc[best]
            predicted = rows.index[best] if manifest.findings else "the class"
            area = with_interval(row["auc"], row["low"], row["high"])
            more = f" (and {_count(len(rows) - 1, 'other model')} above chance)" if len(rows) > 1 else ""
            yield KeyResult(
                severity,
                f"A model that sees only {view} predicts {predicted} with an AUC of {area}{more}. {explain_view(view)}",
            )
    if not above.any():
        best = int(table["auc"].to_numpy().argmax())
        row = table.iloc[best]
        area = with_interval(row["auc"], row["low"], row["high"])
        corrected = f", corrected for {len(table)} such models" if manifest.findings else ""
        yield KeyResult(
            NOTE,
            f"No model that sees size, format, file name, light or colour alone is better than chance{corrected}: "
            f"the highest AUC is {area} ({seen.iloc[best]}).",
        )


def _of_properties(manifest: Manifest, table: pd.DataFrame) -> Iterator[KeyResult]:
    rows = revealing(table)
    if rows.empty:
        return
    names = rows["property"] if manifest.findings else rows.index.to_series()
    by_file = names.isin(_BY_FILE).to_numpy()
    for own, severity in ((by_file, SERIOUS), (~by_file, CAUTION)):
        if own.any():
            best = int(rows[own]["auc"].to_numpy().argmax())
            row, name = rows[own].iloc[best], PROPERTIES[names[own].iloc[best]]
            what = rows[own].index[best] if manifest.findings else f"the class {row['class']}"
            more = own.sum() - 1
            others = f" {_count(more, 'other property', 'other properties')} {_are(more)} as telling." if more else ""
            area = with_interval(row["auc"], row["low"], row["high"])
            yield KeyResult(severity, f"Images of {what} can be told by {name} alone, with an AUC of {area}.{others}")


def _of_labels(checked: LabelCheck, shares: pd.DataFrame | None) -> Iterator[KeyResult]:
    if shares is None:
        yield KeyResult(NOTE, f"{_UNCHECKED}: {checked.reason}.")
        return
    sure, suspected = shares.loc["most confident"], shares.loc["suspected"]
    low = sure["low"] if np.isfinite(sure["low"]) else 0.0
    severity = SERIOUS if low >= _GRAVE else CAUTION if low >= _FREQUENT else NOTE
    yield KeyResult(
        severity,
        f"{describe_bound(sure)} {describe_suspected(suspected)} Rare and ambiguous classes look wrong, too.",
    )


def describe_bound(row: pd.Series) -> str:
    """Return what the labels of which the head is most confident say about wrong labels, in a sentence.

    Args:
        row: The row "most confident" of `LabelCheck.shares`.
    """
    most = f": if wrong labels are spread evenly, at most about {row['high']:.1%} of all labels are wrong"
    return (
        f"{row['count']:,.0f} of the {row['labels']:,.0f} labels that a frozen network is most confident of differ "
        f"from its prediction ({_percent(row)}){most if np.isfinite(row['high']) else ''}."
    )


def describe_suspected(row: pd.Series) -> str:
    """Return how many labels confident learning expects to be wrong, in a sentence.

    Args:
        row: The row "suspected" of `LabelCheck.shares`.
    """
    return f"Confident learning suspects {row['count']:,.0f} of {row['labels']:,.0f} labels ({_percent(row)})."


def _percent(row: pd.Series) -> str:
    """Return a share with its interval, in per cent."""
    if not np.isfinite(row["low"]):
        return f"{row['value']:.1%}"
    return f"{row['value']:.1%}, interval {row['low']:.1%} to {row['high']:.1%}"


def _of_sizes(manifest: Manifest) -> Iterator[KeyResult]:
    numbers = {}
    for split in (TRAIN, TEST):
        rows = manifest.rows(split)
        group = pd.factorize(manifest.frame["group"].iloc[rows])[0]
        counts = count_groups(manifest.label_values(split), group)
        numbers[split] = counts.min(axis=1) if manifest.findings else counts[:, 0]
    few = np.flatnonzero(np.minimum(numbers[TRAIN], numbers[TEST]) < FEWEST_GROUPS)
    if not len(few):
        return
    order = few[np.argsort(numbers[TEST][few], kind="stable")]
    named = [f"{manifest.names[k]} ({numbers[TRAIN][k]} in training, {numbers[TEST][k]} in test)" for k in order]
    each = "with or without a finding" if manifest.findings else "of a class"
    yield KeyResult(
        CAUTION,
        f"Fewer than {FEWEST_GROUPS} patients or lesions {each} are in training or test: {_names(named)}. What is "
        "measured of it is uncertain.",
    )


def _of_faults(dataset: SplitDataset, flagged: pd.DataFrame) -> Iterator[KeyResult]:
    files = len(dataset.manifest.frame)
    unreadable = int((flagged["rule"] == "unreadable").sum())
    if unreadable:
        share = unreadable / files
        yield KeyResult(
            SERIOUS if share >= _GRAVE else CAUTION,
            f"{unreadable:,} of {files:,} files cannot be read, and {_are(unreadable)} in no split.",
        )
    others = flagged[flagged["rule"] != "unreadable"]
    images = others["image_id"].nunique()
    if images:
        rules = ", ".join(f"{rule} {count:,}" for rule, count in others["rule"].value_counts().items())
        severity = CAUTION if images >= _FREQUENT * files else NOTE
        yield KeyResult(severity, f"{_count(images, 'image')} {'has' if images == 1 else 'have'} a fault ({rules}).")
    elif not unreadable:
        yield KeyResult(NOTE, "No image has a fault: none is unreadable, blank, dark or blurred.")


def _of_claims(table: pd.DataFrame | None) -> Iterator[KeyResult]:
    if table is None or "difference" not in table:
        return
    rows = table.drop(index="all", errors="ignore")
    rows = rows[rows["difference"].fillna(0) != 0]
    if len(rows):
        named = [f"{name} {row['counted']:,.0f} instead of {row['claimed']:,.0f}" for name, row in rows.iterrows()]
        yield KeyResult(CAUTION, f"The source claims other numbers of images than there are: {_names(named)}.")


def _of_balance(manifest: Manifest) -> Iterator[KeyResult]:
    labels = manifest.labels.rows(manifest.rows(TRAIN))
    present = labels.present.sum(axis=0)
    if manifest.classes:
        severe = present.max() >= _UNBALANCED * max(present.min(), 1)
    else:
        share = present / np.maximum(labels.labelled.sum(axis=0), 1)
        severe = share.min() < _FREQUENT or 1 - labels.labelled.mean() >= _MISSING
    yield KeyResult(CAUTION if severe else NOTE, counting.balance(manifest))


def _of_exclusions(dataset: SplitDataset) -> Iterator[KeyResult]:
    reasons = dataset.excluded.loc[dataset.excluded["split"] == TRAIN, "reason"].astype(str)
    if len(reasons):
        rules = reasons.str.split(":").str[0].str.replace("_", " ").value_counts()
        listed = "; ".join(f"{rule} {count:,}" for rule, count in rules.items())
        disputed = reasons.str.startswith("label_conflict").any()  # training depends on a judgement of labels
        severity = CAUTION if disputed else NOTE
        yield KeyResult(severity, f"{_count(len(reasons), 'training image')} {_are(len(reasons))} excluded ({listed}).")


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _names(names: Sequence[str]) -> str:
    """Return names in a row; of many, the first ones and how many others there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {_count(more, 'other')}" if more > 0 else "")
