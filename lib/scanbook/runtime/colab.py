"""Prepares Google Colab for the notebooks, whose second cell runs this file from a fresh clone.

scanbook is not installed then. Hence this module imports the standard library alone and raises no `ScanbookError`.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
DRIVE = Path("/content/drive")
"""Where Colab mounts Google Drive."""
KEPT = ("transfer", "scratch", "fine_tuning", "averaged", "unet")
"""Kinds of cached stages that are kept on Drive: trained networks, and the checkpoints of those in training.

The others, such as pixels and features, are read through memory maps, which on Drive are slow and can end the kernel. A
new runtime computes them again, and only those that a network that is not trained yet needs.
"""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def prepare(project: Path = PROJECT, drive: bool = False) -> None:
    """Make a clone the project of this process, and install scanbook where it is missing.

    It prints what is kept where, and whether the runtime has a GPU.

    Args:
        project: The clone.
        drive: Whether to mount Google Drive, which asks the user. Where it is mounted already, it is used in any case.

    Raises:
        RuntimeError: Drive was not mounted, the installed packages do not suit scanbook, or pip failed.
    """
    os.environ["SCANBOOK_HOME"] = str(project)
    if drive:
        mount()
    print(keep(project))
    print(describe_gpu())
    try:
        version("scanbook")
    except PackageNotFoundError:
        install(project)


def mount() -> None:
    """Mount Google Drive where it is not mounted yet.

    Raises:
        RuntimeError: It was not mounted, as when the user does not allow it.
    """
    if (DRIVE / "MyDrive").is_dir():
        return
    from google.colab import drive

    try:
        drive.mount(str(DRIVE))
    except Exception as error:  # of a class of Colab's that is not the same in all of its versions
        raise RuntimeError(
            f"Google Drive was not mounted ({error}); run this cell again and allow it, or set DRIVE = False"
        ) from error


def keep(project: Path) -> str:
    """Put trained networks and reports on Drive where it is mounted; return a sentence about it.

    Folders that the variables `SCANBOOK_STORE` and `SCANBOOK_REPORTS` name stay as they are.

    Args:
        project: The clone, whose store is on the runtime's disk; a link in it leads to Drive for each kind in `KEPT`.
    """
    if not (DRIVE / "MyDrive").is_dir():
        return "Google Drive is not mounted: trained networks and reports are lost when this runtime ends."
    folder = DRIVE / "MyDrive" / "scanbook"
    reports = os.environ.setdefault("SCANBOOK_REPORTS", str(folder / "reports"))
    if "SCANBOOK_STORE" in os.environ:
        return f"The store is kept in {os.environ['SCANBOOK_STORE']}, reports in {reports}."
    for kind in KEPT:
        target, link = folder / "store" / kind, project / "data" / "store" / kind
        target.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            continue
        if link.is_dir():  # trained before Drive was mounted
            # not shutil's, which sets permissions, too
            subprocess.run(["cp", "-R", f"{link}/.", target], check=True)
            shutil.rmtree(link)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    networks = f"Trained networks are kept in {folder / 'store'};\na new runtime continues from there."
    return f"{networks} Reports are kept in {reports}."


def describe_gpu() -> str:
    """Return a sentence that says whether this runtime has a GPU; the packages that use it are not imported yet."""
    if program := shutil.which("nvidia-smi"):
        command = [program, "--query-gpu=name", "--format=csv,noheader"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode == 0 and listed.stdout.strip():
            return f"Networks are trained on the GPU of this runtime: {', '.join(listed.stdout.splitlines())}."
    return "This runtime has no GPU: networks are trained on its CPU."


def install(project: Path) -> None:
    """Install scanbook from a clone.

    Installed packages stay as they are: only missing ones are installed, in versions that suit those.

    Args:
        project: The clone.

    Raises:
        RuntimeError: The installed packages do not suit scanbook, or pip failed.
    """
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
    prepare()
