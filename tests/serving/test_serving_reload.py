"""A reload on SIGHUP: a bundle that does not answer as at its export never replaces one that does."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import services
from helpers.bundles import colour_graph, exchange_model, write
from helpers.connections import connect_to_workers
from helpers.uploads import RED
from scanbook.benchmark.client import plain_environment
from scanbook.serving import trial


def predict(served: services.Service) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=15)
    connection.request("POST", "/predict", RED, {"Content-Type": "image/png"})
    answer = json.load(connection.getresponse())
    return {"model": answer["model"], **answer["predictions"][0]}


def wait_for(condition, served: services.Service) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline and served.process.poll() is None, served.log.read_text()
        time.sleep(0.05)


def refusals(served: services.Service) -> list[str]:
    return [line for line in served.log.read_text().splitlines() if "not reloaded" in line]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_reload_keeps_the_old_model_until_a_bundle_passes_its_checks(tmp_path: Path, workers: int) -> None:
    folder = write(tmp_path / "served" / "bundle").folder
    other = colour_graph(tmp_path / "other.xml", gain=2)
    (tmp_path / "new").mkdir()
    new = write(tmp_path / "new" / "bundle", name="new", classes=("blue", "green", "red")).folder
    with services.running(folder, tmp_path / "log", "--workers", str(workers)) as served:
        wait_for(lambda: len(connect_to_workers(served)) == workers, served)  # each has its model
        before, pids = predict(served), {worker.pid for worker in served.workers()}
        assert before["class"] == "red"

        exchange_model(folder, other)
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(refusals(served)) == 1, served)
        assert "its fp32 model does not answer as at the export" in refusals(served)[0]
        assert predict(served) == before and {worker.pid for worker in served.workers()} == pids

        (folder / "model.bin").write_bytes(b"")
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(refusals(served)) == 2, served)
        assert "model.bin was changed after the export" in refusals(served)[1]
        assert predict(served) == before and served.ready()

        shutil.rmtree(folder)
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(refusals(served)) == 3, served)
        assert "is not a bundle" in refusals(served)[2] and predict(served) == before

        shutil.copytree(new, folder)
        served.process.send_signal(signal.SIGHUP)
        wait_for(lambda: not pids & {worker.pid for worker in served.workers()}, served)
        assert (after := predict(served))["model"] == "new" and after["class"] == "blue"
        assert len(refusals(served)) == 3
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(timeout=15) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_service_does_not_start_with_another_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "bundle").folder
    exchange_model(folder, colour_graph(tmp_path / "other.xml", gain=2))
    command = [sys.executable, "-m", "scanbook.serving", str(folder), "--port", "0"]
    done = subprocess.run(
        command, env=plain_environment(), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0 and "its fp32 model does not answer as at the export" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("create", "expected"),
    [
        (lambda: None, ""),
        (lambda: 1 / 0, "division by zero"),
        (lambda: (_ for _ in ()).throw(ValueError("two\nlines")), "two lines"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "it ended without an answer"),
    ],
)
def test_a_trial_tells_why_it_failed_in_one_line(create, expected: str) -> None:
    assert trial.failure_reason(create) == expected


def test_a_trial_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 1)
    assert trial.failure_reason(lambda: time.sleep(600)) == "it was not ready within 1 s"


def test_a_service_that_is_to_stop_does_not_wait_for_a_trial() -> None:
    asked: list[bool] = []

    def is_to_stop() -> bool:
        asked.append(True)
        return len(asked) > 1

    assert trial.failure_reason(lambda: time.sleep(600), is_to_stop) == "the service is stopping"
