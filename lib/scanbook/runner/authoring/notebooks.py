"""The template of a notebook: the badge, the cell that prepares Colab, and a new notebook that runs."""

from __future__ import annotations

from functools import cache
from importlib.metadata import metadata
from pathlib import Path

from scanbook import runtime, store
from scanbook.errors import NotebookError
from scanbook.reporting import suite

COLAB = "https://colab.research.google.com"

_BOOTSTRAP = """\
# Colab alone: fetch scanbook and install what is missing; Colab's own packages stay as they are.
import sys

# True keeps trained networks and reports in your Google Drive; after a disconnect, run the notebook again.
DRIVE = False

if "google.colab" in sys.modules:
    import runpy
    from subprocess import run

    run("test -d scanbook || git clone --depth=1 {repository}", shell=True, check=True)
    runpy.run_path("scanbook/lib/scanbook/runtime/colab.py")["prepare"](drive=DRIVE)"""

_OPENING = """\
# {title}

What does this notebook answer?

{badge}"""

_PARAMETERS = """\
# STUDY: a file of notebooks/studies. PROFILE: smoke, quick or full; "" for the default.
# DATA: folder or file of the images; "" for the study's own place. SET: overrides, such as "fine_tuning.epochs=3".
STUDY = "synthetic"
PROFILE = ""
DATA = ""
SET = \"\""""

_SETUP = """\
from scanbook import training
from scanbook.data import splits
from scanbook.reporting import notebook

session = notebook.start("{name}", STUDY, PROFILE, DATA, SET)
study = session.study
manifest = training.prepare(study)"""

_SECTION = """\
## 1. The images

How many images of each class, or with each finding, there are in each split."""

_CALL = """\
counts = splits.image_counts(manifest)
session.table("images", counts, "Images by label and split")"""

_RECORD = """\
kind = "findings" if manifest.findings else "classes"
headline = f"{len(manifest.frame)} images, {len(manifest.names)} {kind}"
session.answer([f"The dataset has {headline}."])
session.result("headline", headline)
session.finish()"""


@cache
def repository() -> str:
    """Return the address of the repository, from `[project.urls]` of pyproject.toml at the time of installation.

    Raises:
        NotebookError: The installed scanbook names no repository.
    """
    for line in metadata("scanbook").get_all("Project-URL") or ():
        label, _, address = line.partition(", ")
        if label == "Repository":
            return address
    raise NotebookError("the installed scanbook names no repository; run make setup, which installs it again")


def badge(name: str) -> str:
    """Return the Markdown of the badge that opens a notebook in Colab.

    Args:
        name: The notebook's file name without `.ipynb`.
    """
    path = repository().removeprefix("https://github.com/")
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{path}/blob/main/notebooks/{name}.ipynb)"


def bootstrap() -> str:
    """Return the source of a notebook's second cell."""
    return _BOOTSTRAP.format(repository=repository())


def create(name: str) -> Path:
    """Write a new notebook that keeps the contract.

    Args:
        name: A number and words, such as `10_my_question`.

    Returns:
        Its path.

    Raises:
        NotebookError: The name is not one of a notebook, or is taken.
    """
    from nbformat import v4

    if not suite.NAME.fullmatch(name):
        raise NotebookError(
            f"a notebook cannot be named {name!r}; expected a number of two digits and words in small letters, "
            "such as make new-notebook NAME=10_my_question"
        )
    path = runtime.project_root() / "notebooks" / f"{name}.ipynb"
    if path.exists():
        raise NotebookError(f"{path} exists; choose another name, or remove it")
    title = name[3:].replace("_", " ").capitalize()
    parameters = v4.new_code_cell(_PARAMETERS, metadata={"tags": ["parameters"]})
    content = v4.new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        cells=[
            v4.new_markdown_cell(_OPENING.format(title=title, badge=badge(name))),
            v4.new_code_cell(bootstrap()),
            parameters,
            v4.new_code_cell(_SETUP.format(name=name)),
            v4.new_markdown_cell(_SECTION),
            v4.new_code_cell(_CALL),
            v4.new_markdown_cell("## 2. Results"),
            v4.new_code_cell(_RECORD),
        ],
    )
    store.atomic_write(path, v4.writes(content) + "\n")
    return path
