"""What a second process brings to training: `scanbook train` by one process on a core, and by two on a core each."""

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

from benchmarks.pairs import compare
from benchmarks.rows import Sizes
from scanbook import runtime
from scanbook.errors import RunError
from scanbook.runtime import distribution
from scanbook.runtime.processes import WITHOUT_GPU

NAME = "data-parallel"
STUDY, PROFILE = "synthetic", "quick"
COUNTS = (1, 2)
"""Processes that are held against each other, each on a core of its own."""
COMPARED = 2
"""Epochs, from the first on, in which the curves are held against each other: later ones amplify rounding."""
CURVES = ("loss", "validation_loss")
LIMIT = 600.0
"""Seconds that one training may take, from its start to its end."""
_NOT_OURS = ("SCANBOOK_", "SLURM_", "XLA_FLAGS", "KERAS_BACKEND")
"""Variables of the caller that would change what is run."""


@dataclass(frozen=True)
class Case:
    """A training that is measured.

    Attributes:
        backbone: Of the study.
        what: How it is trained, in words.
        scratch: Whether it starts from random weights.
        rounds: How often each number of processes trains it.
        images: Of the study, in every part, as a multiple of the usual number: epochs of a fast network are too short
            to time otherwise.
    """

    backbone: str
    what: str
    scratch: bool
    rounds: int
    images: int = 1

    def words(self, sizes: Sizes) -> list[str]:
        """Those of the command, after `scanbook`."""
        kind = "scratch" if self.scratch else "fine_tuning"
        plan = f"dataset.images={self.images * sizes.parallel_images} image_size={sizes.parallel_size} limit=null "
        plan += f"augmentation=dermoscopy seeds=1 {kind}.epochs={sizes.parallel_epochs} {kind}.batch_size=32"
        plan += "" if self.scratch else " fine_tuning.head_epochs=0 fine_tuning.top_epochs=0"
        start = ["--from-scratch"] if self.scratch else []
        words = ["train", STUDY, "--profile", PROFILE, "--backbone", self.backbone, *start]
        return [*words, "--set", plan]


