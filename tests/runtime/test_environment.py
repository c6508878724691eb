"""Settings of a machine's user reach neither a process of scanbook nor those that it starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import settings
from helpers.projects import make_project, write_notebook
from scanbook import cli, runtime
from scanbook.errors import ScanbookError
from scanbook.runtime import backend, environment

ROOT = Path(__file__).resolve().parents[2]
STATE = """
import json, os, sys, warnings
import scanbook
warnings.warn("a warning", DeprecationWarning)  # not an error
warnings.warn("a warning")
print(json.dumps({"variables": dict(os.environ), "started otherwise": scanbook.STARTED_OTHERWISE}))
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_variables_of_libraries_are_taken_out_and_places_and_devices_stay(tmp_path: Path) -> None:
    kept = {
        **{"KERAS_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0", "PYTHONPATH": "somewhere"},
        **{"HTTPS_PROXY": "http://127.0.0.1:9", "PYTHONHASHSEED": "3", "XLA_FLAGS": "--xla_gpu_cuda_data_dir=/cuda"},
    }
    done = run("-c", STATE, **settings.all_at_once(tmp_path), **kept)
    assert done.returncode == 0, done.stderr
    state = json.loads(done.stdout)
    remaining = state["variables"]
    assert state["started otherwise"] is True
    files = {"FORCE_COLOR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_PATH", "KERAS_BACKEND", "MATPLOTLIBRC"}
    limit = remaining.pop("OPENCV_IO_MAX_IMAGE_PIXELS")
    assert int(limit) > 1_000_000
    assert (settings.VARIABLES.keys() | {"PYTHONSTARTUP"}) & remaining.keys() <= files
    assert kept.items() <= remaining.items()


def test_a_process_without_such_settings_starts_once() -> None:
    clean = {name: "" for name in settings.VARIABLES}
    assert json.loads(run("-c", STATE, **clean, PYTHONUTF8="1").stdout)["started otherwise"] is False


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"},
        {"PYTHONINSPECT": "1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
    ids=" ".join,
)
def test_a_command_starts_again_without_settings_of_python(variables: dict[str, str], project: Path) -> None:
    study = project / "notebooks" / "studies" / "folder.yaml"
    study.write_text(re.sub("title: .*", "title: Größe", study.read_text(encoding="utf-8")), encoding="utf-8")
    program = (
        "import sys\nfrom scanbook import cli\nsys.argv[1:] = ['studies']\ncli.main()\n"
        "print(sys.flags.optimize, sys.flags.inspect, sys.warnoptions, sys.stdout.encoding)"
    )
    done = run("-c", program, **variables)
    assert (done.returncode, done.stderr) == (0, "")
    *studies, last = done.stdout.splitlines()
    assert last == "0 0 [] utf-8" and any("Größe" in line for line in studies)


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("agg", True),
        ("TkAgg", True),
        ("module://matplotlib.backends.backend_svg", True),
        ("nonsense", False),
        ("module://backend_interagg", False),  # PyCharm's
        ("module://google.colab._no_such_backend", False),
        ("module://", False),
        ("module://no name", False),
    ],
)
def test_a_backend_of_matplotlib_is_kept_where_it_exists(name: str, exists: bool, monkeypatch) -> None:
    monkeypatch.setenv("MPLBACKEND", name)
    environment.ignore_user_settings()
    assert os.environ.get("MPLBACKEND") == (name if exists else None)


def test_a_process_without_matplotlib_has_nothing_to_take_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the service in its container."""
    monkeypatch.delenv("MPLBACKEND", raising=False)
    monkeypatch.setattr(environment, "_backend_exists", lambda name: False)
    environment.ignore_user_settings()
    assert "MPLBACKEND" not in os.environ


@pytest.mark.parametrize("name", ["no_such_backend", "TensorFlow?", "no.such", "."])
def test_a_backend_of_keras_that_is_not_installed_is_one_line_before_anything_runs(
    name: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", name)
    for command in (["reports"], ["run", "01_eda"], ["sweep"], ["export"], ["train", "synthetic"]):
        assert cli.main(command) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"scanbook: KERAS_BACKEND={name} names a package that is not installed")
        assert "unset the variable, or set it to tensorflow" in line
    assert not (project / "reports").exists()
    assert cli.main(["status"]) == 0  # which needs no Keras


@pytest.mark.parametrize("name", ["", "tensorflow", "json"])
def test_another_backend_that_is_installed_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", name)
    runtime.check_backend()
    assert runtime.keras().backend.backend() == "tensorflow"


KERAS = """
import json
from scanbook import runtime
keras = runtime.keras()
from keras.src.utils import file_utils
print(json.dumps([keras.backend.backend(), keras.config.floatx(), keras.config.epsilon(),
    keras.config.image_data_format(), keras.config.dtype_policy().name, keras.config.max_epochs(),
    file_utils.config.keras_home()]))
