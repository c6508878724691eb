"""Sections of the exploratory analysis, for classes and for findings: tables, figures and sentences of each."""

from __future__ import annotations

import pandas as pd

from scanbook.data import counts, presence, quality
from scanbook.data.manifest import Manifest
from scanbook.data.splits import SplitDataset
from scanbook.reporting import plots
from scanbook.reporting.notebook import Session


def show_counts(session: Session, dataset: SplitDataset) -> pd.DataFrame:
    """Show how many images there are of each class or finding, by split, and the patients or lesions behind them.

    Args:
        session: Shows and keeps the results.
        dataset: The images with their splits.

    Returns:
        `counts.image_counts`.
    """
    manifest = dataset.manifest
    session.say(counts.remarks(manifest))
    images, (frame, names), kind = counts.image_counts(manifest), counts.by_label(manifest), counts.kind(manifest)
    if manifest.classes:
        session.table("shared", dataset.shared, "Images with a byte-identical copy in another class, by split")
    caption = "Images with each finding, by split" if manifest.findings else "Images by class and split"
    session.table("splits", images, f"{caption}, with the number of patients or lesions")
    session.figure("class_counts", plots.class_counts(frame, names, kind), caption)
    if manifest.findings:
        _show_findings(session, manifest, images["all"].iloc[: len(manifest.findings)])
    return images


def _show_findings(session: Session, manifest: Manifest, images: pd.Series) -> None:
    """Show what is stated of each finding, how many an image has, and which occur together."""
    stated = counts.finding_counts(manifest)
    session.table("findings", stated, "What is stated of each finding, by split: images, and patients or lesions")
    session.figure("findings", plots.label_states(stated), "Present, uncertain, absent and missing labels by finding")
    several = counts.findings_per_image(manifest)
    session.table("findings_per_image", several, "Images by the number of findings known to be present")
    session.figure("findings_per_image", plots.findings_per_image(several), "Findings known to be present in an image")
    together = counts.co_occurrence(manifest)
    session.table("co_occurrence", together, "Share of the images with a finding (row) that have another one (column)")
    session.figure("co_occurrence", plots.co_occurrence(together, images), "Findings that occur together")
    session.result("findings", {name: rows.set_index("split") for name, rows in stated.groupby(level=0, sort=False)})
    session.result("co_occurrence", together)


def show_metadata(session: Session, manifest: Manifest) -> None:
    """Show what the source records about each image besides its labels, and how often a value is missing."""
    (frame, names), kind = counts.by_label(manifest), counts.kind(manifest)
    for column, figure in plots.metadata_by_class(frame, manifest.metadata, names, kind):
        session.figure(f"metadata_{column}", figure, f"{column} by {kind}")
    session.table("missing", quality.missing_values(manifest), f"Images without a value, by {kind}")


def show_properties(session: Session, dataset: SplitDataset) -> pd.DataFrame:
    """Show size, format, light and colour by class or finding, and which of these reveal one.

    Args:
        session: Shows and keeps the results.
        dataset: The images with their splits.

    Returns:
        `quality.label_differences`.
    """
    manifest = dataset.manifest
    statistics, kind = quality.properties(dataset.quality, manifest), counts.kind(manifest)
    table, names = counts.by_label(manifest, statistics)
    session.figure("sizes", plots.image_sizes(table, names, kind), f"Widths and heights by {kind}")
    formats = quality.formats(table, names).rename_axis(index=kind)
    session.table("formats", formats, f"Formats and modes by {kind}")
    figure = plots.image_statistics(table, quality.varying_properties(statistics), names, kind)
    session.figure("statistics", figure, f"File size, brightness, sharpness and colour by {kind}")
    differing = quality.label_differences(statistics, manifest)
    if manifest.findings:
        varying = differing[differing["property"].isin(quality.varying_properties(statistics))]
        title = "Separation by one property"
        figure = plots.areas_by_finding(varying, "property", varying["p"] < 0.05, title)
        session.figure("differences", figure, "How well one property separates images with and without a finding")
        caption = "Separation of images with and without a finding by one property (Mann and Whitney's test; AUC)"
    else:
        caption = "Separation of the classes by one property (Kruskal and Wallis's test; AUC)"
    session.table("differences", differing, caption)
    session.say(quality.label_difference_sentences(differing, manifest))
    session.say(quality.tint_sentences(quality.label_tints(statistics, manifest)))
    return differing


def show_copies(session: Session, dataset: SplitDataset, exact: pd.DataFrame) -> None:
    """Show the byte-identical files and how often their labels agree: of classes, which share images.

    Args:
        session: Shows and keeps the results.
        dataset: The images with their splits.
        exact: `quality.exact_copies`.
    """
    columns = ["image_id", "label", "group", "split"]
    copies = exact.merge(dataset.manifest.frame[columns], on="image_id").sort_values("copy_group")
    session.table("exact_copies", copies.set_index("copy_group"), "Byte-identical files")
    if dataset.manifest.findings:
        session.table("shared", dataset.shared, "Groups of byte-identical files whose labels agree or conflict")
        conflicts = dataset.shared.get("conflict", pd.Series(dtype=int))
        session.result("copies_in_conflict", conflicts[conflicts > 0])
        return
    copy_group = quality.copy_groups(dataset.manifest.frame, exact)
    between = presence.copied_classes(dataset.manifest, copy_group)
    caption = "Images of each class (row) that are byte-identical to an image of another class (column)"
    session.table("copied_classes", between, caption)
    if len(between):
        session.figure("copied_classes", plots.copied_classes(between), caption)


def show_shortcuts(session: Session, dataset: SplitDataset) -> pd.DataFrame:
    """Show how well models that do not see the image predict its class or findings.

    Args:
        session: Shows and keeps the results; its study gives the seed.
        dataset: The images with their splits.

    Returns:
        `quality.label_shortcuts`.
    """
    manifest = dataset.manifest
    shortcuts = quality.label_shortcuts(dataset.quality, manifest, session.study.seed)
    caption = "AUC of models that do not see the image"
    if manifest.findings:
        above, label = shortcuts["above chance"], "input of the model"
        figure = plots.areas_by_finding(shortcuts, "seen", above, "Source shortcuts, cross-validated", label)
    else:
        figure = plots.shortcut_bars(shortcuts)
    session.figure("shortcuts", figure, caption)
    session.table("shortcuts", shortcuts, "AUC of these models on training images, cross-validated by group")
    session.say(quality.label_shortcut_sentences(shortcuts, manifest))
    return shortcuts


def areas(shortcuts: pd.DataFrame) -> pd.DataFrame | pd.Series:
    """Return the areas of `quality.label_shortcuts` for `results.json`: by what a model sees and, first, by finding."""
    if "seen" not in shortcuts:
        return shortcuts["auc"]
    return shortcuts.set_index("seen", append=True)["auc"].unstack("seen", sort=False)


def show_references(session: Session, manifest: Manifest) -> None:
    """Record the values to compare a model with: of classes two accuracies, of findings the prevalence of each."""
    if manifest.classes:
        session.result("majority_accuracy", manifest.majority_accuracy())
        session.result("bayes_accuracy", manifest.facts.get("bayes_accuracy"))
        return
    table = presence.references(manifest)
    caption = "Prevalence of each finding on test: the area under the precision-recall curve that chance has"
    if "best AUROC" in table:
        caption += "; and the highest AUROC that is possible"
    session.table("references", table, caption)
    session.result("references", table)
