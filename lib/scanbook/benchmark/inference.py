"""Inference by engine, precision, mode, threads and batch, on the machine at hand.

Every engine runs in a process of its own (`worker`). All of them stay alive, idle but for one, so that their windows
can be interleaved in random order: a machine that slows down slows all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import quantile_test

from scanbook import export, runtime
from scanbook.benchmark.windows import percentile, settled
from scanbook.benchmark.worker import PREDICT, TRACED, Worker
from scanbook.config import Study
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.errors import ModelError
from scanbook.evaluation import paired_difference
from scanbook.models import engines

KERAS, OPENVINO, ONNX = engines.KerasEngine.name, engines.OpenVinoEngine.name, engines.OnnxEngine.name

WINDOWS = 6
"""Fewest windows, where the study allows as many: the median of fewer has no 95 % interval."""

CONFIGURATION = ["engine", "precision", "mode", "threads"]
"""Columns that name what was measured; `batch` comes on top."""
TIMING = ["batch", "calls", "windows", "stable", "p50", "p95", "p99", "images_per_second", "low", "high", "refused"]
"""Columns of what was timed, in the order in which a table shows them."""


@dataclass(frozen=True)
class Models:
    """A trained network, saved once for every engine.

    Attributes:
        paths: Model files by engine and precision.
        images: `.npy` file of the images that are timed, uint8 `(n, h, w, 3)`.
        agreement: What each file answers, as `prepare` describes it.
        missing: A sentence for each engine that is left out.
    """

    paths: dict[tuple[str, engines.Precision], Path]
    images: Path
    agreement: pd.DataFrame
    missing: tuple[str, ...]
    _folder: tempfile.TemporaryDirectory[str]  # removed with this object


@dataclass(frozen=True)
class Configuration:
    """One way to run the network."""

    engine: str
    precision: engines.Precision
    mode: engines.Mode
    threads: int
    path: Path
    device: str = "cpu"

    @property
    def name(self) -> str:
        """In words, for figures, sentences and errors."""
        return label(self.engine, self.precision, self.mode, self.threads)


def label(engine: str, precision: str, mode: str, threads: int) -> str:
    """A configuration in words: "OpenVINO int8, throughput, 2 threads"."""
    return f"{engine} {precision}, {mode}, {threads} thread{'' if threads == 1 else 's'}"


def prepare(study: Study, manifest: Manifest, images: np.ndarray, model: Any) -> Models:
    """Saves a network for every engine, in int8 too, and holds the files' answers against Keras's.

    int8 is calibrated on training images; accuracy is of the validation images, none of which it has seen.

    Args:
        study: Number of calibration images, batch sizes and seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: The trained `keras.Model`, from images to logits.

    Returns:
        The files. Their `agreement` has a row an engine and precision: `accuracy`, its `change` against Keras in
        points with `low` and `high`, the paired 95 % interval, `difference`, the largest of the logits as a share of
        their spread, and `refused`, the reason why it may not stand in for the network, or "".

    Raises:
        ModelError: The network cannot be converted.
    """
    folder = tempfile.TemporaryDirectory(prefix="scanbook-inference-")
    root = Path(folder.name)
    paths: dict[tuple[str, engines.Precision], Path] = {
        (KERAS, "fp32"): root / "model.keras",
        (OPENVINO, "fp32"): root / "fp32.xml",
        (OPENVINO, "int8"): root / "int8.xml",
        (ONNX, "fp32"): root / "model.onnx",
    }
    model.save(paths[KERAS, "fp32"])
    converted = engines.to_openvino(model)
    engines.save_openvino(converted, paths[OPENVINO, "fp32"])
    engines.save_openvino(export.quantised(study, manifest, images, converted, model.name), paths[OPENVINO, "int8"])
    missing = []
    try:
        engines.to_onnx(model, paths[ONNX, "fp32"])
    except ModelError as error:
        missing.append(f"{ONNX} is left out: {error}.")
        del paths[ONNX, "fp32"]
    most = max(study.benchmark.batch_sizes)
    np.save(root / "images.npy", np.resize(images[manifest.rows(TRAIN)[:most]], (most, *images.shape[1:])))
    shown = images[manifest.rows(VALIDATION)]
    logits = {
        key: (engines.KerasEngine(model) if path.suffix == ".keras" else engines.open_saved(path)).predict(shown)[0]
        for key, path in paths.items()
    }
    return Models(paths, root / "images.npy", agreement(study, manifest, logits), tuple(missing), folder)


def agreement(
    study: Study, manifest: Manifest, logits: dict[tuple[str, engines.Precision], np.ndarray]
) -> pd.DataFrame:
    """Holds every engine's logits for the validation images, `(n, k)`, against those of the first; see `prepare`."""
    y = manifest.y[manifest.rows(VALIDATION)]
    reference = next(iter(logits.values()))
    usual = manifest.predictions(VALIDATION, reference)
    rows = {}
    for (engine, precision), values in logits.items():
        refused = engines.refusal(precision, reference, values, y)
        row = {"accuracy": float((values.argmax(1) == y).mean()), "difference": engines.parity(reference, values)}
        if np.isfinite(values).all():
            found = manifest.predictions(VALIDATION, values)
            change = paired_difference(found, usual, "accuracy", study.bootstrap_rounds, study.seed)
            row |= {"change": 100 * change.value, "low": 100 * change.low, "high": 100 * change.high}
        rows[engine, precision] = row | {"refused": refused}
    columns = ["accuracy", "change", "low", "high", "difference", "refused"]
    table = pd.DataFrame(list(rows.values()), columns=columns)
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["engine", "precision"])
    return table


