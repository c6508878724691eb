"""Locks between processes: one run per report folder, and the machine for the benchmark alone.

The operating system holds them, so the locks of a killed process are free at once. Where the folder of the reports has
no locks, files on this machine are locked in their place.
"""

from __future__ import annotations

import errno
import fcntl
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from scanbook import runtime
from scanbook.errors import RunError
from scanbook.store import lock_file

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a disk that is full or may not be written."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raise one line that says what to do when a report folder cannot be written.

    Raises:
        RunError: The disk is full, or the folder or a file in it is read-only.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise RunError(
            f"cannot write reports in {error.filename or folder} ({error.strerror}); "
            "make room or make it writable, or set SCANBOOK_REPORTS to another folder"
        ) from error


@contextmanager
def hold(path: Path, on_wait: Callable[[], object] = lambda: None) -> Iterator[bool]:
    """Hold a lock file, as nobody else does.

    Args:
        path: The file; it is created when missing and stays.
        on_wait: Called once when the lock is not free.

    Yields:
        Whether it had to wait.

    Raises:
        RunError: The folder cannot be written.
    """
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_file(path))
        waited = False
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waited = True
            on_wait()
            lock.acquire()
    try:
        yield waited
    finally:
        lock.release()


@contextmanager
def machine(alone: bool, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Share the machine with other notebooks, or have it alone.

    A run that waits to have it alone keeps its turn, so later runs queue behind it.
    """
    # nodes of a cluster have one reports folder
    folder, name = runtime.reports_dir(), platform.node()
    with ExitStack() as locks:
        with hold(folder / f".turn-{name}.lock", on_wait=on_wait):
            file = locks.enter_context(lock_file(folder / f".machine-{name}.lock").open("a"))
            # on the descriptor itself: notebooks share this lock, and FileLock has no lock that is shared
            kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(file, kind)
        yield
