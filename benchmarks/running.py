"""Runs the comparisons one after the other and keeps each as soon as it is there."""

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

from benchmarks import growth, material, overhead, parallel, report
from benchmarks.contests import Contest, Row, limited
from benchmarks.pairs import Measurement, compare, interleave, running
from benchmarks.rows import QUICK, SMALL, Sizes, table
from scanbook import runtime, store
from scanbook.errors import RunError, ScanbookError
from scanbook.registry import BACKBONES
from scanbook.runner import locks

RESULTS, PAGE = "performance.json", "performance.html"
GROWTH, STREAMING = "growth", "streaming"
"""Names of the measurements that are no ratios; the second takes an hour and 20 GB, and is made only if asked for."""
NOT_ASKED = "not asked for in this run"


def bench(rows: Sequence[str] = (), *, pairs: int = 0, quick: bool = False, data: Path | None = None) -> Path:
    """Measures scanbook against the usual practice, and writes `performance.json` and `performance.html`.

    A goal that is missed is a result. A comparison that fails is a line in the table, and the others go on.

    Args:
        rows: Names of the rows to measure; none for all but `STREAMING`. The others are listed as not run.
        pairs: Measurements of each side; 0 for the usual number.
        quick: Whether to run tiny sizes, whose figures mean nothing, to see that everything runs.
        data: Folder with JPEG files to decode; None draws them.

    Returns:
        Path of the page.

    Raises:
        RunError: A row is unknown, `pairs` is below 0 or `data` has no JPEG files; or, once the page is written, a
            comparison failed.
    """
    if data and not material.files(data):
        raise RunError(f"no JPEG files below {data}; name a folder that holds some, or none to draw them")
    if pairs < 0:
        raise RunError(f"--pairs is {pairs}; expected 1 or more, 3 for figures to show")
    sizes = QUICK if quick else Sizes()
    sizes = replace(sizes, pairs=pairs) if pairs else sizes
    folder = runtime.reports_dir() / "bench"
    known = Run(folder, folder, sizes, data).names
    unknown = [name for name in rows if name not in known]
    if unknown:
        raise RunError(f"unknown row {unknown[0]!r}; expected some of {', '.join(known)}")
    with locks.machine(True, lambda: _say("waiting for the machine")), _work() as work:
        run = Run(folder, work, sizes, data)
        run.all(set(rows))
    failed = [row["name"] for row in run.found["rows"] if row["status"] == "failed"]
    if failed:
        raise RunError(f"{', '.join(failed)} failed; {folder / PAGE} says why")
    return folder / PAGE


