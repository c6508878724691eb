"""Sections of notebook 08: each computes its tables and figures and passes them to the notebook's session."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scanbook.data import quality
from scanbook.data.manifest import TEST, TRAIN, VALIDATION, Manifest
from scanbook.data.quality.differences import PROPERTIES
from scanbook.evaluation import AnyPredictions, FindingPredictions, confusion
from scanbook.evaluation.decision_curve import decision_curve, useful_range
from scanbook.evaluation.local_labels import FEWEST, local_labels, needed_calibration, needed_temperature
from scanbook.evaluation.sources import (
    EXTERNAL,
    INTERNAL,
    Point,
    compare_sources,
    metrics_of_sources,
    prevalences,
    rates_of_points,
    scores_of_points,
    truth_of_point,
)
from scanbook.external import Validation, feature_distance, find_shifts, fully_labelled, property_differences, validate
from scanbook.external.shift import PREVALENCE
from scanbook.reporting import plots, stopping, suite
from scanbook.reporting.notebook import Session
from scanbook.reporting.plots.style import count_of

_CUTS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""Probabilities at which the table of decision curves shows the net benefit."""
_COARSE = 0.75
"""Share of the bundle's side in pixels below which external images are said to measure resolution, too."""


def start(session: Session, bundle: str = "") -> Validation | None:
    """Run the bundle on both sources, and show what is compared and what was excluded.

    The notebook ends here for the model of a study of vectors.

    Args:
        session: Shows and keeps the results.
        bundle: Folder of the bundle; "" for the model of the session's study.
    """
    if not bundle and (reason := stopping.why_not(session.study, suite.EXTERNAL)):
        stopping.stop(session, reason)
        return None
    found = validate(session.study, bundle, **({} if bundle else {"on_test": session.on_test}))
    other, exported = found.other, found.bundle
    groups, unit = len(np.unique(found.external.group)), found.unit()
    session.say(
        f"The bundle is `{exported.name}` (profile `{exported.about.get('profile', 'unknown')}`). Its images are "
        f"{_internal_in_words(found)}. The external images are those of **{other.title}**, on {other.runs_on}: "
        f"{count_of(len(found.external), 'image')}{f' of {count_of(groups, unit)}' if unit == 'patient' else ''}."
    )
    if other.study != session.study.study and other.dataset.adapter != "synthetic" and not other.on_stand_in:
        session.warning(f"The external images are real: {other.runs_on}.")
    if isinstance(found.own, str):
        session.warning(
            f"{found.own} Sections that need them are not shown, and external images that are copies of the bundle's "
            "own were not looked for: where there are some, the figures are too high."
        )
    elif found.own.note:
        session.warning(found.own.note)
    rows = {
        name: {
            "theirs": ", ".join(found.names.get(name, ())) or "none",
            "compared": "yes" if name in found.compared else "no",
        }
        for name in exported.labels
    }
    kind = "finding" if exported.findings else "class"
    names = pd.DataFrame.from_dict(rows, orient="index").rename_axis(f"{kind} of the bundle")
    session.table("names", names, "Labels of the bundle, and what the other source calls them")
    session.table("excluded_names", found.excluded, "Labels of the other source that are excluded, with their images")
    if found.available is not None:
        session.table(
            "shared",
            found.shared.set_index("image"),
            "External images that are copies of the bundle's own, which are excluded",
        )
    if found.unreadable:
        session.say(f"{count_of(found.unreadable, 'external image')} cannot be read.")
    _warn(session, found)
    return found


def _internal_in_words(found: Validation) -> str:
    if found.available is None:
        return "not available here"
    counts = found.available.manifest.frame["split"].value_counts()
    listed = ", ".join(f"{split} {counts.get(split, 0):,}" for split in (TRAIN, VALIDATION, TEST))
    return f"those of study `{found.available.study.study}` ({listed})"


