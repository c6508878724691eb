"""Whole studies, run in folders of their own, and what they leave there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scanbook.reporting.suite import NOTEBOOKS

ROOT = Path(__file__).parents[2]
Done = subprocess.CompletedProcess[str]


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Return the variables of a process with all its folders below one; it has no Keras cache unless one is named."""
    (folder / "home").mkdir(exist_ok=True)
    own = {"HOME": str(folder / "home")}
    own |= {f"SCANBOOK_{name.upper()}": str(folder / name) for name in ("reports", "store", "data")}
    return {key: value for key, value in os.environ.items() if key != "KERAS_HOME"} | own | variables


def run(*words: str, folder: Path, core: int | None = None, cwd: Path = ROOT, **variables: str) -> Done:
    """Run a command on one core, or on all."""
    command, own = [*pinned(core), *words], environment(folder, **variables)
    return subprocess.run(command, cwd=cwd, env=own, capture_output=True, text=True, check=False)


def pinned(core: int | None) -> list[str]:
    """Return the words before a command that keep it on one core, where the system has such a command."""
    return ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []


def results(folder: Path, study: str, profile: str, names: Sequence[str] = NOTEBOOKS) -> dict[str, dict[str, Any]]:
    """Return what notebooks of a study recorded, by their names."""
    reports = folder / "reports" / study / profile
    return {name: json.loads((reports / name / "results.json").read_text()) for name in names}


def unpack_images(archive: str, folder: Path) -> Path:
    """Unpack an archive of real images; return its folder."""
    with zipfile.ZipFile(Path(os.environ["SCANBOOK_REAL_DATA"]) / archive) as packed:
        packed.extractall(folder)
    return folder


def keras_home(folder: Path) -> str:
    """Return where ImageNet weights are, or an empty place."""
    return os.environ.get("KERAS_HOME", str(folder / "home" / ".keras"))


def check_all_classes(folder: Path, study: str, classes: int) -> None:
    """Check that every class of a dataset was learned."""
    [tuned] = results(folder, study, "smoke", ["05_fine_tuning"]).values()
    assert len(tuned["per_class"]) == classes + len(("macro average", "weighted average"))
