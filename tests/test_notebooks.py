"""The contract of a notebook, and the linter that checks it."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scanbook import cli
from scanbook.reporting import suite
from scanbook.runner.authoring import contract, notebooks

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
WHOLE = json.loads((ROOT / "notebooks" / "01_eda.ipynb").read_text(encoding="utf-8"))


def test_the_notebooks_are_those_of_the_order() -> None:
    assert set(suite.NOTEBOOKS) <= {path.stem for path in FILES}, "beside one's own"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_notebook_keeps_the_contract(path: Path) -> None:
    assert contract.lint([path]) == []
    parameters = contract.read(path).cells[2].source
    assert 'STUDY = "synthetic"' in parameters, "it runs for a newcomer, without data"


def test_the_address_of_the_repository_is_written_once() -> None:
    """Where it stands again, because a reader or Colab needs it there, it is the one of pyproject.toml."""
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert notebooks.repository() == address
    command = [
        "git",
        "-C",
        str(ROOT),
        "grep",
        "--untracked",
        "-IoE",
        r"github(\.com)?/[A-Za-z0-9-]+/scanbook",
        "--",
        ":!tests",
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    named = [tuple(line.split(":", 1)) for line in lines]
    assert {file for file, _ in named} >= {"pyproject.toml", *(f"notebooks/{path.name}" for path in FILES)}
    owner = address.removeprefix("https://github.com/")
    assert [(file, link) for file, link in named if link.split("/", 1)[1] != owner] == []


# --- each rule


def at(number: int, source: str) -> Callable[[dict[str, Any]], None]:
    """Replaces the source of a cell, counted from 1; 0 is the last."""

    def change(notebook: dict[str, Any]) -> None:
        notebook["cells"][number - 1]["source"] = source

    return change


def replaced(old: str, new: str) -> Callable[[dict[str, Any]], None]:
    """Replaces a text wherever it stands."""

    def change(notebook: dict[str, Any]) -> None:
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"]).replace(old, new)

    return change


def of_cell(number: int, **keys: Any) -> Callable[[dict[str, Any]], None]:
    """Sets keys of a cell."""
    return lambda notebook: notebook["cells"][number - 1].update(keys)


def kernel(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda notebook: notebook["metadata"]["kernelspec"].update(name=name)


PRINTED = [{"output_type": "stream", "name": "stdout", "text": "1"}]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (of_cell(4, outputs=PRINTED), "cell 4: holds outputs; strip it"),
        (of_cell(4, execution_count=3), "cell 4: holds outputs; strip it"),
        (of_cell(6, metadata={"collapsed": True}), "cell 6: holds metadata of a session (collapsed)"),
        (kernel("conda-env-x"), ": its kernel is 'conda-env-x'; choose python3"),
        (at(4, "x = 1\n" * 81), " lines of code, at most 80; move what computes into lib/scanbook"),
        (at(4, "def f():\n    return 1"), "cell 4: has a def; move it into lib/scanbook"),
        (at(4, "f = lambda: 1"), "cell 4: has a lambda"),
        (at(4, "class A: pass"), "cell 4: has a class"),
        (at(4, "for"), "cell 4: is not Python; correct its syntax"),
        (at(1, "Know the data?"), "cell 1: is not a title"),
        (replaced("?", "."), "cell 1: asks nothing"),
        (replaced("blob/main/notebooks/01_eda.ipynb", "blob/main/notebooks/02_eda.ipynb"), "lacks the badge of this"),
        (replaced("github/scanbook/scanbook", "github/me/scanbook"), "cell 1: lacks the badge of this file; write"),
        (at(2, "!pip install scanbook"), "cell 2: is not the cell that prepares Colab"),
        (replaced("https://github.com/scanbook/scanbook", "https://github.com/me/scanbook"), "cell 2: is not the cell"),
        (of_cell(3, metadata={}), "cell 3: is not the one cell tagged parameters"),
        (of_cell(4, metadata={"tags": ["parameters"]}), "cell 3: is not the one cell tagged parameters"),
        (at(3, 'STUDY = "synthetic"\nPROFILE = ""\nDATA = ""'), "cell 3: lacks SET; the runner injects"),
        (replaced('DATA = ""', "DATA = 1"), "cell 3: lacks DATA"),
        (replaced('DATA = ""', 'DATA = "".join("a")'), "cell 3: has \"DATA = ''.join('a')\"; leave"),
        (replaced('DATA = ""', 'import os\nDATA = ""'), "cell 3: has 'import os'"),
        (replaced('PROFILE = ""', 'PROFILE = "full"'), "cell 3: keeps a choice of one run"),
        (replaced('SET = ""', 'SET = ""\nBUNDLE = "mine"'), "cell 3: has BUNDLE = 'mine'; leave a further parameter"),
        (replaced('SET = ""', 'SET = ""\nROUNDS = 3'), "cell 3: has ROUNDS = 3; leave a further parameter"),
        (replaced('notebook.start("01_eda"', 'notebook.start("02_eda"'), "cell 4: starts another notebook's session"),
        (replaced(", SET)", ")"), "or lacks parameters; call notebook.start("),
        (at(4, "1 + 1"), "never starts its session; call notebook.start("),
        (replaced("## 2. ", "## 4. "), "sections are numbered in turn: ## 2. …"),
        (replaced("## 2. ", "## "), "sections are numbered in turn: ## 2. …"),
        (replaced("## ", "### "), "has fewer than two sections"),
        (replaced("## 2. ", "# "), "has a second title"),
        (replaced("session.answer(", "session.say("), ": gives no answer, with which its page would open"),
        (replaced("session.finish()", "session.study"), "does not end the notebook with session.finish()"),
        (at(4, 'x = "/home/me/images"'), "cell 4: holds the absolute path /home…; give it as DATA"),
        (at(4, "x = 'C:\\\\data'"), "cell 4: holds the absolute path C:\\…"),
        (at(4, 'x = "~/data"'), "cell 4: holds the absolute path ~/…"),
        (at(4, "import sys\nsys.path.append('..')"), "cell 4: changes sys.path"),
        (lambda notebook: notebook["cells"].clear(), "cell 1: is not a title"),
        (lambda notebook: notebook.pop("cells"), "is not a Jupyter notebook"),
        (of_cell(4, id=WHOLE["cells"][0]["id"]), "is not a Jupyter notebook"),
        (lambda notebook: notebook.update(nbformat=3), "is not a Jupyter notebook"),
    ],
)  # fmt: skip
def test_a_violation_is_one_line_with_place_and_correction(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    notebook = copy.deepcopy(WHOLE)
    change(notebook)
    path = tmp_path / "01_eda.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    lines = contract.lint([path])
    assert any(says in line for line in lines), lines
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in lines)


def test_what_is_allowed_is_not_refused(tmp_path: Path) -> None:
    notebook = copy.deepcopy(WHOLE)
    plain = '"https://example.org/data", "data/x", "a/b", "/", f"{1}/home"'
    words = "token, password, task-specific-fine-tuning, risk-stratification-of-patients"
    notebook["cells"][5]["source"] = f"%matplotlib inline\n!ls\nfound = [{plain}]  # {words}"
    path = tmp_path / "01_eda.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert contract.lint([path]) == []


def write_with(path: Path, *cells: str) -> None:
    """Write a notebook with further cells of code."""
    notebook = copy.deepcopy(WHOLE)
    for number, source in enumerate(cells):
        cell = {"cell_type": "code", "execution_count": None, "id": f"new{number}", "metadata": {}, "outputs": []}
        notebook["cells"].append(cell | {"source": source})
    path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")


def test_a_password_in_a_notebook_is_a_matter_of_style(tmp_path: Path) -> None:
    """As `make lint` finds it, with the project's settings; the secret is not repeated."""
    path = tmp_path / "notebooks" / "01_eda.ipynb"
    path.parent.mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    given = ("password = 'abcde'", "connect(token='abcde')", "import os\n\nos.environ['HF_TOKEN'] = 'abcde'")
    write_with(path, *given)
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--extend-ignore", "F", "."]
    done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
    cells = len(WHOLE["cells"])
    found = re.findall(r"^notebooks/01_eda\.ipynb:cell (\d+):\d+:\d+: (S10\d)", done.stdout, re.MULTILINE)
    assert found == [(str(cells + 1), "S105"), (str(cells + 2), "S106"), (str(cells + 3), "S105")], done.stdout
    assert done.returncode == 1 and "abcde" not in done.stdout + done.stderr


