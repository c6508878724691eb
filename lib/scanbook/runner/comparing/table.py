"""What a comparison shows: settings that differ, figures, and each run's differences from the first one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scanbook import evaluation
from scanbook.evaluation import METRICS, Difference
from scanbook.runner.comparing import pairing
from scanbook.runner.comparing.reading import Compared, resamples

NOT_SET = "not set"
"""What the table of settings shows where a run's study has no such key."""


_UNLIKE = "They predict different labels: which figure is higher says little about which model is better."


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run compared with the first one.

    Attributes:
        run: The run.
        paired: Whether the differences are paired: both runs predict the same images.
        why: Of what images the differences are, and why they are not paired if they are not; one sentence.
        differences: The run minus the first one, by metric that both have.
        by_class: The same of AUROCs by DeLong's test, by class or finding; only where the differences are paired.
    """

    run: Compared
    paired: bool
    why: str
    differences: dict[str, Difference]
    by_class: dict[str, Difference]


def settings(runs: Sequence[Compared]) -> pd.DataFrame:
    """Return the settings that differ: one row per dotted key, one column per run.

    A run whose settings are known only in part, an old record, is compared by those that it has.
    """
    every = [run.settings for run in runs]
    keys = dict.fromkeys(key for values in every for key in values)
    rows = {}
    for key in keys:
        known = [values.get(key, NOT_SET) for values, run in zip(every, runs, strict=True) if run.whole_study]
        known += [values[key] for values, run in zip(every, runs, strict=True) if not run.whole_study and key in values]
        if len(set(known)) > 1:
            rows[key] = [
                values.get(key, NOT_SET if run.whole_study else "not recorded")
                for values, run in zip(every, runs, strict=True)
            ]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[run.name for run in runs]).rename_axis("setting")


def shared_metrics(runs: Sequence[Compared]) -> list[str]:
    """Return the metrics that every run has, in the order of `METRICS`, whether they are defined or not."""
    return [name for name in METRICS if all(name in run.figures.index for run in runs)]


def main_metric(runs: Sequence[Compared]) -> str:
    """Return the metric by which runs are sorted and drawn; "" where no metric is defined in all of them.

    It is quadratic weighted kappa of ordered classes, else accuracy of classes or macro AUROC.
    """
    defined = [
        name for name in shared_metrics(runs) if all(np.isfinite(run.figures.loc[name, "value"]) for run in runs)
    ]
    return next((name for name in ("kappa", "accuracy", "auroc", *defined) if name in defined), "")


def compare_with_first(runs: Sequence[Compared]) -> list[Comparison]:
    """Return every other run compared with the first one, in their order."""
    return [_compare(runs[0], run) for run in runs[1:]]


def _compare(first: Compared, run: Compared) -> Comparison:
    shared = shared_metrics([first, run])
    reason, other = pairing.align(first, run)
    if other is None or first.predictions is None:
        ends = ["value", "low", "high"]
        differences = {
            name: evaluation.unpaired_difference(name, run.figures.loc[name, ends], first.figures.loc[name, ends])
            for name in shared
        }
        return Comparison(run, False, f"Not paired: {reason}.", differences, {})
    count, patients = len(other), len(np.unique(other.group))
    why = f"Paired: the same {count:,} {run.split} images, in {patients:,} groups (patients or lesions)."
    data = [one.facts.get("fingerprints", {}).get("data") for one in (first, run)]
    if None not in data and data[0] != data[1]:
        why += " Names and labels of the images agree, but other images of the two datasets differ."
    possible = [name for name in shared if name in evaluation.metrics_for(other, ordered=True)]
    table = evaluation.comparison(other, first.predictions, possible, **resamples(first.study))
    columns = ["difference", "low", "high", "p_value"]
    rows = {
        str(name): Difference(str(name), *map(float, row))
        for name, row in zip(table.index, table[columns].to_numpy(), strict=True)
    }
    by_class = {
        name.removeprefix("AUROC of ").removesuffix(" (DeLong)"): row
        for name, row in rows.items()
        if name.endswith(" (DeLong)")
    }
    return Comparison(run, True, why, {name: rows[name] for name in possible}, by_class)


def long_form(runs: Sequence[Compared], comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row per run and metric, or AUROC of a class: the figure, and its difference from the first run."""
    rows = []
    compared = {comparison.run.name: comparison for comparison in comparisons}
    for run in runs:
        comparison = compared.get(run.name)
        differences = comparison.differences | comparison.by_class if comparison else {}
        of_class = {name: "AUROC of " + name for name in (comparison.by_class if comparison else ())}
        for name in (*run.figures.index, *of_class):
            figure = run.figures.loc[name] if name in run.figures.index and name not in of_class else {}
            row = {"run": run.name, "images": run.split, "metric": of_class.get(name, name)}
            row |= {end: figure.get(end, math.nan) for end in ("value", "low", "high")}
            if gap := differences.get(name):
                row |= {"difference": gap.value, "difference_low": gap.low, "difference_high": gap.high}
                row |= {"p_value": gap.p_value, "paired": bool(comparison and comparison.paired)}
            rows.append(row)
    return pd.DataFrame(rows)


def key_results(runs: Sequence[Compared], comparisons: Sequence[Comparison], metric: str) -> list[str]:
    """Return what a page says first: one to three sentences."""
    if not metric:
        return ["No metric is defined in all of these runs, so no difference is shown."]
    first = runs[0]
    if len(runs) == 2:
        sentence = f"{_sentence(comparisons[0], first, metric)}."
        return [sentence, *([_UNLIKE] if unlike(runs) else [])]
    title, best = METRICS[metric].title, best_first(runs, metric)[0]
    value, low, high = best.figures.loc[metric, ["value", "low", "high"]]
    interval = f" (95 % interval {low:.3f} to {high:.3f})" if np.isfinite(low) and np.isfinite(high) else ""
    sentences = [f"Of {len(runs)} runs {best.name} has the best {title}: {value:.3f}{interval}."]
    if unlike(runs):
        sentences = [
            f"These runs predict different labels, so no {title} is better than another: the highest is that of "
            f"{best.name}, {value:.3f}{interval}."
        ]
    gaps = [comparison.differences[metric] for comparison in comparisons]
    higher, lower = sum(gap.low > 0 for gap in gaps), sum(gap.high < 0 for gap in gaps)
    counts = f"Clearly higher than {first.name}: {higher} of {len(gaps)}; clearly lower: {lower}"
    others = "" if higher + lower == len(gaps) else "; the others differ within noise or have no interval"
    sentences.append(f"{counts}{others}.")
    if not unlike(runs):
        sentences.append("The best of many looks better than it is.")
    return sentences


def _sentence(comparison: Comparison, first: Compared, metric: str) -> str:
    gap = comparison.differences[metric]
    if math.isnan(gap.low):
        value = f"{gap.value:+.3f} {METRICS[metric].title}".replace("-", "−")
        return f"{comparison.run.name} minus {first.name}: {value}, without an interval"
    return gap.sentence(comparison.run.name, first.name)


def unlike(runs: Sequence[Compared]) -> bool:
    """Return whether the labels that runs predict are known to differ."""
    return len({frozenset(run.predictions.names) for run in runs if run.predictions is not None}) > 1


def best_first(runs: Sequence[Compared], metric: str) -> list[Compared]:
    """Return the runs by a metric, the best one first; those of the same value stay in their order."""
    if not metric:
        return list(runs)
    sign = -1 if METRICS[metric].higher_is_better else 1
    return sorted(runs, key=lambda run: sign * run.figures.loc[metric, "value"])
