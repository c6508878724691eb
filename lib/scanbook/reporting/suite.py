"""The notebooks and the order in which they are run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from scanbook import runtime
from scanbook.errors import RunError

ORDER: tuple[tuple[str, ...], ...] = (
    ("01_eda",),
    ("02_segmentation", "03_augmentation", "04_transfer_learning"),
    ("05_fine_tuning",),
    ("06_hardware_benchmark",),
    ("07_export_flask",),
)
"""Ranks of notebooks. Those of one rank may run side by side; a rank starts when the one before it is done.

No notebook reads what another wrote. The order only lets a later one find in the store what an earlier one computed.
"""

NOTEBOOKS: tuple[str, ...] = tuple(name for rank in ORDER for name in rank)
"""The notebooks of the suite, in the order in which they are run."""

NAME = re.compile(r"\d\d_[a-z0-9_]+")
"""What a notebook is called; other files beside them, such as JupyterLab's copies, are none of the suite."""

BENCHMARK = "06_hardware_benchmark"
"""The notebook that measures the machine, and so never shares it, and that reads the price table."""


def notebooks() -> tuple[str, ...]:
    """Every notebook that is run: those of the suite, then the user's own, by name.

    The user's own are the other files of `notebooks/` with such a name, as `08_my_question.ipynb` has.
    """
    found = {file.stem for file in (runtime.project_root() / "notebooks").glob("*.ipynb")}
    return (*NOTEBOOKS, *sorted(name for name in found - set(NOTEBOOKS) if NAME.fullmatch(name)))


def before(name: str) -> set[str]:
    """Notebooks that must be whole before `name` is run; for one of the user's own, all of the suite.

    They are those of the ranks before its own but for the benchmark: nothing is computed there that others need, and a
    lock sees to it that it has the machine to itself.
    """
    for number, rank in enumerate(ORDER):
        if name in rank:
            return {earlier for each in ORDER[:number] for earlier in each} - {BENCHMARK}
    return set(NOTEBOOKS) - {BENCHMARK}


def after(name: str) -> list[str]:
    """Notebooks that wait for `name`, in the order of running."""
    return [each for each in notebooks() if name in before(each)]


def path(name: str) -> Path:
    """File of a notebook.

    Raises:
        RunError: There is no such notebook.
    """
    folder = runtime.project_root() / "notebooks"
    file = folder / f"{name}.ipynb"
    if not file.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.ipynb"))) or "none"
        raise RunError(f"unknown notebook {name!r}; {folder} holds {known}")
    return file


def cells(name: str) -> list[dict[str, Any]]:
    """Cells of a notebook, each with its source as one string.

    Raises:
        RunError: There is no such notebook, or it is not a notebook.
    """
    file = path(name)
    try:
        found = json.loads(file.read_bytes())["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in found]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} is not a Jupyter notebook (JSON with cells); restore it from version control"
        ) from error


def title(name: str) -> str:
    """First heading of a notebook."""
    lines = (line for cell in cells(name) if cell["cell_type"] == "markdown" for line in cell["source"].splitlines())
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), name)
