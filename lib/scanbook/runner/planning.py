"""Which runs one command makes: the studies that it names, and their stale notebooks in order."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from scanbook import config
from scanbook.errors import StudyError
from scanbook.reporting import suite
from scanbook.runner.freshness import Batch, CodeState, data_available

ALL = "all"
"""In place of a study's name: every study whose images are available or synthetic."""


def load_batches(
    names: str, profile: str = "", data: str = "", overrides: str = ""
) -> tuple[list[Batch], dict[str, str]]:
    """Load the studies that a command names.

    Args:
        names: Studies, with commas between them, or "all" for those whose data are available or synthetic.
        profile: As `config.load` takes it.
        data: The same; for one study alone.
        overrides: The same.

    Returns:
        A batch for each, and the reason for each study that "all" excludes.

    Raises:
        StudyError: A study, the profile or an override is wrong, or one dataset is named for several studies.
    """
    requested = list(dict.fromkeys(name.strip() for name in names.split(",")))
    if data and (ALL in requested or len(requested) > 1):
        raise StudyError(f"DATA={data} is the data of one study, and STUDY={names} names several; name one of them")
    code = CodeState()
    if requested != [ALL]:
        return [Batch(config.load(name, profile, data, overrides), overrides, code) for name in requested], {}
    batches, excluded = [], {}
    for name in config.studies():
        try:
            study = config.load(name, profile, overrides=overrides)
        except StudyError as error:
            excluded[name] = str(error)
            continue
        if data_available(study):
            batches.append(Batch(study, overrides, code))
        else:
            excluded[name] = f"no data at {study.location}"
    if not batches and excluded:  # the profile or an override is wrong, with every study
        raise StudyError(next(iter(excluded.values())))
    return batches, excluded


def options(batch: Batch, overrides: str = "") -> list[str]:
    """Return the options of a command that name a batch, without its study; `overrides` are added to its own."""
    words = ["--profile", batch.study.profile]
    for option, value in (("--data", batch.study.data), ("--set", f"{batch.overrides} {overrides}".strip())):
        words += [option, value] if value else []
    return words


@dataclass(frozen=True)
class Run:
    """A run of a command in a process of its own.

    Attributes:
        command: Its words.
        after: Names of the runs that must be done before.
    """

    command: Sequence[str]
    after: Sequence[str] = ()


def plan(batches: Sequence[Batch], launch: str = "") -> dict[str, Run]:
    """Return the runs of the stale notebooks of all studies, by study and notebook, in order.

    Each outer fold of cross-validation is trained by a run of its own, before the notebook that evaluates them all.

    Args:
        batches: The studies.
        launch: Command that starts each run, such as "srun -n1"; "" to start it directly.

    Raises:
        StudyError: As `launcher`.
    """
    words = launcher(launch)
    runs: dict[str, Run] = {}
    for batch in batches:
        stale = batch.stale()
        for name in stale:
            command = [*words, sys.executable, "-m", "scanbook.cli", "run", name, "--if-stale"]
            command += ["--study", batch.study.study, *options(batch)]
            earlier = [f"{batch.study.study}/{other}" for other in stale if other in suite.before(name)]
            if name == suite.FINE_TUNING:
                folds = _plan_folds(batch, words, earlier)
                runs |= folds
                earlier = [*earlier, *folds]
            runs[f"{batch.study.study}/{name}"] = Run(command, earlier)
    return runs


def _plan_folds(batch: Batch, words: Sequence[str], earlier: Sequence[str]) -> dict[str, Run]:
    """Return the runs that train the networks of each outer fold; none without cross-validation.

    Args:
        batch: The study.
        words: Words of the launcher; a launched run may be several processes that train together.
        earlier: Names of the runs that must be done before.
    """
    if not batch.study.splits.cross_validated or batch.study.splits.fold is not None:
        return {}
    from scanbook.data import folds  # here, since few studies have any

    runs = {}
    for study in folds.fold_studies(batch.study):
        number = study.splits.fold
        command = [*words, sys.executable, "-m", "scanbook.cli", "train", study.study]
        command += [*options(batch, f"splits.fold={number}"), *([] if words else ["--distribute", "none"])]
        runs[f"{study.study}/fold {number}"] = Run(command, earlier)
    return runs


def launcher(launch: str) -> list[str]:
    """Return the words of a command that starts another command.

    Raises:
        StudyError: It has a quote that is not closed, or its program is not on this machine.
    """
    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise StudyError(f"LAUNCH={launch} has a quote that is not closed; close it") from error
    if words and not shutil.which(words[0]):
        raise StudyError(f"LAUNCH={launch} starts with {words[0]!r}, which is no program on this machine; check LAUNCH")
    return words
