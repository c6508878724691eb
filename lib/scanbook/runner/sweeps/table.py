"""What a sweep found: every trial, and every configuration with its seeds together, held against the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scanbook.config import Study
from scanbook.evaluation import METRICS, Difference, Predictions, difference_over_seeds
from scanbook.runner.sweeps.grid import Done


@dataclass(frozen=True)
class Standing:
    """What one configuration came to, on validation images.

    Attributes:
        configuration: Backbone and policy.
        network: What was trained and how.
        values: Each metric of every seed, in the order of the seeds.
        seconds: Of every seed's training.
        behind: The best configuration's mean minus this one's, by the metric that chooses; None for the best.
    """

    configuration: tuple[str, str]
    network: str
    values: dict[str, list[float]]
    seconds: list[float]
    behind: Difference | None

    def mean(self, metric: str) -> float:
        """Mean of a metric over the seeds."""
        return float(np.mean(self.values[metric]))

    def sd(self, metric: str) -> float:
        """Standard deviation of a metric over the seeds (n − 1); NaN of one seed."""
        found = self.values[metric]
        return float(np.std(found, ddof=1)) if len(found) > 1 else float("nan")


def metrics(study: Study) -> tuple[str, ...]:
    """Names of the metrics that a sweep shows; the first one chooses."""
    return ("kappa", "auroc", "accuracy") if study.ordered else ("auroc", "accuracy")


def trials(study: Study, done: Sequence[Done]) -> pd.DataFrame:
    """One row a trial: `network`, `backbone`, `policy`, `seed`, the metrics, `log loss`, `epochs` and `seconds`."""
    rows = [
        {
            **{key: each.facts[key] for key in ("network", "backbone", "policy", "seed")},
            **_measured(study, each.validation),
            **{key: each.facts[key] for key in ("log loss", "epochs", "seconds")},
        }
        for each in done
    ]
    return pd.DataFrame(rows)


def standings(study: Study, done: Sequence[Done]) -> list[Standing]:
    """The configurations, the best one first, by the mean over the seeds of the first of `metrics`.

    Args:
        study: Says which metric chooses, and how many resamples an interval has.
        done: The trials that were carried out.
    """
    groups: dict[tuple[str, str], list[Done]] = {}
    for each in done:
        groups.setdefault(each.trial.configuration, []).append(each)
    chooses = metrics(study)[0]
    found = {}
    for configuration, members in groups.items():
        measured = [_measured(study, each.validation) for each in members]
        found[configuration] = {name: [each[name] for each in measured] for name in metrics(study)}
    order = sorted(found, key=lambda each: -np.nan_to_num(np.mean(found[each][chooses]), nan=-np.inf))
    options = {"metric": chooses, "rounds": study.bootstrap_rounds, "seed": study.seed}

    def behind(configuration: tuple[str, str]) -> Difference | None:
        if configuration == order[0]:
            return None
        best, other = ([each.validation for each in groups[which]] for which in (order[0], configuration))
        return difference_over_seeds(best, other, **options)

    return [
        Standing(
            configuration,
            groups[configuration][0].facts["network"],
            found[configuration],
            [each.facts["seconds"] for each in groups[configuration]],
            behind(configuration),
        )
        for configuration in order
    ]


def finding(study: Study, found: Sequence[Standing]) -> str:
    """What the sweep says, in a sentence or two."""
    if not found:
        return "No trial is done."
    best, others = found[0], found[1:]
    title = METRICS[metrics(study)[0]].title
    seeds = len(best.values[metrics(study)[0]])
    said = f"Best on validation: {words(best)}, {title} {best.mean(metrics(study)[0]):.3f}"
    said += f" (mean of {seeds} seeds)." if seeds > 1 else " (one seed)."
    if not others:
        return said
    alike = [each for each in others if each.behind and not each.behind.clear]
    if not alike:
        return f"{said} It is told apart from each of the {len(others)} others."
    named = ", ".join(words(each) for each in alike[:3]) + (", …" if len(alike) > 3 else "")
    return f"{said} Not told apart from it: {len(alike)} of the {len(others)} others ({named})."


def words(standing: Standing) -> str:
    """A configuration in words."""
    return f"{standing.network}, augmentation {standing.configuration[1]}"


def _measured(study: Study, validation: Predictions) -> dict[str, float]:
    return {name: METRICS[name].point(validation.y_true, validation.probabilities) for name in metrics(study)}
