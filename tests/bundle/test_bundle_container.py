"""Packages and container image of a bundle, and the bundle in that image."""

from __future__ import annotations

import ast
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.bundles import write, write_all_formats
from scanbook import bundle
from scanbook.bundle import container
from scanbook.bundle.writing import CODE
from scanbook.export import bundles

PACKAGE = Path(bundle.__file__).parents[1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    folder = tmp_path_factory.mktemp("container")
    about = {"title": 'Which "colour", for $HOME?\nAny', "licence": "CC0"}
    return write(folder / "bundle", models=write_all_formats(folder), about=about, packages=bundles.DICOM_PACKAGES)


@pytest.fixture(scope="module")
def steps(exported: bundle.Bundle) -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their arguments."""
    text = (exported.folder / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def only(steps: list[tuple[str, str]], word: str) -> str:
    [arguments] = [rest for name, rest in steps if name == word]
    return arguments


def test_the_image_is_slim_for_any_platform_and_run_without_rights(steps: list[tuple[str, str]]) -> None:
    assert only(steps, "FROM") == f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"  # of no platform
    user, group = only(steps, "USER").split(":")
    assert user.isdigit() and user == group and int(user) >= 1000
    assert only(steps, "EXPOSE") == "8080" and only(steps, "STOPSIGNAL") == "SIGTERM"
    assert json.loads(only(steps, "ENTRYPOINT")) == ["python", "-m", "scanbook.serving"]
    assert json.loads(only(steps, "CMD")) == ["serve"]
    assert "SCANBOOK_HOST=0.0.0.0" in only(steps, "ENV").split()
    words = [word for word, _ in steps]
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in ("RUN", "COPY"))


def test_nothing_is_compiled_and_no_package_but_the_pinned_is_installed(steps: list[tuple[str, str]]) -> None:
    [install] = [rest for word, rest in steps if word == "RUN" and "pip" in rest]
    words = shlex.split(install)
    assert words[words.index("--only-binary") + 1] == ":all:" and words[words.index("-r") + 1] == "requirements.txt"
    assert not re.search(r"\b(apt|apk|gcc|build-essential|curl)\b", " ".join(rest for _, rest in steps))


def test_labels_hold_any_title_on_one_line(steps: list[tuple[str, str]]) -> None:
    labels = dict(label.split("=", 1) for label in shlex.split(only(steps, "LABEL").replace(r"\$", "$")))
    assert labels["org.opencontainers.image.title"] == "scanbook: colours"
    assert labels["org.opencontainers.image.description"] == 'Which "colour", for $HOME? Any'
    assert labels["org.opencontainers.image.version"] == version("scanbook")


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_the_health_check_tells_a_healthy_service(steps: list[tuple[str, str]], status: int, expected: int) -> None:
    requests = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    command = json.loads(only(steps, "HEALTHCHECK").partition(" CMD ")[2])
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy = {"http_proxy": "http://127.0.0.1:9", "SCANBOOK_PORT": str(server.server_port)}
    done = subprocess.run([sys.executable, *command[1:]], env=os.environ | proxy, capture_output=True, check=False)
    server.shutdown()
    server.server_close()
    assert command[0] == "python" and (done.returncode, requests) == (expected, ["/healthz"]), done.stderr


@pytest.mark.slow
def test_the_image_holds_all_that_the_service_runs_and_no_more(exported: bundle.Bundle, tmp_path: Path) -> None:
    """As the image is built: what is ignored stays out, the code is compiled, and nothing can be written."""
    ignored = (exported.folder / ".dockerignore").read_text().split()
    top = [name for name in ignored if "/" not in name]
    assert {"model.keras", "saved_model", "model.onnx", "model.tflite", "model_int8.tflite"} == set(top)
    image = tmp_path / "image"
    shutil.copytree(
        exported.folder, image, ignore=lambda _, names: [n for n in names if any(fnmatch.fnmatch(n, i) for i in top)]
    )
    compiled = subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "scanbook"], cwd=image, capture_output=True, text=True, check=False
    )
    assert compiled.returncode == 0, compiled.stdout
    loaded = bundle.load(image)
    assert set(loaded.models) == {"openvino", "openvino_int8"} and loaded.classes == exported.classes
    code = (
        "import scanbook; from scanbook import bundle; from scanbook.serving.app import create_app; "
        "print(create_app('.').test_client().get('/healthz').status_code, scanbook.__file__)"
    )
    clean = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=image, env=clean, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["200", str(image / "scanbook" / "__init__.py")], run.stderr


def test_templates_lie_where_a_person_looks_and_nowhere_else(exported: bundle.Bundle) -> None:
    source = PACKAGE / "serving" / "cloudformation"
    expected = {path.name for path in source.iterdir() if path.is_file()}
    assert {path.name for path in (exported.folder / "cloudformation").iterdir()} == expected
    assert not (exported.folder / "scanbook" / "serving" / "cloudformation").exists()


def test_requirements_are_what_the_code_imports_in_the_installed_versions(exported: bundle.Bundle) -> None:
    lines = (exported.folder / "requirements.txt").read_text().split()
    pinned = dict(line.split("==") for line in lines)
    assert set(pinned) == {*bundle.PACKAGES, *bundles.DICOM_PACKAGES} and list(pinned) == sorted(pinned)
    assert all(version(name) == pin for name, pin in pinned.items())
    assert dict(line.split("==") for line in container.requirements().split()).keys() == set(bundle.PACKAGES)


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports when it is imported itself, not inside its functions."""
    nodes = ast.parse(path.read_bytes()).body
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"__future__", "scanbook"}


def test_what_travels_imports_nothing_that_is_not_required() -> None:
    """A package may come with a required one, as Babel does with Flask-Babel."""
    direct = {canonicalize_name(name) for name in bundle.PACKAGES}
    needs = {canonicalize_name(Requirement(need).name) for name in direct for need in requires(name) or ()}
    owners = packages_distributions()
    paths = [PACKAGE / name for name in CODE]
    files = [file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])]
    assert len(files) > 25
    for file in files:
        for name in imported(file):
            distributions = {canonicalize_name(owner) for owner in owners.get(name, ())}
            assert distributions & (direct | needs), f"{file.relative_to(PACKAGE)} imports {name}"
