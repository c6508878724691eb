"""The answers of the notebooks: a few sentences with figures and intervals, with which each page opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from scanbook import bundle
from scanbook.data import presence
from scanbook.data.manifest import TEST, Manifest
from scanbook.evaluation import METRICS, Difference, main_metric, with_interval
from scanbook.reporting.notebook import MOST_SENTENCES


def describe_prevalence(table: pd.DataFrame) -> str:
    """Return the prevalences on test, and the best possible AUROC where it is known, of the extreme findings."""
    known = table.dropna(subset="prevalence").sort_values("prevalence", kind="stable")
    if known.empty:
        return "No finding is labelled on test."
    most, least = known.iloc[-1], known.iloc[0]
    text = f"On test, {most.name} is present in {most['prevalence']:.1%} of the labelled images"
    if most["prevalence"] > least["prevalence"]:
        images = f"{least['with']:.0f} image{'' if least['with'] == 1 else 's'}"
        text += f", and {least.name}, the rarest finding, in {least['prevalence']:.1%} ({images})"
    if "best AUROC" in table and table["best AUROC"].notna().any():
        best = table["best AUROC"].dropna()
        text += (
            f"; the highest possible AUROC is {best.min():.3f} ({best.idxmin()}) to {best.max():.3f} ({best.idxmax()})"
        )
    return f"{text}."


def describe_segmentation(
    method: str,
    means: Mapping[str, pd.DataFrame],
    gap: pd.DataFrame,
    alone: str,
    differences: Mapping[str, Difference],
) -> list[str]:
    """Return how well the chosen method finds the structure, and whether a classifier gains by it.

    Args:
        method: The method that validation chose.
        means: Mean scores of the methods on test, by score; without masks, empty ones.
        gap: Mean difference in Dice of the best two methods.
        alone: What a classifier sees with segmentation.
        differences: The classifier that sees it minus the one that sees the whole image; none where none was trained.
    """
    compared = [f"{difference.sentence(alone, 'whole image')}." for difference in differences.values()]
    scores = means["dice"]
    if method not in scores.index:
        return [f"No test image has an expert's mask, so how well {method} segments is not measured.", *compared]
    row = scores.loc[method]
    dice = with_interval(row["value"], row["low"], row["high"])
    sentences = [f"{method}, chosen on validation, reaches a mean Dice of {dice} on {row['images']:.0f} test images."]
    for pair, row in gap.iterrows():
        change = with_interval(row["value"], row["low"], row["high"], signed=True)
        noise = ", which is within noise" if row["low"] <= 0 <= row["high"] else ""
        sentences.append(f"{pair}: the mean difference in Dice is {change}{noise}.")
    return [*sentences, *compared]


def reference_values(manifest: Manifest) -> dict[str, float]:
    """Return what to compare a model's main metric with: the most frequent class and, where known, the best possible.

    Of findings it is the mean of the best AUROCs of those that test can measure, if it is known of all. There are none
    where the test split lacks a class.
    """
    lacking = manifest.absent(TEST)
    if manifest.findings:
        best = manifest.facts.get("bayes_auroc", {})
        measured = [name for name in manifest.findings if name not in lacking]
        complete = bool(measured) and set(measured) <= set(best)
        return {"Bayes AUROC": float(np.mean([best[name] for name in measured]))} if complete else {}
    if lacking:
        return {}
    bayes = {"Bayes accuracy": manifest.facts["bayes_accuracy"]} if "bayes_accuracy" in manifest.facts else {}
    return {"most frequent class": manifest.majority_accuracy()} | bayes


def describe_differences(
    differences: Mapping[str, Difference], name: str, other: str = "", most: int = MOST_SENTENCES
) -> list[str]:
    """Return a sentence for each difference; of many, for the largest ones, and one for the others.

    Args:
        differences: By the name of the network, or of what it is compared with.
        name: What is compared.
        other: What it is compared with; "" for the names of the differences.
        most: Most sentences.
    """
    sentences = {
        key: f"{key}: {gap.sentence(name, other)}." if other else f"{gap.sentence(name, key)}."
        for key, gap in differences.items()
    }
    if len(sentences) <= most:
        return list(sentences.values())
    largest = sorted(differences, key=lambda key: -abs(differences[key].value))[: most - 1]
    others = f"{len(differences) - len(largest)} smaller differences are in the table."
    return [*(text for key, text in sentences.items() if key in largest), others]


def describe_model(name: str, summary: pd.DataFrame, manifest: Manifest) -> list[str]:
    """Return how well a model performs on test images, and what it is compared with.

    Args:
        name: Name of the model.
        summary: `evaluation.summary`.
        manifest: The dataset, split.
    """
    images = len(manifest.rows(TEST))
    of_classes = ("accuracy", "balanced_accuracy", "auroc", "kappa")
    shown = [metric for metric in (("auroc", "auprc") if manifest.findings else of_classes) if metric in summary.index]
    if reason := presence.why_undefined(manifest):
        titles = ", ".join(METRICS[metric].title for metric in shown)
        return [f"On {images:,} test images {_in_words(name)} has no result as a whole ({titles}): {reason}."]
    values = [f"{METRICS[metric].title} {with_interval(*summary.loc[metric])}" for metric in shown]
    reached = f"On {images:,} test images {_in_words(name)} reaches: {', '.join(values)}"
    known = ", ".join(f"{key} {value:.3f}" for key, value in reference_values(manifest).items())
    if manifest.findings:
        lacking = manifest.absent(TEST)
        of = len(manifest.findings) - len(lacking)
        others = f"; {', '.join(lacking)} cannot be measured there" if lacking else ""
        best = f"; the best possible: {known}" if known else ""
        return [f"{reached}, the means of {of} finding{'s' * (of != 1)}{others}{best}."]
    return [f"{reached}.", f"Accuracies to compare with: {known}."]


def describe_final_model(
    manifest: Manifest,
    names: tuple[str, str],
    summary: pd.DataFrame,
    differences: Mapping[str, Difference],
    abstention: pd.DataFrame,
    *,
    report: pd.DataFrame | None = None,
) -> list[str]:
    """Return how well the final model performs, whether fine-tuning helped, and how far its answers can be believed.

    Args:
        manifest: The dataset, split.
        names: Those of the final model, and of the network that fine-tuning started from.
        summary: `evaluation.summary` of its calibrated predictions for test.
        differences: The final model minus the other one, by metric; none where nothing was fine-tuned.
        abstention: `evaluation.abstention`, or of findings `evaluation.finding_abstention`.
        report: Of findings, `evaluation.finding_report`.
    """
    tuned, frozen = names
    sentences = describe_model(tuned, summary, manifest)
    if manifest.findings and report is not None:
        sentences += _describe_extremes(report)
    main = main_metric(manifest)
    if main in differences:
        sentences.append(f"{differences[main].sentence(tuned, frozen)}.")
    if manifest.findings:
        row = abstention.iloc[-1]
        coverage, sensitivity, specificity = (
            with_interval(*row[[name, f"{name}_low", f"{name}_high"]])
            for name in ("coverage", "sensitivity", "specificity")
        )
        return [
            *sentences,
            f"The calibration error of a finding is {with_interval(*summary.loc['ece'])} on average.",
            f"If the answer near a threshold is *not sure*, {coverage} of the labels are answered, with a sensitivity "
            f"of {sensitivity} and a specificity of {specificity}.",
        ]
    coverage, accuracy = (with_interval(*abstention.loc[name, ["value", "low", "high"]]) for name in abstention.index)
    right = "" if presence.why_undefined(manifest) else f", with an accuracy of {accuracy}"
    return [
        *sentences,
        f"Its calibration error is {with_interval(*summary.loc['ece'])}.",
        f"If it abstains from its least confident answers, it answers {coverage} of the images{right}.",
    ]


def _describe_extremes(report: pd.DataFrame) -> list[str]:
    """Return which finding is recognised best and which worst, of those whose AUROC has an interval, if two have."""
    rows = report.iloc[:-1]
    areas = rows["auroc"][rows["auroc_low"].notna()]
    if len(areas) < 2:
        return []
    best, worst = (
        f"{name} ({with_interval(*rows.loc[name, ['auroc', 'auroc_low', 'auroc_high']])})"
        for name in (areas.idxmax(), areas.idxmin())
    )
    return [f"The highest AUROC is that of {best}, the lowest that of {worst}."]


def headline(name: str, summary: pd.DataFrame, manifest: Manifest) -> str:
    """Return a model's accuracy, or AUROC of findings, with its interval, or why there is none, for the index."""
    metric = main_metric(manifest)
    title = METRICS[metric].title
    value, low, high = summary.loc[metric, ["value", "low", "high"]]
    if np.isnan(value):
        return f"{name}: {title} is not defined: {presence.why_undefined(manifest)}"
    return f"{name}: {title} {value:.3f} ({low:.3f} to {high:.3f})"


