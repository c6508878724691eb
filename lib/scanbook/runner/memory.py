"""Memory of a running notebook, and what to do when it ran out."""

from __future__ import annotations

from pathlib import Path

import psutil

from scanbook.config import Study

GROUPS = Path("/sys/fs/cgroup")
EXHAUSTED = ("MemoryError", "_ArrayMemoryError", "ResourceExhaustedError")
"""Exceptions of Python, NumPy and TensorFlow when memory runs out."""


def memory_below() -> float:
    """Return the memory of all processes below this one, in GiB.

    What they map from files, such as libraries and pixels, is mostly the same files, so of this only the largest share
    of one process counts. Where the system does not separate it from the rest (macOS), each process counts it.
    """
    own, files = 0, 0
    for process in psutil.Process().children(recursive=True):
        try:
            usage = process.memory_info()
        except psutil.Error:  # it ended between the two calls
            continue
        shared = getattr(usage, "shared", 0)
        own += usage.rss - shared
        files = max(files, shared)
    return (own + files) / 2**30


def kills() -> int:
    """Return how many processes Linux has killed for lack of memory: in this control group if it counts, else in all.

    The number is 0 where nothing counts them.
    """
    for file in [*_group_files(), Path("/proc/vmstat")]:
        try:
            counts = dict(line.split(maxsplit=1) for line in file.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def _group_files() -> list[Path]:
    """Return files in which this control group may count kills; in a container the group's own path does not exist."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            files += [GROUPS / group.lstrip("/") / "memory.events", GROUPS / "memory.events"]
        elif "memory" in controllers.split(","):
            memory = GROUPS / "memory"
            files += [memory / group.lstrip("/") / "memory.oom_control", memory / "memory.oom_control"]
    return files


def advice(study: Study) -> str:
    """Return how a run of a study needs less memory, in a few words."""
    smaller = f"image_size={max(32, study.image_size // 2)}"
    batches = f"fine_tuning.batch_size={max(1, study.fine_tuning.batch_size // 2)}"
    fewer = f"limit={max(64, study.limit // 2)}" if study.limit else "limit=1000"
    return f'run one notebook at a time (JOBS=1), or ask for less: SET="{smaller}", "{batches}" or "{fewer}"'
