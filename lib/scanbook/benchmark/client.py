"""A client of any service that takes an image over HTTP, and keeps account of what its requests came to."""

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
"""Seconds after which a request counts as not answered."""
_FAILURES = (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError)
# an idle connection may be closed by the service at any moment from here on, seconds
_IDLE = 1.0


@dataclass(frozen=True)
class Target:
    """A service and what is sent to it.

    Attributes:
        url: Its address, as given.
        bodies: What is posted, in turn, each with the headers that go with it.
    """

    url: str
    bodies: tuple[tuple[dict[str, str], bytes], ...]

    def connection(self) -> HTTPConnection:
        """An open connection; no proxy is asked, whatever the environment names.

        Raises:
            OSError: Nobody listens.
            urllib3.exceptions.HTTPError: Likewise, or the certificate is wrong.
        """
        parts = urllib3.util.parse_url(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind((parts.host or "").strip("[]"), parts.port, timeout=TIMEOUT)
        connection.connect()
        return connection

    @property
    def path(self) -> str:
        """What comes after host and port."""
        return urllib3.util.parse_url(self.url).request_uri


def target(url: str, images: Sequence[Path] = (), form_field: str = "", headers: Sequence[str] = ()) -> Target:
    """What `scanbook latency` sends.

    Args:
        url: Address of the service, with its path.
        images: Files to post in turn; none for one that scanbook draws.
        form_field: Field of a form in which the file goes; "" for the file as the body.
        headers: Further ones, each "Name: value".

    Raises:
        RunError: The address, a file or a header is none.
    """
    try:
        parts = urllib3.util.parse_url(url)
    except urllib3.exceptions.LocationParseError:
        parts = urllib3.util.Url()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise RunError(f"{url!r} is no address of a service; expected one such as http://127.0.0.1:8080/predict")
    more = {}
    for header in headers:
        name, _, value = (part.strip() for part in header.partition(":"))
        if not re.fullmatch(r"[!-~]+", name) or not re.fullmatch(r"[ -~]+", value):
            raise RunError(f"header {header!r} is none; expected 'Name: value', in ASCII")
        more[name] = value
    files = [(path.name, _bytes(path)) for path in images] or [("drawn.jpg", _drawn())]
    bodies = []
    for name, data in files:
        kind = _kind(data)
        if form_field:
            data, kind = urllib3.encode_multipart_formdata({form_field: (name, data, kind)})  # noqa: PLW2901
        bodies.append(({"Content-Type": kind} | more, data))
    return Target(url, tuple(bodies))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error


def _kind(data: bytes) -> str:
    kinds = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}
    return next((kind for start, kind in kinds.items() if data.startswith(start)), "application/octet-stream")


def _drawn() -> bytes:
    """A clinical photograph as scanbook draws it: JPEG, 640 × 480."""
    import cv2

    from scanbook.data.adapters.synthetic import clinical

    picture, _ = clinical.render("eczema", np.random.default_rng(0), 640)
    return cv2.imencode(".jpg", picture[80:560, :, ::-1])[1].tobytes()


@dataclass
class Calls:
    """What requests came to.

    Attributes:
        seconds: From request to whole answer, of those that were answered.
        outcomes: How many came to what: "answered", "refused, busy" (503 with Retry-After), another status, no answer.
        problem: The first failure, with what the service said.
        connections: How many were opened, those of a warm-up left out.
    """

    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    problem: str = ""
    connections: int = 0

    @property
    def errors(self) -> dict[str, int]:
        """Those that were not answered, by outcome."""
        return {outcome: count for outcome, count in self.outcomes.most_common() if outcome != ANSWERED}


class Client:
    """Asks over one connection, which it opens anew where the service has closed it; never while the clock runs."""

    def __init__(self, asked: Target, first: int = 0) -> None:
        self.calls = Calls()
        self.ends: list[float] = []
        self._target, self._path, self._turn = asked, asked.path, first
        self._connection: HTTPConnection | None = None
        self._used = 0.0

    def ask(self) -> str:
        """Posts the next body; returns the outcome, and notes it."""
        outcome, seconds = self._ask()
        self.calls.outcomes[outcome] += 1
        if outcome == ANSWERED:
            self.calls.seconds.append(seconds)
            self.ends.append(time.perf_counter())
        return outcome

    def forget(self) -> None:
        """Forgets what was noted: a warm-up does not count."""
        self.calls, self.ends = Calls(), []

    def close(self) -> None:
        """Closes the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def _ask(self) -> tuple[str, float]:
        headers, body = self._target.bodies[self._turn % len(self._target.bodies)]
        self._turn += 1
        try:
            connection = self._connected()
            started = time.perf_counter()
            connection.request("POST", self._path, body=body, headers=headers)
            response = connection.getresponse()
            said = response.data
            seconds = time.perf_counter() - started
        except _FAILURES as error:
            self.close()
            timed_out = isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError)
            outcome = f"no answer in {TIMEOUT:g} s" if timed_out else "no connection, or one that broke"
            self.calls.problem = self.calls.problem or f"{outcome}: {_line(error)}"
            return outcome, 0.0
        self._used = time.perf_counter()
        if 200 <= response.status < 300:
            return ANSWERED, seconds
        busy = response.status == 503 and "Retry-After" in response.headers
        outcome = BUSY if busy else f"status {response.status}"
        self.calls.problem = self.calls.problem or f"{outcome}: {_line(said.decode(errors='replace'))}"
        return outcome, seconds

    def _connected(self) -> HTTPConnection:
        connection = self._connection
        if connection is None or time.perf_counter() - self._used > _IDLE or not connection.is_connected:
            self.close()
            connection = self._connection = self._target.connection()
            self.calls.connections += 1
        return connection


def _line(said: object) -> str:
    text = " ".join(str(said).split())
    return text if len(text) <= 160 else f"{text[:160]} …"


def check(asked: Target) -> None:
    """Sees to it that somebody listens.

    Raises:
        RunError: Nobody does.
    """
    try:
        asked.connection().close()
    except _FAILURES as error:
        raise RunError(
            f"no service answers at {asked.url} ({_line(error)}); start it, or correct the address"
        ) from error
