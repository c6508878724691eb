"""Speed-up of `scanbook train` by a second process: one process on one core, and two on one core each."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.sides import compare
from benchmarks.table import Sizes
from scanbook import runtime
from scanbook.errors import RunError
from scanbook.runtime import distribution
from scanbook.runtime.processes import WITHOUT_GPU

NAME = "data-parallel"
STUDY, PROFILE = "synthetic", "quick"
COUNTS = (1, 2)
"""Numbers of processes that are compared, each process on its own core."""
COMPARED = 2
"""Number of first epochs whose losses are compared: later ones amplify rounding."""
CURVES = ("loss", "validation_loss")
LIMIT = 600.0
"""Most seconds of one training."""
_REMOVED = ("SCANBOOK_", "SLURM_", "XLA_FLAGS", "KERAS_BACKEND")
"""Variables of the caller that would change the run."""


@dataclass(frozen=True)
class Case:
    """A training that is measured.

    Attributes:
        backbone: Name of the network.
        what: How it is trained, in a phrase.
        scratch: Whether it starts from random weights.
        rounds: Number of trainings by each number of processes.
        images: Images of the study, as a multiple of the default number: otherwise epochs of a fast network are too
            short to time.
    """

    backbone: str
    what: str
    scratch: bool
    rounds: int
    images: int = 1

    def arguments(self, sizes: Sizes) -> list[str]:
        """Return the arguments of the command, after `scanbook`."""
        kind = "scratch" if self.scratch else "fine_tuning"
        plan = f"dataset.images={self.images * sizes.parallel_images} image_size={sizes.parallel_size} limit=null "
        plan += f"augmentation=dermoscopy seeds=1 {kind}.epochs={sizes.parallel_epochs} {kind}.batch_size=32"
        plan += "" if self.scratch else " fine_tuning.head_epochs=0 fine_tuning.top_epochs=0"
        start = ["--from-scratch"] if self.scratch else []
        arguments = ["train", STUDY, "--profile", PROFILE, "--backbone", self.backbone, *start]
        return [*arguments, "--set", plan]


def cases(sizes: Sizes) -> list[Case]:
    """Return the cases: two that suit data parallelism, and one that it slows down on processors."""
    frozen, learnt = "batch norm frozen, as fine-tuning has it", "batch norm learnt"
    every = [
        Case("mobilenet_v2_0.35", f"fine-tuned from the shipped weights, {frozen}", False, sizes.parallel_rounds),
        Case("baseline_cnn", "from scratch", True, sizes.parallel_rounds, images=5),
        # once is enough to see that it is slower
        Case("resnet18", f"from scratch, {learnt}: its statistics cross the processes", True, 1),
    ]
    return [case for case in every if case.backbone in sizes.parallel_networks]


@dataclass(frozen=True)
class Trained:
    """Result of a training.

    Attributes:
        images: Number of training images.
        history: One row per epoch, as `scanbook.training.TrainedModel.history`.
    """

    images: int
    history: pd.DataFrame

    @property
    def rate(self) -> float:
        """Training images per second, validation included: the median of the epochs after the first, which compiles."""
        return self.images / float(np.median(np.diff(self.history["seconds"])))


Train = Callable[[Case, int, Path], Trained]


def measure(
    folder: Path,
    sizes: Sizes,
    environment: Mapping[str, str],
    keep: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Train each case by one process and by two in turn, A B, B A, …, each time in its own store.

    The stages before training run once; every store starts as a copy of them.

    Args:
        folder: Folder of the stores.
        sizes: Numbers of images, epochs and rounds.
        environment: Variables for the processes.
        keep: Called after each case with the results so far.

    Returns:
        `networks`, the `summary` of each case; `cores`, the processors; `command`; and `description`. Or
        `unable`, the reason why it cannot be measured here.

    Raises:
        RunError: A training failed.
    """
    if reason := unable():
        return {"unable": reason}
    cores = separate_cores(os.sched_getaffinity(0))
    networks: list[dict[str, Any]] = []
    results = {
        "networks": networks,
        "cores": cores[: max(COUNTS)],
        "command": f"scanbook train {STUDY}",
        "description": _description(sizes),
    }
    for case in cases(sizes):
        prepared = folder / f"{NAME}-{case.backbone}"
        arguments = case.arguments(sizes)
        run(
            [[*arguments, "--distribute", "none", "--prepare"]],
            cores[:1],
            environment | {"SCANBOOK_STORE": str(prepared)},
        )

        def train(case: Case, count: int, prepared: Path, arguments: list[str] = arguments) -> Trained:
            return _train(case, arguments, cores[:count], prepared, environment)

        networks.append(_train_in_turn(case, prepared, train))
        shutil.rmtree(prepared)
        keep(results)
    return results


