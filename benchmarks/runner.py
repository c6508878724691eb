"""Runs the comparisons one after the other and writes each result at once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import growth, inputs, overhead, parallel, report
from benchmarks.comparisons import Comparison, Row, select_rows
from benchmarks.sides import Measurement, compare, interleave, start_side
from benchmarks.table import QUICK, SMALL, Sizes, make_comparisons
from scanbook import runtime, store
from scanbook.errors import RunError, ScanbookError
from scanbook.registry import BACKBONES
from scanbook.runner import locks

RESULTS, PAGE = "performance.json", "performance.html"
GROWTH, STREAMING = "growth", "streaming"
"""Names of the measurements that are no ratios; the second takes an hour and 20 GB, and runs only on request."""
NOT_REQUESTED = "not requested in this run"


def bench(rows: Sequence[str] = (), *, pairs: int = 0, quick: bool = False, data: Path | None = None) -> Path:
    """Measure scanbook and the baseline, and write `performance.json` and `performance.html`.

    A missed goal is a result. A failed comparison is a line in the table, and the others continue.

    Args:
        rows: Names of the rows to measure; none for all but `STREAMING`. The others are listed as not run.
        pairs: Measurements of each side; 0 for the default number.
        quick: Whether to run tiny sizes, to see that everything runs; the figures mean nothing.
        data: Folder with JPEG files to decode; None for synthetic ones.

    Returns:
        Path of the page.

    Raises:
        RunError: A row is unknown, `pairs` is below 0 or `data` has no JPEG files; or, once the page is written, a
            comparison failed.
    """
    if data and not inputs.jpeg_paths(data):
        raise RunError(f"no JPEG files below {data}; name a folder that holds some, or none for synthetic files")
    if pairs < 0:
        raise RunError(f"--pairs is {pairs}; expected 1 or more, 3 for figures to show")
    sizes = QUICK if quick else Sizes()
    sizes = replace(sizes, pairs=pairs) if pairs else sizes
    folder = runtime.reports_dir() / "bench"
    names = Run(folder, folder, sizes, data).names
    unknown = [name for name in rows if name not in names]
    if unknown:
        raise RunError(f"unknown row {unknown[0]!r}; expected some of {', '.join(names)}")
    with locks.machine(True, lambda: _log("waiting for the machine")), _work() as work:
        run = Run(folder, work, sizes, data)
        run.measure(set(rows))
    failed = [row["name"] for row in run.results["rows"] if row["status"] == "failed"]
    if failed:
        raise RunError(f"{', '.join(failed)} failed; {folder / PAGE} says why")
    return folder / PAGE


@contextmanager
def _work() -> Iterator[Path]:
    """Make an empty folder beside the store, for some GB, and remove it at the end."""
    folder = runtime.store_dir().parent / ".scanbook-bench"
    with locks.hold(runtime.store_dir() / ".bench.lock", on_wait=lambda: _log("waiting for another benchmark")):
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted run left it
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Run:
    """One run of the benchmark.

    Args:
        folder: Folder of the results.
        work: Folder of the inputs.
        sizes: Sizes of each comparison.
        data: Folder with JPEG files; None for synthetic ones.

    Attributes:
        results: Content of `performance.json`.
        environment: Variables for every process.
    """

    def __init__(self, folder: Path, work: Path, sizes: Sizes, data: Path | None) -> None:
        self.folder, self.work, self.sizes, self.data = folder, work, sizes, data
        shipped = store.PACKAGE / "models" / "weights" / BACKBONES[SMALL].shipped
        self.comparisons = make_comparisons(work, shipped, sizes, data)
        self.environment = {"SCANBOOK_STORE": str(work / "store")}
        self._started = time.perf_counter()
        self.results: dict[str, Any] = {
            "date": _now(),
            "quick": sizes == replace(QUICK, pairs=sizes.pairs),
            "seconds": 0.0,
            "machine": runtime.describe_machine(),
            "load before": round(os.getloadavg()[0], 2),
            "versions": runtime.versions(),
            "data": str(data) if data else "synthetic",
            "rows": [
                _blank(row, comparison.pairs, "not run", NOT_REQUESTED)
                for comparison in self.comparisons
                for row in comparison.rows
            ]
            + [_blank(overhead.ROW, 1, "not run", NOT_REQUESTED)],
            GROWTH: {"unable": NOT_REQUESTED},
            STREAMING: {"unable": NOT_REQUESTED},
            parallel.NAME: {"unable": NOT_REQUESTED},
        }

    @property
    def names(self) -> list[str]:
        """Names of all measurements."""
        return [row["name"] for row in self.results["rows"]] + [GROWTH, STREAMING, parallel.NAME]

    def measure(self, names: set[str]) -> None:
        """Measure what is named, or all; write the results after each and the page at the end, even after an error."""
        names = names or set(self.names) - {STREAMING}
        self._save()
        try:
            for comparison in filter(None, (select_rows(comparison, names) for comparison in self.comparisons)):
                self.compare(comparison)
            if GROWTH in names:
                self._grow(GROWTH, lambda: growth.pipeline_of_files(self.work, self.sizes, self.data))
            if STREAMING in names:
                self._grow(STREAMING, lambda: growth.pipeline_of_synthetic_images(self.work, self.sizes))
            if parallel.NAME in names:
                self._data_parallel()
            if overhead.ROW.name in names:
                self._reports()
        finally:
            self._save()
            store.atomic_write(self.folder / PAGE, report.render(self.results))

    def compare(self, comparison: Comparison, start: Callable[..., Any] = start_side) -> None:
        """Measure the sides of a comparison in turn and write its rows."""
        started = time.perf_counter()
        reason, measurements = "", {}
        try:
            for side in comparison.prepare:
                with start(side, self.environment) as writer:
                    writer.measure()
            measurements = interleave(comparison.sides, comparison.pairs, environment=self.environment, start=start)
        except (ScanbookError, OSError) as error:
            reason = str(error)
        seconds = time.perf_counter() - started
        for row in comparison.rows:
            result = _blank(row, comparison.pairs, "failed", reason)
            if measurements:
                result |= _figures(row, comparison, measurements)
            self._write(result, seconds)

    def _reports(self) -> None:
        started, row = time.perf_counter(), overhead.ROW
        result = _blank(row, 1, "measured", "")
        try:
            figures = overhead.run(self.work / "make", {})
            memory = figures.pop("memory")
            sides = zip(("scanbook", "baseline"), (row.scanbook, row.baseline), strict=True)
            result |= figures | {"reached": row.reached(figures["ratio"])}
            result |= {key: {"side": name, "description": _DESCRIPTIONS[key], "memory": memory} for key, name in sides}
        except (ScanbookError, OSError) as error:
            result |= {"status": "failed", "reason": str(error)}
        self._write(result, time.perf_counter() - started)

    def _grow(self, name: str, pipeline: Callable[[], growth.Pipeline]) -> None:
        started = time.perf_counter()
        try:
            result = growth.measure(pipeline(), self.environment, _log)
        except (ScanbookError, OSError) as error:
            result = {"unable": f"failed: {error}"}
        self.results[name] = result | {"date": _now(), "took": round(time.perf_counter() - started, 1)}
        _log(f"{name}: {report.describe_growth(result)}")
        self._save()

    def _data_parallel(self) -> None:
        started = time.perf_counter()
        try:
            result = parallel.measure(self.work, self.sizes, {}, self._write_trainings)
        except (ScanbookError, OSError) as error:
            result = {"unable": f"failed: {error}"}
        if "unable" in result:
            _log(f"{parallel.NAME}: {report.describe_failure(result)}")
        self.results[parallel.NAME] = result | {"date": _now(), "took": round(time.perf_counter() - started, 1)}
        self._save()

    def _write_trainings(self, result: dict[str, Any]) -> None:
        self.results[parallel.NAME] = result
        _log(f"{parallel.NAME}: {parallel.format_line(result['networks'][-1])}")
        self._save()

    def _write(self, result: dict[str, Any], seconds: float) -> None:
        result |= {"date": _now(), "took": round(seconds, 1)}
        self.results["rows"] = [result if row["name"] == result["name"] else row for row in self.results["rows"]]
        _log(report.format_row(result))
        self._save()

    def _save(self) -> None:
        self.results["seconds"] = round(time.perf_counter() - self._started, 1)
        store.write_json(self.folder / RESULTS, self.results)


_DESCRIPTIONS = {
    "scanbook": "starts commands and kernels, runs papermill, renders HTML",
    "baseline": "runs the cells of the notebooks",
}


def _blank(row: Row, pairs: int, status: str, reason: str) -> dict[str, Any]:
    """Return a row without figures."""
    return {
        "name": row.name,
        "what": row.what,
        "against": row.baseline,
        "goal": row.goal,
        "direction": row.direction,
        "order": row.order,
        "unit": row.unit,
        "pairs": pairs,
        "n": row.n,
        "ratio": None,
        "medians": None,
        "status": status,
        "reason": reason,
        "reached": None,
        "note": row.note,
    }


def _figures(row: Row, comparison: Comparison, measurements: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Return the ratios of a row, and for each side its description, values, peak memory and accuracy."""
    sides = {"scanbook": row.scanbook, "baseline": row.baseline}
    values = {key: [measurement["value"] for measurement in measurements[side]] for key, side in sides.items()}
    result = compare(values["scanbook"], values["baseline"], row.order) | {"status": "measured", "reason": ""}
    for key, side in sides.items():
        accuracies = [measurement["accuracy"] for measurement in measurements[side] if "accuracy" in measurement]
        result[key] = {
            "side": comparison.sides[side].name,
            "description": comparison.sides[side].description,
            "values": values[key],
            "memory": max(measurement["memory"] for measurement in measurements[side]),
            **({"accuracy": float(np.median(accuracies))} if accuracies else {}),
        }
        steps = [step for step in measurements[side][0] if step not in ("value", "memory", "accuracy")]
        if steps:
            result[key]["steps"] = {
                step: float(np.median([measurement[step] for measurement in measurements[side]])) for step in steps
            }
    pair = [result[key]["accuracy"] for key in sides if "accuracy" in result[key]]
    result["reached"] = row.reached(result["ratio"], (pair[0], pair[1]) if len(pair) == 2 else None)
    return result


def _log(text: str) -> None:
    print(text, flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
