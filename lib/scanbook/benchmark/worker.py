"""A saved model in its own process, timed on command: both ends of the pipe.

The number of threads is fixed once an engine has started, and cold start and peak memory belong to a whole process.
This file is run by its path and imports only the engines, so that a process without Keras starts quickly.

The process reads a line of JSON, its task (`path`, `mode`, `threads`, `engines`, `images`, `seed`), and answers with
one when the model is loaded. Each further line names a window (`engine`, `batch`, `seconds`, `callers`); the answer has
the `milliseconds` of its calls, the `seconds` from the first call's start to the last one's end, and the process's peak
`memory` in MiB. It ends with its input, and so with the process that started it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from scanbook import runtime
from scanbook.models import engines
from scanbook.runtime.processes import WITHOUT_GPU, Child, answering

PREDICT, TRACED = "Keras predict", "Keras traced"
"""The two ways to run a Keras model."""

LAST = 3
"""Number of latest windows that have to agree."""

Predict = Callable[[np.ndarray], Any]


class Worker(Child):
    """The process, as its owner sees it.

    Args:
        name: Name of the measurement, for errors.
        task: As above.
        device: "cpu" hides every GPU from it; "gpu" does not.

    Attributes:
        load: Seconds from its start to the loaded model, including imports.
        callers: Number of batches that its engine computes at a time.
        memory: Peak so far, in MiB.

    Raises:
        RunError: The process ended; the message has its last line.
    """

    def __init__(self, name: str, task: dict[str, Any], device: str = "cpu") -> None:
        started = time.perf_counter()
        # -P: modules beside this file must not be found as packages
        environment, hint = WITHOUT_GPU if device == "cpu" else {}, "try smaller benchmark.batch_sizes"
        super().__init__(f"inference with {name}", ["-P", __file__], environment, hint=hint)
        self.memory = 0.0
        try:
            self.callers = int(self.ask(task)["callers"])
        except BaseException:
            self.stop()
            raise
        self.load = time.perf_counter() - started

    def window(self, engine: str, batch: int, seconds: float = 0.0, callers: int | None = None) -> dict[str, Any]:
        """Time calls of one batch size; 0 seconds mean one call from each caller.

        Returns:
            `milliseconds` and `seconds`, as above.

        Raises:
            RunError: The process ended; the message has its last line.
        """
        callers = self.callers if callers is None else callers
        answer = self.ask({"engine": engine, "batch": batch, "seconds": seconds, "callers": callers})
        self.memory = answer.pop("memory")
        return answer


def window(
    predict: Predict, images: np.ndarray, seconds: float, callers: int, pool: ThreadPoolExecutor
) -> tuple[list[float], float]:
    """Call `predict` repeatedly from several threads for some seconds, at least once each.

    Args:
        predict: The function to time.
        images: The batch of every call, uint8 `(n, h, w, 3)`.
        seconds: Seconds in which calls start.
        callers: Number of threads that call.
        pool: Threads, at least `callers`.

    Returns:
        Milliseconds of every call, and the seconds from the first call's start to the last one's end.
    """
    barrier = threading.Barrier(callers)

    def call() -> list[tuple[float, float]]:
        barrier.wait()
        calls = [_timed(predict, images)]
        while calls[-1][1] < calls[0][0] + seconds:
            calls.append(_timed(predict, images))
        return calls

    futures = [pool.submit(call) for _ in range(callers)]
    starts, ends = np.transpose([pair for future in futures for pair in future.result()])
    return (1000 * (ends - starts)).tolist(), float(ends.max() - starts.min())


def is_stable(values: Sequence[float], tolerance: float) -> bool:
    """Return whether the values of the last three windows differ by at most `tolerance`, as a share of the smallest."""
    last = values[-LAST:]
    return len(last) == LAST and max(last) <= (1 + tolerance) * min(last)


def percentile(times: np.ndarray, share: int) -> float:
    """Return a percentile, or NaN where no call lies beyond it: the 95th takes 20 calls, the 99th 100."""
    return float(np.percentile(times, share)) if len(times) * (100 - share) >= 100 else np.nan


def _timed(predict: Predict, images: np.ndarray) -> tuple[float, float]:
    started = time.perf_counter()
    predict(images)
    return started, time.perf_counter()


def _open(task: dict[str, Any]) -> tuple[dict[str, Predict], int]:
    """Return the ways to run the model by name, and the number of batches that an engine computes at a time."""
    path, threads = Path(task["path"]), task["threads"]
    if path.suffix == ".keras":
        # None: the default of Keras's backend, which is all threads
        runtime.configure(task["seed"], threads if threads < runtime.cores() else None)
        from scanbook.models import backbones

        model = backbones.load(path)
        traced = engines.KerasEngine(model)
        ways: dict[str, Predict] = {
            PREDICT: lambda images: model.predict(images, batch_size=len(images), verbose=0),
            TRACED: lambda images: traced.predict(images, len(images)),
        }
        return {name: ways[name.partition(",")[0]] for name in task["engines"]}, 1  # "Keras traced, GPU"
    engine = engines.open_saved(path, task["mode"], threads)
    # in latency mode more callers would not be faster
    callers = engine.requests if task["mode"] == "throughput" else 1
    return dict.fromkeys(task["engines"], lambda images: engine.predict(images, len(images))), callers


def main() -> None:
    """Answer requests for windows until the input ends."""
    answer = answering()
    task = json.loads(sys.stdin.readline() or "null")
    if task is None:
        return
    images = np.load(task["images"])
    ways, callers = _open(task)
    answer({"callers": callers})
    with ThreadPoolExecutor(callers) as pool:
        for line in sys.stdin:
            request = json.loads(line)
            way, batch = ways[request["engine"]], images[: request["batch"]]
            milliseconds, seconds = window(way, batch, request["seconds"], request["callers"], pool)
            answer({"milliseconds": milliseconds, "seconds": seconds, "memory": runtime.peak_memory()})


if __name__ == "__main__":
    main()
