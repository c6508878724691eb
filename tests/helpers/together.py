"""One network trained by several processes: the command, and the curve of one process that others are compared with."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from helpers.projects import ROOT

PLAN = "augmentation=dermoscopy+mixup scratch.balance=class_weights scratch.epochs=8 scratch.learning_rate=0.003"
TRAIN = (
    *(sys.executable, "-m", "scanbook.cli", "train", "synthetic", "--profile", "smoke"),
    *("--backbone", "baseline_cnn", "--from-scratch", "--set", PLAN),
)
_COMPILED = tempfile.TemporaryDirectory(prefix="compiled-")  # removed when the tests end


def own_folders(folder: Path) -> dict[str, str]:
    """Return the variables of processes that keep all but compiled steps below a folder, and train on processors."""
    folder.mkdir(exist_ok=True)
    names = {f"SCANBOOK_{name.upper()}": str(folder / name) for name in ("store", "reports", "data")}
    return names | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": _COMPILED.name}


def start(folder: Path, *words: str, devices: int = 1) -> subprocess.Popen[str]:
    """Start a process that trains on so many devices."""
    own = own_folders(folder) | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*TRAIN, *words], cwd=ROOT, env=os.environ | own, **pipes)


def outputs(*processes: subprocess.Popen[str]) -> list[str]:
    """Return what each process printed, once all have ended; each must have succeeded."""
    texts = [process.communicate(timeout=600)[0] for process in processes]
    for process, text in zip(processes, texts, strict=True):
        assert process.returncode == 0, text
    return texts


def history(folder: Path) -> pd.DataFrame:
    """Return the losses and accuracies of the one network from scratch in the store below a folder."""
    (path,) = (folder / "store" / "scratch").glob("*/history.csv")
    return pd.read_csv(path).drop(columns="seconds")


def check_same_curve(curve: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Two trainings are one: to float32's digits while rounding has not grown yet, and closely to the end.

    Sums are taken in another order; Adam's first steps, which follow signs, make more of it with every epoch. An
    accuracy counts the few images of the smoke profile, of which two may then change sides.
    """
    pd.testing.assert_frame_equal(curve.head(2), expected.head(2), rtol=1e-4)
    counts = ["accuracy", "validation_accuracy"]
    pd.testing.assert_frame_equal(curve.drop(columns=counts), expected.drop(columns=counts), rtol=0.05)
    pd.testing.assert_frame_equal(curve[counts], expected[counts], atol=0.07)
