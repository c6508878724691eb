"""The files of a folder, at any depth, each once, whatever links it holds."""

from __future__ import annotations

import os
from dataclasses import dataclass

from scanbook.errors import DataError

_SYSTEM = frozenset({"$RECYCLE.BIN", "lost+found", "System Volume Information", "@eaDir", "desktop.ini", "Thumbs.db"})


@dataclass(frozen=True)
class Walk:
    """What a folder holds.

    Attributes:
        folders: By path of a folder, the names of the folders in it.
        files: By path of a folder, the files in it.
        skipped: Links to folders that were not followed: what they lead to is in `folders` already, or contains it.
    """

    folders: dict[str, list[str]]
    files: dict[str, list[os.DirEntry[str]]]
    skipped: list[str]


def walk(top: str | os.PathLike[str]) -> Walk:
    """List a folder at any depth. Links are followed, after the folders themselves, to each folder once.

    A link to nothing, what is neither a file nor a folder, and what is hidden or belongs to the system or a program,
    such as Jupyter's checkpoints, is not listed.

    Args:
        top: The folder.

    Raises:
        DataError: A folder cannot be read.
    """
    try:
        return _walk(top)
    except PermissionError as error:
        raise DataError(
            f"cannot read the folder {error.filename} (permission denied); expected to read every "
            "folder of the dataset; let your user read it (chmod -R u+rX), or move it away"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the folder {error.filename} ({error.strerror})") from error


def _walk(top: str | os.PathLike[str]) -> Walk:
    start, real_start = os.fspath(top), os.path.realpath(top)
    result = Walk({}, {}, [])
    seen, links = {real_start}, []
    pending = [(start, real_start)]
    while pending or links:
        if not pending:
            link = links.pop(0)
            real = os.path.realpath(link)
            if real in seen or real_start.startswith(os.path.join(real, "")):
                result.skipped.append(link)
                continue
            seen.add(real)
            pending.append((link, real))
        folder, real = pending.pop()
        folders, files = result.folders.setdefault(folder, []), result.files.setdefault(folder, [])
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                kind = _kind(entry)
                if kind == "file":
                    files.append(entry)
                elif kind == "link":
                    folders.append(entry.name)
                    links.append(entry.path)
                elif kind == "folder" and (inside := os.path.join(real, entry.name)) not in seen:
                    folders.append(entry.name)
                    seen.add(inside)
                    pending.append((entry.path, inside))
    for link in result.skipped:
        result.folders[os.path.dirname(link)].remove(os.path.basename(link))
    return result


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "file", "folder", "link" (to a folder), or "" for anything else, and for what is ignored."""
    if entry.name.startswith((".", "__")) or entry.name in _SYSTEM:
        return ""
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
        return "file" if entry.is_file() else ""
    except OSError:  # a link to itself
        return ""
