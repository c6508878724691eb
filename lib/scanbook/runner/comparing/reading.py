"""Finds and reads what is compared: whole reports, and records of single networks.

A record is a JSON file beside a CSV file of predictions with the same name, as `scanbook train --record` writes both.
Each of its keys may be missing: `study` (resolved), `split` ("validation" or "test"), `network`, `history` (a list per
column), `seconds`, `hardware`, `versions`, `commit` and `finished`; `backbone`, `policy`, `seed` and `fold` name it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from scanbook import evaluation, runtime
from scanbook.errors import DataError, RunError
from scanbook.evaluation import METRICS, AnyPredictions, load_predictions, pseudonymous
from scanbook.reporting import records
from scanbook.reporting.records import HISTORY, HISTORY_COLUMNS, NOTEBOOK, PREDICTIONS, TRAINED_ON, Report, read_json

DEFAULT = "05_fine_tuning"
"""The notebook whose report stands for a study and profile."""
TRIALS = "trials"
"""Folder of a sweep's records."""
TEXTS = ("title", "question", "published", "class_names")
"""Keys of a study that change no figure."""
_EXPECTED = "study/profile, study/profile/notebook, the folder of a report, or the JSON file of a sweep's trial"


@dataclass(frozen=True, eq=False)
class Compared:
    """A run that is compared.

    Attributes:
        place: Folder of its report, or file of its record.
        name: Its name on the page, which no other run has.
        study: The study as it was resolved; of an old record, the keys that it has.
        model: Name of its model; "" where it has none.
        split: The images that its figures are of: "test" or "validation".
        figures: Index: names in `METRICS`; columns value, low, high; NaN where a metric is not defined.
        numbers: Every number of its results, by dotted key.
        predictions: Its predictions, pseudonymous; None where it did not keep them.
        histories: One row per epoch of each of its trainings, by name.
        facts: Its record, or `metrics.json`.
    """

    place: Path
    name: str
    study: dict[str, Any]
    model: str
    split: str
    figures: pd.DataFrame
    numbers: dict[str, float]
    predictions: AnyPredictions | None
    histories: dict[str, pd.DataFrame]
    facts: dict[str, Any]

    @property
    def whole_study(self) -> bool:
        """Whether its settings are known, and not only some of them."""
        return "dataset" in self.study

    @property
    def settings(self) -> dict[str, str]:
        """Settings by dotted key, as text, and what stands for the content of the dataset."""
        data = self.facts.get("fingerprints", {}).get("data")
        settings = {key: value for key, value in flat(self.study) if key.split(".")[0] not in TEXTS}
        return settings | ({"data fingerprint": data[:12]} if data else {})

    @property
    def source(self) -> Any:
        """What the images are of, beside their names: images of two synthetic datasets may have the same names."""
        if other := self.facts.get("results", {}).get("external_study"):
            return "external", other
        dataset = {key: value for key, value in self.study.get("dataset", {}).items() if key != "embeddings"}
        if self.study.get("on_stand_in"):
            return "synthetic", self.study.get("stand_in")
        return ("synthetic", dataset) if dataset.get("adapter") == "synthetic" else ("real", dataset.get("flag"))

    @property
    def trained_on(self) -> str:
        """Devices that trained its networks; "" where they are not known."""
        return self.facts.get("hardware", {}).get(TRAINED_ON, "")

    @property
    def page(self) -> Path | None:
        """Its own page, if it has one."""
        page = self.place / records.REPORT
        return page if page.is_file() else None


