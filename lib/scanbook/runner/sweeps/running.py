"""`make sweep`: Make starts the trials that are missing, and what all of them came to goes into one table and page."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from scanbook import runtime
from scanbook.config import Study
from scanbook.reporting.records import duration
from scanbook.runner import index, locks, planning, schedule
from scanbook.runner.freshness import Batch
from scanbook.runner.sweeps import page
from scanbook.runner.sweeps.grid import Grid, Trial


def run(batch: Batch, jobs: int, launch: str = "") -> bool:
    """Carries out the trials of a study's grid that are missing, and writes the sweep's page.

    A trial that fails costs the others nothing; the next sweep tries it again, and goes on from its last epoch.

    Args:
        batch: The study, with its overrides.
        jobs: Trials side by side.
        launch: Command that starts each trial's own, such as "srun -n1"; "" to start it directly.

    Returns:
        Whether every trial is done, but for those whose backbone has no pretrained weights.

    Raises:
        RunError: As `making.follow`.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP.
    """
    grid = Grid(batch)
    with locks.hold(grid.folder / ".lock", on_wait=lambda: print("waiting for another sweep", file=sys.stderr)):
        return _run(grid, jobs, launch)


def _run(grid: Grid, jobs: int, launch: str) -> bool:
    done = {each.trial for each in grid.done()}
    wanted = [trial for trial in grid.trials if trial not in done]
    excluded = _without_weights(grid, wanted)
    wanted = [trial for trial in wanted if trial.backbone not in excluded]
    for reason in excluded.values():
        print(f"left out: {reason}", file=sys.stderr)
    print(f"{grid.batch.label}: {len(wanted)} of {len(grid.trials)} trials to run", file=sys.stderr)
    started = time.time()
    if wanted:
        schedule.follow(_rules(grid, wanted, launch), jobs, (), lambda: _so_far(grid, wanted, started))
    found = grid.done()
    failed = [trial for trial in wanted if trial not in {each.trial for each in found}]
    path = page.write(grid, found, failed, excluded)
    index.write()
    took = f"{len(wanted) - len(failed)} of {len(wanted)} trials run in {duration(time.time() - started)}"
    if failed:
        names = "; ".join(f"{each.backbone}, {each.policy}, seed {each.seed}" for each in failed)
        print(f"{took}; not done: {names}. The lines above say why: {path}", file=sys.stderr)
    else:
        print(f"{took}; all {len(found)} are in {path}", file=sys.stderr)
    return not failed


def _without_weights(grid: Grid, wanted: Sequence[Trial]) -> dict[str, str]:
    """Backbones that lack the pretrained weights that they should have, and why."""
    names = list(dict.fromkeys(trial.backbone for trial in wanted))
    if not names:
        return {}
    # in a process that ends: this one only waits for trials, and must hold neither memory nor a GPU meanwhile
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_missing, grid.batch.study.model_copy(update={"backbones": names})).result()


def _missing(study: Study) -> dict[str, str]:
    runtime.configure()
    from scanbook.models import backbones

    return backbones.resolve(study)[1]


def _rules(grid: Grid, wanted: Sequence[Trial], launch: str) -> str:
    """Make's rules: a trial of each configuration first, so that a sweep that is cut short has seen all of them."""
    ordered = sorted(wanted, key=lambda trial: trial.seed)
    name = grid.batch.study.study
    runs = {
        planning.target(name, trial.backbone, trial.policy, str(trial.seed)): planning.Run(
            grid.command(trial, bool(launch))
        )
        for trial in ordered
    }
    return planning.rules(runs, launch)


def _so_far(grid: Grid, wanted: Sequence[Trial], started: float) -> str:
    done = sum(grid.record(trial).is_file() for trial in wanted)
    return f"{done} of {len(wanted)} trials done in {duration(time.time() - started)}"
