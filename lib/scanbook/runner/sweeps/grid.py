"""The trials of a sweep, and the records of their results."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from scanbook import store
from scanbook.config import Study, Sweep
from scanbook.errors import DataError
from scanbook.evaluation import AnyPredictions, load_predictions
from scanbook.reporting.records import read_json
from scanbook.runner.freshness import Batch, study_fingerprint
from scanbook.runner.index import SWEEP
from scanbook.runner.planning import options


@dataclass(frozen=True, order=True)
class Trial:
    """One network of the grid.

    Attributes:
        backbone: Backbone of the network.
        policy: Augmentation of the training images.
        seed: Seed of training.
    """

    backbone: str
    policy: str
    seed: int

    @property
    def configuration(self) -> tuple[str, str]:
        """Backbone and policy, which a sweep compares."""
        return self.backbone, self.policy


@dataclass(frozen=True)
class Result:
    """Result of a trial.

    Attributes:
        trial: The trial.
        facts: Its record, as `scanbook train --record` writes it.
        validation: Its predictions for the validation images.
    """

    trial: Trial
    facts: dict[str, Any]
    validation: AnyPredictions


class Grid:
    """A study's trials and their records.

    A record's name holds a fingerprint of all that it depends on: the study as the trial takes it, data, code and
    packages. So an existing record is fresh, and a grid that grows keeps its records.

    Args:
        batch: The study, with its overrides.

    Attributes:
        folder: Folder of the sweep's page and its records.
        records: The file for the result of each trial, by configuration, then seed.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch, self.folder = batch, batch.folder / SWEEP
        self._shared = batch.shared | batch.code.of_trainings()
        self.records = {trial: self._record(trial) for trial in trials(batch.study)}

    def _record(self, trial: Trial) -> Path:
        values = {"backbones": [trial.backbone], "augmentation": trial.policy, "seeds": 1, "sweep": Sweep()}
        study = study_fingerprint(self.batch.study.model_copy(update=values))
        digest = store.fingerprint(self._shared | {"study": study, "seed": trial.seed})
        words = re.sub(r"[^\w.+-]", "_", f"{trial.backbone}-{trial.policy}-{trial.seed}")
        return self.folder / "trials" / f"{words}-{digest[:12]}.json"

    def results(self) -> list[Result]:
        """Return the results of the trials that are done, in the grid's order; a damaged record is not a result."""
        results = []
        for trial, record in self.records.items():
            if facts := read_json(record):
                with suppress(DataError):
                    results.append(Result(trial, facts, load_predictions(record.with_suffix(".csv"))))
        return results

    def command(self, trial: Trial, launched: bool) -> list[str]:
        """Return the command that trains the network of a trial.

        Args:
            trial: The trial.
            launched: Whether a launcher starts it, possibly as several processes that train together; on this machine a
                trial is one process, since others run beside it.
        """
        words = [sys.executable, "-m", "scanbook.cli", "train", self.batch.study.study, *options(self.batch)]
        words += ["--backbone", trial.backbone, "--policy", trial.policy, "--seed", str(trial.seed)]
        words += [] if launched else ["--distribute", "none"]
        return [*words, "--record", str(self.records[trial])]


def trials(study: Study) -> list[Trial]:
    """Return the grid of a study's `sweep`."""
    block = study.sweep
    backbones = dict.fromkeys(block.backbones or study.backbones)
    policies = dict.fromkeys(block.policies or ["none", study.augmentation])
    seeds = range(study.seed, study.seed + block.seeds)
    return [Trial(*values) for values in product(backbones, policies, seeds)]
