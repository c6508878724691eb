"""Posts images to a service one after the other, as a browser's form does, each over a new connection."""

from __future__ import annotations

import http.client
import time

import numpy as np
import urllib3

WARM_UP = 10
"""Number of requests that warm up and do not count."""


def form(field: str, picture: bytes) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form with one JPEG file."""
    body, kind = urllib3.encode_multipart_formdata({field: ("photo.jpg", picture, "image/jpeg")})
    return body, {"Content-Type": kind}


def send(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """Send a request to a service of this machine and return the answer.

    Raises:
        OSError: The service does not answer, or not with status 200.
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


def is_ready(port: int) -> bool:
    """Return whether a service answers."""
    try:
        send(port, "GET", "/")
    except OSError:
        return False
    return True


def median_seconds(port: int, path: str, field: str, picture: bytes, count: int) -> float:
    """Return the median time of `count` requests, from request to answer, in seconds."""
    body, headers = form(field, picture)
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        send(port, "POST", path, body, headers)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
