"""The code that can have computed a result: modules of scanbook as syntax trees, their resources, and their packages.

Comments, docstrings and annotations of functions do not count; annotations in the body of a class do, since pydantic
and dataclasses read them. A module counts as a whole, and with it the modules of the classes that its annotations name.
An import from a package counts for the module where the name is defined, so that a package's list of exports connects
nothing.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from scanbook import runtime
from scanbook.store.fingerprints import file_digest, fingerprint
from scanbook.store.writing import atomic_write

ROOT = "scanbook"
PACKAGE = Path(__file__).parents[1]
"""Folder of the library's code."""
NOT_COUNTED = (
    # the values of a study and the registry's entries that a stage uses are among its inputs
    *("config", "registry"),
    # messages, files and progress change no number; pages and the service come after the numbers
    *("errors", "store", "runtime.folders", "runtime.iteration", "runtime.steps", "reporting", "serving"),
)
"""Modules that cannot change what a stage holds; what they import counts only where others import it, too."""
_MODULE = re.compile(rf"{ROOT}(\.\w+)+")
_MARKUP = re.compile(r"\{#.*?#\}|<!--.*?-->", re.DOTALL)
_COMMENTS = {
    ".css": re.compile(r"/\*.*?\*/", re.DOTALL),
    ".js": re.compile(r"/\*.*?\*/|^[ \t]*//[^\n]*\n?", re.DOTALL | re.MULTILINE),
    ".j2": _MARKUP,
    ".html": _MARKUP,
    ".svg": _MARKUP,
    # not the first line of a script inside
    ".yaml": re.compile(r"^[ \t]*#(?!!)[^\n]*\n", re.MULTILINE),
    ".cfg": re.compile(r"^[ \t]*#[^\n]*\n", re.MULTILINE),
}
_NOT_READ = (".py", ".po")
"""Suffixes of files that no program reads beside the code; of translations it reads the compiled ones."""
_EDITORS = re.compile(r"\..*|.*~|#.*#")
"""Names of files that editors and file managers leave."""
_ENTRIES = 1000
"""Most files whose analysis the store keeps."""


Use = tuple[str, str, list[str] | None]
"""What code uses of another module of scanbook: the module, a name in it ("" for the module itself), and the attributes
used of that, or None where it is used as a whole."""


@dataclass(frozen=True)
class Source:
    """What counts of a file of Python.

    Attributes:
        tree: Digest of its syntax tree.
        uses: What its code uses of other modules of scanbook.
        exports: By name, the module and the name there of what other modules may import from here.
        packages: Names by which its code imports other packages.
    """

    tree: str
    uses: list[Use]
    exports: dict[str, tuple[str, str]]
    packages: list[str]


