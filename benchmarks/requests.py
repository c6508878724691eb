"""Posts a form with an image to a service again and again, as a browser does, by the library's own client."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import urllib3

from scanbook.benchmark.client import Client
from scanbook.errors import RunError

WARM_UP = 10
"""Number of requests that warm up and do not count."""


def form(field: str, picture: bytes) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a form with one JPEG file."""
    body, kind = urllib3.encode_multipart_formdata({field: ("photo.jpg", picture, "image/jpeg")})
    return body, {"Content-Type": kind}


def median_seconds(address: str, field: str, picture: bytes, count: int) -> float:
    """Return the median time of `count` predictions, from request to answer, in seconds.

    Raises:
        RunError: The service answers with another status than 200.
        urllib3.exceptions.HTTPError: The service does not answer.
    """
    body, headers = form(field, picture)
    with closing(Client(address)) as client:
        answers = [client.send("POST", "/predict", body, headers) for _ in range(count)]
    for answer in answers:
        if answer.status != 200:
            raise RunError(f"the service at {address} answered with status {answer.status}: {answer.text}")
    return float(np.median([answer.seconds for answer in answers]))