def read_runs(words: Sequence[str]) -> list[Compared]:
    """Return the runs that a command names, in its order.

    Args:
        words: Each a report's folder, `study/profile` of the reports folder (its notebook 05), with or without a
            notebook, a record, or a sweep, which stands for all of its trials.

    Raises:
        RunError: A run is unknown, failed or not whole, is named twice, or there is only one.
    """
    places = [(place, word) for word in words for place in find(word)]
    if len(places) < 2:
        count = f"{words[0]} is one run" if words else "no run to compare"
        raise RunError(f"{count}; name two or more, each as {_EXPECTED}")
    seen: dict[Path, str] = {}
    for place, word in places:
        if (same := place.resolve()) in seen:
            first = seen[same]
            which = f"{word} is named twice" if first == word else f"{first} and {word} are the same run"
            raise RunError(f"{which}; name each run once")
        seen[same] = word
    runs = [read(place) for place, _ in places]
    return [replace(run, name=name) for run, name in zip(runs, _distinct(runs), strict=True)]


def find(word: str) -> list[Path]:
    """Return the folder of the report, or the records, that a word of the command names.

    Raises:
        RunError: There is no such run.
    """
    for place in (Path(word).expanduser(), runtime.reports_dir() / word):
        if place.suffix in (".json", ".csv") and place.with_suffix(".json").is_file():
            return [place.with_suffix(".json")]
        if any((place / name).exists() for name in (records.METRICS, records.FAILURE, NOTEBOOK, records.REPORT)):
            return [place]
        for trials in (place / TRIALS, place):
            if trials.name == TRIALS and (found := sorted(trials.glob("*.json"))):
                return found
        if (place / DEFAULT).is_dir():
            return [place / DEFAULT]
    known = [f"{run.place}/{report.name}" for run in records.runs(runtime.reports_dir()) for report in run.done]
    held = f"{runtime.reports_dir()} holds {_first(known)}" if known else f"{runtime.reports_dir()} holds no report"
    raise RunError(f"unknown run {word!r}; expected {_EXPECTED}; {held}")


def read(place: Path) -> Compared:
    """Return a run.

    Args:
        place: As `find` returns it.

    Raises:
        RunError: It failed, or is not whole.
    """
    return _read_record(place) if place.suffix == ".json" else _read_report(place)


def _read_report(folder: Path) -> Compared:
    report = Report.of(folder.resolve().parent, folder.resolve().name)
    if report.status == "failed":
        raise RunError(f"{folder} is the report of a failure ({report.problem}); run it again, or name another run")
    facts = report.facts
    if not report.status or not isinstance(facts.get("study"), dict):
        raise RunError(f"{folder} is not a whole report: its run was stopped, or is going on; run it: make reports")
    study, results = facts["study"], facts.get("results", {})
    name = f"{study.get('study')}/{study.get('profile')}"
    name += "" if report.name == DEFAULT else f"/{report.name}"
    predictions = _load(folder / PREDICTIONS)
    best, summaries = str(results.get("best", "")), _block(results.get("summaries"))
    summary = _block(results.get("summary") or summaries.get(best) or next(iter(summaries.values()), {}))
    return Compared(
        place=folder,
        name=name,
        study=study,
        model=str(results.get("model") or best or next(iter(summaries), "")),
        split="test",
        figures=_figures(summary) if summary or predictions is None else _summarise(predictions, study),
        numbers=dict(numbers(results)),
        predictions=predictions,
        histories=_histories(folder / HISTORY),
        facts=facts,
    )


def _read_record(file: Path) -> Compared:
    facts = read_json(file)
    predictions = _load(file.with_suffix(".csv"))
    if not facts or predictions is None:
        missing = file if not facts else file.with_suffix(".csv")
        raise RunError(f"{missing} is missing or damaged: a record is a JSON file beside a CSV file of predictions")
    study = facts.get("study")
    if not isinstance(study, dict):  # of an earlier version
        keys = {"backbones": "backbone", "augmentation": "policy", "seed": "seed"}
        study = {key: facts[name] for key, name in keys.items() if name in facts}
        study |= {"backbones": [study["backbones"]]} if "backbones" in study else {}
    figures = _summarise(predictions, study)
    parts = {"augmentation ": facts.get("policy"), "seed ": facts.get("seed"), "": facts.get("fold")}
    named = [f"{key}{value}" for key, value in parts.items() if value is not None]
    history = facts.get("history") or {}
    own = {key: float(value) for key, value in facts.items() if _is_number(value)}
    flattened = [(f"{metric}.{end}", row[end]) for metric, row in figures.iterrows() for end in row.index]
    return Compared(
        place=file,
        name=", ".join([str(facts.get("network") or file.stem), *named]),
        study=study,
        model=str(facts.get("network", "")),
        split=str(facts.get("split", "validation")),
        figures=figures,
        numbers=own | {key: float(value) for key, value in flattened if _is_number(value)},
        predictions=predictions,
        histories={"": pd.DataFrame(history)} if set(HISTORY_COLUMNS) <= set(history) else {},
        facts=facts,
    )