def configurations(study: Study, models: Models) -> list[Configuration]:
    """What this machine allows: latency mode with all threads, and with one where asked for; throughput mode with all.

    `model.predict` runs with all threads, as in most notebooks; a traced function on a GPU too, where there is one.
    """
    every = runtime.cores()
    counts = sorted({1, every}) if study.benchmark.one_thread else [every]
    keras = models.paths[KERAS, "fp32"]
    found = [Configuration(PREDICT, "fp32", "latency", every, keras)]
    found += [Configuration(TRACED, "fp32", "latency", count, keras) for count in counts]
    if runtime.gpus():
        found.append(Configuration(f"{TRACED}, GPU", "fp32", "latency", every, keras, "gpu"))
    for (engine, precision), path in models.paths.items():
        if engine != KERAS:
            found += [Configuration(engine, precision, "latency", count, path) for count in counts]
            found.append(Configuration(engine, precision, "throughput", every, path))
    return found


def measure(study: Study, models: Models) -> pd.DataFrame:
    """Times every configuration at every batch size, each in a fresh process.

    The processes start one after the other, alone, and are warmed up: a call of every batch size from every caller.
    Then windows of all configurations and batch sizes are interleaved in random order. Each begins with a call that
    does not count. A configuration has enough windows when the medians of its last three differ by at most
    `study.benchmark.stable`, and there are `WINDOWS`; at most it gets `study.benchmark.windows`. In throughput mode as
    many callers as the engine works on at a time call at once, so that a call takes longer and more of them are made.

    Returns:
        One row a configuration and batch size. `engine`, `precision`, `mode`, `threads`, `batch`; `calls` and
        `windows`, how many; `stable`, whether the last three agree; `p50`, `p95` and `p99` of the calls in
        milliseconds, NaN where a percentile rests on fewer calls than one beyond it (20 and 100);
        `images_per_second`, the median of the windows, with `low` and `high`, its 95 % interval by order statistics
        (NaN below six windows); `load` (process start to loaded model) and `first` (first prediction) in seconds, with
        their sum `cold_start`; `memory`, the process's peak, and `size`, the model's on disk, in MiB; `accuracy` and
        `change` against Keras in points, with `change_low` and `change_high`, on validation; `refused`, the reason why
        it may not stand in for the network, or "".
        `model.predict` and the traced function share a process, which is the former's cold start and both their memory.

    Raises:
        RunError: A process ended, with its last line; all others are stopped.
    """
    planned = configurations(study, models)
    with ExitStack() as stack:
        processes: dict[tuple[Any, ...], Worker] = {}
        starts: dict[Configuration, tuple[float, float]] = {}
        for each in runtime.progress(planned, "starting engines"):
            key = _process(each)
            fresh = key not in processes
            if fresh:
                processes[key] = stack.enter_context(_start(study, models, each, planned))
            worker = processes[key]
            first = worker.window(each.engine, 1, callers=1)["seconds"]
            starts[each] = (worker.load, first) if fresh else (np.nan, np.nan)
        windows = _windows(study, {each: processes[_process(each)] for each in planned})
        memory = {key: worker.memory for key, worker in processes.items()}
    rows = []
    for (each, batch), found in windows.items():
        load, first = starts[each]
        answers = models.agreement.loc[KERAS if each.path.suffix == ".keras" else each.engine, each.precision]
        rows.append(
            {"engine": each.engine, "precision": each.precision, "mode": each.mode, "threads": each.threads}
            | {"batch": batch}
            | summary(found, batch, study.benchmark.stable)
            | {"load": load, "first": first, "cold_start": load + first, "memory": memory[_process(each)]}
            | {"size": engines.size_on_disk(each.path) / 2**20, "accuracy": answers["accuracy"]}
            | {"change": answers["change"], "change_low": answers["low"], "change_high": answers["high"]}
            | {"refused": answers["refused"]}
        )
    return pd.DataFrame(rows)


