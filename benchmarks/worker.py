"""The process of a side: `python -m benchmarks.worker`, a line in, a line out.

The first line is its task, JSON with `function` and `options`. It reports that it is ready, then answers every line
with a measurement until its input ends.
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
    """Return the function that `module:function` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def as_measurement(result: Any) -> dict[str, Any]:
    """Return a measurement from a function's result, of which a number alone is the value."""
    return dict(result) if isinstance(result, dict) else {"value": float(result)}


def peak_memory() -> float:
    """Return the largest resident memory so far, in GiB, of this process and of its running children."""
    import psutil

    children = 0.0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            children += runtime.peak_memory(process.pid)
    return (runtime.peak_memory() + children) / 2**10


def own_memory() -> float:
    """Return the memory of this process that no file backs, in GiB; all memory where the system does not separate it.

    Pixels of a memory map lie in the page cache, which the system reclaims when it needs it.
    """
    own = runtime.memory_in_status("RssAnon")
    if own is None:
        import psutil

        own = psutil.Process().memory_info().rss / 2**20
    return own / 2**10


def serve(task: dict[str, Any], questions: TextIO, answer: Callable[[dict[str, Any]], None]) -> None:
    """Prepare a side and answer every line of `questions` with a measurement."""
    try:
        with resolve(task["function"])(**task["options"]) as measure:
            answer({"ready": True})
            for _ in questions:
                measurement = as_measurement(measure())
                answer({**measurement, "memory": measurement.get("memory", peak_memory())})
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        answer({"error": f"{type(error).__name__}: {first}" if first else type(error).__name__})


def main() -> None:
    """Run the side that the first line names."""
    answer = answering()
    serve(json.loads(sys.stdin.readline()), sys.stdin, answer)


if __name__ == "__main__":
    main()
