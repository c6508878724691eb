"""Whole runs in MLflow: what it takes, what becomes of an error, and a real server in an environment of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.projects import RECORD, make_project, write_notebook
from scanbook import config
from scanbook.evaluation import Predictions
from scanbook.runner import tracking
from scanbook.runner.comparing import upload
from scanbook.runner.comparing.reading import Compared

# a stand-in for the client: it writes down what it is given, or fails as one does whose server is gone
FAKE = """
import json, os
class Run:
    run_id = "r1"
    experiment_id, lifecycle_stage = "7", "active"
    info = property(lambda self: self)
class MlflowClient:
    def __getattr__(self, name):
        def call(*args, **options):
            if os.environ["MLFLOW_TRACKING_URI"].endswith("gone"):
                raise ConnectionError("connection refused by http://me:secret@host/gone\\nmore lines")
            lists = [value if isinstance(value, list) else [value] for value in options.values()]
            values = [*args, *sum(lists, [])]
            with open(os.environ["CALLS"], "a") as file:
                file.write(json.dumps([name, *map(str, values)]) + "\\n")
            return None if name == "get_experiment_by_name" else "7" if name == "create_experiment" else Run()
        return call
"""
ENTITIES = """
def Param(key, value): return f"{key}={value}"
def RunTag(key, value): return f"{key}={value}"
def Metric(key, value, timestamp, step): return f"{key}={value:.3g} at {step}"
"""


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run notebook 01 of a small project."""
    if not (folder / "notebooks").is_dir():
        make_project(folder)
        record = RECORD.format(name="01_eda").replace('{"headline"', '{"counts": {"images": 64}, "headline"')
        table = '(folder / "tables").mkdir(exist_ok=True); (folder / "tables" / "counts.csv").write_text("a,b")'
        write_notebook(folder, "01_eda", record + table)
    command = [sys.executable, "-m", "scanbook.cli", "run", "01_eda", "--profile", "smoke"]
    places = {"SCANBOOK_HOME": str(folder), "SCANBOOK_REPORTS": str(folder / "reports")}
    places |= {"SCANBOOK_STORE": str(folder / "store"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, env=os.environ | places | environment, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File in which the stand-in for MLflow writes down what it is given."""
    (tmp_path / "fake" / "mlflow").mkdir(parents=True)
    (tmp_path / "fake" / "mlflow" / "__init__.py").write_text(FAKE)
    (tmp_path / "fake" / "mlflow" / "entities.py").write_text(ENTITIES)
    monkeypatch.syspath_prepend(tmp_path / "fake")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    for name in ("mlflow", "mlflow.entities"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path / "calls"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A whole report with a table."""
    folder = tmp_path / "reports" / "synthetic" / "smoke" / "01_eda"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables" / "counts.csv").write_text("a,b")
    study = config.load("synthetic", "smoke", overrides="fine_tuning.epochs=2").resolved()
    facts = {"notebook": "01_eda", "title": "x", "study": study, "fingerprints": {}, "finished": "", "seconds": 3.5}
    facts |= {"results": {"counts": {"images": 64}, "class": {"a/b": [0.5, 0.4, 0.6]}}}
    (folder / "metrics.json").write_text(json.dumps(facts))
    (folder / "report.html").write_text("x")
    return folder


def test_a_whole_run_is_logged(fake: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    upload.log(place)
    by_name: dict[str, list[str]] = {}
    for line in fake.read_text().splitlines():
        name, *words = json.loads(line)
        by_name.setdefault(name, []).extend(words)
    assert by_name["get_experiment_by_name"] == by_name["create_experiment"] == ["synthetic"]
    assert "synthetic/smoke/01_eda" in by_name["create_run"]
    assert {"fine_tuning.epochs=2", "counts.images=64 at 0", "notebook=01_eda"} <= set(by_name["log_batch"])
    assert {"class.a_b.value=0.5 at 0", "class.a_b.high=0.6 at 0", "seconds=3.5 at 0"} <= set(by_name["log_batch"])
    files = {Path(word).name for word in by_name["log_artifact"] if word != "r1"}
    assert files == {"report.html", "metrics.json", "counts.csv", "None", "tables"}
    assert by_name["set_terminated"][:2] == ["r1", "FINISHED"]


def test_a_trial_is_logged_without_the_names_of_its_images(fake: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    sent: list[str] = []
    record = tmp_path / "net-0.json"
    names = [f"Silva {number}" for number in range(8)]
    p = np.linspace(0.1, 0.9, 8)
    Predictions(names, names, np.arange(8) % 2, np.stack([1 - p, p], 1), ("a", "b")).save(record.with_suffix(".csv"))
    facts = {"network": "net", "seed": 3, "study": config.load("synthetic", "smoke").resolved(), "seconds": 2.0}
    record.write_text(json.dumps(facts))

    def log_artifact(client: Any, run: str, file: str, folder: str | None = None) -> None:
        sent.append(Path(file).read_text())

    import mlflow

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", log_artifact, raising=False)
    upload.log(record)
    assert len(sent) == 2 and sum("image-" in text for text in sent) == 1 and "Silva" not in "".join(sent)
    assert "synthetic/smoke/net, seed 3" in fake.read_text() and "accuracy.value=" in fake.read_text()


def test_an_error_is_one_line_without_a_password(
    fake: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    assert tracking.log(place) == "" and capfd.readouterr().err == "", "nobody asked for it"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@host/gone")
    assert tracking.log(place) == ""
    printed = capfd.readouterr().err
    assert printed.count("\n") == 1 and "connection refused by http://host/gone" in printed
    assert "https://host/gone, and 01_eda was not logged" in printed and "secret" not in printed
    monkeypatch.setattr(tracking, "_LIMIT", 0.01)
    assert tracking.log(place) == "" and "no end after 0.01 s" in capfd.readouterr().err
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert tracking.log(place) == "" and "mlflow is not installed; pip install" in capfd.readouterr().err


@given(st.lists(st.text(max_size=400), max_size=12))
def test_every_name_becomes_a_key_that_mlflow_takes(names: list[str]) -> None:
    pairs = upload.unique((name, place) for place, name in enumerate(names))
    assert [value for _, value in pairs] == list(range(len(names))) and len(dict(pairs)) == len(names)
    for key, _ in pairs:
        assert 1 <= len(key) <= upload.LONGEST_KEY and upload.possible(key)
        assert all(character.isalnum() or character in "_. -" for character in key.replace("_", "")) or "_" in key
    assert upload.possible("per_class.naevus (benign)/β: 1.auroc") == "per_class.naevus _benign__β_ 1.auroc"
    assert upload.possible("../x") == "_x"


def test_values_and_requests_are_as_long_as_mlflow_takes() -> None:
    assert upload.shortened("x" * 6000) == "x" * 6000
    assert len(upload.shortened("x" * 6001)) == 6000 and upload.shortened("x" * 6001).endswith("…")
    assert [len(part) for part in upload._parts(list(range(250)), 100)] == [100, 100, 50]


def test_learning_curves_are_metrics_by_epoch() -> None:
    columns = {"epoch": [1, 2], "loss": [1.0, 0.5], "accuracy": [0.5, float("nan")]}
    columns |= {"validation_loss": [1.0, 2.0], "validation_accuracy": [0.1, 0.2], "seconds": [1.0, 2.0]}
    history = {"seed 0": pd.DataFrame(columns)}
    run = Compared(Path("x"), "x", {}, "", "test", pd.DataFrame(), {}, None, history, {"peak memory (GiB)": 1.5})
    points = list(upload.epochs(run))
    of_loss = [("training.seed 0.loss", 1.0, 1), ("training.seed 0.loss", 0.5, 2)]
    assert points[:3] == [*of_loss, ("training.seed 0.accuracy", 0.5, 1)]
    assert dict(upload.measured(run)) == {"peak memory in GiB": 1.5}


# --- a real server


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of packages with MLflow, of an environment of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    try:
        subprocess.run(
            [*uv, "venv", "--quiet", "--python", sys.executable, str(folder), "--clear"], timeout=60, check=True
        )
        # gunicorn and Flask's newest versions are its own matter: nothing of this project is in there
        command = [*uv, "pip", "install", "--quiet", "--python", str(python), "mlflow>=3.10,<4"]
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        pytest.skip(f"MLflow cannot be installed from the package index: {reason}")
    [packages] = folder.glob("lib/python*/site-packages")
    return packages


@pytest.fixture
def server(installed: Path, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of a server with SQLite."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{tmp_path}/runs.sqlite"]
    words += ["--artifacts-destination", str(tmp_path / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [installed.parents[2] / "bin" / "mlflow", *words],
            **{"stdout": log, "stderr": log, "env": environment, "cwd": tmp_path, "start_new_session": True},
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                pytest.fail((tmp_path / "server.log").read_text()[-2000:])
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address, process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def ask(address: str, path: str, **values: Any) -> Any:
    """Return what the server answers to a search, or to a question with parameters in its address."""
    body = json.dumps(values).encode() if "search" in path else None
    query = "" if body else f"?{urllib.parse.urlencode(values)}"
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/{path}{query}", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_a_real_server_shows_the_run(
    installed: Path, server: tuple[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    address, process = server
    # the packages of the project come first: those of the server's environment are only found where it has none
    (tmp_path / "client").mkdir()
    (tmp_path / "client" / "sitecustomize.py").write_text(f"import sys\nsys.path.append({str(installed)!r})\n")
    asked = {"PYTHONPATH": str(tmp_path / "client"), "MLFLOW_TRACKING_URI": address}
    project = tmp_path / "project"
    done = run(project, **asked)
    assert done.returncode == 0 and f"logged to MLflow at {address}" in done.stdout, done.stdout + done.stderr
    experiment = ask(address, "experiments/get-by-name", experiment_name="synthetic")["experiment"]
    [found] = ask(address, "runs/search", experiment_ids=[experiment["experiment_id"]])["runs"]
    assert found["info"]["run_name"] == "synthetic/smoke/01_eda" and found["info"]["status"] == "FINISHED"
    parameters = {entry["key"]: entry["value"] for entry in found["data"]["params"]}
    metrics = {entry["key"]: entry["value"] for entry in found["data"]["metrics"]}
    facts = json.loads((project / "reports/synthetic/smoke/01_eda/metrics.json").read_text())
    assert parameters["fine_tuning.epochs"] == "1" and len(parameters) > 80
    assert metrics["counts.images"] == 64 and metrics["seconds"] == facts["seconds"]
    files = ask(address, "artifacts/list", run_id=found["info"]["run_id"])["files"]
    assert {"report.html", "results.json", "metrics.json", "tables"} <= {file["path"] for file in files}

    os.killpg(process.pid, signal.SIGTERM)
    process.wait(20)
    done = run(project, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", **asked)
    assert done.returncode == 0 and "was not logged" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert (project / "reports/synthetic/smoke/01_eda/metrics.json").is_file(), "the run is whole all the same"
