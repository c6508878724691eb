"""The command line: an error is one line on stderr and exit status 1, without a traceback or half-written files.

tests/runner/test_runner.py shows more errors of the command line, and tests/data/ those of each adapter.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.layouts import layout
from scanbook import cli
from scanbook.data.adapters import medmnist

ROOT = Path(__file__).resolve().parents[1]
MEDMNIST = """
study: mnist
title: RetinaMNIST
question: Any?
modality: fundus
dataset: {adapter: medmnist, flag: retinamnist}
backbones: [baseline_cnn]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another project with these notebooks and studies, and one more study."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (tmp_path / "notebooks" / "studies" / "mnist.yaml").write_text(MEDMNIST)
    monkeypatch.setenv("SCANBOOK_HOME", str(tmp_path))
    for name in ("data", "store", "reports"):
        monkeypatch.setenv(f"SCANBOOK_{name.upper()}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


INDEXES = ("digests.json", "code.json")
"""What the store knows of files that it has read: whole at any time."""


def check_line(project: Path, status: int, output: str, errors: str) -> str:
    """Return the line of an error, after checking that it is one line and that nothing half-written is left."""
    assert status == 1, (status, output, errors)
    assert errors.count("\n") == 1 and errors.startswith("scanbook: "), errors
    assert "Traceback" not in output + errors
    files = [path for path in (project / "store").rglob("*") if path.is_file()]
    assert all(path.suffix == ".lock" or path.name in INDEXES for path in files), files
    return errors


WRONG = {
    "a value": (("status", "--set", "image_size=huge"), ("image_size", "'huge'", "integer")),
    "an override": (("status", "--set", "epochs"), ("'epochs'", "key=value")),
    "a missing dataset": (
        ("reports", "--study", "ham10000"),
        ("ham10000", "no data at", "DATA=path", "https://doi.org"),
    ),
    "a backbone to train": (
        ("train", "synthetic", "--backbone", "nope"),
        ("unknown backbone 'nope'; expected one of baseline_cnn, ", "resnet50"),
    ),
    "a policy to train with": (
        ("train", "synthetic", "--policy", "dermoscopy+nope"),
        ("unknown policy 'nope'; expected one of none, ", "or several joined by +"),
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_word_is_one_line(what: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, named = WRONG[what]
    status = cli.main(arguments)
    output, errors = capsys.readouterr()
    line = check_line(project, status, output, errors)
    assert all(part in line for part in named), line
    assert output == "" and not any((project / name).exists() for name in ("reports", "data", "store"))


def run(project: Path, *arguments: str) -> str:
    """Return the line of an error of the command as its own process."""
    command = [sys.executable, "-m", "scanbook.cli", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return check_line(project, process.returncode, process.stdout, process.stderr)


def test_the_command_exits_with_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_PROFILE", "tiny")
    assert "'tiny'" in run(project, "status")


# --- errors inside a notebook


def run_eda(project: Path, *arguments: str) -> str:
    """Return the line of a run of notebook 01 that fails, after checking its error page."""
    line = run(project, "run", "01_eda", "--profile", "smoke", *arguments)
    (page,) = (project / "reports").glob("*/smoke/01_eda/report.html")
    assert not page.with_name("metrics.json").exists(), "an error page is not a whole run"
    assert "01_eda failed" in line and str(page) in line
    return line


@pytest.mark.slow
def test_a_table_without_the_named_column_is_one_line(project: Path) -> None:
    root = layout(project / "ham", "HAM10000_images_part_1/ISIC_1.jpg", "HAM10000_images_part_2/ISIC_2.jpg")
    header = "lesion_id,image_id,dx_type,age,sex,localization"
    rows = "HAM_1,ISIC_1,histo,50,male,back\nHAM_2,ISIC_2,histo,60,male,face"
    (root / "HAM10000_metadata.csv").write_text(f"{header}\n{rows}\n")
    line = run_eda(project, "--study", "ham10000", "--data", str(root))
    assert "HAM10000_metadata.csv has no column 'dx'" in line and "lesion_id, image_id" in line


@pytest.mark.slow
def test_a_download_without_a_network_is_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    line = run_eda(project, "--study", "mnist")
    assert "cannot download retinamnist.npz" in line and medmnist.ZENODO.format(file="retinamnist.npz") in line
    assert "DATA=path/to/retinamnist.npz" in line
