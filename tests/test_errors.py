"""The command line: what is wrong is one line on stderr, exit status 1, no traceback, and nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scanbook.data import images
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
def project(tmp_path: Path) -> Path:
    """The project's notebooks and studies, with one more study, in a folder of their own."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    (tmp_path / "notebooks" / "studies" / "mnist.yaml").write_text(MEDMNIST)
    return tmp_path


def refusal(project: Path, *arguments: str, **environment: str) -> str:
    """The one line that a command answers with, after making sure that it is one and left nothing behind."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("SCANBOOK_")}
    variables |= {"SCANBOOK_HOME": str(project), "SCANBOOK_DATA": str(project / "data")}
    variables |= {"SCANBOOK_STORE": str(project / "store"), "SCANBOOK_REPORTS": str(project / "reports")} | environment
    done = subprocess.run(
        [sys.executable, "-m", "scanbook.cli", *arguments],
        capture_output=True,
        text=True,
        env=variables,
        cwd=project,
        check=False,
        timeout=120,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert len(lines) == 1 and lines[0].startswith("scanbook: "), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    if arguments[0] != "run" or not done.stdout:
        assert done.stdout == "", "nothing for Make to run"
        assert not (project / "reports").exists() and not (project / "data").exists()
    store = project / "store"
    kept = [path for path in store.rglob("*") if path.suffix != ".lock" and path.name != "digests.json"]
    assert not [path for path in kept if path.is_file()], "nothing half-written stays in the store"
    return lines[0]


def layout(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        (root / name).write_bytes(images.encode_png(pixels))
    return root


WRONG = {
    "a study": (("--study", "melanom"), ("'melanom'", "synthetic", "ham10000")),
    "a profile": (("--profile", "tiny"), ("'tiny'", "smoke, quick, full")),
    "a key": (("--set", "fine_tuning.epoch=3"), ("'fine_tuning.epoch'", "epochs")),
    "a value": (("--set", "image_size=huge"), ("image_size", "'huge'", "integer")),
    "a backbone": (("--set", "backbones=[resnet51]"), ("'resnet51'", "resnet50")),
    "an override": (("--set", "epochs"), ("'epochs'", "key=value")),
    "a missing dataset": (("--study", "ham10000"), ("ham10000", "no data at", "DATA=path", "https://doi.org")),
    "a path": (("--study", "folder", "--data", "nowhere/images"), ("nowhere/images", "DATA")),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_word_is_one_line(what: str, project: Path) -> None:
    arguments, named = WRONG[what]
    message = refusal(project, "plan", *arguments)
    assert all(part in message for part in named), message


def test_run_refuses_as_plan_does(project: Path) -> None:
    for what in ("a key", "a missing dataset"):
        arguments, named = WRONG[what]
        message = refusal(project, "run", "01_eda", *arguments)
        assert all(part in message for part in named), message


def test_an_unknown_notebook_is_one_line(project: Path) -> None:
    message = refusal(project, "run", "08_magic")
    assert "'08_magic'" in message and "01_eda" in message


def test_an_unknown_profile_in_the_environment_is_one_line(project: Path) -> None:
    assert "'tiny'" in refusal(project, "plan", SCANBOOK_PROFILE="tiny")


def test_a_traceback_is_there_when_asked_for(project: Path) -> None:
    with pytest.raises(AssertionError, match="Traceback"):
        refusal(project, "plan", "--study", "melanom", "--traceback")


def run_eda(project: Path, study: str, data: Path | None, **environment: str) -> str:
    place = ["--data", str(data)] if data else []
    message = refusal(project, "run", "01_eda", "--study", study, "--profile", "smoke", *place, **environment)
    folder = project / "reports" / study / "smoke" / "01_eda"
    assert (folder / "report.html").is_file(), "a readable error page"
    assert not (folder / "metrics.json").exists(), "which never looks like a whole run"
    return message


def spoilt_ham(root: Path) -> Path:
    """HAM10000's layout whose table lacks the column of labels."""
    layout(root, "HAM10000_images_part_1/ISIC_1.jpg", "HAM10000_images_part_2/ISIC_2.jpg")
    header = "lesion_id,image_id,dx_type,age,sex,localization"
    rows = "HAM_1,ISIC_1,histo,50,male,back\nHAM_2,ISIC_2,histo,60,male,face"
    (root / "HAM10000_metadata.csv").write_text(f"{header}\n{rows}\n")
    return root


def test_a_table_without_the_named_column_is_one_line_of_the_terminal(project: Path, tmp_path: Path) -> None:
    message = run_eda(project, "ham10000", spoilt_ham(tmp_path / "ham"))
    assert "HAM10000_metadata.csv has no column 'dx'" in message and "lesion_id, image_id" in message
    assert "01_eda failed" in message and "report.html" in message


@pytest.mark.slow
def test_an_empty_class_folder_is_one_line_of_the_terminal(project: Path, tmp_path: Path) -> None:
    root = layout(tmp_path / "own", "ill/1.png", "well/1.png")
    (root / "unsure").mkdir()
    message = run_eda(project, "folder", root)
    assert f"class folder {root / 'unsure'} holds no image" in message and "remove the folder" in message


@pytest.mark.slow
def test_a_missing_image_folder_and_a_lone_class_are_one_line(project: Path, tmp_path: Path) -> None:
    root = spoilt_ham(tmp_path / "ham")
    shutil.rmtree(root / "HAM10000_images_part_2")
    table = root / "HAM10000_metadata.csv"
    table.write_text(table.read_text().replace("dx_type", "dx", 1).replace("localization", "localization,dx_type"))
    message = run_eda(project, "ham10000", root)
    assert "names 1 images that are in no image folder" in message and "HAM10000_images_part_2" in message
    assert "at least two classes" in run_eda(project, "folder", layout(tmp_path / "own", "ill/1.png", "ill/2.png"))


@pytest.mark.slow
def test_a_broken_archive_and_no_network_are_one_line(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "retinamnist.npz"
    path.write_bytes(b"<html>not found</html>")
    assert f"{path} is not a MedMNIST archive" in run_eda(project, "mnist", path)
    proxy = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    message = run_eda(project, "mnist", None, NO_PROXY="", no_proxy="", **proxy)
    assert "cannot download retinamnist.npz" in message and medmnist.ZENODO.format(file="retinamnist.npz") in message
    assert "DATA=path/to/retinamnist.npz" in message
