"""Notebooks in Google Colab: what is missing is installed, and what is there stays."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tomllib
import types
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scanbook.runner.authoring import notebooks
from scanbook.runtime import colab

ROOT = Path(__file__).resolve().parents[2]
# what the runtime of January 2026 has of scanbook's packages (github.com/googlecolab/backend-info, commit bd8aaa45);
# h5py's version was not looked up there
RUNTIME = """
beautifulsoup4==4.13.5 charset-normalizer==3.4.4 filelock==3.20.3 flask==3.1.2 huggingface-hub==0.36.0 ipykernel==6.17.1
h5py==3.15.1 ipython==7.34.0
jinja2==3.1.6 jupyter-client==7.4.9 keras==3.10.0 keras-hub==0.21.1 markdown-it-py==4.0.0 matplotlib==3.10.0
nbclient==0.10.4 nbconvert==7.16.6 nbformat==5.10.4 numpy==2.0.2 opencv-python-headless==4.12.0.88 pandas==2.2.2
pillow==11.3.0 pooch==1.8.2 prometheus-client==0.24.1 psutil==5.9.5 pydantic==2.12.3 pygments==2.19.2 pyyaml==6.0.3
rich==13.9.4 scikit-learn==1.6.1 scipy==1.16.3 seaborn==0.13.2 tensorflow==2.19.0
threadpoolctl==3.6.0 tqdm==4.67.1 traitlets==5.7.1
urllib3==2.5.0 werkzeug==3.1.5
"""
TRAINS = "05_fine_tuning"
MISSING = {"cleanlab", "flask-babel", "flask-limiter", "gunicorn", "nncf", "openvino", "papermill", "simplejpeg"}


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


# --- Google Drive


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Drive's folder, not mounted yet; the variables that a user may have set are not."""
    for variable in ("SCANBOOK_STORE", "SCANBOOK_REPORTS"):
        monkeypatch.setenv(variable, "")  # so that it is restored
        monkeypatch.delenv(variable)
    monkeypatch.setattr(colab, "DRIVE", tmp_path / "drive")
    return tmp_path / "drive" / "MyDrive"


def trained(project: Path) -> Path:
    """A network in the store of a clone, and pixels."""
    for kind in ("fine_tuning", "pixels"):
        (project / "data" / "store" / kind / "0123").mkdir(parents=True)
        (project / "data" / "store" / kind / "0123" / "file").write_text(kind)
    return project / "data" / "store"


def test_without_drive_nothing_changes_and_a_sentence_says_what_is_lost(drive: Path, tmp_path: Path) -> None:
    store = trained(tmp_path / "clone")
    assert "not mounted: trained networks and reports are lost when" in colab.keep(tmp_path / "clone")
    assert "SCANBOOK_REPORTS" not in os.environ and not (store / "fine_tuning").is_symlink()


def test_what_was_trained_before_drive_was_mounted_moves_there_and_a_new_clone_finds_it(
    drive: Path, tmp_path: Path
) -> None:
    store = trained(tmp_path / "clone")
    drive.mkdir(parents=True)
    for _ in range(2):  # the cell may run again
        sentence = colab.keep(tmp_path / "clone")
        assert f"kept in {drive / 'scanbook' / 'store'};" in sentence and f"Reports are kept in {drive}" in sentence
    assert (drive / "scanbook" / "store" / "fine_tuning" / "0123" / "file").read_text() == "fine_tuning"
    assert (store / "pixels").is_dir() and not (store / "pixels").is_symlink()
    assert os.environ["SCANBOOK_REPORTS"] == str(drive / "scanbook" / "reports")
    colab.keep(tmp_path / "another")
    again = tmp_path / "another" / "data" / "store"
    assert (again / "fine_tuning" / "0123" / "file").is_file() and not (again / "pixels").exists()


def test_folders_that_the_user_has_set_stay(drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANBOOK_STORE", "mine")
    monkeypatch.setenv("SCANBOOK_REPORTS", "pages")
    drive.mkdir(parents=True)
    assert colab.keep(tmp_path / "clone") == "The store is kept in mine, reports in pages."
    assert (os.environ["SCANBOOK_STORE"], os.environ["SCANBOOK_REPORTS"]) == ("mine", "pages")
    assert not (tmp_path / "clone").exists() and list(drive.iterdir()) == []


@pytest.mark.parametrize("allowed", [True, False])
def test_drive_is_mounted_only_when_the_cell_says_so(
    allowed: bool, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def mount(folder: str) -> None:
        asked.append(folder)
        if not allowed:
            raise ValueError("mount failed")
        drive.mkdir(parents=True)

    module = types.ModuleType("google.colab.drive")
    module.mount = mount
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    sys.modules["google.colab"].drive = module
    monkeypatch.setenv("SCANBOOK_HOME", "before")
    colab.prepare(tmp_path / "clone")
    assert asked == [] and "is not mounted" in capsys.readouterr().out
    if not allowed:
        with pytest.raises(
            RuntimeError, match=r"not mounted \(mount failed\); run this cell again and allow it, or set"
        ):
            colab.prepare(tmp_path / "clone", drive=True)
        return
    for _ in range(2):
        colab.prepare(tmp_path / "clone", drive=True)
    assert asked == [str(drive.parent)] and "a new runtime continues from there." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("echo 'Tesla T4'", "Networks are trained on the GPU of this runtime: Tesla T4."),
        ("exit 9", "This runtime has no GPU: networks are trained on its CPU."),
    ],
)
def test_the_cell_says_whether_the_runtime_has_a_gpu(
    answer: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert colab.describe_gpu() == sentence


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


def commit_all(folder: Path) -> None:
    """Make a folder a repository of one commit."""
    author = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "the project")):
        subprocess.run(["git", *command], cwd=folder, check=True)