def unable() -> str:
    """Return the reason why this machine cannot measure it; "" where it can."""
    if not hasattr(os, "sched_setaffinity"):
        return f"{sys.platform} does not let a process be bound to a core, so one core cannot be compared with two"
    if not distribution.installed():
        return "several processes train on JAX, which is not installed; pip install 'scanbook[jax]'"
    count = len(separate_cores(os.sched_getaffinity(0)))
    return "" if count >= max(COUNTS) else f"it takes {max(COUNTS)} cores, and this process may use {count}"


def separate_cores(processors: set[int], topology: Path = Path("/sys/devices/system/cpu")) -> list[int]:
    """Return processors of different cores: the first of those that share one; all where the topology is unknown."""
    cores: dict[str, int] = {}
    for processor in sorted(processors):
        file = topology / f"cpu{processor}" / "topology" / "thread_siblings_list"
        cores.setdefault(file.read_text().strip() if file.is_file() else str(processor), processor)
    return list(cores.values())


def _train_in_turn(case: Case, prepared: Path, train: Train) -> dict[str, Any]:
    """Train a case by each number of processes in turn, in an order that reverses from one round to the next."""
    trainings: dict[int, list[Trained]] = {count: [] for count in COUNTS}
    for number in range(case.rounds):
        for count in COUNTS if number % 2 == 0 else COUNTS[::-1]:
            trainings[count].append(train(case, count, prepared))
    return summary(case, trainings)


def summary(case: Case, trainings: Mapping[int, Sequence[Trained]]) -> dict[str, Any]:
    """Return speeds, ratios and losses of the trainings of a case.

    Args:
        case: The case.
        trainings: By number of processes, 1 and 2: one training per round.

    Returns:
        `backbone`, `what`, `rounds`, training `images` and `epochs`; `ratio` of images per second, two processes over
        one, the median of the rounds, its `low` and `high`, and `medians` of both; `rates` by number of processes;
        `curves`, by number of processes the losses of the first round, one value per epoch; and `difference`, the
        largest relative difference between them in the first two epochs.
    """
    one, two = (trainings[count] for count in COUNTS)
    rates = [[training.rate for training in side] for side in (one, two)]
    ratios = compare(rates[1], rates[0], "scanbook / baseline")
    medians = {"1": ratios["medians"]["baseline"], "2": ratios["medians"]["scanbook"]}
    curves = {str(count): {key: trainings[count][0].history[key].tolist() for key in CURVES} for count in COUNTS}
    return {
        "backbone": case.backbone,
        "what": case.what,
        "rounds": case.rounds,
        "images": one[0].images,
        "epochs": len(one[0].history),
        **ratios,
        "medians": medians,
        "rates": {"1": rates[0], "2": rates[1]},
        "curves": curves,
        "difference": difference(curves["1"], curves["2"]),
    }


def difference(one: Mapping[str, Sequence[float]], two: Mapping[str, Sequence[float]]) -> float:
    """Return the largest |two − one| ÷ |one| of the losses in the first two epochs."""
    pairs = [(np.array(one[key][:COMPARED]), np.array(two[key][:COMPARED])) for key in CURVES]
    return max(float(np.max(np.abs(b - a) / np.abs(a))) for a, b in pairs)


