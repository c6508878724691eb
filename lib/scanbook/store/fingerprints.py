"""Fingerprints of content: of values, files and folders, and of the code that could have run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from scanbook import runtime
from scanbook.store.writing import atomic_write, plain

PACKAGE = Path(__file__).parents[1]
_GRAIN = 2_000_000_000
"""Nanoseconds, the coarsest clock of a common file system (FAT)."""


def fingerprint(*parts: Any) -> str:
    """Sixteen hexadecimal digits that change when any of the parts does.

    Args:
        parts: Bytes are taken as they are, everything else as canonical JSON.

    Raises:
        TypeError: A part has no canonical JSON, so that two of them could not be told apart.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=plain).encode()
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
    index = _remembered(index_path)
    known = index.get(str(path), {})
    found = {name: [size, modified] for name, size, modified in sorted(_files(path))}
    changed = [name for name, stamp in found.items() if known.get(name, [])[:2] != stamp]
    with ThreadPoolExecutor(runtime.cores()) as pool:  # which hash side by side: hashlib lets go of the interpreter
        digests = pool.map(lambda name: file_digest(path / name if name else path), changed)
        if changed:
            digests = runtime.progress(digests, f"reading {path.name}", len(changed))
        new = dict(zip(changed, digests, strict=True))
    found = {name: [*stamp, new[name] if name in new else known[name][2]] for name, stamp in found.items()}
    # a file written just now may change again within the clock's grain, so what was read of it is not remembered
    settled = time.time_ns() - _GRAIN
    remembered = {name: entry for name, entry in found.items() if entry[1] < settled}
    if remembered != known:
        with contextlib.suppress(OSError):  # a read-only store costs only speed here
            atomic_write(index_path, json.dumps(index | {str(path): remembered}))
    return fingerprint({name: digest for name, (_, _, digest) in found.items()})


def _remembered(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Sizes, times and digests as they were last read; none where the file is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
        entries = [entry for known in found.values() for entry in known.values()]
    except (OSError, ValueError, AttributeError):
        return {}
    return found if all(isinstance(entry, list) and len(entry) == 3 for entry in entries) else {}


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