def cases(sizes: Sizes) -> list[Case]:
    """What is measured: the two that data parallelism is for, and one that it does not pay for on processors."""
    frozen, learnt = "batch norm frozen, as fine-tuning has it", "batch norm learnt"
    found = [
        Case("mobilenet_v2_0.35", f"fine-tuned from the shipped weights, {frozen}", False, sizes.parallel_rounds),
        Case("baseline_cnn", "from scratch", True, sizes.parallel_rounds, images=5),
        # once is enough to see that it does not pay
        Case("resnet18", f"from scratch, {learnt}: its statistics cross the processes", True, 1),
    ]
    return [each for each in found if each.backbone in sizes.parallel_networks]


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        images: Training images.
        history: A row an epoch, as `scanbook.training.Trained.history`.
    """

    images: int
    history: pd.DataFrame

    @property
    def rate(self) -> float:
        """Training images a second, the median of the epochs after the first, which compiles; validation included."""
        return self.images / float(np.median(np.diff(self.history["seconds"])))


Train = Callable[[Case, int, Path], Trained]


def measure(
    folder: Path,
    sizes: Sizes,
    environment: Mapping[str, str],
    keep: Callable[[dict[str, Any]], None] = lambda found: None,
) -> dict[str, Any]:
    """Trains each case by one process and by two in turn, A B, B A, …, each time in a store of its own.

    What precedes training is made once, and every store starts as a copy of it.

    Args:
        folder: Where the stores go.
        sizes: How many images, epochs and rounds.
        environment: Variables for the processes.
        keep: Called after each case with what is returned, so far.

    Returns:
        `networks`, of each case its `summary`; `cores`, the processors; `command`; and `did`, how, in words. Or
        `unable`, the reason why it cannot be measured here.

    Raises:
        RunError: A training failed.
    """
    if reason := unable():
        return {"unable": reason}
    cores = apart(os.sched_getaffinity(0))
    networks: list[dict[str, Any]] = []
    found = {
        "networks": networks,
        "cores": cores[: max(COUNTS)],
        "command": f"scanbook train {STUDY}",
        "did": _did(sizes),
    }
    for case in cases(sizes):
        prepared = folder / f"{NAME}-{case.backbone}"
        words = case.words(sizes)
        run([[*words, "--distribute", "none", "--prepare"]], cores[:1], environment | {"SCANBOOK_STORE": str(prepared)})

        def train(case: Case, count: int, prepared: Path, words: list[str] = words) -> Trained:
            return _trained(case, words, cores[:count], prepared, environment)

        networks.append(_turns(case, prepared, train))
        shutil.rmtree(prepared)
        keep(found)
    return found


def unable() -> str:
    """Why it cannot be measured on this machine; "" where it can."""
    if not hasattr(os, "sched_setaffinity"):
        return f"{sys.platform} does not let a process be bound to a core, so one core cannot be held against two"
    if not distribution.installed():
        return "several processes train on JAX, which is not installed; pip install 'scanbook[jax]'"
    count = len(apart(os.sched_getaffinity(0)))
    return "" if count >= max(COUNTS) else f"it takes {max(COUNTS)} cores, and this process may use {count}"


def apart(processors: set[int], topology: Path = Path("/sys/devices/system/cpu")) -> list[int]:
    """Processors of different cores: of those that share one, the first; all where the system does not say."""
    found: dict[str, int] = {}
    for each in sorted(processors):
        file = topology / f"cpu{each}" / "topology" / "thread_siblings_list"
        found.setdefault(file.read_text().strip() if file.is_file() else str(each), each)
    return list(found.values())


def _turns(case: Case, prepared: Path, train: Train) -> dict[str, Any]:
    """Trains a case in turn, in an order that turns round from one round to the next."""
    seen: dict[int, list[Trained]] = {count: [] for count in COUNTS}
    for number in range(case.rounds):
        for count in COUNTS if number % 2 == 0 else COUNTS[::-1]:
            seen[count].append(train(case, count, prepared))
    return summary(case, seen)


def summary(case: Case, seen: Mapping[int, Sequence[Trained]]) -> dict[str, Any]:
    """What the trainings of a case say.

    Args:
        case: The case.
        seen: By number of processes, 1 and 2, a training a round.

    Returns:
        `backbone`, `what`, `rounds`, training `images` and `epochs`; `ratio` of images a second, two processes over
        one, the median of the rounds, its `low` and `high`, and `medians` of both; `rates` by number of processes;
        `curves`, by number of processes the losses of the first round, a list an epoch; and `difference`, the largest
        relative one between them in the first two epochs.
    """
    one, two = (seen[count] for count in COUNTS)
    rates = [[each.rate for each in side] for side in (one, two)]
    compared = compare(rates[1], rates[0], "ours / other")
    medians = {"1": compared["medians"]["other"], "2": compared["medians"]["ours"]}
    curves = {str(count): {key: seen[count][0].history[key].tolist() for key in CURVES} for count in COUNTS}
    return {
        "backbone": case.backbone,
        "what": case.what,
        "rounds": case.rounds,
        "images": one[0].images,
        "epochs": len(one[0].history),
        **compared,
        "medians": medians,
        "rates": {"1": rates[0], "2": rates[1]},
        "curves": curves,
        "difference": difference(curves["1"], curves["2"]),
    }


def difference(one: Mapping[str, Sequence[float]], two: Mapping[str, Sequence[float]]) -> float:
    """The largest |two − one| ÷ |one| of the losses in the first two epochs."""
    pairs = [(np.array(one[key][:COMPARED]), np.array(two[key][:COMPARED])) for key in CURVES]
    return max(float(np.max(np.abs(b - a) / np.abs(a))) for a, b in pairs)


def line(found: dict[str, Any]) -> str:
    """What was found for a case, for the terminal."""
    one, two = found["medians"]["1"], found["medians"]["2"]
    return (
        f"{found['backbone']}, {found['what']}: {one:.3g} images/s by one process, {two:.3g} by two, "
        f"{found['ratio']:.2f}× ({found['low']:.2f} to {found['high']:.2f}), losses {found['difference']:.1e} apart"
    )


def _did(sizes: Sizes) -> str:
    return (
        f"{sizes.parallel_size} px, batches of 32 in all, {sizes.parallel_epochs} epochs, "
        "each process bound to a core of its own"
    )


# --- the trainings


def _trained(
    case: Case, words: Sequence[str], cores: Sequence[int], prepared: Path, environment: Mapping[str, str]
) -> Trained:
    """Trains a case by as many processes as there are cores, in a copy of a prepared store."""
    store = prepared.with_name(f"{prepared.name}-run")
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(prepared, store)
    commands = [[*words, "--distribute", "data-parallel"] for _ in cores]
    if len(cores) > 1:
        addresses = ",".join(f"127.0.0.1:{port}" for port in free_ports(len(cores)))
        for number, command in enumerate(commands):
            command += ["--addresses", addresses, "--process", str(number)]
    said = run(commands, cores, environment | {"SCANBOOK_STORE": str(store)})[0]
    kind = "scratch" if case.scratch else "fine_tuning"
    files = list((store / kind).glob("*/history.csv"))
    counted = re.search(r" epochs of ([\d,]+) images", said)
    if len(files) != 1 or not counted:
        raise RunError(f"scanbook train {STUDY} left {len(files)} histories and said {said[-200:]!r}; expected one")
    found = Trained(int(counted[1].replace(",", "")), pd.read_csv(files[0]))
    shutil.rmtree(store)
    return found


def run(commands: Sequence[Sequence[str]], cores: Sequence[int], environment: Mapping[str, str]) -> list[str]:
    """Runs commands of scanbook side by side, each bound to a core, and waits for all.

    Args:
        commands: Words after `scanbook`.
        cores: A processor for each.
        environment: Variables on top of this process's.

    Returns:
        What each wrote to its output.

    Raises:
        RunError: One failed, with the last line that it wrote, or they took too long; the others are ended then.
    """
    own = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_OURS)}
    own |= {**WITHOUT_GPU, "SCANBOOK_HEADLESS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    started: list[tuple[subprocess.Popen[str], Any]] = []
    try:
        for words, core in zip(commands, cores, strict=True):
            output = tempfile.TemporaryFile("w+")  # noqa: SIM115  a pipe that nobody reads would stop its writer
            with pinned(core):
                process = subprocess.Popen(
                    [sys.executable, "-m", "scanbook.cli", *words],
                    cwd=runtime.project_root(),
                    env=own,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # so that what it starts can be ended with it
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
        said = [_read(output) for _, output in started]
        for (process, _), text in zip(started, said, strict=True):
            if process.returncode:
                last = (text.strip().splitlines() or ["no message"])[-1]
                raise RunError(f"scanbook train {STUDY} failed: {last}")
        return said
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
def pinned(core: int) -> Iterator[None]:
    """What is started in the block may use that processor alone: a process has the affinity of what started it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
