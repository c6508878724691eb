"""Makes a notebook that keeps the contract and runs, for its author to go on from."""

from __future__ import annotations

from pathlib import Path

from scanbook import runtime, store
from scanbook.errors import NotebookError
from scanbook.reporting import suite
from scanbook.runner.authoring import cells

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
from scanbook import notebook, splits

session = notebook.start("{name}", STUDY, PROFILE, DATA, SET)
study = session.study
manifest = splits.prepare(study)"""

_SECTION = """\
## 1. The images

How many images of each class there are in each part."""

_CALL = """\
counts = splits.table(manifest)
session.table("images", counts, "Images by class and split")"""

_RECORD = """\
session.result("headline", f"{len(manifest.frame)} images of {len(manifest.classes)} classes")
session.finish()"""


def create(name: str) -> Path:
    """Writes a new notebook.

    Args:
        name: A number and words, such as `08_my_question`.

    Returns:
        Its path.

    Raises:
        NotebookError: The name is none, or is taken.
    """
    from nbformat import v4

    if not suite.NAME.fullmatch(name):
        raise NotebookError(
            f"a notebook cannot be named {name!r}; expected a number of two digits and words in small letters, "
            "such as make new-notebook NAME=08_my_question"
        )
    path = runtime.project_root() / "notebooks" / f"{name}.ipynb"
    if path.exists():
        raise NotebookError(f"{path} is there already; choose another name, or remove it")
    title = name[3:].replace("_", " ").capitalize()
    parameters = v4.new_code_cell(_PARAMETERS, metadata={"tags": ["parameters"]})
    content = v4.new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        cells=[
            v4.new_markdown_cell(_OPENING.format(title=title, badge=cells.badge(name))),
            v4.new_code_cell(cells.bootstrap()),
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
