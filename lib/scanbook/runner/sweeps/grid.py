"""The trials of a sweep, and where each leaves what became of it."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from scanbook import store
from scanbook.config import Study
from scanbook.config import Sweep as Block
from scanbook.errors import DataError
from scanbook.evaluation import Predictions
from scanbook.reporting.records import read_json
from scanbook.runner.freshness import Batch
from scanbook.runner.index import SWEEP


@dataclass(frozen=True, order=True)
class Trial:
    """One network of the grid.

    Attributes:
        backbone: What is trained.
        policy: Augmentation of the training images.
        seed: Of training.
    """

    backbone: str
    policy: str
    seed: int

    @property
    def configuration(self) -> tuple[str, str]:
        """Backbone and policy: what a sweep compares."""
        return self.backbone, self.policy


@dataclass(frozen=True)
class Done:
    """A trial that was carried out.

    Attributes:
        trial: Which.
        facts: What `scanbook train --record` keeps of it.
        validation: Its predictions for the validation images.
    """

    trial: Trial
    facts: dict[str, Any]
    validation: Predictions


class Grid:
    """A study's trials and their records.

    A record's name holds a fingerprint of all that it depends on: the study as the trial takes it, data, library and
    packages. So one that is there is of today, and a grid that grows keeps what it has.

    Args:
        batch: The study, with its overrides.

    Attributes:
        folder: Where the sweep's page and the records lie.
        trials: All of the grid, by configuration, then seed.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch, self.folder = batch, batch.folder / SWEEP
        self.trials = trials(batch.study)
        self._records = {trial: self._record(trial) for trial in self.trials}

    def record(self, trial: Trial) -> Path:
        """File in which a trial of the grid leaves what became of it."""
        return self._records[trial]

    def _record(self, trial: Trial) -> Path:
        taken = {"backbones": [trial.backbone], "augmentation": trial.policy, "seeds": 1, "sweep": Block()}
        study = self.batch.study.model_copy(update=taken).resolved()
        digest = store.fingerprint(self.batch.shared | {"study": store.fingerprint(study), "seed": trial.seed})
        words = re.sub(r"[^\w.+-]", "_", f"{trial.backbone}-{trial.policy}-{trial.seed}")
        return self.folder / "trials" / f"{words}-{digest[:12]}.json"

    def done(self) -> list[Done]:
        """The trials that were carried out, in the grid's order; one with a damaged record was not."""
        found = []
        for trial in self.trials:
            facts = read_json(self.record(trial))
            if facts:
                with suppress(DataError):
                    validation = Predictions.load(self.record(trial).with_suffix(".csv"))
                    found.append(Done(trial, facts, validation))
        return found

    def command(self, trial: Trial, launched: bool) -> list[str]:
        """The command that carries a trial out.

        Args:
            trial: Which.
            launched: Whether a launcher starts it, which may do so several times, to train together; on this machine a
                trial is one process, since others run beside it.
        """
        study = self.batch.study
        words = [sys.executable, "-m", "scanbook.cli", "train", study.study, "--profile", study.profile]
        for option, value in (("--data", study.data), ("--set", self.batch.overrides)):
            words += [option, value] if value else []
        words += ["--backbone", trial.backbone, "--policy", trial.policy, "--seed", str(trial.seed)]
        words += [] if launched else ["--distribute", "none"]
        return [*words, "--record", str(self.record(trial))]


def trials(study: Study) -> list[Trial]:
    """The grid that a study's `sweep` spans."""
    block = study.sweep
    backbones = dict.fromkeys(block.backbones or study.backbones)
    policies = dict.fromkeys(block.policies or ["none", study.augmentation])
    seeds = range(study.seed, study.seed + block.seeds)
    return [Trial(*each) for each in product(backbones, policies, seeds)]
