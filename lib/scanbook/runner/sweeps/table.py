"""The results of a sweep: every trial, and every configuration with its seeds together, compared with the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scanbook.config import Study
from scanbook.evaluation import METRICS, AnyPredictions, Difference, difference_over_seeds, has_findings
from scanbook.runner.sweeps.grid import Result


@dataclass(frozen=True)
class Standing:
    """Results of one configuration on validation images.

    Attributes:
        configuration: Backbone and policy.
        network: Name of the network and how it was trained.
        values: Each metric of every seed, in the order of the seeds.
        seconds: Seconds of every seed's training.
        behind: The best configuration's mean minus this one's, by the metric that chooses; None for the best.
    """

    configuration: tuple[str, str]
    network: str
    values: dict[str, list[float]]
    seconds: list[float]
    behind: Difference | None = None

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds."""
        return float(np.mean(self.values[metric]))

    def sd(self, metric: str) -> float:
        """Return the standard deviation of a metric over the seeds (n − 1); NaN for one seed."""
        values = self.values[metric]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    @property
    def title(self) -> str:
        """The configuration in words."""
        return f"{self.network}, augmentation {self.configuration[1]}"


def metrics(study: Study, results: Sequence[Result]) -> tuple[str, ...]:
    """Return the names of the metrics that a sweep shows; the first one chooses."""
    if results and has_findings(results[0].validation):
        return "auroc", "auprc"
    return ("kappa", "auroc", "accuracy") if study.ordered else ("auroc", "accuracy")


def trials(study: Study, results: Sequence[Result]) -> pd.DataFrame:
    """Return one row per trial: network, backbone, policy, seed, the metrics, log loss, epochs and seconds."""
    names = metrics(study, results)
    rows = [
        {
            **{key: result.facts[key] for key in ("network", "backbone", "policy", "seed")},
            **_measure(names, result.validation),
            **{key: result.facts[key] for key in ("log loss", "epochs", "seconds")},
        }
        for result in results
    ]
    return pd.DataFrame(rows)


def standings(study: Study, results: Sequence[Result]) -> list[Standing]:
    """Return the configurations, the best one first, by the mean over the seeds of the first of `metrics`.

    Args:
        study: The study, with the number of resamples of an interval.
        results: The trials that are done.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault(result.trial.configuration, []).append(result)
    names = metrics(study, results)
    unordered = []
    for configuration, members in groups.items():
        rows = [_measure(names, result.validation) for result in members]
        values = {name: [row[name] for row in rows] for name in names}
        seconds = [result.facts["seconds"] for result in members]
        unordered.append(Standing(configuration, members[0].facts["network"], values, seconds))
    ordered = sorted(unordered, key=lambda standing: -np.nan_to_num(standing.mean(names[0]), nan=-np.inf))
    options = {"metric": names[0], **study.resamples}
    for place, standing in enumerate(ordered[1:], 1):
        pair = [[result.validation for result in groups[each.configuration]] for each in (ordered[0], standing)]
        ordered[place] = replace(standing, behind=difference_over_seeds(*pair, **options))
    return ordered


def key_result(standings: Sequence[Standing]) -> str:
    """Return the result of a sweep in a sentence or two."""
    if not standings:
        return "No trial is done."
    best, others = standings[0], standings[1:]
    name = next(iter(best.values))
    if np.isnan(best.mean(name)):
        title, why = METRICS[name].title, "validation lacks a class, or both labels of every finding"
        return f"No configuration is best: {title} is not defined, since {why}."
    seeds = len(best.values[name])
    sentence = f"Best on validation: {best.title}, {METRICS[name].title} {best.mean(name):.3f}"
    sentence += f" (mean of {seeds} seeds)." if seeds > 1 else " (one seed)."
    if not others:
        return sentence
    alike = [standing for standing in others if standing.behind and not standing.behind.clear]
    if not alike:
        return f"{sentence} It differs clearly from each of the {len(others)} others."
    titles = ", ".join(standing.title for standing in alike[:3]) + (", …" if len(alike) > 3 else "")
    return f"{sentence} Not clearly different from it: {len(alike)} of the {len(others)} others ({titles})."


def _measure(names: Sequence[str], validation: AnyPredictions) -> dict[str, float]:
    return {name: METRICS[name].point(validation) for name in names}
