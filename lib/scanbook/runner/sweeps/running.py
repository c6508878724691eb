"""`make sweep`: the trials that are missing run side by side; one table and page show the results of all."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from scanbook import runtime
from scanbook.config import Study
from scanbook.errors import StudyError
from scanbook.runner import index, locks, planning, schedule
from scanbook.runner.freshness import Batch
from scanbook.runner.sweeps import page
from scanbook.runner.sweeps.grid import Grid, Trial


def run(batch: Batch, jobs: int, launch: str = "") -> bool:
    """Run the trials of a study's grid that are missing, and write the sweep's page.

    If a trial fails, the others go on; the next sweep runs it again, from its last epoch.

    Args:
        batch: The study, with its overrides.
        jobs: Trials side by side.
        launch: Command that starts each trial, such as "srun -n1"; "" to start it directly.

    Returns:
        Whether every trial is done, except for backbones without pretrained weights.

    Raises:
        RunError: As `schedule.run_all`.
        StudyError: As `planning.launcher`; or there is no network, since the models take vectors.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP.
    """
    if batch.study.embeddings:
        raise StudyError(
            f"study {batch.study.study}: the models take vectors, and there is no network to train in a sweep; leave "
            "dataset.embeddings out"
        )
    grid = Grid(batch)
    with locks.hold(grid.folder / ".lock", on_wait=lambda: print("waiting for another sweep", file=sys.stderr)):
        return _run(grid, jobs, launch)


def _run(grid: Grid, jobs: int, launch: str) -> bool:
    done = {result.trial for result in grid.results()}
    missing = [trial for trial in grid.records if trial not in done]
    excluded = _without_weights(grid.batch.study, missing)
    missing = [trial for trial in missing if trial.backbone not in excluded]
    for reason in excluded.values():
        print(f"excluded: {reason}", file=sys.stderr)
    print(f"{grid.batch.label}: {len(missing)} of {len(grid.records)} trials to run", file=sys.stderr)
    started = time.time()

    def foot() -> str:
        count = sum(grid.records[trial].is_file() for trial in missing)
        return f"{count} of {len(missing)} trials done in {runtime.duration(time.time() - started)}"

    if missing:
        schedule.run_all(_plan(grid, missing, launch), jobs, (), foot)
    results = grid.results()
    failed = [trial for trial in missing if trial not in {result.trial for result in results}]
    path = page.write(grid, results, failed, excluded)
    index.write()
    count = f"{len(missing) - len(failed)} of {len(missing)} trials run in {runtime.duration(time.time() - started)}"
    if failed:
        names = "; ".join(f"{trial.backbone}, {trial.policy}, seed {trial.seed}" for trial in failed)
        print(f"{count}; not done: {names}. The lines above have the reasons: {path}", file=sys.stderr)
    else:
        print(f"{count}; all {len(results)} are in {path}", file=sys.stderr)
    return not failed


def _without_weights(study: Study, trials: Sequence[Trial]) -> dict[str, str]:
    """Return the backbones that lack their pretrained weights, with the reasons."""
    names = list(dict.fromkeys(trial.backbone for trial in trials))
    if not names:
        return {}
    # in a process that ends: this one only waits for trials, and must hold neither memory nor a GPU meanwhile
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_missing_weights, study.model_copy(update={"backbones": names})).result()


def _missing_weights(study: Study) -> dict[str, str]:
    runtime.configure()
    from scanbook.models import backbones

    return backbones.resolve(study)[1]


def _plan(grid: Grid, trials: Sequence[Trial], launch: str) -> dict[str, planning.Run]:
    """Return the runs, one trial of each configuration first: a sweep that is stopped has results of all."""
    words = planning.launcher(launch)
    return {
        " ".join((trial.backbone, trial.policy, str(trial.seed))): planning.Run(
            [*words, *grid.command(trial, bool(launch))]
        )
        for trial in sorted(trials, key=lambda trial: trial.seed)
    }
