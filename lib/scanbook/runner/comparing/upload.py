"""Logs one run to MLflow: `python -m scanbook.runner.comparing.upload PLACE`, which `runner.tracking` starts."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scanbook.reporting import records
from scanbook.runner.comparing import reading
from scanbook.runner.comparing.reading import Compared

# limits of MLflow's servers (mlflow.utils.validation)
MOST_PARAMETERS, MOST_METRICS = 100, 1000
LONGEST_KEY, LONGEST_VALUE = 250, 6000
FILES = (records.REPORT, "results.json", records.METRICS, records.PREDICTIONS, records.HISTORY)
"""Files of a report that are logged, beside those of its tables."""


def log(place: Path) -> None:
    """Log a run: experiment: its study; run: study/profile/notebook, or the name of a record.

    Args:
        place: Folder of a whole report, or the JSON file of a record.
    """
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    run, client, now = reading.read(place), MlflowClient(), int(time.time() * 1000)
    begun = now - int(1000 * run.facts.get("seconds", 0))
    experiment = _experiment(client, str(run.study.get("study", "scanbook")))
    created = client.create_run(experiment, start_time=begun, run_name=name_of(run)).info.run_id
    try:
        tags = [RunTag(key, value) for key, value in tags_of(run).items() if value]
        client.log_batch(created, tags=tags)
        for part in _parts(unique(run.settings.items()), MOST_PARAMETERS):
            client.log_batch(created, params=[Param(key, shortened(value)) for key, value in part])
        figures = [(key, value, 0) for key, value in unique(measured(run))] + list(epochs(run))
        for part in _parts(figures, MOST_METRICS):
            client.log_batch(created, metrics=[Metric(key, value, now, step) for key, value, step in part])
        for file, folder in files_of(run):
            client.log_artifact(created, str(file), folder)
        if run.place.suffix == ".json" and run.predictions is not None:
            with TemporaryDirectory() as folder:  # the file beside a record has the names of the images
                run.predictions.save(Path(folder) / records.PREDICTIONS)
                client.log_artifact(created, str(Path(folder) / records.PREDICTIONS))
    except Exception:
        with suppress(Exception):  # the reason is the first one
            client.set_terminated(created, "FAILED")
        raise
    client.set_terminated(created, "FINISHED", end_time=now)


def name_of(run: Compared) -> str:
    """Return the name of a run in MLflow: study/profile/notebook, or study/profile/trial."""
    study = f"{run.study.get('study', 'scanbook')}/{run.study.get('profile', '')}"
    return f"{study}/{run.name if run.place.suffix == '.json' else run.place.name}"


def tags_of(run: Compared) -> dict[str, str]:
    """Return what a run is of: profile, notebook, model, images, commit, data, processor and devices."""
    return {
        "profile": str(run.study.get("profile", "")),
        "notebook": str(run.facts.get("notebook", "")),
        "model": run.model,
        "images": run.split,
        "commit": str(run.facts.get("commit", "")),
        "data fingerprint": str(run.facts.get("fingerprints", {}).get("data", "")),
        "processor": str(run.facts.get("hardware", {}).get("processor", "")),
        "trained on": run.trained_on,
    }


def measured(run: Compared) -> Iterator[tuple[str, float]]:
    """Yield every number of a run's results, its seconds and its peak memory, by key."""
    yield from run.numbers.items()
    for key, name in (("seconds", "seconds"), ("peak memory (GiB)", "peak memory in GiB")):
        if key in run.facts and name not in run.numbers:
            yield name, float(run.facts[key])


def epochs(run: Compared) -> Iterator[tuple[str, float, int]]:
    """Yield key, value and epoch of every point of the learning curves."""
    for name, history in run.histories.items():
        for column in records.HISTORY_COLUMNS[1:]:
            key = possible(f"training.{name}.{column}" if name else f"training.{column}")
            points = history[["epoch", column]].dropna().to_numpy(float)
            yield from ((key, float(value), int(epoch)) for epoch, value in points)


def files_of(run: Compared) -> Iterator[tuple[Path, str | None]]:
    """Yield the files of a run, and the folder of each among its artifacts."""
    if run.place.suffix == ".json":
        files = [(run.place, None)]
    else:
        files = [(run.place / name, None) for name in FILES]
        files += [(table, "tables") for table in sorted((run.place / "tables").glob("*.csv"))]
    yield from ((file, folder) for file, folder in files if file.is_file())


def unique(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return pairs with keys that MLflow takes, each once: of two that become equal the second ends with a number."""
    taken: dict[str, Any] = {}
    for key, value in pairs:
        free = name = possible(key)
        number = 1
        while free in taken:
            number += 1
            free = f"{name[: LONGEST_KEY - 6]} {number}"
        taken[free] = value
    return list(taken.items())


def possible(key: str) -> str:
    """Return a key as MLflow takes it: letters, digits, and "_", "-", "." and spaces; a name may hold anything."""
    return re.sub(r"[^\w. -]", "_", key)[:LONGEST_KEY].strip(". ") or "_"


def shortened(value: str) -> str:
    """Return a value as MLflow takes it; `metrics.json` among the files has all of it."""
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"


def _experiment(client: Any, name: str) -> str:
    """Return the id of the experiment of a study; two notebooks that end at once may both create it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        with suppress(Exception):
            return client.create_experiment(name)
        found = client.get_experiment_by_name(name)
    if found is None:
        raise RuntimeError(f"the experiment {name!r} could not be created")
    if found.lifecycle_stage == "deleted":
        raise RuntimeError(f"the experiment {name!r} was deleted; restore it, or remove it for good (mlflow gc)")
    return found.experiment_id


def _parts(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    """Yield items in parts, as many as one request may have."""
    yield from (items[start : start + most] for start in range(0, len(items), most))


def _main() -> int:
    try:
        log(Path(sys.argv[1]))
    except Exception as error:  # MLflow and its libraries raise many kinds
        lines = (str(error) or type(error).__name__).strip().splitlines()
        print(lines[0], file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
