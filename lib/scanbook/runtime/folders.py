"""Folders of the project: data, the store of cached stages and reports, and the size that the store keeps to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from scanbook.errors import ScanbookError
from scanbook.runtime.text import legible, path_from_text

NOTEBOOK = "SCANBOOK_NOTEBOOK"
"""Variable in which the runner tells a kernel which notebook it runs."""


def project_root() -> Path:
    """Return the folder that holds `notebooks/studies`.

    It is `SCANBOOK_HOME`, else the nearest such folder above the working directory, else above this package.

    Raises:
        ScanbookError: There is no such folder.
    """
    if home := os.environ.get("SCANBOOK_HOME"):
        return Path(home).resolve()
    for start in (Path.cwd(), Path(__file__).resolve()):
        for folder in (start, *start.parents):
            if (folder / "notebooks" / "studies").is_dir():
                return folder
    raise ScanbookError(
        f"no notebooks/studies folder above {Path.cwd()}; run inside a clone of scanbook or set SCANBOOK_HOME to one"
    )


def path_in_project(text: str) -> Path:
    """Return the path of a file or folder that a study names; a relative one starts at the project."""
    return project_root() / path_from_text(text).expanduser()


def _folder(variable: str, default: str) -> Path:
    value = os.environ.get(variable)
    folder = Path(value).resolve() if value else project_root() / default
    if (name := legible(str(folder))) != str(folder):
        raise ScanbookError(
            f"{name} is a path whose bytes are not UTF-8, which a notebook cannot hold; rename the folder, or set "
            f"{variable} to another one"
        )
    return folder


def data_dir() -> Path:
    """Return the folder of downloaded and unpacked datasets (`SCANBOOK_DATA`, else `data/`)."""
    return _folder("SCANBOOK_DATA", "data")


def store_dir() -> Path:
    """Return the folder of cached stages (`SCANBOOK_STORE`, else `data/store/`)."""
    return _folder("SCANBOOK_STORE", "data/store")


def reports_dir() -> Path:
    """Return the folder of HTML reports (`SCANBOOK_REPORTS`, else `reports/`)."""
    return _folder("SCANBOOK_REPORTS", "reports")


def store_limit() -> int:
    """Return the size in bytes that the store is kept within (`SCANBOOK_STORE_GIB`, else 20 GiB).

    Raises:
        ScanbookError: The variable is not a number, or is negative.
    """
    value = os.environ.get("SCANBOOK_STORE_GIB", "20")
    try:
        size = float(value)
        if not size >= 0:  # nor NaN
            raise ValueError
    except ValueError as error:
        raise ScanbookError(
            f"SCANBOOK_STORE_GIB is {value!r}, expected a number of GiB; correct or unset it"
        ) from error
    return int(min(size * 2**30, sys.maxsize))
