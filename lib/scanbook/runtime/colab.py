"""Prepares Google Colab for the notebooks, whose second cell runs this file from a fresh clone.

scanbook is not installed then. Hence this module imports the standard library alone and raises no `ScanbookError`.
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
    """Make a clone the project of this process, and install scanbook from it where it is not installed.

    Installed packages stay as they are: only missing ones are installed, in versions that suit those.

    Args:
        project: The clone.

    Raises:
        RuntimeError: The installed packages do not suit scanbook, or pip failed.
    """
    os.environ["SCANBOOK_HOME"] = str(project)
    try:
        version("scanbook")
        return
    except PackageNotFoundError:
        pass
    installed = subprocess.run([*PIP, "list", "--format=freeze"], capture_output=True, text=True, check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write(installed.stdout)
        constraints.flush()
        # not PIP_CONSTRAINT, which would apply to the packages that build scanbook, too
        command = [*PIP, "install", "--progress-bar=off", "--constraint", constraints.name, str(project)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        raise RuntimeError(
            f"scanbook cannot be installed beside this runtime's packages: {failure_reason(result.stdout)}; "
            "choose an earlier version of the runtime (Runtime, Change runtime type) and run this cell again"
        )
    importlib.invalidate_caches()


def failure_reason(output: str) -> str:
    """Return why pip failed, as one line: the requirements that conflict, else its last error.

    Args:
        output: What pip wrote to both its streams.
    """
    lines = output.splitlines()
    conflicts = [number for number, line in enumerate(lines) if "conflict is caused by" in line]
    if conflicts:
        indented = (line for line in lines[conflicts[-1] + 1 :] if line.startswith(" "))
        return ", ".join(line.strip() for line in indented)
    errors = [line.strip() for line in lines if line.strip().lower().startswith("error:")]
    return (errors or [line for line in lines if line.strip()] or ["pip wrote nothing"])[-1]


if __name__ == "__main__":
    prepare(Path(__file__).resolve().parents[3])
