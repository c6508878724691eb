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
    ("08_external_validation",),
    ("09_pitfalls",),
)
"""Ranks of notebooks. Those of one rank may run at the same time; a rank starts when the previous one is done.

No notebook reads the files of another. The order only lets a later one find the results of an earlier one in the store.
"""

NOTEBOOKS: tuple[str, ...] = tuple(name for rank in ORDER for name in rank)
"""The notebooks of the suite, in the order in which they are run."""

NAME = re.compile(r"\d\d_[a-z0-9_]+")
"""Name of a notebook; other files in the folder, such as JupyterLab's copies, are not part of the suite."""

FINE_TUNING = "05_fine_tuning"
"""The notebook that evaluates every outer fold of cross-validation."""

BENCHMARK = "06_hardware_benchmark"
"""The notebook that measures the machine, which it never shares, and that reads the price table."""
EXPORT = "07_export_flask"
"""The notebook that exports the study's model."""

EXTERNAL = "08_external_validation"
"""The notebook that is run only where the study, or the command, names another source of images."""


def notebooks(external: bool = True) -> tuple[str, ...]:
    """Return every notebook that is run: those of the suite, then the user's own, by name.

    The user's own are the other files of `notebooks/` with such a name, as `10_my_question.ipynb` has.

    Args:
        external: Whether another source of images is named, so that `EXTERNAL` is one of them.
    """
    names = {file.stem for file in (runtime.project_root() / "notebooks").glob("*.ipynb")}
    suite = tuple(name for name in NOTEBOOKS if external or name != EXTERNAL)
    return (*suite, *sorted(name for name in names - set(NOTEBOOKS) if NAME.fullmatch(name)))


def before(name: str) -> set[str]:
    """Return the notebooks that must be whole before `name` is run; for one of the user's own, all of the suite.

    They are those of the previous ranks except the benchmark: other notebooks do not need its results, and a lock
    keeps the machine free for it.
    """
    for number, rank in enumerate(ORDER):
        if name in rank:
            return {earlier for previous in ORDER[:number] for earlier in previous} - {BENCHMARK}
    return set(NOTEBOOKS) - {BENCHMARK}


def after(name: str) -> list[str]:
    """Return the notebooks that wait for `name`, in the order of running."""
    return [later for later in notebooks() if name in before(later)]


def path(name: str) -> Path:
    """Return the file of a notebook.

    Raises:
        RunError: There is no such notebook.
    """
    folder = runtime.project_root() / "notebooks"
    file = folder / f"{name}.ipynb"
    if not file.is_file():
        available = ", ".join(sorted(path.stem for path in folder.glob("*.ipynb"))) or "none"
        raise RunError(f"unknown notebook {name!r}; {folder} holds {available}")
    return file


def cells(name: str) -> list[dict[str, Any]]:
    """Return the cells of a notebook, each with its source as one string.

    Raises:
        RunError: There is no such notebook, or it is not a notebook.
    """
    file = path(name)
    try:
        content = json.loads(file.read_bytes())
        return [cell | {"source": "".join(cell["source"])} for cell in content["cells"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} is not a Jupyter notebook (JSON with cells); restore it from version control"
        ) from error


def script(name: str) -> str:
    """Return the code of a notebook's cells."""
    return "\n".join(cell["source"] for cell in cells(name) if cell["cell_type"] == "code")


def takes(name: str, parameter: str) -> bool:
    """Return whether the parameters of a notebook include one beside those that all have."""
    tagged = (cell["source"] for cell in cells(name) if "parameters" in cell.get("metadata", {}).get("tags", []))
    return any(re.search(rf"^{parameter} *=", source, re.MULTILINE) for source in tagged)


def title(name: str) -> str:
    """Return the first heading of a notebook."""
    lines = (line for cell in cells(name) if cell["cell_type"] == "markdown" for line in cell["source"].splitlines())
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), name)
