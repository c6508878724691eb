"""What one command runs: the studies that it names, and the rules by which Make runs their stale notebooks."""

from __future__ import annotations

import re
import shlex
import sys

from scanbook import study as studies
from scanbook.errors import StudyError
from scanbook.runner import order
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
    found, left_out = [], {}
    for name in studies.studies():
        try:
            study = studies.load(name, profile, overrides=overrides)
        except StudyError as error:
            left_out[name] = str(error)
            continue
        if at_hand(study):
            found.append(Batch(study, overrides))
        else:
            left_out[name] = f"no data at {study.location}"
    if not found and left_out:  # the profile or an override is wrong, with every study
        raise StudyError(next(iter(left_out.values())))
    return found, left_out


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
    try:
        launcher = shlex.split(launch)
    except ValueError as error:
        raise StudyError(f"LAUNCH={launch} has a quote that is not closed; close it") from error
    rules, targets = [], []
    for batch in planned:
        stale = batch.stale()
        study = re.sub(r"[^\w.+-]", "_", batch.study.study)
        where = {name: f"{study}/{name}" for name in stale}
        targets += where.values()
        for name, target in where.items():
            earlier = order.before(name)
            rules.append(f"{target}: {' '.join(where[each] for each in stale if each in earlier)}".rstrip())
            # exec: what Make stops is the command, and no shell around it
            rules.append("\t@exec " + shlex.join([*launcher, *command(batch, name)]).replace("$", "$$"))
    if targets:
        rules = [f".PHONY: all {' '.join(targets)}", f"all: {' '.join(targets)}", *rules]
    return "".join(f"{rule}\n" for rule in rules)
