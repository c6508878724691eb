"""The HTTP client of the library: it starts a service, or talks to one that runs anywhere, as any program does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import urllib3
from urllib3.connection import HTTPConnection

from scanbook.errors import RunError
from scanbook.runtime.processes import MALLOC
from scanbook.serving.settings import VARIABLES

TIMEOUT = 60.0
"""Seconds after which a request counts as failed."""
_IDLE = 1.0  # seconds after which a service may close an idle connection at any moment


class Answer(NamedTuple):
    """An answer of a service, and the seconds from the request to the last byte of the answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    seconds: float

    @property
    def text(self) -> str:
        """The content on one line, shortened."""
        return one_line(self.content.decode(errors="replace"))


class Client:
    """Sends requests over one connection, which is open before the time of a request starts.

    No proxy is used, no redirection followed, and no request repeated.

    Args:
        url: Address of a service.
        timeout: Seconds after which a request counts as failed.

    Attributes:
        url: The address.
        connections: Number of connections opened so far.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self.url, self.connections = url, 0
        self._started = self._used = 0.0
        self._pool = urllib3.connection_from_url(url, maxsize=1, timeout=timeout, retries=False)
        self._pool.ConnectionCls = self._timed(self._pool.ConnectionCls)

    def _timed(self, kind: type[HTTPConnection]) -> type[HTTPConnection]:
        client = self

        class Connection(kind):  # type: ignore[misc, valid-type]
            def connect(self) -> None:
                super().connect()
                client.connections += 1
                client._used = time.perf_counter()

            def request(self, *args: Any, **options: Any) -> None:
                if time.perf_counter() - client._used > _IDLE:
                    self.close()
                if self.is_closed:
                    self.connect()
                client._started = time.perf_counter()
                super().request(*args, **options)

        return Connection

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and return the answer, whatever its status.

        Raises:
            urllib3.exceptions.HTTPError: No service listens, or it does not answer.
        """
        response = self._pool.urlopen(method, path, body, headers, redirect=False)
        self._used = time.perf_counter()
        return Answer(response.status, response.headers, response.data, self._used - self._started)

    def check(self) -> None:
        """Open a connection and close it.

        Raises:
            OSError: No service listens.
            urllib3.exceptions.HTTPError: No service listens, or its certificate is wrong.
        """
        connection = self._pool.ConnectionCls(self._pool.host, self._pool.port, timeout=TIMEOUT)
        connection.connect()
        connection.close()

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()


def one_line(message: object) -> str:
    """Return a message on one line, shortened."""
    text = " ".join(str(message).split())
    return text if len(text) <= 200 else f"{text[:200]} …"


@contextmanager
def run_service(bundle: Path, timeout: float = 60, options: Sequence[str] = ()) -> Iterator[str]:
    """Start the service of a bundle in a separate process and stop it at the end.

    Args:
        bundle: Folder of the bundle.
        timeout: Seconds within which the service must be ready.
        options: Options of its command line, such as `("--workers", "2")`.

    Yields:
        The address of the service, on a free port of this machine.

    Raises:
        RunError: The service did not start; the message has the last line of its log.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, "-m", "scanbook.serving", str(bundle), "--port", str(port), *options]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=plain_environment())
        try:
            deadline = time.monotonic() + timeout
            while not is_ready(address):
                stopped = process.poll() is not None
                if stopped or time.monotonic() > deadline:
                    log.seek(0)
                    last = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
                    outcome = "stopped" if stopped else f"did not answer within {timeout:.0f} s"
                    raise RunError(f"the service for {bundle} {outcome}: {last}")
                time.sleep(0.05)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def plain_environment() -> dict[str, str]:
    """Return the environment without settings of a service or, from a notebook's kernel, of processes that compute."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES and MALLOC.get(name) != value}


def is_ready(address: str, path: str = "/readyz") -> bool:
    """Return whether a service answers with status 200."""
    try:
        with closing(Client(address, timeout=5)) as client:
            return client.send("GET", path).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def classify(address: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Send image files, one per request.

    Args:
        address: Address of the service.
        paths: Image files.

    Returns:
        For each file its prediction (`class`, `confidence`, `abstained`, `probabilities` by class, in class order; or
        `findings`, in their order, with `probability`, `threshold` and `answer` of each, and `present`) and `seconds`,
        the time from request to response.

    Raises:
        RunError: The service refused a file, or does not answer.
    """
    with closing(Client(address)) as client:
        return [_classify(client, path, f"{number} of {len(paths)}") for number, path in enumerate(paths, 1)]


def probabilities(predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the probabilities of predictions of a service, float64 `(n, k)`, in the order of classes or findings."""
    rows = [
        [finding["probability"] for finding in prediction["findings"].values()]
        if "findings" in prediction
        else list(prediction["probabilities"].values())
        for prediction in predictions
    ]
    return np.array(rows, np.float64)


def in_words(prediction: Mapping[str, Any]) -> str:
    """Return the prediction of a service for one image in a few words: its class, or the findings that are present."""
    if "findings" not in prediction:
        return f"{prediction['class']} {prediction['confidence']:.2f}"
    shown = [f"{name} {prediction['findings'][name]['probability']:.2f}" for name in prediction["present"][:3]]
    more = len(prediction["present"]) - len(shown)
    unsure = sum(finding["answer"] == "not sure" for finding in prediction["findings"].values())
    text = ", ".join(shown) + (f" and {more} more" if more else "") or "none present"
    return f"{text} ({unsure} not sure)" if unsure else text


def _classify(client: Client, path: Path, position: str) -> dict[str, Any]:
    try:
        answer = client.send("POST", "/predict", path.read_bytes(), {"Content-Type": "application/octet-stream"})
    except urllib3.exceptions.HTTPError as error:
        raise RunError(
            f"no service answers at {client.url} ({one_line(error)}); start it, or correct the address"
        ) from error
    if answer.status != 200:
        message = answer.text
        with suppress(ValueError):  # a proxy may have sent something else than problem details
            message = one_line(json.loads(answer.content)["detail"])
        raise RunError(f"the service refused image {position} with status {answer.status}: {message}")
    [prediction] = json.loads(answer.content)["predictions"]
    return prediction | {"seconds": answer.seconds}
