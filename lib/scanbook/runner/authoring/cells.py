"""What every notebook has word for word: the badge, and the cell that prepares Colab."""

from __future__ import annotations

from functools import cache
from importlib.metadata import metadata

from scanbook.errors import NotebookError

COLAB = "https://colab.research.google.com"

_BOOTSTRAP = """\
# Colab alone: fetch scanbook and install what is missing; Colab's own packages stay as they are.
import sys

if "google.colab" in sys.modules:
    import os
    import runpy
    import subprocess

    if not os.path.isdir("scanbook"):
        subprocess.run(["git", "clone", "--depth=1", "{repository}", "scanbook"], check=True)
    runpy.run_path("scanbook/lib/scanbook/runtime/colab.py", run_name="__main__")"""


@cache
def repository() -> str:
    """Address of the repository: `[project.urls]` of pyproject.toml, as it was when scanbook was installed.

    Raises:
        NotebookError: scanbook was installed before it named one.
    """
    for line in metadata("scanbook").get_all("Project-URL") or ():
        label, _, address = line.partition(", ")
        if label == "Repository":
            return address
    raise NotebookError("the installed scanbook names no repository; run make setup, which installs it anew")


def badge(name: str) -> str:
    """Markdown of the badge that opens a notebook in Colab.

    Args:
        name: The notebook's file name without `.ipynb`.
    """
    path = repository().removeprefix("https://github.com/")
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{path}/blob/main/notebooks/{name}.ipynb)"


def bootstrap() -> str:
    """Source of a notebook's second cell."""
    return _BOOTSTRAP.format(repository=repository())
