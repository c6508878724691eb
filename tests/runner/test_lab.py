"""JupyterLab, as `make lab` opens it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Lab:
    """A running JupyterLab, asked over its REST interface."""

    def __init__(self, port: int, runtime: Path) -> None:
        self.address = f"http://127.0.0.1:{port}/"
        self.runtime = runtime

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.address + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "token secret", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """`make lab` of a user who has another kernel named python3, in both places where Jupyter looks for one."""
    port = free_port()
    for place in (tmp_path / "home" / ".local" / "share" / "jupyter", tmp_path / "theirs"):
        (place / "kernels" / "python3").mkdir(parents=True)
        spec = {"argv": ["/bin/false"], "display_name": "theirs", "language": "python"}
        (place / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    (tmp_path / "config").mkdir()
    server = {"open_browser": False, "port": port, "port_retries": 0, "ip": "127.0.0.1", "allow_root": True}
    settings = {"ServerApp": server, "IdentityProvider": {"token": "secret"}}
    (tmp_path / "config" / "jupyter_server_config.json").write_text(json.dumps(settings))
    environment = os.environ | {
        "HOME": str(tmp_path / "home"),
        "JUPYTER_PATH": str(tmp_path / "theirs"),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        ["make", "lab"], cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    running_lab = Lab(port, tmp_path / "runtime")
    try:
        for _ in range(240):
            try:
                running_lab.ask("api/status")
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.25)
        yield running_lab
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # upon which it stops its kernels, too
        process.wait(60)
        log.close()


def test_lab_opens_the_notebooks_with_the_environments_kernel(lab: Lab) -> None:
    listed = {file["name"] for file in lab.ask("api/contents")["content"]}
    assert {"01_eda.ipynb", "07_export_flask.ipynb", "studies"} <= listed, "its root is notebooks/"
    opened = lab.ask("api/contents/01_eda.ipynb")["content"]
    kernels = lab.ask("api/kernelspecs")
    chosen = kernels["kernelspecs"][opened["metadata"]["kernelspec"]["name"]]
    assert kernels["default"] == "python3"
    assert Path(chosen["spec"]["argv"][0]).samefile(sys.executable) and chosen["spec"]["argv"][0].startswith(sys.prefix)

    started = lab.ask("api/kernels", {"name": "python3"})
    client = BlockingKernelClient(connection_file=str(lab.runtime / f"kernel-{started['id']}.json"))
    client.load_connection_file()
    client.hb_channel.time_to_dead = 60.0  # a second's silence is no death while other tests have the cores
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        printed: list[str] = []
        code = "import os, sys, scanbook; from scanbook import runtime; print(sys.prefix, runtime.project_root())"
        reply = client.execute_interactive(
            code, timeout=60, output_hook=lambda message: printed.append(message["content"].get("text", ""))
        )
        assert reply["content"]["status"] == "ok", reply
        assert "".join(printed).split() == [sys.prefix, str(ROOT)]
    finally:
        client.stop_channels()