def _warn(session: Session, found: Validation) -> None:
    if found.single:
        [name] = {found.external.names[index] for index in found.external.y_true}
        session.warning(
            f"All external images are of one class, {name}: AUROC, balanced accuracy and kappa are not defined on "
            "them, and accuracy is the share of them that is recognised."
        )
    left = [name for name in found.bundle.classes if name not in found.compared]
    if left:
        images = f"; {count_of(found.left, 'internal test image')} of these are not compared" if found.left else ""
        session.warning(
            f"The sources are compared on the classes that both have, {', '.join(found.compared)}. The model can also "
            f"answer {', '.join(left)}{images}."
        )
    height, width = found.bundle.image_size
    sides = _sides(found)
    if sides[0] < _COARSE * height and sides[1] < _COARSE * width:
        session.warning(
            f"The external images have {sides[1]:.0f} × {sides[0]:.0f} pixels (median), and the bundle takes {width} × "
            f"{height}: the figures measure resolution, too."
        )


def _sides(found: Validation) -> tuple[float, float]:
    """Return the median height and width of the external images, in pixels."""
    scanned = quality.scan(found.source) if found.scanned.empty else found.scanned
    if not found.scanned.empty:
        scanned = scanned[scanned["image_id"].str.startswith(EXTERNAL)]
    return float(scanned["height"].median()), float(scanned["width"].median())


def show_metrics(session: Session, found: Validation) -> pd.DataFrame:
    """Show the metrics of both sources and their difference; return the table."""
    names = metrics_of_sources(found.external, found.ordered)
    table = compare_sources(found.internal, found.external, names, **session.study.resamples)
    title = f"The bundle on {_images_in_words(found)}"
    session.figure("sources", plots.two_sources(table, title, "value", counts(found)), "Metrics by source")
    on = "internal test images and on external ones" if found.internal is not None else "external images"
    session.table("metrics", table, f"Metrics of the bundle on {on}")
    if found.bundle.classes:
        _show_answers(session, found)
    if found.internal is None:
        printed = {
            name: found.bundle.metrics[name] for name in names if isinstance(found.bundle.metrics.get(name), dict)
        }
        own = pd.DataFrame.from_dict(printed, orient="index").rename_axis("metric")
        session.table("metrics_of_card", own, "Test metrics that the bundle's card states")
        missing = "the internal images are not available"
        if found.available is not None:
            missing = "no internal image is left as a test image"
        session.say(f"No difference between the sources has an interval, since {missing}.")
    return table


def _images_in_words(found: Validation) -> str:
    """Return of which images the figures are: without internal test images, of external ones alone."""
    return "external images" if found.internal is None else "both sources"


def _show_answers(session: Session, found: Validation) -> None:
    """Show which class the bundle answers for external images of each class, and how often one that they lack."""
    matrix = confusion(found.external).loc[list(found.compared)].rename_axis(index="true class", columns=None)
    session.table("answers", matrix, "External images by true class (rows) and by the bundle's answer (columns)")
    lacking = [name for name in found.bundle.classes if name not in found.compared]
    share = matrix[lacking].to_numpy().sum() / len(found.external)
    if share > 0:
        session.say(
            f"{share:.1%} of the external images are answered with a class that the other source lacks: "
            f"{', '.join(lacking)}."
        )


def counts(found: Validation) -> dict[str, str]:
    """Return how many images and patients each source has, in words."""
    sides = {INTERNAL: found.internal, EXTERNAL: found.external}
    return {
        source: count_of(len(side), "image")
        + (f", {count_of(len(np.unique(side.group)), 'patient')}" if found.unit(source) == "patient" else "")
        for source, side in sides.items()
        if side is not None
    }


