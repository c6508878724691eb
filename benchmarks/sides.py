"""Sides, each in its own process, measured in turn: A B, B A, A B, …, so that a slow minute affects both alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from scanbook import runtime
from scanbook.runtime.processes import MALLOC, WITHOUT_GPU, Child

LIMIT = 1200.0
"""Seconds that a side may take to start, or for one measurement."""
Order = Literal["scanbook / baseline", "baseline / scanbook"]
Measurement = dict[str, float]
"""Figures of one measurement: `value`, in the unit of the rows; `memory`, in GiB; where a side has them, `accuracy` and
the seconds of each step by name."""


@dataclass(frozen=True)
class Side:
    """One way of doing the work, run in a fresh process that serves all its measurements.

    Attributes:
        name: Its name in tables.
        function: `module:function`, a context manager that prepares all that is not measured and yields the function
            that measures.
        description: What it does, in a phrase.
        options: Its arguments, plain JSON.
        warms_itself: Whether it has warmed up, with less work, when it is ready; the first measurement of the others
            does not count.
        limit: Seconds that it may take to start, or for one measurement.
    """

    name: str
    function: str
    description: str
    options: dict[str, Any] = field(default_factory=dict)
    warms_itself: bool = False
    limit: float = LIMIT


class Worker(Protocol):
    """A running side."""

    def measure(self) -> Measurement:
        """Do the work once."""
        ...


class Process(Child):
    """A side in its own process.

    Raises:
        RunError: It failed, with its reason, or did not answer in time.
    """

    def __init__(self, side: Side, environment: Mapping[str, str]) -> None:
        module, variables = ["-m", "benchmarks.worker"], {**environment_of(side), **environment}
        super().__init__(side.name, module, variables, limit=side.limit, patience=60)
        self.ask({"function": side.function, "options": side.options})

    def measure(self) -> Measurement:
        """Do the work once and return its figures.

        Raises:
            RunError: The side failed, with its reason, or did not answer in time.
        """
        return self.ask("measure")


def environment_of(side: Side) -> dict[str, str | None]:
    """Return the environment of a side: all processors of this machine, no GPU, no progress bars.

    The baseline has no settings of glibc's malloc, as in usual practice.
    """
    cores = str(runtime.cores())
    malloc = dict.fromkeys(MALLOC) if side.function.startswith("benchmarks.baseline:") else {}
    return {
        **malloc,
        **WITHOUT_GPU,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(runtime.project_root()), os.environ.get("PYTHONPATH", "")))),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": cores,
        "TF_NUM_INTRAOP_THREADS": cores,
    }


@contextmanager
def start_side(side: Side, environment: Mapping[str, str]) -> Iterator[Process]:
    """Start a side in its own process and stop it at the end of the block."""
    with Process(side, environment) as process:
        yield process


def interleave(
    sides: Mapping[str, Side],
    rounds: int,
    *,
    environment: Mapping[str, str] | None = None,
    seed: int = 0,
    start: Callable[[Side, Mapping[str, str]], Any] = start_side,
) -> dict[str, list[Measurement]]:
    """Measure sides in turn, each once per round, in an order that reverses from one round to the next.

    Args:
        sides: By name.
        rounds: Number of measurements of each.
        environment: Variables for their processes.
        seed: Of the order of the first round.
        start: Context manager that starts a side and gives a `Worker`.

    Returns:
        The measurements of each side, in the order of the rounds.

    Raises:
        RunError: A side failed.
    """
    generator = np.random.default_rng(seed)
    measurements: dict[str, list[Measurement]] = {name: [] for name in sides}
    order = [list(sides)[index] for index in generator.permutation(len(sides))]
    with ExitStack() as stack:
        workers = {name: stack.enter_context(start(side, environment or {})) for name, side in sides.items()}
        for name, side in sides.items():
            if not side.warms_itself:
                workers[name].measure()
        for _ in range(rounds):
            for name in order:
                measurements[name].append(workers[name].measure())
            order = order[::-1]
    return measurements


def compare(scanbook: list[float], baseline: list[float], order: Order) -> dict[str, Any]:
    """Return the ratios of pairs of measurements.

    Args:
        scanbook: Values of one side, in the order of the rounds.
        baseline: Values of the other side in the same rounds.
        order: Numerator and denominator.

    Returns:
        `ratio`, the median of the pairs' ratios; `low` and `high`, the least and the greatest; `ratios`, one per pair;
        `medians` of both sides.
    """
    upper, lower = (scanbook, baseline) if order == "scanbook / baseline" else (baseline, scanbook)
    ratios = [a / b for a, b in zip(upper, lower, strict=True)]
    return {
        "ratio": float(np.median(ratios)),
        "low": min(ratios),
        "high": max(ratios),
        "ratios": ratios,
        "medians": {"scanbook": float(np.median(scanbook)), "baseline": float(np.median(baseline))},
    }