KEYS = ("AKIA" + "Z7QWERT5YUIOPAS2", "hf_" + "QwErTyUiOpAsDfGhJkLzXcVbNmQwErTyUi", "ghp_" + "a1B2c3D4e5F6g7H8i9" * 2)


@pytest.mark.skipif(not shutil.which("gitleaks"), reason="gitleaks is not installed")
@pytest.mark.parametrize("key", KEYS)
def test_keys_of_services_are_found_by_gitleaks(tmp_path: Path, key: str) -> None:
    write_with(tmp_path / "01_eda.ipynb", f"x = '{key}'")
    command = ["gitleaks", "dir", str(tmp_path), "--redact", "--verbose"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and key not in done.stdout + done.stderr


def test_a_commit_and_ci_run_one_version_of_gitleaks() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    [hook], [image] = (re.findall(r"gitleaks[/\w]*[@:](v[\d.]+)", text) for text in (hooks, workflow))
    assert hook == image and all("--redact" in text for text in (hooks, workflow))


def test_a_file_is_named_by_a_number_and_words(tmp_path: Path) -> None:
    path = Path(shutil.copy(FILES[0], tmp_path / "Untitled.ipynb"))
    assert f"{path}: is not named as the others; rename it to a number and words" in "".join(contract.lint([path]))


def test_the_command_prints_what_it_finds_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notebooks").mkdir()
    for path in FILES[:2]:
        shutil.copy(path, tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["lint", "notebooks"]) == 0
    assert capsys.readouterr() == ("", "")
    Path("notebooks", "01_eda.ipynb").write_text("{not json")
    assert cli.main(["lint", "notebooks", "gone.ipynb"]) == 1
    out, error = capsys.readouterr()
    assert out.startswith("notebooks/01_eda.ipynb: is not a Jupyter notebook (") and "gone.ipynb: no such file" in out
    assert error == "scanbook: 2 violations in 3 notebooks; correct them as the lines above say\n"


# --- before a commit


@pytest.mark.slow
def test_a_commit_of_an_unstripped_or_fat_notebook_is_refused(tmp_path: Path) -> None:
    """In a real repository, with the hooks of .pre-commit-config.yaml; gitleaks alone would be fetched."""
    project = tmp_path / "project"
    shutil.copytree(ROOT / "notebooks", project / "notebooks")
    for name in (".pre-commit-config.yaml", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, project)
    for name in (".venv", "lib"):  # lib: by which ruff knows what is the project's own
        (project / name).symlink_to(ROOT / name)
    settings = {"HOME": str(tmp_path), "PRE_COMMIT_HOME": str(tmp_path / "store"), "PATH": "/usr/bin:/bin"}
    settings["SKIP"] = "gitleaks"
    who = {f"GIT_{role}_{key}": "x@example.org" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=project, env=settings | who, capture_output=True, text=True, check=False)

    assert run("git", "init", "-q").returncode == 0
    with (project / ".git" / "info" / "exclude").open("a") as file:
        file.write("/.venv\n/lib\n")
    assert run(".venv/bin/pre-commit", "install").returncode == 0
    run("git", "add", ".")
    first = run("git", "commit", "-qm", "notebooks as they are")
    assert first.returncode == 0, first.stdout + first.stderr

    path = project / "notebooks" / "01_eda.ipynb"
    source = path.read_text(encoding="utf-8")
    for change, says in (
        (of_cell(4, outputs=PRINTED, execution_count=1), "outputs are stripped from notebooks"),
        (at(4, ["def f():\n", "    return 1"]), "notebooks/01_eda.ipynb: cell 4: has a def; move it into lib/scanbook"),
        (of_cell(4, source=[*WHOLE["cells"][3]["source"], "\n\n\nx=1"]), "format"),
    ):
        notebook = json.loads(source)
        change(notebook)
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        refused = run("git", "commit", "-qam", "as it should not be")
        output = refused.stdout + refused.stderr
        assert refused.returncode == 1
        assert says in output if "cell" in says else re.search(rf"^{says}\.+Failed$", output, re.MULTILINE), output
        assert run("git", "log", "--oneline").stdout.count("\n") == 1
        if "stripped" in says:  # and the hook has mended it: what is left to commit is nothing
            assert path.read_text(encoding="utf-8") == source
        path.write_text(source, encoding="utf-8")
        run("git", "add", ".")
