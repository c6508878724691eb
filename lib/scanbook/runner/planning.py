"""What one command runs: the studies that it names, and the rules by which Make runs their stale notebooks."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scanbook import config as studies
from scanbook.errors import StudyError
from scanbook.reporting import suite
from scanbook.runner.freshness import Batch, at_hand

ALL = "all"
"""In place of a study's name: every study whose images are at hand or drawn."""


def batches(names: str, profile: str = "", data: str = "", overrides: str = "") -> tuple[list[Batch], dict[str, str]]:
    """The notebooks of the studies that a command names.

    Args:
        names: Studies, with commas between them, or "all" for those whose data are at hand or drawn.
        profile: As `study.load` takes it.
        data: The same; of one study alone.
        overrides: The same.

    Returns:
        A batch for each, and the reason for each study that "all" leaves out.

    Raises:
        StudyError: A study, the profile or an override is wrong, or one dataset is named for several studies.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",")))
    several = names.strip() == ALL or len(wanted) > 1
    if data and several:
        raise StudyError(f"DATA={data} is the data of one study, and STUDY={names} names several; name one of them")
    if names.strip() != ALL:
        return [Batch(studies.load(name, profile, data, overrides), overrides) for name in wanted], {}
    found, excluded = [], {}
    for name in studies.studies():
        try:
            study = studies.load(name, profile, overrides=overrides)
        except StudyError as error:
            excluded[name] = str(error)
            continue
        if at_hand(study):
            found.append(Batch(study, overrides))
        else:
            excluded[name] = f"no data at {study.location}"
    if not found and excluded:  # the profile or an override is wrong, with every study
        raise StudyError(next(iter(excluded.values())))
    return found, excluded


def command(batch: Batch, name: str) -> list[str]:
    """The command that runs one notebook of a batch."""
    words = [sys.executable, "-m", "scanbook.cli", "run", name, "--if-stale"]
    words += ["--study", batch.study.study, "--profile", batch.study.profile]
    for option, value in (("--data", batch.study.data), ("--set", batch.overrides)):
        words += [option, value] if value else []
    return words


def makefile(planned: list[Batch], launch: str = "") -> str:
    """Rules of Make that run the stale notebooks in order, those of all studies in one graph; empty when none is stale.

    Args:
        planned: The studies.
        launch: Command that starts each notebook's own, such as "srun -n1"; "" to start it directly.

    Raises:
        StudyError: `launch` has a quote that is not closed.
    """
    runs: dict[str, Run] = {}
    for batch in planned:
        stale = batch.stale()
        where = {name: target(batch.study.study, name) for name in stale}
        for name in stale:
            earlier = suite.before(name)
            runs[where[name]] = Run(command(batch, name), [where[each] for each in stale if each in earlier])
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
    """What Make calls a run."""
    return "/".join(re.sub(r"[^\w.+-]", "_", part) for part in parts)


def rules(runs: Mapping[str, Run], launch: str = "") -> str:
    """Rules of Make for runs, by what Make calls them; empty without any. `launch` is as in `makefile`."""
    try:
        launcher = shlex.split(launch)
    except ValueError as error:
        raise StudyError(f"LAUNCH={launch} has a quote that is not closed; close it") from error
    if not runs:
        return ""
    found = [f".PHONY: all {' '.join(runs)}", f"all: {' '.join(runs)}"]
    for name, run in runs.items():
        found.append(f"{name}: {' '.join(run.after)}".rstrip())
        # exec: what Make stops is the command, and no shell around it
        found.append("\t@exec " + shlex.join([*launcher, *run.command]).replace("$", "$$"))
    return "".join(f"{rule}\n" for rule in found)