@contextmanager
def _work() -> Iterator[Path]:
    """An empty folder beside the store, which may take some GB and goes at the end."""
    folder = runtime.store_dir().parent / ".scanbook-bench"
    with locks.hold(runtime.store_dir() / ".bench.lock", on_wait=lambda: _say("waiting for another benchmark")):
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Run:
    """One run of the benchmark.

    Args:
        folder: Where the results go.
        work: A folder for what is measured on.
        sizes: How much each comparison does.
        data: Folder with JPEG files; None draws them.

    Attributes:
        found: What `performance.json` holds.
        environment: Variables for every process.
    """

    def __init__(self, folder: Path, work: Path, sizes: Sizes, data: Path | None) -> None:
        self.folder, self.work, self.sizes, self.data = folder, work, sizes, data
        shipped = store.PACKAGE / "weights" / BACKBONES[SMALL].shipped
        self.contests = table(work, shipped, sizes, data)
        self.environment = {"SCANBOOK_STORE": str(work / "store")}
        self._started = time.perf_counter()
        self.found: dict[str, Any] = {
            "date": _now(),
            "quick": sizes == replace(QUICK, pairs=sizes.pairs),
            "seconds": 0.0,
            "machine": runtime.describe_machine(),
            "load before": round(os.getloadavg()[0], 2),
            "versions": runtime.versions(),
            "data": str(data) if data else "drawn by scanbook",
            "rows": [
                _blank(row, contest.pairs, "not run", NOT_ASKED) for contest in self.contests for row in contest.rows
            ]
            + [_blank(overhead.ROW, 1, "not run", NOT_ASKED)],
            GROWTH: {"unable": NOT_ASKED},
            STREAMING: {"unable": NOT_ASKED},
            parallel.NAME: {"unable": NOT_ASKED},
        }

    @property
    def names(self) -> list[str]:
        """Everything that can be asked for."""
        return [row["name"] for row in self.found["rows"]] + [GROWTH, STREAMING, parallel.NAME]

    def all(self, names: set[str]) -> None:
        """Measures what is named, or all, and writes after each; the page is written at the end, whatever happens."""
        names = names or set(self.names) - {STREAMING}
        self._save()
        try:
            for contest in filter(None, (limited(each, names) for each in self.contests)):
                self.contest(contest)
            if GROWTH in names:
                self._grow(GROWTH, lambda: growth.of_files(self.work, self.sizes, self.data))
            if STREAMING in names:
                self._grow(STREAMING, lambda: growth.of_drawn(self.work, self.sizes))
            if parallel.NAME in names:
                self._train_together()
            if overhead.ROW.name in names:
                self._reports()
        finally:
            self._save()
            store.atomic_write(self.folder / PAGE, report.render(self.found))

    def contest(self, contest: Contest, start: Callable[..., Any] = running) -> None:
        """Measures the sides of a contest in turn and keeps its rows."""
        clock = time.perf_counter()
        reason, found = "", {}
        try:
            for side in contest.prepare:
                with start(side, self.environment) as maker:
                    maker.measure()
            found = interleave(contest.sides, contest.pairs, environment=self.environment, start=start)
        except (ScanbookError, OSError) as error:
            reason = str(error)
        taken = time.perf_counter() - clock
        for row in contest.rows:
            result = _blank(row, contest.pairs, "failed", reason)
            if found:
                result |= _of_pair(row, contest, found)
            self._keep(result, taken)

    def _reports(self) -> None:
        clock, row = time.perf_counter(), overhead.ROW
        result = _blank(row, 1, "measured", "")
        try:
            values = overhead.run(self.work / "make", {})
            memory = values.pop("memory")
            sides = zip(("ours", "other"), (row.ours, row.other), strict=True)
            result |= values | {"reached": row.reached(values["ratio"])}
            result |= {key: {"side": name, "did": _DID[key], "memory": memory} for key, name in sides}
        except (ScanbookError, OSError) as error:
            result |= {"status": "failed", "reason": str(error)}
        self._keep(result, time.perf_counter() - clock)

    def _grow(self, name: str, pipeline: Callable[[], growth.Pipeline]) -> None:
        clock = time.perf_counter()
        try:
            found = growth.measure(pipeline(), self.environment, _say)
        except (ScanbookError, OSError) as error:
            found = {"unable": f"failed: {error}"}
        self.found[name] = found | {"date": _now(), "took": round(time.perf_counter() - clock, 1)}
        _say(f"{name}: {report.growth_sentence(found)}")
        self._save()

    def _train_together(self) -> None:
        clock = time.perf_counter()
        try:
            found = parallel.measure(self.work, self.sizes, {}, self._keep_trainings)
        except (ScanbookError, OSError) as error:
            found = {"unable": f"failed: {error}"}
        if "unable" in found:
            _say(f"{parallel.NAME}: {report.why_not(found)}")
        self.found[parallel.NAME] = found | {"date": _now(), "took": round(time.perf_counter() - clock, 1)}
        self._save()

    def _keep_trainings(self, found: dict[str, Any]) -> None:
        self.found[parallel.NAME] = found
        _say(f"{parallel.NAME}: {parallel.line(found['networks'][-1])}")
        self._save()

    def _keep(self, result: dict[str, Any], taken: float) -> None:
        result |= {"date": _now(), "took": round(taken, 1)}
        self.found["rows"] = [result if each["name"] == result["name"] else each for each in self.found["rows"]]
        _say(report.line(result))
        self._save()

    def _save(self) -> None:
        self.found["seconds"] = round(time.perf_counter() - self._started, 1)
        store.write_json(self.folder / RESULTS, self.found)


_DID = {
    "ours": "starts commands and kernels, runs papermill, renders HTML",
    "other": "runs the cells of the notebooks",
}


def _blank(row: Row, pairs: int, status: str, reason: str) -> dict[str, Any]:
    """A row before its figures."""
    return {
        "name": row.name,
        "what": row.what,
        "against": row.other,
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


def _of_pair(row: Row, contest: Contest, found: dict[str, list[Measurement]]) -> dict[str, Any]:
    """Figures of a row: its ratios, and for each side what it did, its values, peak memory and accuracy."""
    both = {"ours": row.ours, "other": row.other}
    values = {key: [each["value"] for each in found[side]] for key, side in both.items()}
    result = compare(values["ours"], values["other"], row.order) | {"status": "measured", "reason": ""}
    for key, side in both.items():
        seen = [each["accuracy"] for each in found[side] if "accuracy" in each]
        result[key] = {
            "side": contest.sides[side].name,
            "did": contest.sides[side].did,
            "values": values[key],
            "memory": max(each["memory"] for each in found[side]),
            **({"accuracy": float(np.median(seen))} if seen else {}),
        }
        steps = [step for step in found[side][0] if step not in ("value", "memory", "accuracy")]
        if steps:
            result[key]["steps"] = {step: float(np.median([each[step] for each in found[side]])) for step in steps}
    known = [result[key]["accuracy"] for key in both if "accuracy" in result[key]]
    result["reached"] = row.reached(result["ratio"], (known[0], known[1]) if len(known) == 2 else None)
    return result


def _say(text: str) -> None:
    print(text, flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
