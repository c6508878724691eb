"""Files that are never half-written: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from scanbook import runtime

_LONE = re.compile("[\ud800-\udfff]")
"""What UTF-8 cannot hold."""


def plain(value: Any) -> Any:
    """Return the JSON equivalent of a value that is none itself.

    Raises:
        TypeError: There is no equivalent.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):  # NumPy's arrays and numbers; the text of a long array is abridged
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no content that a fingerprint or a JSON file can hold")


def atomic_write(path: Path, data: str | bytes) -> None:
    r"""Write a file under a temporary name, then rename it: readers see the old content or the new, never half of it.

    Text is written as UTF-8; a byte of a file's name that is not UTF-8 becomes `\xe9`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(runtime.encode(data) if isinstance(data, str) else data)
        with contextlib.suppress(OSError):  # a file system without permissions
            os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON with its keys in their order, atomically; its text is `legible`."""
    text = json.dumps(value, indent=2, default=plain, ensure_ascii=False) + "\n"
    atomic_write(path, _LONE.sub(lambda match: json.dumps(runtime.legible(match[0]))[1:-1], text))