"""
WRONG = {"floatx": "mixed_float16", "epsilon": 1, "image_data_format": "th", "backend": "theano", "nnx_enabled": True}
"""Settings at each of which Keras itself stops."""


def test_nothing_of_keras_json_reaches_keras_and_its_cache_is_used(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(WRONG))
    done = run("-c", KERAS, KERAS_HOME=str(tmp_path), KERAS_BACKEND="", KERAS_MAX_EPOCHS="1")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = ["tensorflow", "float32", 1e-7, "channels_last", "float32", None, str(tmp_path)]
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    assert json.loads((tmp_path / "keras.json").read_text()) == WRONG


BEFORE = """
import keras
from scanbook import runtime
from scanbook.errors import ScanbookError
try:
    runtime.keras()
    print(keras.config.floatx(), keras.config.image_data_format(), keras.layers.Dense(1).dtype_policy.name,
        keras.config.max_epochs())
except ScanbookError as error:
    print(error)
"""


@pytest.mark.slow
def test_settings_of_a_keras_that_a_notebook_imported_first_are_set_back(tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(json.dumps(settings.KERAS))
    done = run("-c", BEFORE, KERAS_HOME=str(tmp_path), KERAS_BACKEND="tensorflow", KERAS_MAX_EPOCHS="1")
    assert done.stdout.splitlines()[-1:] == ["float32 channels_last float32 None"], done.stderr[-2000:]


def test_a_keras_on_another_backend_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.keras()
    monkeypatch.setattr(backend, "_chosen", ["jax"])
    with pytest.raises(ScanbookError, match="Keras runs on tensorflow already; expected jax: restart the kernel"):
        backend.keras.__wrapped__()
    assert os.environ.get("KERAS_BACKEND") != "jax", "processes that are started later are none of it"


KERNEL = """
import json, os, pathlib, sys, warnings
warnings.warn("a warning")
folder = pathlib.Path(os.environ["SCANBOOK_REPORTS"]) / STUDY / PROFILE / "01_eda"
started = [path for path in ("numpy", "matplotlib") if path in sys.modules]
state = {"optimize": sys.flags.optimize, "warnings": sys.warnoptions, "imported by a startup file": started}
(folder / "results.json").write_text(json.dumps(state))
(folder / "measurements.json").write_text("{}")
print("a line of the cell")
"""


def test_a_kernel_and_a_page_are_those_of_a_user_without_settings(tmp_path: Path) -> None:
    """Without startup files of Python and IPython, kernels and templates of Jupyter, and variables of Python."""
    write_notebook(make_project(tmp_path), "01_eda", KERNEL)
    (tmp_path / "matplotlibrc").write_text(settings.MATPLOTLIBRC)
    (tmp_path / "home").mkdir()
    own = {f"SCANBOOK_{name.upper()}": str(tmp_path / name) for name in ("reports", "store")}
    words = ("-m", "scanbook.cli", "run", "01_eda", "--profile", "smoke")
    variables = settings.all_at_once(tmp_path / "home") | {"HOME": str(tmp_path / "home")}
    done = run(*words, **variables, **own, SCANBOOK_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "reports" / "synthetic" / "smoke" / "01_eda"
    state = json.loads((folder / "results.json").read_text())
    assert state == {"optimize": 0, "warnings": [], "imported by a startup file": []}
    page = (folder / "report.html").read_text()
    assert "a line of the cell" in page and "1. Step 1" in page and "a template of the user" not in page
