"""Lists the folders of the store, and removes those that were used longest ago."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from scanbook import runtime
from scanbook.store.locking import lock_file
from scanbook.store.stages import CHECKPOINT, size, unused


@dataclass(frozen=True)
class Entry:
    """A folder of the store: a stage, or the remains of a build that was interrupted.

    Attributes:
        folder: Path of the folder.
        kind: Kind of content, such as "pixels".
        whole: Whether it is a stage; otherwise it is a checkpoint, or the remains of a build.
        size: Size of its files, in bytes.
        used: Time of its last use, in seconds since 1970.
    """

    folder: Path
    kind: str
    whole: bool
    size: int
    used: float

    @property
    def key(self) -> str:
        """Name of the stage that it is, or would have become."""
        name = self.folder.name
        return name if self.whole else name.split(".")[1].removesuffix(CHECKPOINT)


def entries() -> list[Entry]:
    """Return all folders of the store, in no order."""
    folders = []
    for folder in runtime.store_dir().glob("*/*"):
        try:
            if folder.is_dir():
                whole = not folder.name.startswith(".")
                folders.append(Entry(folder, folder.parent.name, whole, size(folder), folder.stat().st_mtime))
        except FileNotFoundError:  # another process renamed or removed it meanwhile
            continue
    return folders


def prune(limit_bytes: int) -> list[Path]:
    """Remove the folders that were used longest ago until the store is within a size.

    Those that a running process uses or builds stay: it may open their files late.

    Args:
        limit_bytes: Largest size of all folders together, in bytes.

    Returns:
        The folders removed.
    """
    folders = entries()
    total, removed = sum(entry.size for entry in folders), []
    for entry in sorted(folders, key=lambda entry: entry.used):
        if total <= limit_bytes:
            break
        if _remove(entry):
            total -= entry.size
            removed.append(entry.folder)
    return removed


def _remove(entry: Entry) -> bool:
    """Remove a folder of the store and return True; return False where a process uses or builds it."""
    from filelock import FileLock, Timeout

    try:
        lock = lock_file(Path(f"{entry.folder.with_name(entry.key)}.lock"))
        with FileLock(lock, blocking=False):
            folder = entry.folder
            if entry.whole:
                folder = entry.folder.with_name(f".{entry.key}.pruned")
                with unused(entry.folder) as free:
                    if not free:
                        return False
                    os.replace(entry.folder, folder)  # at once, so that no process finds it incomplete
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
    except (Timeout, OSError):  # OSError: another process pruned it, or this one may not
        return False
    return True
