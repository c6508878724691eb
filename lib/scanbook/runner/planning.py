"""Which runs one command makes: the studies that it names, and the rules by which Make runs their stale notebooks."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scanbook import config
from scanbook.errors import StudyError
from scanbook.reporting import suite
from scanbook.runner.freshness import Batch, data_available

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
    if requested != [ALL]:
        return [Batch(config.load(name, profile, data, overrides), overrides) for name in requested], {}
    batches, excluded = [], {}
    for name in config.studies():
        try:
            study = config.load(name, profile, overrides=overrides)
        except StudyError as error:
            excluded[name] = str(error)
            continue
        if data_available(study):
            batches.append(Batch(study, overrides))
        else:
            excluded[name] = f"no data at {study.location}"
    if not batches and excluded:  # the profile or an override is wrong, with every study
        raise StudyError(next(iter(excluded.values())))
    return batches, excluded


def options(batch: Batch) -> list[str]:
    """Return the options of a command that name a batch, without its study."""
    words = ["--profile", batch.study.profile]
    for option, value in (("--data", batch.study.data), ("--set", batch.overrides)):
        words += [option, value] if value else []
    return words


def makefile(batches: Sequence[Batch], launch: str = "") -> str:
    """Return rules of Make that run the stale notebooks of all studies in order; "" when none is stale.

    Args:
        batches: The studies.
        launch: Command that starts each run, such as "srun -n1"; "" to start it directly.

    Raises:
        StudyError: `launch` has a quote that is not closed.
    """
    runs: dict[str, Run] = {}
    for batch in batches:
        stale = batch.stale()
        targets = {name: target(batch.study.study, name) for name in stale}
        for name in stale:
            command = [sys.executable, "-m", "scanbook.cli", "run", name, "--if-stale"]
            command += ["--study", batch.study.study, *options(batch)]
            earlier = suite.before(name)
            runs[targets[name]] = Run(command, [targets[other] for other in stale if other in earlier])
    return rules(runs, launch)


@dataclass(frozen=True)
class Run:
    """A run that Make starts.

    Attributes:
        command: Its words.
        after: The runs that must be done before.
    """

    command: Sequence[str]
    after: Sequence[str] = ()


def target(*parts: str) -> str:
    """Return the name of a run as a target of Make."""
    return "/".join(re.sub(r"[^\w.+-]", "_", part) for part in parts)


def rules(runs: Mapping[str, Run], launch: str = "") -> str:
    """Return rules of Make for runs, by their targets; "" without any. `launch` is as in `makefile`."""
    try:
        launcher = shlex.split(launch)
    except ValueError as error:
        raise StudyError(f"LAUNCH={launch} has a quote that is not closed; close it") from error
    if not runs:
        return ""
    lines = [f".PHONY: all {' '.join(runs)}", f"all: {' '.join(runs)}"]
    for name, run in runs.items():
        lines.append(f"{name}: {' '.join(run.after)}".rstrip())
        # exec: what Make stops is the command, and no shell around it
        lines.append("\t@exec " + shlex.join([*launcher, *run.command]).replace("$", "$$"))
    return "".join(f"{line}\n" for line in lines)
