"""Prepares Google Colab for the notebooks, whose second cell runs this file from a fresh clone.

scanbook is not installed then. Hence this imports the standard library alone, and its errors are no `ScanbookError`.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def prepare(project: Path) -> None:
    """Makes a clone the project of this process, and installs scanbook from it where it is not installed.

    Every package that is there stays as it is: only missing ones are installed, in versions that suit those.

    Args:
        project: The clone.

    Raises:
        RuntimeError: What is there does not suit scanbook, or pip failed.
    """
    os.environ["SCANBOOK_HOME"] = str(project)
    try:
        version("scanbook")
        return
    except PackageNotFoundError:
        pass
    there = subprocess.run([*PIP, "list", "--format=freeze"], capture_output=True, text=True, check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(there.stdout)
        constraints.flush()
        # not PIP_CONSTRAINT, which would hold for what scanbook is built with, too
        command = [*PIP, "install", "--progress-bar=off", "--constraint", constraints.name, str(project)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"scanbook cannot be installed beside this runtime's packages: {reason(done.stdout)}; "
            "choose an earlier version of the runtime (Runtime, Change runtime type) and run this cell again"
        )
    importlib.invalidate_caches()


def reason(messages: str) -> str:
    """What pip says is wrong, as one line: the requirements that conflict, else its last error.

    Args:
        messages: What it wrote, on both its streams.
    """
    lines = messages.splitlines()
    conflict = [number for number, line in enumerate(lines) if "conflict is caused by" in line]
    if conflict:
        indented = (line for line in lines[conflict[-1] + 1 :] if line.startswith(" "))
        return ", ".join(line.strip() for line in indented)
    errors = [line.strip() for line in lines if line.strip().lower().startswith("error:")]
    return (errors or [line for line in lines if line.strip()] or ["pip said nothing"])[-1]


if __name__ == "__main__":
    prepare(Path(__file__).resolve().parents[3])