def headline_of_differences(what: str, differences: Mapping[str, Difference], manifest: Manifest) -> str:
    """Return the differences in the main metric between two ways of training, or why there are none, for the index.

    Args:
        what: What is compared with what.
        differences: By network; none where no network was trained.
        manifest: The dataset, split.
    """
    if not differences:
        return ""
    title = METRICS[main_metric(manifest)].title
    if reason := presence.why_undefined(manifest):
        return f"{title} with {what} is not defined: {reason}"
    gains = [f"{name} {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})" for name, gain in differences.items()]
    return f"{title} with {what}: {'; '.join(gains)}"


def describe_speed(speeds: Sequence[str], scaling: Sequence[str], costs: pd.DataFrame) -> list[str]:
    """Return how fast this machine predicts and trains, and what a prediction costs.

    Args:
        speeds: `inference.result_sentences`.
        scaling: Conclusions of the training times.
        costs: `cost.compare_costs`.
    """
    return [*speeds[:2], scaling[0], *_describe_cost(costs)]


def _describe_cost(costs: pd.DataFrame) -> list[str]:
    """Return what a million predictions cost on this machine, one at a time; `costs` is of `cost.compare_costs`."""
    here = costs[costs["kind"] != "published"].sort_values("usd_per_million")
    if here.empty:
        return []
    if (here["kind"] == "measured").all():
        return [f"A million predictions, one at a time, cost {here['usd_per_million'].iloc[0]:.3g} USD."]
    low, high = here["usd_per_million"].iloc[[0, -1]]
    return [f"At the prices of the table a million predictions, one at a time, cost {low:.3g} to {high:.3g} USD."]