@dataclass(frozen=True)
class Code:
    """The code that can have computed a result.

    Attributes:
        modules: Digest of each module of scanbook, by its name.
        packages: Names by which these modules import other packages, sorted.
    """

    modules: dict[str, str]
    packages: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the modules."""
        return fingerprint(self.modules)

    def resources(self, excluded: Iterable[str] = ()) -> dict[str, str]:
        """Return the digests of the files of these modules' packages that are not Python, by their paths.

        Comments do not count.

        Args:
            excluded: Packages whose files do not count.
        """
        packages = {name if _folder(name).is_dir() else name.rpartition(".")[0] for name in self.modules}
        files = {}
        for package in sorted(packages - set(excluded)):
            for path in _resources(_folder(package)):
                files[path.relative_to(PACKAGE).as_posix()] = fingerprint(_without_comments(path))
        return files


class SourceCode:
    """The modules of scanbook as they are now; each is read once.

    The store keeps the analysis of each file by its content, since parsing all of them takes half a second.

    Args:
        imported: Digests of the files as this process may have imported them, by their names. What it computes with a
            file that was changed since is of no known code, and gets a key that no other process finds.
    """

    def __init__(self, imported: Mapping[str, str] | None = None) -> None:
        self._imported = imported or {}
        self._files = _module_files()
        self._path = runtime.store_dir() / "code.json"
        self._analyser = fingerprint(file_digest(Path(__file__)), list(sys.version_info[:2]))
        self._stored, self._new = self._read(), False
        self._sources: dict[str, Source] = {}

    def code_of(self, module: str, excluded: Iterable[str] = ()) -> Code:
        """Return the code of a module and of all that it imports, directly or not.

        Args:
            module: Name of a module of scanbook.
            excluded: Modules that do not count, by their names within scanbook.
        """
        return self._follow([(module, "", None)], (), excluded)

    def code_of_script(self, text: str, excluded: Iterable[str] = ()) -> Code:
        """Return the code that a script imports; all of it where the script is not plain Python."""
        try:
            script = analyse(text.encode())
        except SyntaxError:
            return self._follow([(name, "", None) for name in self._files], (), excluded)
        return self._follow(script.uses, script.packages, excluded)

    def _follow(self, uses: Iterable[Use], packages: Iterable[str], excluded: Iterable[str]) -> Code:
        skipped = tuple(f"{ROOT}.{name}" for name in excluded)
        modules: dict[str, str] = {}
        imported = set(packages)
        waiting = {ROOT}.union(*(self._defining(*use) for use in uses))
        while waiting:
            name = waiting.pop()
            if name in modules or any(name == skip or name.startswith(f"{skip}.") for skip in skipped):
                continue
            source = self._source(name)
            defining = [sorted(self._defining(*use)) for use in source.uses]
            modules[name] = fingerprint(source.tree, defining)
            imported.update(source.packages)
            waiting.update(*defining)
        self._save()
        return Code(dict(sorted(modules.items())), tuple(sorted(imported)))

    def _defining(self, module: str, name: str, attributes: list[str] | None) -> set[str]:
        """Return the modules where what is used is defined; none for a name that is not of scanbook."""
        if module not in self._files:
            return set()
        exported = tuple(self._source(module).exports.get(name, (module, name)))
        if exported != (module, name):
            return self._defining(*exported, attributes)
        whole = f"{module}.{name}" if name else module
        if whole not in self._files:
            return {module}
        if self._files[whole].name != "__init__.py":
            return {whole}
        if attributes is not None:
            return {whole}.union(*(self._defining(whole, attribute, None) for attribute in attributes))
        main = {f"{whole}.__main__"} & self._files.keys()
        exports = self._source(whole).exports.values()
        return {whole, *main}.union(*(self._defining(*export, None) for export in exports))

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            path = self._files[name]
            digest = file_digest(path)
            imported = self._imported.get(name, digest)
            try:
                source = Source(**self._stored[digest])
            except (KeyError, TypeError):
                source = analyse(path.read_bytes())
                self._stored[digest], self._new = asdict(source), True
            if imported != digest and not _is_equal(self._stored.get(imported), asdict(source)):
                source = replace(source, tree=f"{source.tree}, or another: process {os.getpid()} at {time.time()}")
            self._sources[name] = source
        return self._sources[name]

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_bytes())
            return dict(content["files"]) if content["analyser"] == self._analyser else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _save(self) -> None:
        if self._new:
            files = dict(list(self._stored.items())[-_ENTRIES:])
            with contextlib.suppress(OSError):  # a read-only store costs only time here
                atomic_write(self._path, json.dumps({"analyser": self._analyser, "files": files}))
            self._new = False


@cache
def stage_code(module: str) -> Code:
    """Return the code of a module that can change what its stages hold, as this process imported it."""
    return SourceCode(_IMPORTED).code_of(module, excluded=NOT_COUNTED)


def _module_files() -> dict[str, Path]:
    """Return the file of every module of the library."""
    paths = {path.relative_to(PACKAGE).with_suffix(""): path for path in PACKAGE.rglob("*.py")}
    return {".".join((ROOT, *name.parts)).removesuffix(".__init__"): path for name, path in paths.items()}


_IMPORTED = {name: file_digest(path) for name, path in _module_files().items()}
"""Digests of all modules when this one was imported, which is before those that compute."""


def _is_equal(first: Any, second: Any) -> bool:
    """Return whether two analyses are the same, as JSON has them."""
    return json.dumps(first) == json.dumps(second)


def _folder(package: str) -> Path:
    return PACKAGE.joinpath(*package.split(".")[1:])


def _resources(folder: Path) -> Iterator[Path]:
    """Yield the files of a package that are not Python, without those of packages inside it."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").is_file():
            yield from _resources(path)
        elif path.is_file() and path.suffix not in _NOT_READ and not _EDITORS.fullmatch(path.name):
            yield path


