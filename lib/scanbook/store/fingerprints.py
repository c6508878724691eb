"""Fingerprints of content: of values, and of files and folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scanbook import runtime
from scanbook.store.walk import walk
from scanbook.store.writing import atomic_write, plain

_CLOCK_STEP = 2_000_000_000
"""Step of the coarsest clock of a common file system (FAT), in nanoseconds."""


def fingerprint(*values: Any) -> str:
    """Return sixteen hexadecimal digits that change when any of the values does.

    Args:
        values: Bytes are taken as they are, everything else as canonical JSON.

    Raises:
        TypeError: A value has no canonical JSON, so that two different ones could get the same fingerprint.
    """
    digest = hashlib.sha256()
    for value in values:
        data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=plain).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_fingerprint(path: Path) -> str:
    """Return the fingerprint of a file's content, or of every file below a folder and their relative paths.

    A file is read again only when its size or modification time changed since it was last read; the store holds the
    digests.
    """
    index_path = runtime.store_dir() / "digests.json"
    index = _read_index(index_path)
    previous = index.get(str(path), {})
    stamps = {name: [size, modified] for name, size, modified in sorted(_files(path))}
    changed = [name for name, stamp in stamps.items() if previous.get(name, [])[:2] != stamp]
    # in threads: hashlib releases the interpreter's lock
    digests = runtime.in_threads(lambda name: _digest(path / name if name else path), changed)
    if changed:
        digests = runtime.progress(digests, f"reading {path.name}", len(changed))
    new = dict(zip(changed, digests, strict=True))
    files = {name: [*stamp, new[name] if name in new else previous[name][2]] for name, stamp in stamps.items()}
    # A file that was just written may change again within a step of the clock, and one that could not be read may be
    # made readable, so their digests are not stored.
    settled = time.time_ns() - _CLOCK_STEP
    stored = {name: entry for name, entry in files.items() if entry[1] < settled and entry[2]}
    if stored != previous:
        with contextlib.suppress(OSError):  # a read-only store costs only speed here
            atomic_write(index_path, json.dumps(index | {str(path): stored}))
    return fingerprint({name: digest for name, (_, _, digest) in files.items()})


def _read_index(path: Path) -> dict[str, dict[str, list[Any]]]:
    """Return size, modification time and digest of files by folder and name; empty for a missing or damaged index."""
    try:
        index = json.loads(path.read_bytes())
        entries = [entry for files in index.values() for entry in files.values()]
    except (OSError, ValueError, AttributeError):
        return {}
    return index if all(isinstance(entry, list) and len(entry) == 3 for entry in entries) else {}


def _digest(path: Path) -> str:
    """Return the digest of a file, "" where it cannot be read: it is then listed as unreadable."""
    try:
        return file_digest(path)
    except OSError:
        return ""


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and modification time of every file that is not hidden; an empty name where `path` is a file."""
    if path.is_file():
        status = path.stat()
        yield "", status.st_size, status.st_mtime_ns
    elif path.is_dir():
        top = os.path.join(path, "")
        for files in walk(path).files.values():
            for entry in files:
                status = entry.stat()
                yield entry.path.removeprefix(top), status.st_size, status.st_mtime_ns
