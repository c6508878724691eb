"""A sweep's table, figure and page, written anew whenever it ends."""

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
from scanbook.runner.sweeps.grid import Done, Grid, Trial

TEMPLATES = Path(__file__).parent / "templates"
PAGE, RESULTS = "index.html", "results.json"


def write(grid: Grid, done: Sequence[Done], failed: Sequence[Trial], excluded: Mapping[str, str]) -> Path:
    """Writes `trials.csv`, `results.json`, which two sweeps of one grid have alike, and the page.

    Args:
        grid: The sweep.
        done: The trials that were carried out.
        failed: Those that were not.
        excluded: Why backbones were left out.

    Returns:
        Path of the page.
    """
    study = grid.batch.study
    found, each = table.standings(study, done), table.trials(study, done)
    store.atomic_write(grid.folder / "trials.csv", each.to_csv(index=False))
    store.write_json(grid.folder / RESULTS, _results(grid, found, failed, excluded))
    names = table.metrics(study)
    figure = None
    if found:
        figure = writing.write(
            plots.standings({table.words(one): one.values[names[0]] for one in found}, METRICS[names[0]].title)
        )
        store.atomic_write(grid.folder / f"standings.{figure.suffix}", figure.file)
    text = (
        environment(TEMPLATES)
        .get_template("sweep.html.j2")
        .render(
            study=study,
            finding=table.finding(study, found),
            found=found,
            words=table.words,
            trials=each.to_dict("records"),
            metrics={name: METRICS[name].title for name in names},
            figure=figure,
            failed=failed,
            excluded=excluded,
            again=_command(grid, "sweep"),
            further=_command(grid, "reports", found[0].configuration) if found else "",
            machine=runtime.describe_machine(),
            versions=runtime.versions(),
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            code_style="",
        )
    )
    store.atomic_write(grid.folder / PAGE, text)
    return grid.folder / PAGE


def _results(
    grid: Grid, found: Sequence[table.Standing], failed: Sequence[Trial], excluded: Mapping[str, str]
) -> dict[str, object]:
    names = table.metrics(grid.batch.study)
    return {
        "study": grid.batch.study.study,
        "profile": grid.batch.study.profile,
        "trials": len(grid.trials),
        "failed": [[each.backbone, each.policy, each.seed] for each in failed],
        "left out": dict(excluded),
        "chosen by": names[0],
        "configurations": [
            {
                "backbone": each.configuration[0],
                "policy": each.configuration[1],
                "network": each.network,
                **{name: {"seeds": each.values[name], "mean": each.mean(name), "sd": each.sd(name)} for name in names},
                "behind": each.behind and [each.behind.value, each.behind.low, each.behind.high],
            }
            for each in found
        ],
    }


def _command(grid: Grid, goal: str, configuration: tuple[str, str] | None = None) -> str:
    """The command of Make that runs the sweep again, or reports on one of its configurations."""
    study = grid.batch.study
    words = ["make", goal, f"STUDY={study.study}", f"PROFILE={study.profile}"]
    overrides = grid.batch.overrides
    if configuration:
        chosen = f"backbones=[{configuration[0]}] augmentation={configuration[1]}"
        overrides = f"{overrides} {chosen}".strip()
    words += [f"{key}={shlex.quote(value)}" for key, value in (("DATA", study.data), ("SET", overrides)) if value]
    return " ".join(words)
