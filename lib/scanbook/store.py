"""The store of cached stages: content fingerprints, locks and atomic writes.

A stage is a folder that a function filled once for one set of inputs. Its name is the fingerprint of the inputs, of the
code that could have run and of the packages that could have changed the result, so a stale stage is never found. It is
built under a lock in a temporary folder and renamed when whole: a killed process leaves nothing that looks finished.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scanbook import runtime
from scanbook.errors import StoreError

PACKAGE = Path(__file__).parent
INPUTS = "inputs.json"
_GRAIN = 2_000_000_000
"""Nanoseconds, the coarsest clock of a common file system (FAT)."""
_CHECKPOINT = "-checkpoint"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_visited: dict[Path, tuple[str, bool]] = {}
_inside: ContextVar[list[float]] = ContextVar("seconds of the stages that the one being built asked for")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers, whose text drops what is in the middle
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no content that a fingerprint or a JSON file could keep")


def fingerprint(*parts: Any) -> str:
    """Sixteen hexadecimal digits that change when any of the parts does.

    Args:
        parts: Bytes are taken as they are, everything else as canonical JSON.

    Raises:
        TypeError: A part has no canonical JSON, so that two of them could not be told apart.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=_plain).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_fingerprint(path: Path) -> str:
    """Fingerprint of the content of a file, or of every file below a folder and their relative paths.

    A file is read again only when its size or modification time changed since it was last read; what was read is
    remembered in the store.
    """
    index_path = runtime.store_dir() / "digests.json"
    try:
        index = json.loads(index_path.read_text())
    except (OSError, ValueError):
        index = {}
    known = index.get(str(path), {})
    found = {}
    for name, size, modified in sorted(_files(path)):
        entry = known.get(name)
        same = entry is not None and entry[:2] == [size, modified]
        found[name] = entry if same else [size, modified, file_digest(path / name if name else path)]
    # a file written just now may change again within the clock's grain, so what was read of it is not remembered
    settled = time.time_ns() - _GRAIN
    remembered = {name: entry for name, entry in found.items() if entry[1] < settled}
    if remembered != known:
        with contextlib.suppress(OSError):  # a read-only store costs only speed here
            atomic_write(index_path, json.dumps(index | {str(path): remembered}))
    return fingerprint({name: digest for name, (_, _, digest) in found.items()})


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Relative name, size and modification time of every file that is not hidden; no name when `path` is a file."""
    if path.is_file():
        status = path.stat()
        yield "", status.st_size, status.st_mtime_ns
        return
    waiting = [str(path)] if path.is_dir() else []
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.is_file():  # no link to what is gone, no pipe that never ends
                    status = entry.stat()
                    yield os.path.relpath(entry.path, path), status.st_size, status.st_mtime_ns


def _module_file(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    package = ("scanbook", *path.parent.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], node.module or ""]).strip(".")
                if node.level
                else node.module
            )
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "scanbook" and _module_file(name)}


@cache
def code_fingerprint(module: str) -> str:
    """Fingerprint of a scanbook module's source and of all scanbook modules that it imports, directly or not.

    Data flows one way, so this is exactly the code that a stage of this module could have run.
    """
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _module_file(name)
        if name in seen or path is None:
            continue
        seen[name] = file_digest(path)
        waiting += _imports(path)
    return fingerprint(seen)


def sources_fingerprint() -> str:
    """Fingerprint of every source file, template and weights file of the library."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return fingerprint({str(path.relative_to(PACKAGE)): file_digest(path) for path in files})


def atomic_write(path: Path, data: str | bytes) -> None:
    """Writes a file under a temporary name, then renames it: readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON, keys in the order given, atomically."""
    atomic_write(path, json.dumps(value, indent=2, default=_plain, ensure_ascii=False) + "\n")


def stage(kind: str, inputs: Mapping[str, Any], build: Callable[[Path], None], code: str) -> Path:
    """Folder of a cached stage, built now if it is missing.

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
    from filelock import FileLock

    started, built = time.perf_counter(), False
    key = fingerprint(kind, inputs, code_fingerprint(code), runtime.versions(runtime.PACKAGES))
    folder = runtime.store_dir() / kind / key
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not folder.is_dir():
                    _build(folder, inputs, build)
                    built = True
    except OSError as error:
        own = isinstance(error.filename, str | Path) and Path(error.filename).is_relative_to(runtime.store_dir())
        if not own and error.errno not in _NO_ROOM:
            raise  # not the store's: a source that `build` reads
        raise StoreError(
            f"cannot write the store at {error.filename or folder.parent} ({error.strerror}); "
            "make room or make it writable, or set SCANBOOK_STORE to another folder"
        ) from error
    with contextlib.suppress(OSError):  # a read-only store still serves what it holds
        os.utime(folder)
    _visited.setdefault(folder, (kind, built))
    around = _inside.get(None)
    if around is not None:
        around.append(time.perf_counter() - started)
    return folder


def checkpoint(work: Path) -> Path:
    """Folder beside the one that a stage is built in, which outlives a killed process and goes when the stage is whole.

    Args:
        work: The folder that `build` was given.
    """
    return work.with_name("." + work.name.split(".")[1] + _CHECKPOINT)


def _build(folder: Path, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> None:
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
        write_json(work / INPUTS, {"inputs": inputs} | times)
        os.chmod(work, 0o755)
        os.replace(work, folder)
        shutil.rmtree(checkpoint(work), ignore_errors=True)
    finally:
        _inside.reset(before)
        shutil.rmtree(work, ignore_errors=True)


def seconds(folder: Path) -> float:
    """How long a stage took to build, in seconds; the stages that it asked for meanwhile are included."""
    return float(json.loads((folder / INPUTS).read_text())["seconds"])


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

    One that another needs comes before it. Those that were pruned since are left out.
    """
    found = []
    for folder, (kind, built) in _visited.items():
        if (folder / INPUTS).is_file():
            times = json.loads((folder / INPUTS).read_text())
            size = _size(folder) / 2**20
            found.append(Visit(kind, folder, built, times["seconds"], times["own_seconds"], size))
    return found


def _size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def prune(limit_bytes: int, keep: Iterable[Path] = ()) -> list[Path]:
    """Removes the stages that were used longest ago until the store is within a size.

    Args:
        limit_bytes: Largest size of all stages together, in bytes.
        keep: Stages that stay whatever their age.

    Returns:
        The folders removed.
    """
    found = [*runtime.store_dir().glob("*/[!.]*"), *runtime.store_dir().glob(f"*/.*{_CHECKPOINT}")]
    stages = [path for path in found if path.is_dir()]
    sizes = {path: _size(path) for path in stages}
    total, removed = sum(sizes.values()), []
    for path in sorted(set(stages) - set(keep), key=lambda each: each.stat().st_mtime):
        if total <= limit_bytes:
            break
        shutil.rmtree(path, ignore_errors=True)
        Path(f"{path}.lock").unlink(missing_ok=True)
        total -= sizes[path]
        removed.append(path)
    return removed
