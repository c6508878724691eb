"""The contract of a notebook: thin, stripped, parameterised, and the same shape every time."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from scanbook.runner import order

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|sk-[\w-]{20,}|hf_\w{20,}|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|(?i:password|secret|token|api_?key)\s*=\s*['\"][^'\"]+"
)
# an absolute path: POSIX or Windows, quoted; not a URL's
ABSOLUTE = re.compile(
    r"""["'](?:/(?:home|Users|root|tmp|mnt|media|opt|var|usr|data|content|work)\b|~/|[A-Za-z]:[\\/])"""
)


def test_the_notebooks_are_those_of_the_order() -> None:
    assert {path.stem for path in FILES} == set(order.NOTEBOOKS)


@pytest.fixture(params=order.NOTEBOOKS)
def notebook(request: pytest.FixtureRequest) -> dict:
    content = json.loads((ROOT / "notebooks" / f"{request.param}.ipynb").read_text(encoding="utf-8"))
    content["name"] = request.param
    content["cells"] = [cell | {"source": "".join(cell["source"])} for cell in content["cells"]]
    return content


def sources(notebook: dict, kind: str) -> list[str]:
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_it_is_thin(notebook: dict) -> None:
    lines = [line.strip() for source in sources(notebook, "code") for line in source.splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    assert 0 < len(code) <= 80
    assert max(map(len, code)) <= 120


def test_it_defines_nothing(notebook: dict) -> None:
    for source in sources(notebook, "code"):
        plain = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(ast.parse(plain)) if isinstance(node, defined)], source


def test_it_holds_no_outputs(notebook: dict) -> None:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


def test_its_kernel_is_python3(notebook: dict) -> None:
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["nbformat"] == 4


def test_its_first_cell_has_title_question_and_badge(notebook: dict) -> None:
    first = notebook["cells"][0]
    assert first["cell_type"] == "markdown"
    assert re.match(r"# \S", first["source"])
    without_links = re.sub(r"\(https?://[^)]*\)", "", first["source"])
    assert "?" in without_links, "the question that it answers"
    badge = re.search(r"\(https://colab\.research\.google\.com/github/[^)]+\)", first["source"])
    assert badge and badge.group().endswith(f"/notebooks/{notebook['name']}.ipynb)")


def test_its_parameters_are_literals(notebook: dict) -> None:
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    found = {}
    for statement in ast.parse(tagged[0]["source"]).body:
        assert isinstance(statement, ast.Assign) and len(statement.targets) == 1
        found[statement.targets[0].id] = ast.literal_eval(statement.value)
    assert found == {"STUDY": "drawn", "PROFILE": "", "DATA": "", "SET": ""}
    earlier = notebook["cells"][: notebook["cells"].index(tagged[0])]
    assert not any("STUDY" in cell["source"] for cell in earlier if cell["cell_type"] == "code")


def test_its_sections_are_headed_in_turn(notebook: dict) -> None:
    headings = re.findall(r"^## (.+)$", "\n\n".join(sources(notebook, "markdown")), re.MULTILINE)
    assert len(headings) >= 2
    numbers = [int(found.group(1)) for heading in headings if (found := re.match(r"(\d+)\. \S", heading))]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 2
    assert len(re.findall(r"^# \S", "\n".join(sources(notebook, "markdown")), re.MULTILINE)) == 1


def test_its_last_cell_records_the_results(notebook: dict) -> None:
    last = [cell for cell in notebook["cells"] if cell["source"].strip()][-1]
    assert last["cell_type"] == "code"
    assert re.search(r"\.finish\(\)\s*$", last["source"])


def test_it_names_itself(notebook: dict) -> None:
    """`start` is given the file's name, so that results land where the runner looks for them."""
    assert f'"{notebook["name"]}"' in "\n".join(sources(notebook, "code"))


def test_it_holds_no_path_and_no_secret(notebook: dict) -> None:
    everything = "\n".join(sources(notebook, "code"))
    assert not ABSOLUTE.findall(everything)
    assert not SECRETS.findall(everything + "\n".join(sources(notebook, "markdown")))
    assert "sys.path" not in everything


def test_the_patterns_find_what_they_are_for() -> None:
    assert all(ABSOLUTE.search(text) for text in ('"/home/me/x"', "'C:\\data'", '"~/data"', '"/content/drive"'))
    assert not any(ABSOLUTE.search(text) for text in ('"https://example.org/data"', '"data/x"', '"a/b"', '"/"'))
    assert all(SECRETS.search(text) for text in ("token = 'abc'", "AKIA" + "A" * 16, "hf_" + "a" * 30))
    assert not SECRETS.search('STUDY = "drawn"')
