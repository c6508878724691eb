"""The page of a comparison, with its tables as files."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd

from scanbook import runtime, store
from scanbook.errors import RunError
from scanbook.evaluation import METRICS, Difference, Predictions, with_interval
from scanbook.reporting import plots
from scanbook.reporting.plots import writing
from scanbook.reporting.records import UNDEFINED
from scanbook.reporting.report import environment
from scanbook.reporting.tables import words
from scanbook.runner import index, locks
from scanbook.runner.comparing import table
from scanbook.runner.comparing.reading import Compared, read_runs
from scanbook.runner.comparing.table import Comparison

TEMPLATES = Path(__file__).parent / "templates"
PAGE, RESULTS = "index.html", "results.json"
FEW = 4
"""Most runs whose metrics are shown side by side; more are rows of one table, sorted by the main metric."""
OVERLAID = 6
"""Most curves of an overlay that can be told apart."""
_LONGEST = 60
"""Most characters of the name of a folder."""


def compare(words: Sequence[str], name: str = "") -> Path:
    """Compare runs on one page, in `compare/<name>` of the reports folder.

    Args:
        words: The runs, as `reading.read_runs` takes them; differences are from the first one.
        name: Name of the folder; "" for one that is made of the runs' names.

    Returns:
        Path of the page.

    Raises:
        RunError: As `reading.read_runs`, or the name is not one of a folder.
    """
    if name and (name != _folder_name(name) or not name.strip(".")):
        raise RunError(
            f"--name is {name!r}, expected letters, digits, '-', '_' and '.', such as {_folder_name(name)!r}"
        )
    runs = read_runs(words)
    folder = runtime.reports_dir() / index.COMPARE / (name or _name_of(runs))
    with locks.hold(folder / ".lock"):
        path = write(folder, runs, words)
    index.write()
    return path


def write(folder: Path, runs: Sequence[Compared], words: Sequence[str] = ()) -> Path:
    """Write `figures.csv`, `settings.csv`, `results.json`, the figures and the page of a comparison.

    Args:
        folder: Where they are written.
        runs: Two or more.
        words: Words of the command that names them.
    """
    comparisons = table.compare_with_first(runs)
    metric, settings = table.main_metric(runs), table.settings(runs)
    figures = table.long_form(runs, comparisons)
    store.atomic_write(folder / "figures.csv", figures.to_csv(index=False))
    store.atomic_write(folder / "settings.csv", settings.to_csv())
    key_results = table.key_results(runs, comparisons, metric)
    content = {
        "title": _title(runs),
        "runs": [_summarise(run) for run in runs],
        "main metric": metric,
        "key results": key_results,
        "settings": {str(key): dict(row) for key, row in settings.iterrows()},
        "differences": {comparison.run.name: _differences(comparison) for comparison in comparisons},
    }
    store.write_json(folder / RESULTS, content)
    drawn = {}
    for key, figure in _draw(runs, comparisons, metric).items():
        drawn[key] = writing.write(figure)
        store.atomic_write(folder / f"{key}.{drawn[key].suffix}", drawn[key].file)
    metrics = [name for name in METRICS if any(name in run.figures.index for run in runs)]
    text = (
        environment(TEMPLATES)
        .get_template("compare.html.j2")
        .render(
            title=_title(runs),
            runs=runs,
            few=len(runs) <= FEW,
            ordered=table.best_first(runs, metric),
            comparisons={comparison.run.name: comparison for comparison in comparisons},
            pairing=_pairing(comparisons),
            key_results=key_results,
            settings=settings,
            metric=metric,
            metrics=metrics,
            names={name: METRICS[name].title for name in metrics},
            figure=_figure_text,
            difference=_difference_text,
            images=drawn,
            overlaid=OVERLAID,
            many_curves=_note_overlay(runs, metric),
            others=_other_numbers(runs) if not metrics else {},
            versions=_versions_that_differ(runs),
            links={run.name: Path(os.path.relpath(run.page, folder)).as_posix() for run in runs if run.page},
            command=" ".join(["scanbook", "compare", *map(shlex.quote, words)]),
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            code_style="",
        )
    )
    store.atomic_write(folder / PAGE, text)
    return folder / PAGE


def _title(runs: Sequence[Compared]) -> str:
    names = [run.name for run in runs]
    return " and ".join(names) if len(names) == 2 else f"{names[0]} and {len(names) - 1} others"


def _folder_name(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-") or "runs"


def _name_of(runs: Sequence[Compared]) -> str:
    """Return the name of the folder of a comparison, the same whenever the same runs are compared."""
    names = [_folder_name(run.name) for run in runs]
    name = "-vs-".join(names) if len(names) == 2 else f"{names[0]}-and-{len(names) - 1}-others"
    return f"{name[:_LONGEST]}-{store.fingerprint([str(run.place.resolve()) for run in runs])[:6]}"


def _summarise(run: Compared) -> dict[str, Any]:
    ends = ["value", "low", "high"]
    return {
        "name": run.name,
        "model": run.model,
        "images of": run.split,
        "figures": {
            name: _plain(row) for name, row in zip(run.figures.index, run.figures[ends].to_numpy(), strict=True)
        },
    }


def _differences(comparison: Comparison) -> dict[str, Any]:
    gaps = comparison.differences | {f"AUROC of {name}": gap for name, gap in comparison.by_class.items()}
    return {
        "paired": comparison.paired,
        "why": comparison.why,
        **{name: _plain([gap.value, gap.low, gap.high]) for name, gap in gaps.items()},
    }


def _plain(values: Sequence[float]) -> list[float | None]:
    return [round(float(value), 6) if math.isfinite(value) else None for value in values]


def _figure_text(run: Compared, metric: str) -> str:
    if metric not in run.figures.index:
        return "–"
    text = with_interval(*run.figures.loc[metric, ["value", "low", "high"]])
    return UNDEFINED if text == "–" else text


def _difference_text(gap: Difference | None) -> str:
    if gap is None:
        return "–"
    text = with_interval(gap.value, gap.low, gap.high, signed=True)
    return UNDEFINED if text == "–" else f"{text} {'●' if gap.clear else '○'}"


def _pairing(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return the runs by the sentence that says of what images their differences are."""
    groups: dict[str, list[str]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.why, []).append(comparison.run.name)
    return groups