def show_shifts(session: Session, found: Validation) -> pd.DataFrame:
    """Show how the external images differ from the bundle's; return the kinds of shift, the largest first."""
    shares = prevalences(found.internal, found.external, **session.study.resamples)
    title = f"Prevalence in {_images_in_words(found)}"
    session.figure("prevalence", plots.two_sources(shares, title, "share of labelled images", counts(found)), title)
    session.table("prevalence", shares, title)
    own, options = found.available, session.study.resamples
    training = found.training()
    if own is None or training is None:
        session.say("Distances from the training images are not shown, since these are not available.")
        return pd.DataFrame(columns=["auc", "low", "high", "images"])
    # max_per_class changes the prevalence of the training images alone
    splits = (TEST,) if own.study.max_per_class else (TRAIN, VALIDATION, TEST)
    everything = found.training(*splits)
    shifts = find_shifts(training, found.source, everything, compared=found.compared, scanned=found.scanned, **options)
    session.figure(
        "shifts", plots.shift_bars(shifts, "How far the sources are apart, by kind of shift"), "Kinds of shift"
    )
    session.table("shifts", shifts, "AUROC of telling the source of an image by its labels, colour or scanner alone")
    session.say(f"0.5, or a little less: the sources are alike. {_balance_in_words(found, training, shifts)}")
    policy = (
        {"none": "scanbook"}.get(own.study.weights, own.study.weights) if isinstance(own.study.weights, str) else "auto"
    )
    distance = feature_distance(own.manifest, found.source, found.bundle.image_size, policy, **options)
    session.table("features", distance, "AUROC of telling images from training images by features of a frozen backbone")
    if found.internal is not None:
        session.say("The internal test images are the control: they are of the same source as the training images.")
    differences = property_differences(training, found.source, scanned=found.scanned)
    session.table(
        "properties", differences.rename(index=PROPERTIES), "Single properties by which the sources can be told apart"
    )
    return shifts


def _balance_in_words(found: Validation, training: Manifest, shifts: pd.DataFrame) -> str:
    """Return at which prevalence colour and scanner are compared."""
    if (sides := fully_labelled(training, found.source, found.compared)) is None:
        without = "" if PREVALENCE in shifts.index else ", and prevalence is not compared as a whole"
        return (
            "Too few patients of a source are labelled with every compared finding: colour and scanner are compared "
            f"without weights to equal prevalence{without}."
        )
    left = len(training.frame) + len(found.source.frame) - sum(len(side.frame) for side in sides)
    partly = f" {count_of(left, 'image')} without a label of some compared finding are excluded." if left else ""
    return (
        "Colour and scanner are compared at equal prevalence: external images are weighted to the internal labels."
        f"{partly}"
    )


def show_calibration(session: Session, found: Validation) -> dict[str, Any]:
    """Show the reliability of both sources and the calibration that would be needed; return the latter by source."""
    sides = _sides_of(found)
    frequent = sorted(found.compared, key=lambda name: -_positives(found.external, name))
    title = f"Reliability of {_images_in_words(found)}"
    session.figure("reliability", plots.reliability_of_sources(sides, frequent), title)
    needed: dict[str, Any] = {}
    for source, side in sides.items():
        if isinstance(side, FindingPredictions):
            fitted = needed_calibration(side, session.study.seed)
            needed[source] = fitted.to_dict()
            rows = pd.DataFrame(fitted.to_dict(), index=pd.Index(side.findings, name="finding"))
            session.table(
                f"calibration_{source}", rows, f"Calibration that {source} images would need, on top", ends=""
            )
        else:
            needed[source] = needed_temperature(side)
    if found.bundle.classes:
        listed = ", ".join(f"{value:.2f} on {source} images" for source, value in needed.items())
        session.say(
            f"The temperature by which the bundle's logits would have to be divided once more: {listed}. Above 1, the "
            "model is too confident there."
        )
    return needed


def _positives(predictions: AnyPredictions, name: str) -> int:
    column = predictions.names.index(name)
    if isinstance(predictions, FindingPredictions):
        return int((predictions.y_true[:, column] == 1).sum())
    return int((predictions.y_true == column).sum())


def _sides_of(found: Validation) -> dict[str, AnyPredictions]:
    internal = {} if found.internal is None else {INTERNAL: found.internal}
    return internal | {EXTERNAL: found.external}


