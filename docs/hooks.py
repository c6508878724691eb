"""Pages of the documentation that are written when it is built, so that no copy of the code has to be kept in step.

MkDocs calls `on_files`. The pages are the keys of a study, the commands, the notebooks, and one page per part of the
library, on which mkdocstrings shows the docstrings.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from scanbook import cli
from scanbook.config import reference
from scanbook.reporting import suite

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lib" / "scanbook"
_COMMANDS = """# Commands

`make` sets up the environment and runs the command; `scanbook` is the command itself. Every subcommand takes `--help`,
and `--traceback`, which shows where an error came from.
"""
_NOTEBOOKS = """# The notebooks

The question of each notebook, and its sections. A report has the same sections.
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those of the folder `docs`."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Return the path and the Markdown of each page."""
    return {
        "reference/study-keys.md": reference.markdown(),
        "reference/commands.md": _commands(),
        "reference/notebooks.md": _notebooks(),
        **{f"reference/api/{path.stem}.md": _api(path) for path in _modules(PACKAGE) if path.stem != "cli"},
    }


def _api(path: Path, level: int = 1) -> str:
    """Return what mkdocstrings shows of a module, or of a package: what it exports, else each of its modules."""
    name = _name(path)
    if path.is_file():
        return _shown(name, level)
    exported, modules = _exported(path), _modules(path)
    if not exported:
        return "\n".join([_shown(name, level, members=False), *(_api(module, level + 1) for module in modules)])
    # where a function has the name of its module, griffe finds the module
    hidden = {exported[module.stem]: f"{name}.{module.stem}" for module in modules if module.stem in exported}
    others = [_shown(source, level + 1, heading=shown, toc_label=shown) for source, shown in hidden.items()]
    return "\n".join([_shown(name, level, members=list(exported)), *others])


def _shown(name: str, level: int, **options: Any) -> str:
    return f"::: {name}\n    options: {json.dumps({'heading_level': level, **options})}\n"


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def _modules(package: Path) -> list[Path]:
    """Return the public modules and packages of a package."""
    inner = sorted(path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
    return [path for path in inner if not path.stem.startswith("_")]


def _exported(package: Path) -> dict[str, str]:
    """Return the public names that a package imports from its own modules or defines, and where each is defined."""
    name = _name(package)
    names: dict[str, str] = {}
    for node in ast.parse((package / "__init__.py").read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = f"{name}.{node.name}"
        elif isinstance(node, ast.ImportFrom) and node.module.startswith(f"{name}."):
            # what the package only uses has another name there
            names |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names if not alias.asname}
    return {name: source for name, source in names.items() if not name.startswith("_")}


def _commands() -> str:
    """Return every target and variable of the Makefile, and every subcommand of `scanbook` with its options."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):.*## (.+)$", makefile, re.MULTILINE)
    variables = re.findall(r"^# (.+)\n([A-Z]+) =", makefile.partition("\nSHELL =")[0], re.MULTILINE)
    sections = [
        _COMMANDS,
        "## make\n",
        _table("target", [(f"`make {name}`", text) for name, text in targets]),
        _table("variable", [(f"`{name}`", text) for text, name in variables]),
        "## scanbook\n\nIn a clone the command is `.venv/bin/scanbook`.\n",
    ]
    subparsers = next(action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    for choice in subparsers._choices_actions:
        actions = subparsers.choices[choice.dest]._actions
        options = [action for action in actions if action.dest not in ("help", "traceback")]
        rows = [(f"`{_written(option)}`", option.help) for option in options]
        sections.append(f"### scanbook {choice.dest}\n\n{_sentence(choice.help)}\n")
        sections += [_table("option", rows)] if rows else []
    return "\n".join(sections)


def _written(option: argparse.Action) -> str:
    """Return an option or argument as it is typed."""
    value = option.metavar or option.dest.upper()
    if not option.option_strings:
        return option.metavar or option.dest
    return option.option_strings[0] if option.nargs == 0 else f"{option.option_strings[0]} {value}"


def _table(first: str, rows: Sequence[tuple[str, str]]) -> str:
    """Return a table of two columns, the second with what something does."""
    escaped = [f"| {name} | {text.replace('|', chr(92) + '|')} |" for name, text in rows]
    return "\n".join([f"| {first} | what it does |", "|---|---|", *escaped, ""])


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _notebooks() -> str:
    """Return the title, question and sections of every notebook."""
    sections = [_NOTEBOOKS]
    for name in suite.NOTEBOOKS:
        texts = [cell["source"] for cell in suite.cells(name) if cell["cell_type"] == "markdown"]
        title, question, badge = texts[0].split("\n\n")
        address = badge.rpartition("(")[2].rstrip(")")
        sections.append(f"## {name}: {title.removeprefix('# ')}\n\n{question} [Open in Colab]({address})\n")
        steps = [re.match(r"## (\d+\. .+)\n\n(.+)", text) for text in texts[1:]]
        sections += [f"{step.group(1)}: {step.group(2)}" for step in steps if step] + [""]
    return "\n".join(sections)