def _chosen(runs: Sequence[Compared], metric: str) -> list[Compared]:
    """Return the runs of an overlay, in their order: all of few, else the first one and the best others."""
    if len(runs) <= OVERLAID:
        return list(runs)
    best = [run for run in table.best_first(runs, metric) if run is not runs[0]]
    chosen = {runs[0].name, *(run.name for run in best[: OVERLAID - 1])}
    return [run for run in runs if run.name in chosen]


def _note_overlay(runs: Sequence[Compared], metric: str) -> str:
    if len(runs) <= OVERLAID:
        return ""
    order = f"the {OVERLAID - 1} best others" if metric else f"the next {OVERLAID - 1}"
    return f"Of {len(runs)} runs the curves show {runs[0].name} and {order}."


def _draw(runs: Sequence[Compared], comparisons: Sequence[Comparison], metric: str) -> dict[str, Any]:
    """Return the figures by the name of their file."""
    drawn: dict[str, Any] = {}
    if metric:
        title = METRICS[metric].title
        rows = {run.name: run.figures.loc[metric] for run in table.best_first(runs, metric)}
        shown = pd.DataFrame.from_dict(dict(islice(rows.items(), plots.style.MOST_ROWS)), orient="index")
        more = f", the best {len(shown)} of {len(rows)} runs" if len(shown) < len(rows) else ""
        drawn["figures"] = plots.metric_bars(shown.rename_axis("run"), f"{title[:1].upper()}{title[1:]}{more}", title)
        compared = {comparison.run.name: comparison.differences[metric] for comparison in comparisons}
        gaps = {name: compared[name] for name in rows if name in compared}
        if len(comparisons) == 1:
            defined = comparisons[0].differences.items()
            gaps = {name: gap for name, gap in defined if not math.isnan(gap.value)}
        gaps = dict(islice(gaps.items(), plots.style.MOST_ROWS))
        minus = comparisons[0].run.name if len(comparisons) == 1 else "each run"
        drawn["differences"] = plots.difference_plot(gaps, f"{minus} minus {runs[0].name}", better="the run")
    chosen = _chosen(runs, metric)
    histories = _histories(chosen)
    if histories:
        drawn["learning_curves"] = plots.learning_curves(histories)
    predicted = [run for run in chosen if run.predictions is not None]
    ranked = {run.name: run.predictions for run in predicted if "auroc" in run.figures.index}
    if ranked:
        ends = ["value", "low", "high"]
        areas = {run.name: run.figures.loc["auroc", ends].to_numpy(float) for run in predicted if run.name in ranked}
        drawn["roc"] = plots.roc_of_runs(ranked, areas)
    classes = {run.name: run.predictions for run in predicted if isinstance(run.predictions, Predictions)}
    if classes:
        drawn["reliability"] = plots.reliability_of_runs(classes)
    return drawn


def _histories(runs: Sequence[Compared]) -> Mapping[str, pd.DataFrame]:
    """Return the trainings of the runs, by name; only the first of each run where all would be too many."""
    trained = [run for run in runs if run.histories]
    every = sum(len(run.histories) for run in trained) <= OVERLAID
    return {
        f"{run.name}, {name}" if name else run.name: history
        for run in trained
        for name, history in (run.histories.items() if every else islice(run.histories.items(), 1))
    }


def _versions_that_differ(runs: Sequence[Compared]) -> dict[str, list[str]]:
    """Return packages of which the runs had different versions, with that of each run."""
    packages = dict.fromkeys(name for run in runs for name in run.facts.get("versions", {}))
    rows = {name: [str(run.facts.get("versions", {}).get(name, "–")) for run in runs] for name in packages}
    return {name: row for name, row in rows.items() if len(set(row)) > 1}


def _other_numbers(runs: Sequence[Compared], most: int = 60) -> dict[str, list[str]]:
    """Return numbers that all runs recorded, of notebooks that evaluate no model, by their key in words."""
    shared = [key for key in runs[0].numbers if all(key in run.numbers for run in runs)]
    return {
        " · ".join(map(words, key.split("."))): [f"{run.numbers[key]:,.6g}" for run in runs] for key in shared[:most]
    }
