"""Inference speed by engine, precision, mode, threads and batch on this machine.

Every engine runs in its own process (`worker`). All processes stay alive, and all but one are idle, so that their
windows can be interleaved in random order: a machine that slows down affects all of them.
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
from scanbook.benchmark.worker import PREDICT, TRACED, Worker, is_stable, percentile
from scanbook.config import Study
from scanbook.data.manifest import TRAIN, VALIDATION, Manifest
from scanbook.errors import ModelError
from scanbook.evaluation import METRICS, main_metric, paired_difference
from scanbook.models import engines

KERAS, OPENVINO, ONNX = engines.KerasEngine.name, engines.OpenVinoEngine.name, engines.OnnxEngine.name

WINDOWS = 6
"""Fewest windows, where the study allows as many: a median of fewer has no 95 % interval."""

CONFIGURATION = ["engine", "precision", "mode", "threads"]
"""Columns that name a configuration; `batch` is separate."""
TIMING = ["batch", "calls", "windows", "stable", "p50", "p95", "p99", "images_per_second", "low", "high", "refused"]
"""Columns of the times, in the order of the table."""


@dataclass(frozen=True)
class Models:
    """A trained network, saved once for every engine.

    Attributes:
        paths: Model files by engine and precision.
        images: `.npy` file of the timed images, uint8 `(n, h, w, 3)`.
        agreement: Comparison of each file with Keras, as `prepare` describes it.
        metric: By what they are compared: "accuracy", or "auroc" of findings.
        missing: A sentence for each engine that is not available.
    """

    paths: dict[tuple[str, engines.Precision], Path]
    images: Path
    agreement: pd.DataFrame
    metric: str
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
        """Name in figures, sentences and errors."""
        return label(self.engine, self.precision, self.mode, self.threads)


def label(engine: str, precision: str, mode: str, threads: int) -> str:
    """Return the name of a configuration: "OpenVINO int8, throughput, 2 threads"."""
    return f"{engine} {precision}, {mode}, {threads} thread{'' if threads == 1 else 's'}"


def prepare(study: Study, manifest: Manifest, images: np.ndarray, model: Any) -> Models:
    """Save a network for every engine, also in int8, and compare the outputs of the files with Keras.

    int8 is calibrated on training images; accuracy, or macro AUROC of findings, is that of the validation images.

    Args:
        study: Number of calibration images, batch sizes and seed.
        manifest: The dataset, split.
        images: Its pixels, uint8 `(n, h, w, 3)`.
        model: The trained `keras.Model`, from images to logits.

    Returns:
        The files. Their `agreement` has one row per engine and precision: `metric`, its `change` from Keras in points
        with `low` and `high`, the paired 95 % interval, `difference`, the largest of the logits as a share of their
        spread, and `refused`, the reason why it may not replace the network, or "".

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
    engines.save_openvino(export.quantise(study, manifest, images, converted), paths[OPENVINO, "int8"])
    missing = []
    try:
        engines.to_onnx(model, paths[ONNX, "fp32"])
    except ModelError as error:
        missing.append(f"{ONNX} is not available: {error}.")
        del paths[ONNX, "fp32"]
    largest = max(study.benchmark.batch_sizes)
    np.save(root / "images.npy", np.resize(images[manifest.rows(TRAIN)[:largest]], (largest, *images.shape[1:])))
    validation = images[manifest.rows(VALIDATION)]
    logits = {
        key: (engines.KerasEngine(model) if path.suffix == ".keras" else engines.open_saved(path)).predict(validation)[
            0
        ]
        for key, path in paths.items()
    }
    agreement = compare_engines(study, manifest, logits)
    return Models(paths, root / "images.npy", agreement, main_metric(manifest), tuple(missing), folder)


def compare_engines(
    study: Study, manifest: Manifest, logits: dict[tuple[str, engines.Precision], np.ndarray]
) -> pd.DataFrame:
    """Compare every engine's logits for the validation images, `(n, k)`, with those of the first; see `prepare`."""
    metric = main_metric(manifest)
    y = manifest.label_values(VALIDATION) if manifest.findings else manifest.y[manifest.rows(VALIDATION)]
    reference = next(iter(logits.values()))
    baseline = manifest.predictions(VALIDATION, reference)
    options = {"metric": metric, **study.resamples, "every_class": False}
    rows = {}
    for (engine, precision), values in logits.items():
        refused = engines.rejection_reason(precision, reference, values, y)
        row: dict[str, Any] = {"difference": engines.parity(reference, values), "refused": refused}
        if np.isfinite(values).all():
            predictions = manifest.predictions(VALIDATION, values)
            of_labels = predictions.y_true, predictions.probabilities, None
            change = paired_difference(predictions, baseline, **options)
            row |= {metric: float(METRICS[metric].compute(*of_labels)[0])}
            row |= {"change": 100 * change.value, "low": 100 * change.low, "high": 100 * change.high}
        rows[engine, precision] = row
    columns = [metric, "change", "low", "high", "difference", "refused"]
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
    return table.rename_axis(["engine", "precision"])


