"""The table, figure and page of a sweep, written whenever it ends."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from scanbook import runtime, store
from scanbook.evaluation import METRICS
from scanbook.reporting import plots
from scanbook.reporting.plots import writing
from scanbook.reporting.report import environment
from scanbook.runner.sweeps import table
from scanbook.runner.sweeps.grid import Grid, Result, Trial

TEMPLATES = Path(__file__).parent / "templates"
PAGE, RESULTS = "index.html", "results.json"


def write(grid: Grid, results: Sequence[Result], failed: Sequence[Trial], excluded: Mapping[str, str]) -> Path:
    """Write `trials.csv`, `results.json`, which is identical for two sweeps of one grid, and the page.

    Args:
        grid: The sweep.
        results: The trials that are done.
        failed: The trials that are not.
        excluded: Why backbones were excluded.

    Returns:
        Path of the page.
    """
    study, names = grid.batch.study, table.metrics(grid.batch.study, results)
    standings, trials = table.standings(study, results), table.trials(study, results)
    store.atomic_write(grid.folder / "trials.csv", trials.to_csv(index=False))
    content = {
        "study": study.study,
        "profile": study.profile,
        "trials": len(grid.records),
        "failed": [[trial.backbone, trial.policy, trial.seed] for trial in failed],
        "excluded": dict(excluded),
        "chosen by": names[0],
        "configurations": [_summarise(standing, names) for standing in standings],
    }
    store.write_json(grid.folder / RESULTS, content)
    figure = None
    if standings:
        values = {standing.title: standing.values[names[0]] for standing in standings}
        figure = writing.write(plots.standings(values, METRICS[names[0]].title))
        store.atomic_write(grid.folder / f"standings.{figure.suffix}", figure.file)
    text = (
        environment(TEMPLATES)
        .get_template("sweep.html.j2")
        .render(
            study=study,
            key_result=table.key_result(standings),
            standings=standings,
            trials=trials.to_dict("records"),
            metrics={name: METRICS[name].title for name in names},
            figure=figure,
            failed=failed,
            excluded=excluded,
            again=_command(grid, "sweep"),
            further=_command(grid, "reports", standings[0].configuration) if standings else "",
            machine=runtime.describe_machine(),
            versions=runtime.versions(),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            code_style="",
        )
    )
    store.atomic_write(grid.folder / PAGE, text)
    return grid.folder / PAGE


def _summarise(standing: table.Standing, names: Sequence[str]) -> dict[str, object]:
    behind = standing.behind
    return {
        "backbone": standing.configuration[0],
        "policy": standing.configuration[1],
        "network": standing.network,
        **{
            name: {"seeds": standing.values[name], "mean": standing.mean(name), "sd": standing.sd(name)}
            for name in names
        },
        "behind": behind and [behind.value, behind.low, behind.high],
    }


def _command(grid: Grid, goal: str, configuration: tuple[str, str] | None = None) -> str:
    """Return the command of Make that runs the sweep again, or reports on one of its configurations."""
    study, overrides = grid.batch.study, grid.batch.overrides
    words = ["make", goal, f"STUDY={study.study}", f"PROFILE={study.profile}"]
    if configuration:
        chosen = f"backbones=[{configuration[0]}] augmentation={configuration[1]}"
        overrides = f"{overrides} {chosen}".strip()
    words += [f"{key}={shlex.quote(value)}" for key, value in (("DATA", study.data), ("SET", overrides)) if value]
    return " ".join(words)
