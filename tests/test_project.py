"""The project as a whole: one lock, one set of commands, one direction of imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "lib" / "scanbook"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENVIRONMENTS = [
    {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system, "platform_system": name}
    for python in ("3.11", "3.12", "3.13")
    for system, name in (("linux", "Linux"), ("darwin", "Darwin"))
]
# each part of the library imports only from those before it; the command line is on top
FLOW = (
    *("errors", "runtime", "registry", "store", "config", "evaluation", "data", "augmentation", "models"),
    *("training", "segmentation", "inspection", "bundle", "serving", "export", "external", "benchmark", "reporting"),
    "runner",
)
FILES = {"errors", "registry", "cli"}
"""Modules at the top of the package; everything else is a folder."""
QUICK = ("errors", "runtime", "registry", "store", "config", "runner.freshness", "cli")
HEAVY = ("pandas", "keras", "tensorflow", "cv2", "matplotlib", "sklearn")


def locked(environment: dict[str, str]) -> dict[str, Version]:
    """Return the versions of the lock that hold in an environment."""
    versions = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate(environment):
                (pin,) = need.specifier
                assert pin.operator == "==", line
                versions[canonicalize_name(need.name)] = Version(pin.version)
    return versions


def declared() -> list[Requirement]:
    extras = [line for group in PROJECT["optional-dependencies"].values() for line in group]
    return [Requirement(line) for line in PROJECT["dependencies"] + extras]


@pytest.mark.parametrize(
    "environment", ENVIRONMENTS, ids=lambda values: f"{values['sys_platform']}-{values['python_version']}"
)
def test_the_lock_satisfies_what_is_declared(environment: dict[str, str]) -> None:
    versions = locked(environment)
    assert len(versions) > 50
    for need in declared():
        if need.marker is None or need.marker.evaluate(environment):
            version = versions.get(canonicalize_name(need.name))
            assert version is not None, f"{need.name} is not in requirements.lock; run make lock"
            assert need.specifier.contains(version), f"{need} against {version}; run make lock"


def test_declared_bounds_are_ranges() -> None:
    for need in declared():
        assert not any(specifier.operator in ("==", "===", "~=") for specifier in need.specifier), need


def test_what_the_library_imports_is_declared() -> None:
    owners = packages_distributions()
    names = {canonicalize_name(need.name) for need in declared()}
    optional = {"jax", "torch", "google", "mlflow"}  # used only where they are already there
    for path in PACKAGE.rglob("*.py"):
        for module in imports(path):
            top = module.split(".")[0]
            if top in sys.stdlib_module_names | {"scanbook", "__future__"} | optional:
                continue
            packages = {canonicalize_name(name) for name in owners.get(top, [])}
            assert packages & names, f"{path.relative_to(ROOT)} imports {top}, which pyproject.toml does not declare"


def test_conda_installs_the_lock_and_nothing_else() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip"
    assert packages == {"pip": ["-r requirements.lock", "-e ."]}


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split())
    rules = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets == rules
    assert targets >= {"setup", "reports", "test", "check", "lab", "serve", "lint", "clean", "pretrain"}
    shown = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True
    ).stdout
    listed = re.findall(r"^  ([\w-]+) +\S", shown, re.MULTILINE)
    assert targets <= set(listed)
    assert {"STUDY", "PROFILE", "DATA", "JOBS", "SET"} <= set(listed)


@pytest.mark.parametrize(
    ("variables", "study"),
    [([], "synthetic"), (["DATA=some/where"], "folder"), (["DATA=x", "STUDY=ham10000"], "ham10000")],
)
def test_make_chooses_the_study(variables: list[str], study: str) -> None:
    dry = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "serve", *variables], capture_output=True, text=True, check=True
    ).stdout
    assert f'--study "{study}"' in dry


def test_only_the_projects_own_outputs_are_ignored() -> None:
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {"/reports/", "/data/", "/.venv/"} <= set(ignored)
    assert not {"reports/", "data/", "lib/", "lib", "/lib/", "*.npz"} & set(ignored)


def test_the_licence_is_the_one_declared() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_ci_runs_the_commands_of_the_makefile() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    runs = {step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]}
    assert {"make test", "make lint", "make reports"} <= runs
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    stages = re.findall(r"^stage .*?(make [\w-]+)$", script.read_text(), re.MULTILINE)
    assert stages == ["make test", "make check", "make check-cluster"]


def test_a_stage_of_the_ci_machine_prints_its_minutes_and_fails_with_its_status() -> None:
    function = re.search(r"^stage\(\) \{.*?^\}\n", (ROOT / ".ci" / "run").read_text(), re.MULTILINE | re.DOTALL).group()
    for command, status in (("true", 0), ("false", 1)):
        lines = f"set -euo pipefail\n{function}stage env A=1 {command} check\necho next"
        done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (status, "" if status else "next\n")
        assert re.fullmatch(rf"scanbook: {command} check took 0 min \d\d s\n", done.stderr)


def test_the_changelog_keeps_its_form_and_names_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[:2] == ["Unreleased", PROJECT["version"]]
    kinds = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert all(f"[{version}]: {PROJECT['urls']['Repository']}" in text for version in versions)


def test_the_map_of_the_code_has_every_part_in_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.split("## Map of the code")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    assert tuple(name for name, *_ in rows) == FLOW


# --- imports


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, at its top or inside functions, and the names it takes from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def cycle(edges: dict[str, set[str]]) -> tuple[str, ...]:
    """The first cycle of a graph; empty where there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return tuple(error.args[1])
    return ()