def select_configurations(study: Study, models: Models) -> list[Configuration]:
    """Return the configurations of this machine.

    Latency mode has all threads, and one where the study says so; throughput mode has all.

    `model.predict` runs with all threads, as in most notebooks; a traced function on a GPU too, where there is one.
    """
    cores = runtime.cores()
    counts = sorted({1, cores}) if study.benchmark.one_thread else [cores]
    keras = models.paths[KERAS, "fp32"]
    every = [Configuration(PREDICT, "fp32", "latency", cores, keras)]
    every += [Configuration(TRACED, "fp32", "latency", count, keras) for count in counts]
    if runtime.gpus():
        every.append(Configuration(f"{TRACED}, GPU", "fp32", "latency", cores, keras, "gpu"))
    for (engine, precision), path in models.paths.items():
        if engine != KERAS:
            every += [Configuration(engine, precision, "latency", count, path) for count in counts]
            every.append(Configuration(engine, precision, "throughput", cores, path))
    return every


def measure(study: Study, models: Models) -> pd.DataFrame:
    """Time every configuration at every batch size, each in a fresh process.

    The processes start one after the other and warm up: every caller makes a call of every batch size. Then windows of
    all configurations and batch sizes are interleaved in random order. Each begins with a call that does not count. A
    configuration has enough windows when there are `WINDOWS` and the medians of the last three differ by at most
    `study.benchmark.stable`; it gets at most `study.benchmark.windows`. In throughput mode there are as many callers as
    batches that the engine computes at a time, so that each call takes longer and calls overlap.

    Returns:
        One row per configuration and batch size. `engine`, `precision`, `mode`, `threads`, `batch`; the numbers of
        `calls` and `windows`; `stable`, whether the last three agree; `p50`, `p95` and `p99` of the calls in
        milliseconds, NaN where a percentile rests on fewer calls than one beyond it (20 and 100);
        `images_per_second`, the median of the windows, with `low` and `high`, its 95 % interval by order statistics
        (NaN below six windows); `load` (process start to loaded model) and `first` (first prediction) in seconds, with
        their sum `cold_start`; `memory`, the process's peak, and `size`, the model's on disk, in MiB; accuracy, or
        `auroc` of findings, and `change` from Keras in points, with `change_low` and `change_high`, on validation;
        `refused`, the reason why it may not replace the network, or "".
        `model.predict` and the traced function share a process, which has the cold start of the former and the memory
        of both.

    Raises:
        RunError: A process ended; the message has its last line, and all others are stopped.
    """
    planned = select_configurations(study, models)
    with ExitStack() as stack:
        processes: dict[tuple[Any, ...], Worker] = {}
        starts: dict[Configuration, tuple[float, float]] = {}
        for configuration in runtime.progress(planned, "starting engines"):
            key = _process_key(configuration)
            fresh = key not in processes
            if fresh:
                processes[key] = stack.enter_context(_start(study, models, configuration, planned))
            worker = processes[key]
            first = worker.window(configuration.engine, 1, callers=1)["seconds"]
            starts[configuration] = (worker.load, first) if fresh else (np.nan, np.nan)
        workers = {configuration: processes[_process_key(configuration)] for configuration in planned}
        windows = _measure_windows(study, workers)
        memory = {key: worker.memory for key, worker in processes.items()}
    rows = []
    for (configuration, batch), times in windows.items():
        load, first = starts[configuration]
        engine = KERAS if configuration.path.suffix == ".keras" else configuration.engine
        agreement = models.agreement.loc[engine, configuration.precision]
        rows.append(
            {name: getattr(configuration, name) for name in CONFIGURATION}
            | {"batch": batch}
            | summary(times, batch, study.benchmark.stable)
            | {"load": load, "first": first, "cold_start": load + first}
            | {"memory": memory[_process_key(configuration)], "size": engines.size_on_disk(configuration.path) / 2**20}
            | agreement.rename({"low": "change_low", "high": "change_high"}).drop("difference").to_dict()
        )
    return pd.DataFrame(rows)


