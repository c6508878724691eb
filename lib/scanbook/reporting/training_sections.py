"""Sections of the test report about the training: its curves, and how far seeds and folds differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from scanbook import evaluation
from scanbook.config import Study
from scanbook.data import folds
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.evaluation import AnyPredictions
from scanbook.registry import short_name
from scanbook.reporting import plots, vectors
from scanbook.reporting.notebook import Session

if TYPE_CHECKING:
    from scanbook.training import SplitModels, StudyModels, TrainedModel  # which imports Keras


def show_training(session: Session, models: StudyModels) -> None:
    """Show the learning curves of the base model and the networks; of several folds, those of each fold's model."""
    runs = {f"{run.name}, seed {run.seed}": run.history for run in models.first.runs}
    caption = "Loss and accuracy by epoch, frozen and fine-tuned"
    if models.cross_validated:
        runs = {f"{split.networks[0].name}, {split.fold}": split.networks[0].history for split in models.splits}
        caption = "Loss and accuracy by epoch, of the model of each fold"
    session.figure("curves", plots.learning_curves(runs), caption)
    seconds = {split.label_of(run): run.seconds for split in models.splits for run in split.runs}
    session.measure("seconds", seconds)


def show_choices(session: Session, models: StudyModels, gains: pd.DataFrame) -> None:
    """Show what fine-tuning and each average gave on validation images, and which of them the final model has.

    Args:
        session: Shows and keeps the results.
        models: The study's models.
        gains: `comparisons.gains_on_validation`.
    """
    session.result("choices", gains)
    if gains.empty:
        return
    session.table("choices", gains.round(4), "What fine-tuning and averages gave on validation images")
    count, parts = len(models.splits), []
    for name, row in gains.iterrows():
        kept = "in the final model" if row["chosen"] else "not in the final model"
        if models.cross_validated:
            kept = f"in the final models of {row['chosen']:.0f} of {count} folds"
        parts.append(f"{name} {row['change']:+.3f} ({kept})")
    session.say(f"Change of {gains['metric'].iloc[0]} on validation images: {'; '.join(parts)}.")


def compare_with_scratch(
    session: Session, best: TrainedModel, scratch: Sequence[TrainedModel], test: Mapping[str, AnyPredictions]
) -> dict[str, evaluation.Difference]:
    """Compare the best frozen backbone with each network from scratch, on the same test images.

    Args:
        session: Shows and keeps the results.
        best: The frozen backbone with its head.
        scratch: The networks; none in a study of vectors.
        test: Predictions for test, by the name of the network.

    Returns:
        The frozen one minus each other, by the name of the other.
    """
    differences = {}
    for trained in scratch:
        difference = evaluation.paired_difference(test[best.name], test[trained.name], **session.study.resamples)
        differences[trained.name] = difference
        ratio = trained.seconds / best.seconds
        session.say(f"{difference.sentence(best.name, trained.name)}. {trained.name} took {ratio:.1f} × the time.")
        session.measure(f"time of {trained.name} over {best.name}", ratio)
    if not scratch:
        session.say(vectors.NO_SCRATCH)
        return differences
    figure = plots.difference_plot(differences, f"{best.name} minus others, {len(test[best.name])} test images")
    session.figure("difference", figure, "Differences in the main metric with intervals")
    return differences


def load_first(session: Session, models: StudyModels) -> Any:
    """Load the one network that stands for the model where a section needs one, and say which it is.

    A study of vectors has none.
    """
    if session.study.embeddings:
        return None
    network = models.first.networks[0]
    if models.cross_validated:
        session.say(f"Robustness and heat maps are those of the network and the test images of {models.first.fold}.")
    elif models.first.final not in models.first.networks:
        session.say(f"The next sections use {network.name}, seed {network.seed}, alone. Notebook 07 exports it.")
    return network.load_model()


def show_seeds(session: Session, models: StudyModels, raw: AnyPredictions, metrics: Sequence[str]) -> pd.DataFrame:
    """Show the differences between the networks of several seeds; nothing where there is one seed.

    Args:
        session: Shows and keeps the results.
        models: The study's models.
        raw: The final model's predictions for test, without calibration.
        metrics: Names of metrics.

    Returns:
        `evaluation.over_seeds`, of test images.
    """
    seeds = {}
    for place, network in enumerate(models.first.networks):
        if all(split.networks[place] is split.final for split in models.splits):
            seeds[network.seed] = raw
        else:
            seeds[network.seed] = models.by_fold(
                lambda split, place=place: session.on_test_of(split, split.networks[place])
            )
    by_seed = evaluation.over_seeds(seeds, metrics)
    if len(seeds) > 1:
        without = "temperature" if "accuracy" in by_seed.index else "calibration"
        session.table("seeds", by_seed.round(4), f"Test metrics of each seed's network, without {without}")
        figure = plots.seed_dots(by_seed, f"{len(seeds)} seeds, {len(raw)} test images")
        session.figure("seeds", figure, "Distance of each seed's metrics from their mean")
    return by_seed


