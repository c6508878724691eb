"""Stages: folders that a function fills once for one set of inputs.

The name of a stage is the fingerprint of its inputs, of the code that can have computed it and of the packages that
this code imports, so that a stale stage is never used. It is built under a lock in a temporary folder and renamed
when it is whole: a killed process leaves nothing that looks finished. The digests of its files are stored with it, so
that a stage that was truncated or overwritten later is detected and built again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from scanbook import runtime
from scanbook.errors import StoreError
from scanbook.store.code import stage_code
from scanbook.store.fingerprints import file_digest, fingerprint
from scanbook.store.locking import lock_file
from scanbook.store.writing import write_json

INPUTS = "inputs.json"
"""File of a stage with its inputs, the times of its build and the digests of its files."""
CHECKPOINT = "-checkpoint"
"""Suffix of the folder from which an interrupted build resumes."""
_UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.ENODEV)
"""Errors of a disk that is full, and of a file system whose files cannot be mapped into memory."""
_DISK_FULL_IN_NUMPY = re.compile(r"\d+ requested and \d+ written")
"""NumPy's message for a full disk, which lacks the system's error number."""
_visited: dict[Path, tuple[str, bool, BinaryIO]] = {}
"""By folder: its kind, whether this process built it, and the open file whose lock marks it as in use."""
_inner_seconds: ContextVar[list[float]] = ContextVar("seconds of the stages requested by the one being built")


def stage(kind: str, inputs: Mapping[str, Any], build: Callable[[Path], None], code: str) -> Path:
    """Return the folder of a stage; build it if it is missing or damaged.

    It is not pruned until this process ends.

    Args:
        kind: Kind of content, such as "pixels"; the first part of its path.
        inputs: All that the result depends on, except the code.
        build: Fills the empty folder that it is given.
        code: Name of the module whose code builds the stage (`__name__`).

    Returns:
        Folder with the files that `build` wrote, and the inputs in `inputs.json`.

    Raises:
        StoreError: The store cannot be written.
    """
    started = time.perf_counter()
    folder = address(kind, inputs, code)
    with _store_errors(folder):
        if folder not in _visited or not folder.is_dir():
            lock, built = _open_if_whole(folder), False
            if lock is None:
                with building(folder):
                    lock = _open_if_whole(folder)  # another process may have built it meanwhile
                    if lock is None:
                        _build(folder, inputs, build)
                        lock, built = _open(folder), True
            _visited[folder] = (kind, built, lock)
    with contextlib.suppress(OSError):  # a read-only store still serves what it holds
        os.utime(folder)
    outer = _inner_seconds.get(None)
    if outer is not None:
        outer.append(time.perf_counter() - started)
    return folder


@contextlib.contextmanager
def _store_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the system that concerns the store into a `StoreError`."""
    try:
        yield
    except OSError as error:
        in_store = isinstance(error.filename, str | Path) and Path(error.filename).is_relative_to(runtime.store_dir())
        unusable = error.errno in _UNUSABLE or _DISK_FULL_IN_NUMPY.search(str(error))
        if not in_store and not unusable:
            raise  # it concerns a file that `build` reads
        raise StoreError(
            f"cannot write the store at {error.filename or folder.parent} ({error.strerror or error}); "
            "make room or make it writable, or set SCANBOOK_STORE to another folder"
        ) from error


def address(kind: str, inputs: Mapping[str, Any], code: str) -> Path:
    """Return the folder of a stage, whether it exists or not; the arguments are those of `stage`."""
    computing = stage_code(code)
    versions = runtime.numeric_versions(computing.packages)
    return runtime.store_dir() / kind / fingerprint(kind, inputs, computing.fingerprint, versions)