def summary(windows: Sequence[dict[str, Any]], batch: int, tolerance: float) -> dict[str, Any]:
    """Return the figures of one row from results of `Worker.window`; see `measure`."""
    calls = np.concatenate([window["milliseconds"] for window in windows])
    rates = np.array([batch * len(window["milliseconds"]) / window["seconds"] for window in windows])
    percentiles = {f"p{share}": percentile(calls, share) for share in (50, 95, 99)}
    median = float(np.median(rates))
    interval = quantile_test(rates, q=median, p=0.5).confidence_interval(0.95)
    return {
        "calls": len(calls),
        "windows": len(windows),
        "stable": stable(windows, tolerance),
        **percentiles,
        "images_per_second": median,
        "low": float(interval.low),
        "high": float(interval.high),
    }


def stable(windows: Sequence[dict[str, Any]], tolerance: float) -> bool:
    """Return whether the medians of the last three windows differ by at most `tolerance` of the smallest."""
    return is_stable([float(np.median(window["milliseconds"])) for window in windows], tolerance)


def by_configuration(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of `measure` that do not depend on the batch, one row per configuration."""
    metric = "accuracy" if "accuracy" in table else "auroc"
    columns = ["load", "first", "cold_start", "memory", "size", metric, "change", "change_low", "change_high"]
    return table.groupby(CONFIGURATION, sort=False)[[*columns, "refused"]].first()


def fastest(table: pd.DataFrame) -> pd.Series:
    """Return the row of `measure` with most images per second that is not refused."""
    return table.loc[table.loc[table["refused"] == "", "images_per_second"].idxmax()]


def headline(table: pd.DataFrame) -> str:
    """Return the figure of the index page: the speed of the fastest engine."""
    best = fastest(table)
    return f"{best['images_per_second']:,.0f} images/s with {best['engine']} {best['precision']}"


def result_sentences(table: pd.DataFrame, models: Models) -> list[str]:
    """Return the results of `measure`: the fastest engine, the shortest latency, then refused engines."""
    best = fastest(table)
    baseline = table[table["engine"] == PREDICT].set_index("batch")
    ratio = best["images_per_second"] / baseline["images_per_second"][best["batch"]]
    sentences = [
        f"Fastest: {label(*best[CONFIGURATION])}, at batch {best['batch']}: {best['images_per_second']:,.0f} images/s, "
        f"{ratio:.1f} × `model.predict` at that batch."
    ]
    smallest = table["batch"].min()
    single = table[(table["batch"] == smallest) & (table["mode"] == "latency") & (table["refused"] == "")]
    shortest = single.loc[single["p50"].idxmin()]
    sentences.append(
        f"Shortest latency at batch {smallest}: {label(*shortest[CONFIGURATION])}, {shortest['p50']:.3g} ms (median of "
        f"{shortest['calls']:,} calls), compared with {baseline['p50'][smallest]:.3g} ms of `model.predict`."
    )
    refused = models.agreement.loc[models.agreement["refused"] != "", "refused"]
    sentences += [f"Refused, {engine}, {reason}." for (engine, _), reason in refused.items()]
    sentences += models.missing
    unstable = int((~table["stable"]).sum())
    if unstable:
        sentences.append(f"{unstable} of {len(table)} rows are not stable: their last three windows differ by more.")
    return sentences


def _process_key(configuration: Configuration) -> tuple[Any, ...]:
    """Return what configurations of one process have in common."""
    return configuration.path, configuration.mode, configuration.threads, configuration.device


def _start(study: Study, models: Models, configuration: Configuration, planned: Sequence[Configuration]) -> Worker:
    task = {
        "path": str(configuration.path),
        "mode": configuration.mode,
        "threads": configuration.threads,
        "engines": [other.engine for other in planned if _process_key(other) == _process_key(configuration)],
        "images": str(models.images),
        "seed": study.seed,
    }
    return Worker(configuration.name, task, configuration.device)


def _measure_windows(
    study: Study, workers: dict[Configuration, Worker]
) -> dict[tuple[Configuration, int], list[dict[str, Any]]]:
    """Measure windows of every configuration and batch size, in random order, until each is stable or at its limit."""
    settings = study.benchmark
    # sizes in their order, since an engine may specialise on the first one
    pairs = [(configuration, batch) for configuration in workers for batch in sorted(settings.batch_sizes)]
    for configuration, batch in runtime.progress(pairs, "warming up"):
        workers[configuration].window(configuration.engine, batch)
    windows: dict[tuple[Configuration, int], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    generator = np.random.default_rng(study.seed)
    for round_ in runtime.progress(range(settings.windows), "timing engines"):
        waiting = [
            pair
            for pair in pairs
            if round_ < min(WINDOWS, settings.windows) or not stable(windows[pair], settings.stable)
        ]
        for index in generator.permutation(len(waiting)):
            configuration, batch = waiting[index]
            workers[configuration].window(configuration.engine, batch)
            window = workers[configuration].window(configuration.engine, batch, settings.window_seconds)
            windows[configuration, batch].append(window)
    return windows
