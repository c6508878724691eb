"""Bundles of every format, stored beside the tests: what an older scanbook exported must be read, or refused, for good.

`PYTHONPATH=tests .venv/bin/python -m helpers.stored` stores one of today's format.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from helpers import finding_bundles, planted
from scanbook import bundle, export
from scanbook.bundle.checking import ANSWERS
from scanbook.bundle.description import CHECKSUMS, DESCRIPTION, FORMAT, SERVED

FOLDER = Path(__file__).parents[1] / "bundle" / "stored"
_OPEN = (
    "about",
    "calibration",
    "excluded",
    "hub",
    "metrics",
    "models",
    "names",
    "operating_points",
    "parity",
    "exam.metrics",
)
"""Keys of the description whose own keys are a study's."""
_CODE = ("scanbook/", "cloudformation/")
"""What runs a bundle is of no format: a bundle brings its own."""


def archive(version: int) -> Path:
    """Return the path of the stored bundle of a format."""
    return FOLDER / f"format_{version}.tar.xz"


def unpack(version: int, folder: Path) -> Path:
    """Unpack the stored bundle of a format below a folder and return its own."""
    shutil.unpack_archive(archive(version), folder, filter="data")
    return folder / "bundle"


def unpack_findings(folder: Path) -> Path:
    """Unpack the stored bundle of findings below a folder and return its own."""
    shutil.unpack_archive(findings_archive(), folder, filter="data")
    return folder / "bundle"


def layout(folder: Path) -> tuple[set[str], set[str]]:
    """Return the files of a bundle without those of models and code, and the keys of what describes it."""
    models = {path.split(".")[0] for path in bundle.FILES.values()}
    files = {
        f"{Path(name).parent}/*{Path(name).suffix}" if name.startswith("check/") else name
        for name in json.loads((folder / CHECKSUMS).read_text())
        if not name.startswith(_CODE) and name.split("/")[0].split(".")[0] not in models
    }
    keys = {*_keys(json.loads((folder / DESCRIPTION).read_text()))}
    if (folder / ANSWERS).is_file():
        keys |= {f"{ANSWERS}: {key}" for key in json.loads((folder / ANSWERS).read_text())}
    return files, keys


def _keys(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        place = f"{path}.*" if path in _OPEN else f"{path}.{key}".lstrip(".")
        yield place
        if isinstance(value, dict):
            yield from _keys(value, place)


def findings_archive() -> Path:
    """Return the path of the stored bundle of findings, of the format in which they came."""
    return FOLDER / "format_4_findings.tar.xz"


def write(folder: Path) -> bundle.Bundle:
    """Export the smallest network with all that a study's bundle has."""
    metrics = pd.DataFrame({"value": [0.5], "low": [0.4], "high": [0.6]}, index=["accuracy"])
    rates = {"sensitivity": {"value": 1.0}, "specificity": {"value": 0.5}}
    written = export.write_bundle(
        folder,
        planted.study(class_names={"ko": {"sky": "하늘"}}),
        planted.manifest(),
        planted.network("small_cnn"),
        temperature=1.7,
        abstain_below=0.4,
        metrics=metrics,
        about={"backbone": "small_cnn"},
        images=planted.pixels(),
        operating_points={"blue": {"classes": ["sky"], "threshold": 0.5, **rates}},
        dataset_card="# Card\n",
        exam={"rule": "mean", "calibration": 1.2, "abstain_below": 0.3, "metrics": {"accuracy": {"value": 0.5}}},
    )
    for style, name in bundle.FILES.items():  # as in a container: what the service does not run may be missing
        if style not in SERVED.values():
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return written


def write_findings(folder: Path) -> bundle.Bundle:
    """Write a bundle of two findings with exams, and no format but the one that is served."""
    findings = finding_bundles.names(2)
    model = {"openvino": finding_bundles.graph(folder.parent / "model.xml", 2)}
    names = {"ko": ("무기폐", "심비대")}
    exam = finding_bundles.exam(findings, "maximum")
    return finding_bundles.write(folder, 2, models=model, names=names, exam=exam, dataset_card="# Card\n")


def main() -> None:
    """Store a bundle of today's format."""
    for path, make in ((archive(FORMAT), write), (findings_archive(), write_findings)):
        if path.exists():
            print(f"{path} exists; a stored bundle stays as it is: raise FORMAT", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as work:
            folder = Path(work) / "bundle"
            make(folder)
            shutil.move(folder, Path(name) / "bundle")
            shutil.make_archive(str(path).removesuffix(".tar.xz"), "xztar", name, owner="root", group="root")


if __name__ == "__main__":
    main()
