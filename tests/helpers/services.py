"""A real service in a process of its own, and clients that speak to its socket byte by byte."""

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

from scanbook.serving.client import plain_environment


@dataclass
class Served:
    """A service that runs."""

    process: subprocess.Popen
    port: int
    log: Path

    def connect(self, timeout: float = 15) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def get(self, path: str, timeout: float = 15) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

    def classify(self, image: bytes, timeout: float = 15) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("POST", "/predict", image, {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return json.load(response)["predictions"][0]["class"]

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(
    folder: Path, log: Path, *options: str, command: tuple[str, ...] = (), **variables: str
) -> Iterator[Served]:
    """Starts a service and kills it at the end, unless it has stopped."""
    port = free_port()
    words = command or ("-m", "scanbook.serving", str(folder), *options)
    environment = plain_environment() | {"SCANBOOK_PORT": str(port), "PORT": str(port)} | variables
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=output, stderr=output, env=environment, cwd=log.parent
        )
    served = Served(process, port, log)
    try:
        deadline = time.monotonic() + 30
        while not ready(served):
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield served
    finally:
        process.kill()
        process.wait()


def ready(served: Served) -> bool:
    try:
        return served.get("/readyz")[0] == 200
    except OSError:
        return False


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One answer with a length: status, header fields in lower case, body; continuations are skipped."""
    data = b""
    while True:
        while b"\r\n\r\n" not in data:
            more = sock.recv(1)
            assert more, f"the connection ended after {data!r}"
            data += more
        lines = data.decode("latin-1").split("\r\n")
        if " 100 " not in lines[0]:
            break
        data = b""
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    body, length = b"", int(fields["content-length"])
    while len(body) < length:
        body += sock.recv(length - len(body))
    return int(lines[0].split()[1]), fields, body
