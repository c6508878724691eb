"""Small projects: notebooks that import no heavy package, with a study to run them on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from scanbook import config
from scanbook.reporting import suite

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = 'STUDY = "synthetic"\nPROFILE = ""\nDATA = ""\nSET = ""'
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/)"
)
RECORD = """
import json, os, pathlib, sys
folder = pathlib.Path(os.environ["SCANBOOK_REPORTS"]) / STUDY / PROFILE / "{name}"
(folder / "results.json").write_text(json.dumps({{"headline": "answer <42>", "set": SET}}))
measured = {{"prefix": sys.prefix, "cwd": os.getcwd(), "headless": os.environ["SCANBOOK_HEADLESS"]}}
measured["networks were trained on"] = ["CPU", "GPU: Tesla T4"]
(folder / "measurements.json").write_text(json.dumps(measured))
"""


def shipped() -> list[str]:
    """The studies that come with scanbook: without one's own, which git does not track."""
    command = ["git", "-C", str(ROOT), "ls-files", "notebooks/studies"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    tracked = {Path(path).stem for path in listed}
    return [name for name in config.studies() if name in tracked or not tracked]


def write_notebook(folder: Path, name: str, *steps: str, outputs: bool = False) -> Path:
    """A small notebook: title, parameters, then a section for each step."""
    old_outputs = [{"output_type": "stream", "name": "stdout", "text": "old"}] if outputs else []
    cells = [
        {"cell_type": "markdown", "source": f"# Title of {name}\n\nA question?\n\n{BADGE}", "metadata": {}},
        {"cell_type": "code", "source": PARAMETERS, "metadata": {"tags": ["parameters"]}},
    ]
    for number, step in enumerate(steps, 1):
        cells.append({"cell_type": "markdown", "source": f"## {number}. Step {number}", "metadata": {}})
        cells.append({"cell_type": "code", "source": step, "metadata": {}})
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
        if cell["cell_type"] == "code":
            cell |= {"outputs": old_outputs, "execution_count": None}
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    path = folder / "notebooks" / f"{name}.ipynb"
    path.write_text(json.dumps(content))
    return path


def make_project(folder: Path) -> Path:
    """A project in a folder."""
    studies = folder / "notebooks" / "studies"
    studies.mkdir(parents=True)
    for name in ("synthetic", "synthetic_hospital", "folder"):
        (studies / f"{name}.yaml").write_text((ROOT / "notebooks" / "studies" / f"{name}.yaml").read_text())
    for name in suite.NOTEBOOKS:
        write_notebook(folder, name, RECORD.format(name=name))
    return folder
