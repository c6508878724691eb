"""The contract of a notebook: thin, stripped, parameterised, and always of the same shape.

Each rule yields violations: the number of a cell, counted from 1, or 0 for the whole notebook, and what to do.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scanbook.errors import NotebookError
from scanbook.reporting import suite
from scanbook.runner.authoring import notebooks

LINES = 80
"""Maximum of code lines in a notebook; blank lines and comments do not count."""
PARAMETERS = ("STUDY", "PROFILE", "DATA", "SET")
"""Names that the runner injects and that `notebook.start` takes, in this order. A notebook may have further ones,
such as BUNDLE."""
ALLOWED_METADATA = {"tags"}
ABSOLUTE = re.compile(
    r"""["'](?:/(?:home|Users|root|tmp|mnt|media|opt|var|usr|data|content|work)\b|~/|[A-Za-z]:[\\/])"""
)
"""A quoted absolute path of POSIX or Windows; a URL does not match."""

Violations = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        number: Its position, from 1.
        kind: "code", "markdown" or "raw".
        source: Its text.
        content: Its JSON in the file.
    """

    number: int
    kind: str
    source: str
    content: dict[str, Any]

    @property
    def tags(self) -> list[str]:
        """Tags of the cell."""
        return self.content.get("metadata", {}).get("tags", [])

    @cached_property
    def tree(self) -> ast.Module | None:
        """Syntax tree of a code cell, with magics and shell lines as calls; None if it is not Python."""
        try:
            return ast.parse(self.source)
        except SyntaxError:
            from IPython.core.inputtransformer2 import TransformerManager

        try:
            return ast.parse(TransformerManager().transform_cell(self.source))
        except SyntaxError:
            return None

    @property
    def statements(self) -> list[ast.stmt]:
        """Statements of the cell; none if it is not Python."""
        return self.tree.body if self.tree else []

    @property
    def nodes(self) -> list[ast.AST]:
        """Every node of the syntax tree."""
        return list(ast.walk(self.tree)) if self.tree else []


@dataclass(frozen=True)
class Notebook:
    """A notebook to check.

    Attributes:
        name: File name without `.ipynb`.
        content: JSON of the file.
        cells: Cells in order.
    """

    name: str
    content: dict[str, Any]
    cells: list[Cell]

    def of(self, kind: str) -> list[Cell]:
        """Return the cells of a kind."""
        return [cell for cell in self.cells if cell.kind == kind]


def read(path: Path) -> Notebook:
    """Read a notebook.

    Raises:
        NotebookError: There is no such file, or it is not a valid notebook of format 4.
    """
    import nbformat
    from nbformat.warnings import DuplicateCellId, MissingIDFieldWarning

    if not path.is_file():
        raise NotebookError(f"{path}: no such file; expected a notebook")
    try:
        content = json.loads(path.read_bytes())
        with warnings.catch_warnings():
            # nbformat only warns of cells without an id, and of two with the same
            for category in (MissingIDFieldWarning, DuplicateCellId):
                warnings.simplefilter("error", category)
            nbformat.validate(content)
        if content["nbformat"] != 4:
            raise NotebookError(f"{path}: has format {content['nbformat']}; expected 4: open and save it in JupyterLab")
        cells = [
            Cell(number, cell["cell_type"], "".join(cell["source"]), cell)
            for number, cell in enumerate(content["cells"], 1)
        ]
    except (nbformat.ValidationError, Warning, ValueError, KeyError, TypeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise NotebookError(
            f"{path}: is not a Jupyter notebook ({lines[0]}); restore it from version control, or save it in JupyterLab"
        ) from error
    return Notebook(path.stem, content, cells)


def lint(paths: list[Path]) -> list[str]:
    """Check the files of notebooks; return one line per violation: file, cell, what is wrong and what to do."""
    lines = []
    for path in paths:
        try:
            notebook = read(path)
        except NotebookError as error:
            lines.append(str(error))
            continue
        violations = sorted({violation for rule in RULES for violation in rule(notebook)})
        lines += [f"{path}: {f'cell {number}: ' if number else ''}{message}" for number, message in violations]
    return lines


# --- rules


def _is_named_and_has_a_kernel(notebook: Notebook) -> Violations:
    if not suite.NAME.fullmatch(notebook.name):
        yield 0, "is not named as the others; rename it to a number and words, such as 10_my_question.ipynb"
    kernel = notebook.content["metadata"].get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield 0, f"its kernel is {kernel!r}; choose python3, which every installation has"


def _is_stripped(notebook: Notebook) -> Violations:
    advice = f"strip it: .venv/bin/nbstripout --keep-id notebooks/{notebook.name}.ipynb"
    for cell in notebook.of("code"):
        if cell.content["outputs"] or cell.content["execution_count"] is not None:
            yield cell.number, f"holds outputs; {advice}"
    for cell in notebook.cells:
        keys = sorted(set(cell.content["metadata"]) - ALLOWED_METADATA)
        if keys:
            extra = " ".join(f"cell.metadata.{key}" for key in keys)
            with_keys = advice.replace("--keep-id", f"--keep-id --extra-keys '{extra}'")
            yield cell.number, f"holds metadata of a session ({', '.join(keys)}); {with_keys}"


def _is_thin(notebook: Notebook) -> Violations:
    lines = [line.strip() for cell in notebook.of("code") for line in cell.source.splitlines()]
    count = sum(bool(line) and not line.startswith("#") for line in lines)
    if count > LINES:
        yield 0, f"has {count} lines of code, at most {LINES}; move what computes into lib/scanbook"


def _defines_nothing(notebook: Notebook) -> Violations:
    kinds = {ast.FunctionDef: "def", ast.AsyncFunctionDef: "def", ast.ClassDef: "class", ast.Lambda: "lambda"}
    for cell in notebook.of("code"):
        if cell.tree is None:
            yield cell.number, "is not Python; correct its syntax"
        for node in cell.nodes:
            if type(node) in kinds:
                yield cell.number, f"has a {kinds[type(node)]}; move it into lib/scanbook and call it here"


def _opens_with_title_question_and_badge(notebook: Notebook) -> Violations:
    first = notebook.cells[0] if notebook.cells else None
    if not first or first.kind != "markdown" or not re.match(r"# \S", first.source):
        yield 1, "is not a title; begin with a text cell: # Title, the question, the badge"
        return
    if "?" not in re.sub(r"\(https?://[^)]*\)", "", first.source):
        yield 1, "asks nothing; write below the title, with a question mark, what the notebook answers"
    badge = notebooks.badge(notebook.name)
    if badge not in first.source:
        yield 1, f"lacks the badge of this file; write {badge}"


def _prepares_colab_next(notebook: Notebook) -> Violations:
    second = notebook.cells[1] if len(notebook.cells) > 1 else None
    if not second or second.kind != "code" or second.source != notebooks.bootstrap():
        yield 2, "is not the cell that prepares Colab; copy it as it is from 01_eda.ipynb"


def _has_parameters(notebook: Notebook) -> Violations:
    tagged = [cell for cell in notebook.cells if "parameters" in cell.tags]
    if len(tagged) != 1 or tagged[0].number != 3 or tagged[0].kind != "code":
        yield 3, "is not the one cell tagged parameters; make it the third, before the cells that use them"
        return
    values: dict[str, object] = {}
    for statement in tagged[0].statements:
        try:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    values[name] = ast.literal_eval(value)
                    continue
        except ValueError:  # a value that is computed
            pass
        yield 3, f"has {ast.unparse(statement)!r}; leave names and plain values here, and move the rest further down"
    missing = [name for name in PARAMETERS if not isinstance(values.get(name), str)]
    if missing:
        yield 3, f"lacks {', '.join(missing)}; the runner injects the strings {', '.join(PARAMETERS)}"
    elif not values["STUDY"] or any(values[name] for name in PARAMETERS[1:]):
        yield 3, 'keeps a choice of one run; leave STUDY a study, and PROFILE, DATA and SET ""'
    for name in values.keys() - set(PARAMETERS):
        if values[name] != "":
            yield 3, f'has {name} = {values[name]!r}; leave a further parameter "", which must mean something'


def _names_itself(notebook: Notebook) -> Violations:
    expected = f'notebook.start("{notebook.name}", {", ".join(PARAMETERS)})'
    calls = [
        (cell.number, ast.unparse(node))
        for cell in notebook.of("code")
        for node in cell.nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "notebook.start"
    ]
    if not calls:
        yield 0, f"never starts its session; call {expected}"
    for number, call in calls:
        if call != expected.replace('"', "'"):
            yield number, f"starts another notebook's session, or lacks parameters; call {expected}"


def _is_in_numbered_sections(notebook: Notebook) -> Violations:
    headings = [
        (cell.number, mark, text)
        for cell in notebook.of("markdown")
        for mark, text in re.findall(r"^(##?) +(.+)$", cell.source, re.MULTILINE)
    ]
    for number, mark, text in headings:
        if mark == "#" and number > 1:
            yield number, f"has a second title, {text!r}; make it a numbered section: ## 2. …"
    sections = [(number, text) for number, mark, text in headings if mark == "##"]
    if len(sections) < 2:
        yield 0, "has fewer than two sections; head them ## 1. …, ## 2. …"
    for place, (number, text) in enumerate(sections, 1):
        if not re.match(rf"{place}\. \S", text):
            yield number, f"is headed {text!r}; sections are numbered in turn: ## {place}. …"


def _records_its_results_last(notebook: Notebook) -> Violations:
    filled = [cell for cell in notebook.cells if cell.source.strip()]
    statements = filled[-1].statements if filled and filled[-1].kind == "code" else []
    if not statements or not ast.unparse(statements[-1]).endswith(".finish()"):
        yield len(notebook.cells), "does not end the notebook with session.finish(), which records its results"


def _answers_its_question(notebook: Notebook) -> Violations:
    calls = (node for cell in notebook.of("code") for node in cell.nodes if isinstance(node, ast.Call))
    if not any(ast.unparse(call.func) == "session.answer" for call in calls):
        yield 0, "gives no answer, with which its page would open; call session.answer([sentences], figure)"


def _holds_no_path(notebook: Notebook) -> Violations:
    for cell in notebook.of("code"):
        if match := ABSOLUTE.search(cell.source):
            path = match.group()[1:]
            yield cell.number, f"holds the absolute path {path}…; give it as DATA, or take it from the study"
        if "sys.path" in cell.source:
            yield cell.number, "changes sys.path; scanbook is installed, so import it"


RULES: tuple[Callable[[Notebook], Violations], ...] = (
    _is_named_and_has_a_kernel,
    _is_stripped,
    _is_thin,
    _defines_nothing,
    _opens_with_title_question_and_badge,
    _prepares_colab_next,
    _has_parameters,
    _names_itself,
    _is_in_numbered_sections,
    _answers_its_question,
    _records_its_results_last,
    _holds_no_path,
)