def format_line(network: dict[str, Any]) -> str:
    """Return the summary of a case as a line for the terminal."""
    one, two = network["medians"]["1"], network["medians"]["2"]
    return (
        f"{network['backbone']}, {network['what']}: {one:.3g} images/s by one process, {two:.3g} by two, "
        f"{network['ratio']:.2f}× ({network['low']:.2f} to {network['high']:.2f}), "
        f"losses differ by {network['difference']:.1e}"
    )


def _description(sizes: Sizes) -> str:
    return (
        f"{sizes.parallel_size} px, batches of 32 in all, {sizes.parallel_epochs} epochs, "
        "each process bound to its own core"
    )


# --- the trainings


def _train(
    case: Case, arguments: Sequence[str], cores: Sequence[int], prepared: Path, environment: Mapping[str, str]
) -> Trained:
    """Train a case by one process per core, in a copy of a prepared store."""
    store = prepared.with_name(f"{prepared.name}-run")
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(prepared, store)
    commands = [[*arguments, "--distribute", "data-parallel"] for _ in cores]
    if len(cores) > 1:
        addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(len(cores)))
        for number, command in enumerate(commands):
            command += ["--addresses", addresses, "--process", str(number)]
    output = run(commands, cores, environment | {"SCANBOOK_STORE": str(store)})[0]
    kind = "scratch" if case.scratch else "fine_tuning"
    files = list((store / kind).glob("*/history.csv"))
    images = re.search(r" epochs of ([\d,]+) images", output)
    if len(files) != 1 or not images:
        raise RunError(
            f"scanbook train {STUDY} left {len(files)} histories and printed {output[-200:]!r}; expected one"
        )
    training = Trained(int(images[1].replace(",", "")), pd.read_csv(files[0]))
    shutil.rmtree(store)
    return training


def run(commands: Sequence[Sequence[str]], cores: Sequence[int], environment: Mapping[str, str]) -> list[str]:
    """Run commands of scanbook side by side, each bound to a core, and wait for all.

    Args:
        commands: Arguments after `scanbook`.
        cores: A processor for each.
        environment: Variables on top of this process's.

    Returns:
        The output of each.

    Raises:
        RunError: One failed, with the last line that it wrote, or they took too long; the others are ended then.
    """
    variables = {key: value for key, value in os.environ.items() if not key.startswith(_REMOVED)}
    variables |= {**WITHOUT_GPU, "SCANBOOK_HEADLESS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    started: list[tuple[subprocess.Popen[str], Any]] = []
    try:
        for arguments, core in zip(commands, cores, strict=True):
            output = tempfile.TemporaryFile("w+")  # noqa: SIM115  a full pipe would stop its writer
            with bind_to_core(core):
                process = subprocess.Popen(
                    [sys.executable, "-m", "scanbook.cli", *arguments],
                    cwd=runtime.project_root(),
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # its own processes end with it
                    text=True,
                )
            started.append((process, output))
        until = time.monotonic() + LIMIT
        while any(process.poll() is None for process, _ in started):
            if any(process.poll() for process, _ in started):
                break  # the others would wait for it
            if time.monotonic() > until:
                raise RunError(f"scanbook train {STUDY} did not end within {LIMIT:g} s")
            time.sleep(0.05)
        outputs = [_read(output) for _, output in started]
        for (process, _), text in zip(started, outputs, strict=True):
            if process.returncode:
                last = (text.strip().splitlines() or ["no message"])[-1]
                raise RunError(f"scanbook train {STUDY} failed: {last}")
        return outputs
    finally:
        for process, output in started:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            output.close()


def _read(output: Any) -> str:
    output.seek(0)
    return output.read()


@contextmanager
def bind_to_core(core: int) -> Iterator[None]:
    """Bind processes that start in the block to one processor: a process inherits the affinity of its parent."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_ports(count: int) -> list[int]:
    """Return free ports of this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
