"""Loops over many items: in threads, and with a progress bar where a person watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from scanbook.runtime.machine import cores
from scanbook.runtime.steps import step

T = TypeVar("T")


def in_threads(work: Callable[[Any], T], items: Sequence[Any], workers: int | None = None) -> Iterator[T]:
    """Yield the result of `work` for each item, in their order, computed by threads.

    Items are submitted a thousand at a time: a pool keeps a kilobyte for each item that it is given, and every result
    that was not fetched yet.

    Args:
        work: Computes the result of one item.
        items: The items.
        workers: Number of threads; None for as many as there are cores.
    """
    with ThreadPoolExecutor(workers or cores()) as pool:
        for start in range(0, len(items), 1024):
            yield from pool.map(work, items[start : start + 1024])


def interactive() -> bool:
    """Return whether a person watches: at a terminal, or in a notebook that papermill does not run."""
    if os.environ.get("SCANBOOK_HEADLESS"):
        return False
    return "ipykernel" in sys.modules or sys.stderr.isatty()


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Yield `items` and report how many are done: in a progress bar where a person watches, else as a step.

    A bar fills a report that is run without a person with one line per step (papermill#765).
    """
    if interactive():
        from tqdm.auto import tqdm

        return tqdm(items, desc=description, total=total, leave=False)
    return _counted(items, description, len(items) if total is None and isinstance(items, Sized) else total)


def _counted(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    with step(description, total) as current:
        for done, item in enumerate(items, 1):
            yield item
            current.advance(done)