def summary(windows: Sequence[dict[str, Any]], batch: int, tolerance: float) -> dict[str, Any]:
    """One row's figures, from the answers of `Worker.window`; see `measure`."""
    calls = np.concatenate([each["milliseconds"] for each in windows])
    rates = np.array([batch * len(each["milliseconds"]) / each["seconds"] for each in windows])
    percentiles = {f"p{share}": percentile(calls, share) for share in (50, 95, 99)}
    middle = float(np.median(rates))
    interval = quantile_test(rates, q=middle, p=0.5).confidence_interval(0.95)
    return {
        "calls": len(calls),
        "windows": len(windows),
        "stable": stable(windows, tolerance),
        **percentiles,
        "images_per_second": middle,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def stable(windows: Sequence[dict[str, Any]], tolerance: float) -> bool:
    """Whether the medians of the last three windows differ by at most `tolerance`, as a share of the smallest."""
    return settled([float(np.median(each["milliseconds"])) for each in windows], tolerance)


def by_configuration(table: pd.DataFrame) -> pd.DataFrame:
    """What `measure` found that does not depend on the batch, a row a configuration."""
    columns = ["load", "first", "cold_start", "memory", "size", "accuracy", "change", "change_low", "change_high"]
    return table.groupby(CONFIGURATION, sort=False)[[*columns, "refused"]].first()


def fastest(table: pd.DataFrame) -> pd.Series:
    """The row of `measure` with most images a second, of those that are not refused."""
    return table.loc[table.loc[table["refused"] == "", "images_per_second"].idxmax()]


def headline(table: pd.DataFrame) -> str:
    """The one figure of the index: what the fastest does."""
    best = fastest(table)
    return f"{best['images_per_second']:,.0f} images/s with {best['engine']} {best['precision']}"


def finding(table: pd.DataFrame, models: Models) -> str:
    """What `measure` found, in sentences: the fastest, the quickest answer, and what is not to be trusted."""
    best = fastest(table)
    usual = table[table["engine"] == PREDICT].set_index("batch")
    ratio = best["images_per_second"] / usual["images_per_second"][best["batch"]]
    said = [
        f"Fastest: {label(*best[CONFIGURATION])}, at batch {best['batch']}: {best['images_per_second']:,.0f} images/s, "
        f"{ratio:.1f} × `model.predict` at that batch."
    ]
    smallest = table["batch"].min()
    single = table[(table["batch"] == smallest) & (table["mode"] == "latency") & (table["refused"] == "")]
    quick = single.loc[single["p50"].idxmin()]
    said.append(
        f"Quickest answer at batch {smallest}: {label(*quick[CONFIGURATION])}, {quick['p50']:.3g} ms (median of "
        f"{quick['calls']:,} calls), against {usual['p50'][smallest]:.3g} ms by `model.predict`."
    )
    refused = models.agreement.loc[models.agreement["refused"] != "", "refused"]
    said += [f"Refused, {engine}, {reason}." for (engine, _), reason in refused.items()]
    said += models.missing
    restless = int((~table["stable"]).sum())
    if restless:
        said.append(f"{restless} of {len(table)} rows never settled: their last three windows differ by more.")
    return " ".join(said)


def _process(each: Configuration) -> tuple[Any, ...]:
    """What tells one process from another."""
    return each.path, each.mode, each.threads, each.device


def _start(study: Study, models: Models, each: Configuration, planned: Sequence[Configuration]) -> Worker:
    task = {
        "path": str(each.path),
        "mode": each.mode,
        "threads": each.threads,
        "engines": [other.engine for other in planned if _process(other) == _process(each)],
        "images": str(models.images),
        "seed": study.seed,
    }
    return Worker(each.name, task, each.device)


def _windows(
    study: Study, workers: dict[Configuration, Worker]
) -> dict[tuple[Configuration, int], list[dict[str, Any]]]:
    """Windows of every configuration and batch size, in random order, until each is stable or has had enough."""
    wanted = study.benchmark
    # sizes in their order: an engine that specialises on the first one it sees always sees the same one
    pairs = [(each, batch) for each in workers for batch in sorted(wanted.batch_sizes)]
    for each, batch in runtime.progress(pairs, "warming up"):
        workers[each].window(each.engine, batch)
    found: dict[tuple[Configuration, int], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    draw = np.random.default_rng(study.seed)
    for round_ in runtime.progress(range(wanted.windows), "timing engines"):
        waiting = [
            pair for pair in pairs if round_ < min(WINDOWS, wanted.windows) or not stable(found[pair], wanted.stable)
        ]
        for index in draw.permutation(len(waiting)):
            each, batch = waiting[index]
            workers[each].window(each.engine, batch)
            found[each, batch].append(workers[each].window(each.engine, batch, wanted.window_seconds))
    return found