def show_thresholds(session: Session, found: Validation) -> pd.DataFrame:
    """Show what the bundle's thresholds give on both sources; return the rates, by target and source."""
    sides = _sides_of(found)
    if not found.points:
        session.say("The bundle has no threshold for what is compared.")
        return pd.DataFrame(columns=["threshold"], index=pd.MultiIndex.from_tuples([], names=["target", "source"]))
    tables = {source: rates_of_points(side, found.points, **session.study.resamples) for source, side in sides.items()}
    table = pd.concat(tables, names=["source"]).swaplevel().reindex(list(found.points), level=0)
    session.table("thresholds", table, f"The bundle's thresholds on {_images_in_words(found)}")
    session.say(
        "*Flagged*: the share of images at or above the threshold. PPV and NPV are at each source's own prevalence."
    )
    if found.single:
        session.say("All compared images are of one class, positives of each target: sensitivity alone says something.")
    target = main_target(found)
    if target:
        rates = ["flagged", "sensitivity", "specificity", "ppv", "npv"]
        columns = {
            f"{source}{end}": [tables[source].loc[target, f"{rate}{end}"] for rate in rates]
            for source in sides
            for end in ("", "_low", "_high")
        }
        words = ["flagged", "sensitivity", "specificity", "PPV", "NPV"]
        frame = pd.DataFrame(columns, index=pd.Index(words, name="rate"))
        cut = f"{found.points[target].threshold:.3f}"
        title = f"The threshold of {target} ({cut}) on {_images_in_words(found)}"
        session.figure("thresholds", plots.two_sources(frame, title, "share of images", counts(found)), title)
    return table


def main_target(found: Validation) -> str:
    """Return the target that figures show: the first group of classes, else the last that has both sides; "" for none.

    Of findings it is the most frequent one.
    """
    targets = [name for name, point in found.points.items() if _has_both(found, point)]
    if not targets:
        return ""
    if found.bundle.findings:
        return max(targets, key=lambda name: _positives(found.external, name))
    return next((name for name in targets if len(found.points[name].names) > 1), targets[-1])


def _has_both(found: Validation, point: Point) -> bool:
    return np.isfinite(point.threshold) and all(
        positive.any() and negative.any()
        for positive, negative in (truth_of_point(side, point) for side in _sides_of(found).values())
    )


def show_decision_curves(session: Session, found: Validation) -> dict[str, Any]:
    """Show the net benefit of both sources; return the range of useful thresholds, by target and source."""
    curves: dict[str, dict[str, pd.DataFrame]] = {}
    ranges: dict[str, Any] = {}
    first = main_target(found)
    order = sorted(found.points, key=lambda name: name != first)
    for target in (name for name in order if _has_both(found, found.points[name])):
        point = {target: found.points[target]}
        for source, side in _sides_of(found).items():
            positive, negative = truth_of_point(side, point[target])
            known = positive | negative
            scores = scores_of_points(side, point)[known, 0]
            curve = decision_curve(positive[known], scores, side.group[known], **session.study.resamples)
            curves.setdefault(target, {})[source] = curve
            ranges.setdefault(target, {})[source] = useful_range(curve)
    title = f"Decision curves of {_images_in_words(found)}"
    session.figure("decision_curves", plots.decision_curves(curves), title)
    if curves:
        table = pd.concat(curves[first], names=["source"])
        shown = table[table.index.get_level_values("threshold").isin(_CUTS)]
        session.table(
            "decision_curves", shown, f"Net benefit of the model, and of treating all, for {first}, per image"
        )
        session.say(
            "Who acts at a probability of p takes one detected case to be worth (1 − p) / p false alarms. The model "
            "helps where its net benefit is above that of treating all and above 0, that of treating none."
        )
    return ranges


def show_local_labels(session: Session, found: Validation, metrics: pd.DataFrame) -> pd.DataFrame:
    """Show what calibration and thresholds fitted on few external patients give on the others; return the table."""
    options = {"specificity": found.specificity, "seed": session.study.seed}
    target = main_target(found)
    chosen = {name: point for name, point in found.points.items() if _has_both(found, point)}
    table = local_labels(found.external, chosen, **options)
    own = metrics.loc["ece", INTERNAL] if INTERNAL in metrics else None
    figure = plots.local_labels(table, target, found.specificity, own, found.unit())
    session.figure("local_labels", figure, "Labels of local patients, and what they give on others")
    if table.empty:
        session.say(f"Fewer than {FEWEST} external {found.unit()}s: none can be drawn from.")
        return table
    evaluated = len(np.unique(found.external.group)) // 2
    session.say(
        f"All numbers are of one fixed half of the external {found.unit()}s ({evaluated:,}), from which no label is "
        "drawn. Each point is the mean of up to 20 nested random draws from the other half; its interval is of both, "
        f"draws and evaluated {found.unit()}s."
    )
    session.table("local_labels", table.set_index("patients"), "Calibration and rates by number of local patients")
    return table
