"""Sides, each in a process of its own, measured in turn: A B, B A, A B, … so that a slow minute meets both alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from scanbook import runtime
from scanbook.runtime.processes import WITHOUT_GPU, Child

LIMIT = 1200.0
"""Seconds that a side may usually take to start, or for one measurement."""
Order = Literal["ours / other", "other / ours"]
Measurement = dict[str, float]
"""What a side measured: `value`, in the unit of its rows; `memory`, in GiB; where it has them, `accuracy` and the
steps that the value is made of, by name."""


@dataclass(frozen=True)
class Side:
    """One way of doing the work, run in a fresh process that serves all its measurements.

    Attributes:
        name: What it is called in tables.
        function: `module:function`, a context manager: it prepares all that is not measured and yields what measures.
        did: What it does, in a sentence.
        options: Its arguments, plain JSON.
        warms_itself: Whether it has warmed up, with less work, when it is ready; others are measured once in vain.
        limit: Seconds that it may take to start, or for one measurement.
    """

    name: str
    function: str
    did: str
    options: dict[str, Any] = field(default_factory=dict)
    warms_itself: bool = False
    limit: float = LIMIT


class Worker(Protocol):
    """A running side."""

    def measure(self) -> Measurement:
        """Does the work once."""
        ...


class Process(Child):
    """A side in its own process.

    Raises:
        RunError: It failed, with its reason, or did not answer in time.
    """

    def __init__(self, side: Side, environment: Mapping[str, str]) -> None:
        module = ["-m", "benchmarks.worker"]
        super().__init__(side.name, module, {**surroundings(), **environment}, limit=side.limit, patience=60)
        self.ask({"function": side.function, "options": side.options})

    def measure(self) -> Measurement:
        """Does the work once.

        Raises:
            RunError: The side failed, with its reason, or did not answer in time.
        """
        return self.ask("measure")


def surroundings() -> dict[str, str]:
    """Environment of every side: all processors of this machine, no GPU, no progress bars."""
    cores = str(runtime.cores())
    return {
        **WITHOUT_GPU,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(runtime.project_root()), os.environ.get("PYTHONPATH", "")))),
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": cores,
        "TF_NUM_INTRAOP_THREADS": cores,
    }


@contextmanager
def running(side: Side, environment: Mapping[str, str]) -> Iterator[Process]:
    """A side in its own process, ended with the block."""
    with Process(side, environment) as process:
        yield process


def interleave(
    sides: Mapping[str, Side],
    rounds: int,
    *,
    environment: Mapping[str, str] | None = None,
    seed: int = 0,
    start: Callable[[Side, Mapping[str, str]], Any] = running,
) -> dict[str, list[Measurement]]:
    """Measures sides in turn, each once a round, in an order that turns round from one round to the next.

    Args:
        sides: By name.
        rounds: How often each is measured.
        environment: Variables for their processes.
        seed: Of the order of the first round.
        start: Context manager that starts a side and gives a `Worker`.

    Returns:
        The measurements of each side, a round after the other.

    Raises:
        RunError: A side failed.
    """
    draw = np.random.default_rng(seed)
    found: dict[str, list[Measurement]] = {name: [] for name in sides}
    order = [list(sides)[place] for place in draw.permutation(len(sides))]
    with ExitStack() as stack:
        workers = {name: stack.enter_context(start(side, environment or {})) for name, side in sides.items()}
        for name, side in sides.items():
            if not side.warms_itself:
                workers[name].measure()
        for _ in range(rounds):
            for name in order:
                found[name].append(workers[name].measure())
            order = order[::-1]
    return found


def compare(ours: list[float], other: list[float], order: Order) -> dict[str, Any]:
    """Ratios of pairs.

    Args:
        ours: Values of one side, a round after the other.
        other: Values of the other side in the same rounds.
        order: What is divided by what.

    Returns:
        `ratio`, the median of the pairs' ratios; `low` and `high`, the least and the greatest; `ratios`, of each pair;
        `medians` of both sides.
    """
    upper, lower = (ours, other) if order == "ours / other" else (other, ours)
    ratios = [a / b for a, b in zip(upper, lower, strict=True)]
    return {
        "ratio": float(np.median(ratios)),
        "low": min(ratios),
        "high": max(ratios),
        "ratios": ratios,
        "medians": {"ours": float(np.median(ours)), "other": float(np.median(other))},
    }