def test_imports_go_one_way() -> None:
    assert len(FLOW) <= 19
    paths = [path for path in PACKAGE.rglob("*.py") if folder_of(path) not in ("__init__", "cli")]
    assert len(paths) > 100
    for path in paths:
        assert folder_of(path) in FLOW, f"{path.relative_to(ROOT)} has no place in the order"
        for module in imports(path):
            package, _, rest = module.partition(".")
            if package == "scanbook" and rest:
                needed = rest.split(".")[0]
                assert needed in FLOW, f"{path.relative_to(ROOT)} imports {needed}"
                assert FLOW.index(needed) <= FLOW.index(folder_of(path)), (
                    f"{path.relative_to(ROOT)} imports {needed}, which comes after it"
                )


def test_the_top_of_the_package_is_small() -> None:
    top = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert top == FILES
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders | FILES == {*FLOW, "cli"}


@pytest.mark.parametrize("root", [PACKAGE, ROOT / "benchmarks"], ids=lambda root: root.name)
def test_no_cycle_of_imports_inside_a_folder(root: Path) -> None:
    modules = {f"{root.name}.{module_name(path, root)}".removesuffix(".__init__"): path for path in root.rglob("*.py")}
    edges = {
        name: {
            module
            for module in imports(path)
            if module in modules and module != name and not name.startswith(f"{module}.")
        }
        for name, path in modules.items()
        if path.name != "__init__.py"
    }
    assert cycle(edges) == ()
    assert cycle({"a": {"b"}, "b": {"a"}}), "the check notices a cycle"


def test_no_file_passes_400_lines() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_every_folder_says_what_it_is_for() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_bytes())), f"{path.relative_to(ROOT)} has no docstring"


def test_tests_mirror_the_folders_and_import_no_other_test() -> None:
    tests = ROOT / "tests"
    allowed = {path.name for path in PACKAGE.iterdir() if path.is_dir()} | {"helpers", "benchmarks"}
    assert {path.name for path in tests.iterdir() if path.is_dir() and path.name != "__pycache__"} <= allowed
    modules = {path.stem for path in tests.rglob("test_*.py")}
    for path in tests.rglob("*.py"):
        # a module is the last word of a name, or the word before the name that is taken from it
        words = {word for name in imports(path) for word in name.split(".")}
        assert not words & modules, path.relative_to(ROOT)


def test_quick_modules_import_nothing_heavy() -> None:
    names = ", ".join(f"scanbook.{name}" for name in QUICK)
    code = f"import sys, {names}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
