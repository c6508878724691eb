"""What is wrong with images or study is told before a notebook starts, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.layouts import layout, make_study
from scanbook import cli
from scanbook.data import images, splits
from scanbook.errors import ScanbookError
from scanbook.runner import schedule


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE", "REPORTS"):
        monkeypatch.setenv(f"SCANBOOK_{name}", str(tmp_path / name))
    monkeypatch.setenv("SCANBOOK_HEADLESS", "1")


def write_images(root: Path, count: int = 12) -> Path:
    return layout(root, *(f"{label}/{number}{label}.png" for label in "ab" for number in range(count)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluation": {"targets": {"ill": ["fog"]}}}, "target 'ill' has class 'fog'"),
        ({"evaluation": {"prevalence": {"fog": 0.1}}}, "prevalence names 'fog'"),
        ({"evaluation": {"subgroups": ["agee"]}}, "no metadata 'agee' for subgroups"),
        ({"class_names": {"pt": {"fog": "névoa"}}}, "class_names.pt names the class 'fog'"),
    ],
)
def test_options_that_do_not_fit_the_images_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    study = make_study(write_images(tmp_path / "images"), **options)
    with pytest.raises(ScanbookError, match=message):
        splits.split_study(study)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "a").rename(root / "train"), "mixes split folders with 'b'"),
        (
            lambda root: [path.write_bytes(b"x") for path in (root / "a").iterdir()],
            "no training image of class 'a'; of its 12 images, 12 excluded",
        ),
        (lambda root: (root / "labels.csv").write_text("file,kind\n1a.png,x\n"), "labels.csv names images of"),
    ],
    ids=["layout", "unreadable", "table"],
)
def test_reports_tells_what_is_wrong_before_a_notebook_starts(
    spoil, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_images(tmp_path / "images")
    spoil(root)
    assert cli.main(["reports", "--study", "folder", "--profile", "smoke", "--data", str(root)]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "it/s" not in line and "images:" not in line]
    assert len(lines) == 1 and lines[0].startswith("scanbook: ") and message in lines[0]
    assert not (tmp_path / "REPORTS").exists()


def test_reports_prints_what_it_does_not_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images(tmp_path / "images")
    (root / "a" / "film.gif").write_bytes(b"GIF8")
    (root / "loose.png").write_bytes(images.encode_png(np.zeros((8, 8, 3), np.uint8)))
    monkeypatch.setattr(schedule, "run_stale", lambda *arguments: True)
    assert cli.main(["reports", "--study", "folder", "--profile", "smoke", "--data", str(root)]) == 0
    error = capsys.readouterr().err
    assert "folder/smoke: Not used: 1 .gif (formats that are not read; convert images among them" in error
    assert "1 .png (they lie outside the folders that are read)." in error
