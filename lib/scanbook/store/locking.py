"""Files whose locks hold between the processes of a machine, below folders on any file system.

The operating system holds the locks, so those of a killed process or a lost machine are free at once.
"""

from __future__ import annotations

import errno
import os
import tempfile
from functools import cache
from pathlib import Path

from scanbook.store.fingerprints import fingerprint

_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)
_LOCAL = Path("/tmp")
"""A folder with locks that all processes of a machine share; TMPDIR may differ between them."""


def lock_file(path: Path) -> Path:
    """Return the file to lock for a path: the path itself, or a file on this machine where its folder has no locks.

    Some network and FUSE file systems, such as cloud storage that is mounted as a folder, have none. A file that
    counts as a lock by its existence would do there, but outlive a lost machine and block the next one.

    Raises:
        OSError: The folder cannot be written.
    """
    if _has_locks(path.parent, path.parent.stat().st_dev):
        return path
    return _LOCAL / f"scanbook-{os.getuid()}-{fingerprint(str(path.resolve()))}.lock"


@cache
def _has_locks(folder: Path, device: int) -> bool:
    """Return whether a folder has locks; `device` is its file system, which can change while a process runs."""
    # imported here, since a bundle takes this file to systems without `fcntl`, where nothing is locked
    import fcntl

    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return False
            raise
    return True
