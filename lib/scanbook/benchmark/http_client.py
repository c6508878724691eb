"""Requests to any service that takes an image over HTTP, and the record of their latencies and failures."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import urllib3

from scanbook.benchmark.client import TIMEOUT, Client, one_line
from scanbook.errors import RunError

ANSWERED = "answered"
BUSY = "refused, busy"


@dataclass(frozen=True)
class Target:
    """A service and the requests to it.

    Attributes:
        url: Its address, as entered.
        bodies: Bodies that are posted in turn, each with its headers.
    """

    url: str
    bodies: tuple[tuple[dict[str, str], bytes], ...]

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


class Sender:
    """Posts the bodies of a target in turn over one connection, and records the results."""

    def __init__(self, target: Target, first: int = 0) -> None:
        self.log = RequestLog()
        self.ends: list[float] = []
        self._target, self._turn = target, first
        self._client = Client(target.url, TIMEOUT)

    def send(self) -> str:
        """Post the next body; record and return the outcome."""
        headers, body = self._target.bodies[self._turn % len(self._target.bodies)]
        self._turn += 1
        opened = self._client.connections
        try:
            answer = self._client.send("POST", self._target.path, body, headers)
        except urllib3.exceptions.HTTPError as error:
            timed_out = isinstance(error, urllib3.exceptions.TimeoutError)
            outcome, reason = f"no answer in {TIMEOUT:g} s" if timed_out else "no connection, or one that broke", error
        else:
            busy = answer.status == 503 and "Retry-After" in answer.headers
            outcome = ANSWERED if 200 <= answer.status < 300 else BUSY if busy else f"status {answer.status}"
            reason = answer.text
        self.log.connections += self._client.connections - opened
        self.log.outcomes[outcome] += 1
        if outcome == ANSWERED:
            self.log.seconds.append(answer.seconds)
            self.ends.append(time.perf_counter())
        else:
            self.log.problem = self.log.problem or f"{outcome}: {one_line(reason)}"
        return outcome

    def reset(self) -> None:
        """Discard the records of a warm-up."""
        self.log, self.ends = RequestLog(), []

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def check_service(target: Target) -> None:
    """Connect to the service once.

    Raises:
        RunError: No service listens, or its certificate is wrong.
    """
    try:
        Client(target.url, TIMEOUT).check()
    except (OSError, urllib3.exceptions.HTTPError) as error:
        raise RunError(
            f"no service answers at {target.url} ({one_line(error)}); start it, or correct the address"
        ) from error
