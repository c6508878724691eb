"""What the store holds, and how it is kept within a size."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from scanbook import runtime
from scanbook.store.stages import CHECKPOINT, size, unused


@dataclass(frozen=True)
class Entry:
    """A folder of the store: a stage, or what a build left that was interrupted.

    Attributes:
        folder: Where it lies.
        kind: What it holds, such as "pixels".
        whole: Whether it is a stage; otherwise a checkpoint to go on from, or a leftover.
        size: What it holds, in bytes.
        used: When it was last used, in seconds since 1970.
    """

    folder: Path
    kind: str
    whole: bool
    size: int
    used: float

    @property
    def key(self) -> str:
        """Name of the stage that it is, or was to become."""
        name = self.folder.name
        return name if self.whole else name.split(".")[1].removesuffix(CHECKPOINT)


def entries() -> list[Entry]:
    """All that the store holds, in no order."""
    found = []
    for folder in runtime.store_dir().glob("*/*"):
        try:
            if folder.is_dir():
                whole = not folder.name.startswith(".")
                found.append(Entry(folder, folder.parent.name, whole, size(folder), folder.stat().st_mtime))
        except FileNotFoundError:  # another process renamed or removed it meanwhile
            continue
    return found


def prune(limit_bytes: int) -> list[Path]:
    """Removes what was used longest ago until the store is within a size.

    What a running process uses or builds stays: it may open its files late.

    Args:
        limit_bytes: Largest size of all stages together, in bytes.

    Returns:
        The folders removed.
    """
    found = entries()
    total, removed = sum(each.size for each in found), []
    for each in sorted(found, key=lambda one: one.used):
        if total <= limit_bytes:
            break
        if _remove(each):
            total -= each.size
            removed.append(each.folder)
    return removed


def _remove(entry: Entry) -> bool:
    """Removes a folder of the store, unless a process uses or builds it."""
    from filelock import FileLock, Timeout

    lock = Path(f"{entry.folder.with_name(entry.key)}.lock")
    try:
        with FileLock(lock, blocking=False):
            gone = entry.folder
            if entry.whole:
                gone = entry.folder.with_name(f".{entry.key}.pruned")
                with unused(entry.folder) as free:
                    if not free:
                        return False
                    os.replace(entry.folder, gone)  # at once, so that nobody finds a part of it
            shutil.rmtree(gone, ignore_errors=True)
            lock.unlink(missing_ok=True)
    except (Timeout, OSError):  # OSError: another process pruned it, or it is not ours to remove
        return False
    return True