def describe_export(parity: pd.DataFrame, written: bundle.Bundle, milliseconds: float) -> list[str]:
    """Return whether every place gives the probabilities of the notebook, and how the service answers.

    Args:
        parity: `Export.parity`.
        written: The bundle.
        milliseconds: Median time of a request.
    """
    agreeing = parity["agrees"].astype(bool)
    others = f"; other answers: {', '.join(parity.index[~agreeing])}" if not agreeing.all() else ""
    exact = [name for name in parity.index if "int8" not in name]
    formats = ", ".join(name for style, name in bundle.FORMAT_NAMES.items() if style in written.models)
    unsure = f"below a confidence of {written.abstain_below:.2f}"
    if written.findings:
        unsure = f"near the threshold of each of {len(written.findings)} findings"
    return [
        f"{agreeing.sum()} of {len(parity)} places give the same answers as the notebook: in float32, logits differ by "
        f"at most {parity.loc[exact, 'difference'].max():.1g} of their spread{others}.",
        f"The bundle has the model as {formats}.",
        f"The service answers a request in {milliseconds:.3g} ms (median, one at a time), and says *not sure* "
        f"{unsure}.",
    ]


def _in_words(name: str) -> str:
    """Return the name of a network as a sentence has it: "ResNet18, fine-tuned" is "ResNet18 (fine-tuned)"."""
    backbone, _, training = name.partition(", ")
    return f"{backbone} ({training})" if training else backbone
