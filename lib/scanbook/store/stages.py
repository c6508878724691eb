"""Stages: folders that a function filled once for one set of inputs.

The name of a stage is the fingerprint of the inputs, of the code that could have run and of the packages that could
have changed the result, so a stale stage is never found. It is built under a lock in a temporary folder and renamed
when whole: a killed process leaves nothing that looks finished. What was written is noted with it, so that a stage that
was truncated or overwritten since is noticed and built again.
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
from scanbook.store.fingerprints import code_fingerprint, file_digest, fingerprint
from scanbook.store.writing import write_json

INPUTS = "inputs.json"
CHECKPOINT = "-checkpoint"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
"""What NumPy says of a full disk, without the system's number for it."""
_visited: dict[Path, tuple[str, bool, BinaryIO]] = {}
"""By folder: its kind, whether this process built it, and the file whose lock says that it is in use."""
_inside: ContextVar[list[float]] = ContextVar("seconds of the stages that the one being built asked for")


def stage(kind: str, inputs: Mapping[str, Any], build: Callable[[Path], None], code: str) -> Path:
    """Folder of a cached stage, built now if it is missing or damaged; until the process ends it is not pruned.

    Args:
        kind: What the stage holds, such as "pixels"; the first part of its path.
        inputs: All that the result depends on but the code.
        build: Fills the empty folder that it is given.
        code: Name of the module whose code builds the stage (`__name__`).

    Returns:
        Folder with what `build` wrote, and the inputs in `inputs.json`.

    Raises:
        StoreError: The store cannot be written.
    """
    started = time.perf_counter()
    folder = address(kind, inputs, code)
    with _own_errors(folder):
        if folder not in _visited or not folder.is_dir():
            held, built = _take(folder), False
            if held is None:
                with building(folder):
                    held = _take(folder)  # another process may have built it meanwhile
                    if held is None:
                        _build(folder, inputs, build)
                        held, built = _open(folder), True
            _visited[folder] = (kind, built, held)
    with contextlib.suppress(OSError):  # a read-only store still serves what it holds
        os.utime(folder)
    around = _inside.get(None)
    if around is not None:
        around.append(time.perf_counter() - started)
    return folder


@contextlib.contextmanager
def _own_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        own = isinstance(error.filename, str | Path) and Path(error.filename).is_relative_to(runtime.store_dir())
        full = error.errno in _NO_ROOM or _CUT_SHORT.search(str(error))
        if not own and not full:
            raise  # not the store's: a source that `build` reads
        raise StoreError(
            f"cannot write the store at {error.filename or folder.parent} ({error.strerror or error}); "
            "make room or make it writable, or set SCANBOOK_STORE to another folder"
        ) from error


def address(kind: str, inputs: Mapping[str, Any], code: str) -> Path:
    """Folder of a stage, whether it is there or not; the arguments are those of `stage`."""
    return (
        runtime.store_dir()
        / kind
        / fingerprint(kind, inputs, code_fingerprint(code), runtime.versions(runtime.PACKAGES))
    )


@contextlib.contextmanager
def building(folder: Path) -> Iterator[None]:
    """Lets no other process build a stage while the block runs; waits while another one does."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        yield


def checkpoint(folder: Path) -> Path:
    """Folder beside a stage's, which outlives a killed process and goes when the stage is whole.

    Args:
        folder: That of the stage, or the one that `build` was given.
    """
    return folder.with_name("." + folder.name.removeprefix(".").split(".")[0] + CHECKPOINT)


def _build(folder: Path, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> None:
    if folder.is_dir():
        warnings.warn(f"the store's {_damage(folder)}, so it is built again", stacklevel=4)
        shutil.rmtree(folder)
    for abandoned in folder.parent.glob(f".{folder.name}.*"):  # by a process that was killed: the lock is ours
        shutil.rmtree(abandoned, ignore_errors=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    inside: list[float] = []
    before = _inside.set(inside)
    try:
        started = time.perf_counter()
        build(work)
        taken = time.perf_counter() - started
        times = {"seconds": round(taken, 3), "own_seconds": round(taken - sum(inside), 3)}
        write_json(work / INPUTS, {"inputs": inputs} | times | {"files": _written(work)})
        os.chmod(work, 0o755)
        os.replace(work, folder)
        shutil.rmtree(checkpoint(work), ignore_errors=True)
    finally:
        _inside.reset(before)
        shutil.rmtree(work, ignore_errors=True)


def _written(folder: Path) -> dict[str, list[Any]]:
    """Size, time of writing in ns, and digest of every file below a folder, by its path there."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = path.stat()
        found[path.relative_to(folder).as_posix()] = [status.st_size, status.st_mtime_ns, file_digest(path)]
    return found


def _damage(folder: Path) -> str:
    """Which file of a stage is not what its build wrote, in a few words; "" when all are.

    A file is read only where its time says that it was written since; that of a copy is set back, for the next time.
    """
    where = folder / INPUTS
    try:
        files = json.loads(where.read_bytes())["files"].items()
        for name, (size, written, digest) in files:
            where = folder / name
            status = where.stat()
            if status.st_size != size:
                return f"{where} holds {status.st_size} bytes instead of {size}"
            if status.st_mtime_ns != written:
                if file_digest(where) != digest:
                    return f"{where} was overwritten"
                with contextlib.suppress(OSError):  # a read-only store
                    os.utime(where, ns=(written, written))
    except FileNotFoundError:
        return f"{where} is gone"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{where} cannot be read"
    return ""


def _take(folder: Path) -> BinaryIO | None:
    """Takes a stage into use. Returns its open file, whose lock `unused` sees; None where it is missing or damaged."""
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
    # imported here, since a bundle carries this file to systems without it, where no stage is built
    import fcntl

    file = (folder / INPUTS).open("rb")
    with contextlib.suppress(OSError):  # a file system without locks, whose stages nothing protects from pruning
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


@contextlib.contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether no process that still runs has asked for this stage; none can begin to while the block runs."""
    import fcntl

    try:
        file = (folder / INPUTS).open("r+b")  # NFS locks alone what may be written
    except FileNotFoundError:  # what is damaged so far nobody can use
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
    """How long a stage took to build, in seconds; the stages that it asked for meanwhile are included."""
    return float(json.loads((folder / INPUTS).read_text())["seconds"])


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@dataclass(frozen=True)
class Visit:
    """A stage that this process asked for.

    Attributes:
        kind: What it holds, such as "pixels".
        folder: Where it lies.
        built: Whether this process built it; otherwise it was found.
        seconds: How long it took when it was built, whoever built it.
        own_seconds: The same without the stages that it asked for meanwhile, so that no second counts twice.
        size: What it holds, in MiB.
    """

    kind: str
    folder: Path
    built: bool
    seconds: float
    own_seconds: float
    size: float


def visited() -> list[Visit]:
    """The stages that this process has asked for, each once, in the order in which they were ready.

    One that another needs comes before it. Those that were removed since are left out.
    """
    found = []
    for folder, (kind, built, _) in _visited.items():
        if (folder / INPUTS).is_file():
            times = json.loads((folder / INPUTS).read_text())
            found.append(Visit(kind, folder, built, times["seconds"], times["own_seconds"], size(folder) / 2**20))
    return found
