"""A client of any service that takes an image over HTTP; it records latencies and failures."""

from __future__ import annotations

import http.client
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from scanbook.errors import RunError

ANSWERED = "answered"
BUSY = "refused, busy"
TIMEOUT = 60.0
"""Seconds after which a request counts as failed."""
_FAILURES = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)
# seconds after which the service may close an idle connection at any moment
_IDLE = 1.0


@dataclass(frozen=True)
class Target:
    """A service and the requests to it.

    Attributes:
        url: Its address, as entered.
        bodies: Bodies that are posted in turn, each with its headers.
    """

    url: str
    bodies: tuple[tuple[dict[str, str], bytes], ...]

    def connect(self) -> HTTPConnection:
        """Open a connection, without a proxy.

        Raises:
            OSError: No service listens.
            urllib3.exceptions.HTTPError: No service listens, or its certificate is wrong.
        """
        parts = urllib3.util.parse_url(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind((parts.host or "").strip("[]"), parts.port, timeout=TIMEOUT)
        connection.connect()
        return connection

    @property
    def path(self) -> str:
        """Part of the address after host and port."""
        return urllib3.util.parse_url(self.url).request_uri


def make_target(url: str, images: Sequence[Path] = (), form_field: str = "", headers: Sequence[str] = ()) -> Target:
    """Return the requests of `scanbook latency`.

    Args:
        url: Address of the service, with its path.
        images: Files to post in turn; none for a synthetic image.
        form_field: Field of a form in which the file goes; "" for the file as the body.
        headers: Further headers, each "Name: value".

    Raises:
        RunError: The address or a header is malformed, or a file cannot be read.
    """
    try:
        parts = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        parts = urllib3.util.Url()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise RunError(f"{url!r} is not the address of a service; expected one such as http://127.0.0.1:8080/predict")
    extra = {}
    for header in headers:
        name, _, value = (part.strip() for part in header.partition(":"))
        if not re.fullmatch(r"[!-~]+", name) or not re.fullmatch(r"[ -~]+", value):
            raise RunError(f"header {header!r} is malformed; expected 'Name: value', in ASCII")
        extra[name] = value
    files = [(path.name, _read(path)) for path in images] or [("synthetic.jpg", _synthetic_photograph())]
    bodies = []
    for name, data in files:
        content_type = _content_type(data)
        if form_field:
            data, content_type = urllib3.encode_multipart_formdata({form_field: (name, data, content_type)})  # noqa: PLW2901
        bodies.append(({"Content-Type": content_type} | extra, data))
    return Target(url, tuple(bodies))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error


def _content_type(data: bytes) -> str:
    types = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
    return next((kind for start, kind in types.items() if data.startswith(start)), "application/octet-stream")


def _synthetic_photograph() -> bytes:
    """Return a synthetic clinical photograph: JPEG, 640 × 480."""
    import cv2

    from scanbook.data.adapters.synthetic import clinical

    picture, _ = clinical.render("eczema", np.random.default_rng(0), 640)
    return cv2.imencode(".jpg", picture[80:560, :, ::-1])[1].tobytes()


@dataclass
class RequestLog:
    """Results of requests.

    Attributes:
        seconds: Time from request to whole answer, one value per answered request.
        outcomes: Number of requests by outcome: "answered", "refused, busy" (503 with Retry-After), another status, no
            answer.
        problem: The first failure, with the text of the service.
        connections: Number of connections opened after the warm-up.
    """

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    problem: str = ""
    connections: int = 0

    @property
    def errors(self) -> dict[str, int]:
        """Number of failed requests by outcome."""
        return {outcome: count for outcome, count in self.outcomes.most_common() if outcome != ANSWERED}


class Client:
    """Sends requests over one connection; a closed one is opened again before the time of a request starts."""

    def __init__(self, target: Target, first: int = 0) -> None:
        self.log = RequestLog()
        self.ends: list[float] = []
        self._target, self._path, self._turn = target, target.path, first
        self._connection: HTTPConnection | None = None
        self._used = 0.0

    def send(self) -> str:
        """Post the next body; record and return the outcome."""
        outcome, seconds = self._post()
        self.log.outcomes[outcome] += 1
        if outcome == ANSWERED:
            self.log.seconds.append(seconds)
            self.ends.append(time.perf_counter())
        return outcome

    def reset(self) -> None:
        """Discard the records of a warm-up."""
        self.log, self.ends = RequestLog(), []

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _post(self) -> tuple[str, float]:
        headers, body = self._target.bodies[self._turn % len(self._target.bodies)]
        self._turn += 1
        try:
            connection = self._connected()
            started = time.perf_counter()
            connection.request("POST", self._path, body=body, headers=headers)
            response = connection.getresponse()
            content = response.data
            seconds = time.perf_counter() - started
        except _FAILURES as error:
            self.close()
            timed_out = isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError)
            outcome = f"no answer in {TIMEOUT:g} s" if timed_out else "no connection, or one that broke"
            self.log.problem = self.log.problem or f"{outcome}: {_line(error)}"
            return outcome, 0.0
        self._used = time.perf_counter()
        if 200 <= response.status < 300:
            return ANSWERED, seconds
        busy = response.status == 503 and "Retry-After" in response.headers
        outcome = BUSY if busy else f"status {response.status}"
        self.log.problem = self.log.problem or f"{outcome}: {_line(content.decode(errors='replace'))}"
        return outcome, seconds

    def _connected(self) -> HTTPConnection:
        connection = self._connection
        if connection is None or time.perf_counter() - self._used > _IDLE or not connection.is_connected:
            self.close()
            connection = self._connection = self._target.connect()
            self.log.connections += 1
        return connection


def _line(message: object) -> str:
    text = " ".join(str(message).split())
    return text if len(text) <= 160 else f"{text[:160]} …"


def check_service(target: Target) -> None:
    """Connect to the service once.

    Raises:
        RunError: No service listens.
    """
    try:
        target.connect().close()
    except _FAILURES as error:
        raise RunError(
            f"no service answers at {target.url} ({_line(error)}); start it, or correct the address"
        ) from error
