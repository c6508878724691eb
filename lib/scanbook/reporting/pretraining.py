"""Where pretrained weights come from, and whether the test images were among those that they learned from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scanbook import evaluation, runtime
from scanbook.data import corpus
from scanbook.data.manifest import Manifest
from scanbook.errors import DataError
from scanbook.evaluation import AnyPredictions
from scanbook.models import backbones
from scanbook.reporting import plots
from scanbook.reporting.notebook import Session
from scanbook.reporting.plots.style import count_of

if TYPE_CHECKING:
    from scanbook.training import StudyModels

_DIGITS = 8
"""Digits of a SHA-256 that a table shows; `results.json` has all."""


def show_origins(session: Session, weights: Mapping[str, Any], missing: Mapping[str, str]) -> None:
    """Show where the pretrained weights of each backbone come from, and why some have none.

    Args:
        session: Shows and keeps the results.
        weights: Weights by backbone, and
        missing: reasons by backbone without weights, both of `backbones.resolve`.
    """
    session.warning(backbones.describe(dict(weights), dict(missing)))
    table = backbones.tabulate_origins(dict(weights))
    if len(table):
        shown = table.assign(sha256=table["sha256"].str[:_DIGITS])
        session.table("pretraining", shown, "Origin of the pretrained weights, with the start of their SHA-256")
    session.result("pretraining", table)


def show_overlap(session: Session, models: StudyModels, test: AnyPredictions, summary: pd.DataFrame) -> None:
    """Show how many test images were among those of the pretraining, and the results without them.

    Args:
        session: Shows and keeps the results.
        models: The study's models; the lists of the final models' backbones count.
        test: Calibrated predictions of the final models for the test images.
        summary: `evaluation.summary` of all of them.
    """
    known = session.study.pretraining
    finals = [split.final for split in models.splits]
    used = dict.fromkeys(name for final in finals for name in (final.backbone, *final.others))
    named = [name for name in used if name in known and known[name].corpus_list]
    if others := [name for name in used if name not in named]:
        session.say(
            f"The study names no list of the images on which {' and '.join(others)} "
            f"{'was' if len(others) == 1 else 'were'} pretrained (`pretraining.<backbone>.corpus_list`), so it is not "
            "known whether test images are among them."
        )
    listed, images = np.zeros(len(test), bool), 0
    for name in named:
        try:
            found = corpus.read(runtime.path_in_project(known[name].corpus_list))
        except DataError as error:
            _warn(session, f"Whether {name} was pretrained on test images is not known: {error}.")
            continue
        images += len(found)
        listed |= found.contains(_rows(models.manifest, test))
    if not images:
        return
    _show_without(session, models.manifest, test, summary, listed=listed, images=images)


def _warn(session: Session, sentence: str) -> None:
    """Show a sentence in its section and, since a page lists warnings below its answer, as a warning."""
    session.say(sentence)
    session.warning(sentence)


def _rows(manifest: Manifest, test: AnyPredictions) -> pd.DataFrame:
    """Return the rows of test images; of folds that were repeated, an image has several."""
    return manifest.frame.iloc[manifest.rows_of(test.image_id)]


def _show_without(
    session: Session,
    manifest: Manifest,
    test: AnyPredictions,
    summary: pd.DataFrame,
    *,
    listed: np.ndarray,
    images: int,
) -> None:
    total, inside = (len(np.unique(names)) for names in (test.image_id, test.image_id[listed]))
    groups = len(np.unique(test.group[listed]))
    session.result("pretraining_overlap", {"listed": images, "test_images": inside, "test_groups": groups})
    corpus_text = f"the {count_of(images, 'listed image')} of the pretraining"
    if not inside:
        session.say(f"None of the {total:,} test images is among {corpus_text}.")
        return
    patients = f" ({count_of(groups, 'patient')})" if manifest.facts.get("names_groups") else ""
    _warn(
        session,
        f"{count_of(inside, 'test image')} of {total:,}{patients} {'is' if inside == 1 else 'are'} among "
        f"{corpus_text}. Their results may be too good.",
    )
    if listed.all():
        session.say("No test image is left without them, so there are no other results.")
        return
    others = test.subset(~listed)
    chosen = [name for name in ("accuracy", "balanced_accuracy", "auroc", "auprc", "kappa") if name in summary.index]
    without = evaluation.summary(others, chosen, **session.study.resamples)
    undefined = without.index[without["value"].isna()]
    if len(undefined):
        titles = ", ".join(evaluation.METRICS[name].title for name in undefined)
        lacking = f", which lack {', '.join(others.absent)}" if others.absent else ""
        session.say(f"Not defined on the {total - inside:,} other test images{lacking}: {titles}.")
    without = without.drop(undefined)
    if without.empty:
        return
    every, rest = f"all {total:,} test images", f"without those listed ({total - inside:,})"
    table = pd.concat({every: summary.loc[without.index], rest: without}, axis=1)
    table.columns = [f"{name}.{column}" for name, column in table.columns]
    session.table("pretraining_overlap", table.round(4), "Test results with and without the images of the pretraining")
    rows = {
        f"{evaluation.METRICS[name].title}, {label}": part.loc[name]
        for name in without.index
        for label, part in (("all", summary), ("not listed", without))
    }
    bars = pd.DataFrame(rows).T.rename_axis("metric")
    title = f"{total:,} test images, and {total - inside:,} without those of the pretraining"
    session.figure("pretraining_overlap", plots.metric_bars(bars, title), f"Metrics on {every}, and {rest}")
    session.result("without_pretraining_images", without)
