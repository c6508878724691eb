"""One image after the other, posted to a service as a browser's form does, each over a connection of its own."""

from __future__ import annotations

import http.client
import time

import numpy as np
import urllib3

WARM_UP = 10
"""Requests before those that count."""


def form(field: str, picture: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form with one JPEG file."""
    body, kind = urllib3.encode_multipart_formdata({field: ("photo.jpg", picture, "image/jpeg")})
    return body, {"Content-Type": kind}


def ask(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """The answer of a service of this machine.

    Raises:
        OSError: It does not answer, or not with status 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"the service on port {port} broke off: {type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"the service on port {port} answered {method} {path} with status {response.status}")
    return content


def answers(port: int) -> bool:
    """Whether a service answers yet."""
    try:
        ask(port, "GET", "/")
    except OSError:
        return False
    return True


def median_seconds(port: int, path: str, field: str, picture: bytes, count: int) -> float:
    """Median time of `count` requests, from request to answer, in seconds."""
    body, headers = form(field, picture)
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        ask(port, "POST", path, body, headers)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))