def fetched_from(remote: Path) -> dict[str, str]:
    """Variables that make git fetch the project from a folder."""
    name = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{remote.as_uri()}.insteadOf"}
    return name | {"GIT_CONFIG_VALUE_0": notebooks.repository()}


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
        commit_all(remote)
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
        } | fetched_from(remote)

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


# --- a runtime that is lost

WITHOUT = """
import errno, fcntl, os
from pathlib import Path

import google.colab

CLOUD = "{cloud}"

def refuse(function, place):
    def refused(first, *words, **options):
        if os.path.realpath(place(first, *words)).startswith(CLOUD):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        return function(first, *words, **options)
    return refused

def opened(file, *_):
    return f"/proc/self/fd/{{file if isinstance(file, int) else file.fileno()}}"

fcntl.flock = refuse(fcntl.flock, opened)
os.chmod = refuse(os.chmod, lambda path, *_: path)
os.symlink = refuse(os.symlink, lambda _, path, *__: os.path.dirname(path))
"""
"""What Python runs first: a folder that has neither locks nor permissions nor links, as FUSE file systems may."""
MOUNT = """
import os

def mount(folder):
    os.mkdir(folder)
    os.symlink("{cloud}", folder + "/MyDrive")
"""


class Lost:
    """Runtimes one after the other, each with an empty disk, and one Drive, in a folder."""

    def __init__(self, place: Path) -> None:
        self.place, self.cloud = place, place / "cloud"
        self.cloud.mkdir()
        remote, stand_in = place / "remote", place / "stand_in"
        for name in ("lib/scanbook/runtime", "notebooks"):
            shutil.copytree(ROOT / name, remote / name, ignore=shutil.ignore_patterns("__pycache__"))
        code = remote / "lib" / "scanbook" / "runtime" / "colab.py"
        text = code.read_text()
        assert 'Path("/content/drive")' in text
        code.write_text(text.replace('Path("/content/drive")', 'Path.cwd() / "drive"'))
        commit_all(remote)
        (stand_in / "google" / "colab").mkdir(parents=True)
        (stand_in / "google" / "colab" / "__init__.py").touch()
        (stand_in / "google" / "colab" / "drive.py").write_text(MOUNT.format(cloud=self.cloud))
        (stand_in / "sitecustomize.py").write_text(WITHOUT.format(cloud=self.cloud))
        self.variables = {name: value for name, value in os.environ.items() if not name.startswith("SCANBOOK_")}
        self.variables |= {"PYTHONPATH": str(stand_in), "SCANBOOK_PROFILE": "smoke", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.variables |= fetched_from(remote)

    def start(self, name: str, program: str) -> subprocess.Popen[str]:
        """Run a program in a new runtime."""
        content = self.place / name / "content"
        content.mkdir(parents=True)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        variables = self.variables | {"HOME": str(self.place / name)}
        return subprocess.Popen([sys.executable, "-u", "-c", program], cwd=content, env=variables, **pipes)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the stand-in for Drive needs /proc")
def test_a_training_of_a_lost_runtime_continues_in_a_new_one(tmp_path: Path) -> None:
    """On a Drive without locks, as which the store of the first runtime left it."""
    lost = Lost(tmp_path)
    cells = [
        "".join(cell["source"]) for cell in json.loads((ROOT / "notebooks" / f"{TRAINS}.ipynb").read_text())["cells"]
    ]
    bootstrap, parameters, setup, training = cells[1], cells[2], cells[3], cells[5]
    assert "DRIVE = False" in bootstrap and 'SET = ""' in parameters
    bootstrap = bootstrap.replace("DRIVE = False", "DRIVE = True")
    parameters = parameters.replace('SET = ""', 'SET = "fine_tuning.epochs=8"')
    program = "\n".join((bootstrap, parameters, setup, training, "session.finish()"))

    with lost.start("first", program) as first:
        printed = []
        for line in first.stdout:
            printed.append(line)
            if "fine-tuned: epoch 3/8" in line:
                first.kill()  # SIGKILL
                break
    assert first.returncode == -signal.SIGKILL, "".join(printed)
    assert "a new runtime continues from there." in "".join(printed)
    shutil.rmtree(tmp_path / "first")
    kept = tmp_path / "cloud" / "scanbook"
    for path in kept.rglob("*"):  # Drive keeps other times
        os.utime(path, ns=(10**18, 10**18))
    (frozen,) = (kept / "store" / "transfer").glob("[!.]*/model.keras")
    digest = frozen.read_bytes()

    with lost.start("second", program) as second:
        text = second.communicate(timeout=600)[0]
    assert second.returncode == 0, text
    continued = re.search(r"fine-tuned: continues after epoch (\d), from its checkpoint", text)
    assert continued and int(continued[1]) in (2, 3), text
    assert "fine-tuned: epoch 1/8" not in text and "fine-tuned: epoch 8/8" in text
    assert frozen.read_bytes() == digest and "built again" not in text
    assert "The networks were trained on: CPU." in text
    assert (kept / "reports" / "synthetic" / "smoke" / TRAINS / "results.json").is_file()
    on_disk = tmp_path / "second" / "content" / "scanbook" / "data" / "store"
    assert (on_disk / "pixels").is_dir() and not (kept / "store" / "pixels").exists(), "maps of memory are not on Drive"
    assert list((kept / "store" / "fine_tuning").glob("[!.]*/model.keras"))
    assert not list((kept / "store" / "fine_tuning").glob(".*-checkpoint")) and not list(kept.rglob("*.lock"))
