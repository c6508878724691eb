"""The process of a side: `python -m benchmarks.worker`, a line in, a line out.

The first line is its task, JSON with `function` and `options`. It says that it is ready, then answers every line with a
measurement, until its input ends.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TextIO

from scanbook import runtime
from scanbook.runtime.processes import answering


def resolve(path: str) -> Callable[..., AbstractContextManager[Callable[[], Any]]]:
    """The function that `module:function` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def as_measurement(found: Any) -> dict[str, Any]:
    """A bare number is the value alone."""
    return dict(found) if isinstance(found, dict) else {"value": float(found)}


def peak_memory() -> float:
    """Largest resident memory so far, in GiB, of this process and of those it started that still run."""
    import psutil

    others = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            others += runtime.peak_memory(process.pid)
    return (runtime.peak_memory() + others) / 2**10


def own_memory() -> float:
    """Memory of this process that no file backs, in GiB; all of it where the system does not tell them apart.

    Pixels that are read through a memory map lie in the page cache, which the system takes back when it needs it.
    """
    own = runtime.memory_in_status("RssAnon")
    if own is None:
        import psutil

        own = psutil.Process().memory_info().rss / 2**20
    return own / 2**10


def serve(task: dict[str, Any], questions: TextIO, say: Callable[[dict[str, Any]], None]) -> None:
    """Prepares a side and answers every line of `questions` with a measurement."""
    try:
        with resolve(task["function"])(**task["options"]) as measure:
            say({"ready": True})
            for _ in questions:
                found = as_measurement(measure())
                say({**found, "memory": found.get("memory", peak_memory())})
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        say({"error": f"{type(error).__name__}: {first}" if first else type(error).__name__})


def main() -> None:
    """Runs the side that the first line names."""
    answer = answering()
    serve(json.loads(sys.stdin.readline()), sys.stdin, answer)


if __name__ == "__main__":
    main()
