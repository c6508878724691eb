"""Section of notebook 01 on labels that look wrong: how many, of which classes or findings, and the images."""

from __future__ import annotations

import pandas as pd

from scanbook.data import counts, quality
from scanbook.data.splits import SplitDataset
from scanbook.registry import short_name
from scanbook.reporting import key_results, plots
from scanbook.reporting.notebook import Session
from scanbook.training import label_check
from scanbook.training.label_check import RULE, LabelCheck

_CAVEAT = (
    "A rare class, an image that is hard to tell and a class that a frozen network does not recognise look wrong, too: "
    "the list is for a person to look at, and changes nothing."
)


def show_label_check(
    session: Session, whole: SplitDataset, dataset: SplitDataset
) -> tuple[LabelCheck, pd.DataFrame | None]:
    """Show the labels that differ from predictions by a head that saw no image of the same patient.

    Args:
        session: Shows and keeps the results.
        whole: `splits.split_study`.
        dataset: The same after `label_check.exclude`.

    Returns:
        `label_check.check_labels`, and its shares; None where no label was checked.
    """
    manifest, options = whole.manifest, session.study.resamples
    checked = label_check.check_labels(session.study, whole)
    if checked.small:
        named = ", ".join(checked.small[:10]) + (f" and {len(checked.small) - 10} others" if checked.small[10:] else "")
        session.say(f"Not checked, because fewer than {label_check.FOLDS} patients or lesions have the label: {named}.")
    if checked.reason:
        session.say(f"Labels were not checked: {checked.reason}.")
        return checked, None
    shares, kind = checked.shares(**options), counts.kind(manifest)
    of_label = checked.shares_by_label(**options)
    session.say(
        f"A head on the features of {short_name(checked.backbone)}, frozen, predicted each label; it had learned from "
        f"no image of the same patient or lesion. {key_results.describe_bound(shares.loc['most confident'])} "
        f"{key_results.describe_suspected(shares.loc['suspected'])} {_CAVEAT}"
    )
    name = "suspected_labels"
    session.figure(name, plots.suspected_labels(of_label, kind), f"Labels that confident learning suspects, by {kind}")
    session.table(name, of_label.rename_axis(kind), f"Labels that confident learning suspects, by {kind}")
    worst = checked.worst()
    shown = worst.set_index("image_id").rename(columns=_COLUMNS)
    session.table("labels_to_look_at", shown, f"Labels to look at: the least probable of each of {len(shown)} patients")
    title = "Labels to look at: given label, suggested label? and its probability, patient"
    figure = plots.montage(*quality.label_examples(manifest, worst), title=title)
    session.figure("labels_to_look_at", figure, "The most suspicious label of each patient, the least probable first")
    every = checked.suspected.drop(columns="suspected").set_index("image_id").rename(columns=_COLUMNS)
    session.table("every_suspected_label", every, "Every label that confident learning suspects")
    session.say(_describe_rule(session.study.quality.drop, dataset))
    session.result("label_check", shares)
    return checked, shares


_COLUMNS = {
    "group": "patient or lesion",
    "given": "given label",
    "suggested": "suggested label",
    "confidence": "probability of the suggested",
    "probability": "probability of the given",
    "conflict": "in conflict",
    "labels": "labels of the patient",
    "suspected": "suspected of these",
}


def _describe_rule(drop: list[str], dataset: SplitDataset) -> str:
    """Return what the study's rule does with training images whose label is in conflict."""
    limit = f"a probability below {label_check.DOUBT:.0%} if all labels were equally frequent"
    if RULE not in drop:
        return (
            "All these images stay. `quality.drop: [label_conflict]` excludes training images whose label is suspected "
            f"and has {limit}, by a head that saw training images alone."
        )
    count = int(dataset.excluded["reason"].astype(str).str.startswith(RULE).sum())
    images = f"{count:,} training image{'s' * (count != 1)}"
    return (
        f"`quality.drop` names {RULE}: {images} whose label is suspected and has {limit}, by a head that saw training "
        f"images alone, {'is' if count == 1 else 'are'} excluded in every notebook."
    )