def _summarise(predictions: AnyPredictions, study: Mapping[str, Any]) -> pd.DataFrame:
    ordered = study.get("evaluation", {}).get("ordered") or study.get("head", {}).get("output") == "ordinal"
    return evaluation.summary(predictions, evaluation.metrics_for(predictions, bool(ordered)), **resamples(study))


def resamples(study: Mapping[str, Any]) -> dict[str, int]:
    """Return number and seed of the resamples of an interval, as a study sets them."""
    return {"rounds": study.get("bootstrap_rounds", 1000), "seed": study.get("seed", 0)}


def _figures(summary: Mapping[str, Any]) -> pd.DataFrame:
    columns = ["value", "low", "high"]
    rows = {}
    for name, row in summary.items():  # a notebook of the user's own may record a value alone, or something else
        ends = row if isinstance(row, dict) else {"value": row}
        if name in METRICS:
            rows[name] = [ends.get(end) if _is_number(ends.get(end)) else math.nan for end in columns]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)


def _block(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _load(file: Path) -> AnyPredictions | None:
    """Return the predictions of a file, pseudonymous; None where there are none, or they are damaged."""
    try:
        return pseudonymous(load_predictions(file)) if file.is_file() else None
    except DataError:
        return None


def _histories(file: Path) -> dict[str, pd.DataFrame]:
    """Return the trainings of a file, by name; none where it is missing or damaged."""
    try:
        table = pd.read_csv(file, dtype={"training": str}, keep_default_na=False, na_values=[""])
    except (OSError, ValueError):
        return {}
    if not {"training", *HISTORY_COLUMNS} <= set(table.columns):
        return {}
    return {str(name): rows.reset_index(drop=True) for name, rows in table.groupby("training", sort=False)}


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested blocks as text, by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def numbers(results: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number of the results of a notebook by dotted key; a list of three is a value and its interval."""
    if isinstance(results, dict):
        for key, value in results.items():
            yield from numbers(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(results, list) and len(results) == 3 and all(map(_is_number, results)):
        for end, value in zip(("value", "low", "high"), results, strict=True):
            yield f"{prefix}.{end}", float(value)
    elif _is_number(results):
        yield prefix, float(results)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _distinct(runs: Sequence[Compared]) -> list[str]:
    """Return the names of runs, without what all records have in common, and with what tells equal ones apart."""
    parts = [run.name.split(", ") if run.place.suffix == ".json" else [run.name] for run in runs]
    common = set.intersection(*map(set, parts)) if len({run.place.suffix for run in runs}) == 1 else set()
    names = [", ".join(part for part in each if part not in common) for each in parts]
    if not all(names):
        names = [run.name for run in runs]
    for name in {name for name in names if names.count(name) > 1}:
        rows = [row for row, other in enumerate(names) if other == name]
        places = [runs[row].place.resolve().with_suffix("").parts[::-1] for row in rows]
        depth = next(depth for depth in range(99) if len({place[depth : depth + 1] for place in places}) > 1)
        parents = [place[depth] if depth < len(place) else "" for place in places]
        for number, row in enumerate(rows):
            alone = parents.count(parents[number]) == 1
            names[row] = f"{name} ({parents[number] if alone else f'{parents[number]}, {number + 1}'})"
    return names


def _first(names: Sequence[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