def _without_comments(path: Path) -> bytes:
    comments = _COMMENTS.get(path.suffix)
    return comments.sub("", path.read_text("utf-8")).rstrip().encode() if comments else path.read_bytes()


def analyse(content: bytes) -> Source:
    """Return what counts of a file of Python.

    Raises:
        SyntaxError: It is not plain Python.
    """
    counted = _Counted()
    tree = counted.visit(ast.parse(content))
    in_code = set().union(*_names_read([tree]))
    whole, attributes = _names_read([tree, *counted.annotations])
    uses: dict[tuple[str, str], list[str] | None] = {}
    exports: dict[str, tuple[str, str]] = {}
    packages: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] == ROOT:
                if node.names[0].name == "*":
                    uses[module, ""] = None
                    continue
                names = {alias.asname or alias.name: alias.name for alias in node.names}
                used = {local: name for local, name in names.items() if local in whole or local in attributes}
                uses |= {
                    (module, name): None if local in whole else sorted(attributes[local])
                    for local, name in used.items()
                }
                exports |= {local: (module, name) for local, name in names.items() if local not in used}
                node.names = [alias for alias in node.names if (alias.asname or alias.name) in in_code]
            case ast.ImportFrom(module=str(module)):
                packages.add(module.split(".")[0])
            case ast.Import(names=aliases):
                uses |= {(alias.name, ""): None for alias in aliases if alias.name.split(".")[0] == ROOT}
                packages |= {alias.name.split(".")[0] for alias in aliases}
            case ast.Constant(value=str(text)) if _MODULE.fullmatch(text):  # a process runs it: python -m
                uses[text, ""] = None
    return Source(
        fingerprint(ast.dump(_Imports().visit(tree))),
        [(*name, attributes) for name, attributes in sorted(uses.items())],
        exports,
        sorted(packages - sys.stdlib_module_names - {ROOT}),
    )


def _names_read(trees: Iterable[ast.AST]) -> tuple[set[str], dict[str, set[str]]]:
    """Return the names that code reads as a whole, and the attributes that it reads of others."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    attributes: dict[str, set[str]] = {}
    of_attributes = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            attributes.setdefault(node.value.id, set()).add(node.attr)
            of_attributes.add(node.value)
    names = (node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    return {node.id for node in names if node not in of_attributes}, attributes


class _Imports(ast.NodeTransformer):
    """Removes imports of which no name is left."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Remove one that is empty."""
        return node if node.names else None


class _Counted(ast.NodeTransformer):
    """Removes from a syntax tree what changes no result.

    Attributes:
        annotations: Those of functions, which name the classes whose methods they may call.
    """

    def __init__(self) -> None:
        self.annotations: list[ast.AST] = []
        self._in_class = False

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Remove a docstring."""
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST]:
        """Remove what only a checker of types imports."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(statement) for statement in node.orelse]
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Keep the annotations in the body of a class."""
        return self._visit_body(node, in_class=True)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        """Remove the annotation of the result."""
        self._keep(node.returns)
        node.returns = None
        return self._visit_body(node, in_class=False)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Remove the annotation of an argument."""
        self._keep(node.annotation)
        node.annotation = None
        return node

    def _keep(self, annotation: ast.AST | None) -> None:
        self.annotations += [annotation] if annotation else []

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Remove the annotation of a variable, except in the body of a class."""
        if not self._in_class:
            node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def _visit_body(self, node: ast.AST, in_class: bool) -> ast.AST:
        outer, self._in_class = self._in_class, in_class
        self.generic_visit(node)
        self._in_class = outer
        return node
