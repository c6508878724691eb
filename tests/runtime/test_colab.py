"""Notebooks in Google Colab: what is missing is installed, and what is there stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scanbook.runner.authoring import notebooks
from scanbook.runtime import colab

ROOT = Path(__file__).resolve().parents[2]
# what the runtime of January 2026 has of scanbook's packages (github.com/googlecolab/backend-info, commit bd8aaa45)
RUNTIME = """
beautifulsoup4==4.13.5 filelock==3.20.3 flask==3.1.2 huggingface-hub==0.36.0 ipykernel==6.17.1 ipython==7.34.0
jinja2==3.1.6 jupyter-client==7.4.9 keras==3.10.0 keras-hub==0.21.1 markdown-it-py==4.0.0 matplotlib==3.10.0
nbclient==0.10.4 nbconvert==7.16.6 nbformat==5.10.4 numpy==2.0.2 opencv-python-headless==4.12.0.88 pandas==2.2.2
pillow==11.3.0 pooch==1.8.2 prometheus-client==0.24.1 psutil==5.9.5 pydantic==2.12.3 pygments==2.19.2 pyyaml==6.0.3
rich==13.9.4 scikit-learn==1.6.1 scipy==1.16.3 seaborn==0.13.2 tensorflow==2.19.0 tqdm==4.67.1 traitlets==5.7.1
urllib3==2.5.0 werkzeug==3.1.5
"""
MISSING = {"flask-babel", "flask-limiter", "gunicorn", "nncf", "openvino", "papermill"}


def test_the_packages_of_colab_are_within_the_declared_bounds() -> None:
    installed = dict(pin.split("==") for pin in RUNTIME.split())
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    needs = {need.name: need for need in map(Requirement, declared)}
    missing = needs.keys() - installed.keys()
    assert missing <= MISSING, "a new dependency: add Colab's version to RUNTIME, or the name to MISSING"
    assert [
        str(need) for name, need in needs.items() if name not in missing and installed[name] not in need.specifier
    ] == []


def test_pips_reason_is_one_line() -> None:
    conflict = """\
ERROR: Cannot install scanbook because these package versions have conflicting dependencies.

The conflict is caused by:
    scanbook 0.1.0 depends on traitlets>=5.14
    The user requested (constraint) traitlets==5.7.1

To fix this you could try to:
1. loosen the range of package versions you've specified
"""
    assert (
        colab.failure_reason(conflict)
        == "scanbook 0.1.0 depends on traitlets>=5.14, The user requested (constraint) traitlets==5.7.1"
    )
    lost = (
        "WARNING: x\nERROR: Could not find a version that satisfies y\nERROR: No matching distribution found for y>=2\n"
    )
    assert colab.failure_reason(lost) == "ERROR: No matching distribution found for y>=2"
    assert colab.failure_reason("") == "pip wrote nothing"


def test_nothing_is_installed_where_scanbook_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setenv("SCANBOOK_HOME", "before")
    colab.prepare(tmp_path)
    assert os.environ["SCANBOOK_HOME"] == str(tmp_path)


# --- in a runtime like Colab's


def write_wheel(name: str, folder: Path, needs: str = "") -> None:
    """Pack an installed package of pure Python into a wheel; `needs` is one more requirement of it."""
    package = distribution(name)
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{package.version}-py3-none-any.whl", "w") as wheel:
        for path in package.files or ():
            if ".." in path.parts or "__pycache__" in path.parts:
                continue
            content = path.read_binary()
            if path.name == "METADATA" and needs:
                content = content.replace(b"\nRequires-Dist:", f"\nRequires-Dist: {needs}\nRequires-Dist:".encode(), 1)
            wheel.writestr(path.as_posix(), content)


class Runtime:
    """A machine like Colab's: an interpreter that has all of scanbook's packages but one, and an empty folder."""

    def __init__(self, place: Path) -> None:
        self.content = place / "content"
        self.python = place / "runtime" / "bin" / "python"
        self.wheels = place / "wheels"
        remote, installed, stand_in = (place / name for name in ("remote", "installed", "stand_in"))
        for folder in (self.content, installed, self.wheels, stand_in / "google" / "colab"):
            folder.mkdir(parents=True)
        (stand_in / "google" / "colab" / "__init__.py").touch()
        (stand_in / "sitecustomize.py").write_text("import google.colab\n")
        for name in ("lib", "notebooks"):
            shutil.copytree(ROOT / name, remote / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, remote)
        author = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "the project")):
            subprocess.run(["git", *command], cwd=remote, check=True)
        # in a separate folder, so that pip takes them for the system's packages and never touches them
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if not re.match(r"(?i)_*(editable_+)?scanbook|flask_babel|.*\.pth$|__pycache__", path.name):
                (installed / path.name).symlink_to(path)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "runtime"], check=True)
        site = next((place / "runtime" / "lib").glob("python*/site-packages"))
        (site / "installed.pth").write_text(f"{installed}\n")
        write_wheel("setuptools", self.wheels)
        self.variables = {
            **{
                "PATH": os.environ["PATH"],
                "HOME": str(place),
                "PYTHONPATH": str(stand_in),
                "SCANBOOK_PROFILE": "smoke",
            },
            **{"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull},
            **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{remote.as_uri()}.insteadOf"},
            **{"GIT_CONFIG_VALUE_0": notebooks.repository()},
        }

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [self.python, *words]
        return subprocess.run(
            command, cwd=self.content, env=self.variables, capture_output=True, text=True, check=False
        )

    def packages(self) -> dict[str, str]:
        listed = self.run("-m", "pip", "list", "--format=json").stdout
        return {package["name"].lower(): package["version"] for package in json.loads(listed)}


@pytest.mark.slow
def test_a_notebook_runs_from_an_empty_folder_and_replaces_nothing(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    before = runtime.packages()
    assert {"numpy", "tensorflow"} <= set(before) and not {"scanbook", "flask-babel"} & set(before)

    write_wheel("flask-babel", runtime.wheels, needs="numpy>=99")
    line = runtime.run("-c", notebooks.bootstrap()).stderr.strip().splitlines()[-1]
    assert line.startswith("RuntimeError: scanbook cannot be installed beside this runtime's packages: ")
    assert "numpy>=99" in line and f"numpy=={before['numpy']}" in line and "choose an earlier version" in line
    assert runtime.packages() == before, "what would replace a package of Colab is not installed"
    shutil.rmtree(runtime.content / "scanbook", ignore_errors=True)

    write_wheel("flask-babel", runtime.wheels)
    notebook = ROOT / "notebooks" / "01_eda.ipynb"
    words = ("--cwd", runtime.content, "--no-progress-bar")
    executed = runtime.run("-m", "papermill", notebook, tmp_path / "executed.ipynb", *words)
    assert executed.returncode == 0, executed.stderr[-3000:]
    after = runtime.packages()
    assert {name: version for name, version in after.items() if before.get(name) != version} == {
        name: distribution(name).version for name in ("scanbook", "flask-babel")
    }
    assert before.keys() <= after.keys()
    assert [path.name for path in runtime.content.iterdir()] == ["scanbook"]
    clone = runtime.content / "scanbook"
    assert (clone / "reports" / "synthetic" / "smoke" / "01_eda" / "results.json").is_file()
    package = runtime.run("-c", "import scanbook; print(scanbook.__file__)").stdout
    assert str(tmp_path / "runtime") in package, "the installed package is imported, not the folder of the clone"