def show_folds(session: Session, models: StudyModels, test: AnyPredictions) -> pd.DataFrame | None:
    """Show what was chosen in each fold of cross-validation, and its results; nothing where there is one split.

    Args:
        session: Shows and keeps the results.
        models: The study's models.
        test: Calibrated predictions of the final models, pooled.

    Returns:
        `evaluation.over_folds`; None where there is one split.
    """
    if not models.cross_validated:
        return None
    session.say(
        f"Cross-validation with {models.folds_in_words}: every image is predicted by the networks of the fold in "
        "which it is test. These were trained, chosen and calibrated on images of the other folds alone. Shares of "
        "answers and calibration are of all images together. AUROC and AUPRC are means over the folds, because the "
        "scores of different networks are not on one scale."
    )
    if (repeats := session.study.splits.repeats) > 1:
        session.say(f"Each image is test {repeats} times, and counts so often in the numbers of test images.")
    session.say(
        "Resamples of patients ignore the variance of training: another training would give other networks, and each "
        "image also trained the networks of the other folds. So the intervals are "
        f"{evaluation.widening(test.group, test.fold):.2g} times as wide as resamples give them (Nadeau and Bengio, "
        "2003). This is right where there is little to learn, and too wide with many patients and clear signs. The "
        "spread over the folds shows the variance of training in part, together with the choice of patients."
    )
    by_fold = evaluation.over_folds(test, evaluation.metrics_for(test, session.study.ordered))
    rows = {split.fold: _describe_split(split) for split in models.splits}
    shown = [name for name in ("accuracy", "auroc", "kappa", "auprc") if name in by_fold.index]
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("fold")
    titles = {name: evaluation.METRICS[name].title for name in shown}
    table = table.join(by_fold.loc[shown, list(rows)].T.rename(columns=titles).round(4))
    session.table("folds", table, "Images, choices and test results of each fold")
    figure = plots.seed_dots(by_fold, f"{len(rows)} folds, {len(test)} images in all", of="fold")
    session.figure("folds", figure, "Distance of each fold's metrics from their mean")
    undefined = by_fold.loc[shown, list(rows)].isna().any()
    if undefined.any():
        names = ", ".join(undefined.index[undefined])
        session.say(f"Not every metric is defined in {names}, which lack a class; the means are over the others.")
    return by_fold


def show_source_test(session: Session, prepare: Callable[[Study], Manifest]) -> pd.DataFrame | None:
    """Show the results of the exported model on a test split of the source that is in no fold.

    Args:
        session: Shows and keeps the results.
        prepare: Returns the dataset of a study, split: `segmentation.prepare`.

    Returns:
        `evaluation.summary`; None where there is no such split.
    """
    study = session.study
    if not folds.keeps_test(study):
        session.say("There are no folds, or they hold every image: no other test split is left.")
        return None
    from scanbook import training  # here, since it imports Keras

    model = training.train_exported_model(study, prepare)
    test = session.on_test(model, model.manifest, calibration=model.calibration)
    summary = evaluation.summary(test, evaluation.metrics_for(test, study.ordered), **study.resamples)
    session.say(
        f"The test split of the source has {len(test):,} images, which are in no fold. The model that notebook 07 "
        f"exports is evaluated on them once: {model.name}."
    )
    session.table("source_test", summary.round(4), f"{model.name}: {len(test)} images of the source's test split")
    return summary


def _describe_split(split: SplitModels) -> dict[str, Any]:
    """Return how many images a fold trained and tested on, and what it chose."""
    rows = split.manifest.rows(TEST)
    return {
        "training images": len(split.manifest.rows(TRAIN)),
        "validation images": len(split.manifest.rows(VALIDATION)),
        "test images": len(rows),
        "test groups": split.manifest.frame["group"].iloc[rows].nunique(),
        "backbone": short_name(split.backbone),
    }
