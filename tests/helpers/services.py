"""A running service in a separate process, and requests to its socket byte by byte."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from scanbook.benchmark.client import plain_environment


@dataclass
class Service:
    """A running service.

    Attributes:
        process: Its main process.
        port: Its port on this machine.
        log: File with its output.
    """

    process: subprocess.Popen
    port: int
    log: Path

    def connect(self, timeout: float = 15) -> socket.socket:
        """Open a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def get(self, path: str, timeout: float = 15) -> tuple[int, bytes]:
        """Return status and body of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

    def classify(self, image: bytes, timeout: float = 15) -> str:
        """Return the class that the service predicts for an image."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("POST", "/predict", image, {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return json.load(response)["predictions"][0]["class"]

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        return psutil.Process(self.process.pid).children()

    def ready(self) -> bool:
        """Return whether the service accepts images."""
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    folder: Path, log: Path, *options: str, command: tuple[str, ...] = (), **variables: str
) -> Iterator[Service]:
    """Start a service and kill it at the end, unless it has stopped.

    Args:
        folder: Folder of the bundle.
        log: File for its output; the service runs in the folder of this file.
        options: Options of its command.
        command: Arguments of the Python interpreter that replace the usual command.
        variables: Further environment variables.
    """
    port = free_port()
    words = command or ("-m", "scanbook.serving", str(folder), *options)
    environment = plain_environment() | {"SCANBOOK_PORT": str(port), "PORT": str(port)} | variables
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=output, stderr=output, env=environment, cwd=log.parent
        )
    service = Service(process, port, log)
    try:
        deadline = time.monotonic() + 30
        while not service.ready():
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield service
    finally:
        process.kill()
        process.wait()


def read_response(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response with a length: status, header fields in lower case, and body; continuations are skipped."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            byte = sock.recv(1)
            assert byte, f"the connection ended after {data!r}"
            data += byte
        lines = data.decode("latin-1").split("\r\n")
        if " 100 " not in lines[0]:
            break
        data = b""
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body, length = b"", int(fields["content-length"])
    while len(body) < length:
        body += sock.recv(length - len(body))
    return int(lines[0].split()[1]), fields, body