@contextlib.contextmanager
def building(folder: Path) -> Iterator[None]:
    """Let no other process build a stage while the block runs; wait while another one does."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_file(Path(f"{folder}.lock"))):
        yield


def checkpoint(folder: Path) -> Path:
    """Return the folder for a stage's checkpoint; it outlives a killed process and is removed when the stage is whole.

    Args:
        folder: Folder of the stage, or the one that `build` was given.
    """
    return folder.with_name("." + folder.name.removeprefix(".").split(".")[0] + CHECKPOINT)


def _build(folder: Path, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    if folder.is_dir():
        warnings.warn(f"the store's {_damage(folder)}, so it is built again", stacklevel=4)
        shutil.rmtree(folder)
    for abandoned in folder.parent.glob(f".{folder.name}.*"):  # by a process that was killed: this one has the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    inner: list[float] = []
    token = _inner_seconds.set(inner)
    try:
        started = time.perf_counter()
        with runtime.step(f"stage {folder.parent.name}"):
            build(work)
        duration = time.perf_counter() - started
        times = {"seconds": round(duration, 3), "own_seconds": round(duration - sum(inner), 3)}
        write_json(work / INPUTS, {"inputs": inputs} | times | {"files": _describe_files(work)})
        with contextlib.suppress(OSError):  # a file system without permissions
            os.chmod(work, 0o755)
        os.replace(work, folder)
        shutil.rmtree(checkpoint(work), ignore_errors=True)
    finally:
        _inner_seconds.reset(token)
        shutil.rmtree(work, ignore_errors=True)


def _describe_files(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return size, modification time in ns, and digest of every file below a folder, by its path there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns, file_digest(path))
        for path in paths
    }


def _damage(folder: Path) -> str:
    """Return which file of a stage differs from the one that its build wrote, in a few words; "" when none does.

    A file is read only where its modification time changed; the time of an equal copy is set back, for the next check.
    """
    path = folder / INPUTS
    try:
        files = json.loads(path.read_bytes())["files"].items()
        for name, (size, modified, digest) in files:
            path = folder / name
            status = path.stat()
            if status.st_size != size:
                return f"{path} holds {status.st_size} bytes instead of {size}"
            if status.st_mtime_ns != modified:
                if file_digest(path) != digest:
                    return f"{path} was overwritten"
                with contextlib.suppress(OSError):  # a read-only store
                    os.utime(path, ns=(modified, modified))
    except FileNotFoundError:
        return f"{path} is gone"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{path} cannot be read"
    return ""


def _open_if_whole(folder: Path) -> BinaryIO | None:
    """Return a stage's open file, whose lock marks it as in use; None where the stage is missing or damaged."""
    try:
        file = _open(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        same = os.path.samestat(os.fstat(file.fileno()), (folder / INPUTS).stat())
    except FileNotFoundError:  # pruned between the two
        same = False
    if same and not _damage(folder):
        return file
    file.close()
    return None


def _open(folder: Path) -> BinaryIO:
    """Return a stage's open file, with a lock on it, which `unused` sees.

    The lock is on the descriptor itself: any number of processes share it, which those of filelock do not allow.
    """
    # imported here, since a bundle takes this file to systems without `fcntl`, where no stage is built
    import fcntl

    file = (folder / INPUTS).open("rb")
    with contextlib.suppress(OSError):  # a file system without locks, on which stages are not protected from pruning
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Yield whether no running process uses a stage; no process can begin to while the block runs."""
    import fcntl

    try:
        file = (folder / INPUTS).open("r+b")  # NFS locks only files that may be written
    except FileNotFoundError:  # so damaged that no process can use it
        yield True
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True


def seconds(folder: Path) -> float:
    """Return how long the build of a stage took, in seconds, including the stages that it requested meanwhile."""
    return float(json.loads((folder / INPUTS).read_text())["seconds"])


def size(folder: Path) -> int:
    """Return the size of all files below a folder, in bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class Visit:
    """A stage that this process requested.

    Attributes:
        kind: Kind of content, such as "pixels".
        folder: Path of the folder.
        built: Whether this process built it; otherwise it existed already.
        seconds: Duration of its build, by whichever process.
        own_seconds: The same without the stages that it requested meanwhile, so that no second counts twice.
        size: Size of its files, in MiB.
    """

    kind: str
    folder: Path
    built: bool
    seconds: float
    own_seconds: float
    size: float


def visited() -> list[Visit]:
    """Return the stages that this process has requested, each once, in the order in which they were ready.

    A stage that another one needs comes before it. Stages that were removed meanwhile are not listed.
    """
    visits = []
    for folder, (kind, built, _) in _visited.items():
        if (folder / INPUTS).is_file():
            times = json.loads((folder / INPUTS).read_text())
            visits.append(Visit(kind, folder, built, times["seconds"], times["own_seconds"], size(folder) / 2**20))
    return visits
